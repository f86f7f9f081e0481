"""The LlamaIndex postprocessor against the host's own vector index. No network: its embedding is a hash of words."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import pickle
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("llama_index.core", reason="needs the llama-index extra")

with warnings.catch_warnings():
    # The host's own imports may warn of what it deprecates in itself or its libraries; ours must not.
    warnings.simplefilter("ignore")
    from llama_index.core import MockEmbedding, VectorStoreIndex
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import BaseModel
    from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
    from llama_index.core.callbacks.base_handler import BaseCallbackHandler
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.llms import MockLLM
    from llama_index.core.postprocessor import SimilarityPostprocessor
    from llama_index.core.query_engine import RetrieverQueryEngine
    from llama_index.core.retrievers import QueryFusionRetriever
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

import crossrank
from crossrank.errors import InputError, ScoreError
from crossrank.integrations import best as ordering
from crossrank.integrations import lists
from crossrank.integrations.llama_index import CrossrankRerank, CrossrankRetriever
from crossrank.types import Truncation

# The host warns of what it deprecates in itself, at run time too; a warning of our own file stays an error.
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning:llama_index.*")

QUERY = "how do bees make honey"


class WordEmbedding(BaseEmbedding):
    """Each word adds a fixed random direction: deterministic, and texts that share words are close."""

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        total = np.zeros(32)
        for word in text.lower().split():
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
            total += np.random.default_rng(seed).normal(size=32)
        return (total / (np.linalg.norm(total) or 1.0)).tolist()


class NumberScorer:
    """The score is the number after `#` in the text: the order to expect is written in the texts themselves."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []
        self.threads: list[int] = []

    def score(self, pairs):
        self.pairs.extend(pairs)
        self.threads.append(threading.get_ident())
        return np.array([float(text.rsplit("#", 1)[1]) if "#" in text else 0.0 for _, text in pairs], np.float32)


def test_a_mix_is_of_the_scores_that_nodes_came_with() -> None:
    nodes = [NodeWithScore(node=TextNode(text=f"{name} #{n}"), score=score)
             for name, n, score in (("page", 1, 0.9), ("title", 3, 0.1), ("other", 2, 0.2))]  # fmt: skip
    assert [one.text for one in rerank(nodes)] == ["title #3", "other #2", "page #1"]
    found = rerank(nodes, mix=0.4)
    assert [one.text for one in found] == ["page #1", "title #3", "other #2"]
    assert [one.metadata["retrieval_score"] for one in found] == [0.9, 0.1, 0.2]
    made = CrossrankRerank(mix=0.4, budget_ms=200, on_error="keep")
    again = CrossrankRerank(**{name: made.to_dict()[name] for name in ("mix", "budget_ms", "on_error")})
    assert (again.mix, again.budget_ms, again.on_error) == (0.4, 200, "keep")


def rerank(nodes: list, **options):
    return CrossrankRerank(top_n=None, model=NumberScorer(), **options).postprocess_nodes(nodes, query_str="which?")


def test_nodes_stay_as_they_came_where_the_model_fails() -> None:
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in ("b", "a")]
    with pytest.raises(ScoreError):
        CrossrankRerank(model=FailingScorer()).postprocess_nodes(nodes, query_str="which?")
    keeping = CrossrankRerank(model=FailingScorer(), on_error="keep")
    found = keeping.postprocess_nodes(nodes, query_str="which?")
    assert [(one.text, one.score) for one in found] == [("b", 0.5), ("a", 0.5)]
    assert "gave NaN" in found[0].metadata["rerank_note"]
    gone = CrossrankRerank(model="./no-such-folder", on_error="keep")
    assert [one.text for one in gone.postprocess_nodes(nodes, query_str="which?")] == ["b", "a"]


class FailingScorer:
    def score(self, pairs):
        raise ScoreError("the model gave NaN")


class Recorder(BaseEventHandler):
    """Keeps the rerank events it sees."""

    seen: list

    @classmethod
    def class_name(cls) -> str:
        return "Recorder"

    def handle(self, event, **kwargs):
        if isinstance(event, (ReRankStartEvent, ReRankEndEvent)):
            self.seen.append(event)


