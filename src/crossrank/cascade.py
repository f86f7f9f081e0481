"""Stages of rerankers, coarse to fine: score the head, place it in its new order over the old tail."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from inspect import signature
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossrank.anytime import Clock, Reading, Stopped, Until, read
from crossrank.asking import check_real
from crossrank.cost import Pace
from crossrank.errors import CrossrankError, InputError, ScoreError
from crossrank.fusion import check_ranking, zscore
from crossrank.grouping import PerDocument
from crossrank.stopping import Stopping
from crossrank.types import Passage, Ranking, Scorer, TokenStore, Truncation, check_k

P = ParamSpec("P")
T = TypeVar("T")
# What a stage that fails does to the query: end it with the error, or leave the order before it.
OnError = Literal["raise", "keep"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One reranker and how many documents it reads.

    Attributes:
        scorer: scores (query, passage) pairs. One whose scores compare within one call only, such as places in an
            order, says so by a true attribute `listwise`: it is asked about all of its documents at once or about none.
        depth: documents it reads, from the top of the ranking before it.
        weight: share of this stage's score in the new order, 0 < weight <= 1. The rest comes from the scores the
            ranking had before it; both are standardized over the documents read. 1 trusts the scorer alone. A
            cross-encoder alone can be worse than a good fusion, and the mix is better than either (README, quality).
            A stage that reads deeper than the one before it finds scores that do not compare, see `mixed`.
        name: how the stage is called in traces. Of several with one name a pipeline calls the second "name (2)".
        pace: how fast the scorer is here (`crossrank.planner.measured`), by which a deadline chooses how much to
            read. Without one the first documents tell.
        stopping: the rule by which it may read less than its depth; it reads all when absent.

    >>> import crossrank
    >>> Stage(crossrank.load(), depth=50, weight=0.4, name="small").depth
    50
    """

    scorer: Scorer
    depth: int = 100
    weight: float = 1.0
    name: str = "rerank"
    pace: Pace | None = field(default=None, repr=False)
    stopping: Stopping | None = None

    def __post_init__(self) -> None:
        if not callable(getattr(self.scorer, "score", None)):
            given = repr(self.scorer) if isinstance(self.scorer, str) else type(self.scorer).__name__
            cure = f"crossrank.load({given})" if isinstance(self.scorer, str) else "crossrank.load()"
            raise InputError(f"a stage takes what scores pairs, such as {cure}, not {given}: it has no method score")
        check_k(self.depth, "depth")
        check_real("a stage's weight", self.weight)
        if not 0.0 < self.weight <= 1.0:
            raise InputError(f"a stage's weight must be over 0 and at most 1, not {self.weight}")

    def for_top(self, k: int, per_document: PerDocument | None = None) -> Stage:
        """The stage, settled only when the `k` best are that the query asks for, or those of each document."""
        if self.stopping is None:
            return self
        return replace(self, stopping=replace(self.stopping, k=k, per_document=per_document))


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What one step did for one query.

    Attributes:
        name: of the step: "bm25", "dense", "fused", or the stage's name.
        ranking: after the step.
        seconds: wall-clock time.
        scores: what the scorer itself said of each document it read, raw; empty for steps that only rank.
        truncations: what was cut or read in windows; positions count in the ranking before the step, -1 is the query.
        note: what the step could not do as it should, for people; empty when there is nothing to say.
        stopped: why a step did less than it was there for, such as read fewer documents than its depth: "deadline",
            "settled" (by its stopping rule), "error", or "plan" of the step that left stages out; empty otherwise.
        how: how it came from the scores before it to its own, for people; empty where nothing was joined.
    """

    name: str
    ranking: Ranking
    seconds: float
    scores: dict[str, float]
    truncations: tuple[Truncation, ...] = ()
    note: str = ""
    stopped: Stopped = ""
    how: str = ""


def shares(weight: float) -> str:
    """How `mixed` joins the scores of a stage of this weight, in words.

    >>> shares(0.3), shares(1.0)
    ('0.3 of its score, 0.7 of the one before', '')
    """
    return f"{weight:g} of its score, {1.0 - weight:g} of the one before" if weight < 1.0 else ""


def mixed(
    ranking: Ranking, logits: NDArray[np.float32], weight: float, among: NDArray[np.float32] | None = None
) -> Ranking:
    """The new order of a stage's head.

    The new score is `weight * z(logits) + (1 - weight) * z(scores before)`, standardized over the documents read;
    with weight 1 it is the logit itself. Documents with a logit of -inf (blank texts) come last in their old order.

    Scores before that do not compare (`Ranking.head`) are standardized apart, and those of the tail put under the
    head's: its best document has the score of the head's last one. So where the scorer agrees with the order before,
    that order stays.

    Args:
        ranking: the documents read.
        logits: theirs.
        weight: of the stage.
        among: scores before of all that the stage would have read, when it read only the first of them. The scores
            before are standardized over these. Their spread among the first few is smaller, and stretched to 1 it would
            outvote the scorer: 10 of 100 documents of wikiqa read gave nDCG@10 0.667 so, and 0.691 this way.

    Raises:
        ScoreError: a logit is NaN or +inf, which no mix can hold.

    >>> before = Ranking.sorted(["a", "b"], [2.0, 1.0])
    >>> mixed(before, np.float32([0.0, 5.0]), weight=1.0).ids
    ('b', 'a')
    """
    if len(bad := np.flatnonzero(np.isnan(logits) | np.isposinf(logits))):
        what = "NaN" if np.isnan(logits[bad[0]]) else "+inf"
        raise ScoreError(
            f"the scorer gives {what} for document {ranking.ids[bad[0]]!r}, so there is no order. Scores are "
            "finite, or -inf for a document without text; of a model of crossrank, try dtype='float32'"
        )
    if weight == 1.0:
        return Ranking.sorted(ranking.ids, logits)
    read = np.isfinite(logits)
    own = _comparable(ranking)
    before = own if among is None else among
    # Blank documents do not count, as long as it is known which are blank.
    scale = before[read] if len(before) == len(read) else before
    old = zscore(own, among=scale)
    scores = np.full(len(logits), -np.inf, dtype=np.float32)
    scores[read] = weight * zscore(logits[read]) + (1.0 - weight) * old[read]
    return Ranking.sorted(ranking.ids, scores)


def _comparable(ranking: Ranking) -> NDArray[np.float32]:
    """The scores of a ranking on one scale that falls with its order: as they are where they compare."""
    scores, head = ranking.scores, ranking.head
    if head in (0, len(scores)):
        return scores
    # The tail of several stages has several scales itself: a new one begins at the latest where a score rises.
    rises = head + 1 + np.flatnonzero(scores[head + 1 :] > scores[head:-1])
    made, floor = [], np.float32(0)
    for part in np.split(scores, [head, *rises.tolist()]):
        level = zscore(part)
        known = np.isfinite(level)
        if known.any():
            level[known] += floor - level[known].max()
            floor = level[known].min()
        made.append(level)
    return np.concatenate(made)


def _leading_on(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which tells whoever has texts to order, and takes it for that, what does it."""
    known = signature(function)

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            known.bind(*args, **kwargs)
        except TypeError as error:
            raise InputError(
                "to put texts in order call crossrank.load().rank(query, documents, k=5). crossrank.rerank runs stages "
                f"over a crossrank.Ranking, rerank(query, ranking, stages, texts): {error}"
            ) from None
        return function(*args, **kwargs)

    return called


