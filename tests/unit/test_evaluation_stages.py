"""From judged queries to a verdict: folding, systems derived from one scoring, comparisons, words, frontiers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.cascade import Stage, Trace, rerank
from crossrank.embedder import load_embedder
from crossrank.errors import IndexFileError, InputError
from crossrank.evaluation.folding import Identity, folded
from crossrank.types import Passage, Qrels, Ranking, Truncation

pytest.importorskip("ir_measures", reason="needs the extra eval")

from crossrank.evaluation import frontier
from crossrank.evaluation.beir import JudgedSet
from crossrank.evaluation.candidates import Candidates, Reading, found
from crossrank.evaluation.candidates import given as given_run
from crossrank.evaluation.comparison import Comparison, Latency, compare, ideal
from crossrank.evaluation.measures import per_query
from crossrank.evaluation.moves import moves
from crossrank.evaluation.outcome import cut_lines
from crossrank.evaluation.reliability import of
from crossrank.evaluation.systems import Cuts, Owners, System, first_stages, reranked
from crossrank.evaluation.verdict import p_number, verdict
from crossrank.pipeline import Pipeline

IDS = [f"p{i}" for i in range(8)]


def ranked(*ids: str) -> Ranking:
    return Ranking.sorted(ids, np.arange(len(ids), 0, -1, dtype=np.float32))


class Numbers:
    """Scores a text by the number in it."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return np.array([float(text.split()[-1]) for _, text in pairs], dtype=np.float32)


def texts(ids: Sequence[str]) -> list[Passage]:
    return [Passage(id_, f"{id_} {(int(id_[1:]) * 5) % 8}", document=f"d{int(id_[1:]) // 2}") for id_ in ids]


def scored(queries: int = 3, depth: int = 8) -> tuple[Candidates, Reading]:
    """Candidates of some queries, and what a scorer said of them."""
    asked = {f"q{i}": f"question {i}" for i in range(queries)}
    listed = {query: ranked(*IDS[i:], *IDS[:i]) for i, query in enumerate(asked)}
    first = {q: (Trace("bm25", r, 0.01, {}), Trace("fused", r, 0.001, {})) for q, r in listed.items()}
    candidates = Candidates(asked, "fused", first, texts)
    stage = Stage(Numbers(), depth, 1.0, "numbers")
    traces = {query: rerank(asked[query], ranking, [stage], texts)[1][0] for query, ranking in listed.items()}
    return candidates, Reading("numbers", Numbers(), depth, traces)  # type: ignore[arg-type]


# --- which id is which -------------------------------------------------------------------------------------------


def test_split_documents_are_folded_and_said() -> None:
    identity = Identity.of({"q": {"a": 1, "gone": 2, "no": 0}}, ["a", "b"], ["a#1", "a#2", "b"])
    assert (identity.kind, identity.split, identity.relevant, identity.found) == ("documents", True, 2, 1)
    folds, missing = identity.notes()
    assert "2 documents are 3 passages" in folds
    assert "1 of 2 relevant documents are not in the collection" in missing


def test_whole_documents_need_no_fold() -> None:
    identity = Identity.of({"q": {"a": 1}}, ["a", "b"], ["a", "b"])
    assert not identity.split
    assert identity.notes() == ()
    # The relevant one is a document and its only passage: what else was split is folded all the same.
    assert Identity.of({"q": {"a": 1}}, ["a", "b"], ["a", "b#1", "b#2"]).split


def test_judged_passages_are_not_folded() -> None:
    identity = Identity.of({"q": {"a#2": 1, "b": 1}}, ["a", "b"], ["a#1", "a#2", "b"])
    assert identity.kind == "passages"
    assert "nothing was folded" in identity.notes()[0]


def test_judgments_of_another_collection_are_refused_with_both_ids() -> None:
    with pytest.raises(InputError, match=r"'MED-10'.*'a'.*judgments of this collection"):
        Identity.of({"q": {"MED-10": 1}}, ["a", "b"], ["a", "b"])
    with pytest.raises(InputError, match="judged relevant"):
        Identity.of({"q": {"a": 0}}, ["a"], ["a"])


