"""The PyTerrier transformers in the host's own pipelines and experiments. No Java, no network."""

from __future__ import annotations

import copy
import logging
import pickle
import subprocess
import sys
import unittest

import numpy as np
import pytest

import crossrank
from crossrank.cascade import mixed
from crossrank.errors import InputError, ScoreError
from crossrank.integrations.best import Asked, best
from crossrank.pipeline import Pipeline
from crossrank.textids import TextIds
from crossrank.types import Passage, Ranking

pt = pytest.importorskip("pyterrier", reason="needs the pyterrier extra")

import pandas as pd  # noqa: E402

from crossrank.integrations.pyterrier import CrossrankReranker, CrossrankRetriever  # noqa: E402

ROWS = [
    ["1", "capital of France?", "a", "Bread needs yeast.", 3.0, 0],
    ["1", "capital of France?", "b", "Paris is the capital of France.", 2.0, 1],
    ["2", "what does bread need?", "a", "Bread needs yeast.", 9.0, 0],
    ["2", "what does bread need?", "c", "London is a city.", 8.0, 1],
    ["2", "what does bread need?", "b", "Paris is the capital of France.", 1.0, 2],
]
COLUMNS = ["qid", "query", "docno", "text", "score", "rank"]
QRELS = pd.DataFrame([["1", "b", 1], ["2", "a", 1]], columns=["qid", "docno", "label"])


def results(rows=ROWS, columns=COLUMNS):
    return pd.DataFrame([list(row) for row in rows], columns=columns)


def numbered(*numbers, qid="1"):
    """Rows of one query whose texts end with these numbers."""
    rows = [[qid, "q", f"d{place}", f"text #{number}"] for place, number in enumerate(numbers)]
    return pd.DataFrame(rows, columns=["qid", "query", "docno", "text"])


class NumberScorer:
    """The score of a text is the number after its #."""

    def __init__(self):
        self.calls = []

    def score(self, pairs):
        self.calls.append(list(pairs))
        return np.array([float(text.rsplit("#", 1)[1]) for _, text in pairs], np.float32)


class Few:
    def score(self, pairs):
        return np.zeros(1, np.float32)


class Listed:
    """Finds the same passages for every query."""

    def __init__(self, *ids):
        self.ids = ids
        self.asked = []

    def retrieve(self, queries, depth):
        self.asked += queries
        return [Ranking.sorted(self.ids, -np.arange(len(self.ids))).cut(depth) for _ in queries]


PASSAGES = {
    "guide#1": Passage("guide#1", "Bread needs yeast.", document="guide"),
    "guide#2": Passage("guide#2", "Bread needs salt.", document="guide"),
    "paris": Passage("paris", "It is the capital of France.", title="Paris", document="paris"),
}


def pipeline(*ids, **options):
    return Pipeline({"listed": Listed(*ids)}, lambda asked: [PASSAGES[id_] for id_ in asked], **options)


def test_scores_are_those_of_the_model_and_nothing_else_changes():
    frame = results().assign(year=[2001, 2002, 2003, 2004, 2005], query_0="before")
    frame.index = [7, 7, 3, 3, 1]
    before = frame.copy(deep=True)
    made = CrossrankReranker("small")(frame)
    pd.testing.assert_frame_equal(frame, before)
    want = crossrank.load("small").score([(row[1], row[3]) for row in ROWS])
    assert made["score"].tolist() == want.tolist()
    assert made["score"].dtype == np.float64
    assert made["rank"].tolist() == [1, 0, 0, 1, 2]
    assert made["rank"].dtype == np.int64
    rest = ["qid", "query", "docno", "text", "year", "query_0"]
    pd.testing.assert_frame_equal(made[rest], before[rest])
    # As the host ranks scores.
    assert made["rank"].tolist() == pt.model.add_ranks(made.copy())["rank"].tolist()


def test_late_interaction_is_a_model_too():
    made = CrossrankReranker("late")(results())
    want = crossrank.load_late("late").score([(row[1], row[3]) for row in ROWS])
    assert made["score"].tolist() == want.tolist()
    assert made["rank"].tolist()[:3] == [1, 0, 0]


def test_all_rows_are_one_call_and_a_query_is_tokenized_once(monkeypatch):
    scorer = NumberScorer()
    frame = pd.concat([numbered(1, 2), numbered(3, 4, qid="2"), numbered(5, qid="3")])
    CrossrankReranker(scorer)(frame)
    assert len(scorer.calls) == 1
    assert len(scorer.calls[0]) == 5
    seen = []
    tokenized = TextIds.of
    monkeypatch.setattr(TextIds, "of", lambda ids, texts: seen.extend(texts) or tokenized(ids, texts))
    CrossrankReranker("small")(results())
    assert {row[1] for row in ROWS} <= set(seen)
    assert len(seen) == len(set(seen))


