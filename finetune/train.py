"""Train a model from a recipe.

    bash finetune/train_ddp_one_s1.sh                                     the recipe of stage 1, on all GPUs
    python -m finetune.train configs/toy_s1.yaml train.steps=5            one process

A recipe is one YAML file; further arguments override fields of it. Exit codes: 0 done; 1 nothing is learned any more;
2 wrong recipe; 3 data cannot be read; 4 out of memory; 5 the model to start from is missing; 130 stopped by a signal,
with a checkpoint, or by Ctrl-C.
"""

import argparse
import logging
import multiprocessing
import signal
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.utils import logging as diffusers_logging

from finetune.checkpoint import find_checkpoint, step_of, trim_log
from finetune.checks import check, open_cache, pipeline_settings
from finetune.data.sampler import training_loader
from finetune.engine import DTYPES, SHARDED, gathered, make_accelerator
from finetune.export import export
from finetune.losses.perceptual import build_perceptual
from finetune.methods.base import Method
from finetune.methods.dove_latent import DOVELatent
from finetune.methods.dove_pixel import DOVEPixel
from finetune.methods.vae import VAE
from finetune.recipe import LatentLossConfig, Recipe, dump_recipe, load_recipe
from finetune.trainable import make_trainable
from finetune.trainer import Trainer
from finetune.validate import Pictures, validate
from vsr.errors import INTERRUPTED, VSRError
from vsr.memory import keep_freed_memory, naming_memory
from vsr.pipelines import load_pipeline
from vsr.video_io.temporary import complete_or_nothing

log = logging.getLogger("finetune")

EXPORT = "model"
"""Folder of the run that holds the exported model."""
SMALLER = (
    "a smaller train.batch_size with train.accumulation, a smaller data.height and data.width, train.lora.rank=128, or "
    "more GPUs with configs/accelerate/fsdp2.yaml"
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="YAML file of configs/")
    parser.add_argument("overrides", nargs="*", metavar="section.field=value", help="for example train.lr=1.0e-6")
    parser.add_argument("--dry_run", action="store_true", help="check everything, print the resolved recipe, stop")
    return parser.parse_intermixed_args(argv)  # options may stand before, between and after the overrides


def main(argv: list[str] | None = None) -> int:
    """Train as the command line says; returns the exit code."""
    args = parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    quiet_diffusers()
    try:
        recipe = load_recipe(args.recipe, args.overrides)
        check(recipe)
        if args.dry_run:
            print(dump_recipe(recipe), end="")
            return 0
        with naming_memory("a training step", SMALLER):
            return run(recipe)
    except VSRError as error:
        log.error("error: %s", own_words(error))
        return error.exit_code
    except KeyboardInterrupt:
        log.error("interrupted; go on from the last checkpoint with resume=latest")
        return INTERRUPTED
    finally:
        end_workers()


def end_workers() -> None:
    """End what is left of the loader's processes: one that hangs in a decoder would keep this one from ending."""
    previous = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    signal.signal(signal.SIGCHLD, previous)


def own_words(error: VSRError) -> str:
    """The message of an error; one from a worker of the loader comes with a traceback around it."""
    return str(error).rpartition(f"{type(error).__name__}: ")[2].strip()


def quiet_diffusers() -> None:
    """Only errors: its warnings are about ways of use that are not ours."""
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()


def run(recipe: Recipe) -> int:
    """Build everything, train, export; returns the exit code."""
    config = recipe.train
    accelerator = make_accelerator(recipe)
    start = find_checkpoint(recipe.output_dir, recipe.resume)
    accelerator.wait_for_everyone()  # all have looked before one writes
    if accelerator.is_main_process:
        recipe.output_dir.mkdir(parents=True, exist_ok=True)
        with complete_or_nothing(recipe.output_dir / "recipe.yaml") as folder:
            (folder / "result").write_text(dump_recipe(recipe))
        trim_log(recipe.output_dir, step_of(start) if start else 0)
    set_seed(config.seed)  # of a LoRA's initial weights; everything else has generators of its own
    method = build_method(recipe, accelerator.device)
    trainer = Trainer(method, config, accelerator, recipe.output_dir)
    if start:
        trainer.resume(start)
    loader = training_loader(
        recipe.data,
        config.seed,
        config.batch_size,
        world_size=accelerator.num_processes,
        rank=accelerator.process_index,
        accumulation=trainer.batches_per_step,
        start_step=trainer.step,
        first_sample=trainer.samples,
        steps=config.steps,
        dataset=open_cache(recipe) if recipe.data.latent_cache else None,
    )
    if config.tracker != "none":
        accelerator.init_trackers("one-step-vsr")
    finished = trainer.fit(
        loader,
        lambda step: validate_student(recipe, trainer, method, accelerator, step),
        lambda step: is_validated(recipe, step),
    )
    if finished:
        export_student(accelerator, trainer, method, recipe.output_dir / EXPORT, config.precision)
    accelerator.end_training()
    return 0 if finished else INTERRUPTED


