"""The published clients of other products, unmodified but for the address, against a server on a real socket."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import crossrank
import tiny
from serving import Serving, serving

QUERY = "what is the capital of france?"
DOCUMENTS = ["bread needs yeast.", "paris is the capital of france.", "a cat is a cat."]
KEY = "a-secret-of-tests"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    from crossrank.server.guard import Door
    from crossrank.server.keys import Keys

    folder = tmp_path_factory.mktemp("clients")
    embedder = crossrank.load_embedder(tiny.bi_encoder(folder / "embedder"), backend="fake")
    door = Door.at("127.0.0.1", Keys([KEY]))
    with serving(tiny.cross_encoder(folder / "reranker"), embedder=embedder, door=door) as made:
        yield made


@pytest.fixture(scope="module")
def wanted(server: Serving) -> list[tuple[int, float]]:
    """Positions and probabilities by the library."""
    scorer = server.service.reranker.scorer
    ranked = scorer.rank(QUERY, DOCUMENTS)
    return list(zip(ranked.positions, server.service.reranker.probability(ranked.scores).tolist(), strict=True))


@pytest.fixture(autouse=True)
def _their_warnings() -> Iterator[None]:
    # What other libraries deprecate in themselves is not our failure.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def close(found: list[tuple[int, float]], wanted: list[tuple[int, float]]) -> bool:
    return [p for p, _ in found] == [p for p, _ in wanted] and all(
        a == pytest.approx(b, rel=1e-5) for (_, a), (_, b) in zip(found, wanted, strict=True)
    )


def test_cohere_version_1(server: Serving, wanted: Any) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.Client(KEY, base_url=server.listener.url)
    reply = client.rerank(model="rerank-english-v3.0", query=QUERY, documents=DOCUMENTS, return_documents=True, top_n=2)
    assert close([(one.index, one.relevance_score) for one in reply.results], wanted[:2])
    assert reply.results[0].document.text == DOCUMENTS[wanted[0][0]]
    assert reply.meta.billed_units.search_units == 1


def test_cohere_version_2(server: Serving, wanted: Any) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(KEY, base_url=server.listener.url)
    reply = client.rerank(model="rerank-v4.0-pro", query=QUERY, documents=DOCUMENTS, max_tokens_per_doc=4096)
    assert close([(one.index, one.relevance_score) for one in reply.results], wanted)
    with pytest.raises(cohere.core.api_error.ApiError) as refused:
        cohere.ClientV2("another-key", base_url=server.listener.url).rerank(model="m", query="q", documents=["d"])
    assert refused.value.status_code == 401


def test_openai_embeddings(server: Serving) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(api_key=KEY, base_url=server.listener.url + "/v1")
    reply = client.embeddings.create(model="text-embedding-3-small", input=DOCUMENTS)
    vectors = server.service.embedder.embed(DOCUMENTS)
    for one, vector in zip(reply.data, vectors, strict=True):
        assert one.embedding == pytest.approx(vector.tolist(), rel=1e-6)
    assert reply.usage.total_tokens > 0
    assert [model.id for model in client.models.list()] == ["reranker", "embedder"]
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="m", input="tea", dimensions=3072)


@pytest.mark.parametrize("path", ["", "/tei", "/embed"])
def test_huggingface_hub_embeddings(server: Serving, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Haystack's and LangChain's embedders for TEI ask with."""
    hub = pytest.importorskip("huggingface_hub")
    # Offline it asks nobody, not even this machine.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    client = hub.InferenceClient(model=server.listener.url + path, token=KEY)
    vectors = server.service.embedder.embed(DOCUMENTS)
    np.testing.assert_allclose(client.feature_extraction(DOCUMENTS, truncate=True), vectors, atol=1e-6)
    np.testing.assert_allclose(client.feature_extraction(DOCUMENTS[0], normalize=True), vectors[:1], atol=1e-6)


def test_llama_index_tei_embeddings(server: Serving) -> None:
    tei = pytest.importorskip("llama_index.embeddings.text_embeddings_inference")
    model = tei.TextEmbeddingsInference(model_name="m", base_url=server.listener.url, auth_token=f"Bearer {KEY}")
    vectors = server.service.embedder.embed(DOCUMENTS)
    np.testing.assert_allclose(model.get_text_embedding_batch(DOCUMENTS), vectors, atol=1e-6)