class LegacyRecorder(BaseCallbackHandler):
    """Keeps the legacy callbacks of reranking."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.seen: list = []

    def on_event_start(self, event_type, payload=None, event_id="", parent_id="", **kwargs):
        if event_type == CBEventType.RERANKING:
            self.seen.append(("start", payload))
        return event_id

    def on_event_end(self, event_type, payload=None, event_id="", **kwargs):
        if event_type == CBEventType.RERANKING:
            self.seen.append(("end", payload))

    def start_trace(self, trace_id=None):
        pass

    def end_trace(self, trace_id=None, trace_map=None):
        pass


@pytest.fixture
def events():
    handler = Recorder(seen=[])
    dispatcher = get_dispatcher()
    dispatcher.event_handlers.append(handler)
    yield handler.seen
    dispatcher.event_handlers.remove(handler)


def found(*texts, score=0.5):
    return [NodeWithScore(node=TextNode(text=text), score=score) for text in texts]


def fifty():
    """60 texts, of which 50 are retrieved; the numbers are a shuffle, so that the retriever's order is not ours."""
    numbers = np.random.default_rng(7).permutation(60)
    return [TextNode(text=f"bees and honey note {i} #{n}", metadata={"page": i}) for i, n in enumerate(numbers)]


# --- with the host's own index -----------------------------------------------------------------------------------


def test_retrieve_50_rerank_to_5():
    index = VectorStoreIndex(fifty(), embed_model=WordEmbedding())
    retrieved = index.as_retriever(similarity_top_k=50).retrieve(QUERY)
    assert len(retrieved) == 50
    before = copy.deepcopy(retrieved)

    best = CrossrankRerank(top_n=5, model=NumberScorer()).postprocess_nodes(retrieved, query_str=QUERY)

    numbers = sorted((float(node.text.rsplit("#", 1)[1]) for node in retrieved), reverse=True)
    assert [node.score for node in best] == numbers[:5]
    by_id = {node.node_id: node for node in retrieved}
    for node in best:
        assert node.metadata["retrieval_score"] == by_id[node.node_id].score
        assert node.metadata["page"] == by_id[node.node_id].metadata["page"]
    assert retrieved == before  # neither scores nor metadata of the caller's nodes have changed


def test_the_store_of_the_index_is_not_changed_by_a_query():
    index = VectorStoreIndex(fifty(), embed_model=WordEmbedding())
    stored = {key: value.model_dump() for key, value in index.docstore.docs.items()}
    retriever = index.as_retriever(similarity_top_k=50)
    rerank = CrossrankRerank(top_n=50, model=NumberScorer())
    first = rerank.postprocess_nodes(retriever.retrieve(QUERY), query_str=QUERY)
    second = rerank.postprocess_nodes(retriever.retrieve(QUERY), query_str=QUERY)
    assert [(n.node_id, n.score, n.metadata) for n in first] == [(n.node_id, n.score, n.metadata) for n in second]
    assert {key: value.model_dump() for key, value in index.docstore.docs.items()} == stored


def test_in_a_query_engine_the_answer_cites_what_was_kept():
    index = VectorStoreIndex(fifty(), embed_model=WordEmbedding())
    engine = RetrieverQueryEngine.from_args(
        index.as_retriever(similarity_top_k=50),
        node_postprocessors=[CrossrankRerank(top_n=3, model=NumberScorer())],
        llm=MockLLM(),
    )
    answer = engine.query(QUERY)
    assert len(answer.source_nodes) == 3
    assert "retrieval_score" not in answer.response  # the mock LLM repeats its prompt: bookkeeping never reaches it


def test_the_model_in_the_wheel_reads_for_itself():
    texts = ["Bees turn nectar into honey in the hive.", "The train to Basel leaves at noon.", "Bread needs yeast."]
    nodes = [TextNode(text=text) for text in texts]
    index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
    retrieved = index.as_retriever(similarity_top_k=3).retrieve(QUERY)
    best = CrossrankRerank(top_n=1).postprocess_nodes(retrieved, query_str=QUERY)
    assert [node.text for node in best] == texts[:1]


# --- copies ------------------------------------------------------------------------------------------------------


def test_copies_share_nothing_that_can_change():
    nodes = found("#1", "#2")
    best = CrossrankRerank(model=NumberScorer()).postprocess_nodes(nodes, query_str=QUERY)
    best[0].metadata["mine"] = 1
    best[0].node.excluded_llm_metadata_keys.append("mine")
    assert nodes[1].metadata == {}
    assert nodes[1].node.excluded_llm_metadata_keys == []


