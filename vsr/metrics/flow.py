"""Motion between two frames: torchvision's RAFT from a weight file, or OpenCV's DIS, which needs none."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

RAFT_UPDATES = 20
RAFT_STEP = 8
RAFT_LEAST = 128
"""Rows and columns below which the coarsest features of RAFT are empty."""

Flow = Callable[[Tensor, Tensor], Tensor]
"""(N, 3, H, W) frames a and b in [0, 1] -> (N, 2, H, W): by how many pixels (x, y) a pixel of a has moved in b."""


def raft(weights: Path, device: str, *, small: bool = False) -> Flow:
    """RAFT of torchvision with the weights of a file."""
    from torchvision.models.optical_flow import raft_large, raft_small

    network = (raft_small if small else raft_large)(weights=None)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return raft_flow(network.to(device).eval())


def raft_flow(network: nn.Module) -> Flow:
    """The flow of a RAFT network, for frames of any size from 128x128; 20 updates, float32."""
    return partial(_raft_flow, network)


def _raft_flow(network: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """Borders are repeated up to multiples of 8, half on either side, and cut off again.

    Raises:
        ValueError: frames too small.
    """
    height, width = a.shape[-2:]
    if min(height, width) < RAFT_LEAST:
        raise ValueError(f"RAFT needs at least {RAFT_LEAST}x{RAFT_LEAST} pixels, got {width}x{height}")
    rows, columns = -height % RAFT_STEP, -width % RAFT_STEP
    top, left = rows // 2, columns // 2
    padding = (left, columns - left, top, rows - top)
    a, b = (F.pad(2 * x - 1, padding, mode="replicate").contiguous() for x in (a, b))
    flow = network(a, b, num_flow_updates=RAFT_UPDATES)[-1]
    return flow[..., top : top + height, left : left + width]


def dis_flow(a: Tensor, b: Tensor) -> Tensor:
    """Dense inverse search on the 8-bit luma, OpenCV's medium preset.

    Source: Kroeger et al., Fast optical flow using dense inverse search (2016).
    """
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flows = [search.calc(_grey(x), _grey(y), None) for x, y in zip(a, b, strict=True)]
    return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).to(a.device)


def _grey(x: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W) uint8."""
    pixels = (255 * x).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
