"""What the figures say, in plain words: yes, no, or that it cannot be told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from crossrank.evaluation.bootstrap import FEW_CHANGED, LEAST_CHANGED, Interval, paired
from crossrank.evaluation.comparison import Comparison, Contrast, Standing

LEVEL = 0.05
# Differences smaller than this interest nobody, and the queries that would prove them are no sensible number.
_NOTHING = 0.002
# A difference is found four times in five when it lies so many standard errors beyond what is significant.
_POWER = NormalDist().inv_cdf(0.8)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to "does reranking help here?", or, over runs or rerankers alone, "is one better than the baseline?".

    Attributes:
        question: which of the two.
        answer: "yes" and "no" are significant after correction; "unclear" is everything else.
        headline: the answer in a sentence or two.
        system: name of the system that the headline is about; empty when nothing was compared.
        details: what else must be known, a sentence each.
    """

    question: str
    answer: Literal["yes", "no", "unclear"]
    headline: str
    system: str
    details: tuple[str, ...]


def verdict(comparison: Comparison) -> Verdict:
    """The verdict on the main measure; see `Verdict`."""
    tried = contenders(comparison)
    base = comparison.of(comparison.baseline).system
    helps = any(standing.system.reranked for standing in tried) and not base.reranked
    question = "Does reranking help here?" if helps else f"Is one of them better than {comparison.baseline}?"
    # Fusion, or a run, without a reranker after it; another model or mix is no less than what is compared with it.
    unaided = base.name if base.reranked else f"{base.name} alone"
    if not tried:
        only = f"Only {comparison.baseline} was measured, so there is nothing to compare."
        return Verdict("Is there a difference?", "unclear", only, "", ())
    best = max(tried, key=lambda standing: _contrast(comparison, standing).difference.mean)
    helped = [s for s in tried if _significant(comparison, s) and _contrast(comparison, s).difference.mean > 0]
    if helped:
        best = max(helped, key=lambda standing: _contrast(comparison, standing).difference.mean)
        answer, headline = "yes", f"Yes: {_finding(comparison, best)}."
    elif all(_significant(comparison, s) and _contrast(comparison, s).difference.mean < 0 for s in tried):
        most = "it" if len(tried) == 1 else f"the best of {len(tried)}"
        answer = "no"
        headline = f"No: {unaided} is better here. Even {most} loses: {_finding(comparison, best)}."
        if len(tried) == 1:
            headline = f"No: {unaided} is better here: {_finding(comparison, best)}."
    else:
        count = f"{comparison.queries} {'query' if comparison.queries == 1 else 'queries'}"
        best_of = "" if len(tried) == 1 else f"of {len(tried)} tried the best, "
        answer = "unclear"
        headline = f"It cannot be told with {count}: {_finding(comparison, best, best_of)}."
    compared = sum(bool(standing.contrasts) for standing in comparison.standings)
    missing = _missing(comparison, best, compared) if answer == "unclear" else []
    details = (*missing, *_details(comparison, best, tried, answer), *_harm(comparison, tried, best, unaided))
    return Verdict(question, answer, headline, best.system.name, details)  # type: ignore[arg-type]


def contenders(comparison: Comparison) -> list[Standing]:
    """What the verdict is about: the rerankers where the baseline is none, else all that is compared with it."""
    others = [standing for standing in comparison.standings if standing.contrasts]
    if comparison.of(comparison.baseline).system.reranked:
        return others
    return [standing for standing in others if standing.system.reranked] or others


def p_text(p: float) -> str:
    """`p = 0.034`, `p < 0.001`."""
    return f"p {p_number(p)}" if p < 0.001 else f"p = {p_number(p)}"


def p_number(p: float) -> str:
    """`0.034`, `< 0.001`: what a column headed p holds. On which side of `LEVEL` a p lies can always be seen.

    >>> p_number(0.0001), p_number(0.0342), p_number(0.8), p_number(0.0496)
    ('< 0.001', '0.034', '0.80', '0.049600')
    """
    told = "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    return f"{p:.6f}" if told == f"{LEVEL:.3f}" and p != LEVEL else told


def signed(interval: Interval) -> str:
    """`+0.031 [+0.010, +0.052]`."""
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def _contrast(comparison: Comparison, standing: Standing) -> Contrast:
    return standing.contrasts[comparison.main]


def _significant(comparison: Comparison, standing: Standing) -> bool:
    return _contrast(comparison, standing).corrected < LEVEL


def _finding(comparison: Comparison, standing: Standing, best_of: str = "") -> str:
    contrast = _contrast(comparison, standing)
    name = f"{best_of}{standing.system.name}{',' if best_of else ''}"
    return (
        f"{name} gives {signed(contrast.difference)} {comparison.main} over {comparison.baseline} "
        f"({p_text(contrast.corrected)})"
    )


