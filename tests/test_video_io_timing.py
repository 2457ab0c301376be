"""Frame counts, rates, time stamps, audio and subtitles arrive as they were."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest

from tests import media
from vsr.errors import InputError
from vsr.video_io import OutputOptions, open_writer, probe, read_frames

MILLISECOND = Fraction(1, 1000)


def largest_shift(source: Path, target: Path) -> Fraction:
    before, after = media.times_of(source), media.times_of(target)
    assert len(before) == len(after)
    return max(abs(a - b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("rate", ["30000/1001", "24000/1001", "25", "50"])
def test_mp4_keeps_a_constant_rate_and_every_time_stamp_exactly(tmp_path, rate):
    source = media.clip(tmp_path / "in.mp4", rate=rate, seconds="1")
    target, _ = media.copy_through(source, tmp_path / "out")
    assert probe(target).rate == Fraction(rate)
    assert largest_shift(source, target) == 0


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_variable_rate_keeps_every_time_stamp_exactly_in_mp4(tmp_path, codec):
    source = media.variable_rate(tmp_path / "in.mp4")
    times = media.times_of(source)
    assert len({b - a for a, b in pairwise(times)}) > 1
    target, _ = media.copy_through(source, tmp_path / "out", codec=codec)
    assert largest_shift(source, target) == 0


def test_matroska_keeps_time_stamps_within_its_milliseconds_and_the_rate_exactly(tmp_path):
    source = media.clip(tmp_path / "in.mp4", rate="30000/1001", seconds="1")
    target, _ = media.copy_through(source, tmp_path / "out", pixel_format="rgb")
    assert target.suffix == ".mkv"
    assert largest_shift(source, target) <= MILLISECOND
    assert probe(target).rate == Fraction(30000, 1001)


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_the_last_frame_lasts_as_long_as_the_others(tmp_path, container):
    source = media.clip(tmp_path / "in.mp4", rate="30000/1001", seconds="1")
    info = probe(source)
    target = tmp_path / f"out.{container}"
    with open_writer(target, info, width=64, height=48, options=OutputOptions()) as writer:
        for frame in read_frames(info):
            writer.write(frame.pixels, frame.pts)
    with av.open(str(target)) as written:
        duration = Fraction(written.duration, av.time_base)
    assert abs(duration - info.frame_count / info.rate) < 2 * MILLISECOND


def test_two_audio_streams_and_srt_arrive_bit_exact_and_on_time(tmp_path):
    source = media.two_sounds_and_subtitles(tmp_path / "in.mkv")
    target, notes = media.copy_through(source, tmp_path / "out")
    assert target.suffix == ".mkv" and notes == []
    for kind, index in (("audio", 0), ("audio", 1), ("subtitles", 0)):
        before, after = media.packets_of(source, kind, index), media.packets_of(target, kind, index)
        assert [data for data, _ in before] == [data for data, _ in after]
        assert max(abs(a - b) for (_, a), (_, b) in zip(before, after, strict=True)) <= MILLISECOND
    with av.open(str(target)) as written:
        assert written.streams.audio[1].language == "deu"
    assert probe(target).rate == Fraction(30000, 1001)


def test_aac_and_mov_text_stay_in_mp4_bit_exact(tmp_path):
    matroska = media.two_sounds_and_subtitles(tmp_path / "in.mkv")
    source = tmp_path / "in.mp4"
    media.ffmpeg(
        "-i", matroska, "-map", "0:v", "-map", "0:a:0", "-map", "0:s", "-c", "copy", "-c:s", "mov_text", source
    )
    target, _ = media.copy_through(source, tmp_path / "out")
    assert target.suffix == ".mp4"
    assert media.packets_of(source, "audio") == media.packets_of(target, "audio")
    assert media.packets_of(source, "subtitles") == media.packets_of(target, "subtitles")


def test_mov_text_becomes_srt_in_matroska(tmp_path):
    matroska = media.two_sounds_and_subtitles(tmp_path / "in.mkv")
    source = tmp_path / "in.mp4"
    media.ffmpeg("-i", matroska, "-map", "0:v", "-map", "0:s", "-c", "copy", "-c:s", "mov_text", source)
    target, _ = media.copy_through(source, tmp_path / "out", pixel_format="rgb")
    assert [data for data, _ in media.packets_of(target, "subtitles")] == [b"hello", b"world"]


@pytest.mark.parametrize(("codec", "extension"), [("pcm_s16le", "mov"), ("libvorbis", "mkv"), ("pcm_s16le", "avi")])
def test_audio_that_players_do_not_expect_in_mp4_goes_to_matroska(tmp_path, codec, extension):
    source = media.clip_with_sound(tmp_path / f"in.{extension}", "-c:a", codec)
    target, _ = media.copy_through(source, tmp_path / "out")
    assert target.suffix == ".mkv"
    joined = [b"".join(data for data, _ in media.packets_of(path, "audio")) for path in (source, target)]
    assert joined[0] == joined[1]


@pytest.mark.parametrize("offset", ["0.5", "0.1234"])
@pytest.mark.parametrize("extension", ["mp4", "mkv"])
@pytest.mark.parametrize("late", ["picture", "sound"])
def test_sound_and_picture_stay_together_when_one_starts_late(tmp_path, offset, extension, late):
    picture = media.clip(tmp_path / "picture.mp4", seconds="0.8")
    sound = media.clip_with_sound(tmp_path / "sound.mp4")
    inputs = ["-i", picture, "-itsoffset", offset, "-i", sound]
    if late == "picture":
        inputs = ["-itsoffset", offset, "-i", picture, "-i", sound]
    source = tmp_path / f"in.{extension}"
    media.ffmpeg(*inputs, "-map", "0:v", "-map", "1:a", "-c", "copy", source)
    target, _ = media.copy_through(source, tmp_path / "out")
    assert largest_shift(source, target) == 0
    sounds = zip(media.packets_of(source, "audio"), media.packets_of(target, "audio"), strict=True)
    assert all(a == b and abs(s - t) <= MILLISECOND for (a, s), (b, t) in sounds)


def test_a_broadcast_stream_starts_at_zero_with_sound_and_picture_together(tmp_path):
    source = media.clip_with_sound(tmp_path / "in.ts", "-muxdelay", "3", "-c:v", "mpeg2video", "-c:a", "mp2")
    assert media.times_of(source)[0] > 1
    target, _ = media.copy_through(source, tmp_path / "out")
    before = media.times_of(source)[0] - media.packets_of(source, "audio")[0][1]
    after = media.times_of(target)[0] - media.packets_of(target, "audio")[0][1]
    assert abs(before - after) <= MILLISECOND
    assert 0 <= media.times_of(target)[0] < Fraction(1, 5)


def test_fps_gives_new_times_and_drops_sound_with_a_note(tmp_path):
    source = media.clip_with_sound(tmp_path / "in.mp4")
    target, notes = media.copy_through(source, tmp_path / "out", fps=Fraction(24000, 1001))
    assert media.times_of(target) == [i * Fraction(1001, 24000) for i in range(25)]
    assert probe(target).audio == () and "dropped" in notes[0]


def test_a_clock_that_starts_again_is_refused(tmp_path):
    """What follows would be squeezed into a moment."""
    part = media.clip(tmp_path / "part.mpg", seconds="3")
    joined = tmp_path / "joined.mpg"
    joined.write_bytes(part.read_bytes() * 2)
    with pytest.raises(InputError, match="its time stamps start again"):
        list(read_frames(probe(joined)))


def test_fps_of_the_source_keeps_a_variable_rate_where_frames_are_not_counted(tmp_path):
    """Matroska states a rate only, and sound is copied."""
    plain = media.clip_with_sound(tmp_path / "plain.mp4", seconds="2")
    source = tmp_path / "in.mkv"
    slower = ["-vf", "setpts='PTS+max(0,N-20)*0.04/TB'", "-fps_mode", "passthrough", "-enc_time_base", "1/1000"]
    media.ffmpeg("-i", plain, *slower, "-c:a", "copy", source)
    info = probe(source)
    assert info.frame_count is None and largest_gap(source) > 1.5 / info.rate
    target, _ = media.copy_through(source, tmp_path / "out", fps=info.rate)
    assert largest_shift(source, target) <= MILLISECOND


def largest_gap(path: Path) -> Fraction:
    return max(after - before for before, after in pairwise(media.times_of(path)))


@pytest.mark.parametrize(
    ("fps", "simple"),
    [("23.976024", "24000/1001"), ("29.97003", "30000/1001"), ("29.97", "2997/100"), ("9999.999", "10000")],
)
def test_fps_with_many_digits_is_the_simple_rate_nearest_to_it(tmp_path, fps, simple):
    target, _ = media.copy_through(media.clip(tmp_path / "in.mp4"), tmp_path / "out", fps=Fraction(fps))
    assert media.times_of(target) == [i / Fraction(simple) for i in range(10)]


def test_fps_keeps_a_late_start_beside_the_sound(tmp_path):
    picture, sound = media.clip(tmp_path / "p.mp4", seconds="1"), media.clip_with_sound(tmp_path / "s.mp4")
    source = tmp_path / "in.mp4"
    media.ffmpeg("-itsoffset", "0.3", "-i", picture, "-i", sound, "-map", "0:v", "-map", "1:a", "-c", "copy", source)
    target, notes = media.copy_through(source, tmp_path / "out", fps=Fraction(25))
    assert notes == [] and media.times_of(target) == media.times_of(source)


def test_times_before_zero_move_picture_and_sound_together(tmp_path):
    info = probe(media.clip_with_sound(tmp_path / "in.mp4"))
    early = round(Fraction(1, 5) / info.time_base)
    with open_writer(tmp_path / "out.mp4", info, width=64, height=48, options=OutputOptions()) as writer:
        for frame in read_frames(info):
            writer.write(frame.pixels, frame.pts - early)
    assert media.times_of(tmp_path / "out.mp4")[0] == 0
    before, after = media.packets_of(info.path, "audio"), media.packets_of(tmp_path / "out.mp4", "audio")
    assert abs(after[5][1] - before[5][1] - Fraction(1, 5)) <= MILLISECOND


def test_frames_hidden_by_an_edit_list_stay_hidden_and_are_not_counted(tmp_path):
    long = media.clip_with_sound(tmp_path / "long.mp4", "-g", "25", seconds="3")
    source = tmp_path / "in.mp4"
    media.ffmpeg("-ss", "0.6", "-i", long, "-t", "1.2", "-c", "copy", source)
    assert probe(source).frame_count is None
    target, _ = media.copy_through(source, tmp_path / "out")
    assert largest_shift(source, target) == 0
    assert media.packets_of(source, "audio") == media.packets_of(target, "audio")


def test_fps_keeps_sound_when_the_duration_is_unchanged(tmp_path):
    source = media.clip_with_sound(tmp_path / "in.mp4")
    target, notes = media.copy_through(source, tmp_path / "out", fps=Fraction(25))
    assert probe(target).audio == ("aac",) and notes == []


def test_sound_can_be_left_out(tmp_path):
    source = media.two_sounds_and_subtitles(tmp_path / "in.mkv")
    target, _ = media.copy_through(source, tmp_path / "out", audio=False)
    assert probe(target).audio == () and len(probe(target).subtitles) == 1


def test_chapters_and_tags_are_kept(tmp_path):
    tags = tmp_path / "tags.txt"
    tags.write_text(";FFMETADATA1\ntitle=summer\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=500\ntitle=one\n")
    sound = media.clip_with_sound(tmp_path / "a.mp4")
    media.ffmpeg("-i", sound, "-i", tags, "-map_metadata", "1", "-map", "0", "-c", "copy", tmp_path / "in.mp4")
    target, _ = media.copy_through(tmp_path / "in.mp4", tmp_path / "out")
    with av.open(str(target)) as written:
        assert written.metadata["title"] == "summer"
        assert [chapter["metadata"]["title"] for chapter in written.chapters()] == ["one"]


def test_the_same_frames_give_the_same_video_in_every_run(tmp_path):
    source = media.clip(tmp_path / "in.mp4", size="320x240", seconds="1")
    runs = [media.copy_through(source, tmp_path / f"run{i}")[0] for i in range(3)]
    frames = [media.pixels_of(run).tobytes() for run in runs]
    assert frames[0] == frames[1] == frames[2]


@pytest.mark.parametrize(
    ("extension", "codecs"),
    [
        ("ts", ["-c:a", "aac"]),
        ("mpg", ["-c:v", "mpeg2video", "-c:a", "ac3", "-f", "dvd"]),
        ("wmv", ["-c:v", "wmv2", "-c:a", "wmav2"]),
        ("flv", ["-c:v", "flv", "-c:a", "libmp3lame"]),
        ("webm", ["-c:v", "libvpx-vp9", "-c:a", "libopus"]),
        ("3gp", ["-c:v", "mpeg4", "-c:a", "aac"]),
        ("nut", ["-c:v", "ffv1", "-c:a", "flac"]),
        ("avi", ["-c:v", "mpeg4", "-bf", "2", "-c:a", "libmp3lame"]),
    ],
)
def test_every_frame_of_every_container_arrives_with_its_sound(tmp_path, extension, codecs):
    source = media.clip_with_sound(tmp_path / f"in.{extension}", *codecs)
    target, _ = media.copy_through(source, tmp_path / "out")
    times = media.times_of(target)
    assert len(times) == 25
    assert all(later > earlier for earlier, later in pairwise(times))
    assert probe(target).audio == probe(source).audio


def test_repeated_frames_of_theora_are_shown_on(tmp_path):
    still = ["-f", "lavfi", "-i", "color=red:s=64x48:r=25:d=1", "-c:v", "libtheora"]
    media.ffmpeg(*still, tmp_path / "in.ogv")
    target, _ = media.copy_through(tmp_path / "in.ogv", tmp_path / "out")
    assert media.times_of(target)[0] == 0
    assert 1 <= len(media.times_of(target)) <= 25
