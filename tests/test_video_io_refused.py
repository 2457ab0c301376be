"""What cannot be restored is named with a reason, and nothing short or strange passes as a video."""

import shlex
import socket
import subprocess
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from tests import media
from vsr.errors import InputError
from vsr.video_io import open_writer, output_path, probe, read_frames
from vsr.video_io.output import OutputOptions


@pytest.fixture
def sound_video(tmp_path) -> Path:
    return media.clip_with_sound(tmp_path / "sound.mp4", "-movflags", "+faststart", seconds="2")


def read_all(path: Path) -> int:
    return sum(1 for _ in read_frames(probe(path)))


def test_missing_empty_and_text_files_are_named(tmp_path):
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 100)
    for name, reason in (("missing.mp4", "No such file"), ("zero.mp4", "empty"), ("text.mp4", "not a video")):
        with pytest.raises(InputError, match=reason) as caught:
            probe(tmp_path / name)
        assert name in str(caught.value)


def test_a_file_with_sound_only_is_named(tmp_path):
    media.ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "sound.mp4")
    with pytest.raises(InputError, match="no video stream, only audio"):
        probe(tmp_path / "sound.mp4")


def test_a_cover_picture_is_not_a_video(tmp_path):
    cover = tmp_path / "cover.png"
    cv2.imwrite(str(cover), np.zeros((32, 32, 3), np.uint8))
    song = tmp_path / "song.m4a"
    sound = ["-f", "lavfi", "-i", "sine=d=1", "-i", cover, "-map", "0", "-map", "1", "-c:v", "png"]
    media.ffmpeg(*sound, "-disposition:v:0", "attached_pic", song)
    with pytest.raises(InputError, match="no video stream"):
        probe(song)


@pytest.mark.parametrize("extension", ["mp4", "mkv", "avi", "flv", "mov"])
def test_a_file_cut_in_half_is_never_a_short_clip(tmp_path, extension):
    whole = media.clip_with_sound(tmp_path / f"whole.{extension}", "-c:v", "libx264", seconds="4")
    if extension in ("mp4", "mov"):
        media.ffmpeg("-i", whole, "-c", "copy", "-movflags", "+faststart", tmp_path / f"fast.{extension}")
        whole = tmp_path / f"fast.{extension}"
    assert read_all(whole) == 100
    half = tmp_path / f"half.{extension}"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InputError, match=r"half\.\w+: (damaged or cut off|not a video file)"):
        read_all(half)


