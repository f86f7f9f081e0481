from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.errors import InputError
from crossrank.types import Ranking

pytest.importorskip("ir_measures", reason="needs the extra eval")
from crossrank.evaluation.measures import check, per_query
from crossrank.evaluation.trec import run_lines


def ranked(*ids: str) -> Ranking:
    return Ranking.sorted(ids, np.arange(len(ids), 0, -1))


def ndcg(grades: list[int], ideal: list[int], cutoff: int) -> float:
    """Jarvelin and Kekalainen with linear gains, as trec_eval computes it."""

    def gain(values: list[int]) -> float:
        return sum(value / math.log2(place + 2) for place, value in enumerate(values[:cutoff]))

    best = gain(sorted(ideal, reverse=True))
    return gain(grades) / best if best else 0.0


def test_hand_calculation_with_grades() -> None:
    qrels = {"q": {"a": 3, "b": 1, "c": 2, "d": 0}}
    values = per_query(qrels, {"q": ranked("b", "x", "a", "d")}, ["nDCG@10", "RR@10", "R@3", "P(rel=2)@3", "AP"])
    # DCG: 1/log2(2) + 3/log2(4) = 2.5; ideal: 3 + 2/log2(3) + 1/log2(4) = 4.761860
    assert values["nDCG@10"]["q"] == pytest.approx(2.5 / (3 + 2 / math.log2(3) + 0.5), abs=1e-9)
    assert values["RR@10"]["q"] == 1.0
    assert values["R@3"]["q"] == pytest.approx(2 / 3)
    assert values["P(rel=2)@3"]["q"] == pytest.approx(1 / 3)
    assert values["AP"]["q"] == pytest.approx((1 + 2 / 3) / 3)


def test_judged_but_unanswered_counts_as_zero_and_unjudged_not_at_all() -> None:
    qrels = {"q2": {"a": 1}, "q1": {"a": 1}, "empty": {"a": 1}, "hopeless": {"a": 0}}
    run = {"q1": ranked("a"), "stranger": ranked("a"), "empty": ranked(), "hopeless": ranked("a")}
    values = per_query(qrels, run)["nDCG@10"]
    assert list(values.items()) == [("q2", 0.0), ("q1", 1.0), ("empty", 0.0), ("hopeless", 0.0)]


def test_an_empty_run_is_all_zero() -> None:
    assert per_query({"q": {"a": 1}}, {}) == {"nDCG@10": {"q": 0.0}}


def test_position_counts_not_score() -> None:
    """A tail whose old scores exceed the head's, ties, and blank documents at -inf must not be sorted anew."""
    ranking = Ranking(("a", "b", "c", "d"), np.array([-5.0, -np.inf, 9.0, 9.0], dtype=np.float32), 2)
    for place, document in enumerate(ranking.ids):
        assert per_query({"q": {document: 1}}, {"q": ranking}, ["RR"])["RR"]["q"] == pytest.approx(1 / (place + 1))


UNKNOWN = ["nDCG10", "bogus@3", "", "alpha_nDCG@10", "nDCG@x"]
# Each of these ended the process, or in a traceback.
WRONG = [
    *("nDCG@0", "nDCG(cutoff=0)", "AP@True", "R@5.5", "P@9999999999999999999999", "P", "IPrec", "BPM", "INST"),
    *("P(rel='x')@5", "AP(rel=1.5)@10", "AP(rel=0)", "P(rel=99999999999999)@5", "Bpref(rel=2000000000)"),
    *("nDCG(gains='x')@10", "nDCG(gains={1:'x'})@10", "nDCG(gains={1:200000000})@10", "IPrec@1e308", "Accuracy@1"),
]


@pytest.mark.parametrize("name", UNKNOWN + WRONG)
def test_measures_that_cannot_be_are_refused_by_their_name(name: str) -> None:
    with pytest.raises(InputError, match=r"measure|compute") as caught:
        per_query({"q": {"a": 1}}, {"q": ranked("a", "b")}, [name])
    assert name in str(caught.value)
    with pytest.raises(InputError, match=r"measure|compute"):
        check(["AP", name])


def test_what_is_wrong_with_a_measure_is_said() -> None:
    for name, said in (("P", "needs a cutoff"), ("IPrec", "needs a recall"), ("AP@0", "at least 1, not 0")):
        with pytest.raises(InputError, match=said):
            check([name])


@pytest.mark.parametrize(
    ("name", "known"),
    [("ndcg_cut_10", "nDCG@10"), ("ndcg@10", "nDCG@10"), ("ndcg", "nDCG"), ("mrr@10", "RR@10"), ("recip_rank", "RR"),
     ("map", "AP"), ("map_cut_100", "AP@100"), ("recall@100", "R@100"), ("recall_2", "R@2"), ("P_2", "P@2"),
     ("precision@2", "P@2"), ("hit_rate@2", "Success@2"), ("success_1", "Success@1"), ("MRR@10", "RR@10"),
     ("ndcg_cut.10", "nDCG@10"), ("recall.100", "R@100"), ("P.5", "P@5")],
)  # fmt: skip
def test_names_of_other_tools_are_the_same_measures(name: str, known: str) -> None:
    """Those of pytrec_eval and ranx were refused, without a word of what to write; so were trec_eval's own."""
    qrels, run = {"q": {"a": 3, "b": 1, "c": 2}}, {"q": ranked("x", "b", "a")}
    assert per_query(qrels, run, [name, known])[name] == per_query(qrels, run, [known])[known]
    check([name])


