"""The Haystack ranker in the host's own pipelines, over its in-memory store. No network."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

# Before the host is imported: its pipelines report each run to its makers otherwise.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
pytest.importorskip("haystack", reason="needs the haystack extra (Python 3.11 or later)")

with warnings.catch_warnings():
    # The host's own imports may warn of what it deprecates in itself or its libraries; ours must not.
    warnings.simplefilter("ignore")
    from haystack import Document, Pipeline
    from haystack.components.joiners import DocumentJoiner
    from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

import crossrank
from crossrank.errors import InputError
from crossrank.integrations.haystack import CrossrankRanker, CrossrankRetriever, conditions

QUERY = "bees and honey"


class NumberScorer:
    """The score of a text is the number after its #."""

    def __init__(self):
        self.threads = set()
        self.texts = []

    def score(self, pairs):
        self.threads.add(threading.get_ident())
        self.texts += [text for _, text in pairs]
        return np.array([float(text.rsplit("#", 1)[1]) for _, text in pairs], np.float32)


class FailingScorer:
    def score(self, pairs):
        raise RuntimeError("boom")


def test_a_mix_a_budget_and_a_kept_order_go_with_the_ranker():
    documents = [Document(content=text, score=score) for text, score in (("page #1", 0.9), ("title #3", 0.1),
                                                                         ("other #2", 0.2))]  # fmt: skip
    alone, mixed = (CrossrankRanker(NumberScorer(), mix=mix).run(QUERY, documents) for mix in (1.0, 0.4))
    assert [one.content for one in alone["documents"]] == ["title #3", "other #2", "page #1"]
    assert [one.content for one in mixed["documents"]] == ["page #1", "title #3", "other #2"]
    kept = CrossrankRanker(FailingScorer(), on_error="keep").run(QUERY, documents)["documents"]
    assert [one.content for one in kept] == ["page #1", "title #3", "other #2"]
    assert [one.score for one in kept] == pytest.approx([0.9, 0.1, 0.2])
    assert "boom" in kept[0].meta["rerank_note"]
    with pytest.raises(RuntimeError, match="boom"):
        CrossrankRanker(FailingScorer()).run(QUERY, documents)
    # The host warms up first, which ended the pipeline where the model is gone.
    pipeline = Pipeline()
    pipeline.add_component("ranker", CrossrankRanker("./no-such-model", on_error="keep", mix=np.float64(0.4)))
    found = pipeline.run({"ranker": {"query": QUERY, "documents": documents}})["ranker"]["documents"]
    assert [one.content for one in found] == ["page #1", "title #3", "other #2"]
    assert "mix: 0.4" in pipeline.dumps()
    numbers = Pipeline()
    numbers.add_component("ranker", CrossrankRanker("small", top_k=np.int64(3), threshold=np.float32(0.5)))
    assert "threshold: 0.5" in numbers.dumps()
    assert CrossrankRanker("small", threshold="model").to_dict()["init_parameters"]["threshold"] == "model"
    own = [Document(content="a #1", meta={"probability": "high", "rerank_note": "failed before"})]
    (found,) = CrossrankRanker("small", mix=0.4).run(QUERY, own)["documents"]
    assert found.meta["probability"] == "high"
    assert 0 < found.meta["crossrank_probability"] < 1
    assert "rerank_note" not in found.meta
    ranker = CrossrankRanker("small", mix=0.4, budget_ms=200, on_error="keep")
    again = CrossrankRanker.from_dict(ranker.to_dict())
    assert (again.mix, again.budget_ms, again.on_error) == (0.4, 200, "keep")
    with pytest.raises(InputError, match="mix is a share"):
        CrossrankRanker(mix=0)


def searched(ranker):
    """The host's pipeline: its store of 60 documents, its BM25, our ranker."""
    store = InMemoryDocumentStore()
    numbers = np.random.default_rng(7).permutation(60)
    store.write_documents([Document(content=f"bees and honey note #{n}", meta={"n": int(n)}) for n in numbers])
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store, top_k=50))
    pipeline.add_component("ranker", ranker)
    pipeline.connect("retriever.documents", "ranker.documents")
    return pipeline, store


