"""Scoring of folders: values, every kind of failure named, exit codes."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import eval_metrics
from tests import media
from tests.scoring import expected, frame_metric, make_clip, run, two_clips, with_noise, write_frame_folder, write_video
from vsr.errors import InputError, UsageError
from vsr.metrics import METRICS, ScoreSettings, score, scoring
from vsr.metrics.image import psnr, ssim
from vsr.metrics.metric import Metric, PerFrame

ROOT = Path(eval_metrics.__file__).parent


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    return two_clips(tmp_path)


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
