"""Colours come out as they went in: matrices, ranges, depths, tags, odd sizes."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests import media
from vsr.video_io import probe

RANGE = {False: "tv", True: "pc"}
LOSSLESS = {"yuv444p": {"pixel_format": "yuv444p", "crf": 0}, "rgb": {"pixel_format": "rgb"}}


def chart_file(path: Path, matrix: str, *, full_range: bool, depth: int = 8, width: int = 64) -> Path:
    """The colour chart as lossless tagged YUV 4:4:4, made by the formula and not by a conversion of ffmpeg."""
    planes = media.yuv444_of(media.colour_chart()[:, :width], matrix, full_range=full_range, depth=depth)
    name = {"bt709": "bt709", "bt601": "smpte170m"}[matrix]
    tags = f"setparams=colorspace={name}:color_primaries={name}:color_trc={name}:range={RANGE[full_range]}"
    codec = ["-c:v", "ffv1", "-color_range", RANGE[full_range]]
    pixel_format = "yuv444p" if depth == 8 else f"yuv444p{depth}le"
    return media.raw_video(path, planes, pixel_format, "-vf", tags, *codec, size=f"{width}x48")


def difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b).max())


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_a_chart_is_read_as_its_formula_says(tmp_path, matrix, full_range):
    source = chart_file(tmp_path / "in.mkv", matrix, full_range=full_range)
    info = probe(source)
    assert (info.matrix, info.full_range, info.tagged) == (matrix, full_range, True)
    assert difference(media.pixels_of(source)[0], media.colour_chart()) <= 2


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize(("form", "levels"), [("yuv444p", 2), ("rgb", 0)])
def test_a_chart_survives_reading_writing_and_reading(tmp_path, matrix, full_range, form, levels):
    source = chart_file(tmp_path / "in.mkv", matrix, full_range=full_range)
    target, _ = media.copy_through(source, tmp_path / "out", **LOSSLESS[form])
    assert difference(media.pixels_of(source), media.pixels_of(target)) <= levels
    if form == "yuv444p":
        assert (probe(target).matrix, probe(target).full_range) == (matrix, full_range)


@pytest.mark.parametrize("full_range", [False, True])
def test_hevc_carries_matrix_and_range_too(tmp_path, full_range):
    source = chart_file(tmp_path / "in.mkv", "bt601", full_range=full_range)
    target, _ = media.copy_through(source, tmp_path / "out", pixel_format="yuv444p", codec="libx265", crf=0)
    assert (probe(target).matrix, probe(target).full_range) == ("bt601", full_range)
    assert np.abs(media.pixels_of(source).astype(int) - media.pixels_of(target)).mean() < 1


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("depth", [10, 12])
def test_deep_sources_fill_the_16_bit_scale(tmp_path, depth, full_range):
    source = chart_file(tmp_path / "in.mkv", "bt709", full_range=full_range, depth=depth)
    pixels = media.pixels_of(source)[0]
    assert pixels.dtype == np.uint16 and probe(source).depth == depth
    assert difference(pixels / 257, media.colour_chart()) <= 1
    assert pixels.max() == 65535


@pytest.mark.parametrize("full_range", [False, True])
def test_a_deep_chart_survives_10_bits_of_yuv(tmp_path, full_range):
    source = chart_file(tmp_path / "in.mkv", "bt709", full_range=full_range, depth=10, width=63)
    target, _ = media.copy_through(source, tmp_path / "out", pixel_format="yuv420p10le", crf=0)
    info = probe(target)
    assert (info.pixel_format, info.full_range) == ("yuv444p10le", full_range)
    assert difference(media.pixels_of(source), media.pixels_of(target)) <= 2 * 257


def test_a_10_bit_gradient_keeps_more_than_256_levels(tmp_path):
    ramp = np.linspace(64, 940, 1024).round().astype("<u2")[None].repeat(16, 0)
    planes = np.concatenate([ramp.ravel(), np.full(2 * 8 * 512, 512, "<u2")])
    source = media.raw_video(tmp_path / "in.mkv", planes, "yuv420p10le", "-c:v", "ffv1", size="1024x16")
    target, notes = media.copy_through(source, tmp_path / "out", pixel_format="yuv420p10le")
    assert notes == []
    assert len(np.unique(media.pixels_of(target)[0, 8, :, 1])) > 600
    shallow, notes = media.copy_through(source, tmp_path / "shallow")
    assert "10 bits become 8" in notes[0]
    assert len(np.unique(media.pixels_of(shallow)[0, 8, :, 1])) <= 256


def test_deep_rgb_is_kept_bit_by_bit(tmp_path):
    frames = np.random.default_rng(0).integers(0, 65536, (3, 16, 24, 3)).astype("<u2")
    source = media.raw_video(
        tmp_path / "in.mkv", frames, "rgb48le", "-pix_fmt", "gbrp16le", "-c:v", "ffv1", size="24x16"
    )
    target, _ = media.copy_through(source, tmp_path / "out", pixel_format="rgb")
    assert np.array_equal(media.pixels_of(source), frames)
    assert np.array_equal(media.pixels_of(target), frames)


def test_chroma_stays_in_place_in_420(tmp_path):
    source = media.raw_video(tmp_path / "in.mp4", smooth_420(), "yuv420p", "-crf", "0", size="128x96")
    stored = stored_planes(source)
    chroma = slice(128 * 96, None)
    moved = np.abs(np.roll(stored, 1)[chroma].astype(int) - stored[chroma]).mean()
    for _ in range(3):
        source, _ = media.copy_through(source, tmp_path / "out", crf=0)
        source = source.rename(tmp_path / "again.mp4")
    assert np.abs(stored_planes(source)[chroma].astype(int) - stored[chroma]).mean() < moved / 10


@pytest.mark.parametrize(
    ("name", "codec"), [("vp9.webm", ["-c:v", "libvpx-vp9", "-lossless", "1"]), ("ffv1.mkv", ["-c:v", "ffv1"])]
)
def test_chroma_lies_on_the_left_where_the_decoder_does_not_say(tmp_path, name, codec):
    """H.264's does; of the same samples come the same colours."""
    stated = media.raw_video(tmp_path / "stated.mp4", smooth_420(), "yuv420p", "-crf", "0", size="128x96")
    unstated = media.raw_video(tmp_path / name, smooth_420(), "yuv420p", *codec, size="128x96")
    assert np.array_equal(stored_planes(stated), stored_planes(unstated))
    assert np.array_equal(media.pixels_of(stated), media.pixels_of(unstated))