def test_retrieve_50_rerank_to_5():
    pipeline, store = searched(CrossrankRanker(NumberScorer(), top_k=5))
    before = copy.deepcopy(store.filter_documents())
    asked = {"retriever": {"query": QUERY}, "ranker": {"query": QUERY}}
    made = pipeline.run(asked, include_outputs_from={"retriever"})
    retrieved, best = made["retriever"]["documents"], made["ranker"]["documents"]
    assert len(retrieved) == 50
    numbers = sorted((document.meta["n"] for document in retrieved), reverse=True)
    assert [document.meta["n"] for document in best] == numbers[:5]
    assert [document.score for document in best] == [float(n) for n in numbers[:5]]
    assert store.filter_documents() == before
    asked["ranker"]["top_k"] = 2
    assert len(pipeline.run(asked)["ranker"]["documents"]) == 2


def test_meta_fields_out_of_tables_are_read():
    # NumPy's numbers and arrays were an error: "The truth value of an empty array is ambiguous".
    seen = []

    class Seeing(NumberScorer):
        def score(self, pairs):
            seen.extend(text for _, text in pairs)
            return super().score(pairs)

    meta = {
        "year": np.int64(2020),
        "share": np.float32(1.5),
        "good": np.True_,
        "tags": np.array(["a"]),
        "no": np.array([]),
    }
    empty = {"none": None, "text": "", "list": [], "map": {}, "zero": 0}
    made = CrossrankRanker(Seeing(), meta_fields_to_embed=[*meta, *empty])
    made.run(QUERY, [Document(content="#1", meta={**meta, **empty})])
    assert seen == ["2020\n1.5\nTrue\n['a']\n0\n#1"]
    assert conditions({"field": "meta.good", "operator": "==", "value": np.True_}) == ['"good"==true']


def test_a_pipeline_is_written_and_read_again():
    made = CrossrankRanker("small", top_k=3, meta_fields_to_embed=["title"], load_options={"window": 200})
    pipeline, _ = searched(made)
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["crossrank.integrations.*"]).get_component("ranker")
    assert isinstance(again, CrossrankRanker)
    assert again.to_dict() == made.to_dict()
    assert (again.model.name, again.top_k, again.meta_fields_to_embed) == ("small", 3, ["title"])
    again.warm_up()
    found = again.run(query="capital of France?", documents=[Document(content="Bread."), Document(content="Paris.")])
    assert found["documents"][0].content == "Paris."


def test_probabilities_and_a_threshold_are_written_with_the_ranker():
    documents = [Document(content=text) for text in ("Bread.", "Paris.", "Rome.")]
    made = CrossrankRanker.from_dict(CrossrankRanker(top_k=None, scores="probability", threshold=0.0).to_dict())
    assert (made.top_k, made.scores, made.threshold) == (None, "probability", 0.0)
    chances = [document.score for document in made.run("capital of France?", documents)["documents"]]
    assert (len(chances), all(0 <= chance <= 1 for chance in chances)) == (3, True)
    made.threshold = chances[0]
    (found,) = made.run("capital of France?", documents)["documents"]
    assert (found.content, found.score) == ("Paris.", chances[0])
    with pytest.raises(InputError, match="no probabilities"):
        CrossrankRanker(NumberScorer(), threshold=0.5).run(QUERY, [Document(content="#1")])


def test_copies_and_files_of_a_used_ranker_score_alike(cross_encoder_folder):
    made = CrossrankRanker(cross_encoder_folder, load_options={"max_length": 12})
    documents = [Document(content="the cat is a planet " * 9), Document(content="bread is of yeast")]
    want = [document.score for document in made.run(QUERY, documents)["documents"]]
    again = [copy.deepcopy(made), pickle.loads(pickle.dumps(made)), CrossrankRanker.from_dict(made.to_dict())]
    assert [[document.score for document in one.run(QUERY, documents)["documents"]] for one in again] == [want] * 3
    assert again[0].model.ready is made.model.ready
    assert again[2].model.ready is not made.model.ready
    with pytest.raises(AttributeError, match="load_options"):
        made.load_options = {}  # It would change nothing.


def test_a_scorer_is_shared_by_copies_and_never_written_as_a_name(cross_encoder_folder):
    for scorer in (NumberScorer(), crossrank.load(cross_encoder_folder, max_length=12)):
        ranker = CrossrankRanker(scorer)
        assert copy.deepcopy(ranker).model.ready is scorer
        for write in (CrossrankRanker.to_dict, pickle.dumps, lambda one: searched(one)[0].dumps()):
            with pytest.raises(InputError, match="load_options"):
                write(ranker)


