"""What fits into a budget: which stages run, and how many documents each reads.

`timing` measures a scorer on this machine, `memory` keeps what was measured; `plan` chooses. The deadline itself is
kept by `crossrank.cascade.rerank`, which reads as many documents as the time is really enough for: a plan only decides
what is worth beginning.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from crossrank.cascade import Stage, Unavailable
from crossrank.cost import Pace
from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError
from crossrank.planner.memory import Memory
from crossrank.planner.timing import check, measure, measured
from crossrank.stopping import Stopping

__all__ = ["ADVICE", "Advice", "Memory", "Plan", "check", "depths", "measure", "measured", "paced", "plan"]


@dataclass(frozen=True, slots=True)
class Advice:
    """The numbers that a plan goes by: what is usual in the field; LOG.md says which were measured.

    Attributes:
        least: a list of fewer candidates is not reranked by stages that mix, that is over a first stage which is
            trusted: it has ordered so few well enough. A stage that trusts its scorer alone reads them: over BM25,
            leaving such lists cost 0.018 of nDCG@10 (LOG.md).
        short: seconds; in less, a model is good enough to choose when it can read `few` documents.
        few: see `short`.
        enough: documents that a model should be able to read in more time: the sweet spot is 50 to 100.
        most: documents that the last stage reads after a coarser one.
        many: from so many candidates on, a cheaper model reads first, where there is one.
        coarse: share of the time that the cheaper model may take.
    """

    least: int = 10
    short: float = 0.100
    few: int = 20
    enough: int = 50
    most: int = 100
    many: int = 500
    coarse: float = 0.4


ADVICE = Advice()
# A stage of at most this share stops within a budget when its top is settled: the usual share of a search. There 9 % of
# the queries leave one of the ten unread, more than `Stopping.error` promises, at -0.001 nDCG@10 (LOG.md).
SETTLES = 0.4


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run.

    Attributes:
        stages: in order; none where reranking is not worth it, or there is nothing to rerank.
        notes: for people: what was left out, and why. Empty where everything fits.
    """

    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()


def plan(stages: Sequence[Stage], candidates: int, seconds: float, advice: Advice = ADVICE) -> Plan:
    """Choose stages and depths for so many candidates and so much time.

    Args:
        stages: coarse to fine, that is by rising cost; each with a `pace`, without which a stage is tried as it is.
        candidates: in the ranking.
        seconds: until the answer is due.
        advice: the numbers to go by.

    Everything runs where everything fits. Where it does not, and there are `advice.many` candidates or more, the
    cheapest model reads first, and the best one that can then read enough reads its top. Otherwise one stage runs: the
    best that can read `few` (in less than `short`) or `enough` documents, or all there are; if none can, the one that
    can read most. Its depth stays as it is: it reads until the time is up. Where not even one document of the usual
    size fits, the cheapest is begun all the same until it is known how long documents are here. A stage that is left
    out has its pace told so (`Pace.idle`), so that it is tried again. One whose model could not be loaded takes the
    place of none that can read: it comes last, to say why.

    >>> from crossrank.cost import CostModel, Pace
    >>> class Silent:
    ...     def score(self, pairs): ...
    >>> def stage(name, milliseconds):  # what a document of the usual 128 tokens takes
    ...     return Stage(Silent(), 100, name=name, pace=Pace(CostModel(0.0, milliseconds / 1000, 0.0, 0.0)))
    >>> family = [stage("tiny", 0.5), stage("small", 3.0)]
    >>> [one.name for one in plan(family, 100, seconds=0.08).stages]
    ['small']
    >>> [one.name for one in plan(family, 100, seconds=0.03).stages]
    ['tiny']
    >>> [one.name for one in plan(family, 100, seconds=0.4).stages]
    ['tiny', 'small']
    """
    broken = tuple(stage for stage in stages if isinstance(stage.scorer, Unavailable))
    there = [stage for stage in stages if not isinstance(stage.scorer, Unavailable)]
    if there:
        made = _chosen(there, candidates, seconds, advice)
        return replace(made, stages=(*made.stages, *broken)) if made.stages else made
    return Plan(broken if candidates else ())


