"""Many files: what is never overwritten, what counts as done, what a failure leaves, comparisons and scores."""

import gc
import json
import os
import shutil
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from tests.media import clip, pixels_of
from tests.test_loading import add_text_encoder, fake_hub, publish_as_cogvideox
from tests.test_pipelines import lora_file
from tests.tiny import identity_pipeline, random_pipeline
from vsr import jobs, prompts, restore_video
from vsr.errors import InputError, UsageError
from vsr.pipelines import dove
from vsr.report import Report, fingerprint
from vsr.video_io import OutputOptions


def report_of(tmp_path):
    return json.loads((tmp_path / "out" / "report.json").read_text())["files"]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_as_it_is_published_is_restored(tmp_path, restore, model):
    publish_as_cogvideox(model)
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    assert restore("--dry_run") == 0
    assert restore() == 0


def test_a_source_is_never_overwritten_whatever_the_flags_say(tmp_path, restore):
    source = clip(tmp_path / "in" / "one.mp4", size="32x24")
    before = source.read_bytes()
    assert restore("--overwrite", output=tmp_path / "in") == 2
    assert source.read_bytes() == before
    walk = tmp_path / "in" / "walk"
    walk.mkdir()
    for i, frame in enumerate(pixels_of(source)):
        cv2.imwrite(str(walk / f"{i:06d}.png"), frame)
    count = len(names_in(walk))
    assert restore("--overwrite", "--png_save", source=walk, output=tmp_path / "in") == 2
    assert len(names_in(walk)) == count
    with pytest.raises(UsageError, match="overwrite the source"):
        restore_video(source, source, identity_pipeline(), scale=1)


