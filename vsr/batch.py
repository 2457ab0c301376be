"""One run of `inference_script.py`: everything is checked first, then the model is loaded, then file after file."""

import argparse
import logging
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from vsr import jobs, memory, pipelines, prompts
from vsr.budget import budget_for
from vsr.compare import compare, comparison_table
from vsr.costs import Architecture
from vsr.devices import choose_device, choose_dtype
from vsr.dry_run import describe_plan
from vsr.errors import SOME_FAILED, EncoderError, OutOfMemoryError, UsageError, VSRError
from vsr.fitting import Fitting
from vsr.flags import identity_of, output_options, read_prompts, restore_settings
from vsr.jobs import Job
from vsr.loading import load_for_run
from vsr.metrics import Pair, ScoreSettings, check_metrics, score_pairs
from vsr.pipelines.lora import check_lora
from vsr.planner import Forecast, Planner
from vsr.plans import Plan
from vsr.progress import Bars, JsonLines, Silent
from vsr.ranks import own_device, this_rank
from vsr.report import Report, size_and_time
from vsr.restore_file import restore_video
from vsr.settings import make_layout
from vsr.shared_file import SharedFile
from vsr.shared_work import SharedWork, join_work
from vsr.speed import matmul_teraflops
from vsr.together import Together, agree_on_long, long_jobs, restore_windows
from vsr.truths import find_truths
from vsr.video_io import find_inputs

log = logging.getLogger(__name__)


