"""The small model: what the script builds, free of paths, and as good as its card says; the demo that runs it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.reconstruction import over_all, reconstruction_psnr
from finetune.data.degradation import apply_plan, load_degradation, sample_plan
from finetune.scripts import build_tiny, demo, make_held_out
from finetune.scripts.make_demo import degrade
from finetune.scripts.tiny_model import untrained_pipeline
from tests.media import clip
from vsr import codec, load_pipeline
from vsr.frames import to_lq

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "pretrained_models" / "tiny"
CLIP = "coffee_0"


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline(FOLDER, torch.float32, "cpu")


@pytest.fixture(scope="module")
def x_gt():
    shot = next(shot for shot in make_held_out.shots() if shot.name == CLIP)
    return shot.frames(make_held_out.SIZE, make_held_out.FRAMES), shot.generator()


def row_of(table: str) -> list[float]:
    """The numbers of the clip's row below the first heading that holds ``table``."""
    card = (FOLDER / "README.md").read_text()
    row = re.search(rf"\| {CLIP} \|(.*)", card[card.index(table) :])[1]
    return [float(number) for number in re.findall(r"[+-]?\d+\.\d+", row)]


def test_it_is_what_the_script_builds(pipe):
    built = untrained_pipeline()
    for part in ("vae", "transformer"):
        shapes = [{k: v.shape for k, v in getattr(p, part).state_dict().items()} for p in (pipe, built)]
        assert shapes[0] == shapes[1]
    assert pipe.grid == built.grid


def test_the_degradation_of_the_last_round_changes_its_noise_from_frame_to_frame():
    grey, uneven = np.full((9, 64, 64, 3), 128, np.uint8), {}
    for preset in ("realbasicvsr", "configs/tiny/uneven_noise.yaml"):
        config = load_degradation(ROOT / preset if "/" in preset else preset)
        clips = (apply_plan(grey, sample_plan(config, np.random.default_rng(seed), 9, 64, 64)) for seed in range(24))
        noise = [clip.std(axis=(1, 2, 3)) for clip in clips]
        uneven[preset] = np.median([np.sqrt(max(each) ** 2 - np.median(each) ** 2) for each in noise])
    assert uneven["configs/tiny/uneven_noise.yaml"] > 1.4 * uneven["realbasicvsr"]


def test_it_is_small_and_names_no_path():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    assert {path.suffix for path in files} == {".json", ".md", ".safetensors"}
    for config in FOLDER.rglob("*.json"):
        assert "_name_or_path" not in json.loads(config.read_text())
        assert not re.search(r'"/|\.\./', config.read_text())


def test_the_mean_of_two_models_lies_between_their_weights(tmp_path):
    for name, value in (("before", 1.0), ("after", 2.0)):
        built = untrained_pipeline()
        torch.nn.init.constant_(built.transformer.proj_out.bias, value)
        built.save_pretrained(tmp_path / name)
    assert build_tiny.averaged(tmp_path / "before", tmp_path / "after", tmp_path / "mean") == 0
    mean = load_pipeline(tmp_path / "mean", torch.float32, "cpu")
    assert mean.transformer.proj_out.bias.unique().item() == pytest.approx(0.25 * 1.0 + 0.75 * 2.0)


def test_the_vae_is_as_good_as_the_card_says(pipe, x_gt):
    psnr = reconstruction_psnr(pipe.vae, list(x_gt[0]))
    measured = [over_all(psnr), psnr[0].item(), psnr[-1].item()]
    assert measured == pytest.approx(row_of("first frame"), abs=0.2)  # those went through a file
    assert psnr.max() - psnr.min() < 1  # it does not drift: its first training had been on three frames


def test_it_restores_as_well_as_the_card_says(pipe, x_gt):
    frames, generator = x_gt
    x_lq = degrade(frames, generator)
    size = frames.shape[1:3]
    bicubic = (to_lq(list(x_lq), size, size, "bicubic")[0].movedim(0, -1).numpy() * 127.5 + 127.5).round()
    restored = pipe(x_lq).frames
    psnr = [
        np.mean(
            [10 * np.log10(255**2 / np.mean((f.astype(float) - g) ** 2)) for f, g in zip(clip, frames, strict=True)]
        )
        for clip in (bicubic, restored)
    ]
    assert psnr == pytest.approx(row_of("shift of red")[:2], abs=0.2)
    assert psnr[1] > psnr[0]
    colours = [clip.mean(axis=(0, 1, 2)) for clip in (restored, frames)]
    assert np.abs(colours[0] - colours[1]).max() < 2
    unsteady = [np.abs(np.diff(clip.astype(float) - frames, axis=0)).mean() for clip in (bicubic, restored)]
    assert unsteady[1] < unsteady[0]


@torch.no_grad()
def test_the_scaling_factor_is_that_of_this_vae(pipe, x_gt):
    x = torch.from_numpy(x_gt[0][:3])
    z = codec.encode(pipe.vae, x.movedim(3, 0)[None].float() / 127.5 - 1)
    assert 0.8 < z.square().mean().sqrt() < 1.25


def test_the_demo_says_where_its_results_are(tmp_path, monkeypatch, capsys):
    for folder, size in (("LQ-Video", "32x24"), ("GT-Video", "128x96")):
        (tmp_path / folder).mkdir()
        clip(tmp_path / folder / "clip.mp4", size=size)
    monkeypatch.setattr(demo, "DEMO", tmp_path)
    output = tmp_path / "out"
    assert demo.main([f"--output_path={output}", f"--model_path={FOLDER}"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"PSNR.*SSIM.*frame difference", said)
    for place in (f"{output}/compare/*.png", f"{output}/compare/*.mp4", f"{output}/*.mp4"):
        assert place in said
        assert list(tmp_path.glob(str(Path(place).relative_to(tmp_path))))