def test_a_name_that_is_nearly_one_is_told() -> None:
    with pytest.raises(InputError, match=r"Did you mean nDCG@10\?"):
        check(["nDGC@10"])
    # A name that is known means nothing else: only its cutoff is missing.
    with pytest.raises(InputError, match=r"it needs a cutoff\. Names look like"):
        check(["recall"])


def test_a_run_of_scores_is_a_run() -> None:
    """As pytrec_eval and ranx hold it: it was an AttributeError."""
    qrels = {"q": {"a": 1}, "r": {"a": 1}}
    run = {"q": {"b": 1, "a": 1.5}, "r": {"b": 2.0, "a": 2.0}}
    assert per_query(qrels, run, ["RR"]) == {"RR": {"q": 1.0, "r": 0.5}}
    for judged, run in (({7: {"d": 1}}, {}), ({"q": {7: 1}}, {}), ({"q": {"d": 1}}, {7: {"d": 1.0}}),
                        ({"q": {"d": 1}}, {"q": {7: 1.0}})):  # fmt: skip
        with pytest.raises(InputError, match=r"an id is a string, not int \(7\)"):
            per_query(judged, run, ["nDCG@10"])  # type: ignore[dict-item]
    with pytest.raises(InputError, match=r"query 'q' has a list, .* Ranking.sorted\(ids, scores\)"):
        per_query(qrels, {"q": ["a"]}, ["RR"])  # type: ignore[dict-item]
    for bad in ("high", float("nan"), None):
        with pytest.raises(InputError, match="a score that is no number"):
            per_query(qrels, {"q": {"a": bad}}, ["RR"])  # type: ignore[dict-item]


@pytest.mark.skipif(shutil.which("perl") is None, reason="ERR is computed by a program in perl")
def test_a_measure_that_only_some_judgments_can_have() -> None:
    check(["ERR@10"])
    assert per_query({"7": {"a": 4}}, {"7": ranked("a")}, ["ERR@10"])["ERR@10"]["7"] == pytest.approx(15 / 16)
    for qrels in ({"seven": {"a": 1}}, {"7": {"a": 5}}, {"x-7": {"a": 1}}):
        with pytest.raises(InputError, match=r"compute ERR@10: its program"):
            check(["ERR@10"], qrels)


@pytest.mark.parametrize("grade", [3_000_000_000, -(10**23)])
def test_grades_that_would_end_the_process_are_refused(grade: int) -> None:
    with pytest.raises(InputError, match="timestamps or counts are no grades"):
        per_query({"q": {"a": 1, "b": grade}}, {"q": ranked("a")})


@pytest.mark.parametrize("bad", ["half \ud800", "a\0b", "é\0"])
def test_ids_that_would_end_the_process_are_refused(bad: str) -> None:
    for qrels, run in (({"q": {"a": 1}}, {"q": ranked(bad)}), ({"q": {bad: 1}}, {}), ({bad: {"a": 1}}, {})):
        with pytest.raises(InputError, match=r"surrogate|NUL"):
            per_query(qrels, run)
    assert per_query({"q": {"é": 1}}, {"q": ranked("é")})["nDCG@10"]["q"] == 1.0


def test_a_document_that_a_ranking_holds_twice_is_refused() -> None:
    """The lower of its two places counted, and a file of such a run could not be read again."""
    twice = {"q": Ranking(("a", "b", "a"), np.float32([3, 2, 1]), 3)}
    with pytest.raises(InputError, match="query 'q' ranks document 'a' twice"):
        per_query({"q": {"a": 1}}, twice)
    with pytest.raises(InputError, match="query 'q' ranks document 'a' twice"):
        list(run_lines(twice.items()))


def test_a_query_with_nothing_but_junk_ends_and_counts_as_zero() -> None:
    """pytrec_eval alone would loop for ever, holding the interpreter lock."""
    names = ["nDCG@10", "nDCG", "AP"]
    values = per_query({"junk": {"a": -2}, "q": {"a": 1, "b": -1}}, {"junk": ranked("a"), "q": ranked("a")}, names)
    assert [values[name] for name in names] == [{"junk": 0.0, "q": 1.0}] * 3
    assert per_query({"junk": {"a": -1}}, {"junk": ranked("a")}) == {"nDCG@10": {"junk": 0.0}}


def test_no_judgments_are_refused() -> None:
    with pytest.raises(InputError, match="no judgments"):
        per_query({}, {"q": ranked("a")})


documents = [f"d{i}" for i in range(15)]


@given(
    st.dictionaries(st.sampled_from(documents), st.integers(0, 3), min_size=1),
    st.permutations(documents),
    st.integers(1, 12),
)
def test_ndcg_equals_the_formula_and_is_bounded(grades: dict[str, int], order: list[str], cutoff: int) -> None:
    name = f"nDCG@{cutoff}"
    value = per_query({"q": grades}, {"q": ranked(*order)}, [name])[name]["q"]
    expected = ndcg([grades.get(document, 0) for document in order], list(grades.values()), cutoff)
    assert value == pytest.approx(expected, abs=1e-6)
    assert 0.0 <= value <= 1.0 + 1e-9