def test_async_scores_off_the_event_loop():
    scorer = NumberScorer()
    documents = [Document(content="#1"), Document(content="#2")]
    found = asyncio.run(CrossrankRanker(scorer).run_async(QUERY, documents))
    assert [document.content for document in found["documents"]] == ["#2", "#1"]
    assert threading.get_ident() not in scorer.threads


def test_which_text_is_read_and_what_is_not():
    scorer = NumberScorer()
    empty = {"none": None, "blank": "", "list": []}
    document = Document(content="text #1", meta={"title": "Honey", "year": 0, "draft": False, **empty})
    fields = ["title", "year", *empty, "absent", "draft"]
    CrossrankRanker(scorer, meta_fields_to_embed=fields).run(QUERY, [document])
    assert scorer.texts == ["Honey\n0\nFalse\ntext #1"]
    ranker = CrossrankRanker(load_options={"max_windows": 1})
    long, blank = ranker.run(QUERY, [Document(content=None), Document(content="bees " * 900)])["documents"]
    assert long.meta["rerank_read"].endswith("of 900 tokens")
    assert (blank.content, blank.score) == (None, long.score - 1)
    assert ranker.run(QUERY, [])["documents"] == []


def test_a_joiner_leaves_a_blank_document_last():
    # It takes a score of None for 0, which is above negative logits.
    documents = [Document(content=" "), Document(content="Bread."), Document(content="Yeast.")]
    found = CrossrankRanker().run("capital of France?", documents)["documents"]
    assert found[0].score < 0
    for mode in ("merge", "concatenate"):
        joined = DocumentJoiner(join_mode=mode).run([found, []])["documents"]
        assert joined[-1].content == " "


def test_what_means_nothing_is_refused():
    with pytest.raises(InputError, match=r"^top_k must be at least 1, not 0$"):
        CrossrankRanker(top_k=0)
    with pytest.raises(InputError, match=r"^top_k must be at least 1, not 0$"):
        CrossrankRanker(NumberScorer()).run(QUERY, [Document(content="#1")], top_k=0)
    with pytest.raises(InputError, match="score"):
        CrossrankRanker(42)
    with pytest.raises(InputError, match=r"meta_fields_to_embed=\['year'\]"):
        CrossrankRanker(meta_fields_to_embed="year")


