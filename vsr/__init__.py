"""One-step diffusion video super-resolution: the inference core."""
