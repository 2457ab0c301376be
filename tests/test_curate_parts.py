"""The parts of curation whose results can be said beforehand: thresholds, boxes, scenes, inputs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.curation.config import CurationConfig, MetadataConfig, QualityConfig, Thresholds
from finetune.curation.inputs import list_inputs
from finetune.curation.manifest import Shard
from finetune.curation.motion import Box, motion_map, moving_area, moving_mask, padded, pair_indices
from finetune.curation.pipeline import Pipeline
from finetune.curation.quality import even_frames
from finetune.curation.report import MEASURED, _histograms
from finetune.curation.rows import with_clip_id
from finetune.curation.scenes import scene_spans
from finetune.curation.selection import joint_quantile, select, thresholds_of
from finetune.curation.stage import Setup
from finetune.curation.stages import ORDER
from finetune.typed_yaml import from_tree
from tests.curation import CONFIG
from vsr.errors import InputError, UsageError

CONFIGURATION = from_tree(CurationConfig, CONFIG, "test")
METADATA = CONFIGURATION.metadata
MOTION = CONFIGURATION.motion

# -------------------------------------------------------------------------------------------------- thresholds


def test_scenes_without_a_score_do_not_count_for_the_threshold():
    config = quality(mode="quantile", target_count=2)
    scores = {column: [0.1, float("nan"), 0.2, 0.3] for column in config.deciding}
    assert set(thresholds_of(config, scores).values()) == {0.2}


def test_the_joint_quantile_by_hand():
    """Ranks of the four rows: a 0 1 2 3, b 3 0 2 1; their least: 0 0 2 1. Two rows: the last two, from rank 1 on."""
    columns = {"a": np.array([0.1, 0.2, 0.3, 0.4]), "b": np.array([0.9, 0.1, 0.5, 0.3])}
    assert joint_quantile(columns, 2) == {"a": 0.2, "b": 0.3}
    assert joint_quantile(columns, 1) == {"a": 0.3, "b": 0.5}
    assert joint_quantile(columns, 100) == {"a": 0.1, "b": 0.1}


@given(
    st.integers(1, 3).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, 20)] * n), min_size=1, max_size=40)),
    st.integers(1, 50),
)
def test_the_target_passes_and_hardly_more(rows, target):
    columns = {str(i): np.array(values, float) for i, values in enumerate(zip(*rows, strict=True))}
    least = joint_quantile(columns, target)
    passing = sum(all(row[int(name)] >= value for name, value in least.items()) for row in rows)
    assert passing >= min(target, len(rows))
    distinct = all(len(set(values)) == len(rows) for values in columns.values())
    assert not distinct or passing < min(target, len(rows)) + len(columns)


def quality(**changes) -> QualityConfig:
    settings = {"metrics": ("clipiqa", "dover"), "clipiqa_frames": 8, "mode": "absolute", "target_count": 1}
    return QualityConfig(**{**settings, "at_least": Thresholds(clipiqa=0.5, dover_technical=0.6), **changes})


def test_thresholds_are_given_or_found_and_a_metric_can_be_left_out():
    scores = {"clipiqa": [0.1, 0.9], "dover_technical": [0.2, 0.8]}
    assert thresholds_of(quality(), scores) == {"clipiqa": 0.5, "dover_technical": 0.6}
    assert thresholds_of(quality(mode="quantile"), scores) == {"clipiqa": 0.9, "dover_technical": 0.8}
    alone = quality(metrics=("dover",), at_least=Thresholds(dover_overall=0.3))
    assert thresholds_of(alone, {"dover_overall": [0.1]}) == {"dover_overall": 0.3}
    assert thresholds_of(quality(metrics=()), {}) == {}
    assert thresholds_of(quality(mode="quantile"), {"clipiqa": [], "dover_technical": []}) == {}


def test_a_row_below_a_threshold_is_rejected_with_all_its_reasons():
    least = {"clipiqa": 0.5, "dover_technical": 0.6}
    row = {"status": "kept", "clipiqa": 0.5, "dover_technical": 0.6}
    assert select(row, least) is row
    low = select({**row, "clipiqa": 0.4, "dover_technical": float("nan")}, least)
    assert (low["status"], low["stage"], low["reason"]) == ("rejected", "quality", "low_clipiqa")
    assert low["detail"] == "clipiqa 0.4000 < 0.5000, dover_technical nan < 0.6000"
    assert select({"status": "error", "clipiqa": None}, least)["status"] == "error"


# -------------------------------------------------------------------------------------------------- boxes


@given(st.data())
def test_a_padded_box_holds_the_box_and_stays_in_the_frame(data):
    width, height = (data.draw(st.integers(32, 400)) for _ in range(2))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = Box(x=x, y=y, w=data.draw(st.integers(1, width - x)), h=data.draw(st.integers(1, height - y)))
    padding, align = data.draw(st.integers(0, 100)), data.draw(st.sampled_from([2, 8, 16]))
    out = padded(box, padding, width, height, align)
    assert 0 <= out.x <= max(box.x - padding, 0) and out.x + out.w <= width and out.w % 2 == 0
    assert 0 <= out.y <= max(box.y - padding, 0) and out.y + out.h <= height and out.h % 2 == 0
    assert out.x + out.w >= min(box.x + box.w + padding, width // 2 * 2)
    assert out.y + out.h >= min(box.y + box.h + padding, height // 2 * 2)
    assert out.x % align == 0 and out.y % align == 0


def test_a_moving_area_is_scaled_to_the_frame_outwards():
    mask = np.zeros((10, 20), bool)
    mask[2:5, 3:7] = True
    assert moving_area(mask, 20, 10) == Box(x=3, y=2, w=4, h=3)
    assert moving_area(mask, 50, 25) == Box(x=7, y=5, w=11, h=8)  # 7.5 to 17.5 and 5 to 12.5
    assert moving_area(np.zeros((10, 20), bool), 20, 10) is None


def test_specks_do_not_move_a_box_unless_asked_to():
    from dataclasses import replace

    speeds = np.zeros((100, 100))
    speeds[40:60, 40:60] = 5  # 400 pixels
    speeds[5, 5] = 5
    speeds[90:96, 90:96] = 5  # 36 pixels, less than half a percent
    mask = moving_mask(speeds, MOTION)
    assert mask.sum() == 400 and mask[40:60, 40:60].all()
    literal = moving_mask(speeds, replace(MOTION, opening=0, min_component=0.0))
    assert literal.sum() == 400 + 1 + 36


def test_the_motion_map_over_pairs():
    speeds = np.array([0.0, 1.0, 8.0]).reshape(3, 1, 1)
    assert [motion_map(speeds, how).item() for how in ("max", "mean", "q90")] == [8.0, 3.0, pytest.approx(6.6)]


@pytest.mark.parametrize("count", [1, 2, 5, 50, 300])
def test_pairs_lie_in_the_scene_from_its_begin_to_its_end(count):
    row = {"start_frame": 100, "end_frame": 100 + count, "fps_num": 30000, "fps_den": 1001}
    pairs = pair_indices(row, MOTION)
    assert pairs[0][0] == 0 and pairs[-1][1] == count - 1
    assert {b - a for a, b in pairs} == {min(3, count - 1)}
    assert len(pairs) == len(set(pairs)) <= 8


# -------------------------------------------------------------------------------------------------- scenes


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(0, 5))
def test_scenes_are_trimmed_at_cuts_only_and_never_overlap(lengths, trim):
    edges = np.cumsum([0, *lengths]).tolist()
    spans = scene_spans(edges[-1], edges[1:-1], trim)
    assert len(spans) == len(lengths)
    assert spans[0][0] == 0 and (len(spans) > 1 or spans[0][1] == edges[-1])
    for (start, end), low, high in zip(spans, edges, edges[1:], strict=False):
        assert low <= start < end <= high
        cut_sides = (low > 0) + (high < edges[-1])
        assert end - start == max(high - low - cut_sides * trim, 1)


@given(st.integers(1, 400), st.integers(1, 12))
def test_even_frames_are_as_many_as_wanted_and_spread(count, wanted):
    frames = sorted(even_frames(count, wanted))
    assert len(frames) == min(count, wanted)
    assert frames[0] >= 0 and frames[-1] < count


# -------------------------------------------------------------------------------------------------- inputs


def listed(source: Path, root: Path, config: MetadataConfig = METADATA) -> dict[str, tuple]:
    rows = list_inputs(source, root, config, root / "out")
    return {row["source_id"]: (row["status"], row.get("reason")) for row in rows}


@pytest.fixture
def table(tmp_path) -> Path:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link.mp4").symlink_to("/etc/hostname")
    lines = ["video,caption,aesthetic score", "a.mp4,One,5", "b.mp4,Two,4", "a.mp4,Again,5", "gone.mp4,Three,5"]
    lines += ["../x.mp4,Four,5", "/etc/passwd,Five,5", "link.mp4,Six,5", ",Seven,5", ".,Eight,5", "b.mp4,Nine,none"]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "list.csv"


def test_every_row_of_a_csv_is_accounted_for(table):
    outside = ("error", "outside_root")
    assert listed(table, table.parent) == {
        "a.mp4": ("kept", None),
        "b.mp4": ("kept", None),
        "a.mp4#2": ("rejected", "duplicate"),
        "b.mp4#2": ("rejected", "duplicate"),
        "gone.mp4": ("error", "missing"),
        "../x.mp4": outside,
        "/etc/passwd": outside,
        "link.mp4": outside,
        "": outside,
        ".": outside,
    }


def test_columns_of_a_csv_can_filter(table):
    from finetune.curation.config import ColumnMinimum

    def config(column):
        minimum = ColumnMinimum(column=column, at_least=4.5)
        return MetadataConfig(short_side_over=1, frames_over=1, square_pixels=True, csv=(minimum,))

    found = listed(table, table.parent, config("aesthetic score"))
    assert found["a.mp4"] == ("kept", None)
    assert found["b.mp4"] == ("rejected", "csv")
    with pytest.raises(UsageError, match="no column motion"):
        listed(table, table.parent, config("motion"))
    with pytest.raises(UsageError, match="need a CSV"):
        listed(table.parent, table.parent, config("aesthetic score"))


def test_a_folder_lists_videos_but_not_the_results(tmp_path):
    for name in ("b/x.MP4", "a.mkv", "notes.txt", ".hidden.mp4", "out/clips/y.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "bad\udcff.mp4").write_bytes(b"x")
    assert listed(tmp_path, tmp_path) == {
        "a.mkv": ("kept", None),
        "b/x.MP4": ("kept", None),
        "bad\\xff.mp4": ("error", "bad_name"),
    }


def test_what_is_no_list_is_refused(tmp_path):
    (tmp_path / "list.csv").write_text("name\nx\n")
    with pytest.raises(UsageError, match="no column video or path"):
        listed(tmp_path / "list.csv", tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        listed(tmp_path / "gone.csv", tmp_path)


@pytest.fixture
def keys(tmp_path):
    """What the rows of a shard after each stage are made from, with some of the configuration changed."""
    shard = Shard(tmp_path / "shard.parquet")
    shard.write([], key="")

    def keys_of(versions=None, **quality):
        config = from_tree(CurationConfig, CONFIG, "")
        config = replace(config, quality=replace(config.quality, **quality))
        setup = Setup(root=tmp_path, output=tmp_path, config=config, device="cpu")
        pipeline = Pipeline(setup, tmp_path, {**(versions or {}), "code_version": "1"}, 10, None)
        return {stage: pipeline.key(stage, shard) for stage in ORDER}

    return keys_of


def differing(one: dict[str, str], two: dict[str, str]) -> set[str]:
    return {stage for stage in one if one[stage] != two[stage]}


def test_weights_of_one_stage_do_not_concern_the_others(keys, monkeypatch):
    known = {"quality": {"a": "1"}, "motion": {"b": "1"}}
    monkeypatch.setattr("finetune.curation.pipeline.weights_of", lambda config, stage: known.get(stage, {}))
    before = keys({"config_hash": str(known), "weights": str(known)})
    known["quality"] = {"a": "2"}
    assert differing(before, keys({"config_hash": str(known), "weights": str(known)})) == {"quality"}


def test_other_thresholds_need_no_new_scores(keys):
    assert differing(keys(), keys(at_least=Thresholds(clipiqa=0.9), mode="quantile", target_count=7)) == set()
    assert differing(keys(), keys(clipiqa_frames=9)) == {"quality"}
    assert differing(keys(), keys(seed=3)) == {"quality"}


def test_the_id_of_a_clip_follows_from_its_source_frames_and_box():
    row = {"source_id": "a.mp4", "start_pts": 0, "end_pts": 10}
    names = {with_clip_id({**row, **change})["clip_id"] for change in ({}, {"end_pts": 11}, {"box_x": 1})}
    assert len(names) == 3
    changed = {**row, "clip_id": "before", "status": "rejected", "fastervqa": 0.5}
    assert with_clip_id(changed)["clip_id"] == with_clip_id(row)["clip_id"]


def test_a_score_that_is_no_number_does_not_end_the_report(tmp_path):
    columns = {column: [0.1, float("nan"), None, 0.5] for column in MEASURED}
    pq.write_table(pa.table(columns), tmp_path / "manifest.parquet")
    texts = list(_histograms(tmp_path / "manifest.parquet"))
    assert len(texts) == len(MEASURED) and all("(2 clips)" in text for text in texts)
