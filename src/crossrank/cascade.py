"""Stages of rerankers, coarse to fine: score the head, place it in its new order over the old tail."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError
from crossrank.fusion import zscore
from crossrank.types import Passage, Ranking, Scorer, TokenStore, Truncation, check_k


@dataclass(frozen=True, slots=True)
class Stage:
    """One reranker and how many documents it reads.

    Attributes:
        scorer: scores (query, passage) pairs.
        depth: documents it reads, from the top of the ranking before it.
        weight: share of this stage's score in the new order, 0 < weight <= 1. The rest comes from the scores the
            ranking had before it; both are standardized over the documents read. 1 trusts the scorer alone. A
            cross-encoder alone can be worse than a good fusion, and the mix is better than either (README, quality).
        name: how the stage is called in traces.
    """

    scorer: Scorer
    depth: int = 100
    weight: float = 1.0
    name: str = "rerank"

    def __post_init__(self) -> None:
        check_k(self.depth)
        if not 0.0 < self.weight <= 1.0:
            raise InputError(f"a stage's weight must be over 0 and at most 1, not {self.weight}")


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
    """

    name: str
    ranking: Ranking
    seconds: float
    scores: dict[str, float]
    truncations: tuple[Truncation, ...] = ()
    note: str = ""


def mixed(ranking: Ranking, logits: NDArray[np.float32], weight: float) -> Ranking:
    """The new order of a stage's head.

    The new score is `weight * z(logits) + (1 - weight) * z(scores before)`, standardized over the documents read;
    with weight 1 it is the logit itself. Documents with a logit of -inf (blank texts) come last in their old order.

    >>> before = Ranking.sorted(["a", "b"], [2.0, 1.0])
    >>> mixed(before, np.float32([0.0, 5.0]), weight=1.0).ids
    ('b', 'a')
    """
    if weight == 1.0:
        return Ranking.sorted(ranking.ids, logits)
    read = np.isfinite(logits)
    scores = np.full(len(logits), -np.inf, dtype=np.float32)
    scores[read] = weight * zscore(logits[read]) + (1.0 - weight) * zscore(ranking.scores[read])
    return Ranking.sorted(ranking.ids, scores)


def rerank(
    query: str,
    ranking: Ranking,
    stages: Sequence[Stage],
    texts: Callable[[Sequence[str]], Sequence[Passage]],
    store: TokenStore | None = None,
) -> tuple[Ranking, tuple[Trace, ...]]:
    """Run `stages` over one ranking, each on the top of what the one before it left.

    Args:
        query: what the user asks.
        ranking: the candidates, best first.
        stages: in order; none leaves the ranking as it is.
        texts: passages of the given ids, in their order.
        store: where their token ids lie ready, if anywhere. A cross-encoder with the same tokenizer reads those and no
            text; one with another tokenizer reads the texts, which its trace notes.

    Returns:
        The final ranking, and what each stage did. `ranking.head` documents were read by the last stage; documents
        below keep the order and the scores of the step before.

    >>> class Longest:
    ...     def score(self, pairs):
    ...         return np.array([len(text) for _, text in pairs], dtype=np.float32)
    >>> start = Ranking.sorted(["a", "b", "c"], [3.0, 2.0, 1.0])
    >>> passages = {"a": Passage("a", "x"), "b": Passage("b", "xyz"), "c": Passage("c", "xyzxyz")}
    >>> final, traces = rerank("q", start, [Stage(Longest(), depth=2)], lambda ids: [passages[i] for i in ids])
    >>> final.ids, final.head
    (('b', 'a', 'c'), 2)
    """
    traces = []
    for stage in stages:
        began = time.perf_counter()
        head = ranking.cut(stage.depth)
        if not len(head):
            break
        logits, truncations, note = _score(stage.scorer, query, head.ids, texts, store)
        ranking = mixed(head, logits, stage.weight).over(ranking)
        seconds = time.perf_counter() - began
        raw = dict(zip(head.ids, logits.tolist(), strict=True))
        traces.append(Trace(stage.name, ranking, seconds, raw, truncations, note))
    return ranking, tuple(traces)


def _score(
    scorer: Scorer,
    query: str,
    ids: Sequence[str],
    texts: Callable[[Sequence[str]], Sequence[Passage]],
    store: TokenStore | None,
) -> tuple[NDArray[np.float32], tuple[Truncation, ...], str]:
    """Scores, the truncation report where the scorer makes one, and a note."""
    if isinstance(scorer, CrossEncoder):
        if store is not None and store.tokenizer == scorer.tokenizer:
            scored = scorer.scored_tokens([query] * len(ids), store.tokens(ids))
            return scored.scores, scored.truncations, ""
        scored = scorer.scored([(query, passage.scored_text) for passage in texts(ids)])
        note = "" if store is None else f"tokenized {len(ids)} passages: the index holds ids of another tokenizer"
        return scored.scores, scored.truncations, note
    logits = np.asarray(scorer.score([(query, passage.scored_text) for passage in texts(ids)]), dtype=np.float32)
    if logits.shape != (len(ids),):
        raise InputError(f"the scorer gave scores of shape {logits.shape} for {len(ids)} pairs")
    return logits, (), ""
