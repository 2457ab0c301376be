"""What is done to the VAE of the small model between trainings: pictures stay, and later frames are like the first."""

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from finetune.scripts.tiny_vae import follow_pixels, pixel_metric, see_one_frame, square_root
from vsr import codec


@pytest.fixture
def vae():
    """Of the small model's kind, with fewer channels, and every weight away from zero."""
    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 16),
        down_block_types=("CogVideoXDownBlock3D",) * 2,
        up_block_types=("CogVideoXUpBlock3D",) * 2,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=1,
        temporal_compression_ratio=1,
        scaling_factor=0.5,
    )
    return vae.eval()


@torch.no_grad()
def test_a_still_clip_comes_out_the_same_when_the_past_is_cut_off(vae):
    still = (torch.rand(1, 3, 1, 16, 16) * 2 - 1).expand(-1, -1, 5, -1, -1)
    before = codec.decode(vae, codec.encode(vae, still))
    see_one_frame(vae)
    torch.testing.assert_close(codec.decode(vae, codec.encode(vae, still)), before, rtol=0, atol=1e-5)


@torch.no_grad()
def test_convolutions_look_at_no_frame_before_their_own(vae):
    see_one_frame(vae)
    conv = vae.encoder.conv_in
    x = torch.rand(1, 3, 3, 8, 8)
    changed = x.clone()
    changed[:, :, 0] = 0
    one, other = (conv(clip)[0][:, :, 1:] for clip in (x, changed))
    assert torch.equal(one, other)


@torch.no_grad()
def test_another_basis_changes_no_picture_and_makes_all_directions_alike(vae):
    x = torch.rand(2, 3, 3, 16, 16) * 2 - 1
    z = codec.encode(vae, x)
    before, metric = codec.decode(vae, z), pixel_metric(vae, z)
    follow_pixels(vae, z)
    again = codec.encode(vae, x)
    assert again.square().mean().sqrt().item() == pytest.approx(1, abs=0.01)
    torch.testing.assert_close(codec.decode(vae, again), before, rtol=0, atol=1e-4)
    spread, spread_before = (_spread(m) for m in (pixel_metric(vae, again), metric))
    assert spread < 1.5 < spread_before


def _spread(metric: torch.Tensor) -> float:
    values = torch.linalg.eigvalsh(metric)
    return (values[-1] / values[0]).item()


def test_the_posterior_has_no_spread_in_another_basis(vae):
    x = torch.rand(1, 3, 3, 16, 16) * 2 - 1
    z = codec.encode(vae, x)
    follow_pixels(vae, z)
    sample, mode = (codec.encode(vae, x, posterior=p, generator=torch.Generator()) for p in ("sample", "mode"))
    torch.testing.assert_close(sample, mode, rtol=0, atol=1e-4)


def test_the_square_root_by_hand():
    assert torch.allclose(square_root(torch.diag(torch.tensor([4.0, 9.0]))), torch.diag(torch.tensor([2.0, 3.0])))
