"""Results are complete or absent: dead encoders, full disks, interrupts, names, PNG folders, sizes."""

import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from tests import media
from vsr.errors import EncoderError, UsageError
from vsr.video_io import OutputOptions, VideoInfo, open_writer, output_path, probe, read_frames


@pytest.fixture
def info(tmp_path) -> VideoInfo:
    return probe(media.clip_with_sound(tmp_path / "in.mp4"))


def noise(width: int = 64, height: int = 48, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (height, width, 3), dtype=dtype, endpoint=True)


def write(
    target: Path, info: VideoInfo, *, frames: int = 3, width: int = 64, height: int = 48, **settings: object
) -> list:
    with open_writer(target, info, width=width, height=height, options=OutputOptions(**settings)) as writer:
        for i in range(frames):
            writer.write(noise(width, height, writer.dtype, i), i * 512)
    return writer.notes


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit, SystemExit])
@pytest.mark.parametrize("settings", [{}, {"png": True}])
def test_leaving_by_an_exception_leaves_nothing(tmp_path, info, error, settings):
    options, out = OutputOptions(**settings), tmp_path / "out"
    with (
        pytest.raises(error),
        open_writer(output_path(out, info, options), info, width=64, height=48, options=options) as w,
    ):
        w.write(noise(), 0)
        assert all(entry.name.startswith(".") for entry in out.iterdir())
        raise error
    assert list(out.iterdir()) == []


def test_no_ffmpeg_is_left_running_after_an_exception(tmp_path, info):
    with (
        pytest.raises(RuntimeError),
        open_writer(tmp_path / "a.mp4", info, width=64, height=48, options=OutputOptions()) as w,
    ):
        w.write(noise(), 0)
        process = w._encoder._process
        raise RuntimeError
    assert process.returncode is not None
    assert not [thread for thread in threading.enumerate() if "_keep_" in thread.name]


def test_an_existing_result_stays_until_the_new_one_is_complete(tmp_path, info):
    target = tmp_path / "out.mp4"
    write(target, info)
    before = target.read_bytes()
    with pytest.raises(RuntimeError), open_writer(target, info, width=64, height=48, options=OutputOptions()) as writer:
        writer.write(noise(), 0)
        raise RuntimeError
    assert target.read_bytes() == before
    write(target, info, frames=5)
    assert probe(target).frame_count == 5


def test_what_a_killed_run_left_behind_is_removed_by_the_next(tmp_path, info):
    target = tmp_path / "out" / "in.mp4"
    script = (
        "import os, sys, numpy as np; from pathlib import Path; from vsr.video_io import *\n"
        "info = probe(sys.argv[1])\n"
        "with open_writer(Path(sys.argv[2]), info, width=64, height=48, options=OutputOptions()) as writer:\n"
        "    writer.write(np.zeros((48, 64, 3), np.uint8), 0)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(info.path), str(target)], cwd=Path(__file__).parent.parent)
    assert run.returncode == -signal.SIGKILL
    assert [entry.name.startswith(".vsr-") for entry in target.parent.iterdir()] == [True]
    write(target, info)
    assert list(target.parent.iterdir()) == [target]


def test_a_second_writer_of_one_result_leaves_the_first_alone_and_says_so(tmp_path, info):
    target, options = tmp_path / "out" / "in", OutputOptions(png=True)
    script = (
        "import sys, numpy as np; from pathlib import Path; from vsr.video_io import *\n"
        "info = probe(sys.argv[1])\n"
        "with open_writer(Path(sys.argv[2]), info, width=64, height=48, options=OutputOptions(png=True)) as writer:\n"
        "    writer.write(np.zeros((48, 64, 3), np.uint8), 0)\n"
    )
    with open_writer(target, info, width=64, height=48, options=options) as first:
        first.write(noise(), 0)
        command = [sys.executable, "-c", script, str(info.path), str(target)]
        second = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True)
        assert len(list(target.iterdir())) == 1
        first.write(noise(), 1)
    assert "another process is writing" in second.stderr
    assert len(list(target.iterdir())) == 2 and list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_of_frames_takes_the_place_of_a_file_or_a_link_and_spares_what_that_led_to(tmp_path, info, kind):
    target, elsewhere = tmp_path / "out" / "in", tmp_path / "elsewhere"
    target.parent.mkdir()
    elsewhere.mkdir()
    (elsewhere / "000000.png").write_bytes(b"x")
    target.write_text("x") if kind == "file" else target.symlink_to(elsewhere)
    write(target, info, png=True)
    assert len(list(target.iterdir())) == 3 and not target.is_symlink()
    assert (elsewhere / "000000.png").read_bytes() == b"x"


