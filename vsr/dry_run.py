"""What would be done to a file, in words and as facts."""

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from vsr import windows
from vsr.jobs import Job
from vsr.planner import Forecast
from vsr.settings import Layout
from vsr.speed import seconds


def describe_plan(
    job: Job, layout: Layout, step: int, forecast: Forecast | None, teraflops: float, *, is_guess: bool = False
) -> tuple[str, dict[str, Any]]:
    """Lines for people, and the same for programs, with bytes and seconds.

    Args:
        step: of the pipeline's `vsr.windows.Grid`.
        forecast: None: memory and time are not known.
        teraflops: rate of the machine, see `vsr.speed`.
        is_guess: on such a device nothing has been measured that time is predicted from.
    """
    info, count = job.info, job.info.likely_frame_count
    length = count if info.frame_count else f"about {count}" if count else "unknown number of"
    cuts = windows.count_windows(count, layout.window, layout.overlap, step) if count else "?"
    took = seconds(forecast.flops, teraflops) if forecast and forecast.flops else None
    lines = [
        f"{job.name}: {info.width}x{info.height}, {length} frames",
        f"    -> {job.target}: {layout.describe()}; {cuts} window(s)",
        f"    {forecast.describe()}" if forecast else "    memory and time are not predicted with --is_vae_st",
    ]
    if took is not None:
        guess = " (a guess: what stages make of a device's speed was measured on a CPU only)" if is_guess else ""
        lines.append(f"    about {timedelta(seconds=max(1, round(took)))} for the networks{guess}")
    facts = {"file": job.name, "frames": count, "output": str(job.target), "windows": cuts, **asdict(layout)}
    if forecast:
        facts |= {"plan": forecast.plan.describe(), "kind": forecast.plan.kind, "seconds": took}
        facts |= {"device_bytes": forecast.device, "host_bytes": forecast.host}
    return "\n".join(lines), facts
