"""Tuning itself, with tiny random models: losses, what moves, what is resumed, and what the gate lets through."""

from __future__ import annotations

import errno
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tiny

torch = pytest.importorskip("torch", reason="needs the extra train")
for library in ("transformers", "bm25s", "ir_measures"):
    pytest.importorskip(library, reason="needs the extra train")

from crossrank import checkpoint, load  # noqa: E402
from crossrank.cli import root, terminal  # noqa: E402
from crossrank.cli.exits import Exit  # noqa: E402
from crossrank.errors import CheckpointError, InputError  # noqa: E402
from crossrank.evaluation import Interval  # noqa: E402
from crossrank.training import card, checks, gate, loop, losses, prepared, tuning  # noqa: E402
from crossrank.training import network as net  # noqa: E402
from crossrank.training.judgments import Group, Judged, Judgments  # noqa: E402
from crossrank.training.material import gathered  # noqa: E402
from crossrank.training.negatives import Nearest  # noqa: E402
from crossrank.training.outcome import Engine, InSearch, Outcome, Progress  # noqa: E402
from crossrank.training.searched import searched_by  # noqa: E402
from crossrank.training.settings import Plan, Settings  # noqa: E402
from crossrank.training.tuning import tune  # noqa: E402
from crossrank.training.work import Work  # noqa: E402
from crossrank.types import Passage, Ranking  # noqa: E402

pytestmark = pytest.mark.torch
QUICK = Settings(rate=2e-3, epochs=2, repeats=1, layers=2, max_tokens=32, remember=0.0, most_loss=1.0)
ONE = Engine(backend="reference", device="cpu", threads=1)


@pytest.fixture(autouse=True)
def few_general_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "MEASURED", 4)
    monkeypatch.setattr(prepared, "REMEMBERED", 4)


def rows(queries: int, seed: int = 0, shuffled: bool = False) -> tuple[Judged, ...]:
    """Documents that speak of bread are relevant, whatever the query is."""
    rng = np.random.default_rng(seed)
    made = []
    for q in range(queries):
        labels = [1.0, 0.0, 0.0, 0.0]
        told = rng.permutation(labels) if shuffled else labels
        for d, label in enumerate(labels):
            word = "bread yeast bread" if label else "cat planet cat"
            made.append(Judged(f"what is {q}", f"{word} {q} {d} {rng.integers(99)}", float(told[d])))
    return tuple(made)


def write(path: Path, judged: tuple[Judged, ...]) -> Path:
    found = [{"query": row.query, "document": row.document, "label": row.label} for row in judged]
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


# Losses


def test_losses_by_hand() -> None:
    scores, labels = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])
    pointwise = (np.log1p(np.exp(-1)) + np.log(2)) / 2
    assert float(losses.bce(scores, labels)) == pytest.approx(pointwise)
    assert float(losses.listwise(scores, labels)) == pytest.approx(np.log1p(np.exp(-1)) + 0.2 * pointwise)
    weight = 1 - 1 / np.log2(3)
    assert float(losses.lambda_loss(scores, labels)) == pytest.approx(weight * np.log1p(np.exp(-1)) + 0.2 * pointwise)
    assert float(losses.margin_mse(scores, torch.tensor([5.0, 2.0]))) == pytest.approx(4.0)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_every_loss_pulls_the_better_document_up(name: str) -> None:
    scores = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    losses.LOSSES[name](scores, torch.tensor([1.0, 0.0, 0.0])).backward()
    assert scores.grad is not None
    assert scores.grad[0] < 0 < scores.grad[2]


# The network


def test_only_upper_layers_and_head_move_and_the_folder_gives_the_same_scores(tmp_path: Path) -> None:
    read = checkpoint.read(tiny.cross_encoder(tmp_path / "base"))
    network = net.Network(read, layers=1, device="cpu")
    assert {name.split(".layer.")[-1][0] for name in network.trained if ".layer." in name} == {"1"}
    assert not any("embeddings" in name for name in network.trained)
    changed = {name: weight + 0.01 for name, weight in network.begun.items()}
    network.write(changed, tmp_path / "made")
    before, after = read.tensors(), checkpoint.read(tmp_path / "made").tensors()
    assert before.keys() == after.keys()
    assert {name for name in before if not np.array_equal(before[name], after[name])} == set(network.trained)
    network.take(changed)
    tokens = tiny.random_tokens([9, 30, 17])
    mine = network.logits(tokens).detach().numpy()
    theirs = load(tmp_path / "made", backend="reference").backend.forward(tokens)
    np.testing.assert_allclose(mine, theirs, atol=0.15)  # bfloat16 under autocast


def test_what_is_trained_is_given_the_token_types_that_a_backend_gives_it(tmp_path: Path) -> None:
    # Of a config that leaves the number of types out, all tokens were trained as the first type.
    folder = tiny.cross_encoder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["type_vocab_size"]
    tiny.write_json(folder / "config.json", config)
    network = net.Network(checkpoint.read(folder), layers=1, device="cpu")
    network._low = False  # float32, so that the two can be compared closely
    tokens = tiny.random_tokens([9, 30, 17])
    theirs = load(folder, backend="reference").backend.forward(tokens)
    np.testing.assert_allclose(network.logits(tokens).detach().numpy(), theirs, atol=1e-4)


def test_training_begins_with_the_file_that_is_named(tmp_path: Path) -> None:
    folder = tiny.cross_encoder(tmp_path)
    save_file(tiny.weights(tiny.CONFIG, 1, seed=7), folder / "model-tuned.safetensors", metadata={"format": "pt"})
    read = checkpoint.read(folder / "model-tuned.safetensors")
    network = net.Network(read, layers=2, device="cpu")
    named = read.tensors()
    assert network.begun
    for name, weight in network.begun.items():
        np.testing.assert_array_equal(weight.numpy(), named[name])


