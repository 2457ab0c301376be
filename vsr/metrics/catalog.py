"""All metrics by name, and whether what they need is there."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from vsr.errors import ModelError, UsageError
from vsr.metrics.ewarp import ewarp_metric
from vsr.metrics.image import psnr, ssim
from vsr.metrics.learned import learned_metrics
from vsr.metrics.metric import Clip, Metric, PerFrame, Scorer, Start
from vsr.metrics.settings import ScoreSettings
from vsr.metrics.video_quality import dover_metric, fastervqa_metric
from vsr.metrics.weights import Weight, complaint, hash_of


def _own(name: str, definition: str, channels: str) -> Metric:
    """PSNR or SSIM: no weights; on the CPU, since they are summed in float64, which not every device has."""
    function = {"psnr": psnr, "ssim": ssim}[name]

    def build(settings: ScoreSettings) -> Start:
        compare = partial(function, crop=settings.crop, test_y_channel=settings.test_y_channel)

        def start(clip: Clip) -> Scorer:
            return PerFrame(compare, name, replace(settings, device="cpu"), needs_gt=True)

        return start

    def define(settings: ScoreSettings) -> str:
        compared = "Y of BT.601, limited range" if settings.test_y_channel else channels
        return f"{definition}; {compared}; crop {settings.crop}; mean of frames, then of clips"

    return Metric(build=build, columns=(name,), define=define, needs_gt=True)


METRICS: dict[str, Metric] = {
    "psnr": _own("psnr", "10 log10(1 / (mse + 1e-8)) dB, at most 80", "RGB"),
    "ssim": _own(
        "ssim",
        "11x11 Gaussian window of sigma 1.5, valid part, range 255 rounded, no downsampling",
        "Y of YIQ, full range",
    ),
    **learned_metrics(),
    "dover": dover_metric(),
    "fastervqa": fastervqa_metric(),
    "ewarp": ewarp_metric(),
}


def check_metrics(
    metrics: Sequence[str],
    settings: ScoreSettings | None = None,
    *,
    with_gt: bool = True,
) -> None:
    """Look at names, packages and weight files, before any video is opened.

    Raises:
        UsageError: an unknown or repeated name, or a metric that compares with ground truth when there is none.
        ModelError: a package or a weight file is missing or damaged; the message has all of them.
    """
    check_names(metrics)
    comparing = [name for name in metrics if METRICS[name].needs_gt]
    if comparing and not with_gt:
        raise UsageError(f"{', '.join(comparing)} compare with ground truth: give --gt")
    wrong = {name: complaints(METRICS[name], settings or ScoreSettings()) for name in metrics}
    lines = [f"{name}: {text}" for name, texts in wrong.items() for text in texts]
    if lines:
        how = "put the files there, or run eval_metrics.py with --download; --doctor shows what is there"
        raise ModelError("\n  ".join(["metrics that cannot be computed here:", *lines, how]))


def check_names(metrics: Sequence[str]) -> None:
    """Raise UsageError for no name, an unknown or a repeated one."""
    if not metrics or len(set(metrics)) < len(metrics) or set(metrics) - METRICS.keys():
        raise UsageError(f"metrics must be distinct names out of {', '.join(METRICS)}, got {', '.join(metrics)}")


def complaints(metric: Metric, settings: ScoreSettings) -> list[str]:
    """Everything that keeps a metric from being computed on this machine."""
    packages = [f"missing: Python package {name}" for name in metric.packages if package_version(name) is None]
    return packages + [text for weight in metric.weights(settings) if (text := complaint(weight))]


def weights_of(metrics: Sequence[str], settings: ScoreSettings) -> dict[str, str]:
    """Weight file -> SHA-256, for files that have been checked."""
    weights: list[Weight] = [weight for name in metrics for weight in METRICS[name].weights(settings)]
    return {weight.path.name: hash_of(weight.path) for weight in weights}


def download_missing(metrics: Sequence[str], settings: ScoreSettings) -> list[str]:
    """Fetch the weight files that are not there and can be fetched; returns one line for each that was or was not."""
    weights = dict.fromkeys(weight for name in metrics for weight in METRICS[name].weights(settings))
    return [_fetched(weight) for weight in weights if not weight.path.is_file()]


def _fetched(weight: Weight) -> str:
    """What became of one file; the others are fetched whatever that is, and who needs it says so later."""
    try:
        weight.download()
    except (ModelError, OSError, RuntimeError, ValueError) as error:  # the hubs' clients raise all of these
        return f"not downloaded: {weight.name}: {error}"
    return f"downloaded {weight.name}"


def package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def doctor(metrics: Sequence[str], settings: ScoreSettings) -> tuple[str, bool]:
    """What each metric needs and whether it is there, as text; and whether all can be computed."""
    lines, fine = [], True
    for name in metrics:
        wrong = complaints(METRICS[name], settings)
        fine &= not wrong
        found = [f"found: {_found(weight)}" for weight in METRICS[name].weights(settings) if not complaint(weight)]
        lines += [f"{name}: {'not computable' if wrong else 'ok'}", *(f"    {text}" for text in [*found, *wrong])]
    return "\n".join(lines), fine


def _found(weight: Weight) -> str:
    checked = "as expected" if weight.expected_hash else "nothing to compare it with"
    return f"{weight.path} (SHA-256 {hash_of(weight.path)[:8]}, {checked})"


def listing() -> str:
    """All metrics with their direction, what they need and what they mean, as text."""
    lines = []
    for name, metric in METRICS.items():
        facts = ["lower is better" if metric.lower_better else "higher is better"]
        facts += ["needs --gt"] if metric.needs_gt else []
        facts += ["needs weights"] if metric.weights(ScoreSettings()) else []
        meaning = metric.define(ScoreSettings()).format(column=" / ".join(metric.columns))
        lines += [f"{name}: {', '.join(facts)}", f"    {meaning}"]
    return "\n".join(lines)
