"""The numerics of the published DOVE, pinned by its outputs: one test per case of the reference folder.

pytest tests/test_reference.py --reference DIR runs another folder of the same format (tests/reference/README.md).
"""

import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close

from finetune.methods.dove_latent import DOVELatent
from finetune.methods.dove_pixel import DOVEPixel
from vsr import load_pipeline

TOLERANCE = {"atol": 1e-4, "rtol": 0.0}


@pytest.fixture
def case(reference_case):
    with safe_open(reference_case, "pt") as file:
        return file.metadata() | {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)


@pytest.fixture
def pipe(case, reference_case):
    return load_pipeline(reference_case.parent.parent / "models" / case["model"], dtype="float32", device="cpu")


def video(x):
    """uint8 to [-1, 1]."""
    return x.float() / 127.5 - 1


def check_sampler(pipe, case):
    x_lq = video(case["x_lq"])
    assert_close(pipe.encode(x_lq), case["z_lq"].float(), **TOLERANCE)
    x_sr = pipe.restore(x_lq, case["prompt_embedding"], int(case["timestep"]))
    assert_close(x_sr, case["x_sr"].float(), **TOLERANCE)


def check_stage(pipe, case, method):
    """Loss, its terms and the norm of its gradient, to 1e-4 of their size."""
    pipe.prompt_embedding = case["prompt_embedding"]
    pipe.register_to_config(timestep=int(case["timestep"]))
    loss, terms = method.loss({"x_lq": video(case["x_lq"]), "x_gt": video(case["x_gt"])})
    loss.backward()
    gradients = [p.grad.double().norm() for p in pipe.transformer.parameters() if p.grad is not None]
    found = {"loss": loss, **terms, "grad_norm": torch.stack(gradients).norm()}
    for name in ("loss", "grad_norm", "mse", "perceptual", "frame"):
        if isinstance(case.get(name), torch.Tensor):
            assert found[name].item() == pytest.approx(case[name].item(), rel=1e-4), name


def mean_absolute_difference(x, y):
    return (x - y).abs()


CHECKS = {
    "sampler": check_sampler,
    "stage1": lambda pipe, case: check_stage(pipe, case, DOVELatent(pipe)),
    "stage2": lambda pipe, case: check_stage(pipe, case, DOVEPixel(pipe, mean_absolute_difference)),
}


def test_case(pipe, case):
    CHECKS[case["kind"]](pipe, case)