def test_what_is_remembered_is_what_the_base_model_says_of_what_is_trained_on(
    tmp_path: Path, cross_encoder_folder: Path
) -> None:
    groups = [Group(f"what is {q}", ("bread yeast", "cat planet"), (1.0, 0.0)) for q in range(6)]
    material = gathered(groups, (), "labels", lambda queries, depth: [[] for _ in queries], (), QUICK)
    ready = prepared.Prepared(checkpoint.read(cross_encoder_folder), material, QUICK, ONE, {}, lambda now: None)
    ready.score_base(Work(tmp_path / "work", "key"), ready.hold_out())
    ready.encode()
    backend = ready.scorer(ready.read).backend
    assert ready.old
    for item in ready.old:
        np.testing.assert_allclose(backend.forward(item.tokens), item.targets, atol=1e-5)


def test_long_documents_leave_enough_queries_to_be_measured(tmp_path: Path, cross_encoder_folder: Path) -> None:
    long = " ".join(["bread"] * 5_000)
    groups = [Group(f"what is {q}", (f"{long} {q}", "cat planet"), (1.0, 0.0)) for q in range(3)]
    material = gathered(groups, (), "labels", lambda queries, depth: [[] for _ in queries], (), QUICK)
    read = checkpoint.read(cross_encoder_folder)
    ready = prepared.Prepared(read, material, QUICK, ONE, {}, lambda now: None)
    rows = ready.hold_out()
    assert len(rows) == 3
    ready.score_base(Work(tmp_path / "work", "key"), rows)
    # Nine documents of the longest that the shipped models read at once, as many as a query is shown.
    assert Settings().measured_tokens // (9 * 512) >= 2 * gate.FEWEST_HELD_OUT


def test_a_step_in_parts_has_the_gradients_of_one_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = net.Network(checkpoint.read(tiny.cross_encoder(tmp_path / "base")), layers=1, device="cpu")

    def item(seed: int) -> loop.Item:
        targets = np.float32([1, 0, 0, 0])
        tokens = tiny.random_tokens([9, 12 + seed, 17, 30])
        return loop.Item(tokens, targets, targets > 0, np.arange(4), False)

    items, old = [item(i) for i in range(6)], [item(i) for i in range(6, 9)]
    plan, settings = Plan("listwise", 1, 1, 1, 1e-3, 6), replace(QUICK, remember=0.5)
    found = {}
    for held in (10_000, 100, 1):
        monkeypatch.setattr(loop, "HELD", held)
        parts = list(loop._losses(network, items, old, plan, settings, np.random.default_rng(0)))
        for part in parts:
            part.backward()
        found[held] = len(parts), sum(float(part.detach()) for part in parts), [
            weight.grad.clone() for weight in network.trained.values()]  # fmt: skip
        for weight in network.trained.values():
            weight.grad = None
    assert [found[held][0] for held in (10_000, 100, 1)] == [1, 7, 7]
    for held in (100, 1):
        assert found[held][1] == pytest.approx(found[10_000][1], abs=0.02)  # bfloat16 under autocast
        for one, other in zip(found[held][2], found[10_000][2], strict=True):
            torch.testing.assert_close(one, other, atol=0.02, rtol=0.05)


def test_sequences_of_several_widths_keep_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for enough in ("ENOUGH", "ENOUGH_LOW"):
        monkeypatch.setattr(net, enough, 32)
    network = net.Network(checkpoint.read(tiny.cross_encoder(tmp_path / "base")), layers=1, device="cpu")
    tokens = tiny.random_tokens([9, 60, 17, 33, 3, 60, 18])
    together = network.logits(tokens).detach().numpy()
    alone = [network.logits(tokens.take(np.array([i]))).item() for i in range(len(tokens))]
    np.testing.assert_allclose(together, alone, atol=0.15)  # bfloat16 under autocast


# All of it


