"""The measuring behind family.py: each model in the wheel over the same candidates of one judged set after another."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import crossrank
import first_stage
import machine
import sets
from cached import CachedScorer
from crossrank.cascade import Stage, rerank
from crossrank.evaluation import Interval, JudgedSet, difference, difference_over_sets, mean, mean_over_sets
from crossrank.evaluation.folding import documents_of
from crossrank.evaluation.measures import per_query
from crossrank.evaluation.reliability import of as reliability
from crossrank.evaluation.significance import holm, randomization
from crossrank.pipeline import MIX
from crossrank.scorers import PairScorer, load_scorer
from crossrank.types import Passage, Ranking

MEASURE = "nDCG@10"
DEPTH, DEEP = 100, 500
# Abstaining is told for these probabilities of the best passage.
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
Values = Mapping[str, float]


@dataclass(frozen=True)
class Table:
    """Rows of named cells, for people and for programs."""

    name: str
    heads: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def markdown(self) -> str:
        """With intervals; bold where a difference excludes 0."""
        lines = [f"**{self.name}**", "", _cells(*self.heads), _cells("---", *["--:"] * (len(self.heads) - 1))]
        return "\n".join([*lines, *(_cells(*map(_text, row)) for row in self.rows)])

    def as_json(self) -> dict[str, Any]:
        """Numbers as they are, intervals as their ends."""
        return {"table": self.name, "heads": self.heads, "rows": [[_number(cell) for cell in row] for row in self.rows]}


def publish(tables: Sequence[Table], facts: Mapping[str, Any], out: Path | None) -> None:
    """Print tables and the machine that `facts` names, and write all of it where `--out` says."""
    for table in tables:
        print(table.markdown(), end="\n\n")
    print(machine.line(facts["machine"]))
    if out:
        found = {**facts, "tables": [table.as_json() for table in tables]}
        out.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Gain:
    """A difference with its interval and p."""

    interval: Interval
    p: float | None = None


@dataclass(frozen=True)
class Measured:
    """What one set gave: the measure by system and query; and of each model its pairs and its best probabilities.

    Attributes:
        set: its name.
        given: whether the list that was reranked came with the set.
        values: by system; models appear as "NAME alone" and "NAME mixed".
        deep: the same for the cascade over 500 candidates, on fewer queries.
        judged: probabilities and relevance of all judged candidates, by model.
        best: by model, best probability of each query with its candidates, and without its relevant ones.
    """

    set: str
    given: bool
    values: dict[str, Values]
    deep: dict[str, Values] = field(default_factory=dict)
    judged: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    best: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """The models, the first the accurate one, the coarse one of the cascade, and the embedder of their first stage."""

    models: dict[str, crossrank.CrossEncoder]
    scorers: dict[str, CachedScorer]
    coarse: CachedScorer
    embedder: crossrank.TextEmbedder
    options: argparse.Namespace
    mix: float

    @classmethod
    def of(cls, options: argparse.Namespace) -> Family:
        """Load what the command line names."""
        models = {name: crossrank.load(name, threads=options.threads) for name in options.models}
        scorers = {name: CachedScorer(model, options.cache, None) for name, model in models.items()}
        name = options.coarse or options.models[-1]
        coarse = scorers.get(name) or CachedScorer(load_scorer(name, threads=options.threads), options.cache, None)
        embedder = crossrank.load_embedder(options.embedder, threads=options.threads)
        return cls(models, scorers, coarse, embedder, options, MIX if options.mix is None else options.mix)

    def about(self) -> dict[str, Any]:
        """Which weights and which backend."""
        prints = {name: model.fingerprint for name, model in self.models.items()}
        coarse = {"model": self.coarse.scorer.fingerprint, "mix": self.coarse_mix}
        return {"models": prints, "coarse": coarse, "backend": next(iter(self.models.values())).backend.name}

    @property
    def coarse_mix(self) -> float:
        """The weight of the cascade's first stage."""
        return self.mix if self.options.coarse_mix is None else float(self.options.coarse_mix)

    def measured(self, data: Path, name: str, note: Callable[[str], None]) -> Measured:
        """One set: the list it comes with where it has a run, else the product's own first stage."""
        judged = sets.read(data, name).sample(self.options.queries, self.options.seed)
        if sets.SETS[name].given.startswith("runs/"):
            listed = sets.given(data, judged, DEPTH)
            return self._over(judged, listed, {"given": listed}, lambda ids: [judged.corpus[i] for i in ids], True)
        found = first_stage.search(judged, self.embedder, self.options.cache, DEPTH, None, note)
        base = {query: ranking.cut(DEPTH) for query, ranking in found.runs["fused"].items()}
        measured = self._over(judged, base, found.runs, found.texts, False)
        if self.options.deep_queries and self.coarse is not next(iter(self.scorers.values())):
            measured.deep.update(self._deep(judged.sample(self.options.deep_queries, self.options.seed), note))
        return measured

    def _over(
        self,
        judged: JudgedSet,
        base: Mapping[str, Ranking],
        runs: Mapping[str, Mapping[str, Ranking]],
        texts: Callable[[Sequence[str]], Sequence[Passage]],
        given: bool,
    ) -> Measured:
        systems = {name: dict(run) for name, run in runs.items()}
        for name, scorer in self.scorers.items():
            for how, weight in (("alone", 1.0), ("mixed", self.mix)):
                systems[f"{name} {how}"] = reranked(judged, base, [Stage(scorer, DEPTH, weight)], texts)
        measured = Measured(judged.name, given, {name: values(judged, run, texts) for name, run in systems.items()})
        for name in self.models:
            self._probabilities(name, judged, base, texts, measured)
        return measured

    def _probabilities(
        self,
        name: str,
        judged: JudgedSet,
        base: Mapping[str, Ranking],
        texts: Callable[[Sequence[str]], Sequence[Passage]],
        into: Measured,
    ) -> None:
        """Of the candidates that are judged (of all, where only relevant ones are) probability and relevance; and the
        best with and without the relevant candidates, of queries that have some among their candidates."""
        judged_only = any(grade < 1 for grades in judged.qrels.values() for grade in grades.values())
        predicted, relevant, present, absent = [], [], [], []
        for query, listed in base.items():
            if not listed.ids:
                continue
            grades, found = judged.qrels[query], texts(listed.ids)
            scores = self.scorers[name].score([(judged.queries[query], passage.scored_text) for passage in found])
            chances = self.models[name].probability(scores)
            hits = np.array([grades.get(passage.document, 0) >= 1 for passage in found])
            known = np.array([passage.document in grades or not judged_only for passage in found])
            predicted.append(chances[known])
            relevant.append(hits[known])
            if hits.any() and not hits.all():
                present.append(float(chances.max()))
                absent.append(float(chances[~hits].max()))
        into.judged[name] = (np.concatenate(predicted), np.concatenate(relevant))
        into.best[name] = (present, absent)

    def _deep(self, judged: JudgedSet, note: Callable[[str], None]) -> dict[str, Values]:
        """One accurate stage over 500 candidates, and the coarse model before it: the same mix in every last stage."""
        found = first_stage.search(judged, self.embedder, self.options.cache, DEEP, None, note)
        accurate = next(iter(self.scorers.values()))
        one = [Stage(accurate, DEEP, self.mix)]
        two = [Stage(self.coarse, DEEP, self.coarse_mix), Stage(accurate, self.options.handed, self.mix)]
        base = found.runs["fused"]
        return {
            "first over all": values(judged, reranked(judged, base, one, found.texts), found.texts),
            "cascade": values(judged, reranked(judged, base, two, found.texts), found.texts),
        }

    def tables(self, measured: Sequence[Measured]) -> Iterator[Table]:
        """All tables; those without a set are left out."""
        given = [one for one in measured if one.given]
        own = [one for one in measured if not one.given]
        if given:
            yield self._given(given)
        if own:
            yield self._mixed(own)
            yield self._kept(measured)
        if deep := [one for one in own if one.deep]:
            yield self._cascade(deep)
        yield self._calibrated(measured)
        yield self._abstaining(measured)

    def _given(self, measured: Sequence[Measured]) -> Table:
        rows = []
        for one in measured:
            cells = [
                mean(list(one.values[system].values())) for system in ["given", *(f"{n} alone" for n in self.models)]
            ]
            rows.append((one.set, len(one.values["given"]), *cells))
        return Table("Alone over the list that comes with the set", ("set", "queries", "BM25", *self.models), rows)

    def _mixed(self, measured: Sequence[Measured]) -> Table:
        names, rows = list(self.models), []
        adjusted = holm(
            {one.set: randomization(one.values[f"{names[0]} mixed"], one.values["rrf"]) for one in measured}
        )
        for one in measured:
            rrf = one.values["rrf"]
            gains = [Gain(difference(one.values[f"{n} mixed"], rrf)) for n in names]
            gains[0] = replace(gains[0], p=adjusted[one.set])
            cells = [mean(list(one.values[system].values())).mean for system in ("bm25", "dense", "rrf", "fused")]
            rows.append((one.set, len(rrf), *cells, *gains))
        means = [
            float(np.mean([np.mean(list(one.values[system].values())) for one in measured]))
            for system in ("bm25", "dense", "rrf", "fused")
        ]
        over = [
            difference_over_sets([(one.values[f"{n} mixed"], one.values["rrf"]) for one in measured]) for n in names
        ]
        rows.append(("mean of sets", sum(len(one.values["rrf"]) for one in measured), *means, *map(Gain, over)))
        heads = ("set", "queries", "BM25", "dense", "RRF", "fused scores", *(f"{n} mixed − RRF" for n in names))
        return Table(f"The product's mix (weight {self.mix}) over the fused top {DEPTH}; p after Holm", heads, rows)

    def _kept(self, measured: Sequence[Measured]) -> Table:
        rows = []
        for how in ("alone", "mixed"):
            means = [mean_over_sets([list(one.values[f"{n} {how}"].values()) for one in measured]) for n in self.models]
            shares = [f"{found.mean / means[0].mean:.1%}" for found in means[1:]]
            rows.append((how, *means, *shares))
        heads = ("mean of all sets", *self.models, *(f"{n} keeps" for n in list(self.models)[1:]))
        return Table("What smaller models keep", heads, rows)

    def _cascade(self, measured: Sequence[Measured]) -> Table:
        names, coarse = list(self.models), self.coarse.scorer.checkpoint
        full, handed = operations_of(self.models[names[0]]), self.options.handed
        share = (operations_of(self.coarse.scorer) * DEEP + full * handed) / (full * DEEP)
        rows: list[tuple[Any, ...]] = []
        for one in measured:
            cells = [np.mean(list(one.deep[system].values())) for system in ("first over all", "cascade")]
            rows.append((one.set, len(one.deep["cascade"]), *map(float, cells), Gain(_deep_gain([one]))))
        means = [
            float(np.mean([np.mean(list(one.deep[s].values())) for one in measured]))
            for s in ("first over all", "cascade")
        ]
        rows.append(
            ("mean of sets", sum(len(one.deep["cascade"]) for one in measured), *means, Gain(_deep_gain(measured)))
        )
        stored = "" if coarse.late is None else " (token vectors from the index)"
        title = (
            f"{coarse.name}{stored} over {DEEP}, then {names[0]} over {handed}: {share:.0%} of one stage's operations"
        )
        return Table(title, ("set", "queries", f"{names[0]} over {DEEP}", "cascade", "difference"), rows)

    def _calibrated(self, measured: Sequence[Measured]) -> Table:
        rows = []
        for one in measured:
            errors = [reliability(n, *one.judged[n]).error for n in self.models]
            rows.append((one.set, len(one.judged[next(iter(self.models))][0]), *errors))
        return Table("Expected calibration error", ("set", "pairs", *self.models), rows)

    def _abstaining(self, measured: Sequence[Measured]) -> Table:
        rows = []
        for threshold in THRESHOLDS:
            cells: list[str] = []
            for name in self.models:
                there = np.concatenate([one.best[name][0] for one in measured])
                gone = np.concatenate([one.best[name][1] for one in measured])
                cells += [f"{np.mean(there < threshold):.1%}", f"{np.mean(gone >= threshold):.1%}"]
            rows.append((threshold, *cells))
        heads = [head for n in self.models for head in (f"{n}: wrongly nothing", f"{n}: wrongly something")]
        queries = sum(len(one.best[next(iter(self.models))][0]) for one in measured)
        return Table(
            f"Nothing here is relevant, {queries} queries with and without their answers", ("threshold", *heads), rows
        )


