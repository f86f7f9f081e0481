"""The LangChain classes against the host's own: its in-memory store, its runnables, its rerankers. No network."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import shutil
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("langchain_core", reason="needs the langchain extra")

with warnings.catch_warnings():
    # The host's own imports may warn of what it deprecates in itself or its libraries; ours must not.
    warnings.simplefilter("ignore")
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.documents import Document
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_core.runnables import RunnableLambda
    from langchain_core.vectorstores import InMemoryVectorStore
    from pydantic import BaseModel

import crossrank
from crossrank import index
from crossrank.errors import InputError
from crossrank.integrations.langchain import CrossrankCompressor, CrossrankCrossEncoder, CrossrankRetriever

QUERY = "how do bees make honey"


class NumberScorer:
    """The score of a text is the number after its #."""

    def __init__(self):
        self.threads = set()

    def score(self, pairs):
        self.threads.add(threading.get_ident())
        return np.array([float(text.rsplit("#", 1)[1]) for _, text in pairs], np.float32)


class FailingScorer:
    def score(self, pairs):
        raise RuntimeError("boom")


def test_a_mix_a_budget_and_a_kept_order_go_with_the_compressor():
    came = {"page #1": 0.9, "title #3": 0.1, "other #2": 0.2}
    documents = [Document(text, metadata={"relevance_score": score}) for text, score in came.items()]

    def texts(documents, model=None, **options):
        made = CrossrankCompressor(model=model or NumberScorer(), **options)
        return [one.page_content for one in made.compress_documents(documents, QUERY)]

    assert texts(documents) == ["title #3", "other #2", "page #1"]
    assert texts(documents, mix=0.4) == ["page #1", "title #3", "other #2"]
    # Without scores the order in which they came counts.
    assert texts([Document(text) for text in came], mix=0.01) == list(came)
    assert texts([Document(text, metadata={"relevance_score": "high"}) for text in came], mix=0.01) == list(came)
    assert texts(documents, FailingScorer(), on_error="keep") == ["page #1", "title #3", "other #2"]
    with pytest.raises(RuntimeError, match="boom"):
        texts(documents, FailingScorer())
    again = pickle.loads(pickle.dumps(CrossrankCompressor(mix=0.4, budget_ms=200, on_error="keep")))
    assert (again.mix, again.budget_ms, again.on_error) == (0.4, 200, "keep")
    with pytest.raises(InputError, match="mix is a share"):
        CrossrankCompressor(mix=0)


def store():
    """60 documents in the host's own store; the numbers are a shuffle, so that its order is not ours."""
    made = InMemoryVectorStore(DeterministicFakeEmbedding(size=16))
    numbers = np.random.default_rng(7).permutation(60)
    made.add_documents([Document(f"note {i} #{n}", id=str(i), metadata={"page": i}) for i, n in enumerate(numbers)])
    return made


def test_retrieve_50_rerank_to_5():
    documents = store().as_retriever(search_kwargs={"k": 50}).invoke(QUERY)
    assert len(documents) == 50
    before = copy.deepcopy(documents)
    best = CrossrankCompressor(top_n=5, model=NumberScorer()).compress_documents(documents, QUERY)
    numbers = sorted((float(document.page_content.rsplit("#", 1)[1]) for document in documents), reverse=True)
    assert [document.metadata["relevance_score"] for document in best] == numbers[:5]
    by_id = {document.id: document for document in documents}
    assert all(by_id[document.id].metadata["page"] == document.metadata["page"] for document in best)
    assert documents == before


def test_in_a_chain_of_the_host():
    rerank = CrossrankCompressor(top_n=2, model=NumberScorer())
    chain = store().as_retriever(search_kwargs={"k": 60}) | RunnableLambda(
        lambda documents: rerank.compress_documents(documents, QUERY)
    )
    assert [document.metadata["relevance_score"] for document in chain.invoke(QUERY)] == [59.0, 58.0]