def _chosen(stages: Sequence[Stage], candidates: int, seconds: float, advice: Advice) -> Plan:
    """See `plan`, of one stage or more whose models are there."""
    if not candidates:
        return Plan(())  # No stage was left out for lack of time, so no pace is told so.
    if candidates < advice.least and all(stage.weight < 1.0 for stage in stages):
        return Plan((), (f"{candidates} candidates are too few for reranking to be worth it",))
    reads = [_reads(stage, candidates, seconds) for stage in stages]
    if max(reads) < 1:
        if stages[0].pace is not None and stages[0].pace.begins(seconds):
            return Plan((stages[0],), _left_out(_idle(stages, {0}), seconds))
        _idle(stages, ())
        return Plan((), (f"{_ms(seconds)} left are not enough to read a passage",))
    wanted = [min(stage.depth, candidates) for stage in stages]
    if sum(_takes(stage, count) for stage, count in zip(stages, wanted, strict=True)) <= seconds or len(stages) == 1:
        return Plan(tuple(stages))
    enough = advice.few if seconds < advice.short else advice.enough
    if candidates >= advice.many:
        row, pair = _coarse_to_fine(stages, candidates, seconds, enough, advice)
        if pair:
            return Plan(pair, _left_out(_idle(stages, {0, row}), seconds))
    able = [row for row, count in enumerate(reads) if count >= min(enough, wanted[row])]
    # The last is the best; where none is able, the one that reads most, and of equals the better.
    row = able[-1] if able else max(range(len(stages)), key=lambda row: (reads[row], row))
    return Plan((stages[row],), _left_out(_idle(stages, {row}), seconds))


def depths(most: int, stages: int, advice: Advice = ADVICE) -> list[int]:
    """How many documents each of several stages reads, coarse to fine, where nobody says.

    The first reads `most`, the last `advice.enough`, or half of `most` where that is less; those between them fall in
    equal ratios.

    >>> depths(500, 3), depths(100, 2), depths(20, 2), depths(100, 1)
    ([500, 158, 50], [100, 50], [20, 10], [100])
    """
    last = min(advice.enough, max(1, most // 2))
    return [round(most * (last / most) ** (number / max(1, stages - 1))) for number in range(stages)]


def _reads(stage: Stage, candidates: int, seconds: float) -> int:
    most = min(stage.depth, candidates)
    return most if stage.pace is None or not stage.pace.known else stage.pace.documents(seconds, most)


def _takes(stage: Stage, count: int) -> float:
    return 0.0 if stage.pace is None or not stage.pace.known else stage.pace.hope * stage.pace.usual(count)


def _coarse_to_fine(
    stages: Sequence[Stage], candidates: int, seconds: float, enough: int, advice: Advice
) -> tuple[int, tuple[Stage, ...]]:
    """The row of the best stage that can still read enough of what the cheapest leaves, and both; or none of them."""
    coarse = stages[0]
    first = _reads(coarse, candidates, seconds * advice.coarse)
    rest = seconds - _takes(coarse, first)
    for row in range(len(stages) - 1, 0, -1):
        fine = stages[row]
        count = min(_reads(fine, candidates, rest), max(advice.most, enough))
        # A coarse stage that reads hardly more than the fine one sorts out little.
        if count >= enough and first >= 2 * count:
            return row, (replace(coarse, depth=first), replace(fine, depth=count))
    return 0, ()


def _idle(stages: Sequence[Stage], kept: Collection[int]) -> list[Stage]:
    """The stages that are left out, whose paces are told so."""
    left = [stage for row, stage in enumerate(stages) if row not in kept]
    for stage in left:
        if stage.pace is not None:
            stage.pace.idle()
    return left


def _left_out(left: Sequence[Stage], seconds: float) -> tuple[str, ...]:
    names = [stage.name for stage in left]
    return (f"left out {', '.join(names)}: {_ms(seconds)} are not enough for all stages",) if names else ()


def _ms(seconds: float) -> str:
    return f"{max(seconds, 0.0) * 1000:.0f} ms"


def paced(stage: Stage, memory: Memory | None) -> Stage:
    """The stage with the pace of its scorer, and with a stopping rule where one was shown to be harmless.

    Raises:
        InputError: a memory that is none, such as the name of its folder.
    """
    if memory is not None and not isinstance(memory, Memory):
        raise InputError(f"memory is a crossrank.planner.Memory, such as Memory(folder), not {memory!r:.80}")
    stopping = stage.stopping or (Stopping() if stage.weight <= SETTLES else None)
    if stage.pace is not None or isinstance(stage.scorer, Unavailable):  # which takes no time from those before it
        return replace(stage, stopping=stopping)
    if not isinstance(stage.scorer, CrossEncoder):
        return replace(stage, stopping=stopping, pace=Pace())
    pace = measured(stage.scorer) if memory is None else memory.pace(stage.scorer)
    return replace(stage, stopping=stopping, pace=pace)
