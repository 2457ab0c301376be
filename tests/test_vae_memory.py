"""The VAE in strips and with its caches elsewhere: the same pictures in less memory."""

from functools import partial

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from torch.testing import assert_close

from benchmarks.stage2_memory import VAE
from tests.test_vae import EXACT, PAIRS, SHAPES, clip, random_vae
from tests.tiny import random_pipeline
from vsr import vae as fast
from vsr.counting import PeakBytes
from vsr.errors import UsageError
from vsr.vae import convolutions
from vsr.vae.memory import Cache

CALLS = {"encode": fast.encode, "decode": fast.decode}


def given(vae, direction, *size, **kwargs):
    return dict(zip(CALLS, clip(vae, *size, **kwargs), strict=True))[direction]


def real_vae():
    with torch.device("meta"):
        return AutoencoderKLCogVideoX(**VAE).to(torch.bfloat16).requires_grad_(False)


def peak_bytes(vae, direction, memory, there_before=()):
    """For 17 frames of 720x1280."""
    size = {"encode": (1, 3, 17, 720, 1280), "decode": (1, 16, 5, 90, 160)}[direction]
    with PeakBytes([*vae.parameters(), *there_before]) as counter:
        CALLS[direction](vae, torch.empty(size, dtype=torch.bfloat16, device="meta"), memory)
    return counter.peak


@pytest.mark.parametrize("frames", [1, 9, 17])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_strips_give_the_pictures_of_diffusers(shape, frames):
    vae = random_vae(**SHAPES[shape])
    for direction, (_, theirs) in PAIRS.items():
        x = given(vae, direction, frames, (3, 2), batch=2)
        expected, before = theirs(vae, x), x.clone()
        for rows in (3, 8, 11):
            assert_close(CALLS[direction](vae, x, fast.Memory(strip_rows=rows)), expected, **EXACT)
        assert torch.equal(x, before)


@pytest.mark.parametrize("latent_size", [(1, 1), (2, 5), (5, 3)])
@torch.no_grad()
def test_strips_of_other_sizes(latent_size):
    vae = random_vae()
    for direction, (_, theirs) in PAIRS.items():
        x = given(vae, direction, 16, latent_size)
        for rows in (1, 8, 100):
            assert_close(CALLS[direction](vae, x, fast.Memory(strip_rows=rows)), theirs(vae, x), **EXACT)


def test_with_gradients_strips_change_nothing():
    vae = random_vae().requires_grad_()
    x, z = clip(vae, 9)
    memory = fast.Memory(strip_rows=4)
    assert torch.equal(fast.encode(vae, x, memory), fast.encode(vae, x))
    assert torch.equal(fast.decode(vae, z, memory), fast.decode(vae, z))
    fast.decode(vae, z, memory).sum().backward()
    assert vae.decoder.conv_in.conv.weight.grad.any()


@pytest.mark.parametrize("direction", CALLS)
@torch.no_grad()
def test_memory_of_the_real_vae(monkeypatch, direction):
    """Counted on shapes, at 720p. Caches elsewhere are stood for by memory that was there before."""
    vae, kept, here, strips = real_vae(), {}, Cache.room, fast.Memory(strip_rows=90)

    def noted(cache, module, *args):
        kept[module] = here(cache, module, *args)
        return kept[module]

    monkeypatch.setattr(Cache, "room", noted)
    peak, peak_of_strips = (peak_bytes(vae, direction, memory) for memory in (fast.WHOLE, strips))
    assert peak_of_strips <= {"encode": 0.87, "decode": 0.7}[direction] * peak
    monkeypatch.setattr(Cache, "room", lambda cache, module, *_: cache.setdefault(module, kept[module]))
    cached = sum(frames.nbytes for frames in kept.values())
    assert peak_bytes(vae, direction, strips, kept.values()) < peak_of_strips - 0.8 * cached


@torch.no_grad()
def test_a_device_for_caches_changes_no_picture():
    vae = random_vae()
    for direction, call in CALLS.items():
        x = given(vae, direction, 17)
        for rows in (None, 6):
            there, here = (call(vae, x, fast.Memory(strip_rows=rows, cache_device=device)) for device in ("cpu", None))
            assert torch.equal(there, here)


@pytest.mark.parametrize(("asked", "device"), [(None, "cpu"), ("cpu", "cpu"), ("meta", "meta")])
def test_frames_are_kept_on_the_device_asked_for(asked, device):
    vae, x = random_vae(), torch.zeros(2, 8, 5, 3, 7)
    conv = vae.decoder.up_blocks[0].resnets[0].conv1
    room = Cache(asked).room(conv, x, 9)
    assert (room.device.type, room.shape) == (device, (9, 2, 2, 7, 8))


@pytest.mark.gpu
@torch.no_grad()
def test_frames_of_a_gpu_wait_in_pinned_memory():
    vae = random_vae().cuda()
    for direction, call in CALLS.items():
        x = given(vae, direction, 33).cuda()
        for rows in (None, 6):
            memory = fast.Memory(strip_rows=rows, cache_device="cpu")
            assert_close(call(vae, x, memory), call(vae, x), atol=1e-3, rtol=0)
    conv = vae.decoder.conv_in
    assert Cache("cpu").room(conv, torch.zeros(1, 4, 3, 5, 7, device="cuda"), 5).is_pinned()


def test_codec_and_pipeline_pass_it_on(monkeypatch):
    """The pipeline keeps it as a plain attribute, whole frames unless someone sets it."""
    pipe, passed = random_pipeline(), []

    def spy(real, vae, x, memory):
        passed.append(memory)
        return real(vae, x, memory)

    for direction, call in CALLS.items():
        monkeypatch.setattr(fast, direction, partial(spy, call))
    x = torch.zeros(1, 3, 1, 32, 32)
    with torch.no_grad():
        for memory in (pipe.vae_memory, fast.Memory(strip_rows=8)):
            pipe.vae_memory = memory
            pipe.decode(pipe.encode(x))
    assert passed == 2 * [fast.WHOLE] + 2 * [fast.Memory(strip_rows=8)]


def test_a_strip_has_a_row():
    with pytest.raises(UsageError, match="at least one row"):
        fast.Memory(strip_rows=0)


@torch.no_grad()
def test_strips_with_more_elements_than_a_convolution_takes_at_once(monkeypatch):
    vae = random_vae()
    for direction, call in CALLS.items():
        x = given(vae, direction, 9)
        whole = call(vae, x)
        monkeypatch.setattr(convolutions, "MOST_ELEMENTS", 10_000)
        assert_close(call(vae, x, fast.Memory(strip_rows=8)), whole, **EXACT)
        monkeypatch.undo()
