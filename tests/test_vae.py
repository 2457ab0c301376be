"""The fast path of the VAE against diffusers' own untiled encode and decode."""

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXSafeConv3d
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vsr import codec
from vsr import vae as fast
from vsr.counting import PeakBytes
from vsr.memory import keep_freed_memory
from vsr.vae import convolutions
from vsr.vae.memory import Cache
from vsr.vae.networks import decoder
from vsr.vae.precision import arithmetic_dtype
from vsr.vae.statistics import group_statistics

EXACT = {"atol": 1e-4, "rtol": 0.0}


def random_vae(widths=(8, 16, 16), layers=1, groups=4, **config):
    """A CogVideoX-shaped VAE whose norms and modulations are far from neutral."""
    torch.manual_seed(0)
    blocks = {f"{way.lower()}_block_types": (f"CogVideoX{way}Block3D",) * len(widths) for way in ("Down", "Up")}
    config = {"latent_channels": 4, "scaling_factor": 0.7} | blocks | config
    vae = AutoencoderKLCogVideoX(
        block_out_channels=widths, layers_per_block=layers, norm_num_groups=groups, **config
    ).eval()
    for name, parameter in vae.named_parameters():
        if "norm" in name and parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape)
    return vae.requires_grad_(False)


def clip(vae, frames, latent_size=(5, 7), batch=1):
    """Pixels in [-1, 1], and latents of the size they are encoded to."""
    generator, factor = torch.Generator().manual_seed(frames), codec.spatial_factor(vae)
    x = torch.rand(batch, 3, frames, *(factor * side for side in latent_size), generator=generator) * 2 - 1
    latents = -(-frames // vae.config.temporal_compression_ratio)
    return x, torch.randn(batch, 4, latents, *latent_size, generator=generator)


def their_encode(vae, x):
    return vae.encode(x).latent_dist.parameters


def their_decode(vae, z):
    return vae.decode(z).sample


PAIRS = {"encode": (fast.encode, their_encode), "decode": (fast.decode, their_decode)}

SHAPES = {
    "real topology": {"widths": (16, 32, 32, 64), "layers": 3},
    "three levels": {"widths": (8, 16, 16), "layers": 1},
    "two levels": {"widths": (12, 8), "layers": 2, "groups": 2, "temporal_compression_ratio": 2},
    "time by eight": {"widths": (8, 8, 16, 16), "layers": 1, "groups": 8, "temporal_compression_ratio": 8},
}


@pytest.mark.parametrize("frames", [1, 9, 17, 33])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_pictures_are_those_of_diffusers(shape, frames):
    vae = random_vae(**SHAPES[shape])
    for (ours, theirs), given in zip(PAIRS.values(), clip(vae, frames), strict=True):
        before = given.clone()
        assert_close(ours(vae, given), theirs(vae, given), **EXACT)
        assert torch.equal(given, before)


@pytest.mark.parametrize("frames", [2, 8, 16])
@torch.no_grad()
def test_samples_of_a_batch_and_other_lengths(frames):
    vae = random_vae()
    for (ours, theirs), given in zip(PAIRS.values(), clip(vae, frames, batch=3), strict=True):
        assert_close(ours(vae, given), theirs(vae, given), **EXACT)


def gradients(call, vae, given):
    """Of the input and of all weights, for a loss with random weights of its own."""
    given = given.clone().requires_grad_()
    result = call(vae, given)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    used = [p for p in vae.parameters() if p.requires_grad]
    return torch.autograd.grad((result * weights).mean(), [given, *used], allow_unused=True)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("direction", PAIRS)
def test_gradients_are_those_of_diffusers(direction, checkpointing):
    vae = random_vae().requires_grad_()
    ours, theirs = PAIRS[direction]
    given = dict(zip(PAIRS, clip(vae, 17), strict=True))[direction]
    expected = gradients(theirs, vae, given)
    if checkpointing:
        vae.enable_gradient_checkpointing()
    for mine, wanted in zip(gradients(ours, vae, given), expected, strict=True):
        assert (mine is None) == (wanted is None)
        if wanted is not None:
            assert_close(mine, wanted, atol=1e-4 * wanted.abs().max().item() + 1e-9, rtol=0)


def test_checkpointing_keeps_less_until_the_backward_pass():
    vae, kept = random_vae(), {}
    z = clip(vae, 17)[1].requires_grad_()
    for checkpointing in (False, True):
        if checkpointing:
            vae.enable_gradient_checkpointing()
        with PeakBytes([z, *vae.parameters()]) as counter:
            x = fast.decode(vae, z)
            kept[checkpointing] = counter.alive
        del x
    assert kept[True] < 0.6 * kept[False]


class DtypesSeen(TorchDispatchMode):
    """The dtypes of everything that is computed inside."""

    def __init__(self):
        super().__init__()
        self.dtypes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.dtypes |= {x.dtype for x in tree_leaves(result) if isinstance(x, torch.Tensor)}
        return result


@pytest.mark.parametrize("direction", PAIRS)
@torch.no_grad()
def test_a_device_without_float64_needs_none(direction, monkeypatch):
    monkeypatch.setattr("vsr.vae.statistics.kind_of", lambda device: "mps")
    vae = random_vae()
    ours, theirs = PAIRS[direction]
    given = dict(zip(PAIRS, clip(vae, 17), strict=True))[direction]
    with DtypesSeen() as seen:
        result = ours(vae, given)
    assert torch.float32 in seen.dtypes
    assert torch.float64 not in seen.dtypes
    assert_close(result, theirs(vae, given), **EXACT)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_rounding_is_no_worse_than_in_diffusers(dtype):
    """Against the same rounded weights in float32: the error of rounding those is common to both.

    Of several clips together: for one alone it is half to one and a half times that of diffusers, by chance.
    """
    rounded, exact = random_vae(layers=2).to(dtype), random_vae(layers=2).to(dtype).float()
    for (ours, theirs), given in zip(PAIRS.values(), clip(exact, 17, batch=8), strict=True):
        given = given.to(dtype)
        truth = theirs(exact, given.float())
        mine, reference = ours(rounded, given), theirs(rounded, given)
        assert mine.dtype == dtype
        assert (mine.float() - truth).square().mean() <= (reference.float() - truth).square().mean()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("known", [False, True])
def test_a_cpu_without_16_bit_convolutions_computes_them_in_float32(monkeypatch, known, dtype):
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    monkeypatch.setattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported", lambda: known)
    assert arithmetic_dtype(torch.zeros(1, dtype=dtype)) == (dtype if known else torch.float32)
    assert arithmetic_dtype(torch.zeros(1)) == torch.float32
    assert arithmetic_dtype(torch.zeros(1, dtype=torch.float64)) == torch.float64
    assert arithmetic_dtype(torch.zeros(1, dtype=dtype, device="meta")) == dtype


@pytest.mark.parametrize("grad", [False, True])
def test_pictures_in_16_bits_are_those_of_float32(monkeypatch, grad):
    """The same rounded weights: what differs is how activations are rounded between the layers."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(convolutions, "CONVERTED_ELEMENTS", 40_000)
    rounded = random_vae().bfloat16()
    exact = random_vae().bfloat16().float()
    with torch.set_grad_enabled(grad):
        for (ours, _), given in zip(PAIRS.values(), clip(exact, 9), strict=True):
            given = given.bfloat16()
            truth, result = ours(exact, given.float()), ours(rounded, given)
            assert result.dtype == torch.bfloat16
            assert (result.float() - truth).square().mean().sqrt() < 0.02 * truth.std()


@torch.no_grad()
def test_any_size_decodes(monkeypatch):
    def split(*_):
        raise AssertionError("diffusers' convolution, which splits large inputs, was called")

    vae = random_vae(widths=(4, 4, 4, 4), layers=1, groups=1)
    monkeypatch.setattr(CogVideoXSafeConv3d, "forward", split)
    assert fast.decode(vae, torch.randn(1, 4, 1, 136, 240)).shape == (1, 3, 1, 1088, 1920)


@pytest.mark.parametrize("grad", [False, True])
def test_groups_of_frames_where_tensors_are_huge_change_nothing(monkeypatch, grad):
    vae = random_vae()
    with torch.set_grad_enabled(grad):
        for (ours, _), given in zip(PAIRS.values(), clip(vae, 17), strict=True):
            whole = ours(vae, given)
            monkeypatch.setattr(convolutions, "MOST_ELEMENTS", 40_000)
            for memory in (fast.WHOLE, fast.Memory(strip_rows=20)):
                assert_close(ours(vae, given, memory), whole, atol=1e-5, rtol=0)
            monkeypatch.undo()


@torch.no_grad()
def test_groups_of_frames_have_one_size(monkeypatch):
    conv, x, sizes = torch.nn.Conv3d(2, 2, 3), torch.zeros(1, 2, 10, 5, 5), []
    whole = convolutions._convolve_whole
    monkeypatch.setattr(convolutions, "_convolve_whole", lambda x, *args: sizes.append(x.shape[2]) or whole(x, *args))
    monkeypatch.setattr(convolutions, "MOST_ELEMENTS", 9 * 2 * 5 * 5)  # room for 7 frames of 8
    assert convolutions._convolve(conv, x, (0, 1, 1)).shape[2] == 8
    assert sizes == [4 + 2, 4 + 2]


@torch.no_grad()
def test_only_convolutions_over_time_have_a_cache():
    vae, cache = random_vae(), Cache()
    decoder(vae.decoder, torch.randn(1, 4, 2, 5, 7), cache)
    over_time = [m for m in vae.decoder.modules() if getattr(m, "time_kernel_size", 1) == 3]
    assert set(cache) == set(over_time)
    assert {kept.shape[2] for kept in cache.values()} == {2}


@torch.no_grad()
def test_decoding_takes_at_most_two_fifths_of_the_memory():
    vae = random_vae(widths=(16, 32, 32, 64), layers=3)
    peaks = []
    for call in PAIRS["decode"]:
        z = clip(vae, 17, (8, 8))[1]
        with PeakBytes([z, *vae.parameters()]) as counter:
            call(vae, z)
        peaks.append(counter.peak)
    assert peaks[0] <= 0.4 * peaks[1]


@torch.no_grad()
def test_the_vae_itself_stays_as_it_was():
    vae = random_vae()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    attributes = {name: set(vars(module)) for name, module in vae.named_modules()}
    x, z = clip(vae, 9)
    fast.encode(vae, x)
    fast.decode(vae, z)
    assert_close(dict(vae.state_dict()), before, atol=0, rtol=0)
    assert attributes == {name: set(vars(module)) for name, module in vae.named_modules()}


@torch.no_grad()
def test_a_vae_set_to_tile_goes_diffusers_way(monkeypatch):
    vae = random_vae()
    x, z = clip(vae, 9, (16, 16))
    vae.enable_tiling(48, 48, 1 / 6, 1 / 6)
    encoded, decoded = vae.encode(x).latent_dist.mode(), vae.decode(z / 0.7).sample
    assert_close(codec.encode(vae, x), encoded * 0.7)
    assert_close(codec.decode(vae, z), decoded)
    vae.disable_tiling()
    assert not torch.allclose(codec.decode(vae, z), decoded, atol=1e-3)


@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_statistics_of_groups_far_from_zero(kind, offset, monkeypatch):
    """By the CPU's one operation, and by the ordinary ones of other devices."""
    monkeypatch.setattr("vsr.vae.statistics.kind_of", lambda device: kind)
    x = torch.randn(2, 9, 40, 60, 8) + offset
    x[:, 0] += 5  # not all blocks are alike
    mean, inverse_deviation = group_statistics(x.split([10, 1, 29], dim=2), 2, 1e-6)
    grouped = x.double().unflatten(-1, (2, 4))
    variance, expected = torch.var_mean(grouped, dim=(1, 2, 3, 5), correction=0)
    assert_close(mean, expected.repeat_interleave(4, 1).float(), atol=1e-5, rtol=1e-6)
    wanted = (variance + 1e-6).rsqrt().repeat_interleave(4, 1).float()
    assert_close(inverse_deviation, wanted, atol=0, rtol=1e-5)


def test_the_allocator_can_be_told_to_keep_memory():
    keep_freed_memory()
    assert torch.ones(1 << 20).sum() == 1 << 20