def test_a_cut_file_can_be_read_as_far_as_it_goes_when_asked_to(tmp_path, sound_video, caplog):
    half = tmp_path / "half.mp4"
    half.write_bytes(sound_video.read_bytes()[: sound_video.stat().st_size // 2])
    frames = list(read_frames(probe(half), strict=False))
    assert 0 < len(frames) < 50
    assert "cut off" in caplog.text


def test_a_subtitle_that_spans_the_whole_film_does_not_hide_a_cut(tmp_path, sound_video):
    text = tmp_path / "long.srt"
    text.write_text("1\n00:00:00,000 --> 00:00:02,000\nalways there\n")
    whole, half = tmp_path / "whole.mkv", tmp_path / "half.mkv"
    media.ffmpeg("-i", sound_video, "-i", text, "-map", "0", "-map", "1", "-c", "copy", "-c:s", "srt", whole)
    assert read_all(whole) == 50
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InputError, match=r"the video ends at [01]\.\d+ s instead of 2\.0"):
        read_all(half)


def test_flipped_bits_are_noticed(tmp_path, sound_video):
    data = bytearray(sound_video.read_bytes())
    positions = np.random.default_rng(0).integers(len(data) // 2, len(data), 200)
    for position in positions:
        data[position] ^= 0xFF
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_all(broken)


def test_a_tail_of_zeros_is_noticed(tmp_path, sound_video):
    data = sound_video.read_bytes()
    broken = tmp_path / "zeros.mp4"
    broken.write_bytes(data[: len(data) * 2 // 3] + bytes(len(data) // 3))
    with pytest.raises(InputError, match="damaged"):
        read_all(broken)


def test_playlists_and_scripts_are_refused_whatever_their_name(tmp_path, sound_video):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.2)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.mp4"
        scripts = {
            "concat": f"ffconcat version 1.0\nfile '{sound_video.name}'\n",
            "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n",
            "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL></MPD>',
            "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        }
        for kind, text in scripts.items():
            for extension in ("mp4", "m3u8", "mkv"):
                script = tmp_path / f"{kind}.{extension}"
                script.write_text(text)
                with pytest.raises(InputError, match=script.name):
                    probe(script)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize(
    "name", ["concat:x.mp4", "-x.mp4", "two words.mp4", "sommer-\u00e4\u4f60.mp4", "a%03d.mp4", "http:x.mp4"]
)
def test_a_strange_name_is_only_a_name(tmp_path, monkeypatch, name, sound_video):
    sound_video.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    target, _ = media.copy_through(Path(name), Path("out"))
    assert target == Path("out") / name
    assert read_all(target) == 50 and probe(target).audio == ("aac",)


@pytest.mark.parametrize(("transfer", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
def test_hdr_is_refused_with_a_command_that_converts_it(tmp_path, transfer, name):
    tags = f"setparams=color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc:range=tv"
    source = media.clip(tmp_path / "hdr clip.mp4", "-vf", tags, "-pix_fmt", "yuv420p10le")
    with pytest.raises(InputError, match=rf"HDR \({name}\)") as caught:
        probe(source)
    assert read_all(run_advice(str(caught.value))) == 10


def test_damage_is_refused_with_a_command_that_saves_the_rest(tmp_path, sound_video):
    broken = tmp_path / "broken.mkv"
    media.ffmpeg("-i", sound_video, "-c", "copy", broken)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    with pytest.raises(InputError, match="damaged") as caught:
        read_all(broken)
    assert 0 < read_all(run_advice(str(caught.value))) < 50


def test_interlaced_video_is_refused_with_a_command_that_converts_it(tmp_path):
    source = media.clip(tmp_path / "fields.mpg", "-flags", "+ilme+ildct", "-c:v", "mpeg2video", "-vf", "setfield=tff")
    with pytest.raises(InputError, match="interlaced") as caught:
        probe(source)
    assert read_all(run_advice(str(caught.value))) == 10


def test_mirrored_video_is_refused_with_a_command_that_converts_it(tmp_path):
    plain = media.clip(tmp_path / "plain.mp4", "-crf", "0")
    source = tmp_path / "mirrored.mp4"
    media.ffmpeg("-display_hflip", "-i", plain, "-c", "copy", source)
    with pytest.raises(InputError, match="mirrored") as caught:
        probe(source)
    upright, stored = media.pixels_of(run_advice(str(caught.value))), media.pixels_of(plain)
    green = [pixels[..., 1].ravel() for pixels in (upright, stored[:, :, ::-1], stored)]
    assert np.corrcoef(green[0], green[1])[0, 1] > 0.98 > np.corrcoef(green[0], green[2])[0, 1]


def test_an_unknown_colour_matrix_is_refused_with_a_command_that_converts_it(tmp_path):
    plain, source = media.clip(tmp_path / "plain.mp4"), tmp_path / "in.mp4"
    media.ffmpeg("-i", plain, "-c", "copy", "-bsf:v", "h264_metadata=matrix_coefficients=8", source)
    with pytest.raises(InputError, match="code 8") as caught:
        probe(source)
    assert probe(run_advice(str(caught.value))).matrix == "bt709"


def run_advice(message: str) -> Path:
    """Run the command that an error message gives, as a user would paste it; return the file it makes."""
    command = shlex.split(message.splitlines()[-1])
    assert command[0] == "ffmpeg"
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *command[1:]], check=True)
    return Path(command[-1].removeprefix("file:"))


def test_limits_are_checked_from_the_header(tmp_path):
    source = media.clip(tmp_path / "in.mp4", seconds="2")
    with pytest.raises(InputError, match="64x48 are larger than the limit of 1000 pixels"):
        probe(source, max_pixels=1000)
    with pytest.raises(InputError, match="lasts 2 s, more than the limit of 1 s"):
        probe(source, max_duration=1)


def test_a_change_of_size_in_the_middle_is_named(tmp_path):
    small, large = (media.clip(tmp_path / f"{s}.h264", size=s) for s in ("64x48", "96x64"))
    joined = tmp_path / "joined.h264"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(InputError, match="changes from 64x48 to 96x64"):
        read_all(joined)


def test_cut_off_images_are_refused(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for extension in (".png", ".jpg", ".tiff", ".webp", ".bmp"):
        data = cv2.imencode(extension, picture)[1].tobytes()
        path = tmp_path / f"half{extension}"
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(InputError, match="cut off"):
            probe(path)


def test_a_folder_whose_frames_differ_in_size_names_the_first_that_does(tmp_path):
    for i, width in enumerate((32, 32, 40)):
        cv2.imwrite(str(tmp_path / f"{i:03d}.png"), np.zeros((32, width, 3), np.uint8))
    with pytest.raises(InputError, match=r"002\.png: is 40x32"):
        read_all(tmp_path)


def test_a_bad_source_writes_nothing(tmp_path, sound_video):
    half = tmp_path / "half.mp4"
    half.write_bytes(sound_video.read_bytes()[: sound_video.stat().st_size // 2])
    info, out = probe(half), tmp_path / "out"
    target = output_path(out, info, OutputOptions())
    with pytest.raises(InputError), open_writer(target, info, width=64, height=48, options=OutputOptions()) as writer:
        for frame in read_frames(info):
            writer.write(frame.pixels, frame.pts)
    assert list(out.iterdir()) == []
