"""DOVEPipeline as a diffusers pipeline: the three CogVideoX layouts, tiles, offload, LoRA."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import CogVideoXPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from finetune.scripts.random_model import LAYOUTS
from tests.tiny import numbered_clip, random_pipeline, x_lq
from vsr import denoiser, load_pipeline, pipelines
from vsr.errors import UsageError
from vsr.pipelines.lora import fuse_lora
from vsr.windows import Grid


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    random_pipeline(timestep=200, posterior="mode").save_pretrained(path)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_restores_any_legal_window(layout):
    pipe = random_pipeline(layout)
    for frames in (1, 9, 17):
        x = x_lq(frames)
        x_sr = pipe.restore(x)
        assert x_sr.shape == x.shape
        assert 0 <= x_sr.min() <= x_sr.max() <= 1


@pytest.mark.parametrize("size", [(480, 720), (240, 320), (256, 400)])
@pytest.mark.parametrize("layout", ["1.0-5b", "1.5-5b"])
def test_the_rotary_table_is_that_of_diffusers_own_pipeline(layout, size):
    pipe = random_pipeline(layout)
    theirs = CogVideoXPipeline(None, None, pipe.vae, pipe.transformer, pipe.scheduler)
    num_latents, factor = 10, 8
    expected = theirs._prepare_rotary_positional_embeddings(*size, num_latents, torch.device("cpu"))
    latent_size = (size[0] // factor, size[1] // factor)
    table = denoiser.rotary_table(pipe.transformer, *latent_size, num_latents, torch.device("cpu"))
    assert_close(table, expected)


def test_the_rotary_table_goes_on_beyond_the_training_resolution():
    pipe = random_pipeline("1.5-5b")
    cosines, _ = denoiser.rotary_table(pipe.transformer, 200, 300, 2, torch.device("cpu"))
    assert len(cosines) == 1 * 100 * 150


def test_the_first_latent_is_repeated_in_front_and_dropped_again():
    transformer = random_pipeline("1.5-5b").transformer
    assert [denoiser.copies(transformer, f) for f in (1, 2, 3, 9, 10)] == [(1, 0), (0, 0), (1, 0), (1, 0), (0, 0)]
    pipe = random_pipeline("1.5-5b")
    z = torch.randn(1, 4, 3, 4, 4)
    with torch.no_grad():
        padded = pipe.denoise(z, padded=True)
        assert padded.shape[2] == 4
        assert_close(pipe.denoise(z), padded[:, :, 1:])


def test_staggered_patches_repeat_the_last_latent_and_drop_it_again():
    transformer = random_pipeline("1.5-5b").transformer
    assert [denoiser.copies(transformer, f, staggered=True) for f in (1, 2, 3)] == [(0, 1), (0, 0), (0, 1)]
    wide = SimpleNamespace(config=SimpleNamespace(patch_size_t=4))
    assert [denoiser.copies(wide, f, staggered=True) for f in (17, 18, 19, 20)] == [(1, 2), (0, 2), (0, 1), (0, 0)]
    pipe, z = random_pipeline("1.5-5b"), torch.randn(1, 4, 3, 4, 4)
    with torch.no_grad():
        longer = pipe.denoise(torch.cat([z, z[:, :, -1:]], dim=2))
        assert_close(pipe.denoise(z, staggered=True), longer[:, :, :3])
        assert_close(pipe.denoise(z, staggered=True, padded=True), longer)


def test_only_models_that_say_so_are_staggered_and_only_in_odd_tiles():
    x, plain, staggered = x_lq(9), random_pipeline("1.5-5b"), random_pipeline("1.5-5b", stagger_frames=True)
    expected = plain.restore(x)
    assert torch.equal(plain.restore(x, odd=True), expected)
    assert torch.equal(staggered.restore(x), expected)
    assert (staggered.restore(x, odd=True) - expected).abs().max() > 1e-3


def test_only_models_that_say_so_see_odd_tiles_mirrored():
    x, plain, mirroring = x_lq(9), random_pipeline(), random_pipeline(mirror_tiles=True)
    assert torch.equal(plain.restore(x, odd=True), plain.restore(x))
    assert torch.equal(mirroring.restore(x), plain.restore(x))
    assert torch.equal(mirroring.restore(x, odd=True), plain.restore(x.flip(-1)).flip(-1))


def test_each_layout_has_the_noise_schedule_of_its_family():
    """abar(399): CogVideoX of 2 B parameters shifts its signal-to-noise ratio, those of 5 B do not."""
    abar = {layout: random_pipeline(layout).scheduler.alphas_cumprod[399].item() for layout in LAYOUTS}
    assert abar == pytest.approx({"1.0-2b": 0.178615, "1.0-5b": 0.6273309**2, "1.5-5b": 0.6273309**2}, abs=1e-5)


def test_the_three_steps_carry_gradients():
    pipe = random_pipeline()
    pipe.decode(pipe.denoise(pipe.encode(x_lq(frames=1)))).mean().backward()
    assert all(p.grad is not None for p in pipe.transformer.parameters() if p.requires_grad)


def test_model_offload_gives_the_same_pictures(folder):
    pipe, offloaded = (load_pipeline(folder, dtype="float32", device="cpu") for _ in range(2))
    offloaded.enable_model_cpu_offload(device="cpu")
    for seed in (0, 1):
        assert_close(offloaded.restore(x_lq(seed=seed)), pipe.restore(x_lq(seed=seed)))


def test_illegal_sizes_are_refused():
    pipe = random_pipeline()
    for shape in ((8, 32, 32), (9, 24, 32), (9, 32, 40)):
        with pytest.raises(UsageError, match="multiples of 16"):
            pipe.restore(x_lq(*shape))
    with pytest.raises(UsageError, match="timestep"):
        pipe.restore(x_lq(), timestep=1000)


def test_half_precision_runs_and_stays_near_float32():
    pipe = random_pipeline()
    exact = pipe.restore(x_lq())
    rounded = random_pipeline().to(torch.bfloat16).restore(x_lq())
    assert rounded.dtype == torch.float32  # the last steps to pixels are not rounded to 8 bits of mantissa
    assert (rounded - exact).abs().mean() < 0.02


def test_added_noise_follows_its_generator():
    pipe = random_pipeline(noise_step=100)
    one, same, other = (pipe.restore(x_lq(), generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_calling_the_pipeline_restores_arrays_and_pil_images():
    pipe, clip = random_pipeline(), numbered_clip(3, 8, 12)
    arrays = pipe(clip, scale=4).frames
    assert arrays.shape == (3, 32, 48, 3)
    assert arrays.dtype == np.uint8
    images = pipe([Image.fromarray(frame) for frame in clip], scale=4).frames
    assert [np.array_equal(np.asarray(image), frame) for image, frame in zip(images, arrays, strict=True)] == [True] * 3


def lora_file(path: Path, metadata: dict | None) -> Path:
    """A rank-2 LoRA of the first attention's query."""
    generator = torch.Generator().manual_seed(0)
    name = "transformer.transformer_blocks.0.attn1.to_q.lora_{}.weight"
    weights = {
        name.format("A"): torch.randn(2, 32, generator=generator),
        name.format("B"): torch.randn(32, 2, generator=generator),
    }
    save_file(weights, path, metadata)
    return path


