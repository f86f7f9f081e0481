"""What clients of other products send and are told: which fields decide, what a document may be, how errors read."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import crossrank
import tiny
from crossrank.errors import InputError
from crossrank.server import openapi
from crossrank.server.app import build
from crossrank.server.cutting import Caps
from crossrank.server.guard import Door
from crossrank.server.keys import Keys, read_lines
from crossrank.server.limits import Limits
from crossrank.server.refusals import RefusedError
from crossrank.server.scheduler import Shared
from crossrank.server.service import Service
from crossrank.server.wire import cohere, dialects, infinity, jina, openai, tei, vllm, voyage
from crossrank.server.wire.embeddings import Embed, Embedded
from crossrank.server.wire.shapes import Dialect, Outcome, Timing
from serving import Slow

QUERY = "what is the capital of france?"
DOCUMENTS = ["bread", "paris"]
PARTS = {"content": [{"type": "text", "text": "paris is"}, {"type": "text", "text": "a city"}]}


class Client:
    """Asks one service through one application."""

    def __init__(self, service: Service, door: Door | None = None) -> None:
        self.service = service
        self._app = build(service, door).app

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, f"http://localhost{path}", **options)

        return asyncio.run(asked())

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.ask("POST", path, json=body)

    def refused(self, path: str, **body: Any) -> tuple[str, Any]:
        """The message and the field of an error."""
        reply = self.post(path, **body)
        assert reply.status_code in (400, 413, 422), reply.text
        return reply.json()["message"], reply.json()["error"]["param"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("dialects")
    identity = {"activation_fn": "torch.nn.modules.linear.Identity"}
    scorer = crossrank.load(tiny.cross_encoder(folder / "model", sentence_transformers=identity), backend="fake")
    embedder = crossrank.load_embedder(tiny.bi_encoder(folder / "embedder"), backend="fake")
    service = Service(scorer, embedder, batch_tokens=1024)
    service.start()
    yield Client(service)
    service.stop()


@pytest.mark.parametrize("field", [{"raw_scores": True}, {"use_activation": False}])
@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_whoever_asks_for_logits_beside_top_k_gets_them(client: Client, path: str, field: dict[str, bool]) -> None:
    # Voyage's dialect answered with probabilities.
    reply = client.post(path, query=QUERY, documents=DOCUMENTS, top_k=1, **field)
    assert reply.headers["x-crossrank-score"] == "logit"
    assert len(reply.json()["results"]) == 1
    assert "x-crossrank-unread" not in reply.headers


def test_a_path_of_version_2_keeps_its_shape(client: Client) -> None:
    for field in ("texts", "top_k", "truncation", "raw_scores"):
        assert dialects.of("/v2/rerank", {field: 1}) is cohere.V2
    reply = client.post("/v2/rerank", query=QUERY, documents=DOCUMENTS, top_k=1, raw_scores=True)
    assert len(reply.json()["results"]) == 1
    assert reply.headers["x-crossrank-unread"] == "raw_scores"
    reply = client.post("/v2/rerank", query=QUERY, documents=DOCUMENTS, top_n=2, top_k=1)
    assert len(reply.json()["results"]) == 2
    assert reply.headers["x-crossrank-unread"] == "top_k"


@pytest.mark.parametrize("version", ["", "/v1"])
@pytest.mark.parametrize(
    "more",
    [
        {"documents": DOCUMENTS, "top_n": 1},
        {"texts": DOCUMENTS},
        {"documents": DOCUMENTS, "raw_scores": True},
        {"documents": [{"city": "paris"}], "rank_fields": ["city"]},
        {"documents": 3},
    ],
)
def test_a_path_of_llama_is_another_name_of_ours(client: Client, version: str, more: dict[str, Any]) -> None:
    headers = {"X-Request-Id": "mine"}
    ours, theirs, joined = (
        client.ask("POST", version + path, json={"query": QUERY, **more}, headers=headers)
        for path in ("/rerank", "/reranking", "//reranking/")
    )
    for reply in (theirs, joined):
        assert (reply.status_code, _timeless(reply)) == (ours.status_code, _timeless(ours))
    if more.get("top_n"):
        assert {"model", "object", "usage", "results"} <= set(theirs.json())
        assert set(theirs.json()["results"][0]) == {"index", "relevance_score"}


def _timeless(reply: httpx.Response) -> Any:
    found = reply.json()
    return {name: value for name, value in found.items() if name != "created"} if isinstance(found, dict) else found


@pytest.mark.parametrize(("documents", "units"), [(0, 1), (1, 1), (100, 1), (101, 2), (200, 2)])
def test_cohere_bills_each_hundred_documents_that_were_begun(client: Client, documents: int, units: int) -> None:
    reply = client.post("/v2/rerank", query=QUERY, documents=["paris"] * documents)
    assert reply.json()["meta"]["billed_units"] == {"search_units": units}


def test_what_stands_beside_a_text_is_no_image_of_it(client: Client) -> None:
    for document in ({"text": "paris", "image": "https://x", "sku": 1}, {"content": "paris", "image": "https://x"}):
        assert client.post("/v1/rerank", query=QUERY, documents=[document]).status_code == 200
        message, param = client.refused("/jina/rerank", query=QUERY, documents=[document])
        assert "send the text alone" in message
        assert param == "documents[0]"
    document = {"text": "paris", "image": None}
    for path in ("/v1/rerank", "/v2/rerank", "/jina/v1/rerank", "/vllm/rerank"):
        assert client.post(path, query=QUERY, documents=[document]).status_code == 200, path
    message, _ = client.refused("/v1/rerank", query=QUERY, documents=[{"image": "https://x"}])
    assert message.endswith('must hold its text in "text" or "content", or in fields that rank_fields names')


def test_parts_of_text_are_read_as_lines(client: Client) -> None:
    def scores(path: str, **body: Any) -> Any:
        reply = client.post(path, **body)
        assert reply.status_code == 200, reply.text
        found = reply.json()
        return [one.get("relevance_score", one.get("score")) for one in found.get("results", found.get("data"))]

    whole = scores("/vllm/rerank", query=QUERY, documents=["paris is\na city"])
    assert scores("/vllm/rerank", query=QUERY, documents=[PARTS]) == whole
    assert scores("/vllm/score", text_1=QUERY, text_2=[PARTS]) == whole
    # Of one object in place of a list each part is an input, as vLLM reads it.
    apart = scores("/vllm/score", text_1=QUERY, text_2=["paris is", "a city"])
    assert scores("/vllm/score", text_1={"content": [{"type": "text", "text": QUERY}]}, text_2=PARTS) == apart
    assert sorted(scores("/vllm/rerank", query=QUERY, documents=PARTS)) == sorted(apart)
    message, param = client.refused("/vllm/rerank", query=QUERY, documents={"content": [{"type": "image_url"}]})
    assert "content[0] is a part of type 'image_url', and only text is read here" in message
    assert param == "documents[0].content[0]"
    for parts in ([], [3], [{"type": "text"}]):
        assert "documents[0].content" in client.refused("/vllm/rerank", query=QUERY, documents=[{"content": parts}])[0]


def test_no_header_says_what_probabilities_are_where_there_are_none(client: Client) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS}
    assert client.post("/search", **body).headers["x-crossrank-score"] == "sigmoid"
    assert "x-crossrank-score" not in client.post("/search", **body, rerank=False).headers


def test_objects_without_a_text_are_told_what_to_do(client: Client) -> None:
    documents = [{"title": "paris"}]
    for path, cure in (
        ("/v2/rerank", "; rank_fields is read at /v1/rerank"),
        ("/v1/rerank", "which name fields to the letter, capitals too"),
    ):
        message, param = client.refused(path, query=QUERY, documents=documents, rank_fields=["Title"])
        assert message.endswith(cure)
        assert param == "documents[0]"
    message, _ = client.refused("/v2/rerank", query=QUERY, documents=documents)
    assert message == 'documents[0] must hold its text in "text" or "content"'


def test_a_field_that_is_named_twice_is_read_once(client: Client) -> None:
    # 110 kB of names and one text of 60 kB took a gigabyte.
    body = {"query": QUERY, "documents": [{"a": "paris", "b": "bread"}, {"a": "bread"}]}
    once, twice = (client.post("/v1/rerank", **body, rank_fields=names).json() for names in (["a"], ["a"] * 9))
    assert once["results"] == twice["results"]
    assert once["usage"] == twice["usage"]
    message, param = client.refused("/v1/rerank", **body, rank_fields=[f"f{number}" for number in range(65)])
    assert (message, param) == ("rank_fields may name 64 fields, not 65", "rank_fields")


@pytest.mark.parametrize("body", [{"\x7f" * 100_000: 1}, {"documents": [{"text": "a", "\x7f" * 100_000: 1}]}], ids=str)
def test_an_error_does_not_give_back_megabytes(client: Client, body: dict[str, Any]) -> None:
    reply = client.post("/search", query=QUERY, **body)
    assert (reply.status_code, len(reply.content) < 3000) == (400, True)
    # Nor one of a part that quotes what it cannot read.
    told = client.post("/search", query=QUERY, where="a" * 9_000)
    assert (told.status_code, len(told.content) < 10_000) == (400, True)


def test_a_side_that_says_nothing_is_told(client: Client) -> None:
    for path, side, more, told in (
        ("/tei/rerank", {"truncation_direction": "Left"}, {"texts": DOCUMENTS}, "truncation_direction"),
        ("/tei/rerank", {"truncation_direction": "Right"}, {"texts": DOCUMENTS}, None),
        ("/vllm/rerank", {"truncation_side": "left"}, {"documents": DOCUMENTS}, "truncation_side"),
        ("/vllm/rerank", {"truncation_side": "left", "truncate_prompt_tokens": 9}, {"documents": DOCUMENTS}, None),
    ):
        assert client.post(path, query=QUERY, **side, **more).headers.get("x-crossrank-unread") == told


@pytest.mark.parametrize("name", ["top_k", "top_n", "limit"])
def test_a_search_for_so_many_is_told_what_that_is_called(client: Client, name: str) -> None:
    message, param = client.refused("/search", query=QUERY, documents=DOCUMENTS, **{name: 3})
    assert message.startswith(f"there is no field '{name}': k says how many results to return; there are query, ")
    assert param == name
    assert "k says" not in client.refused("/search", query=QUERY, documents=DOCUMENTS, kk=3)[0]


def test_a_query_of_which_nothing_is_read_is_named(client: Client) -> None:
    for path in ("/v2/rerank", "/search"):
        message, param = client.refused(path, query="\ue000", documents=DOCUMENTS)
        assert ("the query is empty" in message, param) == (True, "query")


def test_a_path_that_answers_two_methods_names_both(client: Client) -> None:
    reply = client.ask("PUT", "/")
    assert (reply.status_code, reply.headers["allow"]) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"query": "caf\xe9"}', "the body is not UTF-8"),
        (b'{"where": "a=1", "where": null}', "the name 'where' comes twice in one object of the body; keep one"),
        (b'{"mix": NaN}', "NaN is not JSON: send null, or a number"),
        (b'{"mix": 1e400}', "a number in the body is too large"),
        (b'{"mix": ' + b"9" * 5000 + b"}", "a number in the body is too large"),
        (b'{"mix": }', "the body is not JSON (line 1, column 9)"),
    ],
)
def test_what_is_wrong_with_a_body_is_told(client: Client, body: bytes, why: str) -> None:
    reply = client.ask("POST", "/v2/rerank", content=body)
    assert (reply.status_code, reply.json()["message"]) == (400, why)


def test_limits_are_told_by_the_names_of_their_options(client: Client) -> None:
    small = Service(client.service.reranker.scorer, limits=Limits(body=200, documents=2, tokens=30), batch_tokens=1024)
    small.start()
    try:
        other = Client(small)
        for documents, option in (
            (["a"] * 3, "--max-documents"),
            (["a"] * 60, "--max-body"),
            (["a b " * 20], "--max-t"),
        ):
            message, _ = other.refused("/v2/rerank", query=QUERY, documents=documents)
            assert option in message
            assert "send fewer" in message

        async def sent() -> Any:
            yield b" " * 300

        assert "--max-body" in other.ask("POST", "/v2/rerank", content=sent()).json()["message"]
    finally:
        small.stop()


def test_zero_tokens_are_no_limit_and_no_entries_are_told(client: Client) -> None:
    for path in ("/v1/rerank", "/v2/rerank", "/jina/rerank"):
        assert client.post(path, query=QUERY, documents=DOCUMENTS, max_tokens_per_doc=0).status_code == 200
    message, param = client.refused("/infinity/rerank", query=QUERY, documents=DOCUMENTS, top_n=0)
    assert (message, param) == ("top_n must be at least 1, or left out, not 0", "top_n")


def test_errors_name_the_field(client: Client) -> None:
    wanted = "input must be a string or a list of strings, not null or absent"
    assert client.refused("/v1/embeddings") == (wanted, "input")
    for path in ("/v2/rerank", "/search"):
        assert client.refused(path, query="\u200b", documents=DOCUMENTS)[1] == "query"
    assert client.refused("/score", queries="", documents=DOCUMENTS)[1] == "queries"
    assert client.refused("/score", text_1=["x", " "], documents=DOCUMENTS)[1] == "text_1[1]"
    message, param = client.refused("/v1/rerank", query="x " * 400, documents=DOCUMENTS, truncation=False)
    assert param == "truncation"
    assert message.endswith("; leave out truncation, or send shorter texts")
    reply = client.post("/tei/rerank", query="x " * 400, texts=DOCUMENTS, truncate=False)
    assert reply.json()["error"].endswith("; leave out truncate, or send shorter texts")


def test_a_key_that_is_none_is_told_by_its_line() -> None:
    with pytest.raises(InputError, match="API key of line 3 must have 8 or more"):
        read_lines("# the shop\nlong-enough-a-secret\nshort\n")


def test_a_blank_document_has_a_number_for_a_logit(client: Client) -> None:
    # It was null, which clients with types do not take.
    documents = ["paris", "", "bread"]
    for path, field in (("/tei/rerank", "texts"), ("/infinity/rerank", "documents")):
        reply = client.post(path, query=QUERY, raw_scores=True, **{field: documents}).json()
        entries = reply if isinstance(reply, list) else reply["results"]
        found = [one.get("score", one.get("relevance_score")) for one in entries]
        assert entries[2]["index"] == 1
        assert found[2] == found[1] - 1
    data = client.post("/score", text_1=QUERY, text_2=documents, use_activation=False).json()["data"]
    assert data[1]["score"] == min(data[0]["score"], data[2]["score"]) - 1
    alone = client.post("/score", text_1=QUERY, text_2="", use_activation=False).json()["data"]
    assert alone[0]["score"] == 0


@pytest.mark.parametrize("path", ["/", "/invocations", "/tei", "/tei/", "/tei/invocations"])
def test_other_paths_of_tei(client: Client, path: str) -> None:
    assert [one["index"] for one in client.post(path, query=QUERY, texts=["paris"]).json()] == [0]
    reply = client.post(path, query=QUERY, documents=["paris"])
    assert (reply.status_code, reply.json()["error_type"]) == (422, "Validation")


def test_what_is_posted_needs_a_key_also_where_the_page_is(client: Client) -> None:
    kept = Client(client.service, Door(Keys(["secret-of-the-house"])))
    assert kept.ask("GET", "/").headers["content-type"].startswith("text/html")
    assert kept.post("/", query=QUERY, texts=["paris"]).status_code == 401
    for path, status in (("/tei/health", 200), ("/infinity/health", 200), ("/tei/info", 401)):
        assert kept.ask("GET", path).status_code == status, path
    assert client.ask("GET", "/tei/info").json() == client.ask("GET", "/info").json()


def test_weaviate_is_answered_as_its_module_reads_it(client: Client) -> None:
    """What `modules/reranker-transformers` of Weaviate does: wait, ask for lists of 32, take scores by their places."""
    assert client.ask("GET", "/weaviate/.well-known/ready").status_code == 200
    assert isinstance(client.ask("GET", "/weaviate/meta").json(), dict)
    documents = ["bread", "", "paris is the capital of france", "paris", "bread"]
    whole, *parts = (
        client.post("/weaviate/rerank", query=QUERY, documents=some, property="").json()
        for some in (documents, documents[:2], documents[2:])
    )
    assert (whole["query"], [one["document"] for one in whole["scores"]]) == (QUERY, documents)
    scores = [one["score"] for one in whole["scores"]]
    assert [one["score"] for part in parts for one in part["scores"]] == pytest.approx(scores, abs=1e-6)
    assert all(0 <= score <= 1 for score in scores)
    assert (scores[1], scores[0]) == (0, scores[4])
    assert client.post("/weaviate/rerank", query=QUERY, documents=[]).json()["scores"] == []
    told = client.post("/weaviate/rerank", query=QUERY, documents=["a"], property="a").headers["x-crossrank-unread"]
    assert told == "property"


def test_weaviate_reads_why_as_a_string(client: Client) -> None:
    kept = Client(client.service, Door(Keys(["secret-of-the-house"])))
    starting = Client(Service(client.service.reranker.scorer))
    assert starting.ask("GET", "/weaviate/.well-known/ready").status_code == 503
    # An address that ends with a slash.
    for path in ("/weaviate/.well-known/ready", "/weaviate//.well-known/ready"):
        assert kept.ask("GET", path).status_code == 200, path
    for reply, status in (
        (client.post("/weaviate/rerank", query=QUERY, property="paris"), 400),
        (client.post("/weaviate/rerank", query=" ", documents=DOCUMENTS), 400),
        (kept.post("/weaviate/rerank", query=QUERY, documents=DOCUMENTS), 401),
        (client.ask("GET", "/weaviate/rerank"), 405),
        (client.ask("GET", "/weaviate/nothing"), 404),
        (starting.post("/weaviate/rerank", query=QUERY, documents=DOCUMENTS), 503),
    ):
        assert (reply.status_code, list(reply.json())) == (status, ["error"])
        assert isinstance(reply.json()["error"], str)


def test_infinity_says_what_is_wrong_as_its_framework_does(client: Client) -> None:
    reply = client.post("/infinity/rerank", query=QUERY, documents=[3])
    (detail,) = reply.json()["detail"]
    assert (reply.status_code, detail["loc"]) == (422, ["body", "documents[0]"])
    assert detail["msg"] == reply.json()["error"]["message"]


def test_a_body_of_vllm_may_name_its_request(client: Client) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS, "request_id": "mine"}
    reply = client.post("/vllm/rerank", **body)
    assert (reply.json()["id"], reply.headers["x-request-id"]) == ("rerank-mine", "mine")
    reply = client.ask("POST", "/vllm/rerank", json=body, headers={"X-Request-Id": "other"})
    assert reply.json()["id"] == "rerank-other"
    reply = client.post("/vllm/score", text_1=QUERY, text_2=DOCUMENTS, request_id="no header\r\nholds: it")
    assert reply.headers["x-crossrank-unread"] == "request_id"
    assert client.post("/vllm/score", text_1=QUERY, text_2="x", request_id="mine").json()["id"] == "score-mine"


BODY = {"query": " tea ", "documents": [" a\n", "b"]}


def test_infinity_strips_white_space_and_names_a_number_that_it_does_not_read() -> None:
    asked = infinity.read({**BODY, "top_n": 1, "top_k": 2})
    assert (asked.pairs, asked.documents) == ((("tea", "a"), ("tea", "b")), ("a", "b"))
    assert (asked.k, asked.unread) == (1, ("top_k",))


@pytest.mark.parametrize("tokens", [0, -1, None])
def test_a_truncation_of_vllm_to_nothing_is_none(tokens: int | None) -> None:
    asked = vllm.read({**BODY, "truncate_prompt_tokens": tokens, "truncation_side": "left", "top_n": 2, "top_k": 1})
    assert (asked.caps, asked.k, asked.unread) == (Caps(), 2, ("top_k", "truncation_side"))
    caps = vllm.read({**BODY, "max_tokens_per_query": 3, "max_tokens_per_doc": 4, "truncate_prompt_tokens": 5}).caps
    assert (caps.query, caps.document, caps.pair, caps.left) == (3, 4, 5, False)


@pytest.mark.parametrize("dialect", [infinity.INFINITY, jina.JINA, tei.TEI, vllm.RERANK, voyage.VOYAGE])
def test_documents_that_come_back_are_those_of_their_places(dialect: Dialect) -> None:
    name = "texts" if dialect is tei.TEI else "documents"
    body = {"query": "tea", name: ["a", "b", "c"], "return_documents": True, "return_text": True}
    found = dialect.reply(dialect.read(body), Outcome("1", "m", 0, (2, 0), (0.9, 0.1), 7, 9))
    entries = found if isinstance(found, list) else found[dialect.key]
    told = [one.get("document", one.get("text")) for one in entries]
    assert [one["index"] for one in entries] == [2, 0]
    assert [one["text"] if isinstance(one, dict) else one for one in told] == ["c", "a"]


def test_headers_of_tei_are_milliseconds_of_what_they_are_called() -> None:
    timing = Timing(tokenize=0.001, queue=0.02, compute=0.3, total=4.0)
    told = tei.headers(Outcome("1", "m", 0, (), (), 7, 9, timing=timing))
    assert told == {
        "x-compute-time": "300", "x-compute-characters": "9", "x-compute-tokens": "7", "x-total-time": "4000",
        "x-tokenization-time": "1", "x-queue-time": "20", "x-inference-time": "300",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (400, "Empty", (400, "Empty")),
        (400, "BadRequestError", (422, "Validation")),
        (429, "OverloadedError", (429, "Overloaded")),
        (503, "UnavailableError", (503, "Unhealthy")),
        (504, "DeadlineError", (504, "Backend")),
    ],
)
def test_errors_of_tei_have_its_kinds(status: int, kind: str, told: tuple[int, str]) -> None:
    found, body = tei.refuse(RefusedError("why", status, kind), "1")
    assert (found, body["error_type"], body["error"]) == (*told, "why")


def test_embeddings_in_base64_are_the_same_numbers() -> None:
    # OpenAI's client asks for base64 unless it is told otherwise.
    vectors = np.float32([[0.25, -1.5], [3.0, 1e-7]])
    made = Embedded("m", vectors, 3)
    plain, packed = (openai.reply(Embed(("a", "b"), base64=form), made)["data"] for form in (False, True))
    assert [one["index"] for one in plain] == [one["index"] for one in packed] == [0, 1]
    for one, other in zip(plain, packed, strict=True):
        assert np.frombuffer(base64.b64decode(other["embedding"]), "<f4").tolist() == one["embedding"]
    for width in (1, 3):
        with pytest.raises(RefusedError, match=f"have 2 dimensions, not {width}"):
            Embed(("a",), widths={"dimensions": width}).check_width(2)


def test_metrics_do_not_say_when_each_series_began(client: Client) -> None:
    client.post("/v2/rerank", query=QUERY, documents=DOCUMENTS)
    assert "_created" not in client.ask("GET", "/metrics").text


def test_the_description_tells_errors_and_replies_as_they_are(client: Client) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="comes with schemathesis")
    described = openapi.document(client.service, keyed=True)
    responses = {path: next(iter(about.values()))["responses"] for path, about in described["paths"].items()}
    assert "401" not in responses["/health"]
    assert "401" not in responses["/tei/health"]
    assert "401" in responses["/info"]
    told = {path for path, answers in responses.items() if "422" in answers}
    assert "/v2/rerank" not in told
    assert {"/search", "/v1/score", "/jina/rerank"}.isdisjoint(told)
    assert "/weaviate/rerank" not in told
    assert {"/rerank", "/v1/rerank", "/tei/rerank", "/", "/infinity/rerank", "/infinity/embeddings"} <= told
    schemas = json.dumps(described["components"]["schemas"])
    for path, about in described["paths"].items():
        if "post" not in about:
            continue
        example = about["post"]["requestBody"]["content"]["application/json"]["schema"]["example"]
        for body in ({key: value for key, value in example.items() if key != "where"}, {"query": 3}):
            reply = client.post(path, **({**body, "documents": DOCUMENTS} if path == "/search" else body))
            content = about["post"]["responses"][str(reply.status_code)]["content"]["application/json"]["schema"]
            whole = {**content, "components": {"schemas": json.loads(schemas)}}
            jsonschema.Draft202012Validator(whole).validate(reply.json())


def test_a_server_remembers_scores(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend = Slow()
    scorer = crossrank.CrossEncoder(crossrank.load(tiny.cross_encoder(tmp_path / "model")).checkpoint, backend)
    service = Service(crossrank.CachedScorer(scorer, tmp_path / "scores"), batch_tokens=1024)
    service.start()
    try:
        client = Client(service)
        first = client.post("/v2/rerank", query=QUERY, documents=DOCUMENTS)
        computed = len(backend.calls)
        # Through the one thread that owns the backend.
        assert isinstance(service.reranker.scorer.uncached.backend, Shared)
        again = client.post("/v2/rerank", query=QUERY, documents=DOCUMENTS)
        assert len(backend.calls) == computed
        assert again.json()["results"] == first.json()["results"]
        assert (first.json()["usage"]["total_tokens"] > 0, again.json()["usage"]["total_tokens"]) == (True, 0)
        client.post("/v2/rerank", query=QUERY, documents=["bread is paris"])
        assert len(backend.calls) > computed
        service.reranker.scorer.close()
        (tmp_path / "scores").unlink()
        (tmp_path / "scores").mkdir()
        reply = client.post("/v2/rerank", query=QUERY, documents=DOCUMENTS)
        assert reply.json()["results"] == first.json()["results"]
        assert "the score cache" in caplog.text
    finally:
        service.stop()
