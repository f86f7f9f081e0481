"""Does the description of the server name every path, and every field that its dialects read?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

import crossrank
import tiny
from crossrank.server import openapi
from crossrank.server.app import build
from crossrank.server.service import Service
from crossrank.server.wire import cohere, dialects, openai, search, teiembed, vllm

DIALECTS = {**dialects.BY_NAME, "cohere-1": cohere.V1, "cohere-2": cohere.V2, "score": vllm.SCORE}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("openapi")
    scorer = crossrank.load(tiny.cross_encoder(folder / "reranker"), backend="fake")
    embedder = crossrank.load_embedder(tiny.bi_encoder(folder / "embedder"), backend="fake")
    made = Service(scorer, embedder, batch_tokens=1024)
    made.start()
    yield made
    made.stop()


class Spy(Mapping[str, Any]):
    """A body that remembers which of its fields were asked for."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body, self.asked = body, set[str]()

    def __getitem__(self, name: str) -> Any:
        self.asked.add(name)
        return self._body[name]

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return self._body.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._body

    def __iter__(self) -> Iterator[str]:
        return iter(self._body)

    def __len__(self) -> int:
        return len(self._body)


@pytest.mark.parametrize("name", [*DIALECTS, "embeddings", "embed", "search"])
def test_all_that_is_read_is_described(name: str) -> None:
    read, example, fields = {
        "embeddings": (openai.read, openai.EXAMPLE, openai.FIELDS),
        "embed": (teiembed.read, teiembed.TEI.example, teiembed.TEI.fields),
        "search": (search.read, search.EXAMPLE, search.FIELDS),
    }.get(name) or (DIALECTS[name].read, DIALECTS[name].example, DIALECTS[name].fields)
    # Some fields are looked for only where another is not there.
    more: list[dict[str, Any]] = [{"top_k": 1}, {"top_k": None, "top_n": 1}] if name != "search" else []
    bodies = [example, *({**example, **one} for one in more)]
    if name == "score":
        texts = ("queries", "text_1", "data_1"), ("documents", "items", "text_2", "data_2")
        bodies += [{one: "tea", other: "bread"} for one in texts[0] for other in texts[1]]
    asked: set[str] = set()
    for body in bodies:
        spy = Spy(body)
        read(spy)
        asked |= spy.asked
    # The model is not read; an instruction and vLLM's `normalize` are refused.
    assert asked - {"instruction", "normalize"} == set(fields) - {"model", "normalize"}
    assert set(example) <= set(fields)


def test_every_path_is_described(service: Service) -> None:
    described = openapi.document(service)["paths"]
    routes: dict[str, set[str]] = {}
    for route in build(service).app._app.routes:
        # At / is the page, and TEI's rerank for what is posted.
        routes.setdefault(route.path.replace("{name:path}", "{name}"), set()).update(route.methods)
    served = {path for path in routes if not path.startswith("/page/")} - {"/docs", "/openapi.json"}
    assert set(described) == served
    for path, methods in described.items():
        assert {method.upper() for method in methods} <= routes[path]
    assert described["/cohere/v1/rerank"]["post"]["summary"] == "As /v1/rerank."
    assert described["/reranking"]["post"]["summary"] == "As /rerank."
    assert described["/v1/reranking"]["post"]["requestBody"] == described["/v1/rerank"]["post"]["requestBody"]
    assert described["/vllm/v2/rerank"]["post"]["requestBody"] == described["/vllm/rerank"]["post"]["requestBody"]
    assert {"400", "415", "500", "503"} <= set(described["/search"]["post"]["responses"])
    without = Service(service.reranker.scorer)
    assert not any("embed" in path for path in openapi.document(without)["paths"])
    assert set(openapi.document(without)["paths"]) == {path for path in served if "embed" not in path}


