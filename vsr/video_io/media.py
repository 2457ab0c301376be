"""Opening media files so that nothing but the named file is read."""

from pathlib import Path

import av
from av.container import InputContainer

from vsr.errors import InputError

# Demuxers that read one file and nothing else. Playlists and scripts (concat, hls, dash, sdp, imf) can open other
# files or the network and are therefore absent.
SAFE_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,nut,mxf,gif,"
    "h264,hevc,m4v,ivf,obu,yuv4mpegpipe,dv,rm,wtv"
)
INPUT_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": SAFE_DEMUXERS}


def media_url(path: Path) -> str:
    """The name under which FFmpeg opens ``path`` as a plain file, whatever it is called (``concat:x.mp4``, ``-x``)."""
    return f"file:{path.absolute()}"


def open_media(path: Path) -> InputContainer:
    """Open a media file for reading, or raise InputError with the reason."""
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty (0 bytes)")
        return av.open(media_url(path), options=dict(INPUT_OPTIONS), metadata_errors="replace")
    except av.error.ArgumentError as error:
        raise InputError(
            f"{path}: not a video file; playlists and scripts (concat, HLS, DASH, SDP) and subtitle or text files are "
            f"refused because they can make a reader open other files"
        ) from error
    except av.error.InvalidDataError as error:
        raise InputError(f"{path}: not a video file, or its header is missing or damaged (cut off?)") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror}") from error
    except av.error.FFmpegError as error:
        raise InputError(f"{path}: cannot be opened as a video: {error}") from error
