"""The command line from end to end: exit codes, plans, names, resume, comparison, progress for programs."""

import json
import os
import shutil
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import inference_script
from tests.media import (
    clip,
    clip_with_sound,
    ffmpeg,
    packets_of,
    pixels_of,
    times_of,
    two_sounds_and_subtitles,
    variable_rate,
)
from tests.tiny import random_pipeline
from vsr.pipelines import dove
from vsr.video_io import probe

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "random"
    random_pipeline(levels=3).save_pretrained(folder)
    return folder


@pytest.fixture
def restore(tmp_path, model):
    """Run the script on ``tmp_path/in`` into ``tmp_path/out``."""

    def run(*flags, source=tmp_path / "in"):
        base = [f"--input_dir={source}", f"--model_path={model}", f"--output_path={tmp_path / 'out'}", "--upscale=2"]
        return inference_script.main([*base, *flags])

    (tmp_path / "in").mkdir()
    return run


def report_of(tmp_path):
    return json.loads((tmp_path / "out" / "report.json").read_text())["files"]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_restored_and_a_bad_file_costs_only_itself(tmp_path, restore, caplog):
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    clip_with_sound(tmp_path / "in" / "two.MKV", "-c:a", "aac")
    (tmp_path / "in" / "three.mp4").write_text("not a video")
    (tmp_path / "in" / "four.mp4").symlink_to("four.mp4")  # to itself
    assert restore() == 7
    assert names_in(tmp_path / "out") == ["one.mp4", "report.json", "two.mp4"]
    assert "three.mp4" in caplog.text and "four.mp4" in caplog.text
    info = probe(tmp_path / "out" / "two.mp4")
    assert (info.width, info.height, len(info.audio)) == (128, 96, 1)
    assert report_of(tmp_path)["one.mp4"]["frames"] == 10


