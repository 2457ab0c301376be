"""Degradation plans and presets: what is drawn, against the published numbers."""

import math
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
import yaml

from finetune.data.degradation import load_degradation, sample_plan
from finetune.data.degradation.config import PRESETS, DegradationConfig, Walk
from finetune.data.degradation.plan import (
    Blur,
    GaussianNoise,
    Jpeg,
    Plan,
    PoissonNoise,
    Resize,
    VideoCodec,
)
from finetune.data.degradation.sample import walk
from vsr.errors import UsageError

NAMES = sorted({path.stem for path in PRESETS.glob("*.yaml")} - {"area"})  # area is ours, nothing published
NUM_PLANS = 20_000
HUGE = 96_000
"""Pixels; rounding to whole pixels then blurs no statistic. A plan holds no pixel, so it costs nothing."""


def plan_of(name: str, seed: int, num_frames: int = 3, height: int = 32, width: int = 48) -> Plan:
    return sample_plan(load_degradation(name), np.random.default_rng(seed), num_frames, height, width)


def assert_share(count: int, total: int, probability: float) -> None:
    """Within four standard errors."""
    error = math.sqrt(probability * (1 - probability) / total)
    assert abs(count / total - probability) <= 4 * error, f"{count} of {total} for {probability}"


def assert_uniform(values: list[float], low: float, high: float) -> None:
    """In the range, and the mean within four standard errors of the middle."""
    assert low - 1e-9 <= min(values) and max(values) <= high + 1e-9
    assert abs(np.mean(values) - (low + high) / 2) <= 4 * (high - low) / math.sqrt(12 * len(values))


KINDS = {
    "iso": 0.405,
    "aniso": 0.225,
    "generalized_iso": 0.108,
    "generalized_aniso": 0.027,
    "plateau_iso": 0.108,
    "plateau_aniso": 0.027,
    "sinc": 0.1,
}


@pytest.fixture(scope="module", params=NAMES)
def plans(request) -> tuple[str, list[Plan]]:
    config, rng = load_degradation(request.param), np.random.default_rng(1)
    return request.param, [sample_plan(config, rng, 1, HUGE, HUGE) for _ in range(NUM_PLANS)]


def middle(plan: Plan) -> int:
    """Index of the first operation of the second stage: behind the first JPEG and codec."""
    first_jpeg = next(i for i, operation in enumerate(plan.operations) if isinstance(operation, Jpeg))
    return first_jpeg + 1 + isinstance(plan.operations[first_jpeg + 1], VideoCodec)


def tail(plan: Plan) -> int:
    """Index of the first operation of the final group: behind the second noise and, except in Real-ESRGAN, JPEG."""
    noises = [i for i, op in enumerate(plan.operations) if isinstance(op, GaussianNoise | PoissonNoise)]
    return noises[1] + 1


def test_blur_is_drawn_as_published(plans):
    _, plans = plans
    for blurs, share, sigma in (
        ([p.operations[0] for p in plans], 1.0, 3.0),
        ([p.operations[middle(p)] for p in plans if isinstance(p.operations[middle(p)], Blur)], 0.8, 1.5),
    ):
        kernels = [blur.kernels[0] for blur in blurs]
        assert_share(len(kernels), NUM_PLANS, share)
        for kind, count in Counter(kernel.kind for kernel in kernels).items():
            assert_share(count, len(kernels), KINDS[kind])
        for size, count in Counter(kernel.size for kernel in kernels).items():
            assert size in range(7, 22, 2)
            assert_share(count, len(kernels), 1 / 8)
        assert_uniform([k.sigma_x for k in kernels if k.kind != "sinc"], 0.2, sigma)
        assert_uniform([k.sigma_y for k in kernels if k.kind.endswith("aniso")], 0.2, sigma)
        assert_uniform([k.theta for k in kernels if k.kind.endswith("aniso")], -3.1416, 3.1416)
        sincs = [k for k in kernels if k.kind == "sinc"]
        assert_uniform([k.omega for k in sincs if k.size < 13], math.pi / 3 - 1e-4, math.pi + 1e-4)
        assert_uniform([k.omega for k in sincs if k.size >= 13], math.pi / 5 - 1e-4, math.pi + 1e-4)


def test_exponents_are_drawn_as_published(plans):
    name, plans = plans
    kernels = [plan.operations[0].kernels[0] for plan in plans]
    generalized = [k.beta for k in kernels if k.kind.startswith("generalized")]
    plateau = [k.beta for k in kernels if k.kind.startswith("plateau")]
    if name == "realbasicvsr":
        assert_uniform(generalized, 0.5, 4)
        assert_uniform(plateau, 1, 2)
    elif name == "realesrgan":  # half of them below 1, half above; the lower half of [1, 2] is the point 1
        assert_share(sum(beta < 1 for beta in generalized), len(generalized), 0.5)
        assert_uniform([beta for beta in generalized if beta > 1], 1, 4)
        assert_share(sum(beta == 1 for beta in plateau), len(plateau), 0.5)
    else:  # between 1 and a uniform draw: the mean is half-way between 1 and the middle of the range
        assert np.mean(generalized) == pytest.approx((1 + 2.25) / 2, abs=0.1)
        assert np.mean(plateau) == pytest.approx((1 + 1.5) / 2, abs=0.05)