@pytest.mark.parametrize("mode", list(MetadataMode))
def test_bookkeeping_is_in_no_text_but_the_whole_one(mode):
    (best,) = CrossrankRerank(model=NumberScorer()).postprocess_nodes(found("#1"), query_str=QUERY)
    assert ("retrieval_score" in best.node.get_content(mode)) is (mode is MetadataMode.ALL)


def test_retrieval_score_can_be_left_out():
    rerank = CrossrankRerank(model=NumberScorer(), keep_retrieval_score=False)
    assert [node.metadata for node in rerank.postprocess_nodes(found("#1", "#2"), query_str=QUERY)] == [{}, {}]


def test_a_second_reranker_reads_the_same_text_and_keeps_the_score_it_got():
    second = NumberScorer()
    nodes = CrossrankRerank(model=NumberScorer()).postprocess_nodes(found("#1", "#2"), query_str=QUERY)
    (best, _) = CrossrankRerank(model=second).postprocess_nodes(nodes, query_str=QUERY)
    assert second.pairs == [(QUERY, "#2"), (QUERY, "#1")]
    assert best.metadata["retrieval_score"] == 2.0
    assert best.node.excluded_embed_metadata_keys == ["retrieval_score"]


def test_a_node_without_a_retrieval_score():
    (best,) = CrossrankRerank(model=NumberScorer()).postprocess_nodes(found("#1", score=None), query_str=QUERY)
    assert best.metadata["retrieval_score"] is None


# --- order and text ----------------------------------------------------------------------------------------------


def test_equal_scores_keep_their_order_and_the_same_node_twice_stays_twice():
    nodes = found("a #1", "b #1", "c #2")
    best = CrossrankRerank(model=NumberScorer()).postprocess_nodes([*nodes, nodes[0]], query_str=QUERY)
    assert [node.text for node in best] == ["c #2", "a #1", "b #1", "a #1"]


def test_negative_scores_are_ordered_and_kept():
    best = CrossrankRerank(model=NumberScorer()).postprocess_nodes(found("#-3", "#-1", "#0"), query_str=QUERY)
    assert [node.score for node in best] == [0.0, -1.0, -3.0]


def test_top_n_beyond_the_list_gives_the_list():
    assert len(CrossrankRerank(top_n=9, model=NumberScorer()).postprocess_nodes(found("#1"), query_str=QUERY)) == 1


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (MetadataMode.EMBED, "title: Honey\n\ntext #1"),
        (MetadataMode.NONE, "text #1"),
        ("all", "title: Honey\nsecret: 3\n\ntext #1"),
    ],
)
def test_which_text_is_read(mode, text):
    scorer = NumberScorer()
    node = TextNode(text="text #1", metadata={"title": "Honey", "secret": 3}, excluded_embed_metadata_keys=["secret"])
    rerank = CrossrankRerank(model=scorer, metadata_mode=mode)
    rerank.postprocess_nodes([NodeWithScore(node=node, score=1.0)], query_str=QUERY)
    assert scorer.pairs == [(QUERY, text)]


def test_what_was_not_read_is_told(monkeypatch):
    def cut(*args, **how):
        final, (trace,) = original(*args, **how)
        report = (Truncation(1, 31000, 25000, 64), Truncation(0, 900, 900, 3), Truncation(-1, 600, 256, 1))
        return final, (type(trace)(trace.name, trace.ranking, trace.seconds, trace.scores, report),)

    original = ordering.rerank
    monkeypatch.setattr(ordering, "rerank", cut)
    rerank = CrossrankRerank(model=NumberScorer(), keep_retrieval_score=False)
    best = rerank.postprocess_nodes(found("#2", "#1"), query_str=QUERY)
    assert [node.metadata for node in best] == [
        {"rerank_query_read": "256 of 600 tokens"},
        {"rerank_read": "25,000 of 31,000 tokens", "rerank_query_read": "256 of 600 tokens"},
    ]
    assert best[1].node.get_content(MetadataMode.LLM) == "#1"


# --- events ------------------------------------------------------------------------------------------------------


