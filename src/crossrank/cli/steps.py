"""What the steps of a search said of its passages, for `crossrank search --explain`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crossrank.cli import terminal

if TYPE_CHECKING:
    from crossrank.cascade import Trace
    from crossrank.pipeline import Answer
    from crossrank.types import Passage, Truncation


def source(answer: Answer, id_: str) -> str:
    """The step whose score an answer shows: the last one that scored it."""
    called = list(zip(names(answer), answer.traces, strict=True))
    ranked = [name for name, trace in called if not trace.scores and not trace.stopped]
    return next((name for name, trace in reversed(called) if id_ in trace.scores), ranked[-1])


def names(answer: Answer) -> list[str]:
    """What the steps are called, each name once: a model's folder may be called as a retriever is."""
    called: list[str] = []
    for trace in answer.traces:
        taken = sum(name == trace.name or name.startswith(f"{trace.name} (") for name in called)
        called.append(f"{trace.name} ({taken + 1})" if taken else trace.name)
    return called


def of(answer: Answer, id_: str) -> dict[str, dict[str, Any]]:
    """What each step said of one answer: rank (from 1) and score; of a reranker also its own raw score."""
    said: dict[str, dict[str, Any]] = {}
    for number, (name, trace) in enumerate(zip(names(answer), answer.traces, strict=True)):
        if id_ not in trace.ranking.ids:
            continue
        row = trace.ranking.ids.index(id_)
        step: dict[str, Any] = {"rank": row + 1, "score": terminal.finite(trace.ranking.scores[row])}
        if trace.scores:
            step["raw_score"] = terminal.finite(trace.scores[id_]) if id_ in trace.scores else None
            cut = _truncation(answer.traces, number, id_)
            step["truncation"] = None if cut is None else terminal.truncation_fields(cut)
        said[name] = step
    return said


def verdicts(answer: Answer, id_: str) -> list[str]:
    """What every step said of one answer, in a word; "-" of a step that did not have it, so that columns stay."""
    said = of(answer, id_)
    return [_verdict(said[name]) if name in said else "-" for name in names(answer)]


def _verdict(step: dict[str, Any]) -> str:
    score = step.get("raw_score", step["score"])
    return f"#{step['rank']}" + ("" if score is None else f" {score:.3f}")


def _truncation(traces: Sequence[Trace], number: int, id_: str) -> Truncation | None:
    # Positions of a stage's truncations count in the ranking that the step before it left.
    before = traces[number - 1].ranking.ids
    return next((t for t in traces[number].truncations if t.position >= 0 and before[t.position] == id_), None)


def cuts(traces: Sequence[Trace], number: int, shown: dict[str, Passage]) -> list[str]:
    """What a stage did not read whole, or read in windows: named for the answers on screen, counted for the rest."""
    lines, others = [], 0
    for cut in traces[number].truncations:
        if cut.position < 0:
            continue
        id_ = traces[number - 1].ranking.ids[cut.position]
        if id_ not in shown:
            others += 1
            continue
        windows = f" in {terminal.count(cut.windows, 'window')}" if cut.windows > 1 else ""
        lines.append(f"{terminal.shown(id_, 40)}: read {cut.told}{windows}")
    if others:
        lines.append(f"{terminal.count(others, 'passage')} below these were cut or read in windows")
    return lines