def test_a_dead_encoder_is_reported_at_once(tmp_path, info):
    out = tmp_path / "out"
    with (
        pytest.raises(EncoderError, match="ffmpeg failed") as caught,
        open_writer(out / "a.mp4", info, width=64, height=48, options=OutputOptions()) as writer,
    ):
        writer.write(noise(), 0)
        writer._encoder._process.kill()
        for i in range(1, 1000):
            writer.write(noise(), i * 512)
        pytest.fail("1000 frames went into a dead encoder")
    assert "-9" in str(caught.value)
    assert list(out.iterdir()) == []


def test_the_message_carries_the_words_of_ffmpeg(tmp_path, info, monkeypatch):
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\necho 'Unknown encoder: out of luck' >&2\nexit 3\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    with pytest.raises(EncoderError, match=r"exit status 3(.|\n)*out of luck"):
        write(tmp_path / "a.mp4", info, frames=1000)


def test_a_missing_ffmpeg_is_named(tmp_path, info, monkeypatch):
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(tmp_path / "nothing"))
    with pytest.raises(EncoderError, match="cannot start ffmpeg"):
        write(tmp_path / "a.mp4", info)


def test_an_interrupt_gets_through_while_the_encoder_hangs(tmp_path, info, monkeypatch):
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\nexec sleep 600\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "out" / "a.mp4", info, frames=100, width=320, height=240)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_encoder_that_chatters_without_end_does_not_block(tmp_path, info, monkeypatch):
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\nyes 'a warning' | head -c 1000000 >&2\ncat > /dev/null\necho frame=3\nexit 1\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    with pytest.raises(EncoderError, match="a warning"):
        write(tmp_path / "a.mp4", info)


@pytest.mark.parametrize("settings", [{}, {"pixel_format": "rgb"}, {"png": True}])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, info, settings):
    """The limit on file size stands in for a full disk: both make write() fail in ffmpeg and in Python."""
    out = tmp_path / "out"
    target = output_path(out, info, OutputOptions(**settings))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(EncoderError, match=r"File too large|exit status"):
            write(target, info, frames=60, width=320, height=240, **settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(out.iterdir()) == []


def test_a_full_tmpfs_is_named_and_leaves_nothing(tmp_path, info):
    out = tmp_path / "small"
    out.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", out], capture_output=True).returncode
    ):
        pytest.skip("mounting a tmpfs needs privileges; the test with RLIMIT_FSIZE covers the same path")
    try:
        for settings in ({}, {"pixel_format": "rgb"}, {"png": True}):
            with pytest.raises(EncoderError, match=r"No space left"):
                write(
                    output_path(out, info, OutputOptions(**settings)),
                    info,
                    frames=60,
                    width=320,
                    height=240,
                    **settings,
                )
            assert list(out.iterdir()) == []
    finally:
        subprocess.run(["umount", out], check=True)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, info):
    (tmp_path / "file").touch()
    with pytest.raises(EncoderError, match="cannot write into"):
        write(tmp_path / "file" / "out.mp4", info)


def test_nothing_written_is_an_error(tmp_path, info):
    with pytest.raises(EncoderError, match="no frame was written"):
        write(tmp_path / "out" / "a.mp4", info, frames=0)
    assert list((tmp_path / "out").iterdir()) == []


def test_wrong_frames_are_refused(tmp_path, info):
    for pixels in (noise(32), noise(dtype=np.uint16), noise()[..., 0]):
        with (
            pytest.raises(ValueError, match="expected frames"),
            open_writer(tmp_path / "a.mp4", info, width=64, height=48, options=OutputOptions()) as writer,
        ):
            writer.write(pixels, 0)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 720), (2, 2), (16, 16), (17, 1)])
@pytest.mark.parametrize("settings", [{}, {"pixel_format": "yuv420p10le"}, {"pixel_format": "rgb"}, {"png": True}])
def test_tiny_and_extreme_sizes_are_written(tmp_path, info, width, height, settings):
    target = output_path(tmp_path / "out", info, OutputOptions(**settings))
    write(target, info, width=width, height=height, **settings)
    assert media.pixels_of(target).shape == (3, height, width, 3)


def test_one_frame_is_a_video(tmp_path):
    source = media.clip(tmp_path / "one.mp4", "-frames:v", "1")
    target, _ = media.copy_through(source, tmp_path / "out")
    assert media.pixels_of(target).shape == (1, 48, 64, 3)
    assert probe(target).rate == 25