def test_events_and_legacy_callbacks(events):
    legacy = LegacyRecorder()
    nodes = found("#1", "#2", "#3")
    rerank = CrossrankRerank(top_n=2, model=NumberScorer(), callback_manager=CallbackManager([legacy]))
    best = rerank.postprocess_nodes(nodes, query_str=QUERY)

    start, end = events
    assert (start.query, start.top_n, start.model_name) == (QUERY, 2, "NumberScorer")
    assert [node.text for node in start.nodes] == ["#1", "#2", "#3"]
    assert end.nodes == best
    assert [name for name, _ in legacy.seen] == ["start", "end"]
    payload = legacy.seen[0][1]
    assert (payload[EventPayload.QUERY_STR], payload[EventPayload.TOP_K]) == (QUERY, 2)
    assert payload[EventPayload.MODEL_NAME] == "NumberScorer"
    assert legacy.seen[1][1][EventPayload.NODES] == best


def test_nothing_is_emitted_when_there_is_nothing_to_do(events):
    legacy = LegacyRecorder()
    rerank = CrossrankRerank(model=FailingScorer(), callback_manager=CallbackManager([legacy]))
    assert rerank.postprocess_nodes([], query_str=QUERY) == []
    with pytest.raises(ValueError, match="query_str"):
        rerank.postprocess_nodes(found("#1"))
    assert events == []
    assert legacy.seen == []


def test_a_start_has_its_end_when_scoring_fails(events):
    legacy = LegacyRecorder()
    rerank = CrossrankRerank(model=FailingScorer(), callback_manager=CallbackManager([legacy]))
    with pytest.raises(ScoreError, match="NaN"):
        rerank.postprocess_nodes(found("#1"), query_str=QUERY)
    assert [type(event) for event in events] == [ReRankStartEvent, ReRankEndEvent]
    assert events[1].nodes == []
    assert [name for name, _ in legacy.seen] == ["start", "end"]
    assert isinstance(legacy.seen[1][1][EventPayload.EXCEPTION], ScoreError)


# --- async, threads ----------------------------------------------------------------------------------------------


def test_async_scores_off_the_event_loop(events):
    scorer = NumberScorer()
    rerank = CrossrankRerank(top_n=1, model=scorer)
    (best,) = asyncio.run(rerank.apostprocess_nodes(found("#1", "#2"), query_bundle=QueryBundle(QUERY)))
    assert best.score == 2.0
    assert threading.get_ident() not in scorer.threads
    assert [type(event) for event in events] == [ReRankStartEvent, ReRankEndEvent]
    with pytest.raises(ValueError, match="query_str"):
        asyncio.run(rerank.apostprocess_nodes(found("#1")))


def test_a_named_model_is_loaded_once_and_only_when_needed(monkeypatch):
    loaded = []

    def load(name):
        loaded.append(name)
        return NumberScorer()

    monkeypatch.setattr(lists, "load_scorer", load)
    rerank = CrossrankRerank(model="some/model")
    assert rerank.postprocess_nodes([], query_str=QUERY) == []
    assert loaded == []
    answers = []
    work = [
        threading.Thread(target=lambda: answers.append(rerank.postprocess_nodes(found("#1", "#2"), query_str=QUERY)))
        for _ in range(16)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert loaded == ["some/model"]
    assert [[node.text for node in answer] for answer in answers] == [["#2", "#1"]] * 16


def test_a_model_that_cannot_be_loaded_emits_nothing(events, tmp_path):
    rerank = CrossrankRerank(model=tmp_path / "no-such-model")
    with pytest.raises(ValueError, match="no-such-model"):
        rerank.postprocess_nodes(found("#1"), query_str=QUERY)
    assert events == []


# --- as a component of the host ----------------------------------------------------------------------------------


def test_round_trips_through_the_hosts_serialization():
    made = CrossrankRerank(top_n=3, model="small", keep_retrieval_score=False, metadata_mode=MetadataMode.NONE)
    for again in (CrossrankRerank.from_dict(made.to_dict()), CrossrankRerank.from_json(made.to_json())):
        assert (again.top_n, again.model, again.keep_retrieval_score) == (3, "small", False)
        assert again.metadata_mode is MetadataMode.NONE
    assert CrossrankRerank.class_name() == "CrossrankRerank"


def test_a_similarity_cutoff_of_the_host_reads_probabilities():
    # A cutoff between 0 and 1 dropped the right node at a logit under 0.
    texts = ("Bread.", "Paris is its capital.")
    for scores, want in (("logit", []), ("probability", ["Paris is its capital."])):
        nodes = CrossrankRerank(scores=scores).postprocess_nodes(found(*texts), query_str="capital of France?")
        kept = SimilarityPostprocessor(similarity_cutoff=0.05).postprocess_nodes(nodes)
        assert [node.text for node in kept] == want


def test_a_threshold_leaves_nodes_out_and_is_written(events):
    made = CrossrankRerank(top_n=None, threshold=0.05)
    for one in (made, CrossrankRerank.from_json(made.to_json()), copy.deepcopy(made)):
        assert (one.top_n, one.scores, one.threshold) == (None, "logit", 0.05)
        nodes = one.postprocess_nodes(found("Bread.", "Paris is its capital."), query_str="capital of France?")
        assert [node.text for node in nodes] == ["Paris is its capital."]
        assert nodes[0].score < 0
    start = next(event for event in events if isinstance(event, ReRankStartEvent))
    assert start.top_n == 2
    with pytest.raises(InputError, match="from 0 to 1"):
        CrossrankRerank(threshold=-1.1)
    with pytest.raises(InputError, match="no probabilities"):
        CrossrankRerank(model=NumberScorer(), threshold=0.5).postprocess_nodes(found("#1"), query_str=QUERY)


def test_can_be_copied_and_pickled():
    made = CrossrankRerank(top_n=3, model=NumberScorer())
    for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(CrossrankRerank(top_n=3)))):
        assert again.top_n == 3
    assert copy.deepcopy(made).postprocess_nodes(found("#1"), query_str=QUERY)[0].score == 1.0