@_leading_on
def rerank(
    query: str,
    ranking: Ranking,
    stages: Sequence[Stage],
    texts: Callable[[Sequence[str]], Sequence[Passage]],
    store: TokenStore | None = None,
    *,
    deadline: float | None = None,
    on_error: OnError = "raise",
    clock: Clock = time.perf_counter,
) -> tuple[Ranking, tuple[Trace, ...]]:
    """Run `stages` over one ranking, each on the top of what the one before it left.

    Args:
        query: what the user asks.
        ranking: the candidates, best first.
        stages: in order; none leaves the ranking as it is.
        texts: passages of the given ids. They are told apart by `Passage.id`; one that is missing is an error.
        store: where their token ids lie ready, if anywhere. A cross-encoder with the same tokenizer reads those and no
            text; one with another tokenizer reads the texts, which its trace notes.
        deadline: on `clock`, in seconds, when the answer is due; None takes what it takes. Each stage reads as many of
            its documents as the time is enough for, in their order: those become the head, the others stay below.
            The answer is always a whole ranking, however late it is.
        on_error: what a stage does that raises (or whose texts cannot be fetched): "raise" passes the error on, "keep"
            leaves the order before it, with the reason in its trace.
        clock: what tells the time; of a test, its own.

    Returns:
        The final ranking, and what each stage did. `ranking.head` documents were read by the last stage that read any;
        documents below keep the order and the scores of the step before.

    Raises:
        InputError: arguments are missing or unknown, `ranking` is no `Ranking`, `stages` no list of them, `texts` no
            function, a `deadline` that is no number, an unknown `on_error`; and what a scorer raises, unless `on_error`
            keeps.

    >>> class Longest:
    ...     def score(self, pairs):
    ...         return np.array([len(text) for _, text in pairs], dtype=np.float32)
    >>> start = Ranking.sorted(["a", "b", "c"], [3.0, 2.0, 1.0])
    >>> passages = {"a": Passage("a", "x"), "b": Passage("b", "xyz"), "c": Passage("c", "xyzxyz")}
    >>> final, traces = rerank("q", start, [Stage(Longest(), depth=2)], lambda ids: [passages[i] for i in ids])
    >>> final.ids, final.head
    (('b', 'a', 'c'), 2)
    """
    check_on_error(on_error)
    check_ranking(ranking)
    stages = check_stages(stages)
    if not callable(texts):
        raise InputError(
            f"`texts` is a function that gives the passages of a list of ids, not {type(texts).__name__}; of a dict d "
            "of texts that is lambda ids: [crossrank.Passage(id, d[id]) for id in ids]"
        )
    if deadline is not None:
        check_real("deadline", deadline)
    traces: list[Trace] = []
    for number, stage in enumerate(stages):
        began = clock()
        head = head_of(ranking, stage.depth, traces)
        if not len(head):
            break
        until = _until(stage, stages[number + 1 :], deadline, clock)
        try:
            made = read(stage.scorer, query, head, texts, store, stage.pace, until)
            ranking = placed(head, made.scores, stage.weight).over(ranking) if len(made.scores) else ranking
        except Exception as error:
            # Any error: a scorer may be anybody's code, and it is told, not hidden.
            if on_error == "raise":
                raise
            made = Reading(np.zeros(0, dtype=np.float32), (), "error", failure(error))
        raw = dict(zip(head.ids, made.scores.tolist(), strict=False))
        how = shares(stage.weight) if raw else ""
        traces.append(Trace(stage.name, ranking, clock() - began, raw, made.truncations, made.note, made.stopped, how))
    return ranking, tuple(traces)