def test_a_folder_that_is_named_as_the_result_keeps_what_is_in_it(tmp_path):
    source = clip(tmp_path / "one.mp4", size="32x24")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "precious.txt").write_text("x")
    with pytest.raises(UsageError, match="other files than frames"):
        restore_video(source, folder, identity_pipeline(), scale=1)
    with pytest.raises(UsageError, match="other files than frames"):
        restore_video(source, folder, identity_pipeline(), scale=1, output=OutputOptions(png=True))
    assert names_in(folder) == ["precious.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="cannot write"):
        restore_video(source, tmp_path / "empty", identity_pipeline(), scale=1)


def test_the_fingerprint_sees_weights_and_configuration_but_not_a_stored_embedding(model):
    before = fingerprint(model)
    prompts.write_embedding(model, "", torch.zeros(1, 2, 3))
    (model / "vae" / ".ipynb_checkpoints").mkdir()
    for name in (".ipynb_checkpoints/config.json", ".DS_Store", "._config.json", "notes.txt"):
        (model / "vae" / name).write_text("x")
    assert fingerprint(model) == before
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    assert fingerprint(model) != before


def test_the_fingerprint_sees_every_tensor(model):
    """Fine-tuning may change a few small parts of a large file."""
    path = model / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors, seen = load_file(path), {fingerprint(model)}
    for name in tensors:
        save_file({**tensors, name: tensors[name] + 1}, path)
        seen.add(fingerprint(model))
    assert len(seen) == len(tensors) + 1


@pytest.mark.parametrize("content", [b"", b"x" * 5, b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{}"])
def test_the_fingerprint_of_a_damaged_file_is_left_to_whoever_loads_it(model, content):
    (model / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    assert fingerprint(model)


def test_prompt_and_lora_count_as_settings(tmp_path, restore, model, capsys):
    add_text_encoder(model)
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    file = tmp_path / "prompts.json"
    for prompt, code in (("a cat", 0), ("a cat", 0), ("a", 2)):
        file.write_text(json.dumps({"one.mp4": prompt}))
        assert restore(f"--input_json={file}") == code
    lora = lora_file(tmp_path / "lora.safetensors", None)
    assert restore(f"--lora_path={lora}", "--overwrite") == 0
    assert restore(f"--lora_path={lora}") == 0
    lora_file(lora, {"other": "content"})
    assert restore(f"--lora_path={lora}") == 2


def test_the_first_run_with_a_text_encoder_does_not_make_the_second_one_redo_it(tmp_path, restore, model):
    shutil.rmtree(model / prompts.FOLDER)
    add_text_encoder(model)
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    assert restore() == 0
    written = (tmp_path / "out" / "one.mp4").stat().st_mtime_ns
    assert restore() == 0
    assert (tmp_path / "out" / "one.mp4").stat().st_mtime_ns == written


def test_a_failed_file_does_not_keep_its_tensors_alive(tmp_path, restore, monkeypatch):
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    clip(tmp_path / "in" / "two.mp4", size="32x24")
    windows = []

    def exhausted(self, x_lq, *args):
        windows.append(weakref.ref(x_lq))
        gc.collect()
        assert len(windows) == 1 or windows[0]() is None
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(dove.DOVEPipeline, "restore", exhausted)
    assert restore() == 7
    assert len(windows) > 2  # with every plan there is, for each of the files
    assert all("--size" in entry["error"] for entry in report_of(tmp_path).values())


def test_a_model_that_does_not_fit_names_offload(tmp_path, restore, monkeypatch, caplog):
    def full(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    clip(tmp_path / "in" / "one.mp4", size="32x24")
    monkeypatch.setattr(dove.DOVEPipeline, "to", full)
    assert restore() == 4
    assert "--is_cpu_offload" in caplog.text


def test_a_name_that_is_not_unicode_does_not_stop_the_batch(tmp_path, restore):
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    (tmp_path / "in" / os.fsdecode(b"\xff\xfe.mp4")).write_text("no video")
    assert restore() == 7
    assert (tmp_path / "out" / "one.mp4").is_file()


def test_a_lora_of_another_model_is_an_error(tmp_path, restore):
    from safetensors.torch import save_file

    clip(tmp_path / "in" / "one.mp4", size="32x24")
    save_file({"unet.x.lora_A.weight": torch.ones(2, 2)}, tmp_path / "other.safetensors")
    assert restore(f"--lora_path={tmp_path / 'other.safetensors'}") == 5
    assert not (tmp_path / "out" / "one.mp4").exists()


def test_a_folder_of_frames_with_the_notes_of_a_desktop_is_replaced_and_one_with_more_is_not(tmp_path, restore):
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    assert restore("--png_save") == 0
    frames = tmp_path / "out" / "one"
    (frames / ".DS_Store").touch()
    assert restore("--png_save", "--overwrite", "--seed=1") == 0
    assert not (frames / ".DS_Store").exists()
    (frames / ".git").mkdir()
    assert restore("--png_save", "--overwrite", "--seed=2") == 2
    assert len(names_in(frames)) == 11


def test_a_result_that_another_process_finishes_meanwhile_is_not_foreign(tmp_path, restore, monkeypatch):
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    results = iter([None, {"rank": 1, "facts": {}}])  # open at first, then restored by rank 1

    class ReadBefore(Report):
        def __init__(self, folder, lock):
            super().__init__(folder, lock)
            (folder / "one.mp4").touch()

    monkeypatch.setattr("vsr.batch.Report", ReadBefore)
    monkeypatch.setattr("vsr.shared_file.SharedFile.result", property(lambda self: next(results, {"rank": 1})))
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert restore() == 0


def test_a_model_from_the_hub_is_downloaded_and_an_interrupted_run_of_it_goes_on(tmp_path, restore, model, monkeypatch):
    add_text_encoder(model)
    shutil.rmtree(model / prompts.FOLDER)  # as CogVideoX is published
    fake_hub(model, tmp_path / "cache", monkeypatch)
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    assert restore("--model_path=someone-on-the-hub/model") == 0
    clip(tmp_path / "in" / "two.mp4", size="32x24")
    assert restore("--model_path=someone-on-the-hub/model") == 0
    assert report_of(tmp_path).keys() == {"one.mp4", "two.mp4"}


def test_an_unreadable_sub_folder_costs_only_itself(tmp_path, restore, monkeypatch):
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    (tmp_path / "in" / "locked").mkdir()
    listed = Path.iterdir

    def locked(self):
        if self.name == "locked":
            raise PermissionError(13, "Permission denied")
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", locked)
    assert restore() == 7
    assert (tmp_path / "out" / "one.mp4").is_file()


def test_a_file_that_cannot_be_cut_as_asked_costs_only_itself(tmp_path, restore, caplog):
    tiles = ("--tile_size_hw", "32", "32", "--overlap_hw", "32", "32")
    clip(tmp_path / "in" / "wide.mp4", size="48x16")
    assert restore(*tiles) == 2
    assert "wide.mp4: a tile of 32 pixels is too small for an overlap of 32" in caplog.text
    clip(tmp_path / "in" / "small.mp4", size="16x16")
    assert restore(*tiles) == 7
    assert {name: entry["status"] for name, entry in report_of(tmp_path).items()} == {
        "small.mp4": "done",
        "wide.mp4": "failed",
    }


def test_settings_are_given_whole_or_by_field_but_not_both(tmp_path):
    from vsr import RestoreSettings

    source = clip(tmp_path / "one.mp4", size="32x24")
    with pytest.raises(UsageError, match="not both"):
        restore_video(source, tmp_path / "out.mp4", identity_pipeline(), RestoreSettings(), scale=2)


def test_the_offloaded_transformer_goes_and_the_vae_stays():
    pipe = random_pipeline()
    pipe.enable_model_cpu_offload(device="cpu")
    moved = []
    pipe.vae.to = lambda *args, **kwargs: moved.append(args)
    x_lq = torch.zeros(1, 3, 9, 32, 32)
    assert_close(pipe.restore(x_lq), pipe.restore(x_lq))
    assert moved == []


def test_an_outcome_says_7_only_when_some_of_several_failed():
    outcome = jobs.Outcome()
    outcome.fail("a", InputError("x"))
    assert outcome.exit_code == 3
    outcome.done.append("b")
    assert outcome.exit_code == 7


def test_results_may_lie_among_the_images_and_the_same_command_goes_on(tmp_path, restore):
    for i in range(2):
        cv2.imwrite(str(tmp_path / "in" / f"{i:04d}.png"), np.full((24, 32, 3), 90 * i, np.uint8))
    flags = ["--image_folder=images", f"--output_path={tmp_path / 'in' / 'out'}", "--compare"]
    for source in (tmp_path / "in", f"{tmp_path / 'in'}/*"):
        assert restore(*flags, source=source) == 0
        (tmp_path / "in" / "out" / "0001.png").unlink()
        assert restore(*flags, source=source) == 0
    assert names_in(tmp_path / "in" / "out") == ["0000.png", "0001.png", "compare", "report.json"]
