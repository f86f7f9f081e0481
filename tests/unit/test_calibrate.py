"""`crossrank calibrate`: a copy of a model whose probabilities fit the judgments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import crossrank
from crossrank.cli import root
from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError
from crossrank.scored import Scored
from crossrank.training.calibrating import calibrated
from crossrank.training.judgments import Judged, Judgments

try:
    RUNNER = CliRunner(mix_stderr=False)
except TypeError:  # From click 8.2 on they are always apart.
    RUNNER = CliRunner()


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


def run(*args: str, code: int = 0) -> Result:
    result = RUNNER.invoke(root, args, prog_name="crossrank")
    assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr, result.exception)
    return result


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


def test_what_was_not_read_is_told(cross_encoder_folder: Path) -> None:
    scorer = crossrank.load(cross_encoder_folder, backend="fake")
    given = Judgments(tuple(rows()), "labels", fractions=3, missing=("d7",))
    assert [finding.name for finding in calibrated(scorer, given).findings] == ["fractions", "missing documents"]
    few = rows(20, each=1)
    against = Judged(few[0].query, few[0].document, 1 - few[0].label)
    said = r"19 judged queries are too few.*Judge more queries\. Not read were: 1 of 20 pairs with different labels"
    with pytest.raises(InputError, match=said):
        calibrated(scorer, Judgments((*few, against), "labels"))
