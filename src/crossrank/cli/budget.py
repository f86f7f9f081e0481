"""Options of answers that are due at a time, the folder of measured costs, and what is said when time is short."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from crossrank import __version__
from crossrank.cli import options, terminal

if TYPE_CHECKING:
    from crossrank.pipeline import Answer
    from crossrank.planner import Memory
    from crossrank.ranked import Ranked
    from crossrank.scorers import PairScorer
    from crossrank.types import Passage

Trouble = Literal["failed", "hurried", "late", "cut"]
"""A stage failed, time was short, the answer came after its time, or a model did not read the query to its end."""

budget_ms = click.option(
    "--budget-ms", type=options.Number(1, 3_600_000), metavar="MS", envvar="CROSSRANK_BUDGET_MS", show_envvar=True,
    help="Answer within so many milliseconds, loading not counted: as many passages are read as fit.  [default: none]",
)  # fmt: skip
on_error = click.option(
    "--on-error", type=click.Choice(["raise", "keep"]),
    help="When the cross-encoder is missing or fails: stop with the error, or keep the order of the first stage and "
    "exit with code 3.  [default: raise; once loaded, keep with --budget-ms]",
)  # fmt: skip


def memory() -> Memory:
    """Where measured costs are kept: in CROSSRANK_COSTS, or where this system keeps a user's caches."""
    from crossrank.planner import Memory

    named = os.environ.get("CROSSRANK_COSTS")
    if named:
        return Memory(Path(named), __version__)
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Caches"
    else:
        named = os.environ.get("XDG_CACHE_HOME", "")
        # Its standard says that a relative one is not obeyed: it would be another folder wherever a command runs.
        home = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
    return Memory(home / "crossrank", __version__)


def troubles(answer: Answer) -> Iterator[tuple[Trouble, str]]:
    """What an answer suffered from, in kinds and in words."""
    for trace in answer.traces:
        if trace.stopped == "error":
            yield "failed", f"{trace.name}: {trace.note}"
        elif trace.stopped in ("deadline", "plan"):
            yield "hurried", f"{trace.name}: {trace.note}"
    yield from (("cut", f"{told}.") for told in answer.query_cut)
    if answer.late and answer.budget is not None:
        longest = max(answer.traces, key=lambda trace: trace.seconds)
        yield (
            "late",
            f"the answer took {terminal.duration(answer.seconds)}, and the budget was "
            f"{terminal.duration(answer.budget)}; {longest.name} took {terminal.duration(longest.seconds)} of it.",
        )


def warn_of(answer: Answer, explained: bool) -> bool:
    """Say on stderr what an answer suffered from, and what else steps note; whether a stage failed.

    Where `--explain` shows the notes of the steps, only failures are said here, too.
    """
    for kind, told in troubles(answer):
        if kind != "hurried" or not explained:
            terminal.warn(told)
    for trace in answer.traces:
        # Such as a stage whose top was settled early, which changes nothing.
        if trace.note and not explained and trace.stopped not in ("error", "deadline", "plan"):
            terminal.note(f"{trace.name}: {trace.note}")
    return bool(answer.failed)


def ranked(
    scorers: Sequence[PairScorer], query: str, passages: Sequence[Passage], k: int | None, ms: float | None
) -> tuple[Ranked, int]:
    """The passages in the order that models find, each over the best half of what the one before it has read, and how
    many the last that read any has read, within so many milliseconds where they are given.

    The first model reads passages in the order given. Those that the last did not read follow in the order before it,
    without a score.

    Args:
        scorers: the models, the cheapest first.
        query: what the user asks.
        passages: all of them.
        k: passages that come back, and that the last model reads at least; None for all, of which it reads 50 or half.
        ms: the budget, if any.
    """
    import math
    import time
    from dataclasses import replace

    import numpy as np

    from crossrank.cascade import Stage, rerank
    from crossrank.planner import depths, paced
    from crossrank.ranked import Ranked
    from crossrank.types import Ranking

    given = Ranking(tuple(map(str, range(len(passages)))), np.full(len(passages), -math.inf, dtype=np.float32), 0)
    reads = depths(max(1, len(passages)), len(scorers))
    reads[1:] = [max(read, k or 1) for read in reads[1:]]
    named = [(scorer, max(1, read), scorer.checkpoint.name) for scorer, read in zip(scorers, reads, strict=True)]
    stages = [Stage(scorer, read, name=name) for scorer, read, name in named]
    due = None if ms is None else time.perf_counter() + ms / 1000
    stages = stages if ms is None else [paced(stage, memory()) for stage in stages]
    # By their positions: ids of rows may come twice.
    final, traces = rerank(
        query, given, stages, lambda ids: [replace(passages[int(i)], id=i) for i in ids], deadline=due
    )
    for trace in traces:
        if trace.note:
            rest = "; the others follow in the order given" if trace.stopped else ""
            terminal.warn(f"{trace.note}{rest}.")
    last = next((place for place in reversed(range(len(traces))) if traces[place].scores), None)
    if last is None:
        return Ranked(tuple(int(i) for i in final.ids)[:k], final.scores[:k], ()), 0
    before = given if last == 0 else traces[last - 1].ranking
    cut = tuple(
        replace(one, position=int(before.ids[one.position]) if one.position >= 0 else -1)
        for one in traces[last].truncations
    )
    scores = final.scores.copy()
    scores[final.head :] = -math.inf  # of another model, or none
    return Ranked(tuple(int(i) for i in final.ids)[:k], scores[:k], cut), final.head
