"""Time a cross-encoder on this machine: random token ids in, a cost model out, in a second or two."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary, ref

import numpy as np
from numpy.typing import NDArray

from crossrank.backends.sharing import Table
from crossrank.batching import budget_of
from crossrank.cost import CostModel, Pace, Sample, fit
from crossrank.crossencoder import CrossEncoder
from crossrank.textids import TextIds
from crossrank.types import Tokens

# Calls to time, as passages and tokens of one (their pairs have the query and special tokens besides): one and few,
# short and long, and the lists of a real query. Each is begun only while the time lasts.
CALLS = (
    (1, 8), (1, 56), (1, 120), (2, 56), (4, 24), (4, 120), (8, 56), (1, 240), (3, 80), (16, 24), (16, 56), (1, 480),
    (2, 240), (5, 120), (32, 24), (10, 72), (32, 56), (4, 240), (3, 480), (50, 72), (100, 24), (100, 72), (8, 480),
)  # fmt: skip
# A short call is timed this often; the median counts.
REPEATS = 5
# What the cheap check times: passages, and tokens of one.
PROBE = ((1, 24), (2, 56))
# Off by more than this, what was measured earlier no longer holds.
TOLERANCE = 0.25
QUERY = "which of these answers the question?"
_CHARACTERS = 20_000

_paces: WeakKeyDictionary[CrossEncoder, Pace] = WeakKeyDictionary()
_measuring: Table[Pace] = Table()


def measured(scorer: CrossEncoder, seconds: float = 1.5) -> Pace:
    """How fast the scorer is on this machine: measured when it is first asked, then the same object for every caller.

    >>> import crossrank
    >>> from crossrank.planner import measured
    >>> scorer = crossrank.load(backend="fake")
    >>> pace = measured(scorer, seconds=0.2)
    >>> pace is measured(scorer)
    True
    """
    pace = _paces.get(scorer)
    return pace if pace is not None else renewed(scorer, None, lambda: measure(scorer, seconds))


def model_of(scorer: CrossEncoder) -> CostModel | None:
    """What the pace of a scorer goes by; None where nobody has measured it."""
    pace = _paces.get(scorer)
    return None if pace is None else pace.model


def remember(scorer: CrossEncoder, model: CostModel) -> Pace:
    """The pace of a scorer that was measured before: what `measured` gives from now on."""
    return _paces.setdefault(scorer, Pace(model))


def renewed(scorer: CrossEncoder, before: CostModel | None, measuring: Callable[[], CostModel]) -> Pace:
    """The pace of a scorer by what is measured now; of those who come with the same model, one measures for all."""

    def made() -> Pace:
        model = measuring()
        pace = remember(scorer, model)
        pace.renew(model)
        return pace

    # A key that keeps no scorer alive; only who asks for the same one waits.
    return _measuring.get((ref(scorer), before), made)


def measure(scorer: CrossEncoder, seconds: float = 1.5, clock: Callable[[], float] = time.perf_counter) -> CostModel:
    """Time calls of many shapes and fit the formula of `crossrank.cost.CostModel` to them.

    Args:
        scorer: what is timed, as it is called in earnest: from token ids to scores.
        seconds: when no further call is begun. Slow backends reach fewer shapes and are told from these.
        clock: what tells the time.
    """
    dice = np.random.default_rng(0)
    workers = int(getattr(scorer.backend, "threads", 1))
    began, last = clock(), 0.0
    # The first call allocates; it counts for nothing.
    _timed(scorer, 2, 24, dice, clock)
    samples: list[Sample] = []
    for count, size in CALLS:
        if samples and clock() - began + last > seconds:
            break
        lengths, first = _timed(scorer, count, size, dice, clock)
        taken = [first]
        while len(taken) < REPEATS and sum(taken) < seconds / len(CALLS):
            taken.append(_timed(scorer, count, size, dice, clock)[1])
        last = first
        samples.append(Sample(lengths, max(statistics.median(taken), 1e-7)))
    model = fit(samples, workers, scorer.backend.padded, budget_of(scorer.backend))
    return CostModel(
        model.call, model.sequence, model.token, model.square, _tokenizing(scorer, dice, clock),
        model.workers, model.padded, model.budget,
    )  # fmt: skip


def check(
    scorer: CrossEncoder, model: CostModel, seconds: float = 0.020, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Measured over predicted time of a few short calls, about 20 ms of them; over 1.25 or under 0.8, measure again."""
    dice = np.random.default_rng(1)
    _timed(scorer, 1, 8, dice, clock)
    ratios: list[float] = []
    began = clock()
    for count, size in _repeated(PROBE):
        lengths, taken = _timed(scorer, count, size, dice, clock)
        ratios.append(taken / max(model.seconds(lengths), 1e-9))
        if clock() - began > seconds and len(ratios) >= len(PROBE):
            break
    return statistics.median(ratios)


def holds(ratio: float) -> bool:
    """Whether a check's result is within the tolerance."""
    return 1 / (1 + TOLERANCE) <= ratio <= 1 + TOLERANCE


def _repeated(calls: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int]]:
    for _ in range(16):
        yield from calls


def _timed(
    scorer: CrossEncoder, count: int, size: int, dice: np.random.Generator, clock: Callable[[], float]
) -> tuple[NDArray[np.int64], float]:
    """Sequence lengths and seconds of one call with `count` random passages of about `size` tokens."""
    size = max(1, min(size, scorer.checkpoint.max_length - 32))
    # Real passages differ in length; a quarter more or less costs the same in all, but for attention.
    sizes = dice.integers(max(1, size * 3 // 4), size * 5 // 4 + 1, count) if count > 1 else np.full(1, size)
    sizes = np.minimum(sizes, max(1, scorer.checkpoint.max_length - 24)).astype(np.int64)
    ids = _vocabulary_size(scorer)
    rows = [dice.integers(ids // 4, ids, int(one)).tolist() for one in sizes]
    passages = Tokens.of(rows)
    lengths, _ = scorer.sequence_lengths(QUERY, passages.lengths)
    began = clock()
    # A memory would answer the second time.
    scorer.uncached.scored_tokens([QUERY] * count, passages)
    return lengths, clock() - began


def _vocabulary_size(scorer: CrossEncoder) -> int:
    # From a quarter on, so that special tokens, which models keep at the front, are not among them.
    return max(4, int(scorer.checkpoint.config.get("vocab_size", 1024)))


def _tokenizing(scorer: CrossEncoder, dice: np.random.Generator, clock: Callable[[], float]) -> float:
    """Seconds to tokenize a character of a passage: random entries of the vocabulary, as text."""
    tokenizer = scorer.checkpoint.tokenizer()
    ids = dice.integers(_vocabulary_size(scorer) // 4, tokenizer.get_vocab_size(), _CHARACTERS // 8).tolist()
    decoded = tokenizer.decode(ids)
    # Scripts are not mixed so in any text, and what is ASCII everywhere may be read faster.
    text = decoded.encode("ascii", "ignore").decode() or decoded
    passages = [text[at : at + 400] for at in range(0, len(text), 400)]
    text_ids = TextIds(tokenizer, getattr(scorer.backend, "threads", None))
    taken = []
    # The median is of a tokenizer that has read some text: the native library takes its vocabulary up only then.
    for _ in range(9):
        began = clock()
        text_ids.of(passages)
        taken.append(clock() - began)
    return statistics.median(taken) / max(1, len(text))
