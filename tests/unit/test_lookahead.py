"""The next part is made while one is worked on; no thread outlives the call."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from crossrank.lookahead import lookahead


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("crossrank-lookahead")}


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_results_come_in_order(count: int) -> None:
    assert list(lookahead(str, range(count))) == [str(n) for n in range(count)]
    assert not threads()


def test_one_item_needs_no_thread() -> None:
    seen = [threading.current_thread() for _ in lookahead(str, [1])]
    where = list(lookahead(lambda _: threading.current_thread(), ["only"]))
    assert where == seen == [threading.current_thread()]


def test_the_next_is_made_meanwhile() -> None:
    began = {n: threading.Event() for n in range(3)}
    made = lookahead(lambda n: began[n].set(), range(3))
    with closing(made):
        next(made)
        assert began[1].wait(20), "item 1 is made while item 0 is worked on"
        assert not began[2].is_set(), "and no further"
        next(made)
        assert began[2].wait(20)


def test_an_exception_comes_where_its_result_would_have() -> None:
    def make(n: int) -> int:
        return 10 // (2 - n)

    made = lookahead(make, range(4))
    assert [next(made), next(made)] == [5, 10]
    with pytest.raises(ZeroDivisionError):
        next(made)
    assert not threads()


def test_no_thread_is_left_when_the_work_on_a_part_fails() -> None:
    def work() -> None:
        with closing(lookahead(str, range(5))) as made:
            for _ in made:
                assert threads()
                raise KeyError("work")

    with pytest.raises(KeyError):
        work()
    assert not threads()
