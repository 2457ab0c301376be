"""How building a training set scales: two Ray workers against one, and memory against the number of files.

    python -m benchmarks.curation speed [--files 24]
    python -m benchmarks.curation memory [--files 500 5000]

``speed`` curates the same moving clips with one and with two workers of Ray and prints clips per second and their
ratio; the time to start Ray and the first file of each worker are not counted. ``memory`` curates that many copies of a
short file with the serial engine and prints the largest memory of the program and of the process that reads the files.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import imageio_ffmpeg

CONFIG = Path("configs/curation/hq_vsr.yaml")
SMALL = ["metadata.short_side_over=40", "metadata.frames_over=5", "scenes.min_frames=5", "motion.min_short_side=16"]
NO_WEIGHTS = ["quality.metrics=[]", "motion.flow=dis"]
MEASURE = """
import resource, sys
from finetune.scripts import curate
curate.main()
print(*(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


def make_clip(path: Path, size: str, frames: int) -> Path:
    """A zoom into a fractal: everything moves."""
    source = f"mandelbrot=s={size}:r=25:start_scale=1:end_scale=0.1"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", source, "-frames:v", str(frames)]
    subprocess.run([*command, "-pix_fmt", "yuv420p", str(path)], check=True)
    return path


def fill(folder: Path, count: int, size: str, frames: int) -> Path:
    """``count`` names of one clip."""
    folder.mkdir()
    first = make_clip(folder / "000000.mp4", size, frames)
    for i in range(1, count):
        os.link(first, folder / f"{i:06d}.mp4")
    return folder


def curate(program: list[str], source: Path, output: Path, flags: list[str]) -> str:
    """Run the command; returns what it prints."""
    fixed = [f"--input={source}", f"--output={output}", f"--config={CONFIG}", "--sheets=0", *NO_WEIGHTS]
    done = subprocess.run([sys.executable, *program, *fixed, *flags], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def speed(folder: Path, files: int) -> None:
    source = fill(folder / "in", files, "1280x736", 60)
    rates = []
    for workers in (1, 2):
        flags = ["--engine=ray", f"--workers={workers}"]
        begun = time.perf_counter()
        curate(["-m", "finetune.scripts.curate"], source, folder / str(workers), flags)
        whole = time.perf_counter() - begun
        rates.append(clips_per_second(folder / str(workers) / "runs.jsonl", workers))
        print(f"{workers} worker(s): {rates[-1]:.3f} clips/s in scenes and motion; {whole:.1f} s with all starts")
    print(f"ratio of two workers to one: {rates[1] / rates[0]:.2f}")


def clips_per_second(log: Path, workers: int) -> float:
    """Of the two stages that decode, each from when every worker has done its first file to its end."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    done = {stage: [e["at"] for e in entries if e.get("stage") == stage] for stage in ("scenes", "motion")}
    times = {stage: [datetime.fromisoformat(at) for at in ats][workers - 1 :] for stage, ats in done.items()}
    seconds = sum((ats[-1] - ats[0]).total_seconds() for ats in times.values())
    return sum(len(ats) - 1 for ats in times.values()) / seconds


def memory(folder: Path, counts: list[int]) -> None:
    peaks = []
    for count in counts:
        source = fill(folder / f"in{count}", count, "64x48", 10)
        flags = ["--engine=serial", "motion.use=false", *SMALL]
        said = curate(["-c", MEASURE], source, folder / f"out{count}", flags)
        own, child = (int(kilobytes) / 1024 for kilobytes in said.split()[-2:])
        peaks.append(own)
        print(f"{count} files: {own:.1f} MB in the program, {child:.1f} MB in the process that reads")
    print(f"{counts[-1]} files need {peaks[-1] - peaks[0]:.1f} MB more than {counts[0]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "memory"))
    parser.add_argument("--files", type=int, nargs="+", help="24 for speed, 500 5000 for memory")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.what == "speed":
            speed(Path(folder), (args.files or [24])[0])
        else:
            memory(Path(folder), args.files or [500, 5000])


if __name__ == "__main__":
    main()
