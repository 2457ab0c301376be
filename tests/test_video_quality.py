"""DOVER and FasterVQA: shapes and key names of the official files, strict loading, sampling, the attention by hand."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.scoring import write_video
from vsr.errors import ModelError
from vsr.metrics import ScoreSettings, score
from vsr.metrics.dover import Dover, DoverScorer, fused
from vsr.metrics.fastervqa import FasterVQA, FasterVQAScorer
from vsr.metrics.fragments import FragmentSampler, WholeFrameSampler, centre_frames, clip_generator, spread_frames
from vsr.metrics.metric import Clip
from vsr.metrics.official import load_official, official_names
from vsr.metrics.video_quality import DOVER_COLUMNS
from vsr.metrics.video_swin import GatedAttention, fragment_distance
from vsr.metrics.weights import DOVER, FASTERVQA

TABLE = 15 * 13 * 13
"""Differences of place inside a window of 8x7x7."""


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def randomized(network: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.ndim == 1 or parameter.shape[0] == TABLE:
            nn.init.trunc_normal_(parameter, std=0.3, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def dover() -> Dover:
    torch.manual_seed(0)
    return randomized(Dover())


@pytest.fixture(scope="module")
def fastervqa() -> FasterVQA:
    torch.manual_seed(1)
    return randomized(FasterVQA())


def test_parameters(dover, fastervqa):
    assert count(dover.technical_backbone) / 1e6 == pytest.approx(28.08, abs=0.005)
    assert count(dover.aesthetic_backbone) / 1e6 == pytest.approx(28.04, abs=0.005)
    assert count(dover) / 1e6 == pytest.approx(56.2, abs=0.05)
    assert count(fastervqa) == count(dover.technical_backbone) + count(dover.technical_head)


def test_official_names_and_shapes(dover, fastervqa):
    names = official_names(dover)
    shapes = {names[key]: tuple(value.shape) for key, value in dover.state_dict().items()}
    expected = {
        "technical_backbone.patch_embed.proj.weight": (96, 3, 2, 4, 4),
        "technical_backbone.patch_embed.norm.weight": (96,),
        "technical_backbone.layers.0.blocks.1.attn.relative_position_bias_table": (TABLE, 3),
        "technical_backbone.layers.2.blocks.5.attn.fragment_position_bias_table": (TABLE, 12),
        "technical_backbone.layers.3.blocks.1.attn.qkv.weight": (2304, 768),
        "technical_backbone.layers.3.blocks.1.attn.relative_position_index": (392, 392),
        "technical_backbone.layers.1.blocks.0.mlp.fc1.weight": (768, 192),
        "technical_backbone.layers.1.blocks.0.mlp.fc2.weight": (192, 768),
        "technical_backbone.layers.0.downsample.reduction.weight": (192, 384),
        "technical_backbone.layers.2.downsample.norm.bias": (1536,),
        "technical_backbone.norm.weight": (768,),
        "technical_head.fc_hid.weight": (64, 768, 1, 1, 1),
        "technical_head.fc_last.bias": (1,),
        "aesthetic_backbone.downsample_layers.0.0.weight": (96, 3, 2, 4, 4),
        "aesthetic_backbone.downsample_layers.3.1.weight": (768, 384, 1, 2, 2),
        "aesthetic_backbone.stages.2.7.dwconv.weight": (384, 1, 3, 7, 7),
        "aesthetic_backbone.stages.2.8.dwconv.weight": (384, 1, 1, 7, 7),
        "aesthetic_backbone.stages.0.0.pwconv2.weight": (96, 384),
        "aesthetic_backbone.stages.0.0.gamma": (96,),
        "aesthetic_backbone.norm.weight": (768,),
        "aesthetic_head.fc_last.weight": (1, 64, 1, 1, 1),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert not any("layers.3" in name and "fragment" in name for name in shapes)  # the last stage is not gated
    assert not any("features" in name for name in shapes)
    assert {name.split(".")[0] for name in official_names(fastervqa).values()} == {"fragments_backbone", "vqa_head"}


def test_an_official_file_loads_strictly(dover, tmp_path):
    names = official_names(dover)
    stored = {names[key]: value for key, value in dover.state_dict().items()}
    torch.save(stored, tmp_path / "DOVER.pth")
    loaded = Dover()
    load_official(loaded, tmp_path / "DOVER.pth")
    for key, value in dover.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_a_file_of_another_network_is_refused(fastervqa, tmp_path):
    names = official_names(fastervqa)
    stored = {names[key]: value for key, value in fastervqa.state_dict().items()}
    path, network = tmp_path / "weights.pth", deepcopy(fastervqa)
    torch.save({key: value for key, value in stored.items() if key != "vqa_head.fc_hid.bias"}, path)
    with pytest.raises(ModelError, match=r"1 tensors differ, among them vqa_head\.fc_hid\.bias"):
        load_official(network, path)
    torch.save(stored | {"extra": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="extra"):
        load_official(network, path)
    torch.save(stored | {"vqa_head.fc_hid.bias": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match="another network"):
        load_official(network, path)


def plain_gated_attention(attention: GatedAttention, x: Tensor, window: tuple[int, int, int]) -> Tensor:
    """Attention of one clip token by token, without shift: (F, H, W, C); sizes are multiples of the window."""
    out = torch.empty_like(x)
    size = x.shape[:3]
    heads, width = attention.num_heads, x.shape[-1] // attention.num_heads
    for corner in np.ndindex(*(length // side for length, side in zip(size, window, strict=True))):
        places = [tuple(c * s + i for c, s, i in zip(corner, window, p, strict=True)) for p in np.ndindex(*window)]
        tokens = torch.stack([x[place] for place in places])
        q, k, v = attention.qkv(tokens).view(len(places), 3, heads, width).unbind(1)
        logits = torch.einsum("ihc,jhc->hij", q, k) / math.sqrt(width)
        for i, a in enumerate(places):
            for j, b in enumerate(places):
                index = attention.relative_position_index[i, j]
                gate = sum(abs(a[axis] * 7 // size[axis] - b[axis] * 7 // size[axis]) for axis in (1, 2))
                inside, between = attention.relative_position_bias_table, attention.fragment_position_bias_table
                logits[:, i, j] += gate * inside[index] + (1 - gate) * between[index]
        mixed = torch.einsum("hij,jhc->ihc", logits.softmax(-1), v).reshape(len(places), -1)
        for place, value in zip(places, attention.proj(mixed), strict=True):
            out[place] = value
    return out


def test_the_attention_by_hand():
    torch.manual_seed(0)
    attention = GatedAttention(6, [2, 7, 7], [0, 0, 0], 2, gated=True)
    for table in (attention.relative_position_bias_table, attention.fragment_position_bias_table):
        nn.init.normal_(table)
    x = torch.randn(2, 2, 14, 14, 6)
    with torch.no_grad():
        theirs = torch.stack([plain_gated_attention(attention, clip, (2, 7, 7)) for clip in x])
        torch.testing.assert_close(attention(x), theirs, atol=1e-5, rtol=1e-4)


def test_fragment_distance_follows_the_shift():
    size, window, shift = (2, 14, 14), (2, 7, 7), (1, 3, 3)
    cells = torch.arange(14) * 7 // 14
    distance = fragment_distance(size, window, shift)
    assert distance.shape == (4, 98, 98)
    # the first window holds rows and columns 3 to 9
    rows = cells[3:10].repeat_interleave(7).repeat(2)
    columns = cells[3:10].repeat(14)
    expected = (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()
    assert torch.equal(distance[0], expected)
    assert torch.equal(fragment_distance((2, 7, 7), window, (0, 0, 0))[0].max(), torch.tensor(12))


def test_the_backbones_give_features_per_place(dover):
    x = torch.randn(1, 3, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert dover.technical_backbone(x).shape == (1, 768, 2, 2, 2)
        assert dover.aesthetic_backbone(x).shape == (1, 768, 2, 2, 2)


def test_scores_are_the_published_rescaling():
    scores = fused(0.1107 + 0.07355, -0.08285)  # t = 1, a = 0
    assert scores == pytest.approx(
        {
            "dover_technical": 1 / (1 + math.exp(-1)),
            "dover_aesthetic": 0.5,
            "dover_overall": 1 / (1 + math.exp(-0.6104)),
        }
    )


def test_frames_of_the_samplers():
    generator = np.random.default_rng(0)
    run = spread_frames(100, generator, groups=1, length=32)
    assert list(np.diff(run)) == [2] * 31
    assert 0 <= run[0] < 36
    assert list(spread_frames(40, generator, groups=1, length=32)) == [(2 * i) % 40 for i in range(32)]
    singles = spread_frames(320, generator, groups=32, length=1)
    assert all(10 * i <= index < 10 * i + 8 for i, index in enumerate(singles))
    assert list(spread_frames(33, generator, groups=32, length=1)) == list(range(32))
    assert list(centre_frames(32)) == list(range(32))
    assert list(centre_frames(100)) == list(range(34, 66))


@pytest.mark.parametrize("count", [50, 300])
def test_dover_looks_at_one_run_of_each_third_as_the_official_sampler_does(monkeypatch, count):
    chosen = []
    monkeypatch.setattr("vsr.metrics.dover.FragmentSampler", lambda indices, *_, **__: chosen.extend(indices))
    DoverScorer(None, Clip(name="a", count=count), ScoreSettings())
    runs, third = np.reshape(chosen, (3, 32)), count // 3
    for i, run in enumerate(runs):
        start = run[0] - i * third
        assert 0 <= start <= max(0, third - 64 - 1)
        assert list(run) == [(run[0] + 2 * k) % count for k in range(32)]


def test_a_short_clip_is_scored_when_asked_for():
    assert list(centre_frames(31)) == [*range(31), 0]
    clip, settings = Clip(name="a", count=31), ScoreSettings(allow_short=True)
    for scorer in (DoverScorer, FasterVQAScorer):
        scorer(None, clip, settings)
        with pytest.raises(ValueError, match="at least 32 frames, got 31; --allow_short"):
            scorer(None, clip, ScoreSettings())


def test_fragments_are_cut_from_their_cells_unchanged():
    height, width = 300, 420
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    frame = torch.stack([rows, columns, torch.zeros_like(rows)]).float() / 255
    sampler = FragmentSampler(list(range(16)), clip_generator(0, "a"), aligned=8)
    for index in range(16):
        sampler.add(index, frame)
    mean, std = torch.tensor([123.675, 116.28]).view(2, 1, 1, 1), torch.tensor([58.395, 57.12]).view(2, 1, 1, 1)
    places = (sampler.result()[:2] * std + mean).round().int()
    assert places.shape == (2, 16, 224, 224)
    for position in (0, 15):
        for row in range(7):
            for column in range(7):
                cut = places[:, position, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
                top, left = cut[:, 0, 0].tolist()
                assert 42 * row <= top < 42 * row + 10
                assert 60 * column <= left < 60 * column + 28
                assert torch.equal(cut[0], (top + torch.arange(32)).int()[:, None].expand(32, 32))
                assert torch.equal(cut[1], (left + torch.arange(32)).int()[None].expand(32, 32))
    assert torch.equal(places[:, 0], places[:, 7])
    assert not torch.equal(places[:, 0], places[:, 8])


def test_whole_frames_are_made_small():
    sampler = WholeFrameSampler([1, 1, 3])
    for index in range(4):
        sampler.add(index, torch.full((3, 240, 500), index / 255))
    result = sampler.result()
    assert result.shape == (3, 3, 224, 224)
    torch.testing.assert_close(result[0, :, 0, 0], (torch.tensor([1.0, 1.0, 3.0]) - 123.675) / 58.395)


def fill(scorer, frames: Tensor) -> dict[str, list[float]]:
    for frame in frames:
        scorer.add(frame[None], None)
    return scorer.values()


class Spy:
    """In place of a network: keeps what it was given."""

    def __call__(self, *inputs):
        self.inputs = inputs
        return dict.fromkeys(DOVER_COLUMNS, 0.5) if len(inputs) == 2 else 0.5


def test_what_the_networks_get_depends_on_seed_and_name_only():
    frames = torch.rand(34, 3, 240, 250, generator=torch.Generator().manual_seed(0))

    def seen(scorer, name="a", **settings):
        spy = Spy()
        fill(scorer(spy, Clip(name=name, count=len(frames)), ScoreSettings(**settings)), frames)
        return spy.inputs

    fragments, whole = seen(DoverScorer)
    assert fragments.shape == (3, 3, 32, 224, 224)
    assert whole.shape == (1, 3, 32, 224, 224)
    (faster,) = seen(FasterVQAScorer)
    assert faster.shape == (1, 3, 32, 224, 224)
    assert torch.equal(faster, seen(FasterVQAScorer)[0])
    for settings in ({"name": "b"}, {"seed": 1}, {"sampling": "dataset"}):
        assert not torch.equal(faster, seen(FasterVQAScorer, **settings)[0])


def short_centre(count: int) -> np.ndarray:
    return centre_frames(count, length=4)


@pytest.fixture
def installed(tmp_path, monkeypatch, dover, fastervqa):
    """Files of random weights where the users' files belong."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    DOVER.path.parent.mkdir(parents=True)
    for network, weight, wrap in ((dover, DOVER, False), (fastervqa, FASTERVQA, True)):
        names = official_names(network)
        stored = {names[key]: value for key, value in network.state_dict().items()}
        torch.save({"state_dict": stored} if wrap else stored, weight.path)
    return tmp_path