def fused_query(path: Path, scale: float = 1.0) -> torch.Tensor:
    pipe = random_pipeline()
    before = pipe.transformer.transformer_blocks[0].attn1.to_q.weight.detach().clone()
    fuse_lora(pipe, path, scale)
    return pipe.transformer.transformer_blocks[0].attn1.to_q.weight.detach() - before


def test_a_lora_without_alpha_is_applied_at_the_scale_given_and_says_so(tmp_path, caplog):
    path = lora_file(tmp_path / "upstream.safetensors", None)
    weights = load_file(path)
    a, b = (weights[f"transformer.transformer_blocks.0.attn1.to_q.lora_{part}.weight"] for part in "AB")
    assert_close(fused_query(path), b @ a, atol=1e-4, rtol=1e-4)
    assert "0.5" in caplog.text
    assert_close(fused_query(path, 0.5), 0.5 * (b @ a), atol=1e-4, rtol=1e-4)


def test_the_alpha_of_a_lora_comes_from_its_metadata(tmp_path):
    config = {"transformer.r": 2, "transformer.lora_alpha": 1, "transformer.target_modules": ["to_q"]}
    path = lora_file(tmp_path / "ours.safetensors", {"format": "pt", "lora_adapter_metadata": json.dumps(config)})
    plain = lora_file(tmp_path / "upstream.safetensors", None)
    assert_close(fused_query(path), 0.5 * fused_query(plain), atol=1e-4, rtol=1e-4)


def test_the_grid_bounds_tiles_only_where_the_model_says_so():
    assert random_pipeline().grid == Grid(multiple=16, step=8, max_pixels=None)
    small = random_pipeline(max_pixels=4096)
    small.vae.enable_tiling()
    assert small.grid.max_pixels == 4096  # what it was trained for still holds


def test_the_tiles_of_a_model_travel_with_it(tmp_path):
    random_pipeline(max_pixels=4096, tile_overlap=48, stagger_frames=True, mirror_tiles=True).save_pretrained(tmp_path)
    expected = Grid(multiple=16, step=8, max_pixels=4096, tile_overlap=48)
    assert pipelines.inspect(tmp_path).grid == expected
    loaded = load_pipeline(tmp_path, "float32", "cpu")
    assert loaded.grid == expected
    assert loaded.config.stagger_frames and loaded.config.mirror_tiles
