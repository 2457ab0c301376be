"""report.json: what counts as done, and what happens to a damaged, foreign or deleted one."""

import json
import os

import pytest

from vsr.errors import EncoderError, InputError
from vsr.report import Report, identity


def test_a_changed_source_or_setting_is_not_finished(tmp_path):
    source, target = tmp_path / "a.mp4", tmp_path / "out.mp4"
    source.write_bytes(b"one")
    report = Report(tmp_path)
    report.started(source, target, {"model": "x"})
    assert not Report(tmp_path).is_done(source, target, {"model": "x"})
    target.write_bytes(b"result")
    report.done(source, {"frames": 1})
    assert Report(tmp_path).is_done(source, target, {"model": "x"})
    assert not Report(tmp_path).is_done(source, target, {"model": "y"})
    source.write_bytes(b"two")
    assert not Report(tmp_path).is_done(source, target, {"model": "x"})


def test_a_failed_look_at_a_source_does_not_forget_its_result(tmp_path):
    source, target = tmp_path / "a.mp4", tmp_path / "out.mp4"
    source.write_bytes(b"one")
    target.write_bytes(b"result")
    report = Report(tmp_path)
    report.started(source, target, {"model": "x"})
    report.done(source, {"frames": 1})
    for _ in range(2):
        Report(tmp_path).failed("a.mp4", InputError("cannot be opened"))
    assert Report(tmp_path).is_done(source, target, {"model": "x"})
    assert not Report(tmp_path).is_done(source, target, {"model": "y"})


@pytest.mark.parametrize("target", ["one.mp4", "one.mkv"])
def test_an_overwrite_that_fails_does_not_forget_the_result_that_is_still_there(tmp_path, target):
    source, result = tmp_path / "in.mp4", tmp_path / "one.mp4"
    source.write_bytes(b"source")
    result.write_bytes(b"result")
    report = Report(tmp_path)
    report.started(source, result, {"seed": 1})
    report.done(source, {})
    report.started(source, tmp_path / target, {"seed": 2})
    assert report.is_done(source, result, {"seed": 1})  # a run that was killed here
    report.failed(source.name, EncoderError("disk full"))
    assert report.is_done(source, result, {"seed": 1})
    assert not report.is_done(source, tmp_path / target, {"seed": 2})
    report.started(source, result, {"seed": 3})
    result.unlink()
    result.write_bytes(b"replaced")
    os.utime(result, ns=(1, 1))
    assert report.is_done(source, result, {"seed": 3}) and not report.is_done(source, result, {"seed": 1})
    report.failed(source.name, EncoderError("disk full"))
    assert not report.is_done(source, result, {"seed": 1})


def test_a_result_whose_run_was_killed_before_its_entry_was_complete_is_its_own(tmp_path):
    source, target = tmp_path / "a.mp4", tmp_path / "out.mp4"
    source.write_bytes(b"one")
    target.write_bytes(b"older result")
    Report(tmp_path).started(source, target, {})
    assert not Report(tmp_path).is_done(source, target, {})  # the older result is still there
    target.unlink()
    target.write_bytes(b"result")
    os.utime(target, ns=(1, 1))
    assert Report(tmp_path).is_done(source, target, {})


def test_a_result_that_a_killed_run_has_published_outlives_another_start(tmp_path):
    source, target = tmp_path / "a.mp4", tmp_path / "out.mp4"
    source.write_bytes(b"one")
    report = Report(tmp_path)
    report.started(source, target, {"seed": 1})
    target.write_bytes(b"result")
    report.started(source, target, {"seed": 2})
    assert report.is_done(source, target, {"seed": 1})
    report.failed("a.mp4", InputError("bad"))
    assert Report(tmp_path).is_done(source, target, {"seed": 1})
    assert not Report(tmp_path).is_done(source, target, {"seed": 2})


def test_a_folder_of_frames_has_an_identity_too(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    first = identity(tmp_path)
    (tmp_path / "b.png").write_bytes(b"other")
    assert identity(tmp_path)["sha256"] != first["sha256"]


def test_frames_that_have_changed_places_are_another_clip(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
        os.utime(tmp_path / name, ns=(1, len(list(tmp_path.iterdir()))))
    first = identity(tmp_path)
    assert identity(tmp_path, first) is first
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    (tmp_path / "b.png").rename(tmp_path / "a.png")
    (tmp_path / "c.png").rename(tmp_path / "b.png")
    assert identity(tmp_path, first)["sha256"] != first["sha256"]
    older = {name: value for name, value in first.items() if name != "listing"}  # of a report before there was one
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    (tmp_path / "b.png").rename(tmp_path / "a.png")
    (tmp_path / "c.png").rename(tmp_path / "b.png")
    assert identity(tmp_path, older) is older


@pytest.mark.parametrize("damage", ["", "[", "{}", '{"files": []}', '{"files": {"one.mp4": 3}}', "[" * 100_000])
def test_a_damaged_report_means_that_nothing_is_done(tmp_path, damage):
    (tmp_path / "report.json").write_text(damage)
    (tmp_path / "one.mp4").write_bytes(b"x")
    assert not Report(tmp_path).is_done(tmp_path / "one.mp4", tmp_path / "one.mp4", {})


def test_a_file_that_is_no_report_is_kept_beside_the_report(tmp_path, caplog):
    (tmp_path / "report.json").write_text('{"mine": 1}')
    report = Report(tmp_path)
    for name in ("a", "b"):
        report.failed(name, InputError("bad"))
    assert (tmp_path / "report.json.old").read_text() == '{"mine": 1}'
    assert "kept as report.json.old" in caplog.text
    assert list(json.loads((tmp_path / "report.json").read_text())["files"]) == ["a", "b"]


def test_entries_outlive_a_report_that_somebody_deletes(tmp_path):
    report = Report(tmp_path)
    report.failed("a", InputError("bad"))
    (tmp_path / "report.json").unlink()
    report.failed("b", InputError("bad"))
    assert list(json.loads((tmp_path / "report.json").read_text())["files"]) == ["a", "b"]


def test_a_report_that_cannot_be_written_is_an_encoder_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EncoderError, match="cannot be written"):
        Report(tmp_path / "file" / "folder").failed("source", InputError("bad"))