def smooth_420() -> np.ndarray:
    """128x96 in 4:2:0, all colours inside RGB, as one row of bytes."""
    noise = np.random.default_rng(0).normal(size=(3, 96, 128))
    blurred = [cv2.GaussianBlur(plane, (0, 0), 6) for plane in noise]
    planes = [cv2.normalize(plane, None, 108, 148, cv2.NORM_MINMAX).round().astype(np.uint8) for plane in blurred]
    return np.concatenate([planes[0].ravel(), planes[1][::2, ::2].ravel(), planes[2][::2, ::2].ravel()])


def stored_planes(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray().ravel()


def test_untagged_video_is_601_below_720_rows_and_709_from_there_on(tmp_path):
    small = media.clip(tmp_path / "small.mp4", seconds="0.1")
    large = media.clip(tmp_path / "large.mp4", size="64x720", seconds="0.1")
    assert (probe(small).matrix, probe(large).matrix) == ("bt601", "bt709")
    assert (probe(small, untagged="709").matrix, probe(large, untagged="601").matrix) == ("bt709", "bt601")
    assert not probe(small).tagged and "bt601 is assumed" in probe(small).warnings[0]


def test_untagged_709_is_read_like_tagged_709(tmp_path):
    tagged = chart_file(tmp_path / "in.mkv", "bt709", full_range=False)
    planes = media.yuv444_of(media.colour_chart(), "bt709", full_range=False)
    untagged = media.raw_video(tmp_path / "untagged.mkv", planes, "yuv444p", "-c:v", "ffv1", size="64x48")
    assert np.array_equal(media.pixels_of(tagged), media.pixels_of(untagged, untagged="709"))
    assert difference(media.pixels_of(tagged), media.pixels_of(untagged, untagged="601")) > 10


def test_primaries_transfer_and_pixel_shape_are_carried_over(tmp_path):
    tags = "setparams=colorspace=bt470bg:color_primaries=bt470bg:color_trc=bt470bg:range=tv,setsar=4/3"
    source = media.clip(tmp_path / "in.mp4", "-vf", tags)
    target, _ = media.copy_through(source, tmp_path / "out")
    before, after = probe(source), probe(target)
    assert (before.matrix_code, before.primaries, before.transfer) == (5, 5, 5)
    for name in ("matrix_code", "primaries", "transfer", "full_range", "sample_aspect_ratio", "tagged"):
        assert getattr(before, name) == getattr(after, name)
    assert any("not square (4/3)" in warning for warning in before.warnings)


@pytest.mark.parametrize("pixel_format", ["gray", "gray10le", "ya8"])
def test_grey_video_has_three_equal_channels(tmp_path, pixel_format):
    source = media.clip(tmp_path / "in.mkv", "-pix_fmt", pixel_format, "-c:v", "ffv1")
    if pixel_format == "ya8":
        source = media.clip(tmp_path / "in.mov", "-pix_fmt", pixel_format, "-c:v", "png")
    pixels = media.pixels_of(source)
    assert np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2])
    assert np.ptp(pixels) > 100


