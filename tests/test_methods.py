"""What the trainer relies on in every training method: who learns, whose noise it is, what a resume needs."""

import json
import math

import pytest
import torch
from accelerate import Accelerator
from torch.testing import assert_close

from finetune.losses.latent import FLOOR
from finetune.methods.dove_latent import DOVELatent
from finetune.methods.dove_pixel import DOVEPixel
from finetune.methods.vae import VAE
from finetune.recipe import TrainConfig
from finetune.trainable import make_trainable
from finetune.trainer import Trainer
from tests.tiny import batch, random_pipeline


def absolute(x, y):
    return (x - y).abs()


METHODS = {
    "latent": (lambda pipe: DOVELatent(pipe), batch(9)),
    "latent, psnr": (lambda pipe: DOVELatent(pipe, psnr=True), batch(9)),
    "latent, frames": (lambda pipe: DOVELatent(pipe, frame_weight=0.5), batch(9)),
    "pixel video": (lambda pipe: DOVEPixel(pipe, absolute), batch(2)),
    "pixel image": (lambda pipe: DOVEPixel(pipe, None), batch(1, "image")),
    "vae": (lambda pipe: VAE(pipe), batch(9)),
    "pixel through time": (lambda pipe: DOVEPixel(pipe, None, temporal_decode=True), batch(9)),
}


@torch.no_grad()
def test_stage_1_teaches_staggered_models_both_ways_in_turn_also_after_a_resume():
    def loss(method):
        return method.loss(batch(9))[0].item()

    def after(steps, **settings):
        method = DOVELatent(random_pipeline("1.5-5b", **settings))
        for step in range(1, steps + 1):
            method.end_step(step)
        return method

    even, odd = (loss(after(steps, stagger_frames=True)) for steps in (0, 1))
    assert even != odd
    assert [loss(after(steps, stagger_frames=True)) for steps in (2, 3)] == [even, odd]
    assert {loss(after(steps)) for steps in (0, 1, 2)} == {even}
    resumed = after(2, stagger_frames=True)
    resumed.load_state_dict(after(3, stagger_frames=True).state_dict())
    assert loss(resumed) == odd


@torch.no_grad()
@pytest.mark.parametrize("psnr", [False, True])
def test_frame_weight_counts_how_errors_change_from_frame_to_frame(psnr):
    pipe, z_gt = random_pipeline(), torch.zeros(1, 16, 4, 4, 4)
    constant, flickering = (torch.tensor(v).view(1, 1, 4, 1, 1).expand_as(z_gt) for v in ([0.2] * 4, [0.2, -0.2] * 2))

    def loss(z_sr, frame_weight):
        pipe.denoise = lambda z, **ways: z_sr
        return DOVELatent(pipe, psnr=psnr, frame_weight=frame_weight).loss({"z_lq": z_gt, "z_gt": z_gt})

    of_squares = (lambda mse: math.log(mse + FLOOR)) if psnr else (lambda mse: mse)
    for z_sr, change in ((constant, 0.0), (flickering, 0.16)):
        assert_close(loss(z_sr, 0.0)[0].item(), of_squares(0.04), rtol=1e-5, atol=1e-7)
        total, terms = loss(z_sr, 0.5)
        assert_close(total.item(), of_squares(0.04) + 0.5 * of_squares(change), rtol=1e-5, atol=1e-7)
        assert_close(terms["frame"].item(), change, rtol=1e-5, atol=1e-7)


def test_the_noise_of_a_posterior_belongs_to_the_clip_whoever_sees_it():
    pipe, drawn = random_pipeline(), []
    method = VAE(pipe, seed=3)
    method.networks["student"] = lambda x, generators: (
        drawn.append([torch.randn(3, generator=generator).tolist() for generator in generators]),
        (x, torch.tensor(0.0)),
    )[1]
    clip = batch(9)["x_gt"]
    for numbers in ([4, 5], [4], [5], [6]):
        parts = {"x_gt": clip.expand(len(numbers), -1, -1, -1, -1), "number": torch.tensor(numbers)}
        method.loss({**parts, "kind": "video"})
    both, first, second, other = drawn
    assert both == first + second and other not in (first, second)


@pytest.mark.parametrize("name", METHODS)
def test_contract_only_the_updated_networks_change_and_the_loss_falls(name, tmp_path):
    build, sample = METHODS[name]
    pipe = random_pipeline()
    pipe.vae.requires_grad_(False)
    make_trainable(pipe.transformer, None, torch.float32)
    method = build(pipe)
    learns, rests = (pipe.vae, pipe.transformer) if method.component == "vae" else (pipe.transformer, pipe.vae)
    kept = {key: value.clone() for key, value in rests.state_dict().items()}
    config = TrainConfig(steps=20, lr=2e-3, batch_size=1, warmup_steps=0, precision="fp32", log_every=1)
    trainer = Trainer(method, config, Accelerator(cpu=True), tmp_path)
    before = [p.detach().clone() for p in learns.parameters()]
    assert trainer.fit([sample] * 20)
    assert not all(torch.equal(a, b) for a, b in zip(before, learns.parameters(), strict=True))
    assert_close(rests.state_dict(), kept)
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    values = [entry[next(key for key in entry if key.endswith("/loss"))] for entry in logged]
    assert values[-1] < values[0]
