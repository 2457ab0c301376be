"""The VAE of the small model: free of paths, what the script builds, and as good as its card says."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

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


@torch.no_grad()
def test_a_score_of_the_card(vae):
    shot = next(shot for shot in make_held_out.shots() if shot.name == CLIP)
    clip = shot.frames(make_held_out.SIZE, make_held_out.FRAMES)[:5]
    x = torch.from_numpy(clip).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    z = codec.encode(vae, x)
    again = codec.decode(vae, z).clamp(-1, 1)
    assert 0.8 < z.square().mean().sqrt() < 1.2  # the scaling factor is that of this VAE
    mse = np.mean((again - x).numpy() ** 2) / 4
    stated = re.search(rf"\| {CLIP} \| ([\d.]+) \|", (FOLDER / "README.md").read_text()).group(1)
    assert -10 * np.log10(mse) == pytest.approx(float(stated), abs=0.05)
