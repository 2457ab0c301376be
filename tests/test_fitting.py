"""Out of memory in the middle: a smaller plan, the same frames, and nothing twice that was finished."""

import json
import logging
from contextlib import suppress

import numpy as np
import pytest
import torch

import inference_script
from tests.media import clip, pixels_of
from tests.tiny import identity_pipeline, numbered_clip, random_pipeline
from vsr import RestoreSettings, restore_frames
from vsr.errors import OutOfMemoryError
from vsr.fitting import Fitting, features_of
from vsr.memory import is_out_of_memory
from vsr.offload import could_pin, offload_transformer, pin, pinned_bytes, power_of_two
from vsr.pipelines import dove
from vsr.plans import Plan
from vsr.restore_file import restore_video
from vsr.settings import make_layout
from vsr.vae import WHOLE, Memory


class SmallDevice:
    """Stands in front of a pipeline as a device that holds so many values of a window in one piece, in strips more."""

    def __init__(self, pipe, holds, strips=1):
        self._pipe, self._holds, self._strips = pipe, holds, strips
        self.config, self.grid, self.calls = pipe.config, pipe.grid, []
        if hasattr(pipe, "vae_memory"):
            self.vae, self.vae_memory = pipe.vae, pipe.vae_memory

    def restore(self, x_lq, *args):
        memory = getattr(self, "vae_memory", WHOLE)
        needed = x_lq.numel() / (self._strips if memory.strip_rows else 1)
        self.calls.append((tuple(x_lq.shape[-3:]), memory.strip_rows, needed <= self._holds))
        if needed > self._holds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self._pipe.vae_memory = memory
        return self._pipe.restore(x_lq, *args)


def restored(pipe, frames, **settings):
    return np.stack(list(restore_frames(pipe, frames, RestoreSettings(scale=1, scene_cut="off", **settings))))


def test_strips_are_tried_first_and_give_the_same_pixels(caplog):
    frames, pipe = numbered_clip(25, 48, 64), random_pipeline()
    whole = restored(pipe, frames, window=17)
    small = SmallDevice(random_pipeline(), holds=3 * 17 * 48 * 64 / 2, strips=4)
    assert np.abs(restored(small, frames, window=17).astype(int) - whole).max() <= 1  # of rounding
    assert [call[1:] for call in small.calls] == [(None, False), (6, True), (6, True)]
    assert "strips of 6 rows" in caplog.text
    assert "changes pixels" not in caplog.text


def test_a_network_in_training_stays_where_it_is(monkeypatch):
    monkeypatch.setattr("vsr.fitting.features_of", lambda *_: {"has_strips": True, "spills": True})
    small = SmallDevice(random_pipeline(), holds=3 * 9 * 32 * 32)
    settings = RestoreSettings(scale=1, scene_cut="off", window=17)
    with suppress(torch.OutOfMemoryError):
        Fitting(small, may_offload=False).restore_window(settings, None, 0, list(numbered_clip(17, 64, 64)))
    assert len(small.calls) > 2 and not getattr(small, "transformer_offloaded", False)


def test_every_frame_arrives_whatever_becomes_smaller(caplog):
    frames = numbered_clip(50, 128, 192)
    small = SmallDevice(identity_pipeline(), holds=3 * 9 * 80 * 112)
    assert np.abs(restored(small, frames).astype(int) - frames).max() <= 1
    done = [shape for shape, _, fits in small.calls if fits]
    assert max(np.prod(shape) for shape in done) <= 9 * 80 * 112
    assert "changes pixels" in caplog.text


def test_finished_windows_are_not_restored_again_and_the_plan_is_kept():
    frames = numbered_clip(57, 48, 64)

    class Fills(SmallDevice):
        def restore(self, x_lq, *args):
            if len(self.calls) == 1:  # the second window finds less memory than the first
                self._holds = 3 * 17 * 48 * 64
            return super().restore(x_lq, *args)

    small = Fills(identity_pipeline(), holds=3 * 33 * 48 * 64)
    assert np.abs(restored(small, frames).astype(int) - frames).max() <= 1
    lengths = [(shape[0], fits) for shape, _, fits in small.calls]
    assert lengths == [(33, True), (33, False), (17, True), (17, True), (17, True)]


