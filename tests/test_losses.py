"""Losses: one value by hand, one invariance, a gradient that reaches what it should."""

import math

import pytest
import torch

from finetune.checks import perceptual_complaint
from finetune.losses.latent import FLOOR, psnr_loss
from finetune.losses.pixel import frame_difference_loss, refinement_loss
from vsr.metrics import METRICS, ScoreSettings


def ramp(*levels):
    """A (1, 3, F, 4, 4) video of flat frames with the given grey levels."""
    return torch.tensor(levels).view(1, 1, -1, 1, 1).expand(1, 3, -1, 4, 4).clone()


def test_frame_difference_loss_by_hand():
    # differences: sr +0.2, +0.2; gt +0.1, +0.3  ->  |0.1|, |0.1|  ->  mean 0.1
    assert frame_difference_loss(ramp(0.0, 0.2, 0.4), ramp(0.0, 0.1, 0.4)).item() == pytest.approx(0.1)


def test_frame_difference_loss_ignores_a_constant_brightness_error():
    x_gt = ramp(0.0, 0.1, 0.4)
    assert frame_difference_loss(x_gt + 0.3, x_gt).item() == pytest.approx(0.0, abs=1e-7)


def test_an_image_has_no_frame_difference():
    assert frame_difference_loss(ramp(0.2), ramp(0.7)).item() == 0


def test_refinement_loss_by_hand():
    # mse 0.01, frame difference 0, perceptual 0.1 (here the mean absolute difference); 0.01 + 2 * 0.1
    x_gt = ramp(0.0, 0.1)
    total, terms = refinement_loss(
        x_gt + 0.1, x_gt, perceptual=lambda x, y: (x - y).abs(), perceptual_weight=2.0, frame_weight=5.0
    )
    assert total.item() == pytest.approx(0.21)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {"mse": 0.01, "frame": 0.0, "perceptual": 0.1}, abs=1e-6
    )


def test_without_a_perceptual_distance_its_term_is_absent():
    total, terms = refinement_loss(ramp(0.0), ramp(0.5), perceptual=None, perceptual_weight=1.0, frame_weight=1.0)
    assert terms.keys() == {"mse", "frame"}
    assert total.item() == pytest.approx(0.25)


def test_every_term_has_a_gradient():
    x_sr = ramp(0.1, 0.3, 0.2).requires_grad_()
    frame_difference_loss(x_sr, ramp(0.0, 0.0, 0.0)).backward()
    assert x_sr.grad.abs().sum() > 0


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        refinement_loss(ramp(0.0), ramp(0.0, 1.0), perceptual=None, perceptual_weight=1.0, frame_weight=1.0)


@pytest.mark.parametrize(("name", "file"), [("dists", "vgg16-397923af.pth"), ("lpips", "LPIPS_v0.1_alex-df73285e.pth")])
def test_missing_weights_are_named_with_their_folder(name, file, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert file in perceptual_complaint(name)
    assert str(tmp_path) in perceptual_complaint(name)
    for weight in METRICS[name].weights(ScoreSettings()):  # which pyiqa would unpickle, whatever they are
        weight.path.parent.mkdir(parents=True, exist_ok=True)
        weight.path.write_bytes(b"another")
    assert f"damaged: {tmp_path}" in perceptual_complaint(name)


def test_psnr_loss_by_hand():
    # mse 0.09 and 0.99 of the two clips, and the floor of 0.01: log 0.1 and log 1
    z_gt = torch.zeros(2, 4, 3, 2, 2)
    z_sr = torch.tensor([0.09, 0.99]).sqrt().view(2, 1, 1, 1, 1).expand_as(z_gt)
    assert psnr_loss(z_sr, z_gt).item() == pytest.approx(math.log(0.1) / 2, rel=1e-5)


def test_psnr_loss_hears_every_clip_by_its_own_error():
    z_sr = torch.tensor([0.1, 1.0]).view(2, 1, 1, 1, 1).expand(2, 4, 3, 2, 2).clone().requires_grad_()
    psnr_loss(z_sr, torch.zeros_like(z_sr)).backward()
    easy, hard = z_sr.grad.flatten(1).sum(1).tolist()
    assert easy / hard == pytest.approx(0.1 / (0.01 + FLOOR) * (1.0 + FLOOR), rel=1e-5)  # with MSE: 0.1