def test_copies_and_pickles_of_a_used_one_score_alike(cross_encoder_folder, caplog):
    made = CrossrankRerank(model=cross_encoder_folder, load_options={"max_length": 12})
    nodes = found("the cat is a planet " * 9, "bread is of yeast")
    want = [node.score for node in made.postprocess_nodes(nodes, query_str=QUERY)]
    read = CrossrankRerank.from_json(made.to_json())
    for again in (copy.deepcopy(made), made.model_copy(deep=True), pickle.loads(pickle.dumps(made)), read):
        assert [node.score for node in again.postprocess_nodes(nodes, query_str=QUERY)] == want
    assert caplog.messages == []


def test_a_scorer_is_shared_by_copies_and_never_written_as_a_name(cross_encoder_folder):
    for scorer in (NumberScorer(), crossrank.load(cross_encoder_folder, max_length=12)):
        made = CrossrankRerank(model=scorer)
        assert copy.deepcopy(made)._model.ready is scorer
        for write in (CrossrankRerank.to_dict, CrossrankRerank.to_json, CrossrankRerank.model_dump_json, pickle.dumps):
            with pytest.raises(InputError, match="load_options"):
                write(made)


def scores(rerank):
    nodes = found("the cat is a planet of bread #1", "what is yeast? #2")
    return [node.score for node in rerank.postprocess_nodes(nodes, query_str=QUERY)]


def test_a_scorer_is_not_written_as_a_name_within_another_model():
    class Settings(BaseModel):
        rerank: CrossrankRerank

    for scorer in (NumberScorer(), crossrank.load("fast")):
        for write in (Settings.model_dump, Settings.model_dump_json):
            with pytest.raises(ValueError, match="load_options"):
                write(Settings(rerank=CrossrankRerank(model=scorer)))
    made = Settings(rerank=CrossrankRerank(top_n=3, load_options={"max_windows": 2}))
    assert made.model_dump()["rerank"] == made.rerank.model_dump()
    assert made.model_dump()["rerank"]["class_name"] == "CrossrankRerank"


def test_a_model_and_options_that_are_set_later_are_taken(cross_encoder_folder):
    folder, short = str(cross_encoder_folder), {"max_length": 12}
    first = CrossrankRerank(model=folder)
    before = scores(first)
    assigned = CrossrankRerank(model="small")
    assigned.model = folder
    for same in (assigned, CrossrankRerank(model="small").model_copy(update={"model": folder})):
        assert scores(same) == before
        assert same.model_dump()["model"] == folder
    want = scores(CrossrankRerank(model=folder, load_options=short))
    assert want != before
    copied = first.model_copy(update={"load_options": short})
    assert (scores(copied), scores(first)) == (want, before)
    first.load_options["max_length"] = 12
    assert (scores(first), scores(pickle.loads(pickle.dumps(first)))) == (want, want)


