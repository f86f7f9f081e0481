"""The scheduler: who shares a batch, who goes first, and what becomes of those who leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crossrank.backends.fake import Fake
from crossrank.errors import ScoreError
from crossrank.server.batches import LARGE_BATCHES, Lane, Part, Work, choose
from crossrank.server.refusals import CancelledRequestError, RefusedError
from crossrank.server.scheduler import Scheduler, Shared
from crossrank.server.speeds import Speed
from crossrank.server.tickets import Ticket, carried, working
from crossrank.types import Tokens

LANE = Lane(Speed("score"), Fake().forward, padded=False)


def tokens(*lengths: int, first: int = 7) -> Tokens:
    return Tokens.of([[first, *range(10, 10 + length - 1)] for length in lengths])


def work(lengths: list[int], number: int = 1, seconds: float = 60.0, estimate: int = 0, lane: Lane = LANE) -> Work:
    packed = tokens(*lengths)
    return Work(lane, packed, packed.lengths, Ticket(deadline=seconds, costs={lane.speed: estimate}), number)


def chosen(waiting: list[Work], batch_tokens: int, turns: dict[int, int] | None = None) -> tuple[Lane, list[Part]]:
    for one in waiting:
        one.lane.speed.batch_tokens = batch_tokens
    return choose(waiting, turns)


def shared(backend: Any, scheduler: Scheduler, batch_tokens: int = 100) -> Shared:
    return Shared(backend, scheduler, Speed("score", batch_tokens=batch_tokens))


def rows(parts: Any) -> list[tuple[int, int, int]]:
    return [(part.work.number, part.begin, part.end) for part in parts]


class Held:
    """A backend that computes only when it is let: `let(n)` batches; it keeps what it was given."""

    name = "held"
    padded = False

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self._free = threading.Semaphore(0)

    def let(self, batches: int) -> None:
        for _ in range(batches):
            self._free.release()

    def forward(self, packed: Tokens) -> NDArray[np.float32]:
        self.seen.append([int(packed.row(i)[0]) for i in range(len(packed))])
        self.entered.release()
        assert self._free.acquire(timeout=30)
        if any(999 in packed.row(i) for i in range(len(packed))):
            raise ScoreError("a bad sequence")
        return Fake().forward(packed)

    def pool(self, packed: Tokens, pooling: Any) -> NDArray[np.float32]:
        return Fake().pool(packed, pooling)


@pytest.fixture
def held() -> Iterator[tuple[Held, Scheduler, ThreadPoolExecutor]]:
    backend = Held()
    scheduler = Scheduler()
    scheduler.start()
    with ThreadPoolExecutor(16) as pool:
        yield backend, scheduler, pool
        backend.let(1000)
    scheduler.stop()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it did not happen in 20 s"
        time.sleep(0.002)


# choosing


def test_the_shortest_deadline_goes_first_and_equal_ones_in_order_of_arrival() -> None:
    waiting = [work([40], 1, 50), work([40], 2, 10), work([40], 3, 50)]
    assert rows(chosen(waiting, 80)[1]) == [(2, 0, 1), (1, 0, 1)]


def test_a_batch_takes_part_of_a_request() -> None:
    assert rows(chosen([work([40, 40, 40], 1), work([40], 2)], 100)[1]) == [(1, 0, 2)]


def test_a_sequence_longer_than_the_budget_gets_a_batch_of_its_own() -> None:
    assert rows(chosen([work([400, 40], 1)], 100)[1]) == [(1, 0, 1)]


def test_small_requests_go_before_a_large_one_that_came_first_but_leave_it_its_share() -> None:
    large = work([10] * 90, 1, seconds=1, estimate=LARGE_BATCHES * 100 + 1)
    small = [work([10] * 10, number, seconds=60) for number in (2, 3)]
    assert rows(chosen([large, *small], 100)[1]) == [(2, 0, 7), (1, 0, 3)]
    # What small ones do not need goes to the large one.
    assert rows(chosen([large, work([10] * 2, 2)], 100)[1]) == [(2, 0, 2), (1, 0, 8)]
    assert rows(chosen([large], 100)[1]) == [(1, 0, 10)]
    # What the large one does not need goes to small ones: a batch is full when enough waits.
    last = work([10], 1, seconds=1, estimate=LARGE_BATCHES * 100 + 1)
    assert rows(chosen([last, work([10] * 20, 2)], 100)[1]) == [(2, 0, 9), (1, 0, 1)]


def test_padding_counts_where_the_backend_pads() -> None:
    lane = Lane(Speed("score"), Fake().forward, padded=True)
    assert rows(chosen([work([50, 10, 10, 10], 1, lane=lane)], 100)[1]) == [(1, 0, 2)]


def test_lanes_take_turns() -> None:
    other = Lane(Speed("embed"), Fake().forward, padded=False)
    waiting = [work([10], 1, seconds=1), work([10], 2, seconds=60, lane=other)]
    assert chosen(waiting, 100, {})[0] is LANE
    assert chosen(waiting, 100, {id(LANE): 1})[0] is other
    assert chosen(waiting, 100, {id(LANE): 1, id(other): 2})[0] is LANE


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(1, 5), st.integers(0, 900)),
        min_size=1,
        max_size=8,
    ),
    st.integers(20, 200),
)
def test_every_sequence_is_computed_once_and_no_batch_is_over_budget(asked: Any, budget: int) -> None:
    waiting = [work(lengths, number, due, size) for number, (lengths, due, size) in enumerate(asked)]
    done: list[tuple[int, int]] = []
    while waiting:
        _, parts = chosen(waiting, budget)
        taken = [(p.work.number, row, int(p.work.lengths[row])) for p in parts for row in range(p.begin, p.end)]
        assert taken
        assert sum(length for _, _, length in taken) <= budget or len(taken) == 1
        done += [(number, row) for number, row, _ in taken]
        for part in parts:
            part.work.given = part.end
        waiting = [one for one in waiting if one.given < len(one.lengths)]
    assert sorted(done) == [(n, row) for n, (lengths, _, _) in enumerate(asked) for row in range(len(lengths))]


# sharing


def test_requests_share_batches_and_get_their_own_scores() -> None:
    scheduler = Scheduler()
    queue = shared(Fake(), scheduler, 300)
    scheduler.start()
    asked = [tokens(*range(3, 3 + n), first=n) for n in range(1, 40)]

    def ask(packed: Tokens) -> NDArray[np.float32]:
        with working(Ticket.lasting(60)):
            return queue.forward(packed)

    with ThreadPoolExecutor(16) as pool:
        for packed, scores in zip(asked, pool.map(ask, asked), strict=True):
            assert scores.tolist() == Fake().forward(packed).tolist()
    assert queue.pool(asked[3], "mean").tolist() == Fake().pool(asked[3], "mean").tolist()
    assert queue.forward(Tokens.of([])).shape == (0,)
    scheduler.stop()


def test_what_waits_meanwhile_shares_one_batch(held: Any) -> None:
    backend, scheduler, pool = held
    queue = shared(backend, scheduler)
    first = pool.submit(queue.forward, tokens(5, first=1))
    assert backend.entered.acquire(timeout=20)
    rest = [pool.submit(queue.forward, tokens(5, first=n)) for n in (2, 3, 4)]
    until(lambda: scheduler.queued_tokens == 15 + 5)
    backend.let(2)
    for future in (first, *rest):
        assert future.result(timeout=20).shape == (1,)
    assert [sorted(batch) for batch in backend.seen] == [[1], [2, 3, 4]]


def test_a_cancelled_request_is_dropped_from_the_queue(held: Any) -> None:
    backend, scheduler, pool = held
    queue = shared(backend, scheduler)
    first = pool.submit(queue.forward, tokens(5, first=1))
    assert backend.entered.acquire(timeout=20)
    ticket = Ticket.lasting(60)

    def ask() -> NDArray[np.float32]:
        with working(ticket):
            return queue.forward(tokens(5, first=2))

    leaver = pool.submit(ask)
    until(lambda: scheduler.queued_tokens == 10)
    scheduler.cancel(ticket)
    backend.let(1)
    first.result(timeout=20)
    with pytest.raises(CancelledRequestError):
        leaver.result(timeout=20)
    assert backend.seen == [[1]]
    assert scheduler.queued_tokens == 0


def test_what_is_late_is_told_so_and_not_computed(held: Any) -> None:
    backend, scheduler, pool = held
    queue = shared(backend, scheduler)
    first = pool.submit(queue.forward, tokens(5, first=1))
    assert backend.entered.acquire(timeout=20)

    def ask() -> NDArray[np.float32]:
        with working(Ticket.lasting(0.05)):
            return queue.forward(tokens(5, first=2))

    with pytest.raises(RefusedError) as refused:
        pool.submit(ask).result(timeout=20)
    assert refused.value.status == 503
    backend.let(1)
    first.result(timeout=20)
    assert backend.seen == [[1]]


def test_a_bad_sequence_fails_its_own_request_only(held: Any) -> None:
    backend, scheduler, pool = held
    queue = shared(backend, scheduler)
    first = pool.submit(queue.forward, tokens(5, first=1))
    assert backend.entered.acquire(timeout=20)
    bad = pool.submit(queue.forward, tokens(5, first=999))
    good = pool.submit(queue.forward, tokens(5, first=3))
    until(lambda: scheduler.queued_tokens == 15)
    backend.let(4)
    first.result(timeout=20)
    with pytest.raises(ScoreError):
        bad.result(timeout=20)
    assert good.result(timeout=20).tolist() == Fake().forward(tokens(5, first=3)).tolist()


def test_a_large_request_neither_blocks_small_ones_nor_starves(held: Any) -> None:
    backend, scheduler, pool = held
    queue = shared(backend, scheduler)

    def ask(packed: Tokens, estimate: int) -> NDArray[np.float32]:
        with working(Ticket.lasting(60, {queue._forward.speed: estimate})):
            return queue.forward(packed)

    large = pool.submit(ask, tokens(*[10] * 80, first=1), 800)
    assert backend.entered.acquire(timeout=20)
    small = [pool.submit(ask, tokens(*[10] * 10, first=2), 100) for _ in range(4)]
    until(lambda: scheduler.queued_tokens == 800 + 400)
    backend.let(1000)
    for future in (*small, large):
        future.result(timeout=20)
    shares = [(batch.count(1), batch.count(2)) for batch in backend.seen]
    assert shares[0] == (10, 0)
    while_both = shares[1 : next(i for i, (_, s) in enumerate(shares[1:], 1) if s == 0)]
    assert all(1 <= one <= 9 for one, _ in while_both[:-1])
    assert sum(two for _, two in while_both) == 40
    assert len(while_both) <= 7


def test_a_stopped_scheduler_finishes_what_waits_and_takes_nothing_new() -> None:
    backend = Held()
    scheduler = Scheduler()
    queue = shared(backend, scheduler, 10)
    with pytest.raises(RefusedError):
        queue.forward(tokens(5))
    scheduler.start()
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(queue.forward, tokens(8, first=n)) for n in (1, 2, 3)]
        assert backend.entered.acquire(timeout=20)
        until(lambda: scheduler.queued_tokens == 24)
        ending = pool.submit(scheduler.stop)
        until(lambda: scheduler._stopping)
        with pytest.raises(RefusedError) as refused:
            queue.forward(tokens(5))
        assert refused.value.status == 503
        backend.let(3)
        ending.result(timeout=20)
        assert [future.result(timeout=20).shape for future in futures] == [(1,)] * 3


def test_no_memory_to_join_a_batch_fails_its_requests_only(held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # It ended the one thread, and every later request waited for its whole deadline.
    backend, scheduler, pool = held
    queue = shared(backend, scheduler)
    first = pool.submit(queue.forward, tokens(5, first=1))
    assert backend.entered.acquire(timeout=20)
    rest = [pool.submit(queue.forward, tokens(5, first=n)) for n in (2, 3)]
    until(lambda: scheduler.queued_tokens == 15)
    with monkeypatch.context() as patch:
        patch.setattr("crossrank.server.scheduler.joined", lambda parts: (_ for _ in ()).throw(MemoryError))
        backend.let(1)
        for future in rest:
            with pytest.raises(MemoryError):
                future.result(timeout=20)
    assert first.result(timeout=20).shape == (1,)
    backend.let(1)
    assert pool.submit(queue.forward, tokens(5)).result(timeout=20).shape == (1,)


def test_what_failed_teaches_no_speed(held: Any) -> None:
    backend, scheduler, _ = held
    backend.let(1)
    with pytest.raises(ScoreError):
        (queue := shared(backend, scheduler)).forward(tokens(50, first=999))
    assert queue._forward.speed.rate == 0.0


def test_a_queue_without_its_thread_takes_nothing() -> None:
    scheduler = Scheduler()
    scheduler._own = lambda: None  # type: ignore[method-assign]
    scheduler.start()
    until(lambda: not scheduler.alive)
    with pytest.raises(RefusedError) as refused:
        shared(Fake(), scheduler).forward(tokens(5))
    assert refused.value.status == 503


def test_idle_seconds_are_for_measuring_and_what_goes_wrong_there_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossrank.server.speeds.IDLE_SECONDS", 0.01)
    times: list[str] = []

    def measure() -> None:
        times.append(threading.current_thread().name)
        raise ScoreError("no card")

    scheduler = Scheduler()
    scheduler.measures = {Speed("score"): measure}
    scheduler.start()
    until(lambda: len(times) >= 3)
    assert set(times) == {"crossrank-backend"}
    assert shared(Fake(), scheduler).forward(tokens(5)).shape == (1,)
    scheduler.stop()


@pytest.mark.alone
def test_a_server_without_requests_measures_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossrank.server.speeds.IDLE_SECONDS", 0.02)
    at: list[float] = []
    scheduler = Scheduler()
    queue = shared(Fake(), scheduler, 64)
    scheduler.measures = {queue._forward.speed: lambda: at.append(time.monotonic())}
    scheduler.start()
    until(lambda: len(at) >= 5)
    pauses = np.diff(at)
    assert pauses[-1] > 0.16
    queue.forward(tokens(5))
    began, count = time.monotonic(), len(at)
    until(lambda: len(at) > count)
    assert at[count] - began < pauses[-1]
    scheduler.stop()


@pytest.mark.alone
def test_time_is_told_apart() -> None:
    class Slow(Held):
        def forward(self, packed: Tokens) -> NDArray[np.float32]:
            time.sleep(0.05)
            return Fake().forward(packed)

    scheduler = Scheduler()
    queue = shared(Slow(), scheduler, 10)
    scheduler.start()
    ticket = Ticket.lasting(60)
    with working(ticket):
        queue.forward(tokens(8, 8))
        time.sleep(0.02)
    assert ticket.compute >= 0.1
    assert ticket.tokenizing >= 0.02
    assert ticket.tokens == ticket.attained == 16
    with carried(ticket):
        queue.forward(tokens(8))
        time.sleep(0.05)
    assert ticket.tokenizing < 0.05