def test_ties_stand_as_the_rows_do_and_cutoffs_follow_ranks():
    made = CrossrankReranker(NumberScorer())(numbered(2, 5, 2, 5))
    assert made["rank"].tolist() == [2, 0, 3, 1]
    top = (CrossrankReranker(NumberScorer()) % 2)(numbered(2, 5, 2, 5))
    assert sorted(top["docno"]) == ["d1", "d3"]


def test_a_document_twice_is_scored_once_and_stays_twice():
    frame = results([ROWS[1], ROWS[0], ROWS[1]])
    made = CrossrankReranker("small")(frame)
    assert made["docno"].tolist() == ["b", "a", "b"]
    assert made["score"][0] == made["score"][2]
    assert made["rank"].tolist() == [0, 2, 1]


def test_a_blank_text_comes_last_with_a_number():
    frame = results([[*ROWS[1][:3], "", 9.0, 0], *ROWS[:2], [*ROWS[2][:3], " ", 9.0, 0]])
    made = CrossrankReranker("small")(frame)
    assert made["score"][0] == min(made["score"][1:3]) - 1
    assert made["rank"].tolist() == [2, 1, 0, 0]
    assert made["score"][3] == 0.0
    chances = CrossrankReranker("small", scores="probability")(frame)
    assert chances["score"].tolist()[::3] == [0.0, 0.0]
    assert chances["score"].between(0, 1).all()
    # A weighted sum of the host's with a -inf would be NaN.
    assert np.isfinite((CrossrankReranker("small") * 0)(frame)["score"]).all()


def test_probabilities_are_those_of_the_model():
    small = crossrank.load("small")
    made = CrossrankReranker(small, scores="probability")(results())
    want = small.probability(small.score([(row[1], row[3]) for row in ROWS]))
    assert made["score"].tolist() == want.tolist()
    for model in ("late", NumberScorer()):
        with pytest.raises(InputError, match="no probabilities: leave out scores"):
            CrossrankReranker(model, scores="probability")(results())
        if isinstance(model, NumberScorer):
            assert not model.calls


def test_probabilities_of_an_uncalibrated_model_are_refused_before_it_reads(plain_folder, monkeypatch):
    monkeypatch.setattr(crossrank.CrossEncoder, "scored", None)
    with pytest.raises(InputError, match="uncalibrated logits"):
        CrossrankReranker(plain_folder, scores="probability")(results())


def test_a_mix_is_that_of_the_other_integrations():
    scorer = NumberScorer()
    frame = numbered(1, 5, 3, 2).assign(score=[0.9, 0.1, 0.8, 0.8])
    other = numbered(4, 1, qid="2").assign(score=[1e9, 1e9 + 1])
    made = CrossrankReranker(scorer, mix=0.4)(pd.concat([frame, other], ignore_index=True))
    for part in (frame, other):
        texts, before = part["text"].tolist(), part["score"].tolist()
        want = {one.position: one.score for one in best(NumberScorer(), "q", texts, None, Asked(mix=0.4), before)}
        got = made[made["qid"] == part["qid"][0]]["score"].tolist()
        assert got == [want[row] for row in range(len(part))]
    by_hand = mixed(Ranking.sorted("abcd", [0.9, 0.8, 0.8, 0.1]), np.float32([1, 3, 2, 5]), 0.4)
    want = [by_hand.scores[by_hand.ids.index(one)] for one in "adbc"]
    assert made["score"][:4].tolist() == pytest.approx(want, abs=1e-6)
    # One row has no spread.
    assert CrossrankReranker(scorer, mix=0.4)(numbered(7).assign(score=3.0))["score"].tolist() == [0.0]