def test_grey_of_limited_range_is_stretched(tmp_path):
    ramp = np.linspace(16, 235, 64).round().astype(np.uint8)[None].repeat(48, 0)
    source = media.raw_video(
        tmp_path / "in.mkv",
        ramp,
        "gray",
        "-vf",
        "setparams=range=tv",
        "-c:v",
        "ffv1",
        "-color_range",
        "tv",
        size="64x48",
    )
    with av.open(str(source)) as container:
        stored = next(container.decode(video=0))
    pixels = media.pixels_of(source)
    if stored.color_range == 1:
        assert (pixels.min(), pixels.max()) == (0, 255)
    else:
        assert (pixels.min(), pixels.max()) == (stored.to_ndarray().min(), stored.to_ndarray().max())


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_rotation_is_applied_once_and_leaves_no_tag(tmp_path, angle):
    plain = media.clip(tmp_path / "plain.mp4")
    source = tmp_path / "in.mp4"
    media.ffmpeg("-display_rotation", str(angle), "-i", plain, "-c", "copy", source)
    info = probe(source)
    assert (info.width, info.height) == ((64, 48) if angle == 180 else (48, 64))
    stored = media.pixels_of(plain)
    assert np.array_equal(media.pixels_of(source), np.rot90(stored, k=angle // 90, axes=(1, 2)))
    raw = media.ffmpeg("-i", source, "-f", "rawvideo", "-pix_fmt", "gray", "-frames:v", "1", "-")
    theirs = np.frombuffer(raw, np.uint8).reshape(info.height, info.width)
    ours = cv2.cvtColor(media.pixels_of(source)[0], cv2.COLOR_RGB2GRAY)
    assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.99
    target, _ = media.copy_through(source, tmp_path / "out", pixel_format="yuv444p", crf=0)
    assert probe(target).rotation == 0
    assert difference(media.pixels_of(target), media.pixels_of(source)) <= 3


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_odd_sizes_become_444_with_a_note(tmp_path, pixel_format, codec):
    source = media.clip(tmp_path / "in.mkv", "-vf", "crop=61:47:exact=1", "-pix_fmt", "yuv420p", "-c:v", "ffv1")
    target, notes = media.copy_through(source, tmp_path / "out", pixel_format=pixel_format, codec=codec)
    info = probe(target)
    assert (info.width, info.height) == (61, 47)
    assert info.pixel_format == pixel_format.replace("420", "444")
    assert notes[0] == "4:4:4 instead of 4:2:0: the size 61x47 is odd"


@pytest.mark.parametrize("codec", ["libx265", "libvpx-vp9", "libsvtav1", "mpeg4", "mjpeg", "ffv1", "prores_ks"])
def test_codecs_in_use_are_read(tmp_path, codec):
    source = media.clip(tmp_path / "in.mkv", "-c:v", codec)
    assert media.pixels_of(source).shape == (10, 48, 64, 3)


def test_a_gif_is_read_with_its_times(tmp_path):
    source = media.clip(tmp_path / "in.gif")
    target, _ = media.copy_through(source, tmp_path / "out")
    assert media.times_of(source) == media.times_of(target)


def test_a_transparent_video_says_that_alpha_is_dropped(tmp_path):
    source = media.clip(tmp_path / "in.mov", "-pix_fmt", "yuva444p10le", "-c:v", "prores_ks")
    assert any("alpha" in warning for warning in probe(source).warnings)
