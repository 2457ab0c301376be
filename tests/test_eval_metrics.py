"""Scoring of folders: values, every kind of failure named, exit codes, the stored report."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

import eval_metrics
from tests import media
from vsr.errors import InputError, UsageError
from vsr.metrics import METRICS, ScoreSettings, score, scoring
from vsr.metrics.image import psnr, ssim
from vsr.metrics.metric import Metric, PerFrame

ROOT = Path(eval_metrics.__file__).parent


def make_clip(frames: int = 3, height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray:
    """(F, H, W, 3) uint8: a smooth random picture that drifts."""
    coarse = np.random.default_rng(seed).integers(40, 215, (6, 8, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width, height + frames), interpolation=cv2.INTER_CUBIC)
    return np.stack([picture[index : index + height] for index in range(frames)])


def with_noise(clip: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, sigma, clip.shape)
    return (clip + noise).round().clip(0, 255).astype(np.uint8)


def write_video(path: Path, clip: np.ndarray) -> Path:
    """Exact RGB frames: FFV1 keeps them as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(24))
        stream.height, stream.width, stream.pix_fmt = clip.shape[1], clip.shape[2], "bgr0"
        for pixels in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return path


def write_frame_folder(path: Path, clip: np.ndarray) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for index, pixels in enumerate(clip):
        cv2.imwrite(str(path / f"{index:04d}.png"), pixels[..., ::-1])
    return path


