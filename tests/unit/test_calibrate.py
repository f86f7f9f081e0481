"""`crossrank calibrate`: a copy of a model whose probabilities fit the judgments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crossrank
from commandline import run
from crossrank.cli import terminal
from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError
from crossrank.evaluation.abstention import THRESHOLDS
from crossrank.scored import Scored
from crossrank.training.calibrating import calibrated
from crossrank.training.folds import assign
from crossrank.training.judgments import Judged, Judgments


def rows(queries: int = 40, each: int = 10) -> list[Judged]:
    """Documents that begin with their logit; as often relevant as sigmoid(2 logit - 1) says."""
    rng = np.random.default_rng(0)
    made = []
    for query in range(queries):
        for logit in rng.normal(0, 2, each):
            relevant = rng.random() < 1 / (1 + np.exp(1 - 2 * logit))
            made.append(Judged(f"what is {query}", f"{logit:.6f} cats", float(relevant)))
    return made


@pytest.fixture(autouse=True)
def _told(monkeypatch: pytest.MonkeyPatch) -> None:
    def scored(self: CrossEncoder, pairs: Iterable[Sequence[str]], *, progress: Any = None) -> Scored:
        return Scored(np.array([float(text.split()[0]) for _, text in pairs], dtype=np.float32), (), 0)

    monkeypatch.setattr(CrossEncoder, "scored", scored)


def written(path: Path, judged: list[Judged]) -> str:
    lines = [json.dumps({"query": row.query, "document": row.document, "label": row.label}) for row in judged]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_the_copy_gives_the_probabilities_that_were_fitted(cross_encoder_folder: Path, tmp_path: Path) -> None:
    data, copy = written(tmp_path / "judged.jsonl", rows()), tmp_path / "copy"
    told = json.loads(run("calibrate", str(cross_encoder_folder), data, "--to", str(copy), "--json").stdout)
    assert (told["queries"], told["pairs"], told["folder"]) == (40, 400, str(copy))
    assert told["slope"] == pytest.approx(2, rel=0.3)
    assert told["intercept"] == pytest.approx(-1, abs=0.4)
    assert told["error_after"] < 0.08
    stated = json.loads((copy / "crossrank.json").read_text(encoding="utf-8"))
    assert stated == {"calibration": {"slope": told["slope"], "intercept": told["intercept"]}}
    texts = tmp_path / "texts.txt"
    texts.write_text("0.5 cats\n-1 cats\n", encoding="utf-8")
    lines = run("rerank", "what", str(texts), "--model", str(copy), "--probability", "--json").stdout.splitlines()
    want = crossrank.Platt(told["slope"], told["intercept"]).probability(np.float32([0.5, -1]))
    assert [json.loads(line)["probability"] for line in lines] == pytest.approx(want.tolist())
    # What it has been once is no worse than what the same judgments make of it again, which is said.
    again = run("calibrate", str(copy), data, "--to", str(tmp_path / "again"), "--json")
    assert json.loads(again.stdout)["error_before"] == pytest.approx(told["error_after"], abs=0.03)
    assert "is not empty" in run("calibrate", str(copy), data, "--to", str(tmp_path / "again"), code=1).stderr
    run("calibrate", str(cross_encoder_folder), data, "--to", str(tmp_path / "again"), "--force")


def test_queries_without_an_answer_count(cross_encoder_folder: Path) -> None:
    scorer = crossrank.load(cross_encoder_folder, backend="fake")
    judged = rows()
    none = [Judged(f"nobody asked {number}", f"{number % 7 - 3} dogs", 0.0) for number in range(100)]
    with_none = calibrated(scorer, Judgments((*judged, *none), "labels"))
    assert with_none.queries == 140
    assert (
        with_none.calibration.intercept < calibrated(scorer, Judgments(tuple(judged), "labels")).calibration.intercept
    )
    twice = (*judged, Judged(judged[0].query, judged[0].document, 1 - judged[0].label))
    found = calibrated(scorer, Judgments(twice, "labels"))
    assert found.after.pairs == len(judged) - 1, "nobody knows which of the two is right"
    assert [finding.name for finding in found.findings] == ["contradictions"]


@pytest.mark.parametrize(
    ("judged", "scale", "said"),
    [
        (rows(19), "labels", "19 judged queries are too few"),
        (rows(1), "labels", "1 judged query is too few"),
        ([Judged(row.query, row.document, 1.0) for row in rows()], "clicks", "all 400 judged pairs are relevant"),
        ([Judged(row.query, row.document, 0.0) for row in rows()], "labels", "pairs are not relevant"),
        (rows(), "scores", "give each pair a label"),
        ([Judged(r.query, r.document, 1 - r.label) for r in rows()], "labels", "do not rise with relevance"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    cross_encoder_folder: Path, judged: list[Judged], scale: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        calibrated(crossrank.load(cross_encoder_folder, backend="fake"), Judgments(tuple(judged), scale))


def test_labels_by_another_name_and_with_fractions_are_told(cross_encoder_folder: Path) -> None:
    """They were a teacher's scores, which nobody had given, and all relevant, whatever the column `clicked` held."""
    scorer = crossrank.load(cross_encoder_folder, backend="fake")
    stars = Judgments(tuple(rows()), "scores", fractions=7)
    with pytest.raises(
        InputError, match=r"labels with a fraction \(7\).*grades are whole numbers.*give each pair a label"
    ):
        calibrated(scorer, stars)
    clicked = tuple(Judged(row.query, row.document, 1.0) for row in rows())
    with pytest.raises(InputError, match=r"all 400 judged pairs are relevant.*'clicked'\. Call that one label"):
        calibrated(scorer, Judgments(clicked, "clicks", unread=("clicked",)))