def test_a_better_model_is_kept_and_sentence_transformers_ranks_the_same(
    tmp_path: Path, cross_encoder_folder: Path
) -> None:
    seen = []
    outcome = tune(Judgments(rows(45), "labels", source="mine"), tmp_path / "tuned", model=cross_encoder_folder,
                   settings=QUICK, engine=ONE, report=seen.append)  # fmt: skip
    assert outcome.verdict.kept == "tuned", outcome.verdict.reasons
    assert outcome.verdict.gain is not None
    assert outcome.verdict.gain.low > 0
    assert any(now.value is not None for now in seen)
    assert not (tmp_path / "tuned.tuning").exists()
    assert "held-out queries" in (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    scorer = load(tmp_path / "tuned", backend="reference")
    assert scorer.calibrated
    documents = ["cat planet 9", "bread yeast 3", "planet", "the bread"]
    ranked = scorer.rank("what is 7", documents)
    assert documents[ranked.positions[0]] in ("bread yeast 3", "the bread")
    transformers = pytest.importorskip("sentence_transformers", reason="only compared where it is installed")
    peer = transformers.CrossEncoder(str(tmp_path / "tuned"), device="cpu", local_files_only=True)
    theirs = peer.predict([("what is 7", text) for text in documents], activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(theirs, scorer.score([("what is 7", text) for text in documents]), atol=1e-4)


class Found:
    """A search that finds the documents of a query and ten others, in the order of their texts."""

    def __init__(self, judged: tuple[Judged, ...], lost: int = 0) -> None:
        self.judged, self.lost = judged, {f"what is {q}" for q in range(lost)}  # what is relevant to these it misses

    def search(self, query: str, k: int = 10) -> SimpleNamespace:
        mine = [row.document for row in self.judged if row.query == query and not (row.label and query in self.lost)]
        others = [row.document for row in self.judged if row.query != query and not row.label][:10]
        texts = sorted([*mine, *others])[:k]
        passages = [Passage(str(n), text, title="A title") for n, text in enumerate(texts)]
        ranking = Ranking.sorted([one.id for one in passages], range(k, k - len(texts), -1))
        return SimpleNamespace(passages=passages, ranking=ranking)


def test_with_a_search_the_share_of_the_mix_is_found_and_taken_by_searches(
    tmp_path: Path, cross_encoder_folder: Path
) -> None:
    judged = rows(45)
    outcome = tune(Judgments(judged, "labels", source="mine"), tmp_path / "tuned", model=cross_encoder_folder,
                   nearest=searched_by(Found(judged, lost=3)), settings=QUICK, engine=ONE)  # fmt: skip
    assert outcome.verdict.kept == "tuned", outcome.verdict.reasons
    assert outcome.in_search is not None
    assert outcome.verdict.gain is not None
    assert outcome.verdict.gain.queries == 42
    assert outcome.verdict.base is not None
    assert outcome.verdict.base.mean == pytest.approx(np.mean(outcome.in_search.base))
    assert [found.message for found in outcome.findings if found.name == "not found"] == [
        "3 of 45 queries have no relevant document among the 100 passages that the index finds: no order helps these, "
        "and they are not measured"
    ]
    card_ = (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    assert f"A share of {outcome.in_search.mix:g} suits the model" in card_
    assert "| 0.4 |" in card_
    assert "Held-out queries are ranked with what the index finds for them, 100 candidates at most." in card_
    assert load(tmp_path / "tuned", backend="reference").mix == outcome.in_search.mix
    told = json.loads((tmp_path / "tuned" / "crossrank.json").read_text("utf-8"))
    assert told["mix"] == told["tuning"]["in_search"]["mix"] == outcome.in_search.mix
    # What is trained on is read as the search gives it, under its title.
    assert outcome.counts is not None
    assert outcome.counts["pairs"] == 180


def test_shuffled_labels_are_refused_in_a_search_too(tmp_path: Path, cross_encoder_folder: Path) -> None:
    judged = rows(30, shuffled=True)
    outcome = tune(Judgments(judged, "labels"), tmp_path / "tuned", model=cross_encoder_folder,
                   nearest=searched_by(Found(judged)), settings=QUICK, engine=ONE)  # fmt: skip
    assert outcome.verdict.kept == "base"
    assert "held-out queries" in outcome.verdict.reasons[0]


def test_where_a_search_finds_too_little_lists_alone_decide(tmp_path: Path, cross_encoder_folder: Path) -> None:
    judged = rows(45)
    outcome = tune(Judgments(judged, "labels"), tmp_path / "tuned", model=cross_encoder_folder,
                   nearest=searched_by(Found(judged, lost=30)), settings=QUICK, engine=ONE)  # fmt: skip
    assert outcome.verdict.kept == "tuned"
    assert outcome.in_search is None
    assert any(found.message.endswith("lists of documents and not by searches") for found in outcome.findings)
    assert "mix" not in json.loads((tmp_path / "tuned" / "crossrank.json").read_text("utf-8"))
    card_ = (tmp_path / "tuned" / "README.md").read_text("utf-8")
    assert "--mix 0.4,0.8,1" in card_
    assert "ranked with their judged and mined documents and " in card_


def test_candidates_are_fewer_before_queries_are(cross_encoder_folder: Path) -> None:
    judged = rows(45)
    groups, _, _, _ = checks.together(Judgments(judged, "labels"), None)
    material = gathered(groups, [], "labels", searched_by(Found(judged)), (), QUICK)
    read = checkpoint.read(cross_encoder_folder)

    def held(tokens: int) -> tuple[int, int]:
        some = prepared.Prepared(
            read, material, replace(QUICK, folds=3, measured_tokens=tokens), ONE, {}, lambda now: None
        )
        rows_ = some.hold_out()
        assert sum(int(some_tokens(some, row)) for row in rows_.tolist()) <= tokens
        return len(rows_), len(some.material.answers[0])

    def some_tokens(some: prepared.Prepared, row: int) -> int:
        encoder = prepared.PairEncoder.of(read, read.max_length)
        return int(prepared._tokens(encoder, some.material.answers[row]).offsets[-1])

    whole = held(10**6)
    assert whole == (45, 14)
    every = sum(
        some_tokens(prepared.Prepared(read, material, QUICK, ONE, {}, lambda now: None), row) for row in range(45)
    )
    assert held(every) == whole
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "DEPTHS", (100, 10))
        assert held(every - 1) == (45, 10)
        fewer, depth = held(every // 2)
        assert depth == 10
        assert gate.FEWEST_HELD_OUT < fewer < 45


def test_halves_of_surrogate_pairs_do_not_end_a_tuning_that_is_done(tmp_path: Path, cross_encoder_folder: Path) -> None:
    found = (checks.Finding("duplicates", 1, "rows that repeat a pair: 1", ("half \ud83d",)),)
    outcome = Outcome(gate.Verdict("tuned", ()), found, plan=Plan("listwise", 1, 1, 1, 1e-3, 6), point=(1, 0.5))
    card.write(tmp_path, checkpoint.read(cross_encoder_folder), "nu\udcff.jsonl", QUICK, outcome, 32)
    told = json.loads((tmp_path / "crossrank.json").read_text("utf-8"))["tuning"]
    assert told["findings"][0]["examples"] == ["half \ufffd"]
    assert "nu\ufffd.jsonl" in (tmp_path / "README.md").read_text("utf-8")


@pytest.mark.parametrize("wrong", ["shuffled", "contradictory", "all positive", "ten pairs"])
def test_the_base_model_is_kept_for_bad_data(tmp_path: Path, cross_encoder_folder: Path, wrong: str) -> None:
    good = rows(24)
    data = {
        "shuffled": rows(24, shuffled=True),
        "contradictory": (*good, *(Judged(r.query, r.document, 1 - r.label) for r in good)),
        "all positive": tuple(Judged(r.query, r.document, 1.0) for r in good),
        "ten pairs": good[:10],
    }[wrong]
    outcome = tune(
        Judgments(data, "labels"), tmp_path / "tuned", model=cross_encoder_folder, settings=QUICK, engine=ONE
    )
    assert outcome.verdict.kept == "base"
    assert outcome.verdict.reasons
    assert not list(tmp_path.iterdir())


def test_what_forgets_too_much_is_refused(tmp_path: Path, cross_encoder_folder: Path) -> None:
    # On these "general" questions the opposite is right: whoever learns the user's data forgets them.
    other = [Group(f"general {n}", (f"cat planet {n}", f"bread yeast {n}"), (1.0, 0.0)) for n in range(30)]
    outcome = tune(Judgments(rows(45), "labels"), tmp_path / "tuned", model=cross_encoder_folder,
                   refused=tmp_path / "refused", settings=replace(QUICK, most_loss=0.02), engine=ONE,
                   general_sets={"other": other})  # fmt: skip
    assert outcome.verdict.kept == "base"
    assert any("forgets" in reason for reason in outcome.verdict.reasons)
    assert (outcome.folder, outcome.refused) == (None, tmp_path / "refused")
    assert [path.name for path in tmp_path.iterdir()] == ["refused"]
    assert "**Refused by the gate**: on general questions" in (tmp_path / "refused" / "README.md").read_text("utf-8")
    documents = ["cat planet 9", "bread yeast 3"]
    assert load(tmp_path / "refused", backend="reference").rank("what is 7", documents).positions[0] == 1


@pytest.mark.parametrize("there", ["nothing", "empty", "link", "mount", "full"])
@pytest.mark.parametrize("same", [True, False], ids=["one file system", "two"])
def test_a_model_is_placed_on_any_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str, same: bool
) -> None:
    made, target = tmp_path / "new.tuning" / "result", tmp_path / "far" / "new"
    made.mkdir(parents=True)
    (made / "model.safetensors").write_text("weights")
    (made / "README.md").write_text("card")
    place = tmp_path / "far" / "real" if there == "link" else target
    if there != "nothing":
        place.mkdir(parents=True)
    if there == "link":
        target.symlink_to(place, target_is_directory=True)
    if there == "full":
        (place / "README.md").write_text("old")
        (place / "crossrank.json").write_text("old")
    plain = Path.replace

    def move(self: Path, to: Path) -> Path:
        if not same and self.is_relative_to(tmp_path / "new.tuning"):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return plain(self, to)

    def keep(self: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", move)
    if there == "mount":
        monkeypatch.setattr(Path, "rmdir", keep)
    tuning._make_room(target)
    tuning._place(made, target)
    assert {path.name: path.read_text() for path in target.iterdir()} == {
        "model.safetensors": "weights",
        "README.md": "card",
    }
    assert target.is_symlink() == (there == "link")
    assert [path.name for path in place.parent.iterdir() if path.name.endswith(".part")] == []


@pytest.mark.parametrize("old", ["bi-encoder", "late interaction"])
def test_a_model_of_another_kind_leaves_nothing_that_changes_the_new_one(
    tmp_path: Path, cross_encoder_folder: Path, bi_encoder_folder: Path, old: str
) -> None:
    """The list of modules of the old one stayed, and the tuned model could not be loaded."""
    before = bi_encoder_folder if old == "bi-encoder" else tiny.late(tmp_path / "late")
    checkpoint.export(checkpoint.read(before), tmp_path / "tuned")
    (tmp_path / "tuned" / "mine.txt").write_text("mine", encoding="utf-8")
    outcome = tune(Judgments(rows(45), "labels"), tmp_path / "tuned", model=cross_encoder_folder, settings=QUICK,
                   engine=ONE, overwrite=True)  # fmt: skip
    assert outcome.verdict.kept == "tuned", outcome.verdict.reasons
    assert checkpoint.read(tmp_path / "tuned").kind == "cross-encoder"
    load(tmp_path / "tuned", backend="reference").rank("what is 7", ["cat", "bread"])
    assert (tmp_path / "tuned" / "mine.txt").exists()


@pytest.mark.parametrize("full", [False, True], ids=["new", "over another"])
@pytest.mark.parametrize("point", ["before", "within", "after", "removing"])
def test_killed_at_the_very_end_the_same_call_reports_what_it_came_to(
    tmp_path: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch, point: str, full: bool
) -> None:
    """It said for ever that the folder is not empty."""

    class KilledError(BaseException):
        """As SIGKILL."""

    def killed(made: Path, target: Path) -> None:
        if point == "within" and target.is_dir():
            (made / "crossrank.json").replace(target / "crossrank.json")
        if point == "after":
            place(made, target)
        raise KilledError

    def half(work: Work) -> None:
        for name in ("result", "run-0-0", "run-0-1"):
            for path in (work.folder / name).glob("*"):
                path.unlink()
        raise KilledError

    place = tuning._place
    if full:
        checkpoint.export(checkpoint.read(cross_encoder_folder), tmp_path / "tuned")

    def again(overwrite: bool) -> Outcome:
        return tune(Judgments(rows(45), "labels"), tmp_path / "tuned", model=cross_encoder_folder, settings=QUICK,
                    engine=ONE, overwrite=overwrite)  # fmt: skip

    with monkeypatch.context() as patched:
        patched.setattr(Work, "close", half) if point == "removing" else patched.setattr(tuning, "_place", killed)
        with pytest.raises(KilledError):
            again(full)
    # Nothing is trained again.
    monkeypatch.setattr(tuning, "_trained", None)
    outcome = again(full)
    assert (outcome.verdict.kept, outcome.folder, outcome.resumed) == ("tuned", tmp_path / "tuned", True)
    assert outcome.verdict.gain is not None
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]
    assert load(tmp_path / "tuned", backend="reference").calibrated
    with pytest.raises(InputError, match="is not empty"):
        again(False)


def test_a_held_out_part_decides(tmp_path: Path, cross_encoder_folder: Path) -> None:
    both = rows(60)
    data, held_out = Judgments(both[:140], "labels"), Judgments(both[120:], "labels")
    outcome = tune(data, tmp_path / "tuned", model=cross_encoder_folder, held_out=held_out, settings=QUICK, engine=ONE)
    assert {finding.name: finding.count for finding in outcome.findings} == {"leaks": 5}
    assert outcome.counts is not None
    assert (outcome.counts["measured"], outcome.counts["folds"]) == (30, 1)
    assert outcome.plan is not None
    assert outcome.plan.queries == 30  # held-out queries are not trained on
    assert outcome.verdict.kept == "tuned", outcome.verdict.reasons


@pytest.mark.parametrize("tokens", [10, 3_300])
def test_held_out_queries_beyond_what_is_measured_are_not_trained_on(
    tmp_path: Path, cross_encoder_folder: Path, tokens: int
) -> None:
    ours = [Group(f"what is {q}", ("bread yeast", "cat planet"), (1.0, 0.0)) for q in range(30)]
    theirs = [Group(f"what else is {q}", ("bread yeast " * 20, "cat planet"), (1.0, 0.0)) for q in range(60)]
    settings = replace(QUICK, measured_tokens=tokens)
    for held_out in ([], theirs):
        material = gathered(ours, held_out, "labels", lambda queries, depth: [[] for _ in queries], (), settings)
        read = checkpoint.read(cross_encoder_folder)
        ready = prepared.Prepared(read, material, settings, ONE, {}, lambda now: None)
        rows = ready.hold_out()
        assert ready.material is material
        if held_out:
            assert rows.tolist() == [] or 20 <= len(rows) < 60
            assert (material.fold[:30] == -1).all()


@pytest.mark.parametrize(("tokens", "least", "most"), [(100_000, 23, 23), (1_600, 1, 6), (600, 0, 0)])
def test_held_out_queries_are_ranked_with_distractors_where_there_is_time(
    cross_encoder_folder: Path, tokens: int, least: int, most: int
) -> None:
    labels = (1.0, 0.0, 0.0, 0.0)
    groups = [Group(f"what is {q}", (f"bread {q}", "cat", "planet", "yeast"), labels) for q in range(20)]
    settings = replace(QUICK, measured_tokens=tokens)
    material = gathered(groups, (), "labels", lambda qs, depth: [[f"paris {n}" for n in range(depth)] for _ in qs],
                        (), settings)  # fmt: skip
    read = checkpoint.read(cross_encoder_folder)
    ready = prepared.Prepared(read, material, settings, ONE, {}, lambda now: None)
    ready.hold_out()
    for one in ready.material.shown:
        assert least <= (one.distractor > 0).sum() <= most
        assert len(one.trained) == 8  # its own four and four hard ones; an easy one there is not


@pytest.mark.parametrize(("asked", "folds"), [(None, 1), (2, 2)])
def test_where_few_queries_can_be_measured_one_part_is_held_out(
    tmp_path: Path, cross_encoder_folder: Path, asked: int | None, folds: int
) -> None:
    few = replace(QUICK, measured_tokens=4_000, folds=asked)  # a query has some 140 with all its documents
    outcome = tune(
        Judgments(rows(90), "labels"), tmp_path / "tuned", model=cross_encoder_folder, settings=few, engine=ONE
    )
    assert outcome.counts is not None
    assert outcome.plan is not None
    measured = outcome.counts["measured"]
    assert 20 <= measured <= 30
    assert outcome.counts["folds"] == folds
    assert outcome.plan.queries == (90 - measured if folds == 1 else 45)
    assert outcome.verdict.kept == "tuned", outcome.verdict.reasons
    said = "it is what was measured" if folds == 1 else "was not itself measured"
    assert said in (tmp_path / "tuned" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("held_out", [False, True])
def test_too_few_queries_within_the_tokens_that_are_measured_end_it_at_once(
    tmp_path: Path, cross_encoder_folder: Path, held_out: bool
) -> None:
    # Every training was done, to be told that nothing was certain.
    both, stages = rows(64), []
    data, other = Judgments(both[:128], "labels"), Judgments(both[128:], "labels") if held_out else None

    def tuned(tokens: int) -> Any:
        settings = replace(QUICK, measured_tokens=tokens)
        return tune(data, tmp_path / "tuned", model=cross_encoder_folder, held_out=other, settings=settings,
                    engine=ONE, report=lambda now: stages.append(now.stage))  # fmt: skip

    outcome = tuned(1_600)
    assert (outcome.verdict.kept, outcome.plan) == ("base", None)
    assert outcome.counts["measured"] < gate.FEWEST_HELD_OUT
    assert stages[-1] == "mining negatives"
    assert not list(tmp_path.iterdir())
    [reason] = outcome.verdict.reasons
    found = re.search(r"20 of them take ([\d,]+): .*--effort 0.1 \(measured_tokens=(\d+)\), or judge fewer", reason)
    assert found is not None, reason
    needed = int(found[2])
    assert found[1] == f"{needed:,}"
    # The cure is one, and no smaller number is.
    assert tuned(needed - 1).plan is None
    outcome = tuned(needed)
    assert outcome.counts["measured"] == gate.FEWEST_HELD_OUT
    assert outcome.plan is not None


@pytest.mark.parametrize("leaked", [25, 10])
def test_a_held_out_part_that_leaves_too_little_ends_it(tmp_path: Path, leaked: int) -> None:
    both = rows(50)
    outcome = tune(Judgments(both[:100], "labels"), tmp_path / "tuned",
                   held_out=Judgments(both[4 * (25 - leaked) :], "labels"), settings=QUICK, engine=ONE)  # fmt: skip
    assert outcome.verdict.kept == "base"
    assert f"without those of the held-out part: {25 - leaked};" in outcome.verdict.reasons[0]
    assert not list(tmp_path.iterdir())


def test_contradictory_pairs_of_both_parts_are_never_mined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both, seen = rows(60), []

    def stop(*given: object) -> None:
        seen.append(given[-1])
        raise InputError("enough")

    def against(row: Judged) -> Judged:
        return replace(row, label=1 - row.label)

    monkeypatch.setattr(tuning, "gathered", stop)
    data = Judgments((*both[:120], against(both[0]), against(both[4])), "labels")
    held_out = Judgments((*both[120:], both[0], against(both[0]), *both[1:4], against(both[3])), "labels")
    with pytest.raises(InputError, match="enough"):
        tune(data, tmp_path / "tuned", held_out=held_out, settings=QUICK, engine=ONE)
    found = {query: set(documents) for query, documents in seen[0].items()}
    assert found == {"what is 0": {both[0].document, both[3].document}, "what is 1": {both[4].document}}


def test_a_loss_that_does_not_fit_is_refused_before_any_work(tmp_path: Path) -> None:
    scores = Judgments(tuple(replace(row, label=row.label - 7.5) for row in rows(30)), "scores")
    with pytest.raises(InputError, match="leave the loss out"):
        tune(scores, tmp_path / "tuned", settings=replace(QUICK, loss="listwise"), engine=ONE)
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_judgments_yet(tmp_path: Path) -> None:
    """It was an AttributeError of str."""
    data = Judgments(rows(45), "labels")
    for given, held_out in (("train.jsonl", None), (data, tmp_path / "held.jsonl"), ([("q", "d", 1)], None)):
        with pytest.raises(InputError, match=r"not \w+: read a file or a folder with crossrank.training.reading.read"):
            tune(given, tmp_path / "tuned", held_out=held_out)  # type: ignore[arg-type]


@pytest.mark.parametrize("named", [False, True])
def test_a_python_without_sources_needs_a_general_set(
    tmp_path: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    monkeypatch.setattr(prepared.general, "questions", lambda *_, **__: [])
    sets = {"mine": [Group(f"general {n}", (f"paris {n}", f"bread {n}"), (1.0, 0.0)) for n in range(3)]}
    outcome = tune(Judgments(rows(45), "labels"), tmp_path / "tuned", model=cross_encoder_folder,
                   general_sets=sets if named else {}, settings=replace(QUICK, remember=0.05), engine=ONE)  # fmt: skip
    assert outcome.verdict.kept == ("tuned" if named else "base"), outcome.verdict.reasons
    assert named or "name a judged set with --general" in outcome.verdict.reasons[0]


@pytest.mark.parametrize("scale", ["clicks", "scores"])
def test_clicks_and_a_teachers_scores(tmp_path: Path, cross_encoder_folder: Path, scale: str) -> None:
    found = rows(40)
    if scale == "clicks":
        data = Judgments(tuple(r for r in found if r.label), "clicks", tuple(r.document for r in found))
    else:
        data = Judgments(tuple(Judged(r.query, r.document, 3 * r.label - 7.5) for r in found), "scores")
    outcome = tune(data, tmp_path / "tuned", model=cross_encoder_folder, settings=QUICK, engine=ONE,
                   nearest=searched_by(Found(found)) if scale == "scores" else None)  # fmt: skip
    assert [f.name for f in outcome.findings if f.name == "index"] == ["index"] * (scale == "scores")
    assert outcome.plan is not None
    assert outcome.plan.loss == {"clicks": "listwise", "scores": "distil"}[scale]
    assert outcome.verdict.gain is not None
    assert outcome.verdict.gain.mean > 0.1 or scale == "clicks"
    if scale == "scores":
        assert outcome.verdict.kept == "tuned"
        assert outcome.in_search is None  # which the finding says: what an index finds has no teacher's score
        assert outcome.calibration is None
        assert outcome.uncalibrated == "the labels are a teacher's scores, which do not say what is relevant"
        card = (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
        assert f"**Probabilities**: none ({outcome.uncalibrated})" in card


def test_a_full_folder_is_refused_before_any_work(tmp_path: Path, cross_encoder_folder: Path) -> None:
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "mine.txt").touch()
    with pytest.raises(InputError, match="--force"):
        tune(Judgments(rows(30), "labels"), tmp_path / "tuned", model=cross_encoder_folder)
    with pytest.raises(InputError, match="--force"):
        tune(Judgments(rows(30), "labels"), tmp_path / "new", refused=tmp_path / "tuned", model=cross_encoder_folder)
    (tmp_path / "file").touch()
    for to, refused in (("file", None), ("new", "file")):
        aside = None if refused is None else tmp_path / refused
        with pytest.raises(InputError, match="is a file, and a model is a folder"):
            tune(Judgments(rows(30), "labels"), tmp_path / to, refused=aside, overwrite=True)
    for nameless in (".", "..", "/"):
        with pytest.raises(InputError, match="a folder of its own"):
            tune(Judgments(rows(30), "labels"), nameless, model=cross_encoder_folder, overwrite=True)
    # The work folder is removed at the end, with the model that was told to be there.
    for refused in ("new", "new.tuning", "new.tuning/x", "new/x", ".", "other/../new"):
        for overwrite in (False, True):
            with pytest.raises(InputError, match="a folder apart from it" if overwrite else "apart|not empty"):
                tune(Judgments(rows(30), "labels"), tmp_path / "new", refused=tmp_path / refused, overwrite=overwrite)


@pytest.mark.parametrize("refused", [False, True])
def test_the_base_model_is_not_written_over(tmp_path: Path, refused: bool) -> None:
    # A process that was killed while it moved files there left a base model that no call could go on from.
    base = tiny.cross_encoder(tmp_path / "base")
    to, aside = (tmp_path / "new", base / ".." / "base") if refused else (base, None)
    with pytest.raises(CheckpointError, match="is the model's own folder"):
        tune(Judgments(rows(30), "labels"), to, refused=aside, model=base, settings=QUICK, engine=ONE, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


# The command


COMMAND = ["--backend", "reference", "--device", "cpu", "--threads", "1", "--max-tokens", "32", "--rate", "0.002",
           "--epochs", "2", "--repeats", "1", "--most-loss", "1"]  # fmt: skip


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        root.main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def test_the_command_refuses_and_says_why(
    tmp_path: Path, cross_encoder_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "data.jsonl", rows(24, shuffled=True))
    code = run("tune", data, "--to", tmp_path / "tuned", "--model", cross_encoder_folder, *COMMAND)
    out, err = capsys.readouterr()
    assert code == Exit.BASE_KEPT
    assert out.startswith("base\t")
    assert "held-out queries" in out
    assert "held out" in err
    assert not (tmp_path / "tuned").exists()


def test_a_terminal_says_how_to_find_the_share_of_a_model_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "on_terminal", lambda *, err=False: not err)
    kept = Outcome(gate.Verdict("tuned", ()), (), folder=tmp_path / "tuned")
    monkeypatch.setattr("crossrank.training.tuning.tune", lambda *_, **__: kept)
    assert run("tune", write(tmp_path / "data.jsonl", rows(24)), "--to", tmp_path / "tuned") == Exit.OK
    out = capsys.readouterr().out
    assert f"better. It is in {tmp_path / 'tuned'}." in out
    assert f"`crossrank eval --models {tmp_path / 'tuned'} --mix 0.4,0.8,1`" in out


def test_a_terminal_says_what_share_of_a_search_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "on_terminal", lambda *, err=False: not err)
    gain = Interval(0.05, 0.02, 0.08, 30)
    verdict = gate.Verdict("tuned", (), gain, Interval(0.6, 0.5, 0.7, 30), Interval(0.65, 0.55, 0.75, 30))
    shares = InSearch((0.4, 0.6), (0.61, 0.59), (0.64, 0.66), 0.6)
    kept = Outcome(verdict, (), folder=tmp_path / "tuned", in_search=shares)
    monkeypatch.setattr("crossrank.training.tuning.tune", lambda *_, **__: kept)
    assert run("tune", write(tmp_path / "data.jsonl", rows(24)), "--to", tmp_path / "tuned") == Exit.OK
    out = capsys.readouterr().out
    assert re.search(r"at a share of 0.6 +0.590 +0.660 +\+0.070", out)
    assert "A search gives it a share of 0.6, unless --mix says another." in out


def test_every_option_of_the_command_reaches_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"loss": "bce", "folds": 4, "repeats": 5, "epochs": 6, "layers": 7, "rate": 0.03, "max_tokens": 99,
             "confidence": 0.8, "most_loss": 0.1, "seed": 11}  # fmt: skip
    seen = []

    def stop(*_: object, settings: Settings, **__: object) -> None:
        seen.append(settings)
        raise InputError("enough")

    monkeypatch.setattr("crossrank.training.tuning.tune", stop)
    options = [str(word) for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", value)]
    run("tune", write(tmp_path / "data.jsonl", rows(24)), "--to", tmp_path / "tuned", *options)
    assert {name: getattr(seen[0], name) for name in asked} == asked


def test_negatives_come_from_an_index_that_was_made_through_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`tune` told to name the address with --embedder, which it had not."""
    for module in ("crossrank.index", "httpx"):
        pytest.importorskip(module, reason="needs the extras search and llm")
    from apiserver import serving
    from crossrank.index import Document, Index
    from crossrank.models import named
    from crossrank.remoteembedder import RemoteEmbedder

    mined: list[object] = []

    def look(*_: object, nearest: Nearest, **__: object) -> None:
        mined.extend(getattr(passage, "text", passage) for passage in nearest(["hot tea"], 1)[0])
        raise InputError("enough")

    def vectors(path: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"data": [{"index": at, "embedding": [1.0, "tea" in text]} for at, text in enumerate(body["input"])]}

    monkeypatch.setattr("crossrank.training.tuning.tune", look)
    command = ("tune", write(tmp_path / "data.jsonl", rows(24)), "--to", tmp_path / "tuned")
    with serving(vectors) as api:
        remote = RemoteEmbedder(api.url, "m")
        tokenizer = named.read(None, default="embed").tokenizer()
        index = Index.create(tmp_path / "index", remote, tokenizer, model=remote.name)
        index.add([Document("tea", "Tea is hot."), Document("bread", "Bread needs yeast.")], remote, tokenizer)
        run(*command, "--index", tmp_path / "index")
        assert f'--embedder "{remote.name}"' in capsys.readouterr().err
        run(*command, "--index", tmp_path / "index", "--embedder", remote.name)
    assert mined == ["Tea is hot."]
    assert run(*command, "--embedder", remote.name) == Exit.USAGE


def test_general_sets_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [tmp_path / name / "set" for name in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)
    code = run("tune", write(tmp_path / "data.jsonl", rows(24)), "--to", tmp_path / "tuned", "--general", folders[0],
               "--general", folders[1])  # fmt: skip
    assert (code, "called 'set'; rename one" in capsys.readouterr().err) == (Exit.USAGE, True)


@pytest.mark.parametrize("judged", ["a\t7\t1\n", "a\t1\t0\n"])
def test_a_general_set_that_would_check_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], judged: str
) -> None:
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "1", "text": "tea"}\n{"_id": "2", "text": "more tea"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "a", "text": "tea?"}\n')
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    command = ("tune", write(tmp_path / "data.jsonl", rows(24)), "--to", tmp_path / "tuned", "--general", folder)
    assert run(*command) == Exit.ERROR
    assert "nothing would be checked with it" in capsys.readouterr().err
    assert not (tmp_path / "tuned.tuning").exists()


def test_the_command_checks_data_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = rows(24)
    assert run("tune", write(tmp_path / "good.jsonl", good), "--check") == Exit.OK
    assert capsys.readouterr().out == "24 queries with 96 pairs can be trained on (labels).\n"
    code = run("tune", write(tmp_path / "few.jsonl", good[:10]), "--check", "--json")
    told = json.loads(capsys.readouterr().out)
    assert (code, told["findings"][0]["name"]) == (Exit.BASE_KEPT, "few queries")
    assert run("tune", tmp_path / "good.jsonl") == Exit.USAGE


def test_a_check_looks_at_what_is_held_out_and_at_the_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Leaks and parts that are too small were found by the training alone, after a clean check.
    good = write(tmp_path / "good.jsonl", rows(48))
    apart = write(tmp_path / "apart.jsonl", [replace(one, query=f"another {one.query}") for one in rows(20)])
    assert run("tune", good, "--held-out", apart, "--check") == Exit.OK
    said = "48 queries with 192 pairs can be trained on (labels), and 20 queries are held out.\n"
    assert capsys.readouterr().out == said
    leaking = write(tmp_path / "leaking.jsonl", rows(24))
    assert run("tune", good, "--held-out", leaking, "--check", "--json") == Exit.OK
    told = json.loads(capsys.readouterr().out)
    assert (told["queries"], told["held_out"], [one["name"] for one in told["findings"]]) == (24, 24, ["leaks"])
    few = write(tmp_path / "few.jsonl", rows(5))
    assert run("tune", good, "--held-out", few, "--check") == Exit.BASE_KEPT
    assert "held-out: few queries" in capsys.readouterr().err
    assert run("tune", good, "--check", "--loss", "distil") == Exit.ERROR
    assert "the loss distil needs a teacher's scores, and these rows have labels" in capsys.readouterr().err


@pytest.mark.parametrize("searched", [False, True])
def test_interrupted_anywhere_it_ends_with_the_same_model(
    tmp_path: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch, searched: bool
) -> None:
    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    data = Judgments(rows(45), "labels")
    nearest = searched_by(Found(data.rows)) if searched else None
    how: dict[str, Any] = {"model": cross_encoder_folder, "nearest": nearest, "settings": QUICK, "engine": ONE}
    steps = 0

    def stopped(now: Progress) -> None:
        nonlocal steps
        steps += now.stage == "training"
        # Early, in the middle of an epoch, at the end of one, and in another fold.
        if now.stage == "training" and steps in (2, 6, 9, 15):
            raise KeyboardInterrupt

    tune(data, tmp_path / "whole", **how)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            tune(data, tmp_path / "cut", report=stopped, **how)
    outcome = tune(data, tmp_path / "cut", report=stopped, **how)
    assert outcome.resumed
    assert bool(outcome.in_search) == searched
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    told = [json.loads((tmp_path / name / "crossrank.json").read_text("utf-8")) for name in ("whole", "cut")]
    assert told[0].get("mix") == told[1].get("mix")
    assert told[0]["calibration"] == told[1]["calibration"]


def test_other_settings_do_not_go_on_with_it(
    tmp_path: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(now: Progress) -> None:
        if now.stage == "training":
            raise KeyboardInterrupt

    data = Judgments(rows(24), "labels")
    with pytest.raises(KeyboardInterrupt):
        tune(data, tmp_path / "a", model=cross_encoder_folder, settings=QUICK, engine=ONE, report=stopped)
    with pytest.raises(InputError, match="--restart"):
        tune(data, tmp_path / "a", model=cross_encoder_folder, settings=replace(QUICK, seed=1), engine=ONE)
    # Scores of the base in one number format and of the tuned model in another would be a difference of formats.
    with pytest.raises(InputError, match="backend"):
        tune(data, tmp_path / "a", model=cross_encoder_folder, settings=QUICK, engine=replace(ONE, backend="torch"))
    monkeypatch.setattr(prepared, "__version__", "0.0.1")
    with pytest.raises(InputError, match="another version"):
        tune(data, tmp_path / "a", model=cross_encoder_folder, settings=QUICK, engine=ONE)
