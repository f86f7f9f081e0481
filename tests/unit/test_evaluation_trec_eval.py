"""Files, measures and averages against trec_eval's own code, on runs with every kind of tie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ir_measures", reason="needs the extra eval")
import pytrec_eval

from crossrank.evaluation import read_run, write_run
from crossrank.evaluation.measures import per_query
from crossrank.types import Ranking

NAMES = {
    "nDCG@10": "ndcg_cut_10", "nDCG": "ndcg", "AP": "map", "RR": "recip_rank", "R@5": "recall_5", "R@100": "recall_100",
    "P@5": "P_5", "Bpref": "bpref", "Rprec": "Rprec",
}  # fmt: skip

documents = [f"d{i}" for i in range(12)] + ["é", "z", "D1", "d10x"]
rows = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]),
    st.dictionaries(
        st.sampled_from(documents),
        # Halves tie often; 1 + 1e-9 is 1 in float32, in which trec_eval keeps scores.
        st.sampled_from([-1.5, 0.0, 0.5, 1.0, 1.0 + 1e-9, 2.5, 1e6]),
        min_size=1,
    ),
    min_size=1,
)
judgments = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3"]),
    st.dictionaries(st.sampled_from(documents), st.integers(-1, 3), min_size=1),
    min_size=1,
)


def write(path: Path, run: dict[str, dict[str, float]]) -> Path:
    lines = [
        f"{query} Q0 {document} {rank} {score!r} tag"
        for query, scores in run.items()
        for rank, (document, score) in enumerate(scores.items(), start=1)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@settings(max_examples=60)
@given(rows, judgments)
def test_a_run_file_measures_as_in_trec_eval(
    tmp_path_factory: pytest.TempPathFactory, run: dict[str, dict[str, float]], qrels: dict[str, dict[str, int]]
) -> None:
    path = write(tmp_path_factory.mktemp("run") / "run.trec", run)
    # trec_eval's nDCG never ends on a query whose grades are all under 0; see test_evaluation_measures.
    ending = {query: grades for query, grades in qrels.items() if max(grades.values()) >= 0}
    theirs = pytrec_eval.RelevanceEvaluator(ending, set(NAMES.values())).evaluate(run) if ending else {}
    ours = per_query(qrels, read_run(path, ties="trec_eval"), list(NAMES))
    for name, other in NAMES.items():
        for query in qrels:
            # A judged query without a ranking counts as 0; trec_eval leaves it out without -c.
            want = theirs.get(query, {}).get(other, 0.0)
            assert ours[name][query] == pytest.approx(want, abs=1e-6), (name, query)


def test_equal_scores_by_rank_or_by_document_id(tmp_path: Path) -> None:
    path = write(tmp_path / "run.trec", {"q": {"b": 1.0, "c": 1.0 + 1e-9, "a": 1.0, "d": 2.0}})
    assert read_run(path)["q"].ids == ("d", "c", "b", "a")
    assert read_run(path, ties="trec_eval")["q"].ids == ("d", "c", "b", "a")
    path = write(tmp_path / "run.trec", {"q": {"a": 1.0, "b": 1.0, "c": 1.0}})
    assert read_run(path)["q"].ids == ("a", "b", "c")
    assert read_run(path, ties="trec_eval")["q"].ids == ("c", "b", "a")


@given(st.permutations(documents), st.integers(0, 16))
def test_a_written_run_reads_back_the_same_under_either_rule(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], head: int
) -> None:
    """Tails whose old scores exceed the head's, ties and -inf: the order is what is kept."""
    scores = np.array([0.0] * head + [9.0] * (len(order) - head), dtype=np.float32)
    scores[-1] = -np.inf
    path = tmp_path_factory.mktemp("run") / "run.trec"
    write_run(path, {"q": Ranking(tuple(order), scores, head)})
    for ties in ("rank", "trec_eval"):
        found = read_run(path, ties=ties)
        assert found["q"].ids == tuple(order)
        again = path.with_name("again.trec")
        write_run(again, found)
        assert again.read_bytes() == path.read_bytes()