def test_a_model_of_lists_gets_them_by_rank_and_says_what_it_cost(caplog):
    class Listwise(NumberScorer):
        def noted(self, pairs):
            return self.score(pairs), "2 questions"

    scorer = Listwise()
    frame = pd.concat([numbered(1, 2, 3), numbered(4, 5, qid="2")]).assign(rank=[2, 0, 1, 1, 0])
    with caplog.at_level(logging.WARNING, "crossrank"):
        made = CrossrankReranker(scorer)(frame)
    assert [text for _, text in scorer.calls[0]] == ["text #2", "text #5", "text #3", "text #4", "text #1"]
    assert made["score"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert [record.getMessage() for record in caplog.records] == ["CrossrankReranker('Listwise'): 2 questions"]


def test_another_field_is_read_where_it_is_named():
    frame = results().rename(columns={"text": "body"})
    want = CrossrankReranker("small")(results())["score"].tolist()
    assert CrossrankReranker("small", text_field="body")(frame)["score"].tolist() == want


def test_a_missing_column_is_the_hosts_own_error():
    for lacking in ("qid", "query", "docno", "text"):
        with pytest.raises(pt.validate.InputValidationError, match=f"missing_columns=.*{lacking}"):
            CrossrankReranker(NumberScorer())(results().drop(columns=lacking))
    with pytest.raises(pt.validate.InputValidationError, match=r"missing_columns=\['score'\]"):
        CrossrankReranker(NumberScorer(), mix=0.4)(results().drop(columns="score"))
    with pytest.raises(pt.validate.InputValidationError, match="query"):
        CrossrankRetriever(pipeline("paris"))(pd.DataFrame({"qid": ["1"]}))


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, 7])
def test_a_text_that_is_none_is_told_with_its_row_and_the_cure(missing):
    frame = results()
    frame["text"] = frame["text"].astype(object)
    frame.loc[1, "text"] = missing
    frame.loc[3, "text"] = missing
    scorer = NumberScorer()
    with pytest.raises(
        InputError, match=r"'text' is no string in 2 of 5 rows, first in row 1 \(qid '1', docno 'b'\)"
    ) as told:
        CrossrankReranker(scorer)(frame)
    assert "pt.text.get_text" in str(told.value)
    assert "frame.fillna({'text': ''})" in str(told.value)
    assert not scorer.calls


def test_rows_that_cannot_be_grouped_asked_or_mixed_are_errors():
    for name in ("qid", "docno"):
        with pytest.raises(InputError, match=f"'{name}' is missing .* in 1 of 5 rows, first in row 2"):
            CrossrankReranker(NumberScorer())(results().assign(**{name: ["1", "1", None, "2", "2"]}))
    for query in (None, float("nan"), " ", 7):
        frame = results().assign(query=["a", "a", query, "b", "b"])
        with pytest.raises(InputError, match="the query of qid '2' is"):
            CrossrankReranker(NumberScorer())(frame)
        with pytest.raises(InputError, match="the query of qid '2' is"):
            CrossrankRetriever(pipeline("paris"))(frame[["qid", "query"]])
    for score in (float("nan"), None, float("-inf")):
        with pytest.raises(InputError, match=r"the score of row 1 .* is (nan|-inf), which no mix can hold"):
            CrossrankReranker(NumberScorer(), mix=0.4)(results([ROWS[0], [*ROWS[1][:4], score, 1]]))


def test_a_score_that_is_no_number_is_an_error():
    for number in ("nan", "inf"):
        with pytest.raises(ScoreError, match=rf"NumberScorer gives {number} for row 1 \(qid '1', docno 'd1'\)"):
            CrossrankReranker(NumberScorer())(numbered(1, number))
    with pytest.raises(InputError, match="scores of shape"):
        CrossrankReranker(Few())(numbered(1, 2))


def test_no_rows_give_no_rows_and_load_nothing():
    lazy = CrossrankReranker("./no-such-model", mix=0.4)
    made = lazy(results().iloc[:0])
    assert list(made.columns) == ["qid", "query", "docno", "text", "score", "rank"]
    assert (len(made), made["score"].dtype, made["rank"].dtype) == (0, np.float64, np.int64)
    retriever = CrossrankRetriever(pipeline("paris"))
    made = retriever(pd.DataFrame({"qid": [], "query": []}))
    assert list(made.columns) == ["qid", "query", "docno", "score", "rank", "text"]
    assert (len(made), made["score"].dtype, made["rank"].dtype) == (0, np.float64, np.int64)


def test_the_host_sees_which_columns_go_in_and_come_out():
    reranker, retriever = CrossrankReranker("small"), CrossrankRetriever(pipeline("paris"))
    assert pt.inspect.transformer_inputs(reranker) == [["qid", "docno", "query", "text"]]
    assert pt.inspect.transformer_inputs(CrossrankReranker("small", mix=0.4))[0][-1] == "score"
    assert pt.inspect.transformer_inputs(retriever) == [["qid", "query"]]
    found = pt.inspect.transformer_outputs(retriever, ["qid", "query"])
    assert found == ["qid", "query", "docno", "score", "rank", "text"]
    assert pt.inspect.transformer_outputs(reranker, [*found, "year"])[-3:] == ["year", "score", "rank"]
    assert set(pt.inspect.transformer_outputs(retriever >> reranker % 3, ["qid", "query"])) == set(found)