def test_resize_is_drawn_as_published(plans):
    name, plans = plans
    stages = [[op for op in plan.operations if isinstance(op, Resize)] for plan in plans]
    for place, (up, down, low, high) in enumerate([(0.2, 0.7, 0.15, 1.5), (0.3, 0.4, 0.3, 1.2)]):
        factors = []
        for resizes in stages:
            bases = [HUGE, HUGE // 4 if name == "realesrgan" else resizes[0].sizes[0][0]]
            factors.append(resizes[place].sizes[0][0] / bases[place])
        ups, downs = [f for f in factors if f > 1], [f for f in factors if f < 1]
        keeps = sum(f == 1 for f in factors)
        rounding = 30 if place and name != "realesrgan" else 3  # a keep of an odd size becomes even
        assert abs(len(ups) - up * NUM_PLANS) < 4 * math.sqrt(up * (1 - up) * NUM_PLANS) + rounding
        assert abs(len(downs) - down * NUM_PLANS) < 4 * math.sqrt(down * (1 - down) * NUM_PLANS) + rounding
        assert abs(keeps - (1 - up - down) * NUM_PLANS) < 4 * math.sqrt(0.3 * 0.7 * NUM_PLANS) + rounding
        assert np.mean(ups) == pytest.approx((1 + high) / 2, abs=0.01)
        assert np.mean(downs) == pytest.approx((low + 1) / 2, abs=0.01)
    for count in Counter(resize.interpolation for resizes in stages for resize in resizes).values():
        assert_share(count, 3 * NUM_PLANS, 1 / 3)


def test_noise_is_drawn_as_published(plans):
    name, plans = plans
    for place, (sigma, scale) in enumerate([(30, 3.0), (25, 2.5)]):
        noises = [[o for o in p.operations if isinstance(o, GaussianNoise | PoissonNoise)][place] for p in plans]
        gaussian = [noise for noise in noises if isinstance(noise, GaussianNoise)]
        poisson = [noise for noise in noises if isinstance(noise, PoissonNoise)]
        assert_share(len(gaussian), NUM_PLANS, 0.5)
        assert_share(sum(noise.gray for noise in gaussian), len(gaussian), 0.4)
        assert_share(sum(noise.gray for noise in poisson), len(poisson), 0.4)
        assert_uniform([noise.sigmas[0] for noise in gaussian], 1, sigma)
        assert_uniform([noise.scales[0] for noise in poisson], 0.05, scale)
        assert {noise.white for noise in poisson} == {255 if name.startswith("dove") else 1}


def test_compression_is_drawn_as_published(plans):
    name, plans = plans
    jpegs = [op for plan in plans for op in plan.operations if isinstance(op, Jpeg)]
    assert len(jpegs) == 2 * NUM_PLANS
    assert_uniform([jpeg.qualities[0] for jpeg in jpegs], 30, 95)
    codecs = [op for plan in plans for op in plan.operations if isinstance(op, VideoCodec)]
    assert len(codecs) == (2 * NUM_PLANS if name in ("realbasicvsr", "dove") else 0)
    for count in Counter(codec.codec for codec in codecs).values():
        assert_share(count, len(codecs), 1 / 3)
    if codecs:
        unit = HUGE**2 / 65536 if name == "realbasicvsr" else 1
        assert_uniform([codec.bits_per_frame / unit for codec in codecs], 1e4, 1e5)


def test_the_final_group_is_drawn_as_published(plans):
    name, plans = plans
    tails = [plan.operations[tail(plan) :] for plan in plans]
    if name != "realesrgan":
        assert all(isinstance(operations[0], Jpeg) for operations in tails)
        tails = [operations[1:] for operations in tails]
    assert_share(sum(any(isinstance(op, Blur) for op in operations) for operations in tails), NUM_PLANS, 0.8)
    kernels = [op.kernels[0] for operations in tails for op in operations if isinstance(op, Blur)]
    assert {kernel.kind for kernel in kernels} == {"sinc"}
    assert_uniform([kernel.omega for kernel in kernels], math.pi / 3 - 1e-4, math.pi + 1e-4)
    resize_first = sum(isinstance(operations[0], Resize) for operations in tails)
    assert_share(resize_first, NUM_PLANS, 1.0 if name == "dove_image" else 0.5)


def test_parameters_walk_within_their_bounds_and_steps():
    config = load_degradation("realbasicvsr")
    for seed in range(100):
        plan = sample_plan(config, np.random.default_rng(seed), 60, HUGE, HUGE)
        for operation in plan.operations:
            if isinstance(operation, Blur) and operation.kernels[0].kind != "sinc":
                check_walk([k.sigma_x for k in operation.kernels], 0.2, 3.0, 0.02)
                check_walk([k.theta for k in operation.kernels], -3.1416, 3.1416, 0.31416)
                check_walk([k.beta for k in operation.kernels], 0.5, 4, 0.1)
            if isinstance(operation, Blur) and operation.kernels[0].kind == "sinc":
                check_walk([k.omega for k in operation.kernels], math.pi / 5 - 1e-3, math.pi + 1e-3, 0.0628)
            if isinstance(operation, GaussianNoise):
                check_walk(operation.sigmas, 1, 30, 0.1)
            if isinstance(operation, PoissonNoise):
                check_walk(operation.scales, 0.05, 3, 0.005)
            if isinstance(operation, Jpeg):
                check_walk(operation.qualities, 30, 95, 4)  # 3, then rounded


def check_walk(values: tuple[float, ...], low: float, high: float, step: float) -> None:
    assert len(values) == 60
    assert min(values) >= low and max(values) <= high
    assert np.abs(np.diff(values)).max() <= step + 1e-9


def test_a_walk_stays_at_its_bounds_until_it_turns():
    values = walk(np.random.default_rng(0), 1.0, Walk(low=0.9, high=1.0, step=0.5), 200)
    assert (min(values), max(values)) == (0.9, 1.0)
    assert len(set(values)) > 10


def test_without_steps_all_frames_have_one_kernel_and_one_size():
    for seed in range(50):
        for operation in plan_of("realesrgan", seed, num_frames=7).operations:
            if isinstance(operation, Blur):
                assert len(operation.kernels) == 7 and len(set(operation.kernels)) == 1
            if isinstance(operation, Resize):
                assert len(set(operation.sizes)) == 1


def test_only_the_exponents_flicker_in_dove():
    kernels = [plan_of("dove", seed, num_frames=5).operations[0].kernels for seed in range(200)]
    for frames in kernels:
        flickers = frames[0].kind.startswith(("generalized", "plateau"))
        assert len(set(frames)) == (5 if flickers else 1)
        assert len({replace(kernel, beta=1.0) for kernel in frames}) == 1


def test_a_plan_depends_on_its_generator_only():
    for name in NAMES:
        assert plan_of(name, 5) == plan_of(name, 5) != plan_of(name, 6)


def edited(tmp_path, edit) -> DegradationConfig:
    tree = yaml.safe_load((PRESETS / "realbasicvsr.yaml").read_text())
    edit(tree)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_degradation(path)


def test_a_preset_can_be_a_file(tmp_path):
    config = edited(tmp_path, lambda tree: tree["first"].update(jpeg=None))
    assert config.first.jpeg is None
    assert config.second == load_degradation("realbasicvsr").second


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda t: t["first"]["blur"].update(sigmas=1),
            r"mine.yaml: first: blur: unknown field 'sigmas'; did you mean 'sigma'",
        ),
        (lambda t: t["second"]["noise"].pop("gray"), "second: noise: missing gray"),
        (lambda t: t["final"].update(sinc=3), "final: sinc: expected a mapping of fields, got 3"),
        (lambda t: t["first"]["resize"].update(even=1), "resize: even: expected bool, got 1"),
        (lambda t: t["first"]["noise"].update(gray="4e-1"), r"noise: gray: expected float, got '4e-1' .*write 1.0e-5"),
        (lambda t: t["first"]["blur"].update(sizes=[7, 8]), r"blur: sizes: expected odd numbers, got \[7, 8\]"),
        (lambda t: t["first"]["blur"]["kinds"].update(iso=0.5), "kinds: expected probabilities that sum to 1"),
        (lambda t: t["first"]["blur"]["sigma"].update(low=4), "sigma: expected low <= high"),
        (lambda t: t["second"]["blur"].update(probability=1.5), r"blur: expected a probability in \[0, 1\], got 1.5"),
        (lambda t: t["first"]["codec"].update(codecs=["vp9"]), "codecs: item 0: expected one of libx264, h264, mpeg4"),
        (lambda t: t["first"]["codec"].update(bits_per_frame=[1]), "bits_per_frame: expected a list of 2"),
        (lambda t: t.update(output_bits=12), "output_bits: expected one of 8, 16; got 12"),
    ],
)
def test_a_wrong_preset_is_refused_by_field(tmp_path, edit, message):
    with pytest.raises(UsageError, match=message):
        edited(tmp_path, edit)


def test_an_unknown_preset_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'realbasicvsr'"):
        load_degradation("realbasicsvr")
    with pytest.raises(UsageError, match="known presets: area, dove, dove_image"):
        load_degradation("none")
    with pytest.raises(UsageError, match=r"nothing.yaml: cannot be read"):
        load_degradation(tmp_path / "nothing.yaml")


def test_the_dove_preset_differs_where_upstream_does():
    ours, dove = load_degradation("realbasicvsr"), load_degradation("dove")
    assert {f.name for f in fields(dove) if getattr(dove, f.name) != getattr(ours, f.name)} == {
        "first",
        "second",
        "final",
        "output_bits",
    }
    assert dove.first.noise.poisson_white == 255 and ours.first.noise.poisson_white == 1
    assert dove.first.jpeg.swap_red_blue and not ours.first.jpeg.swap_red_blue
    assert (dove.first.jpeg.quality.step, dove.first.blur.sigma.step) == (3, 0)
