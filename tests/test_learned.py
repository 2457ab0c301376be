"""Metrics of pyiqa: the real code with random weights, and what is said of weights that are missing or damaged."""

import contextlib
import hashlib
import subprocess
import sys
from pathlib import Path
from unittest import mock
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

import eval_metrics
from tests.scoring import make_clip, run, with_noise, write_video
from vsr.errors import ModelError, UsageError
from vsr.metrics import METRICS, ScoreSettings, check_metrics, learned, score
from vsr.metrics.weights import CLIP_RN50, DOVER, VIT_B8, HubWeight, complaint, pyiqa_file

FULL_REFERENCE = ("lpips", "dists")
WITHOUT_REFERENCE = ("clipiqa", "musiq", "niqe")


@contextlib.contextmanager
def random_backbones():
    """pyiqa builds its backbones with weights of ImageNet or CLIP, whatever it is told."""
    from torchvision import models

    pytest.importorskip("pyiqa")
    from pyiqa.archs import clip_model, clipiqa_arch

    alexnet, vgg16 = models.alexnet, models.vgg16

    def clip_rn50(*_, **__):
        return clip_model.CLIP(1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12).eval().float()

    with (
        mock.patch.object(models, "alexnet", lambda *_, **__: alexnet(weights=None)),
        mock.patch.object(models, "vgg16", lambda *_, **__: vgg16(weights=None)),
        mock.patch.object(clipiqa_arch, "load", clip_rn50),
    ):
        yield


