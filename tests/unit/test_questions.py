"""What one call has asked a language model: what counts, and when to ask no more. No server, and no thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from apiserver import completion
from crossrank.errors import RemoteError
from crossrank.verdicts import UnreadableError

pytest.importorskip("httpx", reason="needs the llm extra")

from crossrank.questions import Questions


def refused(status: int, tries: int = 1, message: str = "no") -> RemoteError:
    return RemoteError(message, status, tries)


def asked(*turns: Any, together: int = 1) -> tuple[Questions, list[str]]:
    """Questions that got these answers, one after the other, and what became of each."""
    left = iter(turns)

    def ask(messages: object, stop: threading.Event) -> tuple[Mapping[str, Any], int]:
        turn = next(left)
        if isinstance(turn, RemoteError):
            raise turn
        return turn, 1

    call = Questions(ask, None, together)
    became = []
    for _ in turns:
        try:
            became.append(call.text([]))
        except UnreadableError:
            became.append("kept")
        except RemoteError:
            became.append("over")
    return call, became


@pytest.mark.parametrize("status", [301, 401, 402, 404, 405, 410])
def test_what_no_other_question_would_fare_better_with_ends_them(status: int) -> None:
    assert asked(refused(status))[1] == ["over"]


@pytest.mark.parametrize("status", [400, 403, 413, 422, 429, 500, 0])
def test_what_another_question_may_fare_better_with_does_not(status: int) -> None:
    assert asked(refused(status), completion("yes"), refused(status))[1] == ["kept", "yes", "kept"]


@pytest.mark.parametrize(("together", "patience"), [(1, 5), (2, 5), (4, 8)])
def test_a_dead_server_is_given_up_after_twice_as_many_as_are_under_way(together: int, patience: int) -> None:
    statuses = [0, 503, 429] * 3
    _, became = asked(*map(refused, statuses), together=together)
    assert became.index("over") == patience - 1, "whatever keeps it from answering"
    # Of other refusals five are enough, however many are under way.
    assert asked(*[refused(422)] * 6, together=together)[1].index("over") == 4


def test_what_it_cost() -> None:
    silent, half = {**completion("a"), "usage": None}, {**completion("b"), "usage": {"prompt_tokens": 3}}
    full = {**completion("c"), "usage": {"prompt_tokens": 10, "completion_tokens": 2}}
    call, became = asked(refused(503, tries=4, message="first"), silent, half, full, refused(400, message="second"))
    assert became == ["kept", "a", "b", "c", "kept"]
    assert (call.questions, call.requests, call.answers) == (5, 8, 3)
    assert (call.prompt_tokens, call.completion_tokens, call.uncounted) == (10, 2, 2)
    assert str(call.refused) == "first"
