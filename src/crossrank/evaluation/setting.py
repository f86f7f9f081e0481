"""What is judged, over which collection: the ways into an evaluation, joined to one shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from crossrank.errors import InputError, ReadError
from crossrank.evaluation.beir import JudgedSet, read_corpus, read_queries, read_set
from crossrank.evaluation.candidates import Candidates, given
from crossrank.evaluation.files import existing, filled
from crossrank.evaluation.folding import NONE_RELEVANT, Identity
from crossrank.evaluation.systems import Owners, System
from crossrank.evaluation.trec import read_qrels
from crossrank.pipeline import Pipeline
from crossrank.types import Qrels, Run

# How equal scores stand: those of a run file, and those of lists without one (`evaluation.lists`).
BY_ID = "by document id, as trec_eval has them"
BY_TEXT = "by a digest of the texts, which is as good as chance"


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """Judged queries with the candidates that cross-encoders are to read.

    Attributes:
        candidates: what the first stage found.
        owners: judged ids of passages.
        pipeline: the first stage itself; None where the candidates are a run from a file.
        notes: what a reader of the figures has to know.
    """

    candidates: Candidates
    owners: Owners
    pipeline: Pipeline | None
    notes: tuple[str, ...] = field(default=())


def is_judged_set(folder: Path) -> bool:
    """Whether a folder is laid out as BEIR does."""
    return any((folder / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz"))


def judged_set(
    folder: Path, split: str | None, qrels: Path | None, queries: Path | None
) -> tuple[JudgedSet, list[str]]:
    """A BEIR folder, with judgments or queries of another file where these are named.

    Raises:
        ReadError: a file is missing, damaged or empty; without `split`, also when the folder has several.
    """
    if qrels is None:
        split = split or _only_split(folder)
        if queries is None:
            return read_set(folder, split), []
        qrels = existing(folder / "qrels", f"{split}.tsv", f"{split}.txt")
    asked, notes = questions(queries or existing(folder, "queries.jsonl"), qrels)
    documents = existing(folder, "corpus.jsonl")
    corpus = filled(documents, read_corpus(documents), "documents")
    return replace(asked, name=folder.resolve().name, corpus=corpus), notes


def questions(queries: Path, qrels: Path) -> tuple[JudgedSet, list[str]]:
    """Judged queries without a corpus, and what was left out of the two files.

    Raises:
        ReadError: a file is missing, damaged or empty, or no judged query has a text.
    """
    texts = filled(queries, read_queries(queries), "queries")
    grades = filled(qrels, read_qrels(qrels), "judgments")
    kept = {query: text for query, text in texts.items() if query in grades}
    if not kept:
        raise ReadError(f"no query of {queries} is judged in {qrels}; their query ids are of different sets")
    notes = []
    if untexted := len(grades) - len(kept):
        notes.append(f"{untexted:,} judged queries have no text in {queries.name} and are left out.")
    if unjudged := len(texts) - len(kept):
        notes.append(f"{unjudged:,} queries of {queries.name} have no judgments and are left out.")
    return JudgedSet(queries.stem, qrels.stem, {}, kept, {query: grades[query] for query in kept}), notes


def judgments(qrels: Path, queries: Path | None) -> JudgedSet:
    """Judged queries for runs alone; a query without a text is called by its id.

    Raises:
        ReadError: a file is missing or damaged, or there are no judgments.
    """
    grades = filled(qrels, read_qrels(qrels), "judgments")
    texts = read_queries(queries) if queries else {}
    return JudgedSet(qrels.stem, qrels.stem, {}, {query: texts.get(query, "") for query in grades}, grades)


def unanswerable(qrels: Qrels, drawn: bool = False) -> list[str]:
    """Says how many queries no system can answer.

    Args:
        qrels: of the queries that are measured.
        drawn: whether these are a sample of more.

    Raises:
        InputError: no document is judged relevant.
    """
    count = sum(all(grade <= 0 for grade in grades.values()) for grades in qrels.values())
    if count == len(qrels):
        cure = f"none of the {count} queries drawn has a relevant document: draw more (--sample), or others (--seed)"
        raise InputError(cure if drawn else NONE_RELEVANT)
    if not count:
        return []
    return [f"{count:,} of {len(qrels):,} judged queries have no relevant document; these count as 0 for every system."]


def over_run(judged: JudgedSet, name: str, run: Run, stand: str = BY_ID) -> Setting:
    """Take the rankings of a run.

    Args:
        judged: with the texts of what is ranked.
        name: of the run.
        run: from a file, or by the words of `evaluation.lists`.
        stand: how equal scores stand, see `tie_notes`.

    Raises:
        InputError: as `candidates.given`, or the judgments are of another collection.
    """
    ids = list(judged.corpus)
    candidates = given(judged.queries, name, run, judged.corpus)
    notes = Identity.of(judged.qrels, ids, ids).notes()
    notes = (*notes, *tie_notes(name, candidates.run, stand))
    if missing := len(judged.queries) - len(candidates.traces):
        notes = (*notes, f"{name} ranks nothing for {missing:,} of the judged queries; these count as 0.")
    return Setting(candidates, Owners(), None, notes)


def runs_as_systems(runs: Mapping[str, Run], qrels: Qrels) -> tuple[list[System], list[str]]:
    """A system for every run, and what its rankings lack.

    Raises:
        InputError: a run ranks nothing for the judged queries, or no document that was judged.
    """
    systems, notes = [], []
    for name, run in runs.items():
        mine = {query: ranking for query, ranking in run.items() if query in qrels}
        if not mine:
            raise InputError(f"the run {name} ranks nothing for the judged queries; is it of another set?")
        if not any(id_ in qrels[query] for query, ranking in mine.items() for id_ in ranking.ids):
            query, ranking = next(iter(mine.items()))
            raise InputError(
                f"the run {name} ranks no document that was judged: it calls documents such as {ranking.ids[0]!r}, the "
                f"judgments such as {next(iter(qrels[query]), '')!r}. Passages of split documents must be folded first"
            )
        if missing := len(qrels) - len(mine):
            notes.append(f"{name} ranks nothing for {missing:,} of {len(qrels):,} judged queries; these count as 0.")
        systems.append(System(name, "run", mine))
        notes += tie_notes(name, mine)
    return systems, notes


def tie_notes(name: str, run: Run, stand: str = BY_ID) -> list[str]:
    """Says so when scores leave the order open, and how equal ones stand."""
    ties = sum(int(np.sum(ranking.scores[1:] == ranking.scores[:-1])) for ranking in run.values())
    return [f"{name} has {ties:,} equal scores; they stand {stand}."] if ties else []


def sampled(judged: JudgedSet, size: int | None, seed: int) -> tuple[JudgedSet, list[str]]:
    """The set with `size` of its queries, and a note that says so."""
    if size is None or size >= len(judged.queries):
        return judged, []
    return judged.sample(size, seed), [f"{size:,} of {len(judged.queries):,} judged queries were drawn (seed {seed})."]


def _only_split(folder: Path) -> str:
    if not (folder / "qrels").is_dir():
        raise ReadError(f"{folder} has no folder qrels; name the judgments with --qrels")
    files = [file.name.removesuffix(".gz") for file in (folder / "qrels").iterdir() if file.is_file()]
    # Systems leave files of their own in folders, such as .DS_Store.
    names = sorted({name[:-4] for name in files if name.endswith((".tsv", ".txt")) and not name.startswith(".")})
    if "test" in names:
        return "test"
    if len(names) == 1:
        return names[0]
    raise ReadError(f"{folder / 'qrels'} holds {', '.join(names) or 'nothing'}; choose one with --split")
