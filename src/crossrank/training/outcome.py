"""What a tuning says while it runs, and what it came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.calibration import Platt
from crossrank.evaluation import Interval, mean
from crossrank.training.checks import Finding
from crossrank.training.gate import General, Point, Verdict
from crossrank.training.settings import Plan

# The share of a tuned model in a search: it deserves more than the 0.4 of one that knows nothing of the user's data.
# Five models tuned on WikiQA have 0.731 to 0.737 nDCG@10 at 0.4 and 0.745 to 0.752 at 0.6 (LOG.md).
USUAL_MIX = 0.6


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a tuning is.

    Attributes:
        stage: what is done now.
        run: number of the training, from 1; 0 before the first.
        runs: trainings in all.
        step: of this training, like `steps`.
        steps: see `step`.
        loss: the mean of the last 20 steps.
        value: nDCG@10 of held-out queries after an epoch, else None.
        base: the base model's on the same queries, where `value` is.
        left: seconds, estimated; None at the start.
    """

    stage: str
    run: int = 0
    runs: int = 0
    step: int = 0
    steps: int = 0
    loss: float | None = None
    value: float | None = None
    base: float | None = None
    left: float | None = None


@dataclass(frozen=True, slots=True)
class InSearch:
    """Mean nDCG@10 of held-out queries as a search answers them, by the share of a model's score in the order.

    Attributes:
        mixes: the shares, rising.
        base: of the base model, at each.
        tuned: of the tuned one, at each.
        mix: the share that suits the tuned one.
    """

    mixes: tuple[float, ...]
    base: tuple[float, ...]
    tuned: tuple[float, ...]
    mix: float

    @classmethod
    def of(
        cls, base: Mapping[float, NDArray[np.float64]], tuned: Mapping[float, NDArray[np.float64]], confidence: float
    ) -> InSearch:
        """What values of the same queries come to, shape (n,) for each share, rising.

        Which of two shares is better, some fifty queries seldom tell: so it is `USUAL_MIX`, or the nearest there is,
        unless others are surely better, and then the best of these.

        Args:
            base: of the base model.
            tuned: of the tuned one.
            confidence: one-sided, that a share is better than the usual one.

        >>> rng = np.random.default_rng(0)
        >>> values = rng.random(50)
        >>> tuned = {0.4: values - 0.1, 0.6: values, 0.8: values + rng.normal(0.005, 0.1, 50)}
        >>> InSearch.of(tuned, tuned, 0.95).mix
        0.6
        >>> tuned[0.8] = values + rng.normal(0.05, 0.1, 50)
        >>> InSearch.of(tuned, tuned, 0.95).mix
        0.8
        """
        usual = min(tuned, key=lambda mix: abs(mix - USUAL_MIX))
        better = [m for m in tuned if m != usual and mean(tuned[m] - tuned[usual], 2 * confidence - 1).low > 0]
        before, after = (tuple(float(each.mean()) for each in values.values()) for values in (base, tuned))
        return cls(tuple(base), before, after, max(better or [usual], key=lambda mix: float(tuned[mix].mean())))


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a tuning came to.

    Attributes:
        verdict: of the gate; `verdict.kept` is "tuned" or "base".
        findings: what was wrong with the data.
        folder: the tuned model's; None when the base model is kept.
        plan: what was done; None when nothing was trained.
        point: epoch and share of the tuned weights.
        calibration: slope and intercept on held-out queries; None where it cannot be told.
        uncalibrated: why a model that was written has none.
        counts: queries, pairs, mined and doubtful documents, distractors, measured queries, and the candidates of a
            search that these are ranked with at most (0 where they are ranked as lists).
        resumed: whether an interrupted tuning was gone on with.
        seconds: of this call.
        refused: where a trained model that the gate refused was written, if that was asked for.
        in_search: what the models are worth in whole searches; None where no search was asked, or nothing was gained.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    folder: Path | None = None
    plan: Plan | None = None
    point: Point | None = None
    calibration: Platt | None = None
    uncalibrated: str = ""
    counts: Mapping[str, int] | None = None
    resumed: bool = False
    seconds: float = 0.0
    refused: Path | None = None
    in_search: InSearch | None = None

    def record(self) -> dict[str, Any]:
        """It as JSON that `of` takes back, without its findings."""
        folders = {
            name: None if folder is None else str(folder.absolute())
            for name, folder in (("folder", self.folder), ("refused", self.refused))
        }
        return {**asdict(replace(self, findings=())), **folders}

    @classmethod
    def of(cls, record: Mapping[str, Any], findings: tuple[Finding, ...] = ()) -> Outcome:
        """What `record` was made of.

        >>> gain = Interval(0.1, 0.05, 0.2, 30)
        >>> Outcome.of(Outcome(Verdict("tuned", (), gain), ()).record()).verdict.gain == gain
        True
        """
        verdict = dict(record["verdict"])
        for name in ("gain", "base", "tuned", "expected"):
            verdict[name] = verdict[name] and Interval(**verdict[name])
        verdict["reasons"] = tuple(verdict["reasons"])
        verdict["general"] = tuple(General(**one) for one in verdict["general"])
        made = {
            "verdict": Verdict(**verdict),
            "findings": findings,
            "plan": record["plan"] and Plan(**record["plan"]),
            "point": record["point"] and tuple(record["point"]),
            "calibration": record["calibration"] and Platt(**record["calibration"]),
            "folder": record["folder"] and Path(record["folder"]),
            "refused": record["refused"] and Path(record["refused"]),
            "in_search": record["in_search"] and _in_search(record["in_search"]),
        }
        return cls(**{**record, **made})


def _in_search(record: Mapping[str, Any]) -> InSearch:
    return InSearch(tuple(record["mixes"]), tuple(record["base"]), tuple(record["tuned"]), record["mix"])


@dataclass(frozen=True, slots=True)
class Engine:
    """Where a tuning runs: the backend that measures, the device of both, the number format, cores."""

    backend: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