def test_a_scorer_that_is_set_later_is_taken():
    made = CrossrankRerank(model="small")
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


@pytest.mark.parametrize("top_n", [0, -1, 2.5, True])
def test_a_top_n_that_means_nothing(top_n):
    with pytest.raises(InputError, match=r"^top_n must be"):
        CrossrankRerank(top_n=top_n)


def test_a_model_that_is_none():
    with pytest.raises(InputError, match="score"):
        CrossrankRerank(model=42)


def test_both_queries_are_refused_as_the_host_does():
    with pytest.raises(ValueError, match="Cannot specify both"):
        CrossrankRerank(model=NumberScorer()).postprocess_nodes(
            found("#1"), query_bundle=QueryBundle(QUERY), query_str=QUERY
        )


def test_options_reach_the_model_and_survive_serialization(cross_encoder_folder):
    made = CrossrankRerank(model=cross_encoder_folder, load_options={"window": 20, "overlap": 5})
    for one in (made, CrossrankRerank.from_json(made.to_json())):
        one.postprocess_nodes(found("bees"), query_str=QUERY)
        assert (one._model.ready.windows.size, one._model.ready.windows.overlap) == (20, 5)
    with pytest.raises(InputError, match="given by name"):
        CrossrankRerank(model=NumberScorer(), load_options={"window": 20})


def test_a_late_interaction_model_by_name_and_loaded():
    nodes = found("Bread needs yeast.", "Paris is the capital of France.")
    want = crossrank.load_late().score([(QUERY, node.text) for node in nodes]).tolist()
    named, loaded = CrossrankRerank(model="late"), CrossrankRerank(model=crossrank.load_late())
    for rerank in (named, loaded, CrossrankRerank(model="late", load_options={"threads": 1})):
        best = rerank.postprocess_nodes(nodes, query_str=QUERY)
        assert [node.score for node in best] == sorted(want, reverse=True)
        assert rerank.model == "late"
    with pytest.raises(InputError, match=r"late is a late-interaction model.*: leave overlap, window out"):
        CrossrankRerank(model="late", load_options={"window": 20, "overlap": 5}).postprocess_nodes(
            nodes, query_str=QUERY
        )


# --- over an index of crossrank ----------------------------------------------------------------------------------


