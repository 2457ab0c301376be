"""Crashes, kills and engines: the manifest is the same whatever happened on the way to it."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from finetune.curation import engines
from tests import curation
from tests.curation import by_stem, ends, pan
from vsr.errors import SOME_FAILED

ROOT = Path(__file__).parent.parent
HOSTILE = """
import av, ctypes, os, signal
real = av.open
def hostile(file, *args, **kwargs):
    if "crash" in str(file):
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in str(file):
        ctypes.PyDLL(None).sleep(1000)  # holds the interpreter lock, as a native decoder can
    return real(file, *args, **kwargs)
av.open = hostile
"""
"""Run by every Python that starts with this as its sitecustomize: a decoder that dies or hangs on some names."""
KILLED = """
import os, signal, sys
from finetune.curation import manifest
from finetune.scripts import curate
stage, real, count = sys.argv.pop(1), manifest.Shard.write, 0
def write(self, rows, key):
    global count
    count += self.path.parent.name == stage
    if count == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, rows, key)
manifest.Shard.write = write
curate.main()
"""
"""Runs curate and dies before it commits the second shard of a stage."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """``in`` with a few clips, ``whole`` with what came of them without trouble."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "in").mkdir()
    for i in range(3):
        curation.encode(folder / "in" / f"{i}.mp4", pan(i, 20))
    (folder / "in" / "zero.mp4").write_bytes(b"")
    config = curation.write_config(folder / "config.yaml")
    assert curation.run(folder / "in", folder / "whole", config) == 0
    return folder


def results(output: Path) -> list[bytes]:
    return [(output / name).read_bytes() for name in ("manifest.parquet", "kept.jsonl", "report.md")]


def test_killed_in_every_stage_and_run_again_it_is_byte_identical(clips):
    output, config = clips / "killed", clips / "config.yaml"
    flags = [f"--input={clips / 'in'}", f"--output={output}", f"--config={config}", "--engine=serial", "--sheets=2"]
    for stage in ("input", "validate", "scenes", "quality", "select", "motion"):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, stage, *flags, "--shard_size=1"], cwd=ROOT, capture_output=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert len(list((output / "work" / stage).glob("*.parquet"))) == 1
        assert not (output / "manifest.parquet").exists()
    assert curation.run(clips / "in", output, config, "--shard_size=1") == 0
    assert results(output) == results(clips / "whole")


def test_what_is_done_is_not_done_again_and_a_change_repeats_only_what_depends_on_it(clips, tmp_path):
    output = shutil.copytree(clips / "whole", tmp_path / "out")
    for flags, expected in (([], set()), (["scenes.trim=1"], {"scenes", "quality", "motion"})):
        before = (output / "runs.jsonl").read_text()
        assert curation.run(clips / "in", output, clips / "config.yaml", "--sheets=0", *flags) == 0
        new = (output / "runs.jsonl").read_text().removeprefix(before).splitlines()
        assert {entry.get("stage") for entry in map(json.loads, new)} - {None} == expected


