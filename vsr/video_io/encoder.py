"""One run of ffmpeg that encodes the frames it is sent and copies the other streams from the source."""

import contextlib
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from fractions import Fraction

import av
import imageio_ffmpeg

from vsr.errors import EncoderError

KEPT_LINES = 20


def _start(arguments: list[str]) -> subprocess.Popen:
    options = ["-hide_banner", "-v", "error", "-nostats", "-progress", "pipe:1"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    try:
        # In a session of its own: Ctrl-C is for this program, which ends ffmpeg itself.
        return subprocess.Popen(
            [imageio_ffmpeg.get_ffmpeg_exe(), *options, *arguments], start_new_session=True, **pipes
        )
    except (OSError, RuntimeError) as error:
        raise EncoderError(f"cannot start ffmpeg: {error}; reinstall imageio-ffmpeg") from error


class _Chunks:
    """Collects what PyAV muxes. Were PyAV to write into the pipe itself, an interrupt meanwhile would be lost in it."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._chunks.append(bytes(data))
        return len(data)

    def take(self) -> list[bytes]:
        chunks, self._chunks = self._chunks, []
        return chunks


class Encoder:
    """ffmpeg with a NUT stream of raw frames, and thus of exact time stamps, on its standard input."""

    def __init__(
        self, arguments: list[str], *, width: int, height: int, pixel_format: str, rate: Fraction, time_base: Fraction
    ) -> None:
        self._said: deque[str] = deque(maxlen=KEPT_LINES)
        self._progress: dict[str, str] = {}
        self._muxed = _Chunks()
        self._container = av.open(self._muxed, "w", format="nut", buffer_size=1 << 20)
        self._stream = self._container.add_stream("rawvideo", rate=rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, pixel_format
        self._stream.time_base = self._stream.codec_context.time_base = time_base
        self._time_base = time_base  # the muxer may choose a finer one for the stream
        self._process = _start(arguments)  # late: were the lines above to fail, it would run on unseen
        self._readers = [self._reading(self._keep_errors), self._reading(self._keep_progress)]

    def send(self, data: bytes, pts: int) -> None:
        """Send one frame; blocks while ffmpeg is behind."""
        packet = av.Packet(data)
        packet.stream = self._stream
        packet.time_base = self._time_base
        packet.pts = packet.dts = pts
        packet.is_keyframe = True
        self._container.mux(packet)
        self._pass_on()

    def finish(self, frame_count: int) -> None:
        """Wait until the file is complete, and check that it holds every frame."""
        self._container.close()
        self._pass_on()
        try:
            self._process.stdin.close()
        except OSError as error:
            raise self._failure() from error
        self._wait()
        written = self._progress.get("frame")
        if self._process.returncode != 0:
            raise self._failure()
        if written != str(frame_count):
            raise EncoderError(f"ffmpeg wrote {written} frames instead of {frame_count}. {self._last_words()}")

    def kill(self) -> None:
        """End ffmpeg at once, whatever it is doing."""
        self._process.kill()
        self._container.close()
        with contextlib.suppress(OSError):  # the pipe is broken, as it must be now
            self._process.stdin.close()
        self._wait()

    def _pass_on(self) -> None:
        """Write what has been muxed into the pipe."""
        try:
            for chunk in self._muxed.take():
                self._process.stdin.write(chunk)
        except OSError as error:
            raise self._failure() from error

    def _failure(self) -> EncoderError:
        """The error to raise after the pipe broke or ffmpeg ended badly; a hanging ffmpeg is killed."""
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._wait()
        return EncoderError(f"ffmpeg failed (exit status {self._process.returncode}). {self._last_words()}")

    def _last_words(self) -> str:
        return "It said:\n  " + "\n  ".join(self._said) if self._said else "It said nothing."

    def _wait(self) -> None:
        self._process.wait()
        for reader in self._readers:
            reader.join()

    def _reading(self, read: Callable[[], None]) -> threading.Thread:
        """Drain a pipe of ffmpeg at the side: a full one would stop ffmpeg, and that would stop us."""
        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def _keep_errors(self) -> None:
        with self._process.stderr as lines:
            self._said.extend(line.decode(errors="replace").rstrip() for line in lines)

    def _keep_progress(self) -> None:
        with self._process.stdout as lines:
            for line in lines:
                key, _, value = line.decode(errors="replace").strip().partition("=")
                self._progress[key] = value
