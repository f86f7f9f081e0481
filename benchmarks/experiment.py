"""One judged set through every stage of the product."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import crossrank
import first_stage
import sets
from cached import CachedScorer
from crossrank.cascade import Stage, rerank
from crossrank.evaluation import JudgedSet, write_run
from crossrank.evaluation.folding import documents_of
from crossrank.evaluation.measures import per_query
from crossrank.pipeline import MIX
from crossrank.types import Passage, Ranking

WEIGHTS = tuple(round(step / 10, 1) for step in range(11))
MEASURE = "nDCG@10"
Run = Mapping[str, Ranking]
Texts = Callable[[Sequence[str]], Sequence[Passage]]


@dataclass(frozen=True)
class Result:
    """One list of candidates a query, and what each system made of it.

    Attributes:
        set: the judged set's name.
        over: the list that was reranked, for people; empty for the set's own fusion.
        split: which judgments.
        judged: queries with judgments in the set.
        documents: in the corpus.
        base: the list that was reranked.
        reference: the system that differences are taken to.
        values: nDCG@10 by system and query.
        recall: mean share of the relevant documents among the candidates read: the ceiling of any reranker.
        latency: milliseconds (median, 95th percentile, lists timed) by stage.
        truncated: passages cut or read in windows, of all passages in timed lists.
        sweep: nDCG@10 by query, by weight of the cross-encoder; empty when not asked for.
    """

    set: str
    over: str
    split: str
    judged: int
    documents: int
    base: str
    reference: str
    values: dict[str, dict[str, float]]
    recall: float
    latency: dict[str, dict[str, float]]
    truncated: tuple[int, int]
    sweep: dict[float, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is measured, and with which models. Built once from the command line."""

    scorer: CachedScorer
    model: crossrank.CrossEncoder
    embedder: crossrank.TextEmbedder
    options: argparse.Namespace
    mix: float

    @classmethod
    def of(cls, options: argparse.Namespace) -> Plan:
        """Load the models that the command line names."""
        how = {"backend": options.backend, "dtype": options.dtype}
        model = crossrank.load(options.model, max_length=options.max_length, **how)
        embedder = crossrank.load_embedder(options.embedder, **how)
        # The first call allocates and compiles; it would be the slowest list of the first set.
        model.score([("warm up", "the machine")])
        embedder.embed(["warm up"])
        scorer = CachedScorer(model, options.cache, options.max_length)
        return cls(scorer, model, embedder, options, MIX if options.mix is None else options.mix)

    def about(self) -> dict[str, Any]:
        """What the figures depend on besides the machine. Folders are named by their last part."""
        return {
            "measure": MEASURE,
            "model": Path(self.model.checkpoint.name).name,
            "model_fingerprint": self.model.fingerprint,
            "embedder": Path(self.embedder.checkpoint.name).name,
            "embedder_fingerprint": self.embedder.fingerprint,
            "backend": self.model.backend.name,
            "max_length": self.options.max_length or self.model.checkpoint.max_length,
            "depth": self.options.depth,
            "passage_tokens": self.options.passage_tokens,
            "mix": self.mix,
            "queries": self.options.queries,
            "seed": self.options.seed,
        }

    def run(self, data: Path, name: str, note: Callable[[str], None]) -> list[Result]:
        """The set's own first stage reranked, then the list it comes with, where it has one."""
        whole = sets.read(data, name)
        judged, total = whole.sample(self.options.queries, self.options.seed), len(whole.queries)
        note(f"{name}: {len(judged.queries)} of {total} queries, {len(judged.corpus)} documents")
        results = []
        if self.options.only != "given":
            where = (self.options.cache, self.options.depth, self.options.passage_tokens)
            found = first_stage.search(judged, self.embedder, *where, note)
            own = self._result(judged, found.runs, "fused", "rrf", found.texts, scored=True, note=note)
            results.append(replace(own, judged=total, latency=_latencies(found.seconds) | own.latency))
        listed = sets.given(data, judged, self.options.depth) if self.options.only != "fusion" else {}
        if listed:
            known = sets.SETS[name]

            def given_texts(ids: Sequence[str]) -> list[Passage]:
                return [judged.corpus[i] for i in ids]

            given = self._result(judged, {"given": listed}, "given", "given", given_texts, known.scored, note)
            results.append(replace(given, judged=total, over=known.given_name))
        return results

    def _result(
        self,
        judged: JudgedSet,
        runs: Mapping[str, Run],
        base: str,
        reference: str,
        texts: Texts,
        scored: bool,
        note: Callable[[str], None],
    ) -> Result:
        passages = _passages(runs, texts)
        began = time.perf_counter()
        systems = {**runs, "cross-encoder": self._reranked(judged, runs[base], passages, 1.0)}
        note(f"{judged.name}: {len(runs[base])} lists reranked in {time.perf_counter() - began:.0f} s")
        if scored:
            systems["mix"] = self._reranked(judged, runs[base], passages, self.mix)

        def values(run: Run, measure: str = MEASURE) -> dict[str, float]:
            return per_query(judged.qrels, _of_documents(run, passages), [measure])[measure]

        if self.options.runs:
            _save(self.options.runs, f"{judged.name}.{base}", systems, passages)
        weights = WEIGHTS if self.options.sweep and scored else ()
        seconds, truncated = self._timings(judged, runs[base], passages)
        return Result(
            judged.name,
            "",
            judged.split,
            len(judged.queries),
            len(judged.corpus),
            base,
            reference,
            {name: values(run) for name, run in systems.items()},
            # Retrievers give `depth` each, so the fusion may be longer than what the cross-encoder reads.
            float(np.mean(list(values(_cut(runs[base], self.options.depth), f"R@{self.options.depth}").values()))),
            _latencies({"cross-encoder": seconds}),
            truncated,
            {weight: values(self._reranked(judged, runs[base], passages, weight)) for weight in weights},
        )

    def _reranked(
        self, judged: JudgedSet, candidates: Run, passages: Mapping[str, Passage], weight: float
    ) -> dict[str, Ranking]:
        """The stage as the product runs it; weight 0 leaves the candidates as they are."""
        stages = [Stage(self.scorer, self.options.depth, weight)] if weight else []

        def texts(ids: Sequence[str]) -> list[Passage]:
            return [passages[i] for i in ids]

        return {query: rerank(judged.queries[query], listed, stages, texts)[0] for query, listed in candidates.items()}

    def _timings(
        self, judged: JudgedSet, candidates: Run, passages: Mapping[str, Passage]
    ) -> tuple[list[float], tuple[int, int]]:
        """Seconds of the lists that were scored whole, and how many of their passages were not read in one piece."""
        timings = []
        for query, listed in _cut(candidates, self.options.depth).items():
            timing = self.scorer.timing([(judged.queries[query], passages[i].scored_text) for i in listed.ids])
            if timing:
                timings.append(timing)
        cut = (sum(timing.truncated for timing in timings), sum(timing.pairs for timing in timings))
        return [timing.seconds for timing in timings], cut


def _passages(runs: Mapping[str, Run], texts: Texts) -> dict[str, Passage]:
    """Every passage that some run found, by id: looked up once, whatever is swept."""
    ids = list(dict.fromkeys(i for run in runs.values() for listed in run.values() for i in listed.ids))
    return dict(zip(ids, texts(ids), strict=True))


def _of_documents(run: Run, passages: Mapping[str, Passage]) -> dict[str, Ranking]:
    """Judgments are about documents: each stands where its best passage stood."""
    return {q: documents_of(listed, [passages[i] for i in listed.ids]) for q, listed in run.items()}


def _cut(run: Run, depth: int) -> dict[str, Ranking]:
    return {query: listed.cut(depth) for query, listed in run.items()}


def _latencies(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    return {
        stage: {
            "median_ms": round(float(np.median(values)) * 1e3, 3),
            "p95_ms": round(float(np.quantile(values, 0.95)) * 1e3, 3),
            "lists": len(values),
        }
        for stage, values in seconds.items()
        if len(values)
    }


def _save(folder: Path, name: str, systems: Mapping[str, Run], passages: Mapping[str, Passage]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for system, run in systems.items():
        write_run(folder / f"{name}.{system}.trec", _of_documents(run, passages), tag=f"crossrank-{system}")
