"""Options that cannot be obeyed: refused by name and before any work, never passed over."""

from __future__ import annotations

import json
import logging
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from crossrank.cli import root, terminal
from crossrank.cli.options import Count
from crossrank.server.lines import Line


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
        ("calibrate small rows.jsonl --to m", "--most-lost"),
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


def test_no_count_is_beyond_32_bits() -> None:
    """A depth was told to be a damaged index, and a window ended in a traceback."""
    for args in (
        ("search", "my.index", "q", "--depth", "9223372036854775807"),
        ("search", "my.index", "q", "-k", "2147483648"),
        ("rerank", "q", "passages.txt", "--window", "100000000000000000000"),
        ("rerank", "q", "passages.txt", "--max-length", "100000000000000000000"),
    ):
        assert f"{args[-1]} is more than 2,147,483,647" in refused(*args).output
    # Whatever command has one; a body may have more bytes.
    groups: list[click.Command] = [root]
    for command in groups:
        groups += command.commands.values() if isinstance(command, click.Group) else ()
        open_ended = {
            one.name
            for one in command.params
            if isinstance(one.type, click.IntRange) and one.type.max is None and not isinstance(one.type, Count)
        }
        assert open_ended <= {"max_body"}, command.name


def test_a_variable_is_a_number_too() -> None:
    assert "CROSSRANK_BUDGET_MS" in refused("rerank", "q", "passages.txt", env={"CROSSRANK_BUDGET_MS": "nan"}).output


@pytest.mark.parametrize(
    "typed",
    ["--model fast", "--coarse fast", "--mix 0.5", "--cache scores.db", "--on-error keep", "--threshold 0.5"],
)
def test_a_search_without_a_cross_encoder_refuses_its_options(typed: str) -> None:
    # All but the last were swallowed.
    option = typed.split()[0]
    said = refused("search", "my.index", "q", "--no-rerank", *typed.split()).output
    assert "--no-rerank leaves out the cross-encoder" in said
    assert option in said


def test_what_the_environment_says_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    found = CliRunner().invoke(
        root, ["search", "no.index", "q", "--no-rerank"], env={"CROSSRANK_MODEL": "fast", "CROSSRANK_CACHE": "c"}
    )
    assert (found.exit_code, "no.index" in found.output) == (1, True)


@pytest.mark.parametrize("typed", ["--models fast", "--mix 0.5", "--cascade a>b"])
def test_an_evaluation_of_first_stages_refuses_options_of_reranking(tmp_path: Path, typed: str) -> None:
    source = [["eval", str(tmp_path), "--no-rerank"], ["eval", "--run", "a=passages.txt", "--qrels", "passages.txt"]]
    for args in source:
        assert f"reranking that {typed.split()[0]} is for" in refused(*args, *typed.split()).output


def test_windows_of_rerank_are_longer_than_their_overlap(cross_encoder_folder: Path) -> None:
    asked = ["rerank", "q", "passages.txt", "--backend", "fake", "-m", str(cross_encoder_folder), "--window"]
    for window in ("50", "1", "100"):
        # The default overlap of 100 was an error of the input.
        assert CliRunner().invoke(root, [*asked, window]).exit_code == 0
    assert "--overlap 50 must be less than --window 50" in refused(*asked, "50", "--overlap", "50").output


@pytest.mark.parametrize("variable", ["1", ""])
def test_no_color_is_obeyed_on_stderr(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    # Warnings and errors were coloured all the same; the standard asks for a variable that is not empty.
    monkeypatch.setenv("NO_COLOR", variable)
    warned = CliRunner().invoke(click.Command("told", callback=lambda: terminal.warn("it was cut")), color=True)
    failed = CliRunner().invoke(root, ["search", "no.index", "q", "--no-rerank"], color=True)
    for shown in (warned.output, failed.output):
        assert ("\x1b[" in shown) is (variable == "")


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors of POSIX")
def test_a_closed_stdout_is_an_error_where_something_is_to_be_printed() -> None:
    # The output was lost, and the exit code was 0.
    for args in (["models"], ["--help"], ["models", "--json"]):
        command = shlex.join([sys.executable, "-m", "crossrank.cli", *args])
        done = subprocess.run(f"{command} >&-", shell=True, capture_output=True, text=True, check=False)
        assert (done.returncode, "stdout is closed" in done.stderr) == (1, True), done.stderr
        assert "Traceback" not in done.stderr
    quiet = f"{shlex.join([sys.executable, '-m', 'crossrank.cli'])} rerank q passages.txt -m ./none >&-"
    assert "none" in subprocess.run(quiet, shell=True, capture_output=True, text=True, check=False).stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_who_does_not_read_costs_no_exit_code() -> None:
    """`crossrank tune few.csv --check | true` said that the data can be tuned on."""
    for how in ("", " --json"):
        command = f"{shlex.join([sys.executable, '-m', 'crossrank.cli'])} tune rows.jsonl --check{how}"
        # The reader has left before anything is printed.
        done = subprocess.run(
            f"{{ sleep 1; {command}; echo $? >&2; }} | true", shell=True, capture_output=True, text=True, check=False
        )
        assert done.stderr.splitlines()[-1] == "4", done.stderr
        assert "Broken pipe" not in done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "utf-8", "utf-16-le"])
def test_json_is_json_in_every_encoding(
    encoding: str, monkeypatch: pytest.MonkeyPatch, cross_encoder_folder: Path
) -> None:
    """What cp1252 cannot hold was escaped as Python has it, such as \\U0001f600."""
    text = "caf\u00e9 \U0001f600"
    Path("p.txt").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    command = [sys.executable, "-m", "crossrank.cli", "rerank", "q", "p.txt", "--json", "--backend", "fake"]
    done = subprocess.run([*command, "-m", str(cross_encoder_folder)], capture_output=True, check=True)
    assert json.loads(done.stdout.decode(encoding))["text"] == text


def test_the_log_of_the_server_below_is_lines_of_json() -> None:
    record = logging.makeLogRecord({"msg": "Invalid HTTP request received.", "levelname": "WARNING"})
    told = json.loads(Line().format(record))
    assert (told["level"], told["message"]) == ("warning", "Invalid HTTP request received.")


def test_a_command_that_was_meant_is_named() -> None:
    assert "Did you mean 'rerank'?" in refused("rerenk").output
    assert "Did you mean" not in refused("xyz").output


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [(("models", "exprt"), "export"), (("bulk", "rerenk"), "rerank"), (("bulk", "idnex"), "index")],
)
def test_a_command_of_a_group_that_was_meant_is_named(mistyped: tuple[str, str], meant: str) -> None:
    said = refused(*mistyped).output
    assert f"no command {mistyped[1]!r}; there " in said
    assert f"Did you mean {meant!r}?" in said
    assert "Did you mean" not in refused(mistyped[0], "xyz").output