def test_the_failed_tensors_are_gone_before_the_next_attempt():
    import gc
    import weakref

    seen = []

    class Watched(SmallDevice):
        def restore(self, x_lq, *args):
            gc.disable()  # references only: a cycle would keep a device full
            assert all(reference() is None for reference in seen)
            seen.append(weakref.ref(x_lq))
            return super().restore(x_lq, *args)

    try:
        restored(Watched(identity_pipeline(), holds=3 * 9 * 48 * 64), numbered_clip(17, 48, 64))
    finally:
        gc.enable()
    assert len(seen) > 1


def test_when_nothing_helps_the_failure_comes_out_and_other_errors_at_once(tmp_path):
    source = clip(tmp_path / "one.mp4", size="32x24")
    with pytest.raises(OutOfMemoryError, match="even cut smaller"):
        restore_video(source, tmp_path / "out.mp4", SmallDevice(identity_pipeline(), holds=1), scale=1)

    class Broken(SmallDevice):
        def restore(self, *args):
            self.calls.append(1)
            raise RuntimeError("shapes do not match")

    broken = Broken(identity_pipeline(), holds=1)
    with pytest.raises(RuntimeError, match="shapes"):
        restored(broken, numbered_clip(9, 16, 16))
    assert broken.calls == [1]


def test_memory_that_the_user_set_is_used_until_it_is_too_much():
    pipe = SmallDevice(random_pipeline(), holds=10**9)
    pipe.vae_memory = Memory(strip_rows=5)
    restored(pipe, numbered_clip(9, 32, 32))
    assert [call[1] for call in pipe.calls] == [5]


def test_the_offloaded_transformer_is_where_it_is_needed():
    """On a CPU, where host and device are one; a stand-in for a GPU."""
    pipe, other = random_pipeline(), random_pipeline()
    offload_transformer(other, torch.device("cpu"))
    x_lq = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    for _ in range(2):
        torch.testing.assert_close(other.restore(x_lq), pipe.restore(x_lq))
    assert other.transformer.transformer_blocks[0]._diffusers_hook is not None


def test_pinned_weights_are_the_same_and_take_what_is_counted(monkeypatch):
    monkeypatch.setattr("vsr.offload.PIECE", 1 << 14)
    network, made = torch.nn.Sequential(torch.nn.Linear(40, 50), torch.nn.BatchNorm1d(50), torch.nn.Linear(50, 3)), []
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    sizes = [tensor.nbytes for tensor in [*network.parameters(), *network.buffers()]]

    def make(size):
        made.append(size)
        return torch.empty(size, dtype=torch.uint8)

    pin(network, make)
    assert made == [1 << 14] == [pinned_bytes(sizes)]
    monkeypatch.setattr("vsr.offload.PIECE", 1 << 10)
    made.clear()
    pin(network, make)
    assert made == [8192] + 5 * [1024]  # 8000; 200 + 200; 200; 600; 12 + 200; 200 + 8 bytes, from multiples of 512 on
    assert pinned_bytes(sizes) == sum(made)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(("size", "taken"), [(0, 1), (1, 1), (2, 2), (3, 4), (18_874_368, 1 << 25), (1 << 30, 1 << 30)])
def test_pinned_memory_comes_in_powers_of_two(size, taken):
    assert power_of_two(size) == taken


