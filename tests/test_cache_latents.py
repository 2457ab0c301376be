"""The latent cache of stage 1: the samples of the loader, encoded once, and the same losses from them."""

import json
import multiprocessing
import signal
import time
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from finetune import train
from finetune.checks import latent_folder, open_cache
from finetune.data.dataset import PairDataset
from finetune.recipe import load_recipe
from finetune.scripts import cache_latents
from tests.media import clip
from tests.tiny import random_pipeline
from vsr import load_pipeline
from vsr.errors import UsageError

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "configs" / "toy_s1.yaml"


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """Accelerate keeps the precision of a process for good."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def flags(tmp_path):
    """Overrides for three clips, a toy model and a cache in ``tmp_path``."""
    (tmp_path / "videos").mkdir()
    for i in range(3):
        clip(tmp_path / "videos" / f"{i}.mp4", "-vf", f"hue=h={90 * i}", size="64x64", seconds="0.6")
    random_pipeline().save_pretrained(tmp_path / "model")
    data = [f"data.videos={tmp_path / 'videos'}", "data.height=32", "data.width=32", "data.workers=0"]
    train_flags = ["train.steps=5", "train.log_every=1", "train.warmup_steps=1"]
    return [*data, *train_flags, f"init_from={tmp_path / 'model'}", f"output_dir={tmp_path / 'run'}"]


@pytest.fixture
def cached(flags, tmp_path):
    """The same with the cache made: two samples of each clip."""
    flags = [*flags, f"data.latent_cache={tmp_path / 'cache'}"]
    assert cache_latents.main([str(RECIPE), "--degradations", "2", *flags]) == 0
    return flags


def ignore_sigterm(ready):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready.set()
    time.sleep(600)


def test_a_worker_that_hangs_does_not_keep_the_script_from_ending(flags, tmp_path, monkeypatch):
    ready = multiprocessing.Event()
    worker = multiprocessing.Process(target=ignore_sigterm, args=(ready,), daemon=True)

    def hang(*_):
        worker.start()
        ready.wait(60)
        raise RuntimeError("DataLoader timed out")

    monkeypatch.setattr(cache_latents, "cache", hang)
    with pytest.raises(RuntimeError, match="timed out"):
        cache_latents.main([str(RECIPE), *flags, f"data.latent_cache={tmp_path / 'cache'}"])
    assert not worker.is_alive()


def losses(run):
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [entry["latent/loss"] for entry in entries]


def folder_of(flags):
    return latent_folder(load_recipe(RECIPE, flags))


def test_the_cache_holds_the_samples_of_the_loader(cached, tmp_path):
    recipe = load_recipe(RECIPE, cached)
    data, pipe = PairDataset(recipe.data, recipe.train.seed), load_pipeline(tmp_path / "model", "float32", "cpu")
    files = sorted(folder_of(cached).glob("*.safetensors"))
    assert [file.stem for file in files] == [f"{n:06d}" for n in range(6)]
    for n, file in enumerate(files):
        z, x = load_file(file), data["video", n]
        with torch.no_grad():
            assert torch.equal(z["z_lq"], pipe.encode(x["x_lq"][None])[0])
            assert torch.equal(z["z_gt"], pipe.encode(x["x_gt"][None])[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_losses_are_those_of_training_without_it(precision, flags, tmp_path):
    flags = [*flags, f"train.precision={precision}"]
    cached = [*flags, f"data.latent_cache={tmp_path / 'cache'}"]
    assert cache_latents.main([str(RECIPE), "--degradations=2", *cached]) == 0
    assert train.main([str(RECIPE), *flags]) == 0
    assert train.main([str(RECIPE), *cached, f"output_dir={tmp_path / 'from_cache'}"]) == 0
    assert losses(tmp_path / "from_cache") == pytest.approx(losses(tmp_path / "run"), rel=1e-6)


def test_samples_come_again_in_another_order_and_a_resumed_run_sees_them_too(cached, tmp_path):
    assert train.main([str(RECIPE), *cached, "train.steps=14", f"output_dir={tmp_path / 'whole'}"]) == 0
    assert train.main([str(RECIPE), *cached, "train.steps=8"]) == 0
    assert train.main([str(RECIPE), *cached, "train.steps=14", "resume=latest", "data.workers=2"]) == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_a_crop_is_the_same_part_of_both_latents_another_one_whenever_the_sample_comes_again(cached):
    recipe = load_recipe(RECIPE, [*cached, "data.latent_crop=16"])
    part, whole = open_cache(recipe), open_cache(load_recipe(RECIPE, cached))
    places = set()
    for n in range(60):
        cropped, full = part["video", n], whole["video", n]
        both = torch.stack([full["z_lq"], full["z_gt"]])
        found = [
            (y, x)
            for y in range(3)
            for x in range(3)
            if torch.equal(both[..., y : y + 2, x : x + 2], torch.stack([cropped["z_lq"], cropped["z_gt"]]))
        ]
        assert len(found) == 1
        places |= set(found)
    assert len(places) == 9


def test_a_crop_does_not_change_the_cache_and_training_takes_it(cached):
    assert folder_of([*cached, "data.latent_crop=16"]) == folder_of(cached)
    assert train.main([str(RECIPE), *cached, "data.latent_crop=16"]) == 0


def test_another_latent_seed_gives_another_order_and_other_parts_of_the_same_cache(cached):
    def seen(numbers, *flags):
        samples = open_cache(load_recipe(RECIPE, [*cached, *flags]))
        return torch.stack([samples["video", n]["z_gt"] for n in numbers])

    for numbers, flags in ((range(6, 18), []), (range(6), ["data.latent_crop=16"])):  # order; parts in the first turn
        assert torch.equal(seen(numbers, *flags), seen(numbers, *flags, "data.latent_seed=42"))  # train.seed
        assert not torch.equal(seen(numbers, *flags), seen(numbers, *flags, "data.latent_seed=3"))


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("data.latent_crop=24", "multiple of 16"),
        ("data.latent_crop=48", "at most 32x32"),
        ("data.latent_cache=null", "set latent_cache"),
        ("data={latent_seed: 1, videos: x, frames: 9, height: 32, width: 32}", "latent_seed: orders"),
    ],
)
def test_a_crop_that_cannot_be_is_refused(flag, message, cached):
    with pytest.raises(UsageError, match=message):
        load_recipe(RECIPE, [*cached, "data.latent_crop=16", flag])


def test_processes_share_the_work_and_an_interrupted_one_goes_on(flags, cached, tmp_path, monkeypatch):
    elsewhere = [*flags, f"data.latent_cache={tmp_path / 'shared'}"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, left in (("0", 3), ("1", 6)):
        monkeypatch.setenv("RANK", rank)
        assert cache_latents.main([str(RECIPE), "--degradations=2", *elsewhere]) == 0
        assert len(list(folder_of(elsewhere).glob("*.safetensors"))) == left
    lost = folder_of(elsewhere) / "000003.safetensors"  # of the process with RANK 1
    before = lost.read_bytes()
    lost.unlink()
    assert cache_latents.main([str(RECIPE), "--degradations=2", *elsewhere]) == 0
    assert lost.read_bytes() == before
    for file in folder_of(cached).glob("*.safetensors"):
        assert (folder_of(elsewhere) / file.name).read_bytes() == file.read_bytes()


def test_a_partial_cache_is_an_error_that_names_the_command(cached, caplog):
    (folder_of(cached) / "000004.safetensors").unlink()
    assert train.main([str(RECIPE), *cached]) == 3
    assert "1 of 6 samples are missing" in caplog.text
    assert "finetune.scripts.cache_latents" in caplog.text


def test_a_damaged_sample_is_named(cached, caplog):
    path = folder_of(cached) / "000001.safetensors"
    path.write_bytes(path.read_bytes()[:9])
    assert train.main([str(RECIPE), *cached]) == 3
    assert f"{path}: is damaged" in caplog.text and "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "change", ["data.height=48", "train.seed=1", "data.degradation=dove", "train.precision=bf16", "data.scale=2"]
)
def test_a_cache_of_another_recipe_is_not_used(change, cached, caplog):
    assert train.main([str(RECIPE), *cached, change]) == 3
    assert "no latents of this recipe" in caplog.text


def test_a_cache_of_another_vae_or_of_other_clips_is_not_used(cached, tmp_path, caplog):
    random_pipeline(seed=1).save_pretrained(tmp_path / "other")
    assert train.main([str(RECIPE), *cached, f"init_from={tmp_path / 'other'}"]) == 3
    clip(tmp_path / "videos" / "new.mp4", size="64x64", seconds="0.6")
    assert train.main([str(RECIPE), *cached]) == 3
    assert caplog.text.count("no latents of this recipe") == 2


def test_the_number_of_workers_and_the_learning_rate_do_not_matter(cached):
    assert folder_of([*cached, "data.workers=4", "train.lr=1.0"]) == folder_of(cached)


def test_stage_2_and_a_missing_folder_are_refused():
    with pytest.raises(UsageError, match="latent_cache: dove_pixel trains on pixels"):
        load_recipe(ROOT / "configs" / "toy_s2.yaml", ["data.latent_cache=somewhere"])
    assert cache_latents.main([str(RECIPE)]) == 2
