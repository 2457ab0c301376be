"""Noticing files that stop before their header says. Matroska and AVI end without an error wherever they are cut."""

import re
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from vsr.video_io.info import VideoInfo

TOLERANCE = Fraction(1, 10)
"""Seconds by which a stated duration may be too long without a complaint; two frames always may be missing."""


class EndWatch:
    """Sees every packet of every stream, and compares where they end with the durations that the header states."""

    def __init__(self, info: VideoInfo, container: InputContainer) -> None:
        self._tolerance = max(2 / info.rate, TOLERANCE)
        self._video = info.stream_index
        self._promises = _promises(container, container.streams[info.stream_index])
        self._ends = {"video": Fraction(0), "file": Fraction(0)}

    def see(self, packet: av.Packet) -> None:
        if packet.pts is None:
            return
        end = (packet.pts + (packet.duration or 0)) * packet.time_base
        self._ends["file"] = max(self._ends["file"], end)
        if packet.stream.index == self._video:
            self._ends["video"] = max(self._ends["video"], end)

    def complaint(self) -> str | None:
        """What is missing at the end; None if nothing is."""
        for what, promised in self._promises.items():
            if self._ends[what] < promised - self._tolerance:
                return f"the {what} ends at {float(self._ends[what]):.3f} s instead of {float(promised):.3f} s"
        return None


def _promises(container: InputContainer, stream: VideoStream) -> dict[str, Fraction]:
    """Where the whole file ends, by its header, and in Matroska the video alone, by its tag."""
    promises = {}
    if container.duration is not None:
        promises["file"] = Fraction((container.start_time or 0) + container.duration, av.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        hours, minutes, seconds = (Fraction(part) for part in tag.groups())
        promises["video"] = 3600 * hours + 60 * minutes + seconds
    return promises
