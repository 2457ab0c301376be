"""From a folder of clips whose truth is known to a manifest, and from the manifest to training pairs."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from finetune.curation.manifest import SCHEMA
from finetune.data.clips import open_clip, open_source
from finetune.data.config import DataConfig
from finetune.data.dataset import PairDataset
from finetune.data.latents import cache_key
from finetune.data.sources import load_sources
from tests import curation
from tests.curation import RATE, SIZE, SWEPT, by_stem, ends, pan, rows_of
from tests.media import pixels_of, times_of
from vsr.errors import SOME_FAILED, InputError, ModelError, UsageError
from vsr.video_io import probe

KEPT = ("kept", None, None)
STILL = ("rejected", "motion", "no_motion")
EXPECTED = {
    "cuts": [KEPT, ("rejected", "scenes", "too_short"), KEPT],
    "pan": [KEPT],
    "static": [STILL],
    "noise": [STILL],
    "object": [KEPT],
    "flash": [STILL, STILL],  # a known limit: one white frame in a still picture is taken for a cut
    "dissolve": [KEPT],  # a known limit: it is not found
    "vfr": [KEPT, KEPT],
    "turned": [KEPT],
    "short": [("rejected", "validate", "too_short")],
    "small": [("rejected", "validate", "too_small")],
    "zero": [("rejected", "validate", "zero_bytes")],
    "text": [("rejected", "validate", "unreadable")],
    "headless": [("rejected", "validate", "unreadable")],
    "sound": [("rejected", "validate", "no_video")],
    "truncated": [("error", "scenes", "truncated")],
    "flipped": [("error", "scenes", "corrupt")],
}


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> Path:
    """``in`` with the clips, ``out`` with what came of them."""
    folder = tmp_path_factory.mktemp("known")
    curation.make_clips(folder / "in")
    config = curation.write_config(folder / "config.yaml")
    assert curation.run(folder / "in", folder / "out", config, "--materialize") == SOME_FAILED
    return folder


def kept(known: Path) -> list[dict]:
    return [row for row in rows_of(known / "out") if row["status"] == "kept"]


# ------------------------------------------------------------------------------------------------ known truth


def test_every_clip_ends_as_it_must(known):
    found = by_stem(known / "out")
    assert {stem: ends(rows) for stem, rows in found.items()} == EXPECTED


def test_cuts_are_found_to_the_frame_and_trimmed(known):
    spans = [(row["start_frame"], row["end_frame"]) for row in by_stem(known / "out")["cuts"]]
    assert spans == [(0, 28), (32, 44), (48, 76)]  # cuts before 30 and 46


def test_a_variable_frame_rate_moves_no_cut(known):
    """30 frames at 15 fps, then 30 at 30 fps; the cut is where the rate changes."""
    first, second = by_stem(known / "out")["vfr"]
    times = [float(time) for time in times_of(known / "in" / "vfr.mp4")]
    assert (first["start_frame"], first["end_frame"]) == (0, 28)
    assert (second["start_frame"], second["end_frame"]) == (32, 60)
    assert first["end_s"] == pytest.approx(times[28]) and second["start_s"] == pytest.approx(times[32])
    assert second["start_s"] == pytest.approx(2 + 2 / 30, abs=1e-3)


def test_the_box_is_what_the_object_swept(known):
    (row,) = by_stem(known / "out")["object"]
    left, top, right, bottom = SWEPT
    edges = [row["motion_x"], row["motion_y"], row["motion_x"] + row["motion_w"], row["motion_y"] + row["motion_h"]]
    assert np.abs(np.subtract(edges, [left, top, right, bottom])).max() <= 16
    assert row["box_x"] <= row["motion_x"] and row["box_y"] <= row["motion_y"]


@pytest.mark.parametrize(("stem", "width", "height"), [("pan", *SIZE), ("turned", *SIZE[::-1])])
def test_a_pan_keeps_the_whole_frame_as_it_is_shown(known, stem, width, height):
    (row,) = by_stem(known / "out")[stem]
    assert [row[f"box_{side}"] for side in "xywh"] == [0, 0, width, height]
    assert row["flow_score"] == pytest.approx(3 * 720 / SIZE[1], rel=0.02)  # 3 pixels a frame, at 720


def test_the_sums_agree_and_the_report_shows_them(known):
    lines = (known / "out" / "report.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:9] if line.startswith("| ")]
    rows = {name: list(map(int, cells)) for name, *cells in table[1:]}
    assert list(rows) == ["input", "validate", "scenes", "quality", "motion"]
    assert all(taken + added == kept + rejected + errors for taken, added, kept, rejected, errors in rows.values())
    assert rows["input"] == [17, 0, 17, 0, 0]
    assert rows["scenes"] == [11, 4, 12, 1, 2]
    assert rows["motion"] == [12, 0, len(kept(known)), 4, 0]


def test_the_manifest_is_sorted_and_has_an_id_for_every_row(known):
    ids = [row["clip_id"] for row in rows_of(known / "out")]
    assert ids == sorted(set(ids))
    assert {len(name) for name in ids} == {16}


def test_the_list_of_kept_clips_mirrors_the_manifest(known):
    lines = [json.loads(line) for line in (known / "out" / "kept.jsonl").read_text().splitlines()]
    assert lines == [{name: value for name, value in row.items() if value is not None} for row in kept(known)]


def test_what_differs_from_run_to_run_is_in_the_log_only(known):
    entries = [json.loads(line) for line in (known / "out" / "runs.jsonl").read_text().splitlines()]
    clips = [entry for entry in entries if entry["event"] == "clip"]
    assert {entry["attempts"] for entry in clips} == {1}
    assert sum(entry["stage"] == "validate" for entry in clips) == 17
    assert not {"seconds", "attempts", "host", "at"} & set(rows_of(known / "out")[0])


def test_materialized_crops_hold_the_frames_of_the_scene(known):
    (row,) = by_stem(known / "out")["object"]
    written = pixels_of(known / "out" / "clips" / f"{row['clip_id']}.mp4").astype(int)
    x, y, w, h = (row[f"box_{side}"] for side in "xywh")
    source = pixels_of(known / "in" / "object.mp4")[:, y : y + h, x : x + w].astype(int)
    assert written.shape == source.shape
    assert np.abs(written - source).mean() < 3
    assert len(list((known / "out" / "clips").glob("*.mp4"))) == sum(
        r["status"] == "kept" for r in rows_of(known / "out")
    )


def test_materialized_crops_follow_their_source_and_those_that_are_not_kept_are_named(known, tmp_path, caplog):
    (tmp_path / "in").mkdir()
    curation.encode(tmp_path / "in" / "a.mp4", pan(1, 40))
    flags = ["quality.metrics=[]", "quality.at_least={}", "motion.use=false"]
    command = (tmp_path / "in", tmp_path / "out", known / "config.yaml", "--materialize", *flags)
    assert curation.run(*command) == 0
    (clip,) = (tmp_path / "out" / "clips").glob("*.mp4")
    written, first = clip.stat().st_ino, pixels_of(clip)
    (clip.parent / "0123456789abcdef.mp4").write_text("a clip of earlier thresholds")
    (clip.parent / "mine.mp4").write_text("another's")
    assert curation.run(*command) == 0
    assert "holds 1 clips that are not kept any more: 0123456789abcdef.mp4" in caplog.text
    assert len(list(clip.parent.iterdir())) == 3
    assert clip.stat().st_ino == written
    curation.encode(tmp_path / "in" / "a.mp4", pan(2, 40))
    os.utime(tmp_path / "in" / "a.mp4", (1, 1))
    assert curation.run(*command) == 0
    assert np.abs(pixels_of(clip).astype(int) - first).mean() > 5


# --------------------------------------------------------------------------------------------------- training


def test_a_manifest_gives_the_frames_and_the_box_of_its_clips(known):
    rows = kept(known)
    sources = load_sources(known / "out" / "manifest.parquet", "video")
    assert len(sources) == len(rows)
    for row, source in zip(rows, sources, strict=True):
        clip = open_source(source)
        assert len(clip) == row["end_frame"] - row["start_frame"]
        x, y, w, h = (row[f"box_{side}"] for side in "xywh")
        whole = open_clip(known / "in" / row["path"]).frames(row["start_frame"] + 3, 3)
        expected = np.stack(list(whole))[:, y : y + h, x : x + w]
        assert np.array_equal(np.stack(list(clip.frames(3, 3))), expected)


def test_pairs_are_made_from_a_manifest(known):
    manifest = known / "out" / "manifest.parquet"
    config = DataConfig(videos=manifest, frames=9, height=64, width=64, workers=0)
    data = PairDataset(config, seed=1)
    assert data.num_files("video") == len(kept(known))
    sample = data["video", 0]
    assert sample["x_gt"].shape == sample["x_lq"].shape == (3, 9, 64, 64)
    assert torch.equal(sample["x_gt"], PairDataset(config, seed=1)["video", 0]["x_gt"])


def test_a_cache_of_latents_knows_the_boxes(known, tmp_path):
    table = pq.read_table(known / "out" / "manifest.parquet")
    moved = table.set_column(table.schema.get_field_index("box_w"), "box_w", pa.array([100] * len(table)))
    (tmp_path / "a").mkdir()
    pq.write_table(moved.replace_schema_metadata({"root": str(known / "in")}), tmp_path / "a" / "manifest.parquet")
    paths = [known / "out" / "manifest.parquet", tmp_path / "a" / "manifest.parquet"]
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")
    configs = [DataConfig(videos=path, frames=9, height=64, width=64) for path in paths]
    assert len({cache_key(config, 0, tmp_path, torch.float32) for config in configs}) == 2


@pytest.mark.parametrize("path", ["../secret.mp4", "/etc/secret.mp4", "a/../../secret.mp4", "link.mp4"])
def test_a_manifest_may_not_lead_out_of_its_root(tmp_path, path):
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (tmp_path / "root" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    row = {"status": "kept", "path": path, "start_frame": 0, "end_frame": 5} | {f"box_{side}": 16 for side in "xywh"}
    table = pa.Table.from_pylist([row], SCHEMA).replace_schema_metadata({"root": "root"})
    pq.write_table(table, tmp_path / "manifest.parquet")
    with pytest.raises(InputError, match="outside its root"):
        load_sources(tmp_path / "manifest.parquet", "video")


def test_a_box_or_a_span_that_does_not_fit_is_named(known):
    from finetune.data.sources import Source

    path = known / "in" / "pan.mp4"
    with pytest.raises(InputError, match="30 frames, but 20 to 40"):
        open_source(Source(path=path, span=(20, 40)))
    with pytest.raises(InputError, match="too small for its box"):
        next(open_source(Source(path=path, box=(100, 0, 100, 100))).frames(0, 1))


def test_what_is_no_manifest_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="is no manifest"):
        load_sources(tmp_path / "a.parquet", "video")


# ------------------------------------------------------------------------------------------------------ usage


def test_a_stage_alone_is_not_a_training_set(known, tmp_path):
    config = known / "config.yaml"
    assert curation.run(known / "in", tmp_path / "out", config, "--stages", "validate") == 0
    assert {row["stage"] for row in rows_of(tmp_path / "out")} == {None, "validate"}
    with pytest.raises(InputError, match="not finished"):
        load_sources(tmp_path / "out" / "manifest.parquet", "video")


@pytest.mark.parametrize("flags", [[], ["--dry_run"]])
def test_a_folder_without_videos_is_refused_before_an_earlier_manifest_is_lost(known, tmp_path, flags):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.parquet").write_text("earlier")
    code = curation.run(tmp_path / "in", tmp_path / "out", known / "config.yaml", *flags)
    assert code == InputError.exit_code
    assert (tmp_path / "out" / "manifest.parquet").read_text() == "earlier"


def test_a_dry_run_writes_nothing(known, tmp_path, capsys):
    assert curation.run(known / "in", tmp_path / "out", known / "config.yaml", "--dry_run") == 0
    assert "17 inputs" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--stages", "motion"], UsageError.exit_code),
        (["--shard_size", "2000"], UsageError.exit_code),
        (["--stages", "validate", "scenes", "--materialize"], UsageError.exit_code),
        (["--engine", "serial", "--workers", "3"], UsageError.exit_code),
        (["motion.pairs=0"], UsageError.exit_code),
        (["quality.at_least={dover_overal: 0.5}"], UsageError.exit_code),
        (["quality.metrics=[dover]", "quality.at_least={clipiqa: 0.5}"], UsageError.exit_code),
        (["quality.metrics=[dover]", "quality.at_least={dover_overall: 0.5}"], ModelError.exit_code),
        (["motion.flow=raft"], ModelError.exit_code),
    ],
)
def test_what_cannot_be_done_is_said_before_any_video_is_opened(known, tmp_path, monkeypatch, flags, code):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert curation.run(known / "in", tmp_path / "out", known / "config.yaml", *flags) == code
    assert not (tmp_path / "out").exists()


def test_the_shipped_configuration_loads_and_names_the_papers_two_numbers():
    from finetune.curation.config import CurationConfig
    from finetune.typed_yaml import read_yaml

    config = read_yaml(Path(__file__).parent.parent / "configs" / "curation" / "hq_vsr.yaml", CurationConfig)
    assert (config.metadata.short_side_over, config.metadata.frames_over, config.scenes.min_frames) == (720, 50, 50)
    assert config.motion.min_short_side == 720


def test_rates_are_kept_as_fractions(known):
    (row,) = by_stem(known / "out")["pan"]
    assert (row["fps_num"], row["fps_den"], row["codec"]) == (RATE, 1, "h264")
    assert probe(known / "in" / "pan.mp4").codec == "h264"