def test_what_was_not_read_is_told(cross_encoder_folder: Path) -> None:
    scorer = crossrank.load(cross_encoder_folder, backend="fake")
    given = Judgments(tuple(rows()), "labels", fractions=3, missing=("d7",))
    assert [finding.name for finding in calibrated(scorer, given).findings] == ["fractions", "missing documents"]
    few = rows(20, each=1)
    against = Judged(few[0].query, few[0].document, 1 - few[0].label)
    said = r"19 judged queries are too few.*Judge more queries\. Not read were: 1 of 20 pairs with different labels"
    with pytest.raises(InputError, match=said):
        calibrated(scorer, Judgments((*few, against), "labels"))


def test_thresholds_are_judged_on_queries_that_the_calibration_has_not_seen(cross_encoder_folder: Path) -> None:
    judged = [*rows(), *(Judged(f"nobody asked {number}", f"{number % 7 - 3} dogs", 0.0) for number in range(100))]
    # An answer under another passage is lost before the query is told that there is nothing.
    judged += [Judged(f"hard {number}", "0.2 cats", 1.0) for number in range(20)]
    judged += [Judged(f"hard {number}", "1.5 dogs", 0.0) for number in range(20)]
    names = list(dict.fromkeys(row.query for row in judged))
    half = dict(zip(names, assign(names, 2, 5).tolist(), strict=True))
    chance: dict[str, list[tuple[float, bool]]] = {name: [] for name in names}
    for part in (0, 1):
        other = [row for row in judged if half[row.query] != part]
        fitted = crossrank.Platt.fit(np.float32([row.document.split()[0] for row in other]),
                                     np.array([row.label > 0 for row in other]))  # fmt: skip
        for row in judged:
            if half[row.query] == part:
                found = fitted.probability(np.float32([row.document.split()[0]])).tolist()
                chance[row.query].append((found[0], row.label > 0))
    answered = [found for found in chance.values() if any(hit for _, hit in found)]
    without = [rest for found in chance.values() if (rest := [one for one, hit in found if not hit])]
    scorer = crossrank.load(cross_encoder_folder, backend="fake")
    cuts = calibrated(scorer, Judgments(tuple(judged), "labels"), seed=5).cuts
    assert [cut.threshold for cut in cuts] == list(THRESHOLDS)
    for cut in cuts:
        under = cut.threshold
        assert cut.lost.count == sum(all(one < under for one, hit in found if hit) for found in answered)
        assert cut.nothing.count == sum(all(one < under for one, _ in found) for found in answered)
        assert cut.something.count == sum(any(one >= under for one in rest) for rest in without)
    assert {cut.lost.queries for cut in cuts} == {len(answered)} == {cut.nothing.queries for cut in cuts}
    assert {cut.something.queries for cut in cuts} == {len(without)} == {160}, "of 100 there was no answer to take out"
    assert any(cut.nothing.count < cut.lost.count for cut in cuts)


