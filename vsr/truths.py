"""The ground truth of the files of a batch."""

from pathlib import Path

from vsr.compare import check_ground_truth
from vsr.errors import UsageError
from vsr.jobs import Job
from vsr.metrics import stem_of
from vsr.video_io import find_inputs
from vsr.video_io.inputs import ImageFolder


def find_truths(folder: Path, sizes: dict[Job, tuple[int, int]], image_folder: ImageFolder) -> dict[Job, Path]:
    """The one file of the same stem for every job.

    Args:
        folder: of ground truth.
        sizes: height and width that each result will have.
        image_folder: what folders of images were, among the inputs.

    Raises:
        UsageError: a job has no file of its name, or several.
        InputError: ground truth has another size or length than the result will have.
    """
    found: dict[str, list[Path]] = {}
    separate = "images" if any(job.info.kind == "image" for job in list(sizes)[:1]) else image_folder
    for path in find_inputs(folder, separate):
        found.setdefault(stem_of(path), []).append(path)
    for job in sizes:
        if len(candidates := found.get(job.stem, [])) != 1:
            what = f"{len(candidates)} files" if candidates else "no file"
            raise UsageError(f"--gt_dir {folder} has {what} of the name {job.stem}, for {job.name}")
    truths = {job: found[job.stem][0] for job in sizes}
    for job, truth in truths.items():
        check_ground_truth(truth, sizes[job], job.info.frame_count)
    return truths
