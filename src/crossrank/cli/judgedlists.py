"""`crossrank eval FILE`: judged rows as `crossrank tune` reads them, in place of a collection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from crossrank.cli import judged, options
from crossrank.errors import InputError

if TYPE_CHECKING:
    from crossrank.evaluation.beir import JudgedSet
    from crossrank.types import Run

# What the order that models are compared with is called.
WORDS = "BM25"
_LABEL = "give each row a label, 0 for what is not relevant"


@dataclass(frozen=True, eq=False)
class Opened:
    """What an evaluation needs of its source before models are loaded.

    Attributes:
        asked: the options; where the source is a file of rows, `over` is its run.
        queries: judged, with a corpus where the source holds texts.
        runs: by name.
        depth: candidates that models read.
        shares: of the cross-encoder in the order.
        notes: what was left out.
    """

    asked: judged.Asked
    queries: JudgedSet
    runs: dict[str, Run]
    depth: int
    shares: list[float]
    notes: list[str]


def opened(asked: judged.Asked, depth: int, mix: str | None) -> Opened:
    """Open whatever source is named.

    Raises:
        click.UsageError: an option is missing for this kind of source, or has no use there.
        ReadError: a file is missing or damaged.
        InputError: no document is judged relevant, or the rows do not say what is.
    """
    shares = judged.weights(mix)
    if asked.source is None or asked.source.is_dir():
        runs = judged.read_runs(asked.runs)
        queries, notes = judged.opened_set(asked)
        return Opened(asked, queries, runs, depth, shares, notes)
    used = ("queries", "qrels", "split", "runs", "over", "cache", "passage_tokens", "embedder")
    if given := options.given(used):
        raise click.UsageError(f"{asked.source} brings its own queries and documents, so {given} has no use beside it")
    from crossrank.evaluation import setting

    whole, run, notes = _lists(asked)
    queries, drawn = setting.sampled(whole, asked.sample, asked.seed)
    # All of a list is read unless somebody says less, and what a search mixes with is not here.
    depth = depth if options.typed("depth") else max(map(len, queries.qrels.values()))
    shares = shares if mix is not None else [1.0]
    return Opened(replace(asked, over=WORDS), queries, {WORDS: run}, depth, shares, [*drawn, *notes])


def _lists(asked: judged.Asked) -> tuple[JudgedSet, Run, list[str]]:
    from crossrank.evaluation.lists import judged_lists
    from crossrank.training import reading
    from crossrank.training.checks import Finding, pairs, unlabelled

    assert asked.source is not None
    rows = reading.read(asked.source)
    if held := unlabelled(rows):
        raise InputError(f"{asked.source} holds {held}. No order can be judged by these: {_LABEL}")
    findings: list[Finding] = []
    lists = [
        (query, {text: max(labels) for text, labels in documents.values() if len(labels) == 1})
        for query, documents in pairs(rows, findings).values()
    ]
    judged_set, run, notes = judged_lists(asked.source.name, lists)
    told = [f"{found.message}." for found in findings if found.name != "spelling"]
    said = f"{WORDS} orders each query's own documents in {asked.source.name}: a yardstick, no first stage of yours."
    return judged_set, run, [said, *told, *notes]
