"""Model folders: what loads, what is refused, and where the embedding of a prompt comes from."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from finetune.scripts.random_model import TEXT_DIM, TEXT_LENGTH
from tests.tiny import random_pipeline, x_lq
from vsr import load_pipeline, pipelines, prompts
from vsr.errors import ModelError
from vsr.pipelines.dove import DOVEPipeline


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    random_pipeline(timestep=200, posterior="mode").save_pretrained(path)
    return path


def test_a_saved_pipeline_loads_with_its_configuration_and_its_prompt_embedding(folder):
    pipe = load_pipeline(folder, dtype="float32", device="cpu")
    assert isinstance(pipe, DOVEPipeline)
    assert pipe.config.timestep == 200
    original = random_pipeline(timestep=200)
    assert_close(pipe.prompt_embedding, original.prompt_embedding)
    assert_close(pipe.restore(x_lq()), original.restore(x_lq()))


def publish_as_cogvideox(folder: Path) -> None:
    """Make the index what CogVideoX and DOVE publish: another class, no settings of ours, a text encoder named."""
    index = json.loads((folder / "model_index.json").read_text())
    kept = {name: part for name, part in index.items() if isinstance(part, list)}
    kept |= {"text_encoder": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "T5Tokenizer"]}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "CogVideoXPipeline", **kept}))


def test_a_folder_published_as_cogvideox_loads_without_its_text_encoder(folder):
    publish_as_cogvideox(folder)
    pipe = load_pipeline(folder, dtype="float32", device="cpu")
    assert isinstance(pipe, DOVEPipeline)
    assert pipe.text_encoder is None
    assert (pipe.config.timestep, pipe.config.coefficients, pipe.config.scale) == (399, "model", 4)


def test_the_embedding_may_lie_beside_the_model_where_upstream_keeps_it(folder):
    shutil.move(folder / prompts.FOLDER, folder.parent / prompts.FOLDER)
    assert load_pipeline(folder, device="cpu").prompt_embedding.shape == (1, TEXT_LENGTH, TEXT_DIM)


def test_neither_embedding_nor_encoder_is_an_error_before_anything_is_loaded(folder):
    shutil.rmtree(folder / prompts.FOLDER)
    for weights in folder.rglob("diffusion_pytorch_model.safetensors"):
        weights.unlink()
    with pytest.raises(ModelError, match="no text encoder"):
        load_pipeline(folder, device="cpu")


def add_text_encoder(folder: Path) -> None:
    words = ["▁a", "▁cat", "▁"]
    vocabulary = [(word, 0.0) for word in ("<pad>", "</s>", "<unk>")] + [(word, -1.0) for word in words]
    T5Tokenizer(vocab=vocabulary, extra_ids=0).save_pretrained(folder / "tokenizer")
    config = T5Config(vocab_size=8, d_model=TEXT_DIM, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5EncoderModel(config).save_pretrained(folder / "text_encoder")


def test_a_missing_embedding_is_computed_once_and_stored(folder):
    shutil.rmtree(folder / prompts.FOLDER)
    add_text_encoder(folder)
    computed = load_pipeline(folder, dtype="float32", device="cpu").prompt_embedding
    assert computed.shape == (1, TEXT_LENGTH, TEXT_DIM)
    stored = load_file(folder / prompts.FOLDER / prompts.embedding_name(""))["prompt_embedding"]
    assert_close(stored, computed[0])
    shutil.rmtree(folder / "text_encoder")
    assert_close(load_pipeline(folder, dtype="float32", device="cpu").prompt_embedding, computed)


def test_a_folder_that_cannot_be_written_costs_a_warning(folder, monkeypatch, caplog):
    shutil.rmtree(folder / prompts.FOLDER)
    add_text_encoder(folder)

    def refuse(*_):
        raise OSError("read-only")

    monkeypatch.setattr(prompts, "write_embedding", refuse)
    with caplog.at_level(logging.WARNING):
        assert load_pipeline(folder, device="cpu").prompt_embedding is not None
    assert "could not store" in caplog.text


def test_prompts_of_several_files_are_encoded_in_one_load(folder, monkeypatch):
    add_text_encoder(folder)
    loads = []
    load = T5EncoderModel.from_pretrained
    monkeypatch.setattr(T5EncoderModel, "from_pretrained", lambda *a, **k: loads.append(1) or load(*a, **k))
    embeddings = prompts.prompt_embeddings(folder, ["", "a cat", "a", "a cat"], TEXT_LENGTH)
    assert set(embeddings) == {"", "a cat", "a"}
    assert len(loads) == 1
    assert not torch.equal(embeddings["a cat"], embeddings["a"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"_class_name": "WanPipeline"}, "WanPipeline is not supported"),
        ({"_class_name": ["evil", "Pipeline"]}, "not supported"),
        ({"vae": ["my_code", "AutoencoderKLCogVideoX"]}, "vae must be"),
        ({"transformer": ["diffusers", "SomethingElse"]}, "transformer must be"),
        ({"vae": "diffusers"}, "vae must be"),
        ({"vae": ["diffusers", ["x"]]}, "vae must be"),
        ({"scale": "x"}, "scale must be"),
        ({"stagger_frames": 1}, "stagger_frames must be"),
        ({"mirror_tiles": "no"}, "mirror_tiles must be"),
        ({"timestep": "399"}, "timestep must be"),
        ({"timestep": 5000}, "not below the 1000"),
        ({"upscale_mode": "lanczos"}, "upscale_mode must be"),
    ],
)
def test_an_index_that_names_anything_unknown_is_refused(folder, change, words):
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=words):
        load_pipeline(folder, device="cpu")


@pytest.mark.parametrize("part", ["model_index.json", "vae", "transformer/config.json", "transformer"])
def test_an_incomplete_folder_is_a_model_error(folder, part):
    path = folder / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ModelError):
        load_pipeline(folder, device="cpu")


def test_a_pickle_is_never_opened(folder):
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), folder / "vae" / "diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ModelError):
        load_pipeline(folder, device="cpu")


@pytest.mark.parametrize("name", ["pretrained_models/NoSuchModel", "no/such/folder", "nothing_here"])
def test_a_mistyped_local_path_does_not_ask_the_hub(name, monkeypatch):
    monkeypatch.setattr(pipelines, "_download", lambda name: pytest.fail("asked the hub"))
    with pytest.raises(ModelError, match="no such model folder"):
        load_pipeline(name)


def fake_hub(repository, cache, monkeypatch):
    """A hub that has one repository, and a record of what was fetched from it."""
    import fnmatch

    import huggingface_hub

    def fetch(name, allow_patterns):
        for file in (path for path in repository.rglob("*") if path.is_file()):
            relative = str(file.relative_to(repository))
            if any(fnmatch.fnmatch(relative, pattern) for pattern in allow_patterns):
                (cache / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, cache / relative)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)


def test_org_and_name_are_fetched_from_the_hub_small_files_first(folder, tmp_path, monkeypatch):
    add_text_encoder(folder)
    fake_hub(folder, tmp_path / "cache", monkeypatch)
    found = pipelines.find_model("someone-on-the-hub/DOVE", weights=False)
    assert not list(found.rglob("*.safetensors")) or not list((found / "vae").glob("*.safetensors"))
    pipe = load_pipeline("someone-on-the-hub/DOVE", dtype="float32", device="cpu")
    assert_close(pipe.restore(x_lq()), load_pipeline(folder, "float32", "cpu").restore(x_lq()))
    assert not list((found / "text_encoder").glob("*.safetensors"))


def test_a_text_encoder_is_fetched_only_where_no_embedding_replaces_it(folder, tmp_path, monkeypatch):
    add_text_encoder(folder)
    shutil.rmtree(folder / prompts.FOLDER)
    fake_hub(folder, tmp_path / "cache", monkeypatch)
    assert load_pipeline("someone-on-the-hub/DOVE", device="cpu").prompt_embedding is not None


def test_the_text_encoder_is_fetched_for_a_prompt_that_has_no_embedding(folder, tmp_path, monkeypatch):
    add_text_encoder(folder)
    fake_hub(folder, tmp_path / "cache", monkeypatch)
    found = pipelines.find_model("someone-on-the-hub/DOVE", weights=False)
    prompts.check_prompts(found, {"a dog"})
    assert not list((found / "text_encoder").glob("*.safetensors"))
    pipelines.find_model("someone-on-the-hub/DOVE", wanted={"a dog"})
    assert pipelines.embeddings_of(found, {"a dog"})["a dog"].ndim == 3


@pytest.mark.parametrize("value", ['"someorg/somerepo"', "[]", "3", "null", "{"])
@pytest.mark.parametrize("part", ["vae/config.json", "transformer/config.json", "scheduler/scheduler_config.json"])
def test_a_configuration_that_is_no_mapping_leads_nowhere(folder, part, value):
    (folder / part).write_text(value)
    with pytest.raises(ModelError, match=part.split("/")[1]):
        load_pipeline(folder, device="cpu")


def test_a_tokenizer_folder_cannot_run_its_code(folder):
    shutil.rmtree(folder / prompts.FOLDER)
    add_text_encoder(folder)
    marker = folder.parent / "ran"
    (folder / "tokenizer" / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    config = folder / "tokenizer" / "tokenizer_config.json"
    tree = json.loads(config.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    config.write_text(json.dumps(tree))
    load_pipeline(folder, device="cpu")
    assert not marker.exists()


def test_the_sizes_a_model_takes_are_known_without_its_weights(folder):
    for weights in folder.rglob("diffusion_pytorch_model.safetensors"):
        weights.unlink()
    facts = pipelines.inspect(folder)
    assert (facts.grid.multiple, facts.grid.step) == (16, 8)
    assert (facts.settings.scale, facts.settings.timestep, facts.num_timesteps) == (4, 200, 1000)
    assert random_pipeline().grid == facts.grid
    assert random_pipeline(levels=3).grid.multiple == 8