def test_png_frames_are_exact_and_numbered_from_zero(tmp_path, info):
    target, _ = media.copy_through(info.path, tmp_path / "out", png=True)
    assert [path.name for path in sorted(target.iterdir())][:2] == ["000000.png", "000001.png"]
    assert np.array_equal(media.pixels_of(target), media.pixels_of(info.path))
    media.copy_through(info.path, tmp_path / "out", png=True)
    assert list((tmp_path / "out").iterdir()) == [target]


def test_deep_png_frames_have_16_bits(tmp_path):
    source = media.clip(tmp_path / "in.mkv", "-pix_fmt", "yuv420p10le", "-c:v", "ffv1")
    target, _ = media.copy_through(source, tmp_path / "out", png=True)
    assert np.array_equal(media.pixels_of(target), media.pixels_of(source))
    assert media.pixels_of(target).dtype == np.uint16


def test_a_folder_of_frames_becomes_a_video_at_the_rate_asked_for(tmp_path, info):
    frames, _ = media.copy_through(info.path, tmp_path / "frames", png=True)
    target, _ = media.copy_through(frames, tmp_path / "out")
    assert probe(target).rate == 16 and target.name == "in.mp4"
    target, _ = media.copy_through(frames, tmp_path / "out", fps=Fraction(30000, 1001), pixel_format="rgb")
    assert probe(target).rate == Fraction(30000, 1001)
    assert np.array_equal(media.pixels_of(target), media.pixels_of(frames))


def test_an_image_becomes_one_png(tmp_path, info):
    frames, _ = media.copy_through(info.path, tmp_path / "frames", png=True)
    image = frames / "000003.png"
    target, _ = media.copy_through(image, tmp_path / "out")
    assert target == tmp_path / "out" / "000003.png"
    assert np.array_equal(media.pixels_of(image), media.pixels_of(target))


def test_results_stay_in_their_folder(tmp_path, info):
    video, out = OutputOptions(), tmp_path / "out"
    assert output_path(out, info, video) == out / "in.mp4"
    assert output_path(out, replace(info, path=Path("/a/..hidden.v2.mov")), video) == out / "..hidden.v2.mp4"
    assert output_path(out, replace(info, path=Path("/a/clip.v2"), kind="frames"), video) == out / "clip.v2.mp4"
    assert output_path(out, info, OutputOptions(png=True)) == out / "in"
    with pytest.raises(UsageError, match="cannot derive"):
        output_path(out, replace(info, path=Path("/"), kind="frames"), video)


def test_names_as_long_as_the_file_system_allows_work(tmp_path):
    source = media.clip(tmp_path / ("n" * 251 + ".mp4"))
    target, _ = media.copy_through(source, tmp_path / "out")
    assert target.name == source.name and probe(target).frame_count == 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pixel_format": "yuv422p"}, "pixel_format must be one of"),
        ({"pixel_format": "rgb", "codec": "libx265"}, "codec has no effect on lossless"),
        ({"png": True, "codec": "libx265"}, "codec has no effect on lossless"),
        ({"png": True, "fps": Fraction(5)}, "no effect on PNG"),
        ({"png": True, "pixel_format": "yuv444p"}, "no effect on PNG"),
        ({"codec": "h264_nvenc"}, "codec must be one of"),
        ({"crf": 52}, "between 0 and 51"),
        ({"fps": Fraction(0)}, "must be between"),
        ({"crf": 3, "png": True}, "no effect"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        OutputOptions(**settings)


def test_mp4_is_refused_where_it_cannot_hold_what_is_asked(tmp_path, info):
    with pytest.raises(UsageError, match="lossless RGB"):
        write(tmp_path / "a.mp4", info, pixel_format="rgb")
    with pytest.raises(UsageError, match="cannot hold all streams"):
        write(tmp_path / "a.mp4", probe(media.two_sounds_and_subtitles(tmp_path / "b.mkv")))


def test_other_containers_are_refused_instead_of_becoming_folders(tmp_path, info):
    for name in ("a.webm", "a.avi", "a.jpg"):
        with pytest.raises(UsageError, match=name):
            write(tmp_path / name, info)


def test_many_files_leave_no_handles_open(tmp_path, info):
    handles = Path("/proc/self/fd")
    if not handles.is_dir():
        pytest.skip("counting open files needs /proc")
    media.copy_through(info.path, tmp_path / "out")
    before = len(list(handles.iterdir()))
    for _ in range(20):
        media.copy_through(info.path, tmp_path / "out")
        next(read_frames(info))
    assert len(list(handles.iterdir())) <= before
