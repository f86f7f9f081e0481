# ruff: noqa: F811
"""--budget-ms and --on-error, as a user of the command line meets them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from test_cli import be, ce, documents, index, rows  # noqa: F401

import crossrank
import tiny
from commandline import run
from crossrank.cli import budget
from crossrank.cost import CostModel, Pace
from crossrank.errors import CheckpointError
from crossrank.planner import Memory


@pytest.fixture(autouse=True)
def _paces(command_line: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is measured, and nothing is written into a home."""
    monkeypatch.setenv("CROSSRANK_COSTS", str(tmp_path / "costs"))
    monkeypatch.setattr(Memory, "pace", lambda self, scorer: Pace(CostModel(0.0001, 0.0, 1e-7, 0.0)))


def explained(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = rows(result)[-1]["explain"]
    return found


def test_rerank_reads_all_in_enough_time(ce: str) -> None:
    Path("texts.txt").write_text("the cat\nbread\nparis\n", encoding="utf-8")
    plain = rows(run("rerank", "cat", "texts.txt", "-m", ce, "--json"))
    held = rows(run("rerank", "cat", "texts.txt", "-m", ce, "--json", "--budget-ms", "60000"))
    assert [row.pop("read") for row in held] == [True] * 3
    assert held == plain


def test_rerank_out_of_time_keeps_the_order_given(ce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Memory, "pace", lambda self, scorer: Pace(CostModel(10.0, 0.0, 1.0, 0.0)))
    Path("texts.txt").write_text("the cat\nbread\nparis\n", encoding="utf-8")
    result = run("rerank", "cat", "texts.txt", "-m", ce, "--json", "--budget-ms", "5")
    assert [(row["text"], row["score"], row["read"]) for row in rows(result)] == [
        ("the cat", None, False), ("bread", None, False), ("paris", None, False),
    ]  # fmt: skip
    assert "the time was enough for 0 of 3 passages; the others follow in the order given" in result.stderr
    lines = run("rerank", "cat", "texts.txt", "-m", ce, "--budget-ms", "5").stdout.splitlines()
    assert lines[0] == "1\t-\tthe cat"
    # A threshold emptied the answer of which nothing was read, with code 0.
    held = run("rerank", "cat", "texts.txt", "-m", ce, "--budget-ms", "5", "-k", "2", "--threshold", "0.0")
    assert held.stdout.splitlines() == lines[:2]
    assert "Warning: the threshold was not used: no stage that gives probabilities has read" in held.stderr


def test_rerank_of_nothing_within_a_budget(ce: str) -> None:
    assert run("rerank", "cat", "-m", ce, "--budget-ms", "5", stdin="").stdout == ""


def test_rerank_within_a_budget_takes_ids_that_come_twice_and_late_models(ce: str, tmp_path: Path) -> None:
    Path("a.jsonl").write_text('{"id": "a", "text": "cat"}\n{"id": "a", "text": "bread"}\n', encoding="utf-8")
    for model in (ce, str(tiny.late(tmp_path / "late"))):
        found = rows(run("rerank", "cat", "a.jsonl", "-m", model, "--json", "--budget-ms", "60000"))
        assert sorted(row["text"] for row in found) == ["bread", "cat"]
        assert {(row["id"], row["read"]) for row in found} == {("a", True)}


def test_a_plain_search_says_what_the_budget_left_out(index: str, ce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ("search", index, "capital", "-m", ce, "--mix", "1", "--json")
    assert [row["read"] for row in rows(run(*args, "--budget-ms", "60000"))] == [True, True]
    monkeypatch.setattr(Memory, "pace", lambda self, scorer: Pace(CostModel(10.0, 0.0, 1.0, 0.0)))
    result = run(*args, "--budget-ms", "500")
    assert [row["read"] for row in rows(result)] == [False, False]
    assert re.search(r"Warning: plan: \d+ ms left are not enough to read a passage", result.stderr)
    shown = run(*args, "--budget-ms", "500", "--explain")
    assert "Warning: plan" not in shown.stderr
    assert "not enough to read a passage" in explained(shown)["steps"][-1]["note"]


def test_a_context_says_what_the_budget_left_out(index: str, ce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Memory, "pace", lambda self, scorer: Pace(CostModel(10.0, 0.0, 1.0, 0.0)))
    args = ("search", index, "capital", "-m", ce, "--mix", "1", "--context", "60", "--budget-ms", "500")
    assert "not enough to read a passage" in run(*args).stderr
    (told,) = rows(run(*args, "--json"))
    assert [note.split(":")[0] for note in told["notes"]] == ["plan"]


def test_a_context_of_a_stage_that_failed_says_so(index: str, ce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, *args: Any) -> Any:
        raise CheckpointError("the weights are damaged")

    monkeypatch.setattr(crossrank.CrossEncoder, "scored_tokens", broken)
    result = run("search", index, "capital", "-m", ce, "--on-error", "keep", "--context", "60", code=3)
    assert result.stdout.startswith("[1] ")
    assert "the weights are damaged" in result.stderr


def test_search_says_what_the_budget_left_out(index: str, ce: str) -> None:
    result = run("search", index, "capital", "-m", ce, "--json", "--explain", "--budget-ms", "60000")
    found = explained(result)
    assert found["budget_seconds"] == 60
    assert found["steps"][-1]["name"] == "plan"
    assert "too few for reranking" in found["steps"][-1]["note"]
    assert found["steps"][-1]["stopped"] == "plan"
    shown = run("search", index, "capital", "-m", ce, "--explain", "--budget-ms", "60000").stderr
    assert "too few for reranking" in shown
    assert "of 1 min 0 s" in shown
    assert rows(result)[0]["step"] == "fused"


def test_the_plan_chooses_among_the_models_that_are_named(index: str, ce: str, tmp_path: Path) -> None:
    cheap = str(tiny.cross_encoder(tmp_path / "cheap", num_hidden_layers=1))
    models = ("-m", ce, "--coarse", cheap)
    args = ("search", index, "capital", *models, "--mix", "1", "--depth", "2", "--json", "--explain")
    steps = explained(run(*args))["steps"]
    assert [step["name"] for step in steps[-2:]] == [cheap, ce]
    assert steps[-2]["passages"] == 2 * steps[-1]["passages"]
    hurried = explained(run(*args, "--budget-ms", "60000"))["steps"]
    assert [step["name"] for step in hurried[-2:]] == [cheap, ce]


def test_a_late_answer_says_so(index: str, ce: str) -> None:
    result = run("search", index, "capital", "-m", ce, "--budget-ms", "1")
    assert result.stdout
    assert "the budget was" in result.stderr


def test_a_stage_that_fails_is_told_and_the_exit_code_is_honest(
    index: str, ce: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    def broken(self: Any, *args: Any) -> Any:
        raise CheckpointError("the weights are damaged")

    monkeypatch.setattr(crossrank.CrossEncoder, "scored_tokens", broken)
    monkeypatch.setattr(crossrank.CrossEncoder, "scored", broken)
    assert "the weights are damaged" in run("search", index, "capital", "-m", ce, code=1).stderr
    result = run("search", index, "capital", "-m", ce, "--on-error", "keep", "--json", "--explain", code=3)
    assert "the order before it stands: the weights are damaged" in result.stderr
    assert explained(result)["steps"][-1]["stopped"] == "error"
    assert rows(result)[0]["step"] == "fused"


def test_a_missing_model_may_leave_the_fused_order(index: str) -> None:
    for more in ((), ("--budget-ms", "60000")):
        assert "nowhere" in run("search", index, "capital", "-m", "./nowhere", *more, code=1).stderr
    result = run("search", index, "capital", "-m", "./nowhere", "--on-error", "keep", code=3)
    assert "nowhere" in result.stderr
    assert result.stdout


def test_bad_budgets(index: str) -> None:
    for bad, why in (("0", "not in the range"), ("-3", "not in the range"), ("soon", "not a valid number")):
        said = run("search", index, "capital", "--budget-ms", bad, code=2).stderr
        assert "Invalid value for '--budget-ms'" in said
        assert why in said


def test_where_costs_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert budget.memory().folder == tmp_path / "costs"
    monkeypatch.delenv("CROSSRANK_COSTS")
    monkeypatch.setattr(budget.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert budget.memory().folder == tmp_path / "crossrank"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert budget.memory().folder == Path.home() / ".cache" / "crossrank"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert budget.memory().folder == Path.home() / ".cache" / "crossrank"
    assert budget.memory().version == crossrank.__version__