# --- over an index of crossrank ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, bi_encoder_folder):
    """An index of three documents of two years."""
    index = pytest.importorskip("crossrank.index", reason="needs the search extra")
    embedder = crossrank.load_embedder(bi_encoder_folder)
    made = index.Index.create(tmp_path / "i", embedder, embedder.tokenizer, model=str(bi_encoder_folder))
    made.add(
        [index.Document(f"d{n}", f"the cat {n}", "Cats", {"year": 2020 + n // 2, "said": 'a "b"'}) for n in range(3)],
        embedder,
        embedder.tokenizer,
    )
    return tmp_path / "i"


def test_a_retriever_over_an_index_in_a_pipeline_that_is_written(folder, cross_encoder_folder):
    made = CrossrankRetriever(folder, top_k=2, open_options={"model": str(cross_encoder_folder), "backend": "fake"})
    pipeline = Pipeline()
    pipeline.add_component("retriever", made)
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["crossrank.integrations.*"])
    assert again.get_component("retriever").to_dict() == made.to_dict()
    found = again.run({"retriever": {"query": "the cat"}})["retriever"]["documents"]
    answer = made.pipeline.search("the cat", 2)
    assert [document.id for document in found] == list(answer.ranking.ids)
    assert [document.score for document in found] == answer.ranking.scores.tolist()
    assert [document.content for document in found] == [passage.text for passage in answer.passages]
    assert found[0].meta["title"] == "Cats"
    assert found == asyncio.run(made.run_async("the cat"))["documents"]
    assert len(made.run("the cat", top_k=3)["documents"]) == 3


def test_options_are_written_as_what_a_file_can_hold(folder, cross_encoder_folder):
    options = {
        "model": Path(cross_encoder_folder),
        "backend": "fake",
        "cache": Path("scores"),
        "coarse": [Path("fast")],
    }
    made = CrossrankRetriever(folder, open_options=options)
    pipeline = Pipeline()
    pipeline.add_component("retriever", made)
    pipeline.add_component("ranker", CrossrankRanker(load_options={"calibration": Path("mine")}))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["crossrank.integrations.*"])
    assert again.get_component("retriever").open_options == {
        "model": str(cross_encoder_folder), "backend": "fake", "cache": os.path.join(".", "scores"),
        "coarse": [os.path.join(".", "fast")],
    }  # fmt: skip
    assert made.open_options == options
    with pytest.raises(InputError, match=r"open_options\['embedder'\] holds an object \(Tiny\)"):
        CrossrankRetriever(folder, open_options={"embedder": type("Tiny", (), {})()}).to_dict()


def test_a_pipeline_that_is_open_is_taken_and_not_written(folder, cross_encoder_folder):
    opened = crossrank.open_pipeline(folder, cross_encoder_folder, backend="fake")
    made = CrossrankRetriever(opened)
    assert made.pipeline is opened
    assert all("probability" not in document.meta for document in made.run("the cat")["documents"])
    small = replace(opened, stages=(crossrank.Stage(crossrank.load("small"), 100, name="small"),))
    chances = [document.meta["probability"] for document in CrossrankRetriever(small).run("the cat")["documents"]]
    assert chances == list(small.relevance(small.search("the cat")).probabilities)
    with pytest.raises(InputError, match="give the folder"):
        made.to_dict()
    with pytest.raises(InputError, match="open already"):
        CrossrankRetriever(opened, open_options={"model": "fast"})
    with pytest.raises(InputError, match=r"^top_k must be at least 1, not 0$"):
        CrossrankRetriever(opened, top_k=0)


def test_copies_of_a_used_retriever_read_the_same_index(folder, cross_encoder_folder):
    made = CrossrankRetriever(folder, top_k=2, open_options={"model": str(cross_encoder_folder), "backend": "fake"})
    found = made.run("the cat")
    again = copy.deepcopy(made)
    assert again is not made
    assert again.pipeline is made.pipeline
    assert again.to_dict() == made.to_dict()
    again.top_k = 1
    assert again.run("the cat")["documents"] == found["documents"][:1]
    given = CrossrankRetriever(made.pipeline)
    assert copy.deepcopy(given).pipeline is made.pipeline
    for wrong in (None, 3, b"folder"):
        with pytest.raises(InputError, match="pipeline must be the folder of an index"):
            CrossrankRetriever(wrong)


def test_filters_of_the_host_are_those_of_the_index(folder, cross_encoder_folder, caplog):
    caplog.set_level("WARNING", "crossrank")
    made = CrossrankRetriever(crossrank.open_pipeline(folder, cross_encoder_folder, backend="fake"))

    def years(*parts):
        comparisons = [{"field": field, "operator": operator, "value": value} for field, operator, value in parts]
        filters = {"operator": "AND", "conditions": comparisons}
        return sorted(document.meta["year"] for document in made.run("the cat", filters=filters)["documents"])

    assert years() == [2020, 2020, 2021]
    assert years(("meta.year", ">=", 2021)) == [2021]
    assert years(("meta.year", "<", 2021), ("said", "==", 'a "b"')) == [2020, 2020]
    assert years(("meta.year", "in", [2021, "x, y"])) == [2021]
    assert years(("meta.said", "in", ['a "b"', "a)"])) == [2020, 2020, 2021]
    assert years(("meta.year", "not in", [2020, 2021])) == years(("meta.said", "!=", 'a "b"')) == []
    assert caplog.messages == []
    assert years(("meta.yaer", "==", 2020)) == []
    (told,) = caplog.messages
    assert "no passage has a value in the field 'yaer'" in told, "an empty list said nothing of a mistyped field"
    assert conditions({"field": "meta.on", "operator": "==", "value": True}) == ['"on"==true']
    # NumPy 2 writes its numbers with their types, which no passage has as its year.
    assert years(("meta.year", ">=", np.float64(2020.5))) == years(("meta.year", "==", np.int64(2021))) == [2021]
    assert years(("meta.year", ">", np.float32(2020.5))) == [2021]


@pytest.mark.parametrize(
    "filters",
    [
        {"operator": "OR", "conditions": []},
        {"operator": "NOT", "conditions": []},
        {"conditions": []},
        {"field": "meta.year", "operator": "in", "value": []},
        {"field": "meta.year", "operator": "=="},
        {"field": "meta.year", "operator": "==", "value": None},
        {"field": "meta.year", "operator": ">", "value": float("nan")},
        {"field": "meta.year", "operator": "==", "value": [2020]},
        "year>2020",
    ],
)
def test_filters_that_an_index_does_not_have_are_refused(filters):
    # Passed over, they would let through what they were to leave out.
    with pytest.raises(InputError, match="crossrank"):
        conditions({"operator": "AND", "conditions": [filters]})
