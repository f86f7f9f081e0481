"""The catalog of names, and the one way from a name to a checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import crossrank
import tiny
from crossrank.cli import root
from crossrank.errors import CheckpointError, InputError
from crossrank.models import catalog, named

CATALOG_L6 = "cross-encoder/ms-marco-MiniLM-L-6-v2"
WORDS = "embeddings.word_embeddings.weight"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder of weights: both models leave their word embeddings and tokenizer to the shared folder."""
    folder = tmp_path / "weights"
    tiny.cross_encoder(folder / "small")
    tiny.bi_encoder(folder / "embed")
    (folder / "shared").mkdir()
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(folder / "small" / name, folder / "shared" / name)
    for model in ("small", "embed"):
        tensors = load_file(folder / model / "model.safetensors")
        words = next(key for key in tensors if key.endswith(WORDS))
        save_file({WORDS: tensors.pop(words)}, folder / "shared" / "word_embeddings.safetensors")
        save_file(tensors, folder / model / "model.safetensors")
        for name in ("vocab.txt", "tokenizer_config.json"):
            (folder / model / name).unlink()
    monkeypatch.setattr(catalog, "_HERE", folder)
    return folder


def test_every_way_to_a_model_of_the_wheel_finds_its_shared_files(wheel: Path, tmp_path: Path) -> None:
    scorer, embedder = crossrank.load(), crossrank.load_embedder()
    assert (scorer.checkpoint.name, embedder.checkpoint.name) == ("small", "embed")
    assert scorer.score([("a cat", "the planet")]).shape == (1,)
    assert embedder.embed(["a cat"]).shape == (1, 32)
    for command in (["doctor", "embed", "--json"], ["models", "export", "small", str(tmp_path / "out")]):
        assert CliRunner().invoke(root, command, prog_name="crossrank").exit_code == 0, command
    again = crossrank.load(tmp_path / "out")
    pairs = [("a cat", "the planet"), ("what is yeast?", "bread")]
    assert again.score(pairs) == pytest.approx(scorer.score(pairs), abs=1e-5)


def test_the_late_interaction_model_of_the_wheel_takes_its_lower_layers_from_embed(wheel: Path, tmp_path: Path) -> None:
    folder = tiny.late(wheel / "late", query_prefix="", document_prefix="")
    tiny.write_json(folder / "config.json", {**tiny.CONFIG, "architectures": ["BertModel"]})
    own = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if ".layer.1." in name}
    save_file(own, folder / "model.safetensors")
    for name in ("vocab.txt", "tokenizer_config.json"):
        (folder / name).unlink()
    scorer, embedder = crossrank.load_late(), crossrank.load_embedder()
    pairs = [("a cat", "the planet"), ("what is yeast?", "bread")]
    assert scorer.checkpoint.name == "late"
    found, base = scorer.checkpoint.tensors(), embedder.checkpoint.tensors()
    for name, tensor in {**base, **own}.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
    for command in (["doctor", "late", "--json"], ["models", "export", "late", str(tmp_path / "out")], ["models"]):
        assert CliRunner().invoke(root, command, prog_name="crossrank").exit_code == 0, command
    assert crossrank.load_late(tmp_path / "out").score(pairs) == pytest.approx(scorer.score(pairs), abs=1e-5)


def test_a_folder_of_the_same_name_needs_a_path(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.cross_encoder(tmp_path / "small", labels=2)
    assert (named.read("small", default="embed").labels, named.read("./small", default="embed").labels) == (1, 2)


def test_names_of_the_wheel_in_other_letters(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named.read("Small", default="embed").name == "small"
    if not Path("small").exists():
        tiny.cross_encoder(tmp_path / "SMALL", labels=2)
        assert named.read("SMALL", default="embed").labels == 2


def test_a_slip_of_the_pen_is_told(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It went to the hub, whose long message says to check the network."""
    monkeypatch.chdir(tmp_path)
    asked = []

    def absent(name: str, **_: object) -> Path:
        asked.append(name)
        raise CheckpointError(f"cannot get the model {name!r}")

    monkeypatch.setattr("crossrank.checkpoint.hub.folder", absent)
    for name, meant in (("smal", "small"), ("Tny", "tiny"), ("cross-encoder/ms-marco-minilm-L-6-v", CATALOG_L6)):
        with pytest.raises(CheckpointError, match=f"^Did you mean '{meant}'\\? Cannot get the model"):
            named.read(name, default="small")
    for name in ("owner/else", CATALOG_L6):
        with pytest.raises(CheckpointError, match=r"^cannot get the model"):
            named.read(name, default="small")
    assert len(asked) == 5
    for command in (["doctor", "smal"], ["rerank", "tea", "-m", "smal", "/dev/null"]):
        assert "Did you mean 'small'?" in CliRunner().invoke(root, command, prog_name="crossrank").output


def test_a_model_is_called_what_was_asked_for(cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert named.read(cross_encoder_folder, default="small").name == str(cross_encoder_folder)
    found = catalog.Located("its/name", cross_encoder_folder)
    monkeypatch.setattr(catalog, "locate", lambda name, default: found)
    assert named.read("alias", default="small").name == "its/name"


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(InputError, match="the model name is empty"):
        named.read(" ", default="small")


@pytest.mark.parametrize("name", ["small", "fast", "tiny", "embed", "late"])
def test_the_catalog_says_of_the_wheel_what_its_files_say(name: str) -> None:
    if not Path(catalog.locate(name, default=name).source).is_dir():
        pytest.skip("no model in this tree")
    entry, read = next(entry for entry in catalog.CATALOG if entry.name == name), named.read(name, default=name)
    assert (entry.kind, entry.max_length) == (read.kind, read.max_length)
    assert (entry.activation == "calibrated") == (read.calibration is not None)
    assert entry.parameters == round(sum(tensor.size for tensor in read.tensors().values()) / 1e6, 1)


def test_the_catalog_states_facts_or_nothing() -> None:
    names = [entry.name for entry in catalog.CATALOG]
    assert len(set(names)) == len(names)
    assert set(catalog.ALIASES.values()) <= set(names)
    for entry in catalog.CATALOG:
        assert entry.licence
        assert entry.note
        assert entry.parameters > 0
        assert entry.max_length is None or entry.max_length >= 256
        assert entry.source in ("wheel", entry.name)
        spaces = {"bi-encoder": "cosine", "late-interaction": "maxsim", "cross-encoder": "logits"}
        assert entry.score_space.startswith(spaces[entry.kind])
