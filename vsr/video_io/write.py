"""Writing results: a video through ffmpeg, an image, or a folder of PNG files. Complete, or not there at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from vsr.errors import EncoderError, UsageError
from vsr.video_io.command import encode_arguments
from vsr.video_io.encoder import Encoder
from vsr.video_io.images import encode_png
from vsr.video_io.info import VideoInfo
from vsr.video_io.output import OutputOptions, copied_streams, fits_mp4, refuse_too_large
from vsr.video_io.temporary import complete_or_nothing, sync
from vsr.video_io.timestamps import OutputClock

CONTAINERS = {".mp4": "mp4", ".mkv": "matroska"}


class FrameWriter:
    """Takes the frames of one result, in order."""

    dtype: type[np.uint8] | type[np.uint16]
    """What ``write`` takes; in uint16, 65535 is white."""
    notes: list[str]
    """What differs from what was asked for, or could not be kept."""

    def __init__(self, *, width: int, height: int, deep: bool) -> None:
        self._shape = (height, width, 3)
        self.dtype = np.uint16 if deep else np.uint8
        self.notes = []
        self.count = 0

    def write(self, pixels: np.ndarray, pts: int) -> None:
        """Write one frame.

        Args:
            pixels: (H, W, 3) RGB of type ``dtype``.
            pts: its time in units of the source's ``time_base``, larger than the one before.
        """
        if pixels.shape != self._shape or pixels.dtype != self.dtype:
            raise ValueError(
                f"expected frames {self._shape} of {self.dtype.__name__}, got {pixels.shape} {pixels.dtype}"
            )
        self._put(np.ascontiguousarray(pixels), pts)
        self.count += 1

    def _put(self, pixels: np.ndarray, pts: int) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        """Everything has been written."""

    def _abort(self) -> None:
        """Something went wrong; the files are removed by the caller."""


@contextmanager
def open_writer(
    target: Path, info: VideoInfo, *, width: int, height: int, options: OutputOptions
) -> Iterator[FrameWriter]:
    """Write frames to ``target``, which appears when the block is left normally, and not at all otherwise.

    Args:
        target: a .mp4 or .mkv file, a .png file for an image, or, without one of these endings, a folder of PNG files.
        info: the source; its time base, colour, audio and subtitles are kept.
        width, height: of the frames that will be written.
        options: the format.
    """
    target = Path(target)
    with complete_or_nothing(target) as folder:
        writer = _writer_for(target, folder / "result", info, width=width, height=height, options=options)
        try:
            yield writer
            if not writer.count:
                raise EncoderError(f"no frame was written for {target}")
            writer._finish()
        except BaseException:
            writer._abort()
            raise


def _writer_for(
    target: Path, result: Path, info: VideoInfo, *, width: int, height: int, options: OutputOptions
) -> FrameWriter:
    suffix, deep = target.suffix.lower(), info.depth > 8
    if suffix == ".png" and (info.kind == "image" or not options.png):
        return ImageWriter(result, width=width, height=height, deep=deep)
    if suffix in CONTAINERS and not options.png:
        return VideoWriter(result, CONTAINERS[suffix], info, width=width, height=height, options=options)
    if not options.png:
        raise UsageError(f"cannot write {target}; expected a name that ends in .mp4, .mkv or .png, or the setting png")
    return FolderWriter(result, width=width, height=height, deep=deep)


class ImageWriter(FrameWriter):
    """One PNG file."""

    def __init__(self, path: Path, *, width: int, height: int, deep: bool) -> None:
        super().__init__(width=width, height=height, deep=deep)
        self._path = path

    def _put(self, pixels: np.ndarray, pts: int) -> None:
        if self.count:
            raise ValueError("an image has one frame, got a second one")
        _write_png(self._path, pixels)


class FolderWriter(FrameWriter):
    """PNG files 000000.png, 000001.png and so on."""

    def __init__(self, folder: Path, *, width: int, height: int, deep: bool) -> None:
        super().__init__(width=width, height=height, deep=deep)
        self._folder = folder
        with _disk_errors():
            folder.mkdir()

    def _put(self, pixels: np.ndarray, pts: int) -> None:
        _write_png(self._folder / f"{self.count:06d}.png", pixels)


class VideoWriter(FrameWriter):
    """A video file, encoded by ffmpeg, with the audio and subtitles of the source."""

    def __init__(
        self, path: Path, container: str, info: VideoInfo, *, width: int, height: int, options: OutputOptions
    ) -> None:
        self._pixel_format = stored_pixel_format(info, options, width=width, height=height)
        deep = self._pixel_format.endswith(("10le", "16le"))
        super().__init__(width=width, height=height, deep=deep)
        self._path, self._container, self._info, self._options = path, container, info, options
        self._streams = copied_streams(info, options)
        self._check_container()
        refuse_too_large(info, options, (height, width))
        self.notes += self._streams.notes
        self.notes += _format_notes(info, options, self._pixel_format, width=width, height=height)
        self._encoder: Encoder | None = None
        self._clock = OutputClock(info, options.fps)

    def _check_container(self) -> None:
        if self._container != "mp4":
            return
        if self._options.pixel_format == "rgb":
            raise UsageError("pixel_format rgb needs a name that ends in .mkv; MP4 cannot hold lossless RGB")
        if not fits_mp4(self._info, self._streams):
            held = ", ".join([*self._info.audio, *self._info.subtitles])
            raise UsageError(f"MP4 cannot hold all streams of {self._info.path} ({held}); use a name that ends in .mkv")

    def _put(self, pixels: np.ndarray, pts: int) -> None:
        if self._encoder is None:
            self._clock.start(pts)
            self._encoder = self._start_encoder()
        self._encoder.send(pixels.tobytes(), self._clock.tick(self.count, pts))

    def _start_encoder(self) -> Encoder:
        height, width, _ = self._shape
        arguments = encode_arguments(
            self._path,
            self._info,
            self._options,
            self._streams,
            container=self._container,
            pixel_format=self._pixel_format,
            width=width,
            time_base=self._clock.time_base,
            shift=self._clock.shift,
        )
        return Encoder(
            arguments,
            width=width,
            height=height,
            pixel_format="rgb48le" if self.dtype is np.uint16 else "rgb24",
            rate=self._clock.rate,
            time_base=self._clock.time_base,
        )

    def _finish(self) -> None:
        self._encoder.finish(self.count)

    def _abort(self) -> None:
        if self._encoder is not None:
            self._encoder.kill()


def stored_pixel_format(info: VideoInfo, options: OutputOptions, *, width: int, height: int) -> str:
    """FFmpeg's name of what the file holds. H.264 and HEVC have no odd sizes in 4:2:0; 4:4:4 has them."""
    if options.pixel_format == "rgb":
        return "gbrp16le" if info.depth > 8 else "bgr0"
    if width % 2 or height % 2:
        return options.pixel_format.replace("yuv420p", "yuv444p")
    return options.pixel_format


def _format_notes(info: VideoInfo, options: OutputOptions, stored: str, *, width: int, height: int) -> list[str]:
    notes = []
    if options.pixel_format != "rgb" and stored != options.pixel_format:
        notes.append(f"4:4:4 instead of 4:2:0: the size {width}x{height} is odd")
    if info.depth > 8 and stored in ("yuv420p", "yuv444p"):
        notes.append(f"{info.depth} bits become 8; yuv420p10le keeps 10, rgb and png keep all")
    return notes


def _write_png(path: Path, pixels: np.ndarray) -> None:
    with _disk_errors():
        path.write_bytes(encode_png(pixels))
        sync(path)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EncoderError(f"cannot write PNG files: {error.strerror}") from error