@pytest.fixture
def pipeline(tmp_path, bi_encoder_folder, cross_encoder_folder):
    """A search over two files."""
    index = pytest.importorskip("crossrank.index", reason="needs the search extra")
    for name, text in (("bread.txt", "Bread is of yeast."), ("cat.txt", "\n\nThe cat is a planet.")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    embedder = crossrank.load_embedder(bi_encoder_folder)
    made = index.Index.create(tmp_path / "i", embedder, embedder.tokenizer, model=str(bi_encoder_folder), size=40)
    made.update([tmp_path / "bread.txt", tmp_path / "cat.txt"], embedder, embedder.tokenizer)
    return crossrank.open_pipeline(tmp_path / "i", cross_encoder_folder, backend="fake")


def test_a_retriever_over_an_index(pipeline, tmp_path):
    retriever = CrossrankRetriever(pipeline, k=2)
    nodes = retriever.retrieve("the cat")
    answer = pipeline.search("the cat", 2)
    assert [node.node_id for node in nodes] == list(answer.ranking.ids)
    assert [node.score for node in nodes] == answer.ranking.scores.tolist()
    assert [node.node.ref_doc_id for node in nodes] == [passage.document for passage in answer.passages]
    (cat,) = (node for node in nodes if node.node_id == "cat.txt")
    assert (cat.metadata["file"], cat.metadata["line"]) == (str(tmp_path / "cat.txt"), 3)
    assert str(tmp_path) not in cat.get_content(MetadataMode.LLM)
    assert [node.node_id for node in asyncio.run(retriever.aretrieve("the cat"))] == list(answer.ranking.ids)


OWN = {
    **{"file": "contract.pdf", "line": "A4", "start": "2020-01-01", "title": "meta title", "document": "mine"},
    **{"relevance_score": 3, "year": 2020, "crossrank_file": "theirs"},
}


def test_fields_of_the_user_keep_their_names_and_values(tmp_path, bi_encoder_folder, cross_encoder_folder):
    index = pytest.importorskip("crossrank.index", reason="needs the search extra")
    embedder = crossrank.load_embedder(bi_encoder_folder)
    made = index.Index.create(tmp_path / "i", embedder, embedder.tokenizer, model=str(bi_encoder_folder))
    documents = [index.Document("doc1", "The cat.", "Cats", OWN), index.Document("doc2", "\n\nBread.", "", {"year": 7})]
    made.add(documents, embedder, embedder.tokenizer)
    retriever = CrossrankRetriever(crossrank.open_pipeline(tmp_path / "i", cross_encoder_folder, backend="fake"), k=2)
    nodes = {node.metadata["year"]: node.node for node in retriever.retrieve("the cat")}
    ours = {"crossrank_title": "Cats", "crossrank_document": "doc1", "crossrank_start": 0, "crossrank_line": 1}
    assert nodes[2020].metadata == {**OWN, **ours}
    assert nodes[7].metadata == {"year": 7, "document": "doc2", "title": "", "start": 2, "line": 3}
    told = nodes[2020].get_content(MetadataMode.LLM)
    assert "file: contract.pdf" in told, "it is a field of the user's"
    assert "crossrank_line" not in told
    assert "line" not in nodes[7].get_content(MetadataMode.EMBED)


def test_a_calibrated_model_tells_probabilities_that_no_model_reads(pipeline):
    assert all("probability" not in node.metadata for node in CrossrankRetriever(pipeline).retrieve("the cat"))
    small = replace(pipeline, stages=(crossrank.Stage(crossrank.load("small"), 100, name="small"),))
    nodes = CrossrankRetriever(small).retrieve("the cat")
    want = small.relevance(small.search("the cat")).probabilities
    assert [node.metadata["probability"] for node in nodes] == list(want)
    assert not any("probability" in node.get_content(MetadataMode.LLM) for node in nodes)


def test_one_passage_is_one_node_for_several_queries(pipeline):
    # Their probabilities differ, and the host merges nodes by a hash of text and metadata: nothing was fused.
    small = replace(pipeline, stages=(crossrank.Stage(crossrank.load("small"), 100, name="small"),))
    retriever = CrossrankRetriever(small)
    one, other = ({node.node_id: node.node for node in retriever.retrieve(query)} for query in ("the cat", "a planet"))
    assert any(one[id_].metadata["probability"] != other[id_].metadata["probability"] for id_ in one)
    assert {id_: node.hash for id_, node in one.items()} == {id_: node.hash for id_, node in other.items()}
    assert len({node.hash for node in one.values()}) == len(one)
    fusing = QueryFusionRetriever(
        [retriever, CrossrankRetriever(small, k=1)],
        MockLLM(),
        mode="reciprocal_rerank",
        num_queries=1,
        similarity_top_k=9,
    )
    fused = fusing.retrieve("the cat")
    assert len(fused) == len({node.node_id for node in fused}) == len(one)
    again = TextNode.from_dict(fused[0].node.to_dict())
    assert (again.text, again.metadata, again.class_name()) == (fused[0].node.text, fused[0].node.metadata, "TextNode")


def test_the_retriever_in_a_query_engine(pipeline):
    engine = RetrieverQueryEngine.from_args(CrossrankRetriever(pipeline, k=1), llm=MockLLM())
    assert len(engine.query("the cat").source_nodes) == 1


def test_the_retriever_works_off_the_event_loop(pipeline, monkeypatch):
    threads = set()
    search = type(pipeline).search

    def spied(self, query, k, **options):
        threads.add(threading.get_ident())
        return search(self, query, k, **options)

    monkeypatch.setattr(type(pipeline), "search", spied)
    asyncio.run(CrossrankRetriever(pipeline).aretrieve("the cat"))
    assert threading.get_ident() not in threads


def test_a_blank_node_is_below_the_others_for_the_host() -> None:
    # The host's `get_score` makes 0 of None, which is above negative logits.
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in (" ", "Bread.")]
    bread, blank = CrossrankRerank(top_n=None).postprocess_nodes(nodes, query_str="capital of France?")
    assert (blank.text, blank.get_score()) == (" ", bread.get_score() - 1)
    assert blank.get_score() < bread.get_score() < 0