def test_a_file_that_kills_or_stops_the_decoder_costs_itself_only(clips, tmp_path, monkeypatch):
    for name in ("crash", "hang"):
        (clips / "in" / f"{name}.mp4").write_bytes((clips / "in" / "0.mp4").read_bytes())
    (tmp_path / "sitecustomize.py").write_text(HOSTILE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    config = curation.write_config(tmp_path / "config.yaml", limits={"seconds": 5.0})
    try:
        assert curation.run(clips / "in", tmp_path / "out", config) == SOME_FAILED
    finally:
        for name in ("crash", "hang"):
            (clips / "in" / f"{name}.mp4").unlink()
    found = by_stem(tmp_path / "out")
    assert ends(found.pop("crash")) == [("error", "validate", "crash")]
    assert ends(found.pop("hang")) == [("error", "validate", "timeout")]
    whole = by_stem(clips / "whole")
    assert {stem: ends(rows) for stem, rows in found.items()} == {stem: ends(rows) for stem, rows in whole.items()}
    entries = [json.loads(line) for line in (tmp_path / "out" / "runs.jsonl").read_text().splitlines()]
    attempts = {entry["source_id"]: entry["attempts"] for entry in entries if entry.get("stage") == "validate"}
    assert attempts == {"0.mp4": 1, "1.mp4": 1, "2.mp4": 1, "zero.mp4": 1, "crash.mp4": 2, "hang.mp4": 2}


def test_several_processes_give_the_same_bytes(clips):
    flags = ["--engine=process", "--workers=2", "--shard_size=3"]
    assert curation.run(clips / "in", clips / "process", clips / "config.yaml", *flags) == 0
    assert results(clips / "process") == results(clips / "whole")


def test_ray_gives_the_same_bytes(clips):
    pytest.importorskip("ray")
    flags = ["--engine=ray", "--workers=2", "--shard_size=2"]
    assert curation.run(clips / "in", clips / "ray", clips / "config.yaml", *flags) == 0
    assert results(clips / "ray") == results(clips / "whole")


def test_a_second_run_in_the_same_folder_is_refused(clips):
    import fcntl

    from vsr.errors import UsageError

    with (clips / "whole" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert curation.run(clips / "in", clips / "whole", clips / "config.yaml") == UsageError.exit_code


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    """The bounded window of an engine: never more tasks are out than twice the workers, whatever their number."""
    from finetune.curation.engines import _bounded

    out, most = 0, 0

    def submit(rows):
        nonlocal out, most
        out, most = out + 1, max(most, out + 1)
        return object()

    def one_done(running):
        nonlocal out
        out -= 1
        return running[0]

    taken = list(_bounded(((i, []) for i in range(1000)), submit, one_done, lambda done: None, window=4))
    assert sorted(key for key, _ in taken) == list(range(1000))
    assert most == 4


def test_a_stage_that_cannot_start_stops_the_run_and_blames_no_clip(clips, tmp_path, monkeypatch):
    from finetune.curation.config import CurationConfig
    from finetune.curation.rows import KEPT
    from finetune.curation.stage import Setup
    from finetune.curation.worker import Worker
    from finetune.typed_yaml import read_yaml
    from vsr.errors import ModelError

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    overrides = ["quality.metrics=[fastervqa]", "quality.at_least={fastervqa: 0.5}"]
    config = read_yaml(clips / "config.yaml", CurationConfig, overrides)
    worker = Worker(Setup(root=clips / "in", output=tmp_path, config=config, device="cpu"))
    row = {"path": "0.mp4", "source_id": "0.mp4", "status": KEPT, "start_frame": 0, "end_frame": 20, "scene_idx": 0}
    with pytest.raises(ModelError, match=r"FAST_VQA_3D_1_1.pth"):
        worker.run("quality", [row])
    worker.close()


def test_workers_are_dealt_the_gpus_that_the_job_was_given(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    gpus = engines._gpus(SimpleNamespace(device="cuda"))
    assert [engines._gpu_of(i, gpus)["CUDA_VISIBLE_DEVICES"] for i in range(3)] == ["4", "5", "4"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert engines._gpus(SimpleNamespace(device="cuda")) == ["0", "1"]
    assert engines._gpu_of(0, engines._gpus(SimpleNamespace(device="cpu"))) == {}


def test_memory_that_is_short_for_a_moment_costs_no_clip(monkeypatch):
    from finetune.curation.rows import failed_with
    from finetune.curation.worker import Worker

    row = {"path": "0.mp4"}
    short = failed_with(row, "quality", torch.OutOfMemoryError("CUDA out of memory"), path=Path("0.mp4"))
    answers = [[short], [row]]
    limits = SimpleNamespace(attempts=2, seconds=1)
    worker = Worker(SimpleNamespace(config=SimpleNamespace(limits=limits)))
    monkeypatch.setattr(worker, "_ask", lambda stage, rows: answers.pop(0))
    outcome = worker.run("quality", [row])
    assert short["reason"] == "out_of_memory" and outcome.rows == [row] and outcome.attempts == 2
