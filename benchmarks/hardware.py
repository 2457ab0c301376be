"""What the machine is, what it can do at best, and what is known to be wrong with it."""

import platform
import subprocess
from pathlib import Path

import torch

SUSPICIOUS = 4.0
"""A convolution that needs that many times the bytes of its input and output together is not as it should be."""


def describe(device: str) -> str:
    """Processor or GPU, versions, commit."""
    if torch.device(device).type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, cuDNN {torch.backends.cudnn.version()}"
    else:
        name = f"{_processor()}, {torch.get_num_threads()} threads"
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "no commit"
    return f"{name}, torch {torch.__version__}, {commit}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def conv3d_workspace(device: str, dtype: torch.dtype) -> str | None:
    """A warning when a 3D convolution takes far more memory than its data, as with torch 2.9 and some cuDNN."""
    if torch.device(device).type != "cuda":
        return None
    conv = torch.nn.Conv3d(128, 128, 3, device=device, dtype=dtype)
    x = torch.randn(1, 128, 5, 258, 258, device=device, dtype=dtype)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.no_grad():
        y = conv(x)
    torch.cuda.synchronize()
    used = torch.cuda.max_memory_allocated() - before
    ratio = (used - y.nbytes) / (x.nbytes + y.nbytes)
    if ratio < SUSPICIOUS:
        return None
    return (
        f"WARNING: this torch {torch.__version__} with cuDNN {torch.backends.cudnn.version()} takes {ratio:.0f} times "
        f"the data of a 3D convolution as workspace; another version of torch or cuDNN will need far less memory"
    )