def everything(folder):
    """Good files of many kinds, and files that must be named and left out."""
    clip(folder / "good.mp4")
    two_sounds_and_subtitles(folder / "two.mkv")
    variable_rate(folder / "variable.mp4")
    clip(folder / "-dash.mp4")
    ffmpeg("-display_rotation", "90", "-i", folder / "good.mp4", "-c", "copy", folder / "rotated.mp4")
    clip(folder / "deep.mp4", "-pix_fmt", "yuv420p10le", "-c:v", "libx265")
    clip(folder / "odd.mp4", "-vf", "crop=63:47:exact=1", "-pix_fmt", "yuv444p")
    clip(folder / "single.mp4", "-frames:v", "1")
    shutil.copy(folder / "good.mp4", folder / "s\u00fc\u00df name \u65e5\u672c.mp4")
    shutil.copy(folder / "good.mp4", folder / "concat:x.mp4")
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("hello")
    (folder / "script.mp4").write_text("ffconcat version 1.0\nfile good.mp4\n")
    ffmpeg("-f", "lavfi", "-i", "sine=f=440:d=1", folder / "sound.mp4")
    whole = clip(folder / "half.mp4", "-movflags", "+faststart", seconds="4").read_bytes()
    (folder / "half.mp4").write_bytes(whole[: len(whole) // 2])
    return {"zero.mp4", "text.mp4", "script.mp4", "sound.mp4", "half.mp4"}


def test_a_folder_of_everything_arrives_complete_or_is_named(tmp_path, restore):
    bad = everything(tmp_path / "in")
    good = {path for path in (tmp_path / "in").iterdir() if path.suffix != ".srt"} - {tmp_path / "in" / b for b in bad}
    assert restore("--upscale=1") == 7
    entries = report_of(tmp_path)
    assert {name for name, entry in entries.items() if entry["status"] == "failed"} == bad
    assert all(entries[name]["error"] for name in bad)
    expected = {path.stem + (".mkv" if path.stem == "two" else ".mp4") for path in good}
    assert set(names_in(tmp_path / "out")) == expected | {"report.json"}
    for source in good:
        result = tmp_path / "out" / entries[source.name]["output"]
        before, after = probe(source), probe(result)
        assert (after.width, after.height, after.rotation) == (before.width, before.height, 0)
        if source.stem != "variable":  # its average hangs on how long the last frame lasts, which no time stamp says
            assert after.rate == before.rate
        tolerance = Fraction(1, 1000) if result.suffix == ".mkv" else 0
        assert all(abs(a - b) <= tolerance for a, b in zip(times_of(result), times_of(source), strict=True))
        for kind, streams in (("audio", before.audio), ("subtitles", before.subtitles)):
            for i in range(len(streams)):
                sent, arrived = packets_of(source, kind, i), packets_of(result, kind, i)
                assert [data for data, _ in arrived] == [data for data, _ in sent]


def test_one_bad_file_alone_is_3_and_so_is_an_empty_or_missing_folder(tmp_path, restore):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"")
    assert restore(source=bad) == 3
    assert restore() == 3
    assert restore(source=tmp_path / "nothing") == 3


def test_the_exit_codes_of_settings_and_models(tmp_path, restore, model):
    source = clip(tmp_path / "in" / "one.mp4", size="32x24")
    assert restore("--chunk_len=32") == 2
    assert restore("--size=64x48") == 2  # besides --upscale
    assert restore("--tile_size_hw", "32", "32", "--overlap_hw", "32", "32") == 2
    assert restore("--device=cuda:7") == 2
    assert restore("--eval_metrics=psnr") == 2
    assert restore("--eval_metrics=psnr,foo", f"--gt_dir={tmp_path / 'in'}") == 2
    assert restore("--sr_noise_step=5000") == 2
    assert restore("--noise_step=-1") == 2
    assert restore("--upscale=nan") == 2
    assert restore("--fps=1e12") == 2
    assert restore("--device=cpu:x") == 2
    assert restore(source="x" * 400) == 3
    assert restore(f"--lora_path={source}") == 2
    assert restore(f"--model_path={tmp_path}") == 5
    with pytest.raises(SystemExit) as wrong_flag:
        restore("--upscale=four")
    assert wrong_flag.value.code == 2
    assert not (tmp_path / "out").exists()


def test_out_of_memory_is_4_and_names_settings_that_need_less(tmp_path, restore, monkeypatch, caplog):
    import torch

    def exhausted(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    clip(tmp_path / "in" / "one.mp4", size="32x24")
    monkeypatch.setattr(dove.DOVEPipeline, "restore", exhausted)
    assert restore() == 4
    assert "--size" in caplog.text
    assert names_in(tmp_path / "out") == ["report.json"]


def test_a_bug_in_one_file_does_not_stop_the_batch(tmp_path, restore, monkeypatch):
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    clip(tmp_path / "in" / "two.mp4", size="40x24")
    original = dove.DOVEPipeline.restore

    def fragile(self, x_lq, *args):
        if x_lq.shape[-1] == 64:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return original(self, x_lq, *args)

    monkeypatch.setattr(dove.DOVEPipeline, "restore", fragile)
    assert restore() == 7
    assert names_in(tmp_path / "out") == ["report.json", "two.mp4"]
    assert "RuntimeError" in report_of(tmp_path)["one.mp4"]["error"]


def test_what_the_encoder_cannot_hold_is_told_before_anything_is_restored(tmp_path, restore, caplog):
    clip(tmp_path / "in" / "wide.mp4", size="4104x16", seconds="0.08")
    wide = ["--dry_run", "--upscale", "4"]
    assert restore(*wide) == 2
    assert "wide.mp4: libx264 encodes sides of up to 16384 pixels, the result would be 16416x64" in caplog.text
    assert restore(*wide, "--codec=libx265") == 0
    assert restore(*wide, "--png_save") == 0
    assert restore(*wide, "--save_format=rgb") == 0


def test_a_dry_run_prints_the_plan_and_loads_no_weights(tmp_path, restore, model, monkeypatch, capsys, caplog):
    clip(tmp_path / "in" / "one.mp4", size="32x24", seconds="4")
    monkeypatch.setattr("vsr.pipelines.load_pipeline", lambda *a: pytest.fail("loaded"))
    assert restore("--dry_run", "--tile_size_hw", "40", "48", "--overlap_hw", "8", "8") == 0
    plan = capsys.readouterr().out
    assert "one.mp4: 32x24, 100 frames" in plan
    assert "64x48, windows of 33 frames, overlap 9, 4 tiles of 40x32; 4 window(s)" in plan
    assert "Scene cuts" in caplog.text
    assert not (tmp_path / "out").exists()


def test_two_inputs_of_one_name_are_refused_before_work(tmp_path, restore, caplog):
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    clip(tmp_path / "in" / "one.mkv", size="32x24")
    assert restore() == 2
    assert "would both become one.mp4" in caplog.text


def test_a_name_that_is_not_utf_8_is_printed_with_escapes(tmp_path, restore, capsys):
    (tmp_path / "in").mkdir(exist_ok=True)
    clip(tmp_path / "plain.mp4", size="32x24").rename(tmp_path / "in" / os.fsdecode(b"caf\xe9.mp4"))
    assert restore("--dry_run") == 0
    assert "caf\\udce9.mp4: 32x24" in capsys.readouterr().out


def test_files_of_one_name_in_two_folders_are_refused_even_if_one_is_broken(tmp_path, restore, caplog):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    clip(tmp_path / "b" / "one.mp4", size="32x24")
    (tmp_path / "a" / "one.mp4").write_bytes(b"broken")
    assert restore("--input_dir", str(tmp_path / "[ab]" / "one.mp4")) == 2
    assert "have one name" in caplog.text


def test_finished_files_are_skipped_and_other_settings_are_refused(tmp_path, restore, caplog, monkeypatch):
    source = clip(tmp_path / "in" / "one.mp4", size="32x24")
    assert restore() == 0
    written = (tmp_path / "out" / "one.mp4").stat().st_mtime_ns
    monkeypatch.setattr("vsr.pipelines.load_pipeline", lambda *a: pytest.fail("loaded"))
    assert restore() == 0
    os.utime(source)  # touched, but the same content
    assert restore() == 0
    assert (tmp_path / "out" / "one.mp4").stat().st_mtime_ns == written
    assert restore("--seed=1") == 2
    assert restore("--no-resume") == 2
    assert "--overwrite" in caplog.text
    monkeypatch.undo()
    assert restore("--seed=1", "--overwrite") == 0
    assert (tmp_path / "out" / "one.mp4").stat().st_mtime_ns > written


def test_progress_as_json_lines(tmp_path, restore, capsys):
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    (tmp_path / "in" / "two.mp4").write_text("no video")
    assert restore("--json") == 7
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["failed", "start", "progress", "done", "end"]
    assert events[2]["done"] == events[2]["frames"] == 10
    assert events[3]["output"].endswith("one.mp4")
    assert events[4]["exit_code"] == 7
    truth = tmp_path / "gt"
    truth.mkdir()
    clip(truth / "one.mp4", size="64x48")
    for folder in (tmp_path / "in", truth):
        (folder / "one.mp4").rename(folder / "event.mp4")  # a name that is also a field
    assert (
        restore(
            "--json",
            "--compare",
            f"--gt_dir={truth}",
            "--eval_metrics=psnr, ssim",
            source=tmp_path / "in" / "event.mp4",
        )
        == 0
    )
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["start", "progress", "done", "comparison", "metrics", "end"]
    assert events[3]["clips"]["event"]["restored"].keys() == {"psnr", "ssim", "frame_difference"}
    assert restore("--json", "--dry_run", source=tmp_path / "in" / "event.mp4") == 0
    (plan,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (plan["event"], plan["file"], plan["windows"]) == ("plan", "event.mp4", 1)


def test_images_and_folders_of_frames(tmp_path, restore):
    import cv2

    frames = pixels_of(clip(tmp_path / "frames.mp4", size="32x24"))
    (tmp_path / "in" / "walk").mkdir()
    for i, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / "in" / "walk" / f"{i:03d}.png"), frame)
    cv2.imwrite(str(tmp_path / "in" / "photo.jpg"), frames[0])
    assert restore("--fps=12") == 0
    assert names_in(tmp_path / "out") == ["photo.png", "report.json", "walk.mp4"]
    assert (probe(tmp_path / "out" / "walk.mp4").frame_count, probe(tmp_path / "out" / "walk.mp4").rate) == (10, 12)
    assert restore("--png_save", "--overwrite") == 0
    assert len(names_in(tmp_path / "out" / "walk")) == 10


def test_prompts_for_files_that_are_not_there_are_refused(tmp_path, restore):
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    prompts = tmp_path / "prompts.json"
    prompts.write_text('{"two.mp4": "a cat"}')
    assert restore(f"--input_json={prompts}") == 2
    prompts.write_text("[1]")
    assert restore(f"--input_json={prompts}") == 2
    prompts.write_text('{"one.mp4": ""}')
    assert restore(f"--input_json={prompts}") == 0


def test_offload_and_vae_tiling_run(tmp_path, restore):
    clip(tmp_path / "in" / "one.mp4", size="32x24")
    assert restore("--is_cpu_offload") == 0
    assert restore("--is_vae_st", "--overwrite") == 0
    assert restore("--is_vae_st", "--max_memory=1GB", "--overwrite") == 2


def test_time_is_predicted_where_the_header_counts_no_frames(tmp_path, restore, capsys):
    clip(tmp_path / "in" / "one.mkv", size="32x24")
    assert restore("--dry_run") == 0
    said = capsys.readouterr()
    assert "for the networks" in said.out + said.err


def start(tmp_path, model, *flags):
    command = [sys.executable, "inference_script.py", f"--input_dir={tmp_path / 'in'}", f"--model_path={model}"]
    return subprocess.Popen(
        [*command, f"--output_path={tmp_path / 'out'}", "--upscale=2", "--json", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 130), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_batch_leaves_whole_files_only_and_goes_on_where_it_was(tmp_path, model, restore, stop, code):
    for name in ("one", "two", "three"):
        clip(tmp_path / "in" / f"{name}.mp4", size="48x32", seconds="1.4")
    process = start(tmp_path, model)
    events = (json.loads(line) for line in process.stdout)
    for event in events:
        if event["event"] == "progress" and event["file"] == "three.mp4":
            break
    process.send_signal(stop)
    assert process.wait(30) == code
    # sorted by name: one, three, two
    finished = [name for name in names_in(tmp_path / "out") if not name.startswith(".")]
    assert finished == ["one.mp4", "report.json"]
    if stop != signal.SIGKILL:
        assert names_in(tmp_path / "out") == finished
    first = (tmp_path / "out" / "one.mp4").stat().st_mtime_ns
    assert restore() == 0
    assert (tmp_path / "out" / "one.mp4").stat().st_mtime_ns == first
    resumed = {name: pixels_of(tmp_path / "out" / f"{name}.mp4") for name in ("two", "three")}
    assert restore("--overwrite", "--no-resume") == 0
    for name, pixels in resumed.items():
        assert np.array_equal(pixels_of(tmp_path / "out" / f"{name}.mp4"), pixels)


def test_a_full_disk_leaves_no_file_under_a_final_name(tmp_path, model, restore):
    """The limit on the size of files stands for a full disk."""
    clip(tmp_path / "in" / "one.mp4", size="320x240", seconds="1")
    limit = "import resource, sys, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000)); "
    limit += "import inference_script; sys.exit(inference_script.main(sys.argv[1:]))"
    flags = [f"--input_dir={tmp_path / 'in'}", f"--model_path={model}", f"--output_path={tmp_path / 'out'}", "--crf=1"]
    done = subprocess.run(
        [sys.executable, "-c", limit, *flags, "--upscale=1"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 6, done.stderr
    assert "one.mp4" in done.stderr
    assert not [name for name in names_in(tmp_path / "out") if name != "report.json"]


MEMORY = """
import resource, sys
from pathlib import Path
from tests.tiny import identity_pipeline
from vsr import restore_video
restore_video(sys.argv[1], Path(sys.argv[2]), identity_pipeline(), scale=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_length_of_the_clip(tmp_path):
    peaks = []
    for seconds in (9.6, 24):  # both of several windows, so that all that waits between the stages is there
        source = clip(tmp_path / f"{seconds}.mp4", "-preset", "ultrafast", size="640x480", seconds=str(seconds))
        command = [sys.executable, "-c", MEMORY, str(source), str(tmp_path / f"{seconds}-out.mp4")]
        peaks.append(int(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout) * 1024)
    assert peaks[1] - peaks[0] < 50e6
