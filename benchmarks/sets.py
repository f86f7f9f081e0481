"""The judged sets that quality is measured on: which judgments, and which lists to rerank besides our own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossrank.evaluation import JudgedSet, read_run, read_set
from crossrank.types import Ranking


@dataclass(frozen=True, slots=True)
class DevSet:
    """How one set is used.

    Attributes:
        split: the file in `qrels/`.
        given: a list that comes with the set and is reranked too: a run file, or "judged" for each query's own
            judged candidates in the order of the qrels.
        given_name: how tables call that list.
        scored: whether that list has scores that can be mixed with the cross-encoder's.
    """

    split: str = "test"
    given: str = ""
    given_name: str = ""
    scored: bool = False


# trec_dl19: the complete NIST judgments, which the ideal ranking of nDCG needs; test.tsv holds only those with text.
# clapnq has no other split. hotpotqa, selqa and wikiqa judge each question's own candidates (grade 0: judged, not
# relevant); over the whole corpus an unjudged passage counts as not relevant, as everywhere. noveleval judges 20
# candidates of each of 21 queries; reranking exactly these is its published setting.
SETS = {
    "trec_dl19": DevSet("full", "runs/BM25.trec", "its BM25 top-100", scored=True),
    "scifact": DevSet(),
    "cacm": DevSet(),
    "noveleval": DevSet(given="judged", given_name="its 20 judged candidates"),
    "clapnq": DevSet("dev"),
    "hotpotqa_dev500": DevSet(),
    "npl": DevSet(),
    "selqa": DevSet(),
    "wikiqa": DevSet(),
}


def names(folder: Path, wanted: list[str] | None) -> list[str]:
    """The sets asked for, or all known ones in the folder; ends the program where one, or every one, is not there."""
    if unknown := [name for name in wanted or () if name not in SETS or not (folder / name).is_dir()]:
        raise SystemExit(f"no such set in {folder}: {', '.join(unknown)}. Known: {', '.join(SETS)}")
    found = wanted or [name for name in SETS if (folder / name).is_dir()]
    if not found:
        raise SystemExit(f"no known set in {folder}; it needs one subfolder a set: {', '.join(SETS)}")
    return found


def read(folder: Path, name: str) -> JudgedSet:
    """The set with all its judged queries."""
    return read_set(folder / name, SETS[name].split)


def given(folder: Path, judged: JudgedSet, depth: int) -> dict[str, Ranking]:
    """The list that comes with the set, for each query that has one; empty for sets without."""
    source = SETS[judged.name].given
    if not source:
        return {}
    if source == "judged":
        # Places as scores: the candidates come without any.
        lists = {
            query: Ranking.sorted(list(grades), -np.arange(len(grades), dtype=np.float32))
            for query, grades in judged.qrels.items()
        }
    else:
        lists = read_run(folder / judged.name / source)
    return {query: lists[query].cut(depth) for query in judged.queries if query in lists}
