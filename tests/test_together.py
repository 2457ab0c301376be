"""Several processes on one batch: the same frames as one makes, whoever dies; real processes with a random model."""

import fcntl
import json
import os
import resource
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import inference_script
from tests.media import clip, pixels_of
from tests.tiny import identity_pipeline, random_pipeline
from vsr.errors import EncoderError, InputError, UsageError
from vsr.jobs import Job
from vsr.ranks import Rank, own_device, this_rank
from vsr.restore import RestoreSettings, restore_frames
from vsr.settings import make_layout
from vsr.shared_file import SharedFile
from vsr.shared_work import join_work
from vsr.together import long_jobs, restore_windows, share_windows
from vsr.video_io import probe

ROOT = Path(__file__).parent.parent
HANGING = """
import sys, time, inference_script
from vsr.pipelines.dove import DOVEPipeline
restore, calls = DOVEPipeline.restore, []
def hang_in_the_third(self, *args):
    calls.append(1)
    if len(calls) == 3:
        print("hanging", flush=True)
        time.sleep(600)
    return restore(self, *args)
DOVEPipeline.restore = hang_in_the_third
sys.exit(inference_script.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """A model, clips (one of them long: eight windows), and what one process makes of them."""
    folder = tmp_path_factory.mktemp("together")
    random_pipeline(levels=3, posterior="sample").save_pretrained(folder / "model")
    (folder / "in").mkdir()
    clip(folder / "in" / "long.mp4", size="32x24", seconds="2.4")
    for name in ("one.mp4", "two.mp4"):
        clip(folder / "in" / name, size="24x16", seconds="0.28")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the other processes: sums over threads are rounded otherwise
    assert inference_script.main(flags(folder, folder / "alone")) == 0
    yield folder
    torch.set_num_threads(threads)


def flags(batch, output, *more):
    paths = [f"--input_dir={batch / 'in'}", f"--model_path={batch / 'model'}", f"--output_path={output}"]
    return [*paths, "--upscale=2", "--chunk_len=9", "--overlap_t=1", "--device=cpu", *more]


def start(rank, batch, output, program=("inference_script.py",), more=()):
    """A process as a launcher would start it, as one of two."""
    environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *program, *flags(batch, output, *more)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def start_and_hang(rank, batch, output):
    """A process that restores two windows of the long clip and then hangs in its third."""
    process = start(rank, batch, output, ("-c", HANGING))
    assert process.stdout.readline() == "hanging\n", process.stderr.read()
    return process


def kill(process):
    process.kill()
    process.communicate()


def assert_as_by_one_process(batch, output):
    for name in ("long.mp4", "one.mp4", "two.mp4"):
        assert np.array_equal(pixels_of(output / name), pixels_of(batch / "alone" / name)), name
    entries = json.loads((output / "report.json").read_text())["files"]
    assert {name: entry["status"] for name, entry in entries.items()} == dict.fromkeys(entries, "done")
    assert sorted(path.name for path in output.iterdir()) == ["long.mp4", "one.mp4", "report.json", "two.mp4"]


def test_two_processes_make_the_frames_of_one(batch, tmp_path):
    processes = [start(rank, batch, tmp_path) for rank in (0, 1)]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "3 restored" in said[0] or "already done" in said[0]
    assert_as_by_one_process(batch, tmp_path)


def test_what_a_killed_process_leaves_is_done_by_the_others_and_said(batch, tmp_path, monkeypatch, caplog):
    other = start_and_hang(1, batch, tmp_path)
    threading.Thread(target=lambda: (time.sleep(5), kill(other))).start()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert inference_script.main(flags(batch, tmp_path)) == 0
    assert "rank 1 (process" in caplog.text
    assert "window 2 of long.mp4" in caplog.text
    assert_as_by_one_process(batch, tmp_path)


def test_the_next_run_goes_on_from_the_windows_of_one_that_was_killed(batch, tmp_path, monkeypatch):
    kill(start_and_hang(0, batch, tmp_path))
    kept = sorted((tmp_path / ".vsr-work").rglob("*.npy"))
    assert [path.stem for path in kept] == ["000000", "000001"]
    asked = []
    restore_one = SharedFile.store
    monkeypatch.setattr(
        SharedFile, "store", lambda self, number, *made: (asked.append(number), restore_one(self, number, *made))
    )
    assert inference_script.main(flags(batch, tmp_path)) == 0
    assert asked == [2, 3, 4, 5, 6, 7]
    assert_as_by_one_process(batch, tmp_path)


def test_a_bad_file_costs_only_itself_and_rank_0_says_so(batch, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    clip(tmp_path / "in" / "good.mp4", size="24x16", seconds="0.28")
    whole = clip(tmp_path / "in" / "cut.mp4", "-movflags", "+faststart", size="24x16", seconds="4").read_bytes()
    (tmp_path / "in" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "model").symlink_to(batch / "model")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, code in ((1, 0), (0, 7)):
        monkeypatch.setenv("RANK", str(rank))
        assert inference_script.main(flags(tmp_path, tmp_path / "out")) == code
    entries = json.loads((tmp_path / "out" / "report.json").read_text())["files"]
    assert {name: entry["status"] for name, entry in entries.items()} == {"good.mp4": "done", "cut.mp4": "failed"}


class NoNetworks(type(identity_pipeline())):
    def __init__(self):
        super().__init__(identity_pipeline().grid)

    def restore(self, *args):
        raise AssertionError("a stored window was restored again")


@pytest.mark.parametrize("overlap", [9, 25])
def test_each_network_sees_at_most_1_4_frames_per_frame_whoever_takes_a_window(tmp_path, overlap):
    info = probe(clip(tmp_path / "long.mp4", size="16x16", seconds="24" if overlap == 9 else "4"))
    settings, pipes = (
        RestoreSettings(scale=1, overlap=overlap, color_fix="wavelet"),
        [identity_pipeline() for _ in "ab"],
    )
    shared = [SharedFile(tmp_path / "work", "long.mp4", "identity", Rank(index=i, size=2)) for i in (0, 1)]
    work = [
        threading.Thread(target=restore_windows, args=(info, pipe, settings, None, file, lambda count: None))
        for pipe, file in zip(pipes, shared, strict=True)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert all(file.is_complete for file in shared)
    alone, frames = identity_pipeline(), pixels_of(info.path)
    expected = np.stack(list(restore_frames(alone, frames, settings)))
    seen = [frames for pipe in pipes for frames, _, _ in pipe.calls]
    assert sorted(seen) == sorted(frames for frames, _, _ in alone.calls)
    assert overlap != 9 or (len(frames) == 600 and sum(seen) <= 1.4 * 600)
    joined = list(restore_frames(NoNetworks(), frames, settings, restored=shared[0].load))
    assert np.array_equal(joined, expected)


@pytest.mark.parametrize("small", [0, 1])
def test_a_process_without_the_memory_leaves_the_files_to_the_others(small, batch, tmp_path):
    limits = {small: ("--max_memory=1MB",), 1 - small: ()}
    processes = {rank: start(rank, batch, tmp_path / "out", more=limits[rank]) for rank in (0, 1)}
    said = {rank: process.communicate(timeout=200)[1] for rank, process in processes.items()}
    assert [process.returncode for process in processes.values()] == [0, 0], said
    assert "left to the other processes" in said[small]
    for name in ("long.mp4", "one.mp4", "two.mp4"):
        assert np.array_equal(pixels_of(tmp_path / "out" / name), pixels_of(batch / "alone" / name))
    assert not (tmp_path / "out" / ".vsr-work").exists()


def test_what_no_process_has_the_memory_for_has_failed(batch, tmp_path):
    processes = [start(rank, batch, tmp_path / "out", more=("--max_memory=1MB",)) for rank in (0, 1)]
    said = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [7, 0], said
    assert "0 restored, 0 already done, 3 failed" in said[0]
    report = json.loads((tmp_path / "out" / "report.json").read_text())["files"]
    assert {entry["status"] for entry in report.values()} == {"failed"}


def test_a_window_that_cannot_be_stored_is_named_and_leaves_nothing(tmp_path):
    shared = SharedFile(tmp_path / "work", "long.mp4", "identity", Rank())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with shared.claim_window(0) as mine:
        assert mine
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            with pytest.raises(EncoderError, match=r"cannot be written: (?!None)"):
                shared.store(0, torch.zeros(9, 3, 64, 64), "", [])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {path.name for path in (tmp_path / "work" / "identity").iterdir()} == {"000000", "000000.json"}


def share(tmp_path, name="work"):
    return SharedFile(tmp_path / name, "long.mp4", "identity", Rank(index=0, size=2))


def test_windows_say_how_they_were_restored(tmp_path):
    shared = share(tmp_path)
    with shared.claim_window(0):
        shared.store(0, torch.zeros(1, 3, 2, 2), "at once", ["one"])
    with shared.claim_window(1):
        shared.store(1, torch.zeros(1, 3, 2, 2), "tiled", ["two"])
    with shared.claim_window(2):
        shared.store(2, torch.zeros(1, 3, 2, 2), "at once", ["one"])
    assert shared.made() == {"plan": "at once; tiled", "notes": ["one", "two"]}


@pytest.mark.parametrize(("error", "are_left"), [(InputError, False), (EncoderError, True)])
def test_windows_of_a_file_that_cannot_be_read_go_at_the_end_and_those_of_a_full_disk_stay(tmp_path, error, are_left):
    with join_work(tmp_path, Rank(size=2)) as work:
        shared = work.file("long.mp4", tmp_path / "long.mp4", "identity")
        with shared.claim_window(0):
            shared.settle({"error": "first", "exit_code": error.exit_code})
            shared.store(0, torch.zeros(1, 3, 2, 2), "", [])  # by one who was at it meanwhile
            shared.settle({"error": "second", "exit_code": 6})
        assert shared.result["error"] == "first"
    assert (tmp_path / ".vsr-work").exists() == are_left
    assert shared.has_windows == are_left


def test_windows_are_only_shared_where_the_disk_has_room_for_them(tmp_path, caplog):
    files = {}
    for name in "ab":
        job = Job(info=probe(clip(tmp_path / f"{name}.mp4", size="32x24", seconds="2")), target=tmp_path / name)
        files[job] = share(tmp_path, name)
    layouts = {job: make_layout(RestoreSettings(scale=2), identity_pipeline().grid, 24, 32, 2) for job in files}
    one, two = files
    needed = 17 * 48 * 64 * 50
    assert share_windows(files, {one, two}, layouts, 2 * needed) == {one, two}
    assert share_windows(files, {two}, layouts, 2 * needed) == {two}
    assert share_windows(files, {one, two}, layouts, 2 * needed - 1) == {one}
    assert "b.mp4: restored by one process" in caplog.text
    with files[two].claim_window(0):
        files[two].store(0, torch.zeros(1, 3, 48, 64), "", [])
    assert share_windows(files, {one, two}, layouts, 2 * needed - 1) == {one, two}  # what is there is not needed again
    assert share_windows(files, set(), layouts, needed) == {two}
    matroska = replace(two, info=replace(two.info, frame_count=None, duration=None))
    unknown = {matroska: files[two], one: share(tmp_path, "a")}
    assert share_windows(unknown, {one}, {**layouts, matroska: layouts[two]}, needed - 1) == {matroska}


def test_what_the_first_process_chooses_holds_for_all_and_for_this_run_only(tmp_path):
    with join_work(tmp_path, Rank(size=2)) as first:
        assert first.agree(lambda: ["a", "b"]) == {"a", "b"}
        with join_work(tmp_path, Rank(index=1, size=2)) as second:
            assert second.agree(lambda: pytest.fail("asked again")) == {"a", "b"}
    with join_work(tmp_path, Rank(size=2)) as later:
        assert later.agree(list) == set()


def test_who_else_may_do_a_file(tmp_path):
    ranks = [Rank(index=index, size=3) for index in range(3)]
    with join_work(tmp_path, ranks[0]) as work:
        shared = work.file("a", tmp_path / "a", "")
        assert work.is_hopeless(shared)
        with join_work(tmp_path, ranks[1]) as other, join_work(tmp_path, ranks[2]):
            assert not work.is_hopeless(shared)
            assert not other.file("a", tmp_path / "a", "").refuse()
            assert not work.is_hopeless(shared)  # the third
        assert work.is_hopeless(shared)


BROKEN = """
import sys, inference_script
from vsr.pipelines.dove import DOVEPipeline
def fail(self, *args):
    raise RuntimeError("CUDA error: an illegal memory access was encountered")