def niqe_parameters(path: Path) -> str:
    """A file as NIQE's: a mean and a covariance of 36 features."""
    from scipy.io import savemat

    spread = np.random.default_rng(0).normal(size=(36, 36))
    savemat(path, {"mu_prisparam": np.ones((1, 36)), "cov_prisparam": spread @ spread.T + np.eye(36)})
    return str(path)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The real networks, built once with random weights."""
    torch.manual_seed(0)
    options = {name: {"pretrained": False} for name in ("lpips", "dists", "musiq")}
    options["niqe"] = {"pretrained_model_path": niqe_parameters(tmp_path_factory.mktemp("niqe") / "niqe.mat")}
    with random_backbones():
        return {
            name: learned.create(name, "cpu", **options.get(name, {})) for name in (*FULL_REFERENCE, *WITHOUT_REFERENCE)
        }


@pytest.fixture
def without_weights(monkeypatch, networks):
    """The script, with these networks in place of those that it would load."""
    monkeypatch.setattr(learned, "create", lambda name, device: networks[name])
    monkeypatch.setattr("vsr.metrics.catalog.complaint", lambda weight: None)
    monkeypatch.setattr("vsr.metrics.catalog.hash_of", lambda path: "0" * 64)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    texture = np.random.default_rng(0).integers(0, 60, (2, 200, 208, 3), dtype=np.uint8)
    clip = make_clip(frames=2, height=200, width=208) // 2 + texture  # NIQE needs texture
    write_video(folder / "gt" / "a.mkv", clip)
    write_video(folder / "pred" / "a.mkv", with_noise(clip, 10))
    return folder


def test_the_real_networks_run(without_weights, clips):
    names = [*FULL_REFERENCE, *WITHOUT_REFERENCE]
    flags = ("--metrics", ",".join(names), "--device", "cpu")
    code, report = run(clips / "pred", clips / "gt", *flags)
    assert code == 0
    assert list(report["videos"]["a"]) == names
    assert all(values["count"] == 2 for values in report["videos"]["a"].values())
    assert report["lower_better"] == ["dists", "lpips", "niqe"]
    assert set(report["weights"]) >= {"LPIPS_v0.1_alex-df73285e.pth", "vgg16-397923af.pth", "RN50.pt"}
    assert report["versions"]["pyiqa"].startswith("0.1.")
    assert "AlexNet" in report["definitions"]["lpips"]


def test_batches_score_the_same(without_weights, tmp_path):
    clip = make_clip(frames=5, height=48, width=64)
    write_video(tmp_path / "gt" / "a.mkv", clip)
    write_video(tmp_path / "pred" / "a.mkv", with_noise(clip, 10))
    settings = (ScoreSettings(batch=size) for size in (1, 2))
    one, two = (score(tmp_path / "pred", tmp_path / "gt", ["lpips", "musiq"], settings=s) for s in settings)
    for name in ("lpips", "musiq"):
        assert two.clips["a"][name].mean == pytest.approx(one.clips["a"][name].mean, rel=1e-3, abs=1e-5)
        assert two.clips["a"][name].count == 5


def test_identical_frames_have_no_distance(without_weights, clips):
    report = score(clips / "gt", clips / "gt", FULL_REFERENCE)
    assert [report.clips["a"][name].mean for name in FULL_REFERENCE] == pytest.approx([0, 0], abs=1e-5)


def test_metrics_without_reference_need_no_ground_truth(without_weights, clips):
    settings = ScoreSettings(every=2)
    alone = score(clips / "pred", metrics=["musiq"], settings=settings)
    beside = score(clips / "pred", clips / "gt", ["musiq"], settings=settings)
    assert alone.clips == beside.clips
    with pytest.raises(UsageError, match="lpips compare with ground truth"):
        score(clips / "pred", metrics=["lpips", "musiq"])


@pytest.mark.filterwarnings("ignore:cov")
def test_a_frame_that_a_network_cannot_take_is_a_failure_of_that_metric(without_weights, tmp_path):
    flat = np.full((1, 200, 208, 3), 100, np.uint8)
    write_video(tmp_path / "flat.mkv", flat)
    write_video(tmp_path / "small.mkv", make_clip(frames=1))
    report = score(tmp_path, metrics=["niqe", "musiq"])
    assert {(failure.name, failure.metric) for failure in report.failures} == {("flat", "niqe"), ("small", "niqe")}
    assert report.averages["musiq"].scored == 2
    assert report.averages["niqe"].mean is None


def test_maniqa_reads_its_transformer_from_the_file_that_was_checked(monkeypatch, tmp_path):
    timm = pytest.importorskip("timm")
    from pyiqa.utils import download_util

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(type(VIT_B8), "path", property(lambda self: tmp_path / "vit.safetensors"))
    asked = {}
    monkeypatch.setattr(timm, "create_model", lambda name, **options: asked.update(options, name=name))
    patched = timm.create_model
    with learned._weights_of_torch_hub():
        assert Path(download_util.DEFAULT_CACHE_DIR) == tmp_path / "hub" / "pyiqa"
        timm.create_model("vit_base_patch8_224", pretrained=True)
    assert asked["pretrained_cfg_overlay"] == {"file": str(tmp_path / "vit.safetensors")}
    assert timm.create_model is patched
    assert str(tmp_path) not in download_util.DEFAULT_CACHE_DIR


@pytest.fixture
def empty_home(tmp_path, monkeypatch) -> Path:
    """A machine without any weights."""
    from huggingface_hub import constants

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(type(VIT_B8), "path", property(lambda self: tmp_path / "hf" / self.name))
    return tmp_path


def no_network(*_, **__):
    raise AssertionError("nothing may be downloaded or decoded")


def test_the_doctor_names_every_missing_file_and_opens_no_video(empty_home, monkeypatch, capsys):
    for function in ("torch.hub.download_url_to_file", "vsr.metrics.scoring.read_frames", "urllib.request.urlopen"):
        monkeypatch.setattr(function, no_network)
    assert eval_metrics.main(["--doctor"]) == ModelError.exit_code
    said = capsys.readouterr().out
    settings = ScoreSettings()
    for name, metric in METRICS.items():
        assert f"{name}: {'not computable' if metric.weights(settings) else 'ok'}" in said
        for weight in metric.weights(settings):
            assert f"missing: {weight.path.name} in {weight.path.parent}" in said
    assert eval_metrics.main(["--doctor", "--metrics", "psnr,ssim,ewarp", "--flow", "dis"]) == 0


def test_missing_weights_are_all_named_before_a_video_is_opened(empty_home, monkeypatch, clips, capsys):
    monkeypatch.setattr("vsr.metrics.scoring.read_frames", no_network)
    flags = [f"--gt={clips / 'gt'}", f"--pred={clips / 'pred'}", "--metrics=psnr,lpips,dover"]
    assert eval_metrics.main(flags) == ModelError.exit_code
    said = capsys.readouterr().err
    for file in ("LPIPS_v0.1_alex-df73285e.pth", "alexnet-owt-7be5be79.pth", "DOVER.pth"):
        assert f"missing: {file} in {empty_home}/torch/hub" in said
    assert "--download" in said


def test_a_file_with_another_hash_is_damaged(empty_home):
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    good, bad = (HubWeight(name=f"net-{text}.pth", folder="pyiqa") for text in (digest[:8], "00000000"))
    for weight in (good, bad):
        weight.path.parent.mkdir(parents=True, exist_ok=True)
        weight.path.write_bytes(content)
    assert complaint(good) is None
    assert complaint(bad) == f"damaged: {bad.path} has SHA-256 {digest[:8]}..., expected 00000000..."
    CLIP_RN50.path.parent.mkdir(parents=True)
    CLIP_RN50.path.write_bytes(content)
    with pytest.raises(ModelError, match="expected afeb0e10"):
        check_metrics(["clipiqa"])


def test_a_file_that_no_hash_vouches_for_may_hold_tensors_only(empty_home):
    weight = pyiqa_file("ckpt_koniq10k.pt")
    weight.path.parent.mkdir(parents=True)
    torch.save({"a": torch.zeros(2)}, weight.path)
    assert complaint(weight) is None
    torch.save({"a": Image.new("RGB", (2, 2))}, weight.path)
    assert "no file of tensors" in complaint(weight)
    weight.path.write_bytes(b"")
    assert "no file of tensors" in complaint(weight)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("vsr.metrics.catalog.package_version", lambda name: None)
    with pytest.raises(ModelError, match="musiq: missing: Python package pyiqa"):
        check_metrics(["musiq"])


def test_a_download_without_clips_is_of_all_metrics_and_says_what_is_there_then(empty_home, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(eval_metrics, "download_missing", lambda metrics, settings: asked.extend(metrics) or ["done"])
    assert eval_metrics.main(["--download"]) == ModelError.exit_code
    assert asked == list(METRICS)
    out, err = capsys.readouterr()
    assert all(f"{name}: " in out for name in METRICS) and err == "done\n"


def test_downloads_only_on_request_and_checked(empty_home, monkeypatch, capsys):
    fetched = []

    def download(url, path, hash_prefix=None):
        fetched.append((url, hash_prefix))
        Path(path).write_bytes(b"")

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    assert eval_metrics.main(["--doctor", "--metrics=musiq"]) == ModelError.exit_code
    assert fetched == []
    assert eval_metrics.main(["--doctor", "--metrics=musiq", "--download"]) == ModelError.exit_code  # it is empty
    ((url, prefix),) = fetched
    assert url.startswith("https://")
    assert url.endswith("musiq_koniq_ckpt-e95806b9.pth")
    assert prefix == "e95806b9"
    fetched.clear()
    assert eval_metrics.main(["--doctor", "--metrics=dover,clipiqa", "--download"]) == ModelError.exit_code
    out, err = capsys.readouterr()
    assert f"put into {DOVER.path.parent} by hand" in err
    assert "clipiqa: " in out
    assert fetched  # the others all the same

    def without_network(url, path, hash_prefix=None):
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", without_network)
    Path(torch.hub.get_dir(), "pyiqa", "musiq_koniq_ckpt-e95806b9.pth").unlink()
    assert eval_metrics.main(["--doctor", "--metrics=musiq", "--download"]) == ModelError.exit_code
    assert "no network" in capsys.readouterr().err


def test_pyiqa_is_imported_when_asked_for(clips):
    code = f"""
import sys, eval_metrics
eval_metrics.main(["--gt={clips / "gt"}", "--pred={clips / "pred"}", "--metrics=psnr"])
eval_metrics.main(["--list"])
sys.exit(bool({{"pyiqa", "timm", "torchvision"}} & sys.modules.keys()))
"""
    root = Path(eval_metrics.__file__).parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=False).returncode == 0
