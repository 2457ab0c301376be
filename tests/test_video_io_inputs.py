"""Which inputs a path names, and how images are read."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from tests import media
from vsr.errors import InputError
from vsr.video_io import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, find_inputs, probe, read_frames


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names_of(found: list[Path], folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in found]


def test_a_folder_gives_videos_images_and_clips_in_natural_order(tmp_path):
    touch(
        tmp_path, "b10.MP4", "b2.mkv", "a.Mov", "pic.JPG", "notes.txt", ".hidden.mp4", "clip/1.png", "empty/readme.md"
    )
    assert names_of(find_inputs(tmp_path), tmp_path) == ["a.Mov", "b2.mkv", "b10.MP4", "clip", "pic.JPG"]


def test_digits_that_are_no_decimals_are_letters(tmp_path):
    touch(tmp_path, "①1.mp4", "5²3.mp4", "٣.mp4")
    assert len(find_inputs(tmp_path)) == 3


def test_a_file_is_itself_whatever_it_is_called(tmp_path):
    touch(tmp_path, "text.mp4", "odd[1].vob")
    assert find_inputs(tmp_path / "text.mp4") == [tmp_path / "text.mp4"]
    assert find_inputs(str(tmp_path / "odd[1].vob")) == [tmp_path / "odd[1].vob"]


def test_a_glob_gives_its_matches(tmp_path):
    touch(tmp_path, "a1.mp4", "a2.mp4", "b.mp4", "a3.txt", "sub/a4.mp4")
    assert names_of(find_inputs(f"{tmp_path}/a*"), tmp_path) == ["a1.mp4", "a2.mp4"]
    assert names_of(find_inputs(f"{tmp_path}/**/a4*"), tmp_path) == ["sub/a4.mp4"]


@pytest.mark.parametrize(
    ("names", "clip"),
    [
        (["f1.png", "f2.png", "f10.png"], False),
        (["f8.png", "f9.png", "f10.png"], True),
        (["000.jpg", "001.jpg"], True),
        (["a.png", "b.png"], False),
        (["a1.png", "b2.png"], False),
        (["1.png"], False),
    ],
)
def test_images_numbered_without_a_gap_are_one_clip(tmp_path, names, clip):
    touch(tmp_path, *names)
    assert find_inputs(tmp_path) == ([tmp_path] if clip else [tmp_path / name for name in names])
    assert find_inputs(tmp_path, "clip") == [tmp_path]
    assert len(find_inputs(tmp_path, "images")) == len(names)


def test_nothing_found_names_the_place_and_the_extensions(tmp_path):
    touch(tmp_path, "notes.txt")
    with pytest.raises(InputError, match=r"no video or image found in .*\.mp4") as caught:
        find_inputs(tmp_path)
    assert all(extension in str(caught.value) for extension in VIDEO_EXTENSIONS | IMAGE_EXTENSIONS)
    with pytest.raises(InputError, match="input not found"):
        find_inputs(tmp_path / "missing")
    with pytest.raises(InputError, match="no video or image found"):
        find_inputs(f"{tmp_path}/*.mp4")


def test_links_that_loop_do_no_harm(tmp_path):
    touch(tmp_path, "a.mp4", "1.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self.mp4").symlink_to(tmp_path / "self.mp4")
    assert names_of(find_inputs(tmp_path), tmp_path) == ["1.png", "a.mp4", "self.mp4"]
    assert names_of(find_inputs(f"{tmp_path}/**/*.mp4"), tmp_path)[0] == "a.mp4"
    with pytest.raises(InputError, match=r"self\.mp4"):
        probe(tmp_path / "self.mp4")


def test_a_link_to_where_one_may_not_look_is_an_input_that_fails_by_itself(tmp_path, monkeypatch):
    touch(tmp_path, "a.mp4")
    (tmp_path / "b.mp4").symlink_to("/closed/b.mp4")
    stat = Path.stat

    touch(tmp_path, "closed/c.png")  # one may list this folder, no more

    def refusing(path, **options):  # as for a user who is not root
        if path.name == "c.png" or (path.name == "b.mp4" and options.get("follow_symlinks", True)):
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refusing)
    monkeypatch.setattr(Path, "lstat", lambda path: refusing(path, follow_symlinks=False))
    assert names_of(find_inputs(tmp_path), tmp_path) == ["a.mp4", "b.mp4", "closed"]


def test_a_tiff_whose_list_of_pictures_is_broken_is_read_as_far_as_opencv_reads_it(tmp_path):
    Image.new("RGB", (8, 8), (1, 2, 3)).save(tmp_path / "a.tif")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    first = int.from_bytes(data[4:8], "little")
    end = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    data[end : end + 4] = (len(data) + 100).to_bytes(4, "little")  # where the second picture would be
    (tmp_path / "a.tif").write_bytes(data)
    assert probe(tmp_path / "a.tif").warnings == ()
    assert media.pixels_of(tmp_path / "a.tif")[0, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("extension", [".png", ".tiff", ".webp", ".bmp", ".jpg"])
def test_images_of_all_kinds_are_read(tmp_path, extension):
    path = tmp_path / f"bild-\u00e4\u4f60{extension}"
    chart = media.colour_chart()
    path.write_bytes(cv2.imencode(extension, chart[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes())
    info = probe(path)
    assert (info.kind, info.width, info.height, info.depth, info.frame_count) == ("image", 64, 48, 8, 1)
    pixels = media.pixels_of(path)[0]
    if extension == ".jpg":
        assert np.abs(pixels.astype(int) - chart).mean() < 15
    else:
        assert np.array_equal(pixels, chart)


def test_16_bit_grey_and_transparent_images_are_read(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (8, 8, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep[..., ::-1])
    cv2.imwrite(str(tmp_path / "grey.png"), deep[..., 0] >> 8)
    cv2.imwrite(str(tmp_path / "clear.png"), np.full((8, 8, 4), 7, np.uint8))
    assert probe(tmp_path / "deep.png").depth == 16
    assert np.array_equal(media.pixels_of(tmp_path / "deep.png")[0], deep)
    assert media.pixels_of(tmp_path / "grey.png").shape == (1, 8, 8, 3)
    assert probe(tmp_path / "clear.png").warnings == ("the alpha channel is dropped",)
    assert media.pixels_of(tmp_path / "clear.png").shape == (1, 8, 8, 3)


@pytest.mark.parametrize("extension", [".png", ".tiff", ".webp"])
def test_an_image_file_that_holds_several_says_that_one_is_read(tmp_path, extension):
    first, *others = (Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (10, 20, 30))
    first.save(tmp_path / f"one{extension}", save_all=True, append_images=others, lossless=True)
    assert probe(tmp_path / f"one{extension}").warnings == ("only the first of its 3 pictures is read",)
    assert np.unique(media.pixels_of(tmp_path / f"one{extension}")).tolist() == [10]


@pytest.mark.parametrize("profile", ["sRGB", "LAB", None])
def test_a_colour_profile_that_is_dropped_is_named(tmp_path, profile):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile(profile)).tobytes() if profile else b"no profile"
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg", icc_profile=icc)
    dropped = {"sRGB": None, "LAB": "Lab identity built-in", None: "unreadable"}[profile]
    said = (f"its colour profile is dropped ({dropped}); convert it to sRGB before",) if dropped else ()
    assert probe(tmp_path / "photo.jpg").warnings == said


def test_the_orientation_of_a_photo_is_applied_once(tmp_path):
    chart = media.colour_chart()
    data = cv2.imencode(".jpg", chart[..., ::-1])[1].tobytes()
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # one entry: orientation 6
    exif = b"Exif\0\0" + tiff
    path = tmp_path / "photo.jpg"
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    info = probe(path)
    assert (info.width, info.height) == (48, 64)
    upright = np.rot90(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], k=-1)
    assert np.array_equal(media.pixels_of(path)[0], upright)


def test_frames_of_a_folder_come_in_the_order_of_their_numbers(tmp_path):
    for i in (0, 2, 10):
        cv2.imwrite(str(tmp_path / f"f{i}.png"), np.full((4, 4, 3), i, np.uint8))
    frames = list(read_frames(probe(tmp_path)))
    assert [frame.pts for frame in frames] == [0, 1, 2]
    assert [frame.pixels[0, 0, 0] for frame in frames] == [0, 2, 10]


def test_closing_the_reader_closes_the_file(tmp_path):
    frames = read_frames(probe(media.clip(tmp_path / "in.mp4")))
    next(frames)
    frames.close()
    with pytest.raises(StopIteration):
        next(frames)
    if Path("/proc/self/fd").is_dir():
        assert not any(link.resolve().name == "in.mp4" for link in Path("/proc/self/fd").iterdir())


def test_an_mkv_named_mp4_is_read(tmp_path):
    whole = media.clip(tmp_path / "a.mkv")
    renamed = whole.rename(tmp_path / "a.mp4")
    assert probe(renamed).frame_count is None
    assert len(media.pixels_of(renamed)) == 10


@pytest.mark.parametrize("extension", ["mkv", "webm", "ts", "flv"])
def test_where_the_header_counts_no_frames_the_duration_tells(tmp_path, extension):
    info = probe(media.clip(tmp_path / f"a.{extension}", seconds="2"))
    assert info.frame_count is None
    assert info.likely_frame_count == pytest.approx(50, abs=2)
