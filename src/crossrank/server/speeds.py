"""How fast each model computes here, how large its batches may be, and how long work of several models takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from crossrank.types import Tokens

# What a model computes: the same words are a label of the metrics.
SCORE, EMBED = "score", "embed"
# A batch must not be so small that calling the backend costs more than computing, nor so large that it fills memory.
LEAST_TOKENS, MOST_TOKENS = 1024, 65_536
# How long one batch should take: the longest that a new request waits for the one under way.
BATCH_SECONDS = 0.02
# The share of a new measurement in the running mean of tokens a second.
_NEWS = 0.2
# Each backend is measured this often at most.
_MOST_MEASUREMENTS = 5
# Seconds after which a speed is measured again while nothing waits. Who is refused computes nothing: without this, the
# speed of a minute in which another program had the machine would keep large requests out for good. Each time that no
# batch of the model has come since takes twice as long, so that a server without requests lets the processor sleep.
IDLE_SECONDS, MOST_IDLE_SECONDS = 10.0, 3600.0


@dataclass(eq=False)
class Speed:
    """How fast one model is on this machine, learned from its batches.

    Attributes:
        lane: what it computes, `SCORE` or `EMBED`.
        model: its name, for people and metrics.
        batch_tokens: tokens of one batch.
        fixed: whether that is what somebody has asked for, and not what this machine can do in `BATCH_SECONDS`.
        rate: tokens a second, lately; 0 while nothing is known.

    >>> speed = Speed("score", rate=1000.0)
    >>> speed.seconds(250)
    0.25
    """

    lane: str
    model: str = ""
    batch_tokens: int = LEAST_TOKENS
    fixed: bool = False
    rate: float = 0.0
    _told: float = field(init=False, default_factory=time.monotonic, repr=False)
    _pause: float = field(init=False, default_factory=lambda: IDLE_SECONDS, repr=False)

    def seconds(self, tokens: float) -> float:
        """How long so many tokens take; 0 while nothing is known."""
        return tokens / self.rate if self.rate > 0 else 0.0

    @property
    def turn(self) -> float:
        """How long one batch takes; 0 while nothing is known."""
        return self.seconds(self.batch_tokens)

    def learn(self, tokens: int, seconds: float) -> None:
        """What a batch of a request has shown."""
        self._pause = IDLE_SECONDS
        if 2 * tokens >= self.batch_tokens:
            self._told = time.monotonic()
        if seconds > 0:
            speed = tokens / seconds
            # Small batches say little about speed: a lone query is all overhead.
            weight = _NEWS * min(1.0, tokens / self.batch_tokens)
            self.rate = speed if self.rate == 0 else self.rate + weight * (speed - self.rate)

    def measure(self, compute: Callable[[Tokens], object], ids: list[int], seconds: float) -> None:
        """Learn how fast this computes where that is more than was known, and how large a batch may be. That it is
        slower is told by the batches of requests, which are larger than these.

        Args:
            compute: of the model's backend.
            ids: of one sequence.
            seconds: after so long no other measurement begins.
        """
        tokens = Tokens.of([ids] * max(1, LEAST_TOKENS // len(ids)))
        best = _best(compute, tokens, seconds)
        self.rate = max(self.rate, best)
        if not self.fixed:
            fitting = int(np.clip(best * BATCH_SECONDS, LEAST_TOKENS, MOST_TOKENS))
            self.batch_tokens = max(self.batch_tokens, fitting)

    @property
    def due(self) -> float:
        """When it is to be measured again, on the clock of `time.monotonic`."""
        return self._told + self._pause

    def put_off(self) -> None:
        """It was measured just now, or tried to."""
        self._told, self._pause = time.monotonic(), min(2 * self._pause, MOST_IDLE_SECONDS)


def _best(compute: Callable[[Tokens], object], tokens: Tokens, seconds: float) -> float:
    """Tokens a second, the best of the measurements that begin in so many seconds."""
    best, end = 0.0, time.perf_counter() + seconds
    for _ in range(_MOST_MEASUREMENTS):
        began = time.perf_counter()
        compute(tokens)
        best = max(best, len(tokens.ids) / (time.perf_counter() - began))
        # A restarted server is missed: where one pass is slow it is measured once, and batches teach the rest.
        if time.perf_counter() > end:
            break
    return best


def meanwhile(mine: Mapping[Speed, float], waiting: Mapping[Speed, float]) -> float:
    """Seconds that other models compute while these compute so many: they take turns, a batch of each.

    Args:
        mine: seconds of work by model.
        waiting: the same, of all that waits; what these models have themselves is passed over.

    >>> quick, slow = Speed("score", rate=51200.0), Speed("score", rate=10240.0)
    >>> round(meanwhile({quick: 0.02}, {slow: 30.0}), 3)
    0.1
    """
    turns = max(1.0, sum(seconds / speed.turn for speed, seconds in mine.items() if speed.turn > 0))
    return sum(min(seconds, turns * speed.turn) for speed, seconds in waiting.items() if speed not in mine)


def behind(waiting: Mapping[Speed, float], speed: Speed, seconds: float) -> float:
    """Seconds until so many seconds of work of a model are done, after what waits in front of them.

    >>> quick, slow = Speed("score", rate=51200.0), Speed("score", rate=10240.0)
    >>> round(behind({quick: 1.0, slow: 0.5}, quick, 0.02), 3)
    1.52
    """
    mine = waiting.get(speed, 0.0) + seconds
    return mine + meanwhile({speed: mine}, waiting)
