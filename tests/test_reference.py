"""The numerics of the published DOVE, pinned by its outputs: one test per case of the reference folder.

pytest tests/test_reference.py --reference DIR runs another folder of the same format (tests/reference/README.md).
"""

import pytest
from safetensors import safe_open
from torch.testing import assert_close

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


def test_case(pipe, case):
    if case["kind"] in ("stage1", "stage2"):
        pytest.skip(f"the {case['kind']} loss comes with training")
    {"sampler": check_sampler}[case["kind"]](pipe, case)