def expected(metric, pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    x, y = (torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255 for clip in (pred, gt))
    return metric(x, y).numpy()


def frame_metric(name: str, function) -> Metric:
    """A metric of pairs of frames, for the catalog."""
    return Metric(
        build=lambda settings: lambda clip: PerFrame(function, name, settings, needs_gt=True),
        columns=(name,),
        define=lambda settings: "",
        needs_gt=True,
    )


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Two clips, a video and a folder of frames, each with its ground truth in the other form."""
    for seed, name in enumerate(("ant", "bee")):
        clip = make_clip(seed=seed)
        write_video(tmp_path / "pred" / f"{name}.mkv", with_noise(clip, 2 + 8 * seed))
        write_frame_folder(tmp_path / "gt" / name, clip)
    return tmp_path / "pred", tmp_path / "gt"


def run(pred: Path, gt: Path, *more: str) -> tuple[int, dict]:
    """Exit code and stored report."""
    out = pred.parent / "report.json"
    code = eval_metrics.main(["--pred", str(pred), "--gt", str(gt), "--out", str(out), *more])
    return code, json.loads(out.read_text())


def test_scores_are_the_mean_of_frames_and_the_average_is_the_mean_of_clips(folders):
    code, report = run(*folders)
    assert code == 0
    assert report["failures"] == []
    for metric in (psnr, ssim):
        name = metric.__name__
        per_clip = [
            expected(metric, with_noise(make_clip(seed=seed), 2 + 8 * seed), make_clip(seed=seed)) for seed in (0, 1)
        ]
        for clip, values in zip(("ant", "bee"), per_clip, strict=True):
            assert report["videos"][clip][name]["mean"] == pytest.approx(values.mean(), abs=1e-6)
            assert report["videos"][clip][name]["std"] == pytest.approx(values.std(), abs=1e-6)
            assert report["videos"][clip][name]["count"] == 3
        average = report["average"][name]
        assert average["mean"] == pytest.approx(np.mean([values.mean() for values in per_clip]), abs=1e-6)
        assert (average["scored"], average["expected"]) == (2, 2)


def test_report_names_versions_definitions_and_settings(folders):
    _, report = run(*folders, "--metrics", "psnr", "--crop", "2", "--test_y_channel", "--every", "2")
    assert set(report["definitions"]) == {"psnr"}
    for part in ("mse + 1e-8", "BT.601", "crop 2", "mean of frames"):
        assert part in report["definitions"]["psnr"]
    assert report["settings"].items() >= {"metrics": ["psnr"], "crop": 2, "test_y_channel": True, "every": 2}.items()
    assert set(report["versions"]) == {"one-step-vsr", "python", "torch", "numpy", "cv2", "av"}
    assert report["versions"]["torch"] == torch.__version__
    assert report["videos"]["ant"]["psnr"]["count"] == 2  # frames 0 and 2 of three
    clip, noisy = make_clip(), with_noise(make_clip(), 2)
    assert report["videos"]["ant"]["psnr"]["mean"] == pytest.approx(
        psnr(*(torch.from_numpy(x[::2]).permute(0, 3, 1, 2) / 255 for x in (noisy, clip)), crop=2, test_y_channel=True)
        .mean()
        .item()
    )


def test_each_kind_of_failure_is_named_and_nothing_is_averaged_away(folders, capsys):
    pred, gt = folders
    clip = make_clip()
    write_video(gt / "missing.mkv", clip)
    write_video(pred / "extra.mkv", clip)
    write_video(gt / "short.mkv", clip)
    write_video(pred / "short.mkv", clip[:2])
    write_video(gt / "long.mkv", clip)
    write_video(pred / "long.mkv", make_clip(frames=5))
    write_video(gt / "small.mkv", clip)
    write_video(pred / "small.mkv", clip[:, :20])
    write_video(gt / "broken.mkv", clip)
    (pred / "broken.mkv").write_bytes(b"this is no video")
    write_video(gt / "twice.mkv", clip)
    write_video(pred / "twice.mkv", clip)
    write_frame_folder(pred / "twice", clip)

    code, report = run(pred, gt)
    reasons = {failure["name"]: failure["reason"] for failure in report["failures"]}
    assert code == 7
    assert set(reasons) == {"missing", "extra", "short", "long", "small", "broken", "twice"}
    assert reasons["missing"] == "no prediction for missing.mkv"
    assert reasons["extra"] == "no ground truth for extra.mkv"
    assert reasons["short"] == "frame counts differ: 2 predicted, 3 in the ground truth"
    assert reasons["long"] == "frame counts differ: 5 predicted, 3 in the ground truth"
    assert reasons["small"] == "sizes differ: 32x20 predicted, 32x24 in the ground truth"
    assert "broken.mkv" in reasons["broken"]
    assert "several files of one name" in reasons["twice"]
    assert set(report["videos"]) == {"ant", "bee"}
    assert report["average"]["psnr"]["scored"] == 2
    assert report["average"]["psnr"]["expected"] == 9
    table = capsys.readouterr().out
    assert "over 2 of 9" in table
    assert all(f"failed: {name}: {reason}" in table for name, reason in reasons.items())


def test_a_truncated_video_has_no_score(folders):
    pred, gt = folders
    clip = make_clip(frames=8, height=96, width=128)
    whole = write_video(pred / "cut.mkv", with_noise(clip, 20))
    write_frame_folder(gt / "cut", clip)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    code, report = run(pred, gt)
    assert code == 7
    assert [failure["name"] for failure in report["failures"]] == ["cut"]
    assert "cut" not in report["videos"]


def test_a_metric_that_cannot_be_computed_fails_alone(folders, capsys):
    pred, gt = folders
    tiny = make_clip(height=10, width=10)
    write_video(pred / "tiny.mkv", tiny)
    write_video(gt / "tiny.mkv", tiny)
    code, report = run(pred, gt)
    assert code == 7
    (failure,) = report["failures"]
    assert (failure["name"], failure["metric"]) == ("tiny", "ssim")
    assert "at least 11x11" in failure["reason"]
    assert report["videos"]["tiny"]["psnr"]["mean"] == pytest.approx(80)
    assert report["average"]["psnr"]["scored"] == 3
    assert report["average"]["ssim"]["scored"] == 2
    assert "3 of 3 (psnr), 2 of 3 (ssim)" in capsys.readouterr().out


def test_a_value_that_is_no_number_is_a_failure(folders, monkeypatch):
    monkeypatch.setitem(METRICS, "broken", frame_metric("broken", lambda x, y: x.new_tensor([torch.nan])))
    report = score(*folders, metrics=("psnr", "broken"))
    assert report.exit_code == 7
    assert {failure.metric for failure in report.failures} == {"broken"}
    assert report.averages["broken"].mean is None
    assert report.averages["psnr"].scored == 2


def test_after_an_interruption_the_report_has_what_was_scored(folders, monkeypatch):
    def interrupted(x, y):
        interrupted.calls += 1
        if interrupted.calls > 3:  # a clip has three frames
            raise KeyboardInterrupt
        return x.mean(dim=(1, 2, 3))

    interrupted.calls = 0
    monkeypatch.setitem(METRICS, "slow", frame_metric("slow", interrupted))
    code, report = run(*folders, "--metrics", "psnr,slow")
    assert code == 130
    assert list(report["videos"]) == ["ant"]
    assert [(failure["name"], failure["reason"]) for failure in report["failures"]] == [
        ("bee", "not scored: interrupted")
    ]


def test_a_report_that_cannot_be_written_is_told_before_scoring(folders, monkeypatch, capsys):
    monkeypatch.setattr(eval_metrics, "score", None)
    (folders[0].parent / "file").write_text("")
    for flag in ("--out", "--csv"):
        wrong = ["--pred", str(folders[0]), "--gt", str(folders[1]), flag, str(folders[0].parent / "file" / "x.json")]
        assert eval_metrics.main(wrong) == 2
        assert "cannot write the report" in capsys.readouterr().err


def test_the_matrix_of_untagged_video_can_be_stated(tmp_path):
    clip = make_clip(height=720, width=64)
    write_frame_folder(tmp_path / "gt" / "a", clip)
    source = write_video(tmp_path / "a.mkv", clip)
    pred = tmp_path / "pred" / "a.mkv"
    pred.parent.mkdir()
    stored = (
        "scale=out_color_matrix=bt601:flags=accurate_rnd+full_chroma_int,format=yuv444p,setparams=colorspace=unknown"
    )
    media.ffmpeg("-i", source, "-vf", stored, "-c:v", "ffv1", pred)
    values = {
        untagged: run(tmp_path / "pred", tmp_path / "gt", "--untagged", untagged)[1]["average"]["psnr"]["mean"]
        for untagged in ("601", "709")
    }
    assert values["601"] > values["709"] + 5


def test_exit_code_3_when_nothing_can_be_scored(tmp_path):
    write_video(tmp_path / "pred" / "a.mkv", make_clip())
    write_video(tmp_path / "gt" / "b.mkv", make_clip())
    code, report = run(tmp_path / "pred", tmp_path / "gt")
    assert code == 3
    assert report["average"]["psnr"] == {"mean": None, "scored": 0, "expected": 2}


@pytest.mark.parametrize("side", ["--pred", "--gt"])
def test_exit_code_3_for_a_folder_that_is_missing_or_empty(folders, tmp_path, side, capsys):
    arguments = {"--pred": str(folders[0]), "--gt": str(folders[1])}
    (tmp_path / "nothing here").mkdir()
    for bad in (tmp_path / "absent", tmp_path / "nothing here"):
        code = eval_metrics.main([text for pair in (arguments | {side: str(bad)}).items() for text in pair])
        assert code == 3
        assert bad.name in capsys.readouterr().err
    with pytest.raises(InputError):
        score(tmp_path / "absent", folders[1])


def test_two_single_clips_pair_whatever_their_names(tmp_path):
    clip = make_clip()
    pred = write_video(tmp_path / "restored.mkv", with_noise(clip, 3))
    gt = write_video(tmp_path / "truth.mkv", clip)
    report = score(pred, gt, metrics=["psnr"])
    assert report.clips["restored"]["psnr"].mean == pytest.approx(expected(psnr, with_noise(clip, 3), clip).mean())


def test_images_are_clips_of_one_frame(tmp_path):
    clip = make_clip()
    for side, pixels in (("pred", with_noise(clip, 4)[0]), ("gt", clip[0])):
        (tmp_path / side).mkdir()
        cv2.imwrite(str(tmp_path / side / "photo.png"), pixels[..., ::-1])
    report = score(tmp_path / "pred" / "photo.png", tmp_path / "gt" / "photo.png", metrics=["psnr"])
    assert report.clips["photo"]["psnr"].count == 1
    assert report.clips["photo"]["psnr"].std == 0
    assert report.clips["photo"]["psnr"].mean == pytest.approx(expected(psnr, with_noise(clip, 4), clip)[0])


def test_depths_may_differ(tmp_path):
    # 257 x an 8-bit level is the same level on the 16-bit scale
    clip = make_clip()
    for side, pixels in (("pred", clip[0].astype(np.uint16) * 257), ("gt", clip[0])):
        (tmp_path / side).mkdir()
        cv2.imwrite(str(tmp_path / side / "photo.png"), pixels[..., ::-1])
    report = score(tmp_path / "pred" / "photo.png", tmp_path / "gt" / "photo.png")
    assert report.clips["photo"]["psnr"].mean == pytest.approx(80)


def test_the_report_lands_beside_the_predictions_and_is_no_clip_of_the_next_run(folders):
    pred, gt = folders
    for _ in range(2):
        assert eval_metrics.main(["--pred", str(pred), "--gt", str(gt)]) == 0
    assert json.loads((pred / "metrics.json").read_text())["failures"] == []
    assert not list(pred.glob(".*partial*"))


def test_the_report_of_a_folder_of_frames_lands_beside_it(tmp_path):
    pred, gt = (write_frame_folder(tmp_path / name / "walk", make_clip()) for name in ("pred", "gt"))
    assert eval_metrics.main(["--pred", str(pred), "--gt", str(gt)]) == 0
    assert (tmp_path / "pred" / "metrics.json").is_file()
    assert not (pred / "metrics.json").exists()


def test_a_failed_write_leaves_the_old_report(folders, monkeypatch, capsys):
    pred, gt = folders
    (pred / "metrics.json").write_text("old")

    def full_disk(self: Path, *_args, **_kwargs) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    assert eval_metrics.main(["--pred", str(pred), "--gt", str(gt)]) == UsageError.exit_code
    assert "No space left" in capsys.readouterr().err
    assert (pred / "metrics.json").read_text() == "old"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "psnr,vmaf"], "distinct names out of psnr, ssim, lpips, lpips-vgg, dists"),
        (["--metrics", "psnr,psnr"], "distinct names"),
        (["--metrics", ""], "distinct names"),
        (["--crop", "-1"], "crop must be 0 or more"),
        (["--every", "0"], "every must be 1 or more"),
    ],
)
def test_wrong_settings_are_refused_before_any_file_is_opened(arguments, message, capsys):
    assert eval_metrics.main(["--pred", "absent", "--gt", "absent", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_one_pair_of_frames_is_in_memory_at_a_time(folders, monkeypatch):
    """Frames are decoded as they are scored, so that memory does not grow with length."""
    events = []

    def logged(frames):
        for frame in frames:
            events.append("read")
            yield frame

    def metric(x, y):
        events.append("score")
        return x.new_zeros(1)

    original = scoring.read_frames
    monkeypatch.setattr(scoring, "read_frames", lambda info: logged(original(info)))
    monkeypatch.setitem(METRICS, "logged", frame_metric("logged", metric))
    score(folders[0] / "ant.mkv", folders[1] / "ant", metrics=["logged"])
    assert events == ["read", "read", "score"] * 3


def noisy_folder(folder: Path) -> Path:
    write_video(folder / "ant.mkv", with_noise(make_clip(frames=5), 5))
    return folder


def test_a_metric_without_reference_needs_no_ground_truth(tmp_path, monkeypatch):
    brightness = Metric(
        build=lambda settings: (
            lambda clip: PerFrame(lambda x: x.mean(dim=(1, 2, 3)), "brightness", settings, needs_gt=False)
        ),
        columns=("brightness",),
        define=lambda settings: "mean",
    )
    monkeypatch.setitem(METRICS, "brightness", brightness)
    pred = noisy_folder(tmp_path / "pred")
    report = score(pred, metrics=["brightness"])
    clip = with_noise(make_clip(frames=5), 5)
    assert report.clips["ant"]["brightness"].mean == pytest.approx(clip.mean() / 255, abs=1e-6)
    assert report.as_dict()["gt"] is None
    assert eval_metrics.main(["--pred", str(pred), "--metrics", "brightness"]) == 0
    assert eval_metrics.main(["--pred", str(pred), "--metrics", "brightness,psnr"]) == 2  # nothing to compare with


@pytest.mark.parametrize(("align", "top", "left"), [("topleft", 0, 0), ("center", 2, 3)])
def test_sizes_that_differ_are_cut_when_asked_for(tmp_path, align, top, left):
    clip = make_clip(height=24, width=32)
    write_video(tmp_path / "pred" / "a.mkv", with_noise(clip, 5))
    write_video(tmp_path / "gt" / "a.mkv", clip[:, 2:22, 3:29])
    code, report = run(tmp_path / "pred", tmp_path / "gt", "--align", align)
    noisy = with_noise(clip, 5)[:, top : top + 20, left : left + 26]
    assert code == 0
    assert report["videos"]["a"]["psnr"]["mean"] == pytest.approx(
        expected(psnr, noisy, clip[:, 2:22, 3:29]).mean(), abs=1e-6
    )
    assert run(tmp_path / "pred", tmp_path / "gt")[0] == 3
    if align == "center":
        assert run(tmp_path / "pred", tmp_path / "gt", "--is_center")[1]["videos"] == report["videos"]


def test_batch_mode_and_every_frame_by_itself_score_the_same(tmp_path):
    pred = noisy_folder(tmp_path / "pred")
    write_video(tmp_path / "gt" / "ant.mkv", make_clip(frames=5))
    one, many = (run(pred, tmp_path / "gt", *flags)[1]["videos"]["ant"] for flags in ([], ["--batch_mode"]))
    for metric in ("psnr", "ssim"):
        assert many[metric] == pytest.approx(one[metric], abs=1e-9)


def test_the_table_is_written_as_csv(folders, tmp_path):
    write_video(folders[0] / "extra.mkv", make_clip())
    code, report = run(*folders, "--csv", str(tmp_path / "table.csv"))
    lines = [line.split(",") for line in (tmp_path / "table.csv").read_text().splitlines()]
    assert code == 7
    assert lines[0] == ["clip", "psnr", "ssim"]
    assert [line[0] for line in lines[1:]] == ["ant", "bee", "extra", "average", "scored"]
    assert lines[3][1:] == ["", ""]
    assert float(lines[4][1]) == report["average"]["psnr"]["mean"]
    assert lines[5] == ["scored", "2 of 3", "2 of 3"]


def test_the_list_names_every_metric(capsys):
    assert eval_metrics.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{name}: " in f"\n{listed}" for name in METRICS)


def test_settings_out_of_range():
    with pytest.raises(UsageError, match="align must be one of none, topleft, center, got bottom"):
        ScoreSettings(align="bottom")
    assert eval_metrics.main(["--pred", "absent", "--is_center", "--align", "topleft"]) == 2
    assert eval_metrics.main([]) == 2
    assert eval_metrics.main(["--pred", "absent", "--device", "tpu"]) == 2


MEMORY = """
import resource
from vsr.metrics import ScoreSettings, score
for count in (100, 1000):
    score("{folder}/%d.mp4" % count, "{folder}/%d.mp4" % count, ["psnr", "ewarp"],
          settings=ScoreSettings(flow="dis", every=10))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_length(tmp_path):
    """1,000 frames of 320x240 are 230 MB as uint8; they need less than 20 MB more than 100 do."""
    for count in (100, 1000):
        media.clip(tmp_path / f"{count}.mp4", "-preset", "ultrafast", size="320x240", seconds=str(count / 25))
    code = MEMORY.format(folder=tmp_path)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    short, long = map(int, done.stdout.split())  # kilobytes
    assert long - short < 20_000
