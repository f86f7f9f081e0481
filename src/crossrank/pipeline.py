"""A whole query: retrievers, their fusion, a cascade of rerankers. Its repr is its source."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from crossrank.answer import Answer
from crossrank.anytime import Clock, fetched
from crossrank.asking import K_ELSEWHERE, check_query, check_real, without
from crossrank.calibration import Threshold
from crossrank.cascade import OnError, Stage, Trace, check_on_error, distinct, rerank
from crossrank.context import Context, Order, assemble, nothing
from crossrank.cost import Habit
from crossrank.errors import InputError
from crossrank.evidence import Evidence, find
from crossrank.fusion import RRF, Fusion, fusion_of
from crossrank.grouping import Grouped, PerDocument, grouped
from crossrank.index import one_version
from crossrank.opening import embedder_of, stage_of
from crossrank.planner import ADVICE, Memory, depths, paced, plan
from crossrank.relevance import Relevance, check_stages, kept, last_read, relevance_of, unused
from crossrank.retrieval import check_retrievers, retrieved
from crossrank.retrieval.where import Where, among, why_nothing
from crossrank.scorers import counter_of
from crossrank.stopping import Stopping
from crossrank.types import Embedder, Passage, Ranking, Retriever, Scorer, TokenStore, check_k

if TYPE_CHECKING:
    from crossrank.index import Index

__all__ = ["MIX", "Answer", "Pipeline", "open_pipeline"]

# Share of the cross-encoder's score when a hybrid first stage is reranked. Chosen on nine dev sets (see LOG.md): the
# mean is 0.728 for fused scores alone, 0.742 at 0.3, 0.745 from 0.4 to 0.6, and 0.712 for `small` alone.
MIX = 0.4
# What fetching the texts of an answer takes, until it was measured.
_FETCH = 0.003
# What it took is kept beside the times of the retrievers, whose names are strings.
_TEXTS = None
_NOTHING = Ranking((), np.zeros(0, dtype=np.float32), 0)


@dataclass(frozen=True)
class Pipeline:
    """Retrieve, fuse, rerank: a fixed shape, so a frozen value.

    Attributes:
        retrievers: first stages by name. One is used as it is; several are joined by `fusion`.
        texts: passages of the given ids. They are told apart by `Passage.id`; one that is missing is an error.
        stages: rerankers, in order; none leaves the fused order.
        depth: documents each retriever returns.
        fusion: how several rankings become one, or its name, "scores" or "rrf" (reciprocal rank fusion), which suits
            any retrievers and is the default.
        store: where the passages' token ids lie ready, if anywhere; see `crossrank.cascade.rerank`.
        budget: seconds in which an answer is due; see `within`.
        on_error: what a stage that fails does to the query: "raise", or "keep" the order before it, with the reason in
            its trace. The default raises: who does not look at traces would never learn that a model is broken.
        clock: what tells the time.

    >>> import crossrank
    >>> class Newest:
    ...     def retrieve(self, queries, depth):
    ...         return [Ranking.sorted(["a", "b"], [2, 1]).cut(depth) for _ in queries]
    >>> texts = {"a": Passage("a", "Tea is hot."), "b": Passage("b", "Paris is the capital of France.")}
    >>> made = Pipeline({"newest": Newest()}, lambda ids: [texts[i] for i in ids], (Stage(crossrank.load()),))
    >>> answer = made.search("capital of France?", k=1)
    >>> answer.ranking.ids, made.context(answer, 100).text, bool(made.relevance(answer).best > 0.5)
    (('b',), '[1]\\nParis is the capital of France.', True)
    """

    retrievers: Mapping[str, Retriever]
    texts: Callable[[Sequence[str]], Sequence[Passage]] = field(repr=False)
    stages: tuple[Stage, ...] = ()
    depth: int = 100
    fusion: Fusion | Literal["scores", "rrf"] = field(default_factory=RRF)
    store: TokenStore | None = field(default=None, repr=False)
    budget: float | None = None
    on_error: OnError = "raise"
    clock: Clock = field(default=time.perf_counter, repr=False)
    _habits: dict[str | None, Habit] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_k(self.depth, "depth")
        check_retrievers(self.retrievers)
        check_on_error(self.on_error)
        if self.budget is not None:
            check_real("a budget in seconds", self.budget)
            if not 0 < self.budget < float("inf"):
                raise InputError(f"a budget is a time over 0, not {self.budget} seconds")
        object.__setattr__(self, "fusion", fusion_of(self.fusion))
        # Traces tell by its name which stage did what, and whose scores are calibrated how.
        object.__setattr__(self, "stages", distinct(self.stages))

    def within(self, ms: float, *, memory: Memory | None = None, on_error: OnError = "keep") -> Pipeline:
        """The same pipeline, whose answers are due after `ms` milliseconds, retrieval included.

        Stages and the number of documents they read follow the time that retrieval leaves; the advice that a choice
        among several models goes by is `crossrank.planner.plan`. What was not done is in the answer: `Answer.notes`,
        `Trace.stopped`. An answer is never empty because of its budget: when nothing else fits it is the fused order.

        The first use of a scorer measures it, about 1.5 s each, unless `memory` knows it, and three retrievals for
        nothing open the retrievers' files, so that no query pays for that.

        Args:
            ms: milliseconds.
            memory: where costs are kept between processes; nothing is read or written without it.
            on_error: as the attribute. Here a stage that fails leaves the order before it: who names a time wants an
                answer by then.

        Raises:
            InputError: a budget that is no time over 0, an unknown `on_error`, or a `memory` that is none.
        """
        check_real("a budget in milliseconds", ms)
        made = replace(
            self,
            stages=tuple(paced(stage, memory) for stage in self.stages),
            budget=ms / 1000,
            on_error=on_error,
            _habits={},
        )
        for turn in range(3):
            one_version(lambda: made._fetch(made._retrieve("warm up", None)[-1].ranking, 10, None))
            if not turn:
                # The first one opened files: no habit.
                made._habits.clear()
        return made

    def filtered(self, where: Where) -> Pipeline:
        """The same pipeline, over passages that meet these conditions and those it was made with.

        Raises:
            InputError: a filter that is none, or a retriever that cannot filter, such as one of a store.
        """
        return replace(self, retrievers=among(self.retrievers, where))

    @without(K_ELSEWHERE)
    def search(
        self,
        query: str,
        k: int = 10,
        *,
        where: Where = None,
        threshold: Threshold | None = None,
        per_document: int | None = None,
        read_few: bool = False,
    ) -> Answer:
        """The `k` best documents for `query`; see `Answer.ranking` for what their scores are.

        All that it reads of an index is of one version, whoever updates it meanwhile: `crossrank.index.one_version`.

        Args:
            query: what the user asks; of many, each is a call of its own, from threads if you like.
            k: documents, at most.
            where: filters of this query, such as "tenant=acme", as of `filtered`.
            threshold: of the `k` only those that the last stage read and finds at least so probable, perhaps none;
                "model" takes its own, `CrossEncoder.threshold`. `Answer.thresholded` says what was left out.
            per_document: at most so many passages of one document, its best; `k` counts what stays, in its order, and
                `Answer.left_out` the rest. See `crossrank.grouping`, also for passages that name no document.
            read_few: within a budget, have candidates read for their probabilities where they are so few that their
                order would stay (`planner.Advice.least`). With a `threshold` they are.

        Raises:
            InputError: a blank query, a `k` or `per_document` under 1, a filter as of `filtered`, a document for which
                `texts` gives no passage, or a threshold where the last stage (within a budget any) gives no
                probabilities.
        """
        check_k(k)
        if isinstance(query, (list, tuple)):
            raise InputError("search takes one query: [pipeline.search(query) for query in queries] asks many")
        check_query(query)
        check_stages(self.stages, threshold, self.budget is not None)
        if where is not None:
            return self.filtered(where).search(
                query, k, threshold=threshold, per_document=per_document, read_few=read_few
            )
        limit = None if per_document is None else PerDocument(k, per_document)
        began = self.clock()
        answer = one_version(lambda: self._search(query, k, limit, began, read_few or threshold is not None))
        return answer if threshold is None else kept(self.stages, answer, threshold)

    def _search(self, query: str, k: int, limit: PerDocument | None, began: float, read_few: bool) -> Answer:
        # The texts of the answer are fetched after the last stage, and in time.
        due = None if self.budget is None else began + self.budget - self._habits.get(_TEXTS, Habit(_FETCH)).most
        traces = self._retrieve(query, due)
        ranking, stages = traces[-1].ranking, self.stages
        if due is not None:
            chosen = plan(stages, len(ranking), due - self.clock(), replace(ADVICE, least=0) if read_few else ADVICE)
            stages = chosen.stages
            if chosen.notes:
                traces.append(Trace("plan", ranking, 0.0, {}, note="; ".join(chosen.notes), stopped="plan"))
        stages = tuple(stage.for_top(k, limit) for stage in stages)
        ranking, reranked = rerank(
            query, ranking, stages, self.texts, self.store, deadline=due, on_error=self.on_error, clock=self.clock
        )
        found = self._fetch(ranking, k, limit)
        nothing = "" if found.passages else why_nothing(self.retrievers.values())
        return Answer(
            query, found.ranking, found.passages, (*traces, *reranked), self.clock() - began, self.budget,
            nothing=nothing, left_out=found.left_out, grouped=found.notes,
        )  # fmt: skip

    def _retrieve(self, query: str, due: float | None) -> list[Trace]:
        """What each retriever found, and the fused ranking at the end; one that would be late is left out."""
        traces: list[Trace] = []
        for name, retriever in self.retrievers.items():
            started = self.clock()
            most = self._habits[name].most if name in self._habits else 0.0
            if due is not None and started + most > due and any(len(trace.ranking) for trace in traces):
                self._habits[name] = self._habits[name].idle()
                left = max(0.0, due - started) * 1000
                note = f"left out: it may take {most * 1000:.0f} ms, and {left:.0f} were left"
                traces.append(Trace(name, _NOTHING, 0.0, {}, note=note, stopped="deadline"))
                continue
            found = retrieved(retriever, query, self.depth)
            taken = self.clock() - started
            self._learn(name, taken)
            traces.append(Trace(name, found.ranking, taken, {}, found.truncations))
        if len(traces) > 1:
            started = self.clock()
            assert callable(self.fusion)  # as made
            fused = self.fusion({trace.name: trace.ranking for trace in traces})
            traces.append(Trace("fused", fused, self.clock() - started, {}, how=str(getattr(self.fusion, "told", ""))))
        return traces

    def _fetch(self, ranking: Ranking, k: int, limit: PerDocument | None) -> Grouped:
        started = self.clock()
        if limit is not None:
            found = grouped(ranking, limit, lambda ids: fetched(self.texts, ids))
        else:
            final = ranking.cut(k)
            found = Grouped(final, tuple(fetched(self.texts, final.ids)) if len(final) else ())
        self._learn(_TEXTS, self.clock() - started)
        return found

    def _learn(self, name: str | None, seconds: float) -> None:
        habit = self._habits.get(name)
        self._habits[name] = Habit(seconds) if habit is None else habit.after(seconds)

    def context(
        self,
        query: str | Answer,
        tokens: int,
        k: int | None = None,
        *,
        count: Callable[[str], int] | None = None,
        order: Order = "score",
        threshold: Threshold | None = None,
        where: Where = None,
        per_document: int | None = None,
    ) -> Context:
        """The `k` best passages for a language model to answer from, within a budget of tokens.

        Args:
            query: what the user asks; or an answer of `search`, whose passages are taken as they were found.
            tokens: the budget; see `crossrank.context.assemble`, also for the order.
            k: passages to choose from; 5 to 10 are usual. When absent 10, or all of an answer.
            count: tokens of a text, such as `lambda text: len(encoding.encode(text))` with tiktoken. When absent the
                last stage's own tokenizer counts, or else the bi-encoder's; no language model's agrees but roughly.
            order: "score" or "document".
            threshold: the context is empty when no passage of the `k` that the last stage read has at least this
                probability. "model" takes the last stage's own, `CrossEncoder.threshold`.
            where: filters, as in `search`.
            per_document: at most so many of the `k` passages are of one document, as in `search`: sources are fewer and
                shorter then, as neighbours in a document are not joined.

        Raises:
            InputError: a blank query, a budget, `k` or threshold out of its range, no `count` where nothing has a
                tokenizer, a threshold as of `search`, a filter as of `filtered`, or one or
                `per_document` beside an answer, whose search is over.
        """
        check_k(tokens, "tokens")
        check_stages(self.stages, threshold, self.budget is not None)
        counted_by = "a function of the caller"
        if count is None:
            count, counted_by = counter_of([stage.scorer for stage in self.stages], self.retrievers.values())
        if isinstance(query, Answer):
            if wrong := "where" if where is not None else "per_document" if per_document is not None else "":
                raise InputError(
                    f"{wrong} is of a search, and this answer was found already: search(query, {wrong}=...)"
                )
            answer = query
        else:
            few = threshold is not None
            answer = self.search(query, 10 if k is None else k, where=where, per_document=per_document, read_few=few)
        if k is not None:
            answer = replace(answer, ranking=answer.ranking.cut(k), passages=answer.passages[:k])
        found = relevance_of(self.stages, answer.traces, answer.ranking.ids, asked=threshold is not None)
        probability, limit = found.best, found.threshold if threshold == "model" else threshold
        if limit is not None and probability is not None and probability < limit:
            made, why = nothing(counted_by, answer.passages, probability, limit), ""
        else:
            made = assemble(answer.passages, tokens, count, counted_by=counted_by, order=order)
            why = unused(probability, limit) if threshold is not None and answer.passages else ""
        said = tuple(filter(None, [made.note, why]))
        return replace(made, probability=probability, note="; ".join(said), notes=(*answer.notes, *said))

    def relevance(self, answer: Answer) -> Relevance:
        """How probable it is that each passage of an answer is relevant, as the last stage that read any says.

        These are what a threshold is for; the scores of an answer are mostly a mix, see `Answer.ranking`. This,
        `evidence` and `context` go by the answer alone, whose documents may have been removed since.
        """
        return relevance_of(self.stages, answer.traces, answer.ranking.ids)

    def evidence(self, answer: Answer) -> tuple[Evidence | None, ...]:
        """Of each passage of an answer the sentence that the last scorer to read any finds best: `crossrank.evidence`.

        Raises:
            InputError: the pipeline has no stage, so that nothing in it reads sentences.
        """
        if not self.stages:
            raise InputError("evidence needs a stage that scores; this pipeline only retrieves")
        stage, scores = last_read(self.stages, answer.traces)
        known = [scores.get(id_) for id_ in answer.ranking.ids]
        drops = not getattr(stage.scorer, "listwise", False)  # whose scores compare within one call only
        return tuple(find(answer.query, answer.passages, stage.scorer.score, known=known, drops=drops))


def open_pipeline(
    folder: str | Path,
    model: str | Path | Scorer | None = None,
    *,
    coarse: Sequence[str | Path | Scorer] = (),
    embedder: str | Path | Embedder | None = None,
    depth: int = 100,
    where: Where = (),
    mix: float | None = None,
    fusion: Fusion | Literal["scores", "rrf"] = "scores",
    rerank: bool = True,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    on_error: OnError = "raise",
    cache: str | Path | None = None,
    stop_early: bool = False,
) -> Pipeline:
    """The usual pipeline over an index: BM25 and dense, fusion, one cross-encoder, or several from coarse to fine.

    Args:
        folder: made by `crossrank index`.
        model: the cross-encoder, or a late-interaction model; "small" when absent. A name, or any object with
            `score(pairs)`, such as a `crossrank.llm.LanguageModel`, which is used as it is.
        coarse: cheaper models that read before `model`, cheapest first, given likewise. Each reads fewer than the one
            before it (`crossrank.planner.depths`); within a budget the plan chooses which of them read at all.
        embedder: must be the one the index was made with, which is the default; a name, or an embedder. A model behind
            an address (`crossrank.remoteembedder`) is not the default of any index, because queries and a key would go
            to whatever address a folder names: pass it.
        depth: documents each retriever returns, and the first cross-encoder reads.
        where: filters on metadata, such as "year>=2020"; all must hold.
        mix: share of each cross-encoder's score in the order it leaves, see `Stage.weight`. When absent `MIX`, or what
            a model brings that was tuned in a search (`CrossEncoder.mix`).
        fusion: "scores" adds standardized scores, less for short passages (`crossrank.fusion.LengthPrior`); "rrf" is
            reciprocal rank fusion; or a function of your own, such as
            `crossrank.fusion.Scores({"bm25": 0.7, "dense": 0.3})`, which leaves lengths out.
        rerank: false leaves the fused order.
        backend: what computes the models given by name; see `crossrank.backends.open`, also for the next two.
        device: "auto", "cpu", "cuda", or cards: "cuda:1", and for the cuda backend "cuda:0,1" or "cuda:all".
        dtype: "auto", "float32", "bfloat16", "float16" or "int16"; it need not be the one the index was made in.
        threads: cores that one call of the native engine may use, tokenization included; all when absent.
        on_error: "keep" leaves the fused order, with the reason in the answer, when the cross-encoder cannot be loaded
            or fails; see `Pipeline.on_error`.
        cache: a file where scores are remembered between processes, see `crossrank.CachedScorer`; none when absent.
        stop_early: end each model's reading when no document that it has not read is likely to reach the top k, see
            `crossrank.stopping.Stopping`: a third of the work at the usual mix, and orders that differ a little.

    Raises:
        IndexFileError: no index there, or it was made with another embedder.
        CheckpointError: a model cannot be loaded.
        InputError: a model that is no name and no scorer, an unknown `on_error`, or a `cache` for no cross-encoder.
        MissingExtraError: the search extra is not installed.
    """
    from crossrank.index import Index
    from crossrank.retrieval.first import first_stage, usual_fusion

    if isinstance(coarse, (str, Path)) or not isinstance(coarse, Iterable):
        raise InputError(f"coarse is a list of models, so one is coarse=[{coarse!r:.80}], and none is coarse=[]")
    check_k(depth, "depth")
    if mix is not None:
        check_real("mix", mix)
    check_on_error(on_error)
    index: Index = Index.open(folder)
    made = embedder_of(index, folder, embedder, (backend, device, dtype, threads))
    retrievers = first_stage(index, made, where)
    models = (*coarse, model) if rerank else ()
    how = {"backend": backend, "device": device, "dtype": dtype, "threads": threads}
    reads = depths(depth, len(models))
    stages = tuple(stage_of(*one, mix, MIX, cache, on_error, how) for one in zip(models, reads, strict=True))
    if stop_early:
        stages = tuple(replace(stage, stopping=Stopping()) for stage in stages)
    joined = usual_fusion(index, fusion)
    return Pipeline(retrievers, index.passages, stages, depth, joined, store=index, on_error=on_error)