def test_where_nothing_can_be_pinned_the_transformer_is_offloaded_all_the_same(monkeypatch, caplog):
    def refuse(network):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr("vsr.offload.pin", refuse)
    assert not could_pin(torch.nn.Linear(2, 2))
    assert "weights travel to the device more slowly" in caplog.text
    monkeypatch.setattr("vsr.offload.pin", lambda network: None)
    assert could_pin(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("words", "is_memory"),
    [
        ("CUDA error: out of memory", True),
        ("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_words_of_failed_allocations(words, is_memory):
    assert is_out_of_memory(RuntimeError(words)) == is_memory


def test_with_diffusers_own_tiles_the_transformer_can_still_go_to_the_host():
    pipe = random_pipeline()
    pipe.vae.enable_tiling()
    assert features_of(pipe, torch.device("cuda")) == {"has_strips": False, "spills": True}
    assert features_of(identity_pipeline(), torch.device("cuda")) == {"has_strips": False, "spills": False}


def test_a_transformer_that_diffusers_offloads_already_is_left_alone():
    pipe = random_pipeline()
    pipe.enable_model_cpu_offload(device="cpu")
    layout = make_layout(RestoreSettings(scale=1), pipe.grid, 32, 32, 4)
    assert Fitting(pipe).plan_of(layout) == Plan(offload=True)


def test_a_plan_offloads_for_good_and_leaves_the_memory_of_the_vae_as_it_was():
    pipe = random_pipeline()
    settings, frames = RestoreSettings(scale=1), list(numbered_clip(9, 32, 32))
    for _ in range(2):
        fitting = Fitting(pipe)
        fitting.start(make_layout(settings, pipe.grid, 32, 32, 4), Plan(strip_rows=4, host_caches=True, offload=True))
        fitting.restore_window(settings, None, 0, frames)
        assert pipe.transformer_offloaded
        assert pipe.vae_memory == WHOLE


@pytest.fixture
def restore(tmp_path):
    """The script on one clip of 50 frames of 64x48."""
    random_pipeline(levels=3).save_pretrained(tmp_path / "model")
    clip(tmp_path / "one.mp4", size="32x24", seconds="2")

    def run(*flags):
        base = [f"--input_dir={tmp_path / 'one.mp4'}", f"--model_path={tmp_path / 'model'}", "--upscale=2"]
        return inference_script.main([*base, f"--output_path={tmp_path / 'out'}", *flags])

    return run


def report_of(tmp_path):
    return json.loads((tmp_path / "out" / "report.json").read_text())["files"]["one.mp4"]


def test_the_script_finishes_with_a_smaller_plan_and_names_it(tmp_path, restore, monkeypatch, caplog):
    original = dove.DOVEPipeline.restore

    def small(self, x_lq, *args):
        if x_lq.shape[2] > 17:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, x_lq, *args)

    monkeypatch.setattr(dove.DOVEPipeline, "restore", small)
    assert restore() == 0
    assert len(pixels_of(tmp_path / "out" / "one.mp4")) == 50
    assert "windows of 17 frames" in report_of(tmp_path)["plan"]
    assert any("out of memory in window 0" in note for note in report_of(tmp_path)["notes"])
    assert "windows of 17 frames" in caplog.text
    assert restore() == 0  # what the planner chose is no setting: the file is done


def test_a_limit_chooses_a_smaller_plan_and_one_that_nothing_fits_into_is_4_before_any_weights(
    tmp_path, restore, monkeypatch, capsys, caplog
):
    caplog.set_level(logging.INFO)
    assert restore("--dry_run", "--json") == 0
    (plan,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert plan["kind"] == "exact"
    limit = int(plan["device_bytes"] / 0.9 / 1e6)  # just too little
    assert restore(f"--max_memory={limit}MB") == 0
    assert "strips" in report_of(tmp_path)["plan"]
    monkeypatch.setattr("vsr.pipelines.load_pipeline", lambda *a: pytest.fail("loaded"))
    assert restore("--max_memory=1MB", "--overwrite", "--no-resume") == 4
    assert "do not fit" in caplog.text
    assert restore("--max_memory=1MB", "--dry_run") == 4
    with pytest.raises(SystemExit) as wrong:
        restore("--max_memory=lots")
    assert wrong.value.code == 2


def test_a_dry_run_needs_no_weights(tmp_path, restore, capsys):
    for file in (tmp_path / "model").glob("*/*.safetensors"):
        if file.parent.name in ("vae", "transformer"):
            file.unlink()
    assert restore("--dry_run") == 0
    said = capsys.readouterr().out
    assert "exact: everything at once" in said
    assert "GB" in said
    assert "about 0:00:" in said


def test_a_plan_holds_for_its_file_and_what_was_too_much_for_all():
    pipe = random_pipeline()
    fitting, layout = Fitting(pipe), make_layout(RestoreSettings(scale=1), pipe.grid, 48, 64, 4)
    fitting.start(layout, Plan(strip_rows=6, window=9))
    assert fitting.plan_of(layout).window == 9
    fitting.start(layout, Plan())  # a shorter file of the same size
    assert fitting.plan_of(layout) == Plan()
    fitting._step_down(layout, 3, Plan(), Plan(strip_rows=6))
    (note,) = fitting.take_notes()
    assert note.startswith("out of memory in window 3 with everything at once on the device; from there on: the VAE in")
    fitting.start(layout, Plan())
    assert fitting.plan_of(layout) == Plan(strip_rows=6)
    assert fitting.take_notes() == ["planned: the VAE in strips of 6 rows"]
    assert fitting.take_notes() == []