def test_the_script_scores_from_official_files(installed, monkeypatch):
    """The whole path; with fewer frames than the metrics look at, since 128 take the networks a minute on two cores."""
    for name, value in (("dover.CLIPS", 2), ("dover.FRAMES", 2), ("fastervqa.centre_frames", short_centre)):
        monkeypatch.setattr(f"vsr.metrics.{name}", value)
    clip = np.random.default_rng(0).integers(0, 256, (32, 226, 232, 3), dtype=np.uint8)
    write_video(installed / "pred" / "long.mkv", clip)
    write_video(installed / "pred" / "short.mkv", clip[:31])
    write_video(installed / "pred" / "small.mkv", clip[:, :200])
    report = score(installed / "pred", metrics=["dover", "fastervqa"])
    assert set(report.clips["long"]) == {*DOVER_COLUMNS, "fastervqa"}
    assert all(0 < values.mean < 1 and values.count == 1 for values in report.clips["long"].values())
    assert set(report.weights) == {"DOVER.pth", "FAST_VQA_3D_1_1.pth"}
    assert all(len(digest) == 64 for digest in report.weights.values())
    reasons = {(failure.name, failure.metric): failure.reason for failure in report.failures}
    for metric in (*DOVER_COLUMNS, "fastervqa"):
        assert "needs at least 32 frames, got 31" in reasons["short", metric]
        assert "needs frames of at least 224x224 pixels, got 232x200" in reasons["small", metric]
    assert report.exit_code == 7
    assert "torchvision" in report.as_dict()["versions"]
