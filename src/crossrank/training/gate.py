"""Is the tuned model better, and what did it forget? The base model is kept unless both answers are good ones.

Better: over held-out queries, each ranked by models that never saw it, the mean difference in nDCG@10 is large enough
to matter, and that in *expected* nDCG@10 (`measuring.expected`) is above 0 with confidence: one-sided, paired
percentile bootstrap over queries. nDCG@10 alone moves in jumps, so that 50 queries seldom tell a good model from
chance. Which epoch and which share of the tuned weights a fold is ranked with was chosen on the other folds (`pick`),
so that the choice itself does not look like a gain. Folds that choose on each other vary together, which the bootstrap
does not see: of 200 simulated models that were no better, 15 passed it at 0.975. So a randomization test over the whole
procedure must agree (`chance`; E. Noreen 1989, Computer-intensive methods): models change sides at random, and the
choice is made again.

That takes gains and losses for alike. Of simulated models that are no better (seven points, three folds), these pass:

    held-out queries                           20       50      100
    symmetric gains                         0.050    0.043    0.051
    many small losses, few large gains      0.027    0.034    0.044
    many small gains, few large losses      0.074    0.062    0.063

A studentized or BCa bootstrap, or Johnson's or Hall's correction for skewness, in place of the percentiles bring the
last row to 0.066 to 0.072 at 20, and cost it up to 12 of 76 better models in 100 (LOG.md): not enough for the price.

Forgotten: on general questions the mean may fall by no more than a stated amount.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.evaluation import Interval, mean
from crossrank.evaluation.verdict import signed

# One-sided: the interval that is printed is the two-sided one of 90 %; that of the expected gain must be above 0. At
# 0.975, simulated for nDCG@10 itself, 5 instead of 7.5 % of models without a gain pass (LOG.md).
CONFIDENCE = 0.95
LEAST_GAIN = 0.005
MOST_LOSS = 0.02
FEWEST_HELD_OUT = 20
Point = tuple[int, float]
# A value of each query for each point.
Gains = Mapping[Point, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class General:
    """What happened on general questions.

    Attributes:
        name: of the set.
        base: nDCG@10 of the base model.
        tuned: of the tuned one.
        agreement: Kendall's tau between their orders.
        queries: how many.
    """

    name: str
    base: float
    tuned: float
    agreement: float
    queries: int

    @property
    def loss(self) -> float:
        """How much was lost; negative for a gain."""
        return self.base - self.tuned


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says.

    Attributes:
        kept: "tuned" or "base".
        reasons: why the base model is kept; empty for the tuned one.
        gain: tuned - base on held-out queries; None when nothing was trained.
        expected: the same of expected nDCG@10, which decides whether it may be chance.
        base: nDCG@10 of the base model on held-out queries, like `tuned`.
        tuned: see `base`.
        general: what happened on general questions.
    """

    kept: str
    reasons: tuple[str, ...]
    gain: Interval | None = None
    base: Interval | None = None
    tuned: Interval | None = None
    expected: Interval | None = None
    general: tuple[General, ...] = ()


def pick(gains: Gains, among: NDArray[np.bool_]) -> Point | None:
    """The point (epoch, share of the tuned weights) with the best mean gain over the queries in `among`.

    None when no point gains anything there. Equal gains: the earlier epoch, then the smaller share.

    >>> pick({(1, 1.0): np.array([0.1, -0.9]), (2, 1.0): np.array([0.0, 0.0])}, np.array([True, False]))
    (1, 1.0)
    """
    best, found = 0.0, None
    for point in sorted(gains):
        gain = float(gains[point][among].mean()) if among.any() else 0.0
        if gain > best + 1e-12:
            best, found = gain, point
    return found


def crossed(
    gains: Gains,
    blocks: NDArray[np.int64],
    of: Gains | None = None,
) -> NDArray[np.float64]:
    """The gain of each query at the point that was picked on all other blocks, shape (n,); 0 where none was.

    Args:
        gains: what is picked by.
        blocks: of the queries.
        of: gains by another measure, which are given; those in `gains` when absent.
    """
    out = np.zeros(len(blocks))
    for block in np.unique(blocks):
        here = blocks == block
        point = pick(gains, ~here)
        if point is not None:
            out[here] = (of or gains)[point][here]
    return out