class Batch:
    """A checked plan. Making one raises for every mistake that can be known before the weights are loaded.

    Args:
        args: as `inference_script.parse_args` returns them.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args, self._outcome = args, jobs.Outcome()
        self._settings, self._output = restore_settings(args), output_options(args)
        self._model = pipelines.find_model(args.model_path, weights=False)
        self._facts = pipelines.inspect(self._model)
        self._grid = self._facts.grid
        self._check_steps()
        self._rank = this_rank()
        if self._rank.index:
            logging.getLogger("vsr").setLevel(logging.WARNING)  # rank 0 speaks for all
        self._device = own_device(choose_device(args.device), self._rank)
        self._dtype = choose_dtype(args.dtype, self._device)
        self._planner = self._make_planner()
        self._lora = check_lora(args.lora_path) if args.lora_path else None
        self._metrics = [name.strip() for name in args.eval_metrics.split(",") if name.strip()]
        if self._metrics:
            check_metrics(self._metrics)
        sources = find_inputs(args.input_dir, args.image_folder)
        given = read_prompts(args.input_json)
        self._jobs = jobs.find_jobs(
            sources, args.output_path, self._output, self._outcome, untagged=args.untagged, prompts=given
        )
        if args.compare or args.gt_dir:
            jobs.refuse_shared_stems(self._jobs)
        layout_of = partial(make_layout, self._settings, self._grid, default_scale=self._facts.settings.scale)
        self._layouts = jobs.lay_out(self._jobs, layout_of, self._output, self._outcome)
        self._jobs = list(self._layouts)
        prompts.check_prompts(self._model, {job.prompt for job in self._jobs})
        self._truths = self._find_truths()
        log.info("%s on %s in %s", self._model, self._device, str(self._dtype).removeprefix("torch."))

    def _make_planner(self) -> Planner | None:
        if self._args.is_vae_st:
            if self._args.max_memory:
                raise UsageError(
                    "--max_memory has no meaning with --is_vae_st, whose tiles are not counted; leave one out"
                )
            return None
        return Planner(
            architecture=Architecture.of(self._facts.configs, self._dtype, self._device.type),
            budget=budget_for(self._device, self._args.max_memory, processes=self._rank.local_size),
            grid=self._grid,
            settings=self._settings,
            scale=self._facts.settings.scale,
            offload=self._args.is_cpu_offload,
        )

    def _check_steps(self) -> None:
        """Settings that hang on the model: windows, and timesteps of its schedule."""
        overlap = self._settings.checked_overlap(self._grid)
        if self._settings.window and self._args.overlap_t not in (None, overlap):
            log.info("--overlap_t becomes %d: windows start at multiples of %d frames", overlap, self._grid.step)
        for flag, value in (("--sr_noise_step", self._settings.timestep), ("--noise_step", self._settings.noise_step)):
            if value is not None and value >= self._facts.num_timesteps:
                raise UsageError(
                    f"{flag} must be below the {self._facts.num_timesteps} timesteps of the model, got {value}"
                )

    def _find_truths(self) -> dict[Job, Path]:
        if not self._args.gt_dir:
            if self._metrics:
                raise UsageError("--eval_metrics compares with ground truth: give --gt_dir")
            return {}
        sizes = {job: layout.size for job, layout in self._layouts.items()}
        return find_truths(self._args.gt_dir, sizes, self._args.image_folder)

    def print_plan(self) -> int:
        """Say what would be done to each file, from its header; returns the exit code."""
        say, rate = self._progress(0), matmul_teraflops(self._dtype, self._device) if self._planner else 0.0
        for job, layout in self._layouts.items():
            forecasts: list[Forecast | None] = []
            if jobs.attempt(lambda job=job, into=forecasts: into.append(self._forecast(job)), job.name, self._outcome):
                is_guess = self._device.type != "cpu"
                lines = describe_plan(job, layout, self._grid.step, forecasts[0], rate, is_guess=is_guess)
                say.table("plan", *lines)
        if self._settings.scene_cut == "auto":
            log.info("Scene cuts are found while restoring and are not in this plan: each adds a window or two.")
        return self._outcome.exit_code

    def run(self) -> int:
        """Restore what is not done yet, compare and score where asked; returns the exit code."""
        args, outcome = self._args, self._outcome
        progress = self._progress(len(self._jobs))
        if self._jobs:  # before the model is described: a download adds to its folder
            self._model = pipelines.find_model(args.model_path, wanted={job.prompt for job in self._jobs})
        with join_work(jobs.make_folder(args.output_path), self._rank) as work:
            self._restore_what_is_left(work, progress)
        if self._rank.index:
            return 0  # rank 0 says how all went, and a launcher may end all others when one ends otherwise
        if args.compare:
            self._compare(progress)
        code = max(outcome.exit_code, self._evaluate(progress))
        if len(self._jobs) > 1:
            for name, error in outcome.failed.items():
                log.error("FAILED %s", jobs.describe(name, error))
        counts = f"{len(outcome.done)} restored, {len(outcome.skipped)} already done, {len(outcome.failed)} failed"
        log.info("%s; results and report.json are in %s", counts, args.output_path)
        progress.event("end", exit_code=code)
        return code

    def _forecast(self, job: Job) -> Forecast | None:
        """How a file fits; None: with diffusers' own tiling that is not known. Raises OutOfMemoryError."""
        info = job.info
        return self._planner.choose(info.height, info.width, info.likely_frame_count) if self._planner else None

    def _progress(self, num_files: int) -> Bars:
        if self._rank.index:
            return Silent(num_files)
        return (JsonLines if self._args.json else Bars)(num_files)

    def _restore_what_is_left(self, work: SharedWork | None, progress: Bars) -> None:
        args, outcome = self._args, self._outcome
        existing = {job for job in self._jobs if job.target.exists()}  # before the report is read: what others finish
        report = Report(args.output_path, work.report_lock if work else nullcontext)
        shared_by_all = identity_of(args, self._settings, self._output, self._model, self._dtype, self._lora)

        def settings_of(job: Job) -> dict[str, Any]:
            return {**shared_by_all, "prompt": job.prompt}

        shared = self._shared_files(work, settings_of) if work else {}
        settled = {job: result for job, file in shared.items() if (result := file.result)}  # others were faster
        for job, result in settled.items():
            self._learn(progress, job, result)
        unsettled = [job for job in self._jobs if job not in settled]
        refused = set() if args.overwrite else existing
        left = jobs.drop_finished(unsettled, report, outcome, settings_of, resume=args.resume, refused=refused)
        for job in set(shared) - set(settled) - set(left):
            shared[job].drop_windows()  # of a run that was killed after it had joined them
        progress.expect(len(left))
        for name, error in outcome.failed.items():
            progress.event("failed", file=name, error=str(error), exit_code=error.exit_code)
            report.failed(name, error)
        for name in outcome.skipped:
            log.info("%s: already done with these settings", name)
            progress.event("skipped", file=name)
        if left:
            self._restore(left, report, settings_of, progress, work, {job: shared[job] for job in left if work})

    def _shared_files(self, work: SharedWork, settings_of: Any) -> dict[Job, SharedFile]:
        def share(job: Job) -> SharedFile:
            return work.file(job.name, job.target, [settings_of(job), size_and_time(job.info.path)])

        return {job: share(job) for job in self._jobs}

    def _restore(
        self,
        left: list[Job],
        report: Report,
        settings_of: Any,
        progress: Bars,
        work: SharedWork | None,
        shared: dict[Job, SharedFile],
    ) -> None:
        attempt, learn = partial(self._attempt, report, progress), partial(self._learn, progress)
        plans, given_up = self._plan(left, attempt, learn, shared)
        if not plans and not given_up:
            return
        offload = self._args.is_cpu_offload or any(plan.offload for plan in plans.values())
        load = partial(
            load_for_run,
            *(self._model, {job.prompt for job in plans}, self._dtype, self._device),
            lora=(self._lora, self._args.lora_scale) if self._lora else None,
            vae_tiling=self._args.is_vae_st,
            offload=offload,
        )
        pipe, embeddings = load() if plans else (None, {})
        fitting = Fitting(pipe, on_tile=progress.tile)

        def restore(job: Job, windows: SharedFile | None = None) -> dict[str, Any]:
            progress.start(job.name, job.info.likely_frame_count)
            if not windows:
                fitting.start(self._layouts[job], plans[job])
            report.started(job.info.path, job.target, settings_of(job))
            facts = restore_video(
                job.info,
                job.target,
                pipe,
                self._settings,
                output=self._output,
                prompt_embedding=embeddings[job.prompt],
                on_frames=progress.advance,
                fitting=fitting,
                restored=windows.load if windows else None,
            )
            if windows:
                made = windows.made()
                facts |= {"plan": made["plan"], "notes": [*facts["notes"], *made["notes"]]}
            report.done(job.info.path, facts)
            progress.done(facts)
            return facts

        def windows_of(job: Job, shared: SharedFile) -> None:
            progress.start(job.name, job.info.likely_frame_count)
            fitting.start(self._layouts[job], plans[job])
            restore_windows(job.info, pipe, self._settings, embeddings[job.prompt], shared, progress.advance, fitting)
            fitting.take_notes()  # of a plan for windows that others restored
            progress.stop()

        if not shared:
            for job in plans:
                learn(job, attempt(job, partial(restore, job)))
            return
        long = long_jobs(self._jobs, self._settings.window, self._rank.size)
        Together(
            files={job: shared[job] for job in [*plans, *given_up]},
            long=agree_on_long(work, shared, long, self._layouts),
            attempt=attempt,
            restore=restore,
            restore_windows=windows_of,
            learn=learn,
            given_up=given_up,
            is_hopeless=work.is_hopeless,
        ).run()

    def _plan(
        self, left: list[Job], attempt: Any, learn: Callable[[Job, dict[str, Any]], None], shared: dict[Job, SharedFile]
    ) -> tuple[dict[Job, Plan], dict[Job, dict[str, Any]]]:
        """Plans for the files that fit; and why others do not, which other processes may have the memory for.

        What fits nowhere has failed, before anything slow.
        """
        plans: dict[Job, Plan] = {}
        given_up: dict[Job, dict[str, Any]] = {}

        def plan(job: Job) -> None:
            try:
                forecast = self._forecast(job)
            except OutOfMemoryError as error:
                if not shared or shared[job].refuse():
                    raise
                log.warning("%s: left to the other processes: %s", job.name, error)
                given_up[job] = {"rank": self._rank.index, "error": str(error), "exit_code": error.exit_code}
                return
            plans[job] = forecast.plan if forecast else Plan(offload=self._args.is_cpu_offload)

        for job in left:
            result = attempt(job, partial(plan, job))
            if "error" in result:
                learn(job, result)
                if shared:
                    shared[job].settle(result)
        return plans, given_up

    def _attempt(
        self, report: Report, progress: Bars, job: Job, work: Callable[[], dict[str, Any] | None]
    ) -> dict[str, Any]:
        """Do work on a file: its ``facts``, or ``error`` and ``exit_code``, which are said and reported here."""
        facts: list[Any] = []
        if jobs.attempt(lambda: facts.append(work()), job.name, self._outcome):
            return {"rank": self._rank.index, "facts": facts[0]}
        self._say_failure(job.name, progress)
        error = self._outcome.failed[job.name]
        with suppress(EncoderError):  # a full disk; the failure itself is already named
            report.failed(job.name, error)
        return {"rank": self._rank.index, "error": str(error), "exit_code": error.exit_code}

    def _learn(self, progress: Bars, job: Job, result: dict[str, Any]) -> None:
        """Count a file, whichever process restored it or failed to."""
        if "error" not in result:
            self._outcome.done.append(job.name)
            self._outcome.failed.pop(job.name, None)  # here, where another process could do it
        elif job.name not in self._outcome.failed:
            error = VSRError(result["error"])
            error.exit_code = result["exit_code"]
            self._outcome.failed[job.name] = error
        if result["rank"] != self._rank.index:
            what = "failed" if "error" in result else "done"
            log.info("%s: %s on rank %d", job.name, what, result["rank"])
            progress.event(what, file=job.name, **(result.get("facts") or result))

    def _say_failure(self, name: str, progress: Bars) -> None:
        error = self._outcome.failed[name]
        progress.stop()
        progress.event("failed", file=name, error=str(error), exit_code=error.exit_code)
        memory.release(self._device)

    def _finished(self) -> list[Job]:
        return [job for job in self._jobs if job.name in (*self._outcome.done, *self._outcome.skipped)]

    def _compare(self, progress: Bars) -> None:
        scores: dict[str, dict] = {}
        for job in self._finished():

            def work(job: Job = job) -> None:
                scores[job.stem] = compare(job.info, job.target, self._truths.get(job), job.stem, self._args.untagged)

            if not jobs.attempt(work, f"{job.name} (comparison)", self._outcome):
                self._say_failure(f"{job.name} (comparison)", progress)
        if any(scores.values()):
            progress.table("comparison", comparison_table(scores), {"clips": scores})

    def _evaluate(self, progress: Bars) -> int:
        """Score the results; returns the exit code of it."""
        pairs = [Pair(job.stem, job.target, self._truths[job]) for job in self._finished() if job in self._truths]
        if not self._metrics or not pairs:
            return 0
        folders = {"pred": self._args.output_path, "gt": self._args.gt_dir}
        settings = ScoreSettings(device=str(self._device), untagged=self._args.untagged)
        report = score_pairs(pairs, self._metrics, **folders, settings=settings)
        progress.table("metrics", report.table(), report.as_dict())
        report.write(self._args.output_path / "metrics.json")
        return SOME_FAILED if report.failures else 0
