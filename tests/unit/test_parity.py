"""Agreement of scores and orders: Kendall's tau, near ties told from mistakes, and `crossrank check` end to end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from crossrank import backends, extras
from crossrank.cli import checkdata, root
from crossrank.errors import InputError, ReadError, ScoreError
from crossrank.parity import MOVES, NEAR, Way, compare, moves, near, spread


def way(tolerance: float = 0.1) -> Way:
    return Way("w", lambda pairs: np.zeros(len(pairs), np.float32), tolerance)


def floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_equal_scores_agree_blank_ones_too() -> None:
    scores = floats(1, -np.inf, 2, -np.inf, 0)
    found = compare(way(0.0), scores, scores, [3, 2])
    assert found.ok
    assert (found.largest, found.tau, found.same_first, found.same_order, found.swaps) == (0.0, 1.0, 2, 2, ())


def test_a_near_tie_may_change_places_and_nothing_else() -> None:
    judge = floats(3.0, 1.0, 0.9, -3.0)
    near_tie = compare(way(), floats(3.0, 0.93, 0.95, -3.0), judge, [4])
    assert near_tie.ok
    assert [(swap.first, swap.second) for swap in near_tie.swaps] == [(1, 2)]
    assert near_tie.swaps[0].gap == pytest.approx(0.1)
    assert (near_tie.ties, near_tie.same_first, near_tie.same_order) == (1, 1, 0)
    wrong = compare(way(), floats(0.8, 1.0, 0.9, -3.0), judge, [4])
    assert not wrong.ok
    assert wrong.largest == pytest.approx(2.2)
    assert [(swap.first, swap.second) for swap in wrong.swaps] == [(0, 2), (0, 1)]
    assert wrong.ties == 0


def test_a_score_that_is_missing_on_one_side_is_infinitely_far() -> None:
    found = compare(way(), floats(1, 2), floats(1, -np.inf), [2])
    assert (found.ok, found.largest) == (False, np.inf)


def test_nan_and_shapes_are_refused() -> None:
    with pytest.raises(ScoreError, match="NaN"):
        compare(way(), floats(1, np.nan), floats(1, 2), [2])
    with pytest.raises(InputError, match="shapes"):
        compare(way(), floats(1, 2), floats(1, 2), [3])
    assert compare(way(), floats(), floats(), []).ok


def test_a_tolerance_is_found_by_the_name_of_a_backend() -> None:
    assert near("cpu (avx2, float32)") == NEAR["float32"]
    assert near("torch (cuda, float16)") == NEAR["float16"]
    assert near("fake (hash of the ids)") == min(NEAR.values())
    assert moves("torch (cpu, float32)") == MOVES["torch"]
    assert spread(floats(-np.inf)) == 1.0


# The command ------------------------------------------------------------------------------------------------------


def run(*args: str, code: int = 0) -> str:
    result = CliRunner().invoke(root, ["check", *args], prog_name="crossrank")
    assert result.exit_code == code, result.output
    return result.stdout


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an install without the extra, also when another test has loaded the backend."""
    available = extras.available
    absent = ("torch", "transformers")
    monkeypatch.setattr("crossrank.extras.available", lambda name: name not in absent and available(name))
    monkeypatch.delitem(sys.modules, "crossrank.backends.torch", raising=False)
    monkeypatch.delattr(backends, "torch", raising=False)


@pytest.fixture
def data(tmp_path: Path) -> str:
    file = tmp_path / "data.jsonl"
    documents = [
        "paris is the capital.",
        "",
        "\u200b",
        "bread",
        {"title": "a cat", "text": "of the planet"},
        "yeast " * 100,
    ]
    rows = [{"query": query, "documents": documents} for query in ("what is paris?", "the cat")]
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return str(file)


