"""What convolutions are computed in. Activations and weights stay in the dtype of the VAE."""

import torch
from torch import Tensor

from vsr.vae.statistics import kind_of


def arithmetic_dtype(x: Tensor) -> torch.dtype:
    """The dtype of ``x``; float32 on CPUs for whose 16-bit convolutions oneDNN has no kernel.

    torch's own kernel, that would step in, is up to two hundred times slower than a float32 convolution.
    """
    if kind_of(x.device) != "cpu" or not torch.backends.mkldnn.is_available():
        return x.dtype
    known = {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    return torch.float32 if x.dtype in known and not known[x.dtype]() else x.dtype
