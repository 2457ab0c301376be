"""Sound and titles of old and odd files come along, or a note says why not; the picture never fails because of them."""

from fractions import Fraction

import av
import pytest

from tests import media
from vsr.video_io import probe


@pytest.mark.parametrize(
    ("name", "codecs", "kept"),
    [
        ("in.flv", ["-c:v", "flv", "-ar", "11025", "-c:a", "libmp3lame"], "mp3"),
        ("in.avi", ["-c:v", "mpeg4", "-ar", "8000", "-c:a", "libmp3lame"], "mp3"),
        ("in.mov", ["-c:v", "mpeg4", "-c:a", "pcm_s16be"], "pcm_s16be"),
        ("in.mov", ["-c:v", "mpeg4", "-c:a", "pcm_f32be"], "flac"),
        ("in.mov", ["-c:v", "mpeg4", "-c:a", "adpcm_ima_qt"], "flac"),
        ("in.m2ts", ["-c:v", "libx264", "-ar", "48000", "-c:a", "pcm_bluray"], "flac"),
        ("in.ts", ["-c:v", "mpeg2video", "-ar", "48000", "-ac", "2", "-strict", "-2", "-c:a", "s302m"], "flac"),
        ("in.flv", ["-c:v", "flv", "-ar", "11025", "-c:a", "nellymoser"], "flac"),
        ("in.flv", ["-c:v", "flv", "-ar", "22050", "-c:a", "adpcm_swf"], "flac"),
    ],
)
def test_sound_that_mp4_cannot_hold_goes_to_matroska_and_what_that_cannot_hold_becomes_flac(
    tmp_path, name, codecs, kept
):
    source = media.clip_with_sound(tmp_path / name, *codecs)
    target, notes = media.copy_through(source, tmp_path / "out")
    assert target.suffix == ".mkv" and probe(target).audio == (kept,)
    assert [note for note in notes if "FLAC" in note] == [note for note in notes if kept == "flac"]
    with av.open(str(target)) as written:
        seconds = sum(frame.samples for frame in written.decode(audio=0)) / written.streams.audio[0].rate
    assert seconds == pytest.approx(1, abs=0.2)  # encoders pad: 8 kHz MP3 by two frames of 72 ms


def test_sound_in_flac_keeps_every_sample(tmp_path):
    source = media.clip_with_sound(tmp_path / "in.mov", "-c:v", "mpeg4", "-c:a", "pcm_s8")
    target, _ = media.copy_through(source, tmp_path / "out")
    with av.open(str(source)) as before, av.open(str(target)) as after:
        first, second = ([frame.to_ndarray() for frame in c.decode(audio=0)] for c in (before, after))
    samples = [[int(v) for frame in frames for v in frame.ravel()] for frames in (first, second)]
    assert samples[0] and samples[1][: len(samples[0])] == [value - 128 << 8 for value in samples[0]]


def test_a_stream_that_declares_sound_and_holds_none_is_left_out_with_a_note(tmp_path):
    sound = media.clip_with_sound(tmp_path / "s.ts", "-c:v", "mpeg2video", "-c:a", "mp2")
    data = sound.read_bytes()
    packets = [data[i : i + 188] for i in range(0, len(data), 188)]
    silent = tmp_path / "in.ts"
    silent.write_bytes(b"".join(p for p in packets if (p[1] & 0x1F) << 8 | p[2] != 0x101))
    target, notes = media.copy_through(silent, tmp_path / "out")
    assert probe(target).audio == () and "audio stream 0" in notes[0]


@pytest.mark.parametrize("settings", [{}, {"fps": Fraction(12)}])
def test_a_silent_clip_keeps_its_title_and_its_chapters_where_its_times_stay(tmp_path, settings):
    tags = tmp_path / "tags.txt"
    tags.write_text(";FFMETADATA1\ntitle=summer\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=300\ntitle=one\n")
    clip = media.clip(tmp_path / "c.mp4")
    media.ffmpeg("-i", clip, "-i", tags, "-map_metadata", "1", "-map", "0", "-c", "copy", tmp_path / "in.mp4")
    target, _ = media.copy_through(tmp_path / "in.mp4", tmp_path / "out", **settings)
    with av.open(str(target)) as written:
        assert written.metadata["title"] == "summer"
        assert len(written.chapters()) == (0 if settings else 1)