def test_every_way_is_compared(cross_encoder_folder: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The random weights of the tiny model are nothing that bfloat16 was made for.
    monkeypatch.setitem(NEAR, "bfloat16", 0.5)
    without_torch(monkeypatch)
    report = json.loads(run(str(cross_encoder_folder), "--data", data, "--json"))
    assert (report["ok"], report["queries"], report["pairs"]) == (True, 2, 12)
    assert report["judge"].startswith("reference")
    assert set(report["skipped"]) >= {"torch (float32)", "torch (bfloat16)"}
    names = [one["name"] for one in report["ways"]]
    if extras.available("uvicorn"):
        assert names[-1].startswith("HTTP server: ")
        assert report["ways"][-1].get("from_library", 0.0) == 0.0
    for one in report["ways"]:
        assert one["ok"]
        assert 0 <= one["largest"] <= one["limit"]


def test_a_way_that_disagrees_fails(cross_encoder_folder: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossrank.backends.reference import Reference

    monkeypatch.setitem(NEAR, "float32", 1e-12)
    monkeypatch.setitem(NEAR, "bfloat16", 1e-12)
    without_torch(monkeypatch)
    # The judge is given noise, so that all others are wrong, whichever there are.
    forward = Reference.forward
    noise = np.random.default_rng(0)
    monkeypatch.setattr(
        Reference, "forward", lambda self, tokens: forward(self, tokens) + noise.random(len(tokens), np.float32)
    )
    out = run(str(cross_encoder_folder), "--data", data, code=1)
    assert "differs" in out


def test_a_way_that_gives_nan_is_a_failure_and_not_left_out(
    cross_encoder_folder: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossrank.cli import check

    def ways(read: object, threads: object, no_server: object) -> Iterator[tuple[str, object]]:
        for name, value in (("judge", 1.0), ("same", 1.0), ("bad", np.nan)):
            yield name, nullcontext(SimpleNamespace(name=name, near=1e-4, score=partial(scores, value)))

    def scores(value: float, pairs: list[tuple[str, str]]) -> np.ndarray:
        if np.isnan(value):
            raise ScoreError("gives NaN")
        return np.full(len(pairs), value, np.float32)

    monkeypatch.setattr(check, "_ways", ways)
    report = json.loads(run(str(cross_encoder_folder), "--data", data, "--json", code=1))
    assert (report["ok"], report["failed"], report["skipped"]) == (False, {"bad": "gives NaN"}, {})
    assert [one["ok"] for one in report["ways"]] == [True]


def test_a_bi_encoder_is_refused(bi_encoder_folder: Path) -> None:
    result = CliRunner().invoke(root, ["check", str(bi_encoder_folder)], prog_name="crossrank")
    assert result.exit_code == 1
    assert "is a bi-encoder model, and check compares the scores of cross-encoders" in result.output


def test_data_that_cannot_be_read_is_told(tmp_path: Path, cross_encoder_folder: Path) -> None:
    file = tmp_path / "data.jsonl"
    for text, message in (
        ("", "no rows"),
        ("{", "not a JSON row"),
        ('{"query": "q", "documents": []}', "a row is an object"),
        ('{"query": " ", "documents": ["a"]}', "empty"),
        ('{"query": "q", "documents": [7]}', "document 0"),
        ('{"query": "q", "documents": ["a", {"title": "no text"}]}', "data.jsonl:1: document 1 is neither"),
        ('{"query": "q", "documents": ["a"]}\n\n' + "[" * 100_000, "data.jsonl:3 is not a JSON row"),
    ):
        file.write_text(text)
        with pytest.raises(ReadError, match=message):
            checkdata.read(str(file))
    assert len(checkdata.SAMPLE) > 5


def test_documents_are_read_with_their_titles_and_blank_lines_are_none(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    objects = '{"title": "Tea", "text": "It is hot."}, {"title": null, "text": "Bread."}, {"text": "Rain."}, ""'
    file.write_text(f'\n{{"query": "tea?", "documents": [{objects}]}}\n  \n')
    assert checkdata.read(str(file)) == [checkdata.Asked("tea?", ("Tea. It is hot.", "Bread.", "Rain.", ""))]


def test_what_is_wrong_with_rows_of_a_pipe_is_told_of_stdin() -> None:
    result = CliRunner().invoke(root, ["check", "tiny", "--data", "-"], input='{"query": 7}\n', prog_name="crossrank")
    assert result.exit_code == 1
    assert "stdin:1: a row is an object" in result.output