def test_the_largest_threshold_that_loses_few_answers_is_the_copys(cross_encoder_folder: Path, tmp_path: Path) -> None:
    data, copy = written(tmp_path / "judged.jsonl", rows(100)), tmp_path / "copy"
    result = run("calibrate", str(cross_encoder_folder), data, "--to", str(copy), "--most-lost", "0.1", "--json")
    told = json.loads(result.stdout)
    chosen = told["threshold"]
    assert json.loads((copy / "crossrank.json").read_text(encoding="utf-8"))["threshold"] == chosen
    (row,) = (cut for cut in told["thresholds"] if cut["threshold"] == chosen)
    assert row["lost"]["count"] == int(0.1 * row["lost"]["queries"]) > 0
    assert row["lost"]["low"] < row["lost"]["share"] <= 0.1 < row["lost"]["high"]
    scorer = crossrank.load(cross_encoder_folder, backend="fake")
    more = calibrated(scorer, Judgments(tuple(rows(100)), "labels"), most_lost=0.2)
    assert more.threshold is not None
    assert more.threshold > chosen
    texts = tmp_path / "texts.txt"
    texts.write_text("5 cats\n-9 cats\n", encoding="utf-8")
    kept = run("rerank", "what", str(texts), "--model", str(copy), "--threshold", "model")
    assert len(kept.stdout.splitlines()) == 1
    assert f"under the threshold of {chosen:g}" in kept.stderr
    again = run("calibrate", str(copy), data, "--to", str(tmp_path / "again"))
    assert again.stdout.split("\t")[-1].strip() == "-", "a threshold belongs to its calibration"
    assert "threshold" not in json.loads((tmp_path / "again" / "crossrank.json").read_text(encoding="utf-8"))


def test_too_few_answers_to_choose_a_threshold_by_are_told(cross_encoder_folder: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "judged.jsonl", rows())
    few = run("calibrate", str(cross_encoder_folder), data, "--to", str(tmp_path / "few"), "--most-lost", "0.05")
    assert "too few to tell that a threshold loses at most 5 % of them; 73 could" in few.stderr
    enough = run("calibrate", str(cross_encoder_folder), data, "--to", str(tmp_path / "copy"), "--most-lost", "0.2")
    assert "too few" not in enough.stderr


def test_where_each_threshold_loses_more_nothing_is_written(cross_encoder_folder: Path, tmp_path: Path) -> None:
    """An answer without a token of text has no score, and is under every threshold."""
    judged = [*rows(), *(Judged(f"blank {number}", "-inf cats", 1.0) for number in range(10))]
    data, copy = written(tmp_path / "judged.jsonl", judged), tmp_path / "copy"
    args = ("calibrate", str(cross_encoder_folder), data, "--to", str(copy), "--most-lost")
    said = run(*args, "0.05", code=1).stderr
    assert "no threshold keeps an answer of all but 5 % of the 50 queries that have one" in said
    assert "0.001 already loses all answers of 10; allow 0.2, or leave it out" in said
    assert not copy.exists()
    run(*args, "0.2")


@pytest.mark.parametrize("share", [0.0, 1, -0.5, float("nan"), "0.05", True])
def test_a_share_of_lost_answers_lies_between_0_and_1(cross_encoder_folder: Path, share: Any) -> None:
    scorer = crossrank.load(cross_encoder_folder, backend="fake")
    with pytest.raises(InputError, match="most_lost"):
        calibrated(scorer, Judgments(tuple(rows()), "labels"), most_lost=share)


def test_a_terminal_shows_what_thresholds_do(
    cross_encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "on_terminal", lambda *, err=False: not err)
    monkeypatch.setenv("COLUMNS", "80")
    data = written(tmp_path / "judged.jsonl", rows())
    args = ("calibrate", str(cross_encoder_folder), data, "--to", str(tmp_path / "copy"), "--most-lost", "0.2")
    shown = run(*args).stdout
    chosen = json.loads((tmp_path / "copy" / "crossrank.json").read_text(encoding="utf-8"))["threshold"]
    assert re.search(r"threshold +answers lost +wrongly nothing +wrongly something", shown)
    assert re.search(rf"\n +{chosen:g} +20\.0% \[10\.5, 34\.8\] ", shown), shown
    assert "of 40 queries with an answer" in shown
    assert f"own threshold is {chosen:g}" in shown
