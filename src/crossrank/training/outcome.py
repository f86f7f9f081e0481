"""What a tuning says while it runs, and what it came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crossrank.calibration import Platt
from crossrank.training.checks import Finding
from crossrank.training.gate import Point, Verdict
from crossrank.training.settings import Plan


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
        counts: queries, pairs, mined and doubtful documents, distractors, measured queries.
        resumed: whether an interrupted tuning was gone on with.
        seconds: of this call.
        refused: where a trained model that the gate refused was written, if that was asked for.
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


@dataclass(frozen=True, slots=True)
class Engine:
    """Where a tuning runs: the backend that measures, the device of both, the number format, cores."""

    backend: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
