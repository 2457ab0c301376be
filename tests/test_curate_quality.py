"""The quality stage with real networks and random weights: which frames of which scene they see."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from finetune.curation.config import CurationConfig, QualityConfig, Thresholds
from finetune.curation.quality import score
from finetune.curation.rows import KEPT, Row
from finetune.curation.stage import Bench, Setup
from finetune.typed_yaml import from_tree
from tests import curation
from tests.curation import CONFIG, pan
from tests.media import pixels_of
from vsr.metrics.fastervqa import FasterVQA, FasterVQAScorer
from vsr.metrics.fragments import centre_frames
from vsr.metrics.metric import Clip, PerFrame
from vsr.metrics.official import official_names
from vsr.metrics.settings import ScoreSettings
from vsr.metrics.weights import FASTERVQA

SCENES = [(0, 33), (35, 68), (68, 75)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    curation.encode(folder / "a.mp4", pan(1, 80, size=(232, 226)))
    return folder


def bench(folder: Path, **quality) -> Bench:
    settings = {"metrics": ("fastervqa",), "clipiqa_frames": 3, "mode": "absolute", "target_count": 1}
    config = from_tree(CurationConfig, CONFIG, "test")
    config = replace(config, quality=QualityConfig(**{**settings, "at_least": Thresholds(fastervqa=0.5), **quality}))
    return Bench(Setup(root=folder, output=folder, config=config, device="cpu"))


def scenes() -> list[Row]:
    row = {"source_id": "a.mp4", "path": "a.mp4", "status": KEPT}
    return [{**row, "scene_idx": i, "start_frame": a, "end_frame": b} for i, (a, b) in enumerate(SCENES)]


def test_scores_are_those_of_the_frames_of_the_scene_alone(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("vsr.metrics.fastervqa.centre_frames", lambda count: centre_frames(count, length=4))
    torch.manual_seed(0)
    network = FasterVQA().eval()
    names = official_names(network)
    FASTERVQA.path.parent.mkdir(parents=True)
    torch.save({"state_dict": {names[key]: value for key, value in network.state_dict().items()}}, FASTERVQA.path)

    *scored, short = score(scenes(), bench(folder))
    frames = torch.from_numpy(pixels_of(folder / "a.mp4")).permute(0, 3, 1, 2).float() / 255
    for row, (start, end) in zip(scored, SCENES, strict=False):
        scorer = FasterVQAScorer(network, Clip(name=f"a.mp4:{start}-{end}", count=end - start), ScoreSettings())
        for frame in frames[start:end]:
            scorer.add(frame[None], None)
        assert row["fastervqa"] == pytest.approx(scorer.values()["fastervqa"][0], abs=1e-6)
        assert row["frames_scored"] == end - start
    assert scored[0]["fastervqa"] != scored[1]["fastervqa"]
    assert (short["status"], short["stage"], short["reason"]) == ("error", "quality", "not_scorable")
    assert "at least 32 frames, got 7" in short["detail"]


def test_clipiqa_sees_frames_spread_over_the_scene(folder):
    """The mean brightness in place of CLIP-IQA: its values tell the frames."""
    made = bench(folder, metrics=("clipiqa",), at_least=Thresholds(clipiqa=0.5))
    brightness = PerFrame(lambda x: x.mean(dim=(1, 2, 3)), "clipiqa", ScoreSettings(), needs_gt=False)
    made.__dict__["scorers"] = {"clipiqa": lambda clip: brightness}
    (row,) = score(scenes()[1:2], made)
    expected = pixels_of(folder / "a.mp4")[[35 + 5, 35 + 16, 35 + 27]] / 255
    assert row["clipiqa"] == pytest.approx(expected.mean(), abs=1e-5)