DOVEPipeline.restore = fail
sys.exit(inference_script.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("broken", [0, 1])
def test_a_device_that_fails_costs_no_file(broken, batch, tmp_path):
    programs = {broken: ("-c", BROKEN), 1 - broken: ("inference_script.py",)}
    processes = {rank: start(rank, batch, tmp_path / "out", programs[rank]) for rank in (0, 1)}
    said = {rank: process.communicate(timeout=200)[1] for rank, process in processes.items()}
    assert [process.returncode for process in processes.values()] == [0, 0], said
    assert_as_by_one_process(batch, tmp_path / "out")


def test_what_no_other_process_comes_to_do_has_failed(batch, tmp_path, monkeypatch):
    def fail(self, *args):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("vsr.pipelines.dove.DOVEPipeline.restore", fail)
    monkeypatch.setattr("vsr.together.GRACE_SECONDS", 1)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert inference_script.main(flags(batch, tmp_path)) == 7
    entries = json.loads((tmp_path / "report.json").read_text())["files"]
    assert {entry["status"] for entry in entries.values()} == {"failed"}
    assert inference_script.main([*flags(batch, tmp_path), "--max_memory=1MB"]) == 7


def test_a_shared_lock_is_asked_for_as_network_file_systems_want_it(tmp_path, monkeypatch):
    """NFS makes locks of whole files out of locks of bytes, which only who may read can share."""
    monkeypatch.setattr("fcntl.flock", lambda file, kind: fcntl.lockf(file, kind))
    with join_work(tmp_path, Rank(size=2)) as work:
        assert work.agree(lambda: ["a"]) == {"a"}


def test_a_work_folder_that_cannot_be_made_is_an_error_in_words(tmp_path):
    (tmp_path / ".vsr-work").write_text("x")
    with pytest.raises(EncoderError, match="cannot be made"), join_work(tmp_path, Rank(size=2)):
        pytest.fail("joined")


def test_long_clips_whose_header_counts_no_frames_are_shared(tmp_path):
    matroska, short = clip(tmp_path / "a.mkv", seconds="8"), clip(tmp_path / "b.mp4", seconds="0.4")
    jobs = [Job(info=probe(path), target=tmp_path / "out" / path.name, prompt="") for path in (matroska, short)]
    assert long_jobs(jobs, window=9, processes=2) == {jobs[0]}


def test_the_launcher_says_who_this_process_is():
    assert this_rank({}) == Rank()
    given = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    assert this_rank(given) == Rank(index=5, size=8, local=1, local_size=4)
    assert this_rank({"RANK": "5", "WORLD_SIZE": "8"}) == Rank(index=5, size=8, local=5, local_size=8)
    for wrong in ({"RANK": "0"}, {"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x", "WORLD_SIZE": "2"}):
        with pytest.raises(UsageError, match="RANK below WORLD_SIZE"):
            this_rank(wrong)
    assert own_device(torch.device("cpu"), Rank(index=1, size=2, local=1)) == torch.device("cpu")