@given(st.permutations(IDS), st.integers(0, 8))
def test_a_document_stands_where_its_best_passage_stands(order: list[str], head: int) -> None:
    owners = {passage.id: passage.document for passage in texts(IDS)}
    found = folded(Ranking(tuple(order), np.arange(8, 0, -1, dtype=np.float32), head), owners)
    assert sorted(found.ids) == ["d0", "d1", "d2", "d3"]
    best = {document: min(order.index(p) for p, d in owners.items() if d == document) for document in found.ids}
    assert list(found.ids) == sorted(best, key=lambda document: best[document])
    assert found.head == sum(place < head for place in best.values())
    assert found.scores.tolist() == [8.0 - best[document] for document in found.ids]


# --- systems -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.1, 0.7, 1.0])
@pytest.mark.parametrize("depth", [1, 3, 8])
def test_every_depth_and_mix_follows_from_one_scoring(depth: int, weight: float) -> None:
    candidates, reading = scored()
    for query, ranking in candidates.run.items():
        want, _ = rerank("any", ranking, [Stage(Numbers(), depth, weight)], texts)
        found = reading.reranked(query, ranking, depth, weight)
        assert (found.ids, found.head) == (want.ids, want.head)
        assert found.scores.tolist() == want.scores.tolist()


def test_a_cascade_follows_from_one_scoring_of_each_model() -> None:
    candidates, reading = scored()
    plan = (frontier.Step("a", 6, 0.5), frontier.Step("b", 2, 1.0))
    stages = [Stage(Numbers(), 6, 0.5), Stage(Numbers(), 2, 1.0)]
    for query, ranking in candidates.run.items():
        want, _ = rerank("any", ranking, stages, texts)
        found = frontier.replayed(query, ranking, plan, {"a": reading, "b": reading})
        assert (found.ids, found.scores.tolist()) == (want.ids, want.scores.tolist())


def test_what_was_not_scored_is_refused() -> None:
    candidates, reading = scored(depth=3)
    with pytest.raises(InputError, match="has not read"):
        reading.reranked("q0", candidates.run["q0"], 4, 1.0)


def test_systems_have_times_ceilings_and_the_passages_that_stood_for_documents() -> None:
    candidates, reading = scored()
    owners = Owners({passage.id: passage.document for passage in texts(IDS)})
    bm25, fusion = first_stages(candidates, owners, {"bm25": "BM25", "fused": "fusion"})
    assert (bm25.name, fusion.name, fusion.kind) == ("BM25", "fusion", "first")
    assert bm25.whole == dict.fromkeys(candidates.queries, 0.01)
    assert fusion.whole == pytest.approx(dict.fromkeys(candidates.queries, 0.011))
    alone, mix = reranked(candidates, reading, owners, [1.0, 0.1])
    assert [alone.name, alone.kind, mix.name, mix.kind] == ["numbers", "alone", "numbers (mix 0.1)", "mix"]
    assert alone.whole["q0"] == pytest.approx(0.011 + reading.traces["q0"].seconds)
    assert sorted(alone.run["q0"].ids) == ["d0", "d1", "d2", "d3"]
    # p3 has 15 % 8 = 7, the highest score, and is of document d1.
    assert alone.run["q0"].ids[0] == "d1"
    assert alone.shown["q0"]["d1"] == "p3"


@pytest.mark.parametrize("depth", [1, 3, 8])
@pytest.mark.parametrize("split", [True, False])
def test_the_ceiling_is_over_what_stays_behind(depth: int, split: bool) -> None:
    candidates, reading = scored(depth=depth)
    owners = Owners({passage.id: passage.document for passage in texts(IDS)} if split else {})
    systems = reranked(candidates, reading, owners, [1.0, 0.3])
    wanted = ["d3", "d0"] if split else ["p7", "p0", "p5"]
    qrels = {query: {id_: grade for grade, id_ in enumerate(wanted, start=1)} for query in candidates.queries}
    measures = ["nDCG@3", "R@8", "RR"]
    compared = compare(qrels, systems, measures)
    for standing in compared.standings:
        assert standing.ceiling["R@8"] == standing.means["R@8"].mean == 1.0
        assert all(standing.ceiling[name] >= standing.means[name].mean - 1e-9 for name in measures)
        # What is read decides what can be reached.
        assert (standing.ceiling["nDCG@3"] == pytest.approx(1)) == (standing.recall == pytest.approx(1)) == (depth == 8)