def test_voyage(server: Serving, wanted: Any) -> None:
    voyageai = pytest.importorskip("voyageai")
    client = voyageai.Client(api_key=KEY, base_url=server.listener.url + "/v1")
    reply = client.rerank(QUERY, DOCUMENTS, model="rerank-2.5", top_k=2)
    assert close([(one.index, one.relevance_score) for one in reply.results], wanted[:2])
    assert reply.results[0].document == DOCUMENTS[wanted[0][0]]
    assert reply.total_tokens > 0


def test_llama_index_cohere(server: Serving, wanted: Any) -> None:
    module = pytest.importorskip("llama_index.postprocessor.cohere_rerank")
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in DOCUMENTS]
    reranker = module.CohereRerank(api_key=KEY, base_url=server.listener.url, top_n=2)
    found = reranker.postprocess_nodes(nodes, query_str=QUERY)
    assert close([(DOCUMENTS.index(one.node.text), one.score) for one in found], wanted[:2])


def test_llama_index_jina(server: Serving, wanted: Any) -> None:
    module = pytest.importorskip("llama_index.postprocessor.jinaai_rerank")
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in DOCUMENTS]
    reranker = module.JinaRerank(api_key=KEY, base_url=server.listener.url + "/jina/v1", top_n=2)
    found = reranker.postprocess_nodes(nodes, query_str=QUERY)
    assert close([(DOCUMENTS.index(one.node.text), one.score) for one in found], wanted[:2])


def test_llama_index_tei(server: Serving, wanted: Any) -> None:
    module = pytest.importorskip("llama_index.postprocessor.tei_rerank")
    from llama_index.core.schema import NodeWithScore, TextNode

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in DOCUMENTS]
    reranker = module.TextEmbeddingInference(base_url=server.listener.url, top_n=2, auth_token=f"Bearer {KEY}")
    found = reranker.postprocess_nodes(nodes, query_str=QUERY)
    assert close([(DOCUMENTS.index(one.node.text), one.score) for one in found], wanted[:2])


def test_haystack_tei(server: Serving, wanted: Any) -> None:
    module = pytest.importorskip("haystack_integrations.components.rankers.huggingface_api")
    from haystack import Document
    from haystack.utils import Secret

    ranker = module.HuggingFaceTEIRanker(url=server.listener.url, top_k=2, token=Secret.from_token(KEY))
    found = ranker.run(query=QUERY, documents=[Document(content=text) for text in DOCUMENTS])["documents"]
    assert close([(DOCUMENTS.index(one.content), one.score) for one in found], wanted[:2])


def test_langchain_cohere(server: Serving, wanted: Any) -> None:
    module = pytest.importorskip("langchain_cohere")
    from langchain_core.documents import Document

    reranker = module.CohereRerank(
        cohere_api_key=KEY, base_url=server.listener.url, model="rerank-english-v3.0", top_n=2
    )
    found = reranker.compress_documents([Document(page_content=text) for text in DOCUMENTS], QUERY)
    told = [(DOCUMENTS.index(one.page_content), one.metadata["relevance_score"]) for one in found]
    assert close(told, wanted[:2])


def test_langchain_jina(server: Serving, wanted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("langchain_community.document_compressors.jina_rerank")
    from langchain_core.documents import Document

    # This client has no parameter for its address.
    monkeypatch.setattr(module, "JINA_API_URL", server.listener.url + "/jina/v1/rerank")
    reranker = module.JinaRerank(jina_api_key=KEY, top_n=2)
    found = reranker.compress_documents([Document(page_content=text) for text in DOCUMENTS], QUERY)
    told = [(DOCUMENTS.index(one.page_content), one.metadata["relevance_score"]) for one in found]
    assert close(told, wanted[:2])


@pytest.mark.parametrize("provider", ["cohere", "jina_ai", "infinity", "hosted_vllm"])
def test_litellm(server: Serving, wanted: Any, provider: str) -> None:
    litellm = pytest.importorskip("litellm")
    bases = {"cohere": "/v1/rerank", "jina_ai": "/jina/v1/rerank", "infinity": "/infinity", "hosted_vllm": "/vllm"}
    reply = litellm.rerank(
        model=f"{provider}/some-model", query=QUERY, documents=DOCUMENTS, top_n=2, api_key=KEY,
        api_base=server.listener.url + bases[provider],
    )  # fmt: skip
    assert close([(one["index"], one["relevance_score"]) for one in reply.results], wanted[:2])
