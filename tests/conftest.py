"""Options and fixtures shared by all tests."""

import shutil
import signal
from pathlib import Path

import pytest
import torch

REFERENCE = Path(__file__).parent / "reference"


def pytest_configure():
    """Shells start jobs in the background with SIGINT ignored, programs inherit that, and some tests interrupt them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--reference", type=Path, default=REFERENCE, help="folder of reference cases, see its README.md")


def pytest_generate_tests(metafunc):
    if "reference_case" in metafunc.fixturenames:
        cases = sorted((metafunc.config.getoption("--reference") / "cases").glob("*.safetensors"))
        metafunc.parametrize("reference_case", cases, ids=[case.stem for case in cases])


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Names of files that are no Unicode may be logged; processes that share the tests send their reports as UTF-8."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    from tests.tiny import random_pipeline

    folder = tmp_path_factory.mktemp("models") / "random"
    random_pipeline(levels=3).save_pretrained(folder)
    return folder


@pytest.fixture
def model(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "model"))


@pytest.fixture
def restore(tmp_path, model):
    """Run the script on ``tmp_path/in`` into ``tmp_path/out``."""
    import inference_script

    def run(*flags, source=tmp_path / "in", output=tmp_path / "out"):
        base = [f"--input_dir={source}", f"--model_path={model}", f"--output_path={output}", "--upscale=2"]
        return inference_script.main([*base, *flags])

    (tmp_path / "in").mkdir()
    return run
