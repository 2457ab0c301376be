"""Videos, folders of frames and images in and out, with timestamps, colour, audio and subtitles kept.

for source in find_inputs("clips"):
    info = probe(source)
    target = output_path(Path("results"), info, options)
    with open_writer(target, info, width=4 * info.width, height=4 * info.height, options=options) as writer:
        for frame in read_frames(info):
            writer.write(enlarge(frame.pixels), frame.pts)
"""

from vsr.video_io.info import Frame, VideoInfo
from vsr.video_io.inputs import COMPARISONS, IMAGE_EXTENSIONS, REPORT, VIDEO_EXTENSIONS, find_inputs
from vsr.video_io.output import OutputOptions, output_path
from vsr.video_io.probe import probe
from vsr.video_io.read import read_frames
from vsr.video_io.write import FrameWriter, open_writer

__all__ = [
    "COMPARISONS",
    "IMAGE_EXTENSIONS",
    "REPORT",
    "VIDEO_EXTENSIONS",
    "Frame",
    "FrameWriter",
    "OutputOptions",
    "VideoInfo",
    "find_inputs",
    "open_writer",
    "output_path",
    "probe",
    "read_frames",
]