def test_the_share_of_relevant_documents_counts_documents_and_not_queries() -> None:
    candidates = {"q0": ranked("a", "x"), "q1": ranked("b"), "q2": ranked("x")}
    qrels = {"q0": {"a": 1, "x": 0}, "q1": {"b": 1, "c": 2, "d": 1}, "q2": {"x": 0}, "q3": {"e": 1}}
    system = System("m", "alone", candidates, "m", candidates=candidates)
    assert compare(qrels, [system]).standings[0].recall == pytest.approx(2 / 5)
    assert compare({"q2": {"x": 0}}, [system]).standings[0].recall is None


def test_a_run_from_elsewhere_needs_its_texts() -> None:
    corpus = {passage.id: passage for passage in texts(IDS)}
    found = given_run({"q0": "x", "q1": "y"}, "BM25", {"q0": ranked("p1", "p0")}, corpus)
    assert found.run["q0"].ids == ("p1", "p0")
    assert not found.timed
    with pytest.raises(InputError, match="'zz', which has no text"):
        given_run({"q0": "x"}, "BM25", {"q0": ranked("zz")}, corpus)
    with pytest.raises(InputError, match="ranks nothing"):
        given_run({"q9": "x"}, "BM25", {"q0": ranked("p1")}, corpus)
    with pytest.raises(InputError, match=r"query 'q1' \(2 in all\) has no text"):
        given_run({"q0": "x", "q1": "\u200b", "q2": " "}, "BM25", {"q0": ranked("p1")}, corpus)


def test_blank_documents_are_left_out_of_an_index_and_said(tmp_path: Path, bi_encoder_folder: Path) -> None:
    indexing = pytest.importorskip("crossrank.evaluation.indexing", reason="needs the search extra")
    embedder = load_embedder(bi_encoder_folder, backend="fake")
    corpus = {"a": Passage("a", "bread"), "b": Passage("b", " \n"), "c": Passage("c", "", "a title")}
    judged = JudgedSet("set", "test", corpus, {"q": "bread"}, {"q": {"a": 1}})
    index = indexing.kept(judged, tmp_path, embedder, tmp_path / "cache")
    assert index.documents() == ["a", "c"]
    made = indexing.over_index(index, judged, embedder, 5, None)
    assert made.notes == ("1 of 3 documents are blank and left out.",)
    # One that became blank since the index was made goes.
    now = replace(judged, corpus=corpus | {"c": Passage("c", " ")})
    assert indexing.kept(now, tmp_path, embedder, tmp_path / "cache").documents() == ["a"]