def _missing(comparison: Comparison, best: Standing, compared: int) -> list[str]:
    """What would have to be so for the difference of the best to be told from chance, of so many systems compared.

    Of m systems the test of one counts at 0.05 / m (Holm's correction, for the largest difference), and with n queries
    that all change in one direction its p is 2 ** (1 - n).
    """
    n, values = comparison.queries, best.values[comparison.main]
    moved = paired(values, comparison.of(comparison.baseline).values[comparison.main])
    error = float(moved.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    beyond, seen = NormalDist().inv_cdf(1 - LEVEL / compared / 2), abs(float(moved.mean()))
    least = math.floor(1 + math.log2(compared / LEVEL)) + 1
    said = []
    counted = "" if compared == 1 else f", for {compared} systems were compared"
    if n < least:
        said.append(f"So few queries can show nothing, whatever they are: at least {least} must change{counted}.")
    elif error > 0:
        said.append(f"With these {n} queries only differences beyond about {beyond * error:.3f} would show{counted}.")
    needed = max(least, n * ((beyond + _POWER) * error / seen) ** 2) if seen > _NOTHING else 0
    if needed > n and error > 0:
        many = f"about {_round(needed)}" if needed < 100_000 else "more than anybody judges"
        said.append(
            f"To find a difference of {seen:.3f}, were it real, four times in five takes {many} judged queries."
        )
    return said


def _details(comparison: Comparison, best: Standing, tried: Sequence[Standing], answer: str) -> list[str]:
    contrast, said = _contrast(comparison, best), []
    n = comparison.queries
    if answer == "unclear" and contrast.difference.excludes_zero:
        said.append("The interval leaves out 0, but the test that counts all comparisons made does not.")
    if answer != "unclear" and contrast.difference.low <= 0 <= contrast.difference.high:
        said.append(
            "The test tells it from chance, but the interval holds 0: a few queries make most of the difference."
        )
    better = f"{len(contrast.better)} {'query' if len(contrast.better) == 1 else 'queries'} got better"
    said.append(f"{better}, {len(contrast.worse)} worse, {contrast.same} stayed.")
    said += _picked(comparison, best, tried)
    changed = contrast.difference.changed or 0
    if n == 1:
        said.append("One query has no interval: both ends are the difference itself, which says nothing of others.")
    elif 0 < changed < FEW_CHANGED:
        few = f"{n} queries are few" if changed == n else f"Only {changed} of {n} queries changed"
        said.append(
            f"{few}, so the interval is Student's, which is wider than a bootstrap's: "
            + ("of so few it is a guess." if changed < LEAST_CHANGED else "it still takes them for typical.")
        )
    if best.ceiling and best.recall is not None:
        said.append(
            f"Its candidates hold {best.recall:.0%} of the relevant documents; a perfect order of them would reach "
            f"{comparison.main} {best.ceiling[comparison.main]:.3f}, and it reaches "
            f"{best.means[comparison.main].mean:.3f}."
        )
    if best.step is not None and best.whole is not None and best.system.model:
        share = f"{best.step.median * 1e3:.0f} ms a query (median; 95th percentile {best.step.p95 * 1e3:.0f} ms)"
        said.append(f"Reranking costs {share}.")
    return said


def _picked(comparison: Comparison, best: Standing, tried: Sequence[Standing]) -> list[str]:
    """That the headline's system was picked among several; or that another has more, which may be chance."""
    top = max(tried, key=lambda standing: _contrast(comparison, standing).difference.mean)
    most, mine = _contrast(comparison, top), _contrast(comparison, best).difference.mean
    if most.difference.mean > mine:
        more = f"{signed(most.difference)}, which may be chance ({p_text(most.corrected)})"
        return [f"{top.system.name} has a larger mean difference, {more}."]
    # The best of several losers was lucky too, but there is no gain to expect less of.
    if len(tried) == 1 or mine <= 0:
        return []
    return [f"{best.system.name} is the best of {len(tried)} on these very queries, so expect a little less elsewhere."]


def _harm(comparison: Comparison, tried: Sequence[Standing], best: Standing, unaided: str) -> list[str]:
    """The systems that are surely worse, besides the one of the headline."""
    return [
        f"{unaided} is better than {standing.system.name}: "
        f"{signed(_contrast(comparison, standing).difference)}, {p_text(_contrast(comparison, standing).corrected)}."
        for standing in tried
        if standing is not best
        and _significant(comparison, standing)
        and _contrast(comparison, standing).difference.mean < 0
    ]


def _round(number: float) -> str:
    """Two figures: 137 is 140, for it is an estimate."""
    size = 10 ** max(0, len(str(int(number))) - 2)
    return f"{round(number / size) * size:,}"
