"""The gate: what is foreseen, and who is refused because of it."""

from __future__ import annotations

import pytest

from crossrank.server.limits import Gate, Limits
from crossrank.server.refusals import RefusedError
from crossrank.server.scheduler import Scheduler


@pytest.fixture
def gate() -> Gate:
    """Of a backend that computes 1000 tokens a second."""
    scheduler = Scheduler(batch_tokens=1024)
    scheduler.rate = 1000.0
    return Gate(Limits(), scheduler)


def refused(gate: Gate, estimate: int, seconds: float) -> bool:
    try:
        with gate.admitted(estimate, seconds):
            return False
    except RefusedError as refusal:
        return refusal.status == 429 and refusal.retry_after is not None


def test_the_end_of_a_deadline_is_not_planned_away(gate: Gate) -> None:
    # Admitted up to its last moment, a tenth to a fifth of the requests of an overloaded server were late.
    with gate.admitted(1000, 60.0):
        assert not refused(gate, 1000, 2.8)
        assert refused(gate, 1000, 2.5)


def test_what_requests_took_lately_is_foreseen(gate: Gate) -> None:
    assert gate.slip == 1.0
    for _ in range(60):
        with gate.admitted(1000, 60.0) as ticket:
            # Three seconds instead of one: tokenizing, or another program on the machine.
            ticket.arrived -= 3.0
    assert gate.slip == pytest.approx(3.0, rel=0.02)
    with gate.admitted(1000, 60.0):
        assert refused(gate, 1000, 7.5)
        assert not refused(gate, 1000, 8.5)


def test_who_leaves_and_who_is_quick_teach_nothing(gate: Gate) -> None:
    with gate.admitted(1000, 60.0) as ticket:
        ticket.arrived -= 30.0
        ticket.cancelled = True
    with gate.admitted(1, 60.0) as ticket:
        ticket.arrived -= 0.04
    assert gate.slip == 1.0


def test_a_server_with_nothing_else_to_do_tries(gate: Gate) -> None:
    with gate.admitted(1000, 60.0) as ticket:
        ticket.arrived -= 1000.0
    assert gate.slip > 100
    assert not refused(gate, 1000, 1.1)
