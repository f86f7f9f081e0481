"""What a first stage finds for judged queries, and what cross-encoders make of it: every pair is scored once.

`found` runs the product's own retrieval, `given` takes a run that was made elsewhere. `read` scores the candidates once
at the greatest depth; rankings of any smaller depth, any mix and any cascade follow from these scores without a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from crossrank.cascade import Stage, Trace, mixed, rerank
from crossrank.errors import InputError
from crossrank.index import one_version
from crossrank.pipeline import Pipeline
from crossrank.types import Passage, Ranking, Run, Scorer, TokenStore
from crossrank.unicode import is_blank

Progress = Callable[[str, int, int], None]
Texts = Callable[[Sequence[str]], Sequence[Passage]]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Rankings of passages before any cross-encoder.

    Attributes:
        queries: text by query id.
        base: the step whose ranking is reranked, and which differences are taken to.
        traces: every step of each query, in order; the last one's name is `base`.
        texts: passages by id.
        store: where token ids lie ready, if anywhere.
        timed: whether the traces' seconds are measured; a run from a file has none.
    """

    queries: Mapping[str, str]
    base: str
    traces: Mapping[str, tuple[Trace, ...]]
    texts: Texts
    store: TokenStore | None = field(default=None, repr=False)
    timed: bool = True

    @property
    def run(self) -> dict[str, Ranking]:
        """The rankings that are reranked."""
        return {query: traces[-1].ranking for query, traces in self.traces.items()}

    @property
    def seconds(self) -> dict[str, float]:
        """What the whole first stage took, by query."""
        return {query: sum(trace.seconds for trace in traces) for query, traces in self.traces.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one model said of the candidates.

    Attributes:
        model: how tables call it.
        scorer: the model itself.
        depth: candidates it read of each query, at most.
        traces: of each query that has candidates; `Trace.scores` are raw, by passage id.
    """

    model: str
    scorer: Scorer
    depth: int
    traces: Mapping[str, Trace]

    def reranked(self, query: str, ranking: Ranking, depth: int, weight: float) -> Ranking:
        """What the stage makes of a ranking, from the scores that are known already.

        Raises:
            InputError: the stage would read a passage that was not scored.
        """
        head = ranking.cut(depth)
        known = self.traces[query].scores
        if unread := next((id_ for id_ in head.ids if id_ not in known), None):
            raise InputError(f"{self.model} has not read {unread!r} for query {query!r}; read more candidates")
        logits = np.array([known[id_] for id_ in head.ids], dtype=np.float32)
        return mixed(head, logits, weight).over(ranking)


def found(queries: Mapping[str, str], pipeline: Pipeline, progress: Progress | None = None) -> Candidates:
    """Search for each query without stages, timing every step.

    All searches read one version of an index, whoever updates it meanwhile: `crossrank.index.one_version`. Where that
    is removed, all are asked once more. What reads the candidates afterwards, such as `read`, is of that version only
    within a call of `one_version` around both: the retrievers and `texts` of a pipeline may be anybody's functions, so
    nobody else knows which indexes they read.

    Args:
        queries: text by id.
        pipeline: its stages are left out.
        progress: called with what is done, how many and of how many.

    Raises:
        InputError: a query has no text.
        IndexFileError: the version was removed twice.
    """
    check_texts(queries)
    first = Pipeline(pipeline.retrievers, pipeline.texts, (), pipeline.depth, pipeline.fusion, store=pipeline.store)
    return one_version(lambda: _found(queries, first, progress))


def _found(queries: Mapping[str, str], first: Pipeline, progress: Progress | None) -> Candidates:
    if queries:
        # The first search opens files; it would be the slowest.
        first.search(next(iter(queries.values())))
    traces = {}
    for number, (query, text) in enumerate(queries.items(), start=1):
        traces[query] = first.search(text).traces
        if progress:
            progress("searching", number, len(queries))
    names = [*first.retrievers, *(["fused"] if len(first.retrievers) > 1 else [])]
    return Candidates(queries, names[-1], traces, first.texts, first.store)


def given(queries: Mapping[str, str], name: str, run: Run, corpus: Mapping[str, Passage]) -> Candidates:
    """Take the rankings of a run, whose documents are all in the corpus.

    Raises:
        InputError: no query has a ranking, or a ranked document has no text.
    """
    check_texts(queries)
    listed = {query: run[query] for query in queries if query in run and len(run[query])}
    if not listed:
        raise InputError(f"the run {name} ranks nothing for the judged queries; is it of another set?")
    if lost := next((id_ for ranking in listed.values() for id_ in ranking.ids if id_ not in corpus), None):
        raise InputError(
            f"the run {name} ranks {lost!r}, which has no text in the corpus; use the corpus it was made on"
        )

    def texts(ids: Sequence[str]) -> list[Passage]:
        return [corpus[id_] for id_ in ids]

    traces = {query: (Trace(name, ranking, 0.0, {}),) for query, ranking in listed.items()}
    return Candidates(queries, name, traces, texts, timed=False)


def check_texts(queries: Mapping[str, str]) -> None:
    """Refuse queries that cannot be asked.

    Raises:
        InputError: one has no text.
    """
    if blank := [query for query, text in queries.items() if is_blank(text)]:
        raise InputError(
            f"query {blank[0]!r} ({len(blank)} in all) has no text, so nothing can be asked; take it out, or "
            "give it one"
        )


def read(
    candidates: Candidates, scorers: Mapping[str, Scorer], depth: int, progress: Progress | None = None
) -> dict[str, Reading]:
    """Let every model score the first `depth` candidates, one query at a time as the product does.

    The models take turns query by query, so that a machine which slows down slows all of them.
    """
    traces: dict[str, dict[str, Trace]] = {model: {} for model in scorers}
    stages = {model: Stage(scorer, depth, 1.0, model) for model, scorer in scorers.items()}
    waiting = [(query, ranking) for query, ranking in candidates.run.items() if len(ranking)]
    for number, (query, ranking) in enumerate(waiting, start=1):
        text = candidates.queries[query]
        for model, stage in stages.items():
            if number == 1:
                # The first call of a model allocates; it would be the slowest.
                rerank(text, ranking.cut(1), [stage], candidates.texts, candidates.store)
            _, (trace,) = rerank(text, ranking, [stage], candidates.texts, candidates.store)
            traces[model][query] = trace
        if progress:
            progress("reranking", number, len(waiting))
    return {model: Reading(model, scorer, depth, traces[model]) for model, scorer in scorers.items()}


def cascaded(
    candidates: Candidates, coarse: Stage, fine: Stage, progress: Progress | None = None
) -> tuple[Candidates, Reading]:
    """Let one stage read the top of what another leaves, as the product does: for its times, which do not follow.

    Returns:
        Candidates whose last ranking is what the coarse stage leaves, and what the fine one said of the top of it, with
        the time of both stages.
    """
    name = f"{coarse.name} > {fine.name}"
    traces, fines = {}, {}
    waiting = [(query, ranking) for query, ranking in candidates.run.items() if len(ranking)]
    for number, (query, ranking) in enumerate(waiting, start=1):
        text = candidates.queries[query]
        _, (wide, near) = rerank(text, ranking, [coarse, fine], candidates.texts, candidates.store)
        traces[query] = (*candidates.traces[query], replace(wide, seconds=0.0))
        fines[query] = replace(near, seconds=wide.seconds + near.seconds)
        if progress:
            progress("cascade", number, len(waiting))
    return replace(candidates, base=coarse.name, traces=traces), Reading(name, fine.scorer, fine.depth, fines)
