"""What requests mean: which dialect, how much is read, what a search does; and the examples of the documentation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import crossrank
import tiny
from crossrank.server import page
from crossrank.server.app import build
from crossrank.server.limits import Limits
from crossrank.server.refusals import RefusedError
from crossrank.server.searching import Search, search
from crossrank.server.service import Caps, Service
from crossrank.server.tickets import Ticket
from crossrank.server.wire import dialects, fields

QUERY = "what is the capital of france?"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    pytest.importorskip("lance", reason="the index needs the search extra")
    from crossrank.index import Document, Index

    folder = tmp_path_factory.mktemp("wire")
    embedder = crossrank.load_embedder(tiny.bi_encoder(folder / "embedder"), backend="fake")
    index = Index.create(folder / "index", embedder, embedder.tokenizer)
    documents = [Document(f"{n}", f"paris is a city. Bread is number {n}.", metadata={"n": n}) for n in range(30)]
    index.add(documents, embedder, embedder.tokenizer)
    identity = {"activation_fn": "torch.nn.modules.linear.Identity"}
    reranker = tiny.cross_encoder(folder / "reranker", sentence_transformers=identity)
    scorer = crossrank.load(reranker, backend="fake")
    made = Service(scorer, embedder, index, batch_tokens=1024)
    made.start()
    yield made
    made.stop()


def ask(service: Service, method: str, path: str, **options: Any) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=build(service).app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **options)

    return asyncio.run(asked())


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/rerank", {"query": "x", "documents": []}, "cohere"),
        ("/rerank", {"query": "x", "texts": []}, "tei"),
        ("/v1/rerank", {"top_k": None}, "voyage"),
        ("/v1/rerank", {"truncation": False}, "voyage"),
        ("/rerank", {"raw_scores": True}, "infinity"),
        ("/v2/rerank", {"truncate_prompt_tokens": -1}, "vllm"),
        ("/vllm/rerank", {"texts": []}, "vllm"),
        ("/jina/v1/rerank", {"top_k": 1}, "jina"),
        ("/cohere/v2/rerank", {}, "cohere"),
    ],
)
def test_which_dialect(path: str, body: dict[str, Any], name: str) -> None:
    assert dialects.of(path, body).name == name


@pytest.mark.parametrize(
    ("name", "value"), [("n", "3"), ("n", True), ("n", 1.5), ("n", -1), ("n", [3]), ("flag", 1), ("flag", "true")]
)
def test_fields_of_the_wrong_kind_are_named(name: str, value: Any) -> None:
    with pytest.raises(RefusedError) as refused:
        fields.whole({name: value}, name) if name == "n" else fields.flag({name: value}, name, False)
    assert refused.value.param == name


def test_caps_cut_what_is_read(service: Service) -> None:
    long = "paris " * 50
    for caps, document in [
        (Caps(document=3), "paris paris paris"),
        (Caps(document=1000), long),
        (Caps(pair=len(service.scorer.checkpoint.tokenizer().encode(QUERY, "").ids) + 2), "paris paris"),
        (Caps(windows=1), None),
    ]:
        query, cut = service.capped([(QUERY, long)], caps)[0]
        assert query == QUERY
        assert cut == document if document is not None else len(cut) <= len(long)
    assert service.capped([(QUERY, "bread")], Caps(query=2))[0] == ("what is", "bread")
    ticket = Ticket.lasting(60)
    cut = service.score([(QUERY, long)], ticket, Caps(document=3))
    whole = service.score([(QUERY, "paris paris paris")], ticket)
    assert cut.scores.tolist() == whole.scores.tolist()


def test_scoring_in_chunks_agrees_with_the_library(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossrank.server.service._DOCUMENTS", 7)
    pairs = [(QUERY, text) for text in [*(f"bread {n}" for n in range(30)), "", "paris " * 4000, "bread 3"]]
    found = service.score(pairs, Ticket.lasting(60))
    wanted = service.scorer.scored(pairs)
    assert found.scores.tolist() == wanted.scores.tolist()
    assert found.truncations == wanted.truncations
    assert [cut.position for cut in found.truncations] == [31]


def test_a_model_that_is_not_calibrated_says_so(service: Service) -> None:
    reply = ask(service, "POST", "/v2/rerank", json={"query": QUERY, "documents": ["paris"]})
    assert reply.headers["x-crossrank-score"] == "sigmoid"
    reply = ask(service, "POST", "/tei/rerank", json={"query": QUERY, "texts": ["paris"], "raw_scores": True})
    assert reply.headers["x-crossrank-score"] == "logit"
    assert {"x-queue-time", "x-inference-time", "x-tokenization-time", "x-compute-tokens"} <= set(reply.headers)


def test_a_search_sees_what_another_process_has_committed(tmp_path: Path) -> None:
    pytest.importorskip("lance", reason="the index needs the search extra")
    from crossrank.index import Document, Index

    embedder = crossrank.load_embedder(tiny.bi_encoder(tmp_path / "embedder"), backend="fake")
    other = Index.create(tmp_path / "index", embedder, embedder.tokenizer)
    other.add([Document("old", "paris is a city")], embedder, embedder.tokenizer)
    scorer = crossrank.load(tiny.cross_encoder(tmp_path / "reranker"), backend="fake")
    made = Service(scorer, embedder, Index.open(tmp_path / "index"), batch_tokens=1024)
    made.start()
    before = made.index
    search(made, Search("paris"), Ticket.lasting(10.0))
    assert made.index is before, "nothing was committed, so nothing is opened again"
    other.add([Document("new", "paris in spring")], embedder, embedder.tokenizer)
    found = search(made, Search("paris"), Ticket.lasting(10.0))
    assert {found.passages[id_].document for id_ in found.ranking.ids} == {"old", "new"}
    other.remove(["old"], embedder, embedder.tokenizer)
    found = search(made, Search("paris"), Ticket.lasting(10.0))
    assert {found.passages[id_].document for id_ in found.ranking.ids} == {"new"}
    made.stop()


def test_a_search_agrees_with_the_pipeline(service: Service) -> None:
    found = search(service, Search(QUERY, k=5, depth=20, mix=0.5, columns=20, evidence=True), Ticket.lasting(60))
    assert [trace.name for trace in found.traces] == ["bm25", "dense", "fused", "reranked"]
    assert len(found.ranking) == 5
    assert found.read == 20
    assert set(found.ranking.ids) <= set(found.passages)
    for id_, span in zip(found.ranking.ids, found.evidence, strict=True):
        text = found.passages[id_].text
        assert text[span[0] : span[1]] in ("paris is a city.", text[17:])
    unranked = search(service, Search(QUERY, k=5, depth=20, mix=0), Ticket.lasting(60))
    assert unranked.read == 0
    assert list(unranked.ranking.ids) == list(found.traces[2].ranking.ids[:5])


def test_filters_and_their_mistakes(service: Service) -> None:
    body = {"query": QUERY, "where": ["n>=25"], "k": 10, "rerank": False}
    results = ask(service, "POST", "/search", json=body).json()["results"]
    assert results
    assert all(result["metadata"]["n"] >= 25 for result in results)
    assert ask(service, "POST", "/search", json={**body, "where": ["n ~ 3"]}).status_code == 400


def test_a_budget_bounds_what_is_read(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.scheduler, "rate", 1000.0)
    found = search(service, Search(QUERY, depth=30, budget=0.2), Ticket.lasting(60))
    assert 0 <= found.read < 30
    assert found.cut is not None
    monkeypatch.setattr(service.scheduler, "rate", 1e9)
    assert search(service, Search(QUERY, depth=10, budget=30), Ticket.lasting(60)).cut is None


def test_every_example_of_the_documentation_works(service: Service) -> None:
    described = ask(service, "GET", "/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, about in methods.items():
            content = about.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            if path == "/search":
                content["example"]["where"] = ["n>=2"]
            reply = ask(service, method.upper(), path, json=content.get("example"))
            assert reply.status_code == 200, (path, reply.text)


def test_the_page_loads_nothing_from_elsewhere(service: Service) -> None:
    for path, (content, kind) in page.files().items():
        reply = ask(service, "GET", path)
        assert reply.content == content
        assert reply.headers["content-type"].startswith(kind)
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        if "svg" not in kind:
            # The one address is the name of SVG's own vocabulary.
            assert b"http" not in content.replace(b"http://www.w3.org/2000/svg", b""), path
        assert b"style=" not in content
        assert b"innerHTML" not in content


def test_a_limit_must_be_over_0() -> None:
    with pytest.raises(crossrank.CrossrankError, match="documents"):
        Limits(documents=0)


def test_folders_of_models_are_not_told(service: Service, tmp_path: Path) -> None:
    folder = tiny.cross_encoder(tmp_path / "secret-folder" / "model")
    made = Service(crossrank.load(folder, backend="fake"))
    assert made.model == "model"
    assert "secret-folder" not in ask(made, "GET", "/info").text


def test_pasted_candidates_are_bounded_in_tokens(tmp_path: Path) -> None:
    scorer = crossrank.load(tiny.cross_encoder(tmp_path / "model"), backend="fake")
    made = Service(scorer, limits=Limits(tokens=100), batch_tokens=1024)
    made.start()
    # One word, so that counting words does not find it; its letters and hyphens are tokens.
    refused = ask(made, "POST", "/search", json={"query": QUERY, "documents": ["a-" * 200]})
    made.stop()
    assert refused.status_code == 413


def test_a_deadline_counts_from_the_headers(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossrank.server import bodies

    read = bodies.read

    async def slowly(*arguments: Any) -> bytes:
        await asyncio.sleep(0.05)
        return await read(*arguments)

    monkeypatch.setattr(bodies, "read", slowly)
    body = {"query": QUERY, "documents": ["paris"]}
    late = ask(service, "POST", "/v2/rerank", json=body, headers={"X-Crossrank-Deadline-Ms": "40"})
    assert late.status_code == 503
