"""The VAE of the small model: free of paths, what the script builds, and as good as its card says."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from benchmarks.reconstruction import over_all, reconstruction_psnr
from finetune.scripts import make_held_out
from finetune.scripts.tiny_model import small_vae
from vsr import codec

FOLDER = Path(__file__).parents[1] / "pretrained_models" / "tiny"
CLIP = "coffee_0"


@pytest.fixture(scope="module")
def vae():
    return AutoencoderKLCogVideoX.from_pretrained(FOLDER / "vae", dtype=torch.float32).eval()


def test_it_is_what_the_script_builds_and_names_no_path(vae):
    assert {k: v.shape for k, v in vae.state_dict().items()} == {
        k: v.shape for k, v in small_vae().state_dict().items()
    }
    config = (FOLDER / "vae" / "config.json").read_text()
    assert "_name_or_path" not in json.loads(config)
    assert not re.search(r'"/|\.\./', config)


def test_a_score_of_the_card(vae):
    shot = next(shot for shot in make_held_out.shots() if shot.name == CLIP)
    psnr = reconstruction_psnr(vae, list(shot.frames(make_held_out.SIZE, make_held_out.FRAMES)))
    row = re.search(rf"\| {CLIP} \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", (FOLDER / "README.md").read_text())
    measured = [over_all(psnr), psnr[0].item(), psnr[-1].item()]
    stated = [float(number) for number in row.groups()]
    assert measured == pytest.approx(stated, abs=0.2)  # those went through a file
    assert psnr.max() - psnr.min() < 1  # it does not drift: its first training had been on three frames


@torch.no_grad()
def test_the_scaling_factor_is_that_of_this_vae(vae):
    x = torch.from_numpy(np.stack(make_held_out.shots()[0].frames(make_held_out.SIZE, 3)))
    z = codec.encode(vae, x.movedim(3, 0)[None].float() / 127.5 - 1)
    assert 0.8 < z.square().mean().sqrt() < 1.25
