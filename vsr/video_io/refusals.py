"""Sources that are refused by name, each with the ffmpeg command that converts it."""

import shlex
from pathlib import Path

from vsr.errors import InputError

# Tone mapping in linear light, then BT.709.
_TO_SDR = (
    "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,"
    "zscale=t=bt709:m=bt709:r=tv,format=yuv420p"
)


def refuse_hdr(path: Path, transfer: str) -> InputError:
    return InputError(
        f"{path}: is HDR ({transfer}); the models know standard dynamic range only. Convert it first:\n"
        f"  {_command(path, _TO_SDR, 'sdr')}"
    )


def refuse_interlaced(path: Path) -> InputError:
    return InputError(
        f"{path}: is interlaced; restoring needs whole frames. Deinterlace it first:\n"
        f"  {_command(path, 'bwdif=mode=send_frame', 'progressive')}"
    )


def refuse_mirrored(path: Path) -> InputError:
    return InputError(
        f"{path}: is stored mirrored, which is not supported. Let ffmpeg turn it first:\n"
        f"  {_command(path, 'null', 'upright')}"
    )


def refuse_colour_matrix(path: Path, code: int) -> InputError:
    return InputError(
        f"{path}: its colour matrix (code {code} of ITU-T H.273) is not supported. Convert it first:\n"
        f"  {_command(path, 'zscale=m=bt709', 'bt709')}"
    )


def refuse_damaged(path: Path, what: str) -> InputError:
    return InputError(
        f"{path}: damaged or cut off: {what}. To restore what is left, let ffmpeg write it anew first:\n"
        f"  {_command(path, 'null', 'repaired')}"
    )


def _command(path: Path, video_filter: str, suffix: str) -> str:
    """A command that can be pasted into a shell; both names are absolute, so a leading dash does no harm."""
    target = path.with_name(f"{path.stem}_{suffix}.mkv")
    arguments = ["ffmpeg", "-i", f"file:{path}", "-map", "0:v:0", "-map", "0:a?", "-map", "0:s?", "-vf", video_filter]
    arguments += ["-c:v", "libx264", "-crf", "12", "-c:a", "copy", "-c:s", "copy", f"file:{target}"]
    return shlex.join(arguments)
