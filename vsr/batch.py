"""One run of `inference_script.py`: everything is checked first, then the model is loaded, then file after file."""

import argparse
import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from diffusers.utils.logging import disable_progress_bar
from torch import Tensor

from vsr import jobs, pipelines, prompts, windows
from vsr.compare import compare, comparison_table
from vsr.devices import choose_device, choose_dtype
from vsr.errors import UsageError, VSRError
from vsr.metrics import score
from vsr.pipelines.lora import check_lora, fuse_lora
from vsr.progress import Bars, JsonLines
from vsr.report import Report, fingerprint
from vsr.restore import Pipeline
from vsr.restore_file import restore_video
from vsr.settings import RestoreSettings, make_layout
from vsr.video_io import OutputOptions, find_inputs

log = logging.getLogger(__name__)


class Batch:
    """A checked plan. Making one raises for every mistake that can be known before the weights are loaded.

    Args:
        args: as `inference_script.parse_args` returns them.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._settings, self._output = _restore_settings(args), _output_options(args)
        self._outcome = jobs.Outcome()
        self._model = pipelines.find_model(args.model_path)
        self._grid, self._config = pipelines.inspect(self._model)
        if args.is_vae_st:
            self._grid = replace(self._grid, max_pixels=None)
        overlap = self._settings.checked_overlap(self._grid)
        if args.overlap_t not in (None, overlap):
            log.info("--overlap_t becomes %d: windows start at multiples of %d frames", overlap, self._grid.step)
        self._device = choose_device(args.device)
        self._dtype = choose_dtype(args.dtype, self._device)
        self._jobs = jobs.find_jobs(
            find_inputs(args.input_dir, args.image_folder),
            args.output_path,
            self._output,
            self._outcome,
            untagged=args.untagged,
            prompts=_read_prompts(args.input_json),
        )
        self._layouts = {
            job: make_layout(self._settings, self._grid, job.info.height, job.info.width, self._config["scale"])
            for job in self._jobs
        }
        prompts.check_prompts(self._model, {job.prompt for job in self._jobs})
        if args.lora_path:
            check_lora(args.lora_path)
        self._truths = self._find_truths()
        log.info("%s on %s in %s", self._model, self._device, str(self._dtype).removeprefix("torch."))

    def _find_truths(self) -> dict[str, Path]:
        args = self._args
        if args.eval_metrics and not args.gt_dir:
            raise UsageError("--eval_metrics compares with ground truth: give --gt_dir")
        truths = {path.stem: path for path in find_inputs(args.gt_dir)} if args.gt_dir else {}
        missing = [job.info.path.name for job in self._jobs if args.gt_dir and job.stem not in truths]
        if missing:
            raise UsageError(f"--gt_dir {args.gt_dir} has no file with the stem of {', '.join(missing)}")
        return truths

    def print_plan(self) -> int:
        """Say what would be done to each file, from its header; returns the exit code."""
        for job, layout in self._layouts.items():
            info, count = job.info, job.info.frame_count
            print(f"{info.path.name}: {info.width}x{info.height}, {count or 'unknown number of'} frames")
            cuts = windows.count_windows(count, layout.window, layout.overlap, self._grid.step) if count else "?"
            print(f"    -> {job.target}: {layout.describe()}; {cuts} window(s)")
        if self._settings.scene_cut == "auto":
            print("Scene cuts are found while restoring and are not in this plan: each adds a window or two.")
        return self._outcome.exit_code

    def run(self) -> int:
        """Restore what is not done yet, compare and score where asked; returns the exit code."""
        args, outcome = self._args, self._outcome
        report = Report(jobs.make_folder(args.output_path), self._identity())
        left = jobs.drop_finished(self._jobs, report, outcome, resume=args.resume, overwrite=args.overwrite)
        if outcome.skipped:
            log.info("already done with these settings: %s", ", ".join(outcome.skipped))
        progress = (JsonLines if args.json else Bars)(len(left))
        for name, error in outcome.failed.items():
            progress.failed(name, str(error), error.exit_code)
            report.failed(name, error)
        if left:
            self._restore(left, report, progress)
        if args.eval_metrics:
            self._evaluate()
        if len(self._jobs) > 1:
            for name, error in outcome.failed.items():
                log.error("FAILED %s", jobs.describe(name, error))
        counts = f"{len(outcome.done)} restored, {len(outcome.skipped)} already done, {len(outcome.failed)} failed"
        log.info("%s; results and report.json are in %s", counts, args.output_path)
        progress.end(outcome.exit_code)
        return outcome.exit_code

    def _restore(self, left: list[jobs.Job], report: Report, progress: Bars | JsonLines) -> None:
        pipe, embeddings = self._load({job.prompt for job in left})
        scores: dict[str, dict] = {}

        def restore(job: jobs.Job) -> dict[str, Any]:
            progress.start(job.info.path.name, job.info.frame_count)
            facts = restore_video(
                job.info,
                job.target,
                pipe,
                self._settings,
                output=self._output,
                prompt_embedding=embeddings[job.prompt],
                on_frames=progress.advance,
            )
            progress.done(facts)
            if self._args.compare:
                facts["compare"] = compare(job.info, job.target, self._truths.get(job.stem), job.target.parent)
                scores[job.stem] = facts["compare"]
            return facts

        def tell(job: jobs.Job, failure: VSRError) -> None:
            progress.failed(job.info.path.name, str(failure), failure.exit_code)

        jobs.restore_jobs(left, restore, report, self._outcome, tell)
        if any(scores.values()):
            print(comparison_table(scores))

    def _load(self, wanted: set[str]) -> tuple[Pipeline, dict[str, Tensor]]:
        disable_progress_bar()  # of the parts of a model; the files have their own
        pipe = pipelines.load_pipeline(self._model, self._dtype, "cpu" if self._args.is_cpu_offload else self._device)
        embeddings = prompts.prompt_embeddings(self._model, wanted, pipe.transformer.config.max_text_seq_length)
        if self._args.lora_path:
            fuse_lora(pipe, self._args.lora_path, self._args.lora_scale)
        if self._args.is_vae_st:
            pipe.vae.enable_slicing()
            pipe.vae.enable_tiling()
        if self._args.is_cpu_offload:
            pipe.enable_model_cpu_offload(device=self._device)
        return pipe, embeddings

    def _identity(self) -> dict[str, Any]:
        """Everything that decides how a result looks, as JSON holds it."""
        args = self._args
        parts = {**asdict(self._settings), **asdict(self._output), "model": fingerprint(self._model)}
        parts |= {"dtype": str(self._dtype), "vae_tiling": args.is_vae_st, "untagged": args.untagged}
        if args.lora_path:
            parts |= {"lora": str(args.lora_path), "lora_scale": args.lora_scale}
        return json.loads(json.dumps(parts, default=str))

    def _evaluate(self) -> None:
        names = self._args.eval_metrics.split(",")
        report = score(self._args.output_path, self._args.gt_dir, names, only={job.stem for job in self._jobs})
        print(report.table())
        report.write(self._args.output_path / "metrics.json")


def _restore_settings(args: argparse.Namespace) -> RestoreSettings:
    if args.chunk_len == 0:
        log.warning("--chunk_len 0: memory grows with the length of the clip")
    return RestoreSettings(
        scale=args.upscale,
        size=args.size,
        short_side=args.short_side,
        upscale_mode=args.upscale_mode,
        window=args.chunk_len,
        overlap=args.overlap_t,
        tile=tuple(args.tile_size_hw),
        tile_overlap=tuple(args.overlap_hw),
        scene_cut=args.scene_cut,
        color_fix=args.color_fix,
        timestep=args.sr_noise_step,
        noise_step=args.noise_step,
        seed=args.seed,
    )


def _output_options(args: argparse.Namespace) -> OutputOptions:
    return OutputOptions(
        pixel_format=args.save_format,
        png=args.png_save,
        crf=args.crf,
        codec=args.codec,
        fps=args.fps,
        audio=not args.no_audio,
    )


def _read_prompts(path: Path | None) -> dict[str, str]:
    """{file name: prompt} from a JSON file."""
    if path is None:
        return {}
    try:
        given = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: expected a JSON file of the form {{file name: prompt}}, got {error}") from error
    if not isinstance(given, dict) or not all(isinstance(prompt, str) for prompt in given.values()):
        raise UsageError(f"{path}: expected a JSON object of the form {{file name: prompt}}")
    return given
