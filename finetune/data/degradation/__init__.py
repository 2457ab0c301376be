"""Synthetic low quality: a preset says what may happen, a plan what does happen, and pixels follow from the plan.

config = load_degradation("realbasicvsr")
plan = sample_plan(config, rng, num_frames, height, width)  # every draw; pure data
lq = apply_plan(frames, plan)  # (F, H, W, 3) uint8 -> (F, H / scale, W / scale, 3)
"""

from finetune.data.degradation.apply import apply_plan
from finetune.data.degradation.config import DegradationConfig, load_degradation
from finetune.data.degradation.plan import Plan
from finetune.data.degradation.sample import sample_plan

__all__ = ["DegradationConfig", "Plan", "apply_plan", "load_degradation", "sample_plan"]