def test_an_evaluation_is_of_one_version_of_its_index(
    tmp_path: Path, bi_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its texts are read long after its searches, and an update in between gave those of another version."""
    indexing = pytest.importorskip("crossrank.evaluation.indexing", reason="needs the search extra")
    from crossrank.index import Document, Index, table

    embedder = load_embedder(bi_encoder_folder, backend="fake")
    judged = JudgedSet("set", "test", {"a": Passage("a", "bread")}, {"q": "bread"}, {"q": {"a": 1}})
    index = indexing.kept(judged, tmp_path, embedder, tmp_path / "cache")
    candidates = indexing.over_index(index, judged, embedder, 5, None).candidates
    index.add([Document("a", "new bread")], embedder, embedder.tokenizer)
    assert index.passages(["a"])[0].text == "new bread"
    assert candidates.texts(["a"])[0].text == "bread"
    monkeypatch.setattr(table, "_READ_FOR", 0.0)
    Index.open(index._table.folder).add([Document("b", "more")], embedder, embedder.tokenizer)
    for read in (candidates.texts, candidates.store.tokens):
        with pytest.raises(IndexFileError, match="version that is read here was removed: begin again"):
            read(["a"])
    assert index.ids(), "others go on"


def test_an_evaluation_of_a_users_own_pipeline_is_of_one_version(tmp_path: Path, bi_encoder_folder: Path) -> None:
    """Each query was of its own version, so that figures were means over two collections."""
    indexing = pytest.importorskip("crossrank.evaluation.indexing", reason="needs the search extra")
    from crossrank.index import Document, one_version
    from crossrank.retrieval.bm25 import BM25Retriever

    embedder = load_embedder(bi_encoder_folder, backend="fake")
    queries = {"q": "bread", "r": "bread is"}
    judged = JudgedSet("set", "test", {"a": Passage("a", "bread")}, queries, {"q": {"a": 1}})
    index = indexing.kept(judged, tmp_path, embedder, tmp_path / "cache")

    numbers = itertools.count()

    class Between(BM25Retriever):
        """One after whose searches the index is updated."""

        def retrieve(self, queries: Sequence[str], depth: int) -> list[Ranking]:
            """As the retriever's."""
            found = super().retrieve(queries, depth)
            index.add([Document(f"b{next(numbers)}", "new bread")], embedder, embedder.tokenizer)
            return found

    pipeline = Pipeline({"mine": Between(index)}, index.passages, store=index)
    candidates = found(queries, pipeline)
    assert [ranking.ids for ranking in candidates.run.values()] == [("a",)] * 2
    assert len(index) == 4, "one more after each search, that for warming up among them"

    def searched_and_read() -> list[str]:
        candidates = found(queries, pipeline)
        index.add([Document("a", "another bread")], embedder, embedder.tokenizer)
        return [passage.text for passage in candidates.texts(["a"])]

    assert one_version(searched_and_read) == ["bread"]
    assert index.passages(["a"])[0].text == "another bread"


def test_cuts_are_counted_and_said() -> None:
    candidates, _ = scored(2)
    whole = Truncation(0, 600, 600, 2)
    lost, query = Truncation(1, 9000, 4000, 64), Truncation(-1, 300, 200, 1)
    traces = [
        Trace("m", candidates.run["q0"], 0.1, dict.fromkeys(IDS, 0.0), (query, whole, lost)),
        Trace("m", candidates.run["q1"], 0.1, dict.fromkeys(IDS, 0.0), (whole,)),
    ]
    cuts = Cuts.of(traces)
    assert cuts == Cuts(pairs=16, windowed=2, lost=1, queries=1)
    qrels = {"q0": {"p0": 1}}
    compared = compare(qrels, [System("m", "alone", candidates.run, "m", cuts=cuts)])
    said = "m read 2 of 16 passages in windows, 1 of 16 passages not to their end, 1 query not to the end."
    assert cut_lines(compared.standings) == [said]


# --- comparisons and words ---------------------------------------------------------------------------------------


def judged(gains: Sequence[float], kinds: Sequence[str] = ("mix",)) -> Comparison:
    """The baseline finds the one relevant document at rank 2 (RR 0.5); a gain of 0.5 is rank 1, of -0.25 rank 4."""
    places = {0.5: 0, 0.0: 1, -0.25: 3}
    qrels: Qrels = {f"q{i}": {"hit": 1} for i in range(len(gains))}

    def at(place: int) -> Ranking:
        ids = [f"x{i}" for i in range(4)]
        return ranked(*ids[:place], "hit", *ids[place:])

    base = System("fusion", "first", {query: at(1) for query in qrels})
    moved = {query: at(places[gain]) for query, gain in zip(qrels, gains, strict=True)}
    systems = [System(f"{kind} {i}", kind, moved, "m") for i, kind in enumerate(kinds)]  # type: ignore[arg-type]
    return compare(qrels, [base, *systems], ["RR"])


def test_yes_only_when_it_is_significant() -> None:
    found = verdict(judged([0.5] * 12 + [0.0] * 8))
    assert found.answer == "yes"
    assert found.headline.startswith("Yes: mix 0 gives +0.300 [")
    assert "RR over fusion (p < 0.001)" in found.headline
    assert "12 queries got better, 0 worse, 8 stayed." in found.details


def test_one_query_has_no_interval_and_that_is_said() -> None:
    """It was said to be Student's, which needs two."""
    details = " ".join(verdict(judged([0.5])).details)
    assert "One query has no interval" in details
    assert "Student" not in details


def test_no_when_fusion_alone_is_better() -> None:
    found = verdict(judged([-0.25] * 12 + [0.0] * 8, kinds=("alone", "mix")))
    assert found.answer == "no"
    assert found.headline.startswith("No: fusion alone is better here. Even the best of 2 loses: ")
    one = verdict(judged([-0.25] * 12))
    assert one.headline.startswith("No: fusion alone is better here: mix 0 gives -0.250")


def test_a_reranker_as_the_baseline_is_no_question_about_reranking() -> None:
    # "No: the mix alone is better here" answered "Does reranking help here?", which nobody had asked of two models.
    compared = judged([0.5] * 12 + [0.0] * 8, kinds=("alone", "mix"))
    qrels = {query: {"hit": 1} for query in compared.standings[0].values["RR"]}
    systems = [standing.system for standing in compared.standings]
    kept = replace(systems[2], run=systems[0].run)  # the mix leaves the first stage's order: it loses to "alone 0"
    found = verdict(compare(qrels, [systems[0], systems[1], kept], ["RR"], baseline="alone 0"))
    assert found.question == "Is one of them better than alone 0?"
    assert found.headline.startswith("No: alone 0 is better here. Even the best of 2 loses: ")
    assert found.details[-1].startswith("alone 0 is better than ")
    won = verdict(compare(qrels, [kept, systems[1]], ["RR"], baseline="mix 1"))
    assert (won.question, won.answer) == ("Is one of them better than mix 1?", "yes")


def test_a_yes_beside_an_interval_that_holds_0_is_told() -> None:
    # One large gain and five tiny ones: all in one direction, which the test counts; the interval goes by their spread.
    qrels = {f"q{i}": {"hit": 1} for i in range(6)}

    def at(*places: int) -> dict[str, Ranking]:
        return {
            query: ranked(*(f"x{i}" for i in range(place)), "hit") for query, place in zip(qrels, places, strict=True)
        }

    base = System("fusion", "first", at(4, *[9] * 5))
    found = verdict(compare(qrels, [base, System("mix", "mix", at(0, *[8] * 5), "m")], ["RR"]))
    assert found.answer == "yes"
    assert "The test tells it from chance, but the interval holds 0: a few queries make most of the difference." in (
        found.details
    )


def test_the_best_of_losers_is_no_gain_to_expect_less_of() -> None:
    # "... is the best of 6 on these very queries, so expect a little less elsewhere" followed a gain of -0.002.
    lost = verdict(judged([0.0, 0.0, 0.0, -0.25], kinds=("alone", "mix")))
    assert lost.headline.startswith("It cannot be told with 4 queries: of 2 tried the best, alone 0, gives -0.062")
    assert "expect a little less" not in " ".join(lost.details)
    won = verdict(judged([0.0, 0.0, 0.0, 0.5], kinds=("alone", "mix")))
    assert "expect a little less" in " ".join(won.details)


def test_who_is_not_the_best_of_all_is_not_called_so() -> None:
    """The one with the larger mean could not be told from chance, and the headline's was called the best of both."""
    qrels = {f"q{i}": {"hit": 1} for i in range(20)}

    def at(*places: int) -> dict[str, Ranking]:
        return {q: ranked(*(f"x{i}" for i in range(place)), "hit") for q, place in zip(qrels, places, strict=True)}

    systems = [System("fusion", "first", at(*[2] * 20))]
    systems += [System("sure", "mix", at(*[1] * 20), "m"), System("bold", "alone", at(*[0] * 10, *[9] * 10), "m")]

    found = verdict(compare(qrels, systems, ["RR"]))

    assert found.headline.startswith("Yes: sure gives +0.167")
    details = " ".join(found.details)
    assert "the best of 2" not in details
    assert "bold has a larger mean difference, +0.217 [" in details
    assert "], which may be chance (p = 0." in details
    alike = verdict(compare(qrels, [*systems[:2], replace(systems[1], name="also")], ["RR"]))
    assert "sure is the best of 2 on these very queries" in " ".join(alike.details)


@pytest.mark.parametrize(
    ("p", "told"), [(500 / 10001, "0.049995"), (0.0504, "0.050400"), (0.05, "0.050"), (0.0511, "0.051")]
)
def test_a_p_beside_the_level_is_not_rounded_to_it(p: float, told: str) -> None:
    """A yes and a "cannot be told" both said p = 0.050."""
    assert p_number(p) == told


def test_all_queries_are_not_only_some_of_them() -> None:
    """It said "Only 12 of 12 queries changed"."""
    assert "12 queries are few, so the interval is Student's" in " ".join(verdict(judged([0.5, -0.25] * 6)).details)
    assert "Only 12 of 13 queries changed" in " ".join(verdict(judged([0.5, -0.25] * 6 + [0.0])).details)


def test_few_queries_cannot_tell() -> None:
    found = verdict(judged([0.5, 0.5, 0.0, -0.25]))
    assert found.answer == "unclear"
    assert found.headline.startswith("It cannot be told with 4 queries: mix 0 gives +0.188")
    details = " ".join(found.details)
    assert "So few queries can show nothing, whatever they are: at least 6 must change." in details
    assert "four times in five takes about" in details
    assert "Only 3 of 4 queries changed, so the interval is Student's" in details
    assert "of so few it is a guess" in details


def test_what_so_many_queries_can_show_counts_the_comparisons() -> None:
    gains = [0.5] * 4 + [-0.25] * 3 + [0.0] * 33
    one, four = (verdict(judged(gains, ("mix",) * count)).details for count in (1, 4))
    moved = np.array(gains)
    error = moved.std(ddof=1) / np.sqrt(40)
    # Quantiles of the normal distribution for 0.05 and for 0.05 / 4; and 0.842 for four times in five.
    assert one[0] == f"With these 40 queries only differences beyond about {1.960 * error:.3f} would show."
    said = f"With these 40 queries only differences beyond about {2.498 * error:.3f} would show"
    assert four[0] == f"{said}, for 4 systems were compared."
    for z, said in ((1.960, one[1]), (2.498, four[1])):
        takes = int(said.split("takes about ")[1].split(" ")[0].replace(",", ""))
        assert takes == pytest.approx(40 * ((z + 0.842) * error / moved.mean()) ** 2, rel=0.05)
    assert "at least 8 must change, for 4 systems were compared" in verdict(judged(gains[:7], ("mix",) * 4)).details[0]


def test_what_is_surely_worse_is_said_beside_a_yes() -> None:
    compared = judged([0.5] * 12)
    worse = replace(compared.standings[0].system, name="alone", kind="alone", run={})
    qrels = {query: {"hit": 1} for query in compared.standings[0].values["RR"]}
    again = compare(qrels, [standing.system for standing in compared.standings] + [worse], ["RR"])
    found = verdict(again)
    assert found.answer == "yes"
    assert found.details[-1].startswith("fusion alone is better than alone: -0.500")


def test_what_moved_most_is_named_first_and_p_is_corrected_for_all_systems() -> None:
    def at(*places: int) -> dict[str, Ranking]:
        """The relevant document of each query behind so many others."""
        return {f"q{n}": ranked(*(f"x{i}" for i in range(place)), "hit") for n, place in enumerate(places)}

    qrels = {f"q{n}": {"hit": 1} for n in range(5)}
    systems = [System("base", "first", at(3, 3, 3, 3, 3)), System("one", "mix", at(1, 0, 3, 4, 19))]
    (contrast,) = compare(qrels, systems, ["RR"]).of("one").contrasts.values()
    assert (contrast.better, contrast.worse, contrast.same) == (("q1", "q0"), ("q4", "q3"), 1)
    three = judged([0.5] * 12, ("mix",) * 3).standings[1:]
    assert [one.contrasts["RR"].corrected for one in three] == pytest.approx([3 * 2 / 2**12] * 3)


def test_times_are_told_by_their_median_and_their_95th_percentile() -> None:
    seconds = [float(n) for n in range(101)]
    assert Latency.of(seconds[::-1]) == Latency(50.0, 95.0, 101)
    system = System("m", "mix", {"q": ranked("a")}, step=dict(enumerate(seconds)), whole={0: 500.0})  # type: ignore[arg-type]
    (standing,) = compare({"q": {"a": 1}}, [system]).standings
    assert (standing.step, standing.whole) == (Latency(50.0, 95.0, 101), Latency(500.0, 500.0, 1))


def test_nothing_to_compare_is_said() -> None:
    one = verdict(compare({"q": {"a": 1}}, [System("BM25", "run", {"q": ranked("a")})]))
    assert (one.answer, one.system) == ("unclear", "")
    assert "nothing to compare" in one.headline


def test_wrong_systems_are_refused() -> None:
    system = System("a", "run", {"q": ranked("a")})
    for systems, baseline, said in (([], "", "no systems"), ([system, system], "", "two"), ([system], "b", "'b'")):
        with pytest.raises(InputError, match=said):
            compare({"q": {"a": 1}}, systems, baseline=baseline)


@given(st.permutations(IDS), st.dictionaries(st.sampled_from([*IDS, "p9"]), st.integers(-1, 3), min_size=1))
def test_no_order_of_the_candidates_beats_the_ceiling(order: list[str], grades: dict[str, int]) -> None:
    names = ["nDCG@5", "RR", "P@3", "AP"]
    mine, most = (
        per_query({"q": grades}, run, names)
        for run in ({"q": ranked(*order)}, ideal({"q": grades}, {"q": ranked(*order)}))
    )
    assert all(mine[name]["q"] <= most[name]["q"] + 1e-9 for name in names)


def test_moves_show_what_changed_with_texts_where_they_are_known() -> None:
    qrels = {"q0": {"p7": 2, "p0": 0}, "q1": {"p1": 1}}
    base = System("fusion", "first", {"q0": ranked(*IDS[::-1]), "q1": ranked(*IDS)})
    other = System("small", "alone", {"q0": ranked(*IDS), "q1": ranked("p1", "elsewhere")})

    def known(ids: Sequence[str]) -> list[Passage]:
        if "elsewhere" in ids:
            raise InputError("the index has no passage 'elsewhere'")
        return texts(ids)

    compared = compare(qrels, [base, other], ["RR"])
    found = moves(compared, compared.of("small"), {"q0": "what?"}, qrels, known)
    (loss,), (gain,) = found.losses, found.gains
    assert (loss.query, loss.text, loss.before, loss.after) == ("q0", "what?", 1.0, 0.125)
    assert [(p.id, p.grade, p.before, p.after) for p in loss.top] == [
        ("p0", 0, 8, 1),
        ("p1", None, 7, 2),
        ("p2", None, 6, 3),
    ]
    assert [(p.id, p.grade, p.before, p.after, p.text) for p in loss.relevant] == [("p7", 2, 1, 8, "p7 3")]
    assert [(p.id, p.text) for p in gain.top] == [("p1", "p1 5"), ("elsewhere", "")]
    assert gain.text == ""


def test_moves_mark_the_sentence_that_the_model_prefers() -> None:
    qrels = {"q0": {"p7": 2}, "q1": {"p0": 1}}
    base = System("fusion", "first", {"q0": ranked("p7", "p0"), "q1": ranked("p7", "p0")})
    other = System("small", "alone", {"q0": ranked("p0", "p7"), "q1": ranked("p0", "p7")}, model="numbers")

    def known(ids: Sequence[str]) -> list[Passage]:
        return [Passage(i, "The first is 3. The second is 7." if i == "p0" else "One is 1") for i in ids]

    compared = compare(qrels, [base, other], ["RR"])

    def last_number(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        assert all(query == "what?" for query, _ in pairs)
        return Numbers().score([(query, text.rstrip(".")) for query, text in pairs])

    found = moves(compared, compared.of("small"), {"q0": "what?"}, qrels, known, 5, last_number)
    shown = {placed.id: placed for placed in found.losses[0].top}
    start, stop = shown["p0"].evidence or (0, 0)
    assert shown["p0"].text[start:stop] == "The second is 7."
    # A passage of one sentence needs no mark, and without a question there is none to ask for.
    assert shown["p7"].evidence is None
    assert [placed.evidence for placed in found.gains[0].top] == [None, None]


def test_reliability_counts_every_pair_once() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.random(2000).astype(np.float32)
    good = of("m", predicted, rng.random(2000) < predicted)
    bad = of("m", predicted, rng.random(2000) < predicted / 3)
    assert good.error < 0.05 < 0.25 < bad.error
    assert sum(b.pairs for b in good.bins) == 2000
    assert all(b.low <= b.observed <= b.high for b in good.bins)
    assert [b.predicted for b in good.bins] == sorted(b.predicted for b in good.bins)


# --- frontier ----------------------------------------------------------------------------------------------------


def point(name: str, ms: float, values: Sequence[float]) -> frontier.Point:
    by_query = {f"q{i}": value for i, value in enumerate(values)}
    made = frontier._point(name, name, (), by_query, by_query, Latency(ms / 1e3, ms / 1e3, 1), 0)
    return replace(made, change=None)


def test_the_pareto_set() -> None:
    points = [
        point("fast", 1, [0.1, 0.3]), point("dominated", 2, [0.1, 0.2]), point("equal", 3, [0.3, 0.1]),
        point("better", 4, [0.5, 0.5]), point("as fast, worse", 4, [0.5, 0.4]), point("slow", 9, [0.2, 0.9]),
    ]  # fmt: skip
    found = frontier.marked(points)
    assert [p.name for p in found if p.pareto] == ["fast", "better", "slow"]
    gains = {p.name: p.gain and round(p.gain.mean, 3) for p in found}
    assert gains == {
        "fast": None, "dominated": None, "equal": None, "better": 0.3, "as fast, worse": None, "slow": 0.05,
    }  # fmt: skip


def test_the_cheapest_that_cannot_be_told_from_the_best() -> None:
    noisy = [0.0, 1.0] * 10
    base = point("fusion", 1, [0.0] * 20)
    cheap, best = point("cheap", 5, noisy), point("best", 50, [*noisy[:-2], 0.1, 1.0])
    found = frontier.Frontier("nDCG@10", base, tuple(frontier.marked([base, cheap, best])), 20, 10, True)
    assert (found.best.name, found.cheapest.name) == ("best", "cheap")
    assert found.headline() == (
        "cheap, nDCG@10 0.500 in 5 ms, is the cheapest that cannot be told from the best with 20 queries: best, "
        "nDCG@10 0.505 in 50 ms."
    )
    alone = frontier.Frontier("nDCG@10", cheap, tuple(frontier.marked([cheap, best])), 20, 10, True)
    alone = replace(alone, base=alone.points[0])
    assert alone.headline() == (
        "cheap alone, nDCG@10 0.500 in 5 ms, cannot be told from the best with 20 queries: best, nDCG@10 0.505 in "
        "50 ms."
    )
    gained = frontier._point("a", "a", (), {"q": 0.9}, {"q": 0.4}, Latency(0.1, 0.1, 1), 0)
    assert gained.change is not None
    assert gained.change.mean == pytest.approx(0.5)  # of the configuration, less the baseline


def test_a_frontier_keeps_to_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    real = frontier.difference
    monkeypatch.setattr(frontier, "difference", lambda *a, seed=0: seeds.append(seed) or real(*a, seed=seed))
    points = [point("fusion", 1, [0.0] * 20), point("best", 50, [0.0, 1.0] * 10)]
    seeds.clear()
    made = frontier.Frontier("nDCG@10", points[0], tuple(frontier.marked(points, 7)), 20, 10, True, seed=7)
    assert made.cheapest.name == "best"
    assert set(seeds) == {7}


def test_what_fits_into_a_time_is_the_best_of_what_is_fast_enough() -> None:
    base, slow = point("fusion", 20, [0.4]), point("slow", 90, [0.9])
    good, same = point("good", 40, [0.6]), point("same", 45, [0.6])
    found = frontier.Frontier("nDCG@10", base, (base, good, same, slow), 1, 10, True)
    assert "1 queries" not in found.headline() + found.foot()
    names = [(best.name if (best := found.within(ms)) else None) for ms in (10, 20, 50, 89, 500)]
    assert names == [None, "fusion", "good", "good", "slow"]
    # What is usually fast and sometimes slow is not within.
    uneven = replace(slow, latency=Latency(0.03, 0.09, 10))
    assert replace(found, points=(base, uneven, good)).within(50) is good
    assert replace(found, points=(base, same, good)).best is good
    assert frontier.record(found, {})["within_ms"] == {
        "30": "fusion", "50": "good", "100": "slow", "200": "slow", "500": "slow",
    }  # fmt: skip


def test_a_cascade_narrows_and_its_coarse_stage_keeps_to_the_smallest_weight() -> None:
    made = frontier.configurations(["a", "b"], [20, 10], [1.0, 0.3], [("a", "b")])
    assert [plan for plan in made if len(plan) > 1] == [
        (frontier.Step("a", 20, 0.3), frontier.Step("b", 10, weight)) for weight in (1.0, 0.3)
    ]


def test_cascades_need_their_models() -> None:
    with pytest.raises(InputError, match="'tiny', which --models does not"):
        frontier.configurations(["small"], [10, 20], [1.0], [("tiny", "small")])