def build_method(recipe: Recipe, device: torch.device) -> Method:
    """The method that the recipe names, around the model that it starts from."""
    config, dtype = recipe.train, DTYPES[recipe.train.precision]
    pipe = load_pipeline(recipe.init_from, torch.float32, "cpu")
    pipe.register_to_config(**pipeline_settings(recipe))
    if config.gradient_checkpointing:
        pipe.vae.enable_gradient_checkpointing()
        pipe.transformer.enable_gradient_checkpointing()
    if recipe.method == "vae":
        return VAE(pipe, kl_weight=recipe.vae.kl_weight, seed=config.seed)
    pipe.vae.requires_grad_(False).eval().to(device, dtype)
    make_trainable(pipe.transformer, config.lora, dtype)
    if recipe.method == "dove_latent":
        latent = recipe.latent or LatentLossConfig()
        return DOVELatent(pipe, psnr=latent.loss == "psnr", frame_weight=latent.frame_weight)
    loss = recipe.loss
    return DOVEPixel(
        pipe,
        None if loss.perceptual == "none" else build_perceptual(loss.perceptual, device),
        perceptual_weight=loss.perceptual_weight,
        frame_weight=loss.frame_weight,
        temporal_decode=loss.temporal_decode,
    )


def is_validated(recipe: Recipe, step: int) -> bool:
    """Every so many steps and after the last one, where the recipe says so."""
    return recipe.validation is not None and (step % recipe.validation.every == 0 or step == recipe.train.steps)


def validate_student(recipe: Recipe, trainer: Trainer, method: Method, accelerator: Accelerator, step: int) -> None:
    """Restore and score what the recipe names, and log the averages."""
    with trainer.averaged_weights(), gathered(method.networks["student"]) as is_whole:
        # what else is sharded needs all processes to run it; each then writes into a folder of its own
        if accelerator.is_main_process or (accelerator.distributed_type in SHARDED and not is_whole):
            part = "" if accelerator.is_main_process else f"/rank-{accelerator.process_index}"
            folder = recipe.output_dir / f"validation/step-{step}{part}"
            averages, pictures = validate(method.pipe, recipe.validation, folder)
            log_validation(accelerator, step, averages, pictures)
    accelerator.wait_for_everyone()


def log_validation(accelerator: Accelerator, step: int, averages: dict[str, float], pictures: Pictures) -> None:
    """Give the trackers what came of a validation, and say it."""
    accelerator.log({f"validation/{name}": value for name, value in averages.items()}, step=step)
    for tracker in accelerator.trackers:
        layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
        images = {f"validation/{name}": picture[None] for name, picture in pictures.items()}
        tracker.log_images(images, step=step, **layout)
    if accelerator.is_main_process:
        log.info("step %d: %s", step, ", ".join(f"{name} {value:.4f}" for name, value in averages.items()))


def export_student(accelerator: Accelerator, trainer: Trainer, method: Method, folder: Path, precision: str) -> None:
    """Gather the student's weights (averaged where the recipe says so) and write the model folder."""
    with trainer.averaged_weights():
        weights = accelerator.get_state_dict(method.networks["student"])
        if accelerator.is_main_process:  # still inside: the weights are not copies
            export(method.pipe, weights, folder, DTYPES[precision], method.component)
            log.info("the model is in %s; use it with inference_script.py --model_path %s", folder, folder)
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
