"""From clips to a restored and scored video: the two bash scripts, the conversion, the restoration, the metrics."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

import eval_metrics
import inference_script
from finetune.scripts import prepare_sft_ckpt
from tests.media import clip
from vsr import load_pipeline

ROOT = Path(__file__).parent.parent


def bash(script, *arguments, cwd):
    done = subprocess.run(
        ["bash", str(ROOT / script), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_chain(tmp_path):
    videos, images = tmp_path / "videos", tmp_path / "images"
    videos.mkdir()
    images.mkdir()
    for i in range(5):
        clip(videos / f"{i}.mp4", size="96x96", seconds="0.8")
    rng = np.random.default_rng(0)
    for i in range(3):  # fewer images than videos
        cv2.imwrite(str(images / f"{i}.png"), rng.integers(0, 256, (96, 96, 3), dtype=np.uint8))
    small = [f"data.videos={videos}", "data.height=64", "data.width=64", "train.log_every=1"]
    stage_1, stage_2 = tmp_path / "s1", tmp_path / "s2"

    one = ["configs/toy_s1.yaml", f"output_dir={stage_1}", *small, "train.steps=3"]
    bash("finetune/train_ddp_one_s1.sh", *one, cwd=tmp_path)  # from any directory
    code = prepare_sft_ckpt.main([f"--checkpoint_dir={stage_1 / 'checkpoint-3'}", "--dtype=fp32"])
    assert code == 0

    two = [f"init_from={stage_1 / 'ckpt-3-sft'}", f"output_dir={stage_2}", f"data.images={images}"]
    mixed = ["data.image_ratio=0.5", "train.steps=6"]
    bash("finetune/train_ddp_one_s2.sh", "configs/toy_s2.yaml", *two, *small, *mixed, cwd=tmp_path)

    model = stage_2 / "model"
    pipe = load_pipeline(model, device="cpu")
    assert pipe.config.coefficients == "float32"  # stage 2 inherits what stage 1 was told
    demo = tmp_path / "demo"
    for folder, size in (("lq", "32x24"), ("gt", "128x96")):
        (demo / folder).mkdir(parents=True)
        clip(demo / folder / "clip.mp4", size=size)
    folders = [f"--input_dir={demo / 'lq'}", f"--output_path={demo / 'sr'}"]
    assert inference_script.main([*folders, f"--model_path={model}"]) == 0
    assert eval_metrics.main([f"--gt={demo / 'gt'}", f"--pred={demo / 'sr'}", "--metrics=psnr,ssim"]) == 0
