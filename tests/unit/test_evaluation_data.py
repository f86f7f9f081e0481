"""The judged sets that development uses. CROSSRANK_TEST_DATA names the folder that holds them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from crossrank.evaluation import read_run, read_set

pytest.importorskip("ir_measures", reason="needs the extra eval")
import pytrec_eval

from crossrank.evaluation.measures import per_query

FOLDER = Path(os.environ.get("CROSSRANK_TEST_DATA", "")) / "trec_dl19"
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not (FOLDER / "runs").is_dir(), reason="CROSSRANK_TEST_DATA names no folder with trec_dl19"),
]


def test_bm25_gives_the_published_figure() -> None:
    judged = read_set(FOLDER, "full")
    values = per_query(judged.qrels, read_run(FOLDER / "runs" / "BM25.trec"))
    assert len(judged.queries) == 43
    assert np.mean([*values["nDCG@10"].values()]) == pytest.approx(0.5058, abs=5e-5)


def test_every_run_measures_as_in_trec_eval() -> None:
    """trec_eval orders equal scores by document id, here they keep their rank: tied lists are given to it by rank."""
    qrels = {query: dict(grades) for query, grades in read_set(FOLDER, "full").qrels.items()}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_10", "map", "recip_rank", "recall_100"})
    names = {"nDCG@10": "ndcg_cut_10", "AP": "map", "RR": "recip_rank", "R@100": "recall_100"}
    untied = 0
    for path in sorted((FOLDER / "runs").glob("*.trec")):
        raw: dict[str, dict[str, float]] = {}
        ranks: dict[str, dict[str, float]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            query, _, document, rank, score, _ = line.split()
            raw.setdefault(query, {})[document] = float(score)
            ranks.setdefault(query, {})[document] = -float(rank)
        for query, scores in raw.items():
            tied = len(set(scores.values())) < len(scores)
            raw[query] = ranks[query] if tied else scores
            untied += not tied
        theirs = evaluator.evaluate(raw)
        ours = per_query(qrels, read_run(path), list(names))
        for name, other in names.items():
            for query, values in theirs.items():
                assert ours[name][query] == pytest.approx(values[other], abs=1e-6), (path.name, name, query)
    assert untied > 43


@pytest.mark.parametrize("judgments", ["full", "test"])
def test_runs_as_trec_eval_reads_them_measure_the_same_on_the_raw_files(judgments: str) -> None:
    """Nothing is prepared for trec_eval here: its own order of equal scores, of which one run has thousands."""
    qrels = {query: dict(grades) for query, grades in read_set(FOLDER, judgments).qrels.items()}
    names = {"nDCG@10": "ndcg_cut_10", "AP": "map", "RR": "recip_rank", "R@100": "recall_100", "P@5": "P_5"}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, set(names.values()))
    for path in sorted((FOLDER / "runs").glob("*.trec")):
        raw: dict[str, dict[str, float]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            query, _, document, _, score, _ = line.split()
            raw.setdefault(query, {})[document] = float(score)
        theirs = evaluator.evaluate(raw)
        ours = per_query(qrels, read_run(path, ties="trec_eval"), list(names))
        for name, other in names.items():
            for query, values in theirs.items():
                assert ours[name][query] == pytest.approx(values[other], abs=1e-6), (path.name, name, query)