def check_on_error(value: Any) -> None:
    """Refuse what is neither of `OnError`."""
    if value not in ("raise", "keep"):
        raise InputError(f"on_error must be 'raise' or 'keep', not {value!r}")


def check_stages(value: Any) -> list[Stage]:
    """The stages in a list; refuse one in place of a list, and what is no `Stage`, such as a scorer.

    >>> check_stages(Stage(Unavailable("a", InputError(""))))
    Traceback (most recent call last):
    ...
    crossrank.errors.InputError: stages are a list, not one stage; put it into one: [stage]
    """
    if isinstance(value, Stage):
        raise InputError("stages are a list, not one stage; put it into one: [stage]")
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InputError(f"stages are a list of crossrank.Stage, not {type(value).__name__}")
    stages = list(value)
    for stage in stages:
        if not isinstance(stage, Stage):
            raise InputError(
                f"a stage is a crossrank.Stage, not {type(stage).__name__}; make one with Stage(scorer, depth=100)"
            )
    return stages


def distinct(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """The stages, each with a name of its own; refused as by `check_stages`.

    >>> [stage.name for stage in distinct([Stage(Unavailable("a", InputError("")))] * 2)]
    ['rerank', 'rerank (2)']
    """
    made: list[Stage] = []
    for stage in check_stages(stages):
        names, name = {one.name for one in made}, stage.name
        for number in range(2, len(made) + 3):
            if name not in names:
                break
            name = f"{stage.name} ({number})"
        made.append(stage if name == stage.name else replace(stage, name=name))
    return tuple(made)


def _until(stage: Stage, later: Sequence[Stage], deadline: float | None, clock: Clock) -> Until:
    """When a stage must end: the deadline, less what the stages after it take, up to six tenths of the time left."""
    stopping = stage.stopping
    if stopping is not None and later:
        stopping = stopping.leaving(later[0].depth)
    if deadline is None:
        return Until(math.inf, clock, stopping, stage.weight)
    kept = sum(after.pace.usual(after.depth) for after in later if after.pace is not None)
    return Until(deadline - min(kept, 0.6 * max(0.0, deadline - clock())), clock, stopping, stage.weight)


def head_of(ranking: Ranking, depth: int, traces: Sequence[Trace]) -> Ranking:
    """What a stage of this depth reads of what the stages before it, by their traces, have left; scores of one scale.

    What the last of them that read anything did not reach it has not sorted, and its scores compare with no others.

    >>> left = Ranking(("a", "b", "c"), np.float32([1.0, 0.0, 5.0]), 2)
    >>> head_of(left, 3, []).scores.tolist(), head_of(left, 3, [Trace("a", left, 0, {"a": 1}, stopped="settled")]).ids
    ([0.0, -2.0, -2.0], ('a',))
    """
    last = last_to_read(traces)
    held = len(last.scores) if last is not None and last.stopped in ("deadline", "settled") else 0
    head = ranking.cut(min(depth, held or depth))
    return Ranking(head.ids, _comparable(head), len(head))


def last_to_read(traces: Sequence[Trace]) -> Trace | None:
    """What the last step did that has read anything; None where none has."""
    return next((trace for trace in reversed(traces) if trace.scores), None)


def placed(head: Ranking, logits: NDArray[np.float32], weight: float) -> Ranking:
    """The documents of `head` that were read, the first of it, in their new order."""
    count = len(logits)
    first = Ranking(head.ids[:count], head.scores[:count], min(head.head, count))
    return mixed(first, logits, weight, head.scores if count < len(head) else None)


def failure(error: Exception) -> str:
    """One line about a stage that failed, for its trace."""
    kind = "" if isinstance(error, CrossrankError) else f"{type(error).__name__}: "
    return f"failed, so the order before it stands: {kind}{' '.join(str(error).split())}"


class Unavailable:
    """A scorer in place of one that could not be loaded: it fails when it is asked, with the reason.

    >>> Unavailable("small", InputError("no such model")).score([("q", "a")])
    Traceback (most recent call last):
    ...
    crossrank.errors.InputError: no such model
    """

    def __init__(self, name: str, error: CrossrankError) -> None:
        self.name, self._error = name, error

    def __repr__(self) -> str:
        return f"Unavailable({self.name!r}, {self._error!r})"

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Raise what loading raised."""
        raise self._error