@pytest.mark.parametrize("made", [CrossrankReranker(NumberScorer()), CrossrankRetriever(pipeline("paris"))])
def test_the_hosts_own_contract_holds(made, monkeypatch):
    monkeypatch.setenv("PT_TEST_TRANSFORMER_REPORTS", "0")
    # Its schematics look up in the network where a class is documented.
    monkeypatch.setattr(pt.documentation, "objects_inv", dict)
    case = pt.testing.transformer_test_class(lambda: made)
    found = unittest.defaultTestLoader.loadTestsFromTestCase(case).run(unittest.TestResult())
    assert found.testsRun == 2
    assert not found.errors + found.failures


def test_a_list_of_rows_is_a_frame_too():
    rows = results()[["qid", "query", "docno", "text"]].to_dict("records")
    made = CrossrankReranker("small")(rows)
    assert [row["rank"] for row in made] == [1, 0, 0, 1, 2]


def test_whole_searches_find_documents_or_passages():
    found = CrossrankRetriever(pipeline("guide#1", "guide#2", "paris"))
    topics = pd.DataFrame(
        [["1", "bread?", "x"], ["2", "Paris?", "y"], ["3", "bread?", "z"]], columns=["qid", "query", "q"]
    )
    made = found(topics)
    assert made[["qid", "q", "docno", "rank"]].values.tolist() == [
        ["1", "x", "guide", 0], ["1", "x", "paris", 1], ["2", "y", "guide", 0],
        ["2", "y", "paris", 1], ["3", "z", "guide", 0], ["3", "z", "paris", 1],
    ]  # fmt: skip
    # As models read it, so that a reranker after it sees what one within it would.
    assert made["text"][1] == "Paris. It is the capital of France."
    assert found.pipeline.retrievers["listed"].asked == ["bread?", "Paris?"]
    whole = CrossrankRetriever(pipeline("guide#1", "guide#2", "paris"), docno="passage").search("bread?")
    assert whole["docno"].tolist() == ["guide#1", "guide#2", "paris"]
    assert whole["score"].is_monotonic_decreasing
    assert CrossrankRetriever(pipeline("guide#1", "guide#2", "paris"), k=1).search("b")["docno"].tolist() == ["guide"]
    nothing = CrossrankRetriever(pipeline())(topics)
    assert (len(nothing), list(nothing.columns)) == (0, ["qid", "query", "q", "docno", "score", "rank", "text"])


def test_an_index_is_searched_and_reranked(tmp_path):
    pytest.importorskip("lance", reason="needs the search extra")
    from crossrank import index

    embedder = crossrank.load_embedder()
    made = index.Index.create(tmp_path / "made", embedder, embedder.tokenizer, model="embed")
    documents = [index.Document(f"d{place}", text) for place, text in enumerate(dict.fromkeys(row[3] for row in ROWS))]
    made.add(documents, embedder, embedder.tokenizer)
    opened = crossrank.open_pipeline(tmp_path / "made", rerank=False)
    topics = results()[["qid", "query"]].drop_duplicates()
    system = CrossrankRetriever(opened) >> CrossrankReranker("small") % 1
    assert system(topics)["docno"].tolist() == ["d1", "d0"]


# The host advises another plan where systems share a first stage.
@pytest.mark.filterwarnings("ignore:There are shared pipeline components")
def test_experiments_need_no_java():
    topics = results()[["qid", "query"]].drop_duplicates()
    first = pt.Transformer.from_df(results())
    systems = [first, first >> CrossrankReranker("small"), first >> CrossrankReranker("small", mix=0.001)]
    for batch_size in (None, 1):
        table = pt.Experiment(systems, topics, QRELS, ["recip_rank"], batch_size=batch_size)
        assert table["recip_rank"].tolist() == [0.75, 1.0, 0.75]
    assert "CrossrankReranker('small', mix=0.001)" in table["name"][2]
    assert not pt.java.started()


def test_a_grid_search_turns_the_mix_and_the_model():
    topics = results()[["qid", "query"]].drop_duplicates()
    reranker = CrossrankReranker("late", mix=0.5)
    system = pt.Transformer.from_df(results()) >> reranker
    params = {reranker: {"mix": [0.001, 1.0], "model": ["tiny"]}}
    table = pt.GridScan(system, params, topics, QRELS, ["recip_rank"])
    assert table["recip_rank"].tolist() == [0.75, 1.0]
    pt.GridSearch(system, params, topics, QRELS, "recip_rank")
    assert repr(reranker) == "CrossrankReranker('tiny')"
    assert system(topics)["score"].tolist() == CrossrankReranker("tiny")(results())["score"].tolist()
    reranker.set_parameter("mix", 0)
    with pytest.raises(InputError, match="mix is a share"):
        system(topics)


