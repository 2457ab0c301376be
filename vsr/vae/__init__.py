"""The causal video VAE of CogVideoX, computed faster on the modules and weights of diffusers' class.

The pictures are those of diffusers' untiled `encode` and `decode`, to rounding. What is done otherwise:

- activations lie channels-last, the layout in which convolutions are fast;
- norm, modulation and SiLU are written straight into the padded input of the convolution that follows;
- the 1x1 convolutions of the spatial norm run at the size of the latents (they commute with nearest upsampling) and
  have no cache;
- nearest upsampling and the convolution behind it are one transposed convolution;
- convolutions are never cut into pieces shorter than their kernel, as diffusers' own are, so any size decodes.

With gradients every step is an ordinary differentiable operation; without, memory is reused in place, and `Memory` says
how to do with less of it.
"""

from vsr.vae.frame_batches import decode, encode
from vsr.vae.memory import WHOLE, Memory

__all__ = ["WHOLE", "Memory", "decode", "encode"]
