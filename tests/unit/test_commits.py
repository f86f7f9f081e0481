"""A kill costs seconds of work, however slow the machine is; no commit holds half a document."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.types import Passage

pytest.importorskip("lance", reason="needs the search extra")

from crossrank.index import commits
from crossrank.index.commits import COMMIT_PASSAGES, COMMIT_SECONDS, Commits
from crossrank.index.records import Row


class Machine:
    """A clock, an embedder that takes its time by it, and a table that notes when it was given what."""

    width = 4
    fingerprint = "machine"
    settings = SimpleNamespace(width=4)

    def __init__(self, paces: Sequence[float]) -> None:
        self.now = 100.0
        self.paces = list(paces)
        self.calls: list[int] = []
        self.came: dict[str, float] = {}
        self.put_at: list[tuple[float, list[str]]] = []
        self.replaced: list[str] = []

    def clock(self) -> float:
        return self.now

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        pace = self.paces[min(len(self.calls), len(self.paces) - 1)]
        self.calls.append(len(texts))
        self.now += pace * len(texts)
        return np.array([[float(text.split("-")[1]), 1, 2, 3] for text in texts], dtype=np.float32)

    def put(self, rows: Sequence[Row], vectors: NDArray[np.float32], replaced: Sequence[str], late: object) -> None:
        assert late is None
        # Each vector is of its own passage.
        assert [float(row.passage.text.split("-")[1]) for row in rows] == vectors[:, 0].tolist()
        self.put_at.append((self.now, [row.passage.document for row in rows]))
        self.replaced += replaced

    def run(self, sizes: Sequence[int], reading: float = 0.0) -> list[list[str]]:
        """Feed documents of so many passages, `reading` seconds apart; give the documents of each commit."""
        table: Any = self
        made = Commits(table, self, lambda: None, lambda count: None, self.clock)
        number = 0
        for place, size in enumerate(sizes):
            self.now += reading
            rows = []
            for _ in range(size):
                number += 1
                passage = Passage(f"p{number}", f"text-{number}", document=f"d{place}")
                rows.append(Row(passage, np.zeros(1, np.int32), "", "", 0, 0))
            if rows:
                self.came[f"d{place}"] = self.now
                made.add(rows, f"d{place}" if place % 2 else None)
            made.advance()
        made.commit()
        made.commit()  # Nothing is left: nothing is put.
        return [documents for _, documents in self.put_at]


@pytest.mark.parametrize("pace", [0.0001, 0.01, 0.34, 3.0])
def test_no_passage_waits_longer_than_promised(pace: float) -> None:
    machine = Machine([pace])
    machine.run([1] * 400)
    # Nothing is known of the pace before the first call.
    waits = [
        now - machine.came[document]
        for now, documents in machine.put_at
        for document in documents
        if int(document[1:]) >= commits._FIRST_CALL
    ]
    assert max(waits) <= COMMIT_SECONDS
    assert max(machine.calls[1:]) * pace <= max(commits._CALL_SECONDS, pace) + 1e-9


def test_a_fast_machine_makes_large_calls_and_commits() -> None:
    machine = Machine([0.0001])
    put = machine.run([1] * 3 * COMMIT_PASSAGES)
    assert [len(documents) for documents in put] == [COMMIT_PASSAGES] * 3
    assert max(machine.calls) == commits._MOST_A_CALL


def test_a_machine_that_becomes_busy_is_believed_at_once() -> None:
    machine = Machine([0.01] * 4 + [0.34])
    machine.run([1] * 600)
    assert max(size for size in machine.calls[6:]) <= int(1 / 0.34)
    gaps = np.diff([now for now, _ in machine.put_at])
    # One call of 100 passages was under way when the pace changed: 34 s that nobody could foresee.
    assert sorted(gaps)[-2] <= COMMIT_SECONDS


def test_work_does_not_wait_while_nothing_new_is_found() -> None:
    machine = Machine([0.01])
    machine.run([1] + [0] * 100, reading=1.0)
    ((now, _),) = machine.put_at
    assert now - machine.came["d0"] < COMMIT_SECONDS + 2, "one document's reading, a second, and one call more"


def test_a_large_document_does_not_keep_the_one_before_it_waiting() -> None:
    machine = Machine([0.1])
    put = machine.run([20, 1, 500, 1])
    assert put[0] == ["d0"] * 20 + ["d1"]
    assert put[1][:500] == ["d2"] * 500


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 300), max_size=30),
    st.lists(st.floats(0, 2), min_size=1, max_size=20),
    st.floats(0, 20),
)
def test_every_document_is_committed_once_and_whole(sizes: list[int], paces: list[float], reading: float) -> None:
    machine = Machine(paces)
    put = machine.run(sizes, reading)
    assert [document for documents in put for document in documents] == [
        f"d{place}" for place, size in enumerate(sizes) for _ in range(size)
    ]
    homes = [set(documents) for documents in put]
    assert sum(map(len, homes)) == len(set().union(*homes))
    assert all(put)
    assert machine.replaced == [f"d{place}" for place, size in enumerate(sizes) if size and place % 2]
    assert max(machine.calls, default=1) <= commits._MOST_A_CALL


def test_vectors_that_are_none_are_refused() -> None:
    machine: Any = Machine([0.0])
    machine.settings = SimpleNamespace(width=5)
    with pytest.raises(InputError, match=r"expected \(1, 5\) finite"):
        machine.run([1])