@pytest.mark.parametrize(
    ("path", "body", "fits"),
    [
        ("/v1/rerank", {"query": "x", "documents": [{"title": "a"}, "b"], "rank_fields": ["title"]}, True),
        ("/v1/rerank", {"query": "x", "documents": [3]}, False),
        ("/v1/rerank", {"query": "\u200b\x16", "documents": ["a"]}, False),
        ("/v2/rerank", {"query": "x", "documents": [{"title": "a"}]}, False),
        ("/v2/rerank", {"query": "x", "documents": ["a"], "max_tokens_per_doc": 0}, True),
        ("/v2/rerank", {"query": "x", "documents": ["a"], "top_k": 1}, True),
        ("/v2/rerank", {"query": "x", "documents": [{"text": "a", "image": None}]}, True),
        ("/v2/rerank", {"query": "x", "documents": [{"text": "a", "image": "b"}]}, False),
        ("/v1/rerank", {"query": "x", "documents": [{"text": "a", "image": "b", "sku": 1}]}, True),
        ("/vllm/rerank", {"query": "x", "documents": [{"content": [{"type": "text", "text": "a"}]}]}, True),
        ("/vllm/rerank", {"query": "x", "documents": [{"content": [{"type": "image_url"}]}]}, False),
        ("/vllm/rerank", {"query": "x", "documents": [{"content": []}]}, False),
        ("/vllm/rerank", {"query": "x", "documents": {"content": [{"type": "text", "text": "a"}]}}, True),
        ("/v2/rerank", {"query": "x", "documents": {"content": [{"type": "text", "text": "a"}]}}, False),
        ("/vllm/rerank", {"query": {"content": [{"type": "text", "text": " "}]}, "documents": ["a"]}, False),
        ("/v2/rerank", {"query": {"content": "x"}, "documents": [{"content": "a", "text": None}]}, True),
        ("/v2/rerank", {"query": "x", "documents": [{"content": "a", "text": "b"}]}, False),
        ("/v2/rerank", {"query": "x", "documents": [{"content": ["a"]}]}, False),
        ("/vllm/rerank", {"query": "x", "documents": ["a"], "max_tokens_per_doc": 0}, True),
        ("/vllm/rerank", {"query": "x", "documents": ["a"], "truncation_side": "up"}, False),
        ("/rerank", {"query": "x", "documents": ["a"]}, True),
        ("/rerank", {"query": "x", "texts": ["a"]}, True),
        ("/rerank", {"query": "x"}, False),
        ("/v1/score", {"queries": ["x"], "items": "a"}, True),
        ("/v1/score", {"queries": ["x"]}, False),
        ("/v1/score", {"queries": {"content": [{"type": "text", "text": "x"}]}, "items": "a"}, True),
        ("/v1/score", {"queries": [""], "items": "a"}, False),
        ("/v1/score", {"queries": "x", "text_1": "y", "items": "a"}, False),
        ("/v1/score", {"queries": "x", "text_1": None, "items": "a"}, True),
        ("/v1/score", {"queries": None, "items": "a"}, False),
        ("/weaviate/rerank", {"query": "x", "documents": ["a"], "property": ""}, True),
        ("/weaviate/rerank", {"query": "x", "documents": []}, True),
        ("/weaviate/rerank", {"query": "x", "property": "a"}, False),
        ("/v1/rerank", {"query": "x", "documents": [{"a": "b"}], "rank_fields": ["a"] * 65}, False),
        ("/search", {"query": "x", "documents": None}, False),
        ("/infinity/rerank", {"query": "x", "documents": ["a"], "top_n": 0}, False),
        ("/v1/embeddings", {"input": "x", "dimensions": 32}, True),
        ("/v1/embeddings", {"input": "x", "dimensions": 31}, False),
        ("/embed", {"inputs": "x", "normalize": True, "prompt_name": "query", "dimensions": 32}, True),
        ("/embed", {"inputs": []}, False),
        ("/embed", {"inputs": "x", "normalize": False}, True),
        ("/embed", {"inputs": "x", "normalize": "no"}, False),
        ("/embed", {"inputs": "x", "prompt_name": "clustering"}, False),
        ("/embed", {"inputs": "x", "dimensions": 16}, False),
        ("/", {"inputs": ["x"]}, True),
        ("/invocations", {"inputs": ["x"]}, True),
        ("/", {"query": "x", "texts": ["a"]}, True),
        ("/tei", {"query": "x", "texts": ["a"], "inputs": None}, True),
        ("/", {"query": "x", "texts": ["a"], "inputs": 3}, False),
        ("/tei/rerank", {"query": "x", "texts": ["a"], "inputs": 3}, True),
        ("/search", {"query": "x", "documents": ["a"], "where": []}, True),
        ("/search", {"query": "x", "documents": ["a"], "where": ["year>>1"] * 2}, False),
        ("/search", {"query": "x", "documents": [{"text": "a", "title": "b"}]}, True),
        ("/search", {"query": "x", "documents": [{"text": "a", "id": "b"}]}, False),
        ("/search", {"query": "x", "documents": [], "where": "year>=2020"}, False),
        ("/search", {"query": "x", "documents": ["a"], "where": 3}, False),
        ("/search", {"query": "x", "documents": ["a"], "threshold": 0.5}, True),
        ("/search", {"query": "x", "documents": ["a"], "threshold": 1.5}, False),
        # Nobody has chosen a threshold for this model.
        ("/search", {"query": "x", "documents": ["a"], "threshold": "model"}, False),
        ("/search", {"query": "x", "documents": ["a"], "threshold": 0.5, "rerank": False}, False),
        ("/search", {"query": "x", "documents": ["a"], "threshold": 0.5, "mix": 0}, False),
        ("/search", {"query": "x", "documents": ["a"], "threshold": None, "mix": 0}, True),
    ],
)
def test_bodies_that_fit_the_description_are_answered_and_no_others(
    service: Service, path: str, body: dict[str, Any], fits: bool
) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="comes with schemathesis")
    content = openapi.document(service)["paths"][path]["post"]["requestBody"]["content"]
    assert jsonschema.Draft202012Validator(content["application/json"]["schema"]).is_valid(body) is fits

    async def status() -> int:
        transport = httpx.ASGITransport(app=build(service).app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.post(path, json=body)).status_code

    assert (asyncio.run(status()) == 200) is fits