def test_importing_it_starts_no_java_and_no_torch():
    code = (
        "import sys, crossrank.integrations.pyterrier, pyterrier\n"
        "print(pyterrier.java.started(), 'jnius' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["False", "False", "False"]


def test_copies_and_pickles_load_again_and_a_scorer_is_shared():
    made = CrossrankReranker("small", mix=0.4, load_options={"window": 200})
    want = made(results())["score"].tolist()
    again = pickle.loads(pickle.dumps(made))
    assert repr(again) == repr(made) == "CrossrankReranker('small', load_options={'window': 200}, mix=0.4)"
    assert again(results())["score"].tolist() == want
    scorer = NumberScorer()
    shared = copy.deepcopy(CrossrankReranker(scorer))
    shared(numbered(1))
    assert scorer.calls
    assert repr(shared) == "CrossrankReranker('NumberScorer')"
    with pytest.raises(InputError, match="cannot be written to a file or pickled"):
        pickle.dumps(shared)


def test_what_was_not_read_whole_is_in_the_log(caplog):
    rows = [[*ROWS[0][:3], "bread " * 3000, 1.0, 0], [*ROWS[1][:3], "bread " * 3000, 1.0, 1], ROWS[1]]
    with caplog.at_level(logging.WARNING, "crossrank"):
        CrossrankReranker("small", load_options={"max_windows": 1})(results(rows))
    (said,) = [record.getMessage() for record in caplog.records]
    assert "2 of 3 texts were not read whole, the first row 0 (qid '1', docno 'a'): " in said
    caplog.clear()
    with caplog.at_level(logging.WARNING, "crossrank"):
        CrossrankReranker("small")(results([[row[0], "какая столица?", *row[2:]] for row in ROWS]))
        CrossrankReranker("small")(results([[row[0], "bread " * 3000, *row[2:]] for row in ROWS[:2]]))
    script, query = [record.getMessage() for record in caplog.records]
    assert "for 1 of 1 queries, the first 'какая столица?': " in script
    assert "1 queries were not read whole, the first: " in query
    caplog.clear()
    with caplog.at_level(logging.WARNING, "crossrank"):
        CrossrankReranker("small")(results())
        CrossrankRetriever(pipeline("guide#1", "guide#2"))(results()[["qid", "query"]])
    assert not caplog.records


def test_what_a_pipeline_could_not_do_is_in_the_log(caplog):
    class Failing:
        def score(self, pairs):
            raise RuntimeError("boom")

    kept = pipeline("guide#1", stages=(crossrank.Stage(Failing()),), on_error="keep")
    with caplog.at_level(logging.WARNING, "crossrank"):
        made = CrossrankRetriever(kept)(results()[["qid", "query"]])
    (said,) = [record.getMessage() for record in caplog.records]
    assert "of 2 queries 2 have notes, the first 'capital of France?': " in said
    assert "boom" in said
    assert len(made) == 5


def test_progress_is_the_hosts_bar(capsys):
    CrossrankReranker("small", verbose=True)(results())
    assert "5/5" in capsys.readouterr().err
    CrossrankReranker("small")(results())
    CrossrankReranker(NumberScorer(), verbose=True)(numbered(1))
    assert not capsys.readouterr().err


def test_wrong_options_are_told_when_they_are_given():
    with pytest.raises(InputError, match="mix is a share"):
        CrossrankReranker(mix=0)
    with pytest.raises(InputError, match='scores are "logit" or "probability"'):
        CrossrankReranker(scores="raw")
    with pytest.raises(InputError, match="leave mix out"):
        CrossrankReranker(scores="probability", mix=0.4)
    with pytest.raises(InputError, match="must be a name, a folder or an object with score"):
        CrossrankReranker(7)
    with pytest.raises(InputError, match="pipeline must be what crossrank"):
        CrossrankRetriever("my.index")
    with pytest.raises(InputError, match="k must be at least 1"):
        CrossrankRetriever(pipeline("paris"), k=0)
    with pytest.raises(InputError, match='docno is "document" or "passage"'):
        CrossrankRetriever(pipeline("paris"), docno="chunk")
    retriever = CrossrankRetriever(pipeline("paris"), k=3, docno="passage")
    assert repr(retriever) == "CrossrankRetriever(listed, k=3, docno='passage')"