def operations_of(model: PairScorer) -> int:
    """Multiplications that the layers' weights take for a token, attention's own not counted.

    Of the last layer only keys and values: the rest is computed for [CLS] alone. 0 for late interaction over token
    vectors from an index: MaxSim of 16 by 150 vectors of 96 numbers takes 0.2 million multiplications a passage where
    `small` takes 1,400 million, and the query is read once for all 500.
    """
    checkpoint = model.checkpoint
    if checkpoint.late is not None:
        return 0
    layers, hidden, inner = (
        int(checkpoint.config[key]) for key in ("num_hidden_layers", "hidden_size", "intermediate_size")
    )
    return (layers - 1) * (4 * hidden + 2 * inner) * hidden + 2 * hidden * hidden


def reranked(
    judged: JudgedSet,
    base: Mapping[str, Ranking],
    stages: Sequence[Stage],
    texts: Callable[[Sequence[str]], Sequence[Passage]],
) -> dict[str, Ranking]:
    """Each query's candidates after the stages."""
    return {query: rerank(judged.queries[query], listed, stages, texts)[0] for query, listed in base.items()}


def values(
    judged: JudgedSet, run: Mapping[str, Ranking], texts: Callable[[Sequence[str]], Sequence[Passage]]
) -> Values:
    """The measure by query; a document stands where its best passage stands."""
    folded = {query: documents_of(listed, texts(listed.ids)) for query, listed in run.items()}
    return per_query(judged.qrels, folded, [MEASURE])[MEASURE]


def _deep_gain(measured: Sequence[Measured]) -> Interval:
    if len(measured) == 1:
        return difference(measured[0].deep["cascade"], measured[0].deep["first over all"])
    return difference_over_sets([(one.deep["cascade"], one.deep["first over all"]) for one in measured])


def _cells(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _text(cell: object) -> str:
    if isinstance(cell, Gain):
        found = cell.interval
        text = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
        text = f"**{text}**" if found.excludes_zero else text
        return text if cell.p is None else f"{text} p = {cell.p:.3f}"
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)


def _number(cell: object) -> object:
    if isinstance(cell, Gain):
        return {**_number(cell.interval), "p": cell.p}
    if isinstance(cell, Interval):
        return {"mean": cell.mean, "low": cell.low, "high": cell.high, "queries": cell.queries}
    return round(cell, 5) if isinstance(cell, float) else cell