def chance(gains: Gains, blocks: NDArray[np.int64], trials: int = 4000, seed: int = 0) -> float:
    """How often models that are no better would gain as much as `crossed` says, choice included; 0 to 1.

    Each trial swaps base and tuned model for a random half of the queries, at all points together.

    >>> blocks = np.arange(30) % 3
    >>> chance({(1, 1.0): np.full(30, 0.1)}, blocks) < 0.001, chance({(1, 1.0): np.zeros(30)}, blocks)
    (True, 1.0)
    """
    matrix = np.stack([gains[point] for point in sorted(gains)])
    sides = np.where(np.random.default_rng(seed).random((trials, len(blocks))) < 0.5, -1.0, 1.0)
    # The first row is what was seen: it must count among the trials, so that no p is 0.
    sides[0] = 1.0
    total = np.zeros(trials)
    for block in np.unique(blocks):
        here = blocks == block
        others = sides[:, ~here] @ matrix[:, ~here].T
        best = others.argmax(axis=1)
        gained = (sides[:, here] @ matrix[:, here].T)[np.arange(trials), best]
        total += np.where(others.max(axis=1) > 0, gained, 0.0)
    return float(np.mean(total >= total[0] - 1e-12))


def decide(
    base: NDArray[np.float64],
    gains: NDArray[np.float64],
    general: Sequence[General],
    *,
    chosen: bool,
    expected: NDArray[np.float64] | None = None,
    by_chance: float = 0.0,
    confidence: float = CONFIDENCE,
    least_gain: float = LEAST_GAIN,
    most_loss: float = MOST_LOSS,
) -> Verdict:
    """The verdict on a tuned model.

    Args:
        base: values of the base model on held-out queries, shape (n,).
        gains: what the tuned model's values are more, in the same order.
        general: the same on questions that have nothing to do with the user's.
        expected: gains in expected nDCG@10; `gains` when absent.
        chosen: whether any epoch and share was better than the base model over all held-out queries.
        by_chance: see `chance`.
        confidence: one-sided, over 0.5 and under 1.
        least_gain: a mean gain under it does not count, however sure it is.
        most_loss: what the mean of a general set may fall by.

    >>> print(decide(np.full(50, 0.5), np.full(50, 0.1), [], chosen=True).kept)
    tuned
    >>> decide(np.full(50, 0.5), np.zeros(50), [], chosen=True).reasons[0]
    'no gain on 50 held-out queries: +0.000 [+0.000, +0.000] nDCG@10, expected +0.000 [+0.000, +0.000]'
    """
    if len(base) < FEWEST_HELD_OUT:
        few = f"{len(base)} held-out queries can be ranked better or worse; under {FEWEST_HELD_OUT} nothing is certain"
        return Verdict("base", (few,))
    two_sided = 2 * confidence - 1
    gain, sure = mean(gains, two_sided), mean(gains if expected is None else expected, two_sided)
    told = f"{signed(gain)} nDCG@10"
    reasons = []
    if not chosen or gain.mean <= 0 or sure.mean <= 0:
        reasons.append(f"no gain on {len(base)} held-out queries: {told}, expected {signed(sure)}")
    elif sure.low <= 0 or by_chance > 1 - confidence:
        reasons.append(
            f"the gain on {len(base)} held-out queries may be chance: {told}, expected {signed(sure)}, p = "
            f"{by_chance:.3f}; more judged queries may tell"
        )
    elif gain.mean < least_gain:
        reasons.append(f"the gain on {len(base)} held-out queries is too small to matter: {told}")
    for found in general:
        if not found.loss <= most_loss:  # nor where it is no number
            reasons.append(
                f"on general questions ({found.name}, {found.queries}) it forgets {found.loss:.3f} nDCG@10, from "
                f"{found.base:.3f} to {found.tuned:.3f}, where {most_loss:g} is allowed"
            )
    kept = "base" if reasons else "tuned"
    values = mean(base, two_sided), mean(base + gains, two_sided)
    return Verdict(kept, tuple(reasons), gain, *values, sure, tuple(general))
