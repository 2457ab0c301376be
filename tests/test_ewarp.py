"""E*warp: zero where the motion is known, the theory of noise, flicker, occlusion; RAFT and DIS run."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.scoring import write_video
from vsr.metrics import ScoreSettings, score
from vsr.metrics.ewarp import WarpingError, at_metric_size, visible, warp, warping_error
from vsr.metrics.flow import dis_flow
from vsr.metrics.weights import RAFT

CONVENTIONS = pytest.mark.parametrize("convention", ["evalcrafter", "strict"])
HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module")
def photo() -> Tensor:
    """(3, H, W) in [0, 1]."""
    data = pytest.importorskip("skimage.data")
    return torch.from_numpy(data.astronaut()[:300, :400].copy()).permute(2, 0, 1).float() / 255


def pan(photo: Tensor, index: int, step: tuple[int, int] = (4, 2)) -> Tensor:
    """Frame ``index`` of a camera that moves ``step`` = (x, y) pixels a frame: (1, 3, H, W)."""
    x, y = (40 + index * pixels for pixels in step)
    return photo[None, :, y : y + HEIGHT, x : x + WIDTH]


def constant_flow(x: float, y: float) -> Tensor:
    return torch.tensor([x, y]).float().view(1, 2, 1, 1).expand(1, 2, HEIGHT, WIDTH)


STILL = constant_flow(0, 0)


def test_an_integer_pan_with_its_flow_is_zero(photo):
    a, b = pan(photo, 0), pan(photo, 1)
    forward, backward = constant_flow(-4, -2), constant_flow(4, 2)
    assert warping_error(a, b, forward, backward, "strict").item() == pytest.approx(0, abs=1e-9)
    assert 1000 * warping_error(a, b, STILL, STILL, "strict").item() > 5  # and without it is not


def test_targets_outside_count_for_evalcrafter_only(photo):
    a, b = pan(photo, 0), pan(photo, 1)
    errors = [warping_error(a, b, constant_flow(-4, -2), constant_flow(4, 2), c) for c in ("evalcrafter", "strict")]
    assert errors[0] > 1e-5 > errors[1]


@pytest.mark.parametrize("sigma", [0.01, 0.02, 0.05])
def test_noise_is_within_15_percent_of_theory(sigma):
    # two independent noises: each channel differs by 2 sigma^2 in the mean, three channels are summed
    generator = torch.Generator().manual_seed(0)
    a, b = 0.5 + sigma * torch.randn(2, 1, 3, HEIGHT, WIDTH, generator=generator)
    assert warping_error(a, b, STILL, STILL, "evalcrafter").item() == pytest.approx(6 * sigma**2, rel=0.15)
    assert warping_error(a, b, STILL, STILL, "strict").item() == pytest.approx(2 * sigma**2, rel=0.15)


@CONVENTIONS
def test_strictly_increasing_in_flicker(photo, convention):
    gains = np.random.default_rng(0).normal(0, 1, 6)
    scores = []
    for sigma in (0, 2, 5, 10):
        scorer = WarpingError(lambda a, b: torch.zeros(len(a), 2, *a.shape[-2:]), ScoreSettings(ewarp=convention))
        for gain in gains:
            scorer.add((pan(photo, 0) + sigma * gain / 255).clamp(0, 1), None)
        scores.append(np.mean(scorer.values()["ewarp"]))
    assert scores[0] == pytest.approx(0, abs=1e-6)
    assert all(low < high for low, high in pairwise(scores))


def test_occluded_pixels_do_not_count():
    """A square that moves 8 pixels to the right over a still ground covers a strip of it."""
    before, after = (slice(20, 44), slice(30, 54)), (slice(20, 44), slice(38, 62))
    a, b = torch.full((2, 1, 3, HEIGHT, WIDTH), 0.25)
    a[0, :, *before] = b[0, :, *after] = 0.75
    forward, backward = STILL.clone(), STILL.clone()
    forward[0, 0][before], backward[0, 0][after] = 8, -8
    seen = visible(forward, backward)[0]
    covered = torch.zeros(HEIGHT, WIDTH, dtype=bool)
    covered[20:44, 54:62] = True
    assert not seen[covered].any()
    assert (~seen).float().mean() < 0.1
    for convention in ("evalcrafter", "strict"):
        assert warping_error(a, b, forward, backward, convention).item() == pytest.approx(0, abs=1e-9)
    assert warping_error(a, b, STILL, STILL, "strict").item() > 1e-3


def test_nothing_visible_is_zero_not_nan():
    x = torch.rand(1, 3, HEIGHT, WIDTH)
    assert warping_error(x, x, constant_flow(30, 0), constant_flow(30, 0), "evalcrafter").item() == 0


def test_warp_fetches_from_where_the_flow_points():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    flow = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 3, 4)
    torch.testing.assert_close(warp(x, flow), x[..., [1, 2, 3, 3]])


def test_sizes_of_the_conventions():
    assert at_metric_size(torch.zeros(1, 3, 40, 61), "evalcrafter").shape[-2:] == (20, 30)
    assert at_metric_size(torch.zeros(1, 3, 40, 61), "strict").shape[-2:] == (40, 61)
    assert at_metric_size(torch.zeros(1, 3, 1080, 1920), "strict").shape[-2:] == (540, 960)


def test_dis_finds_a_pan(photo):
    a, b = photo[None, :, 50:210, 50:290], photo[None, :, 52:212, 54:294]
    flow = dis_flow(a, b)
    inner = flow[..., 20:-20, 20:-20]
    assert inner[:, 0].median().item() == pytest.approx(-4, abs=0.2)
    assert inner[:, 1].median().item() == pytest.approx(-2, abs=0.2)
    assert 1000 * warping_error(a, b, flow, dis_flow(b, a), "strict").item() < 0.5


def test_the_script_scores_with_dis_and_without_ground_truth(tmp_path, photo):
    picture = (255 * photo).byte().permute(1, 2, 0).numpy()
    still = np.stack([picture[:128, :160]] * 3)
    write_video(tmp_path / "still.mkv", still)
    write_video(tmp_path / "flicker.mkv", (still * np.array([1, 0.9, 1]).reshape(3, 1, 1, 1)).astype(np.uint8))
    write_video(tmp_path / "single.mkv", still[:1])
    report = score(tmp_path, metrics=["ewarp"], settings=ScoreSettings(flow="dis"))
    assert report.clips["still"]["ewarp"].mean == pytest.approx(0, abs=1e-9)
    assert report.clips["still"]["ewarp"].count == 2
    assert report.clips["flicker"]["ewarp"].mean > 1
    assert [(f.name, f.reason) for f in report.failures] == [("single", "E*warp needs at least two frames, got one")]
    assert "convention evalcrafter" in report.definitions["ewarp"]
    assert "OpenCV DIS" in report.definitions["ewarp"]
    every = score(tmp_path / "still.mkv", metrics=["ewarp"], settings=ScoreSettings(flow="dis", every=2))
    assert every.clips["still"]["ewarp"].count == 1


def test_raft_of_any_size_from_a_weight_file(tmp_path, monkeypatch):
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    network = raft_small(weights=None).eval()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = RAFT["raft_small_C_T_V2"].path
    path.parent.mkdir(parents=True)
    torch.save(network.state_dict(), path)
    monkeypatch.setattr("vsr.metrics.flow.RAFT_UPDATES", 2)
    monkeypatch.setattr("vsr.metrics.catalog.complaint", lambda weight: None)  # the name promises another hash
    clip = np.random.default_rng(0).integers(0, 256, (2, 130, 141, 3), dtype=np.uint8)
    write_video(tmp_path / "pred" / "a.mkv", clip)
    write_video(tmp_path / "pred" / "b.mkv", clip[:, :120])
    report = score(tmp_path / "pred", metrics=["ewarp"], settings=ScoreSettings(flow="raft_small", ewarp="strict"))
    assert report.clips["a"]["ewarp"].mean >= 0
    assert [(f.name, f.reason) for f in report.failures] == [("b", "RAFT needs at least 128x128 pixels, got 141x120")]
    assert list(report.weights) == [path.name]
