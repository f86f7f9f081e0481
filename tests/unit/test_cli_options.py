"""Options that cannot be obeyed: refused by name and before any work, never passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from crossrank.cli import root


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rows.jsonl", "passages.txt"):
        Path(name).write_text('{"query": "q", "document": "d", "label": 1}\n', encoding="utf-8")


def refused(*args: str, env: dict[str, str] | None = None) -> Result:
    """What a command that is wrong as typed prints."""
    found = CliRunner().invoke(root, args, env=env)
    assert found.exit_code == 2, found.output
    assert "Traceback" not in found.output
    return found


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("rerank q passages.txt", "--budget-ms"),
        ("search my.index q", "--budget-ms"),
        ("search my.index q", "--mix"),
        ("search my.index q", "--threshold"),
        ("label rows.jsonl --to g.jsonl --url http://localhost:9 --grader g", "--timeout"),
        ("label rows.jsonl --to g.jsonl --url http://localhost:9 --grader g", "--price 1"),
        ("tune rows.jsonl", "--rate"),
        ("tune rows.jsonl", "--effort"),
        ("tune rows.jsonl", "--confidence"),
        ("tune rows.jsonl", "--most-loss"),
        ("serve", "--deadline"),
        ("serve", "--drain"),
        ("serve", "--linger"),
    ],
)
def test_what_is_not_a_finite_number_is_refused(command: str, option: str) -> None:
    # NaN passed every range: a budget was ignored, a time out ended in a traceback.
    for value in ("nan", "inf"):
        assert option.split()[0] in refused(*command.split(), *option.split(), value).output
    assert "nan is not a finite number" in refused(*command.split(), *option.split(), "nan").output


@pytest.mark.parametrize("option", ["--deadline", "--drain", "--linger"])
def test_no_time_of_the_server_is_longer_than_a_day(option: str) -> None:
    assert "1e9 is more than 86,400 seconds, a day" in refused("serve", option, "1e9").output


def test_a_variable_is_a_number_too() -> None:
    assert "CROSSRANK_BUDGET_MS" in refused("rerank", "q", "passages.txt", env={"CROSSRANK_BUDGET_MS": "nan"}).output
