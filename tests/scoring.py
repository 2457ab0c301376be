"""Clips to score, and their scores."""

import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch

import eval_metrics
from vsr.metrics.metric import Metric, PerFrame


def make_clip(frames: int = 3, height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray:
    """(F, H, W, 3) uint8: a smooth random picture that drifts."""
    coarse = np.random.default_rng(seed).integers(40, 215, (6, 8, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width, height + frames), interpolation=cv2.INTER_CUBIC)
    return np.stack([picture[index : index + height] for index in range(frames)])


def with_noise(clip: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, sigma, clip.shape)
    return (clip + noise).round().clip(0, 255).astype(np.uint8)


def write_video(path: Path, clip: np.ndarray) -> Path:
    """Exact RGB frames: FFV1 keeps them as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(24))
        stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], "bgr0"
        for pixels in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return path


def write_frame_folder(path: Path, clip: np.ndarray) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for index, pixels in enumerate(clip):
        cv2.imwrite(str(path / f"{index:04d}.png"), pixels[..., ::-1])
    return path


def expected(metric, pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    x, y = (torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255 for clip in (pred, gt))
    return metric(x, y).numpy()


def frame_metric(name: str, function) -> Metric:
    """A metric of pairs of frames, for the catalog."""
    return Metric(
        build=lambda settings: lambda clip: PerFrame(function, name, settings, needs_gt=True),
        columns=(name,),
        define=lambda settings: "",
        needs_gt=True,
    )


def run(pred: Path, gt: Path, *more: str) -> tuple[int, dict]:
    """Exit code and stored report."""
    out = pred.parent / "report.json"
    code = eval_metrics.main(["--pred", str(pred), "--gt", str(gt), "--out", str(out), *more])
    return code, json.loads(out.read_text())


def two_clips(tmp_path: Path) -> tuple[Path, Path]:
    """Two clips, a video and a folder of frames, each with its ground truth in the other form."""
    for seed, name in enumerate(("ant", "bee")):
        clip = make_clip(seed=seed)
        write_video(tmp_path / "pred" / f"{name}.mkv", with_noise(clip, 2 + 8 * seed))
        write_frame_folder(tmp_path / "gt" / name, clip)
    return tmp_path / "pred", tmp_path / "gt"