def test_in_the_hosts_own_reranking_retriever():
    pytest.importorskip("langchain_classic", reason="langchain-classic is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from langchain_classic.retrievers import ContextualCompressionRetriever
        from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
    base = store().as_retriever(search_kwargs={"k": 50})
    scorer = NumberScorer()
    ours = ContextualCompressionRetriever(
        base_compressor=CrossrankCompressor(top_n=5, model=scorer), base_retriever=base
    )
    theirs = ContextualCompressionRetriever(
        base_compressor=CrossEncoderReranker(model=CrossrankCrossEncoder(scorer), top_n=5), base_retriever=base
    )
    best = [document.page_content for document in ours.invoke(QUERY)]
    assert len(best) == 5
    assert [document.page_content for document in theirs.invoke(QUERY)] == best


def test_async_scores_off_the_event_loop():
    scorer = NumberScorer()
    documents = [Document("#1"), Document("#2")]
    (best,) = asyncio.run(CrossrankCompressor(top_n=1, model=scorer).acompress_documents(documents, QUERY))
    assert best.page_content == "#2"
    assert threading.get_ident() not in scorer.threads


def test_ties_duplicates_empty_lists_and_long_texts():
    rerank = CrossrankCompressor(model=NumberScorer())
    assert rerank.compress_documents([], QUERY) == []
    texts = ["a #1", "b #1", "c #2", "a #1"]
    found = rerank.compress_documents([Document(text) for text in texts], QUERY)
    assert [document.page_content for document in found] == ["c #2", "a #1", "b #1", "a #1"]
    (long,) = CrossrankCompressor(load_options={"max_windows": 1}).compress_documents([Document("bees " * 900)], QUERY)
    assert long.metadata["rerank_read"].endswith("of 900 tokens")


def test_options_reach_the_model(cross_encoder_folder: Path):
    made = CrossrankCompressor(model=cross_encoder_folder, load_options={"window": 20, "overlap": 5})
    made.compress_documents([Document("bees")], QUERY)
    scorer = made._model.ready
    assert isinstance(scorer, crossrank.CrossEncoder)
    assert (scorer.windows.size, scorer.windows.overlap) == (20, 5)
    with pytest.raises(InputError, match="given by name"):
        CrossrankCompressor(model=NumberScorer(), load_options={"window": 20})
    with pytest.raises(InputError, match="score"):
        CrossrankCompressor(model=42)
    with pytest.raises(InputError, match=r"^top_n must be at least 1, not 0$"):
        CrossrankCompressor(top_n=0)


def test_probabilities_and_a_threshold_go_with_the_compressor():
    documents = [Document("Bread."), Document("Paris."), Document("Rome.")]
    made = CrossrankCompressor(top_n=None, scores="probability", threshold=0.0)
    found = made.compress_documents(documents, "capital of France?")
    chances = [document.metadata["relevance_score"] for document in found]
    assert (len(found), all(0 <= chance <= 1 for chance in chances)) == (3, True)
    read = CrossrankCompressor.model_validate_json(made.model_dump_json())
    assert (read.top_n, read.scores, read.threshold) == (None, "probability", 0.0)
    read.threshold = chances[0]
    assert [document.page_content for document in read.compress_documents(documents, "capital of France?")] == [
        "Paris."
    ]
    with pytest.raises(InputError, match="from 0 to 1"):
        CrossrankCompressor(threshold=50)
    with pytest.raises(InputError, match="no probabilities"):
        CrossrankCompressor(model=NumberScorer(), threshold=0.5).compress_documents([Document("#1")], QUERY)


def test_copies_of_a_used_compressor_score_alike(cross_encoder_folder: Path):
    options = {"max_length": 12}
    made = CrossrankCompressor(model=cross_encoder_folder, load_options=options)
    documents = [Document("the cat is a planet " * 9), Document("bread is of yeast")]
    want = made.compress_documents(documents, QUERY)
    read = CrossrankCompressor.model_validate_json(made.model_dump_json())
    for again in (copy.deepcopy(made), made.model_copy(deep=True), pickle.loads(pickle.dumps(made)), read):
        assert again.compress_documents(documents, QUERY) == want
    encoder = CrossrankCrossEncoder(cross_encoder_folder, options)
    scores = encoder.score([(QUERY, "bread")])
    for same in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert same.score([(QUERY, "bread")]) == scores


def test_a_scorer_is_shared_by_copies_and_never_written_as_a_name(cross_encoder_folder: Path):
    for scorer in (NumberScorer(), crossrank.load(cross_encoder_folder, max_length=12)):
        made = CrossrankCompressor(model=scorer)
        assert copy.deepcopy(made)._model.ready is scorer
        for write in (pickle.dumps, CrossrankCompressor.model_dump, CrossrankCompressor.model_dump_json):
            with pytest.raises(InputError, match="load_options"):
                write(made)


def scores(rerank):
    documents = [Document("the cat is a planet of bread #1"), Document("what is yeast? #2")]
    return [document.metadata["relevance_score"] for document in rerank.compress_documents(documents, QUERY)]


def test_a_scorer_is_not_written_as_a_name_within_another_model():
    class Settings(BaseModel):
        rerank: CrossrankCompressor

    for scorer in (NumberScorer(), crossrank.load("fast")):
        for write in (Settings.model_dump, Settings.model_dump_json):
            with pytest.raises(ValueError, match="load_options"):
                write(Settings(rerank=CrossrankCompressor(model=scorer)))
    made = Settings(rerank=CrossrankCompressor(top_n=3, load_options={"max_windows": 2}))
    assert made.model_dump()["rerank"] == made.rerank.model_dump()
    assert Settings.model_validate(made.model_dump()).rerank.load_options == {"max_windows": 2}


def test_a_model_and_options_that_are_set_later_are_taken(cross_encoder_folder):
    folder, short = str(cross_encoder_folder), {"max_length": 12}
    first = CrossrankCompressor(model=folder)
    before = scores(first)
    assigned = CrossrankCompressor(model="small")
    assigned.model = folder
    for same in (assigned, CrossrankCompressor(model="small").model_copy(update={"model": folder})):
        assert scores(same) == before
        assert same.model_dump()["model"] == folder
    want = scores(CrossrankCompressor(model=folder, load_options=short))
    assert want != before
    copied = first.model_copy(update={"load_options": short})
    assert (scores(copied), scores(first)) == (want, before)
    first.load_options["max_length"] = 12
    assert (scores(first), scores(pickle.loads(pickle.dumps(first)))) == (want, want)


def test_a_calibration_is_written_as_two_numbers():
    want = {"calibration": {"slope": 2.0, "intercept": -1.0}}
    rerank = CrossrankCompressor(load_options={"calibration": crossrank.Platt(2.0, -1.0)})
    assert rerank.model_dump()["load_options"] == want
    rerank.load_options = {"calibration": crossrank.Platt(2.0, -1.0)}
    assert CrossrankCompressor(**rerank.model_dump()).load_options == want


def test_a_scorer_that_is_set_later_is_taken():
    made = CrossrankCompressor(model="small")
    made.model = NumberScorer()
    assert scores(made) == [2.0, 1.0]
    with pytest.raises(InputError, match="load_options"):
        made.model_dump()
    made.load_options = {"window": 200}
    with pytest.raises(InputError, match="given by name"):
        scores(made)
    made.model, made.load_options = 42, {}
    with pytest.raises(InputError, match="score"):
        scores(made)
    made.model = "small"
    assert pickle.loads(pickle.dumps(made)).model == "small"


def test_a_folder_with_the_name_of_a_model_stays_a_folder(
    tmp_path: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(cross_encoder_folder, "small")
    made = CrossrankCompressor(model=Path("small"))
    read = CrossrankCompressor.model_validate(made.model_dump())
    assert read._model.ready.fingerprint == crossrank.load(cross_encoder_folder).fingerprint


@pytest.fixture
def pipeline(tmp_path: Path, bi_encoder_folder: Path, cross_encoder_folder: Path) -> crossrank.Pipeline:
    """A search over two files."""
    for name, text in (("bread.txt", "Bread is of yeast."), ("cat.txt", "\n\nThe cat is a planet.")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    embedder = crossrank.load_embedder(bi_encoder_folder)
    made = index.Index.create(tmp_path / "i", embedder, embedder.tokenizer, model=str(bi_encoder_folder), size=40)
    made.update([tmp_path / "bread.txt", tmp_path / "cat.txt"], embedder, embedder.tokenizer)
    return crossrank.open_pipeline(tmp_path / "i", cross_encoder_folder, backend="fake")


def test_a_retriever_over_an_index(pipeline: crossrank.Pipeline, tmp_path: Path):
    retriever = CrossrankRetriever(pipeline, k=2)
    found = retriever.invoke("the cat")
    answer = pipeline.search("the cat", 2)
    assert [document.id for document in found] == list(answer.ranking.ids)
    assert [document.metadata["relevance_score"] for document in found] == answer.ranking.scores.tolist()
    (cat,) = (document for document in found if document.id == "cat.txt")
    assert (cat.metadata["file"], cat.metadata["line"]) == (str(tmp_path / "cat.txt"), 3)
    assert asyncio.run(retriever.ainvoke("the cat")) == found


def test_a_retriever_takes_k_and_refuses_what_it_does_not_know(pipeline: crossrank.Pipeline):
    # `invoke(query, k=2)` gave the one document of the constructor's k.
    retriever = CrossrankRetriever(pipeline, k=1)
    assert len(retriever.invoke("the cat")) == 1
    assert len(retriever.invoke("the cat", k=2)) == len(asyncio.run(retriever.ainvoke("the cat", k=2))) == 2
    for wrong in ({"k": 0}, {"top_k": 2}):
        with pytest.raises((InputError, TypeError), match="k"):
            retriever.invoke("the cat", **wrong)


def test_a_calibrated_model_tells_probabilities_beside_the_mixed_score(pipeline: crossrank.Pipeline):
    # The score of a pipeline is a mix; whoever took it for a logit had no way to a probability.
    assert all("probability" not in document.metadata for document in CrossrankRetriever(pipeline).invoke("the cat"))
    small = replace(pipeline, stages=(crossrank.Stage(crossrank.load("small"), 100, name="small"),))
    found = CrossrankRetriever(small).invoke("the cat")
    want = small.relevance(small.search("the cat")).probabilities
    assert None not in want
    assert [document.metadata["probability"] for document in found] == list(want)


def test_one_passage_is_one_document_for_two_queries_without_its_scores(pipeline: crossrank.Pipeline):
    # `MultiQueryRetriever` compares whole documents, and gave each passage once for each query.
    small = replace(pipeline, stages=(crossrank.Stage(crossrank.load("small"), 100, name="small"),))
    with_scores, without = CrossrankRetriever(small), CrossrankRetriever(small, keep_scores=False)

    def found(retriever: CrossrankRetriever) -> list[list[Document]]:
        return [sorted(retriever.invoke(query), key=lambda one: str(one.id)) for query in ("the cat", "a planet")]

    assert found(with_scores)[0] != found(with_scores)[1]
    one, other = found(without)
    assert one == other
    assert not {"relevance_score", "probability"} & one[0].metadata.keys()


def test_fields_of_the_user_keep_their_names_and_values(
    tmp_path: Path, bi_encoder_folder: Path, cross_encoder_folder: Path
):
    embedder = crossrank.load_embedder(bi_encoder_folder)
    made = index.Index.create(tmp_path / "i", embedder, embedder.tokenizer, model=str(bi_encoder_folder))
    own = {"relevance_score": 3, "document": "mine", "year": 2020}
    made.add([index.Document("doc1", "The cat.", "Cats", own)], embedder, embedder.tokenizer)
    pipeline = crossrank.open_pipeline(tmp_path / "i", cross_encoder_folder, backend="fake")
    (found,) = CrossrankRetriever(pipeline).invoke("the cat")
    ours = {"crossrank_document": "doc1", "title": "Cats", "start": 0, "line": 1}
    score = found.metadata.pop("crossrank_relevance_score")
    assert found.metadata == {**own, **ours}
    assert [score] == pipeline.search("the cat").ranking.scores.tolist()


def test_a_retriever_takes_what_the_host_gives_every_retriever(pipeline: crossrank.Pipeline):
    class Seen(BaseCallbackHandler):
        def on_retriever_start(self, serialized, query, *, tags=None, metadata=None, name=None, **rest):
            seen.append((name, tags, metadata))

    seen: list = []
    retriever = CrossrankRetriever(pipeline, k=1, tags=["x"], metadata={"part": "faq"}, name="docs")
    retriever.invoke("the cat", {"callbacks": [Seen()]})
    ((name, tags, metadata),) = seen
    assert (name, tags, metadata["part"]) == ("docs", ["x"], "faq")
    with pytest.raises(TypeError, match="tag"):
        CrossrankRetriever(pipeline, tag=["x"])


def test_a_blank_document_has_the_lowest_score_and_the_result_is_json() -> None:
    found = CrossrankCompressor(top_n=None).compress_documents([Document(" "), Document("Bread.")], "tea?")
    first, last = [document.metadata["relevance_score"] for document in found]
    assert (found[-1].page_content, last) == (" ", first - 1)
    json.dumps([document.metadata for document in found], allow_nan=False)
