"""What requests mean: which dialect, how much is read, what a search does; and the examples of the documentation."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest

import crossrank
import serving
import tiny
from crossrank.encoder import Windows
from crossrank.errors import IndexFileError
from crossrank.server import page, telling
from crossrank.server.app import build
from crossrank.server.cutting import Caps
from crossrank.server.limits import Limits
from crossrank.server.refusals import RefusedError
from crossrank.server.searches import Search
from crossrank.server.searching import search
from crossrank.server.service import Service
from crossrank.server.tickets import Ticket
from crossrank.server.wire import cohere, dialects, fields, vllm

QUERY = "what is the capital of france?"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    pytest.importorskip("lance", reason="the index needs the search extra")
    identity = {"activation_fn": "torch.nn.modules.linear.Identity"}
    with serving.searching(tmp_path_factory.mktemp("wire"), documents=30, sentence_transformers=identity) as made:
        yield made


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
        ("/v1/rerank", {"top_k": 1}, "voyage"),
        ("/v1/rerank", {"truncation": False}, "voyage"),
        ("/rerank", {"raw_scores": True}, "infinity"),
        ("/v2/rerank", {"truncate_prompt_tokens": -1}, "vllm"),
        ("/vllm/rerank", {"texts": []}, "vllm"),
        ("/jina/v1/rerank", {"top_k": 1}, "jina"),
        ("/cohere/v2/rerank", {}, "cohere"),
        # Null asks for nothing: whoever sends all fields that it knows got another product's shape.
        ("/rerank", dict.fromkeys(("texts", "top_k", "truncation", "raw_scores", "truncate_prompt_tokens")), "cohere"),
    ],
)
def test_which_dialect(path: str, body: dict[str, Any], name: str) -> None:
    assert dialects.of(path, body).name == name


def test_a_field_that_is_refused_may_be_null() -> None:
    body = {"query": "x", "documents": ["y"], "instruction": None}
    assert vllm.read({**body, "normalize": None}).documents == ("y",)
    with pytest.raises(RefusedError, match="normalize is not a parameter"):
        vllm.read({**body, "normalize": False})
    with pytest.raises(RefusedError, match="a request sets no instruction; leave it out"):
        vllm.read({**body, "instruction": "Find the law"})


def test_null_does_not_choose_a_version() -> None:
    assert dialects.of("/rerank", {"rank_fields": None, "max_chunks_per_doc": None}) is cohere.V2
    assert dialects.of("/rerank", {"rank_fields": ["title"]}) is cohere.V1


@pytest.mark.parametrize("field", ["texts", "top_k", "truncation", "raw_scores", "use_activation"])
def test_a_path_of_cohere_speaks_cohere_whatever_the_fields(field: str) -> None:
    # With these fields the reply had another product's shape.
    for version, dialect in (("1", cohere.V1), ("2", cohere.V2)):
        assert dialects.of(f"/cohere/v{version}/rerank", {field: False}) is dialect


@pytest.mark.parametrize(
    ("name", "value"), [("n", "3"), ("n", True), ("n", 1.5), ("n", -1), ("n", [3]), ("flag", 1), ("flag", "true")]
)
def test_fields_of_the_wrong_kind_are_named(name: str, value: Any) -> None:
    with pytest.raises(RefusedError) as refused:
        fields.whole({name: value}, name) if name == "n" else fields.flag({name: value}, name, False)
    assert refused.value.param == name


@pytest.mark.parametrize(
    ("read", "body", "param", "message"),
    [
        (fields.text, {"f": {"text": " \n"}}, "f", "f is empty"),
        (fields.texts, {"f": [{"text": ["tea"]}]}, "f[0]", "f[0] must hold its text"),
        (fields.texts, {"f": ["tea", {"content": []}]}, "f[1].content", "holds no part"),
        (
            fields.texts,
            {"f": [{"content": [{"type": "text", "text": "tea"}, {"type": "x" * 999, "text": "?"}]}]},
            "f[0].content[1]",
            f"is a part of type '{'x' * 64}', and only text",
        ),
        (fields.whole, {"f": 1.5}, "f", "not 1.5"),
        (fields.whole, {"f": True}, "f", "not true or false"),
        (fields.whole, {"f": -1}, "f", "at least 0, not -1"),
        (lambda body, name: fields.whole(body, name, 1), {"f": 0}, "f", "at least 1, or left out, not 0"),
        (lambda body, name: fields.either(body, name, "g", 1), {"f": 0}, "f", "at least 1"),
        (lambda body, name: fields.whole(body, name, 2), {"f": 1}, "f", "at least 2, not 1"),
        (lambda body, name: fields.number(body, name, 0, 1), {"f": True}, "f", "must be a number, not true or false"),
        (lambda body, name: fields.number(body, name, 0, 1), {"f": 1.001}, "f", "from 0 to 1, not 1.001"),
        (lambda body, name: fields.document(body[name], name, " or a cure"), {"f": {}}, "f", '"content" or a cure'),
    ],
)
def test_what_a_field_cannot_be_is_said(read: Any, body: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read(body, "f")
    assert refused.value.param == param
    assert message in str(refused.value)


def test_what_a_field_may_be() -> None:
    parts = [{"type": "text", "text": "green"}, {"type": "text", "text": "tea"}]
    assert fields.texts({"f": [{"content": parts}, {"text": "", "content": None}]}, "f") == ("green\ntea", "")
    assert fields.whole({"f": 2}, "f", 2) == 2
    assert [fields.count({"f": n}, "f") for n in (0, None, 3)] == [None, None, 3], "0 asks for all"
    assert [fields.either(body, "f", "g") for body in ({"f": 0}, {"f": 0, "g": 2}, {"f": 2, "g": 2})] == [
        (None, ()),
        (None, ("g",)),
        (2, ()),
    ]
    found = [fields.number({"f": n}, "f", 0, 1) for n in (0, 1)]
    assert (found, [type(n) for n in found]) == ([0.0, 1.0], [float, float])
    assert [fields.flag({"f": flag}, "f", True) for flag in (None, False)] == [True, False]
    assert [fields.choice({"f": word}, "f", ["a", "b"], "b") for word in (None, "a")] == ["b", "a"]
    assert fields.unread({"model": "m", "priority": 0, "other": 1}, ()) == ("other",)


def test_caps_cut_what_is_read(service: Service) -> None:
    long, ticket = "paris " * 50, Ticket.lasting(60)
    cut = service.reranker.score([(QUERY, long)], ticket, Caps(document=3))
    whole = service.reranker.score([(QUERY, "paris paris paris")], ticket)
    assert cut.scores.tolist() == whole.scores.tolist()
    assert [(one.position, one.read, one.lost) for one in cut.truncations] == [(0, 3, True)]


def test_cuts_are_reported_at_their_places(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossrank.server.cutting._DOCUMENTS", 2)
    texts = ["paris", "paris " * 60, "bread", "bread " * 60, "bread is paris"]
    body = {"query": QUERY, "documents": texts, "max_tokens_per_doc": 2}
    reply = ask(service, "POST", "/v2/rerank", json=body)
    assert reply.headers["x-crossrank-truncated"] == "3"
    told = reply.json()["meta"]["warnings"]
    assert [one.split(" was")[0] for one in told] == ["document 1", "document 3", "document 4"]
    assert told[2] == "document 4 was not read whole: 2 of 3 tokens"
    made = service.embed(texts, Ticket.lasting(60))
    assert [cut.position for cut in made.truncations] == [1, 3]
    reply = ask(service, "POST", "/v1/embeddings", json={"input": texts})
    assert reply.headers["x-crossrank-truncated"] == "2"
    assert "x-crossrank-truncated" not in ask(service, "POST", "/v1/embeddings", json={"input": "paris"}).headers


def test_vllm_truncates_from_the_side_that_it_is_told(service: Service) -> None:
    def score(**more: Any) -> httpx.Response:
        body = {"query": QUERY, "documents": ["bread " * 30 + "paris"], **more}
        return ask(service, "POST", "/vllm/rerank", json=body)

    def alone(document: str) -> Any:
        return ask(service, "POST", "/vllm/rerank", json={"query": QUERY, "documents": [document]}).json()

    room = 1 + service.reranker.scorer.scored([(QUERY, "paris")]).tokens
    for side, document in (("left", "bread paris"), ("right", "bread bread"), (None, "bread bread")):
        found = score(truncate_prompt_tokens=room, truncation_side=side).json()
        wanted = alone(document)
        assert found["usage"] == wanted["usage"]
        assert found["results"][0]["relevance_score"] == wanted["results"][0]["relevance_score"]
    assert score(truncate_prompt_tokens=8).json()["usage"]["prompt_tokens"] == 8
    for side in ("bogus", 5):
        refused = score(truncation_side=side)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "truncation_side")


def test_a_name_of_megabytes_is_cut_before_it_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def quoted(name: str, **options: Any) -> str:
        lengths.append(len(name))
        return quote(name, **options)

    monkeypatch.setattr(telling, "quote", quoted)
    told = telling.ignored(["\u00e9" * 5_000_000, "", "threshold"])
    assert told == {"X-Crossrank-Unread": f'{"%C3%A9" * 10}%C3%, "", threshold'}
    assert max(lengths) == 64


def test_a_server_reaches_as_far_as_its_windows_are_read(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.reranker.scorer, "windows", Windows(20, 5, "first", 8))
    assert service.reranker.reach().document == service.reranker.reach(Caps(windows=3)).document == 20


def test_fields_without_a_text_are_not_read() -> None:
    documents = [
        {"t": "Tea.", "n": 3, "a": ["x", True], "b": None}, {"t": "", "n": None}, {"t": "  "}, {"b": "Bread."}, "plain",
    ]  # fmt: skip
    body = {"query": QUERY, "documents": documents, "rank_fields": ["t", "n", "a", "b"]}
    read = [text for _, text in dialects.of("/v1/rerank", body).read(body).pairs]
    assert read == ['t: Tea.\nn: 3\na: ["x", true]', "", "", "b: Bread.", "plain"]
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for document, why in (({"text": "Tea."}, "none of the rank_fields"), ({"t": deep}, "nested too deeply")):
        with pytest.raises(RefusedError, match=why):
            dialects.of("/v1/rerank", body).read({**body, "documents": [document]})


def test_an_empty_document_of_rank_fields_comes_last(service: Service) -> None:
    body = {"query": QUERY, "documents": [{"t": ""}, {"t": "bread"}], "rank_fields": ["t"]}
    results = ask(service, "POST", "/v1/rerank", json=body).json()["results"]
    assert [(one["index"], one["relevance_score"] > 0) for one in results] == [(1, True), (0, False)]


def test_no_candidates_are_not_the_whole_index(service: Service) -> None:
    for more in ({}, {"rerank": False}, {"columns": 5, "evidence": True, "budget_ms": 500}):
        reply = ask(service, "POST", "/search", json={"query": QUERY, "documents": [], **more})
        assert reply.status_code == 200
        assert (reply.json()["results"], reply.json()["read"]) == ([], 0)
    assert ask(service, "POST", "/search", json={"query": QUERY, "documents": None}).json()["results"]


def test_all_candidates_are_read_unless_a_depth_says_fewer(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    # Beyond the first 100 none was read, without a word.
    documents = [*(f"bread {n}" for n in range(150)), "paris"]
    for embedder in (service.embedder, None):
        monkeypatch.setattr(service, "embedder", embedder)
        reply = ask(service, "POST", "/search", json={"query": QUERY, "documents": documents}).json()
        assert (reply["read"], reply["warnings"]) == (151, [])
        wanted = service.reranker.scorer.rank(QUERY, documents).positions[:10]
        assert [int(one["id"]) - 1 for one in reply["results"]] == list(wanted)
    body = {"query": QUERY, "documents": documents, "depth": 100}
    reply = ask(service, "POST", "/search", json=body).json()
    assert reply["read"] == 100
    assert reply["warnings"] == ["depth leaves 51 of 151 documents unread: raise it, or leave it out to read all"]
    assert not ask(service, "POST", "/search", json={**body, "rerank": False}).json()["warnings"]


def test_numbers_that_no_float_can_hold_are_refused(service: Service) -> None:
    for name in ("mix", "budget_ms", "k", "depth"):
        refused = ask(service, "POST", "/search", json={"query": "x", name: 10**400})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, name)
    for path, name in (("/vllm/rerank", "truncate_prompt_tokens"), ("/v1/rerank", "max_chunks_per_doc")):
        body = {"query": "x", "documents": ["a"], name: 10**400}
        assert ask(service, "POST", path, json=body).status_code == 200


def test_half_of_a_surrogate_pair_is_read(service: Service) -> None:
    body = {"query": "tea \ud800", "documents": ["bread \ud800" * 20], "truncate_prompt_tokens": 20}
    for more in ({}, {"max_tokens_per_query": 2, "max_tokens_per_doc": 3, "truncation_side": "left"}):
        assert ask(service, "POST", "/vllm/rerank", content=json.dumps({**body, **more})).status_code == 200


def test_a_failing_index_is_told_to_the_log_alone(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Any:
        try:
            raise OSError("secret-text of a request")
        except OSError as error:
            raise IndexFileError("the index /secret-folder failed; make it anew (secret-text)") from error

    monkeypatch.setattr(service, "latest", fail)
    with caplog.at_level(logging.ERROR, "crossrank.server"):
        reply = ask(service, "POST", "/search", json={"query": QUERY})
    assert reply.status_code == 503
    assert "secret" not in reply.text
    assert "/secret-folder failed; make it anew" in caplog.text
    assert "secret-text" not in caplog.text


def test_scoring_in_chunks_agrees_with_the_library(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossrank.server.cutting._DOCUMENTS", 7)
    pairs = [(QUERY, text) for text in [*(f"bread {n}" for n in range(30)), "", "paris " * 4000, "bread 3"]]
    found = service.reranker.score(pairs, Ticket.lasting(60))
    wanted = service.reranker.scorer.scored(pairs)
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
    search(made, made.reranker, Search("paris"), Ticket.lasting(10.0))
    assert made.index is before, "nothing was committed, so nothing is opened again"
    other.add([Document("new", "paris in spring")], embedder, embedder.tokenizer)
    found = search(made, made.reranker, Search("paris"), Ticket.lasting(10.0))
    assert {found.passages[id_].document for id_ in found.ranking.ids} == {"old", "new"}
    other.remove(["old"])
    found = search(made, made.reranker, Search("paris"), Ticket.lasting(10.0))
    assert {found.passages[id_].document for id_ in found.ranking.ids} == {"new"}
    made.stop()


def test_every_client_is_told_of_a_script_that_the_model_has_no_words_in(service: Service) -> None:
    body = {"query": "где музей?", "documents": ["paris is a city", "bread"]}
    (said,) = ask(service, "POST", "/v2/rerank", json=body).json()["meta"]["warnings"]
    assert "has no words in the query's script (Cyrillic)" in said
    assert "warnings" not in ask(service, "POST", "/v2/rerank", json={**body, "query": "paris"}).json()["meta"]
    bodies = {"/v1/rerank": body, "/voyage/rerank": body, "/tei/rerank": {"query": body["query"], "texts": ["paris"]}}
    # Replies of others have no place for it.
    for path, asked in bodies.items():
        assert ask(service, "POST", path, json=asked).headers["x-crossrank-caution"] == said
        assert "x-crossrank-caution" not in ask(service, "POST", path, json={**asked, "query": "paris"}).headers


def test_a_search_agrees_with_the_pipeline(service: Service) -> None:
    found = search(
        service, service.reranker, Search(QUERY, k=5, depth=20, mix=0.5, columns=20, evidence=True), Ticket.lasting(60)
    )
    assert [trace.name for trace in found.traces] == ["bm25", "dense", "fused", "reranked"]
    assert [trace.how for trace in found.traces][2:] == [
        "0.4 bm25 + 0.6 dense, standardized; less 0.3 ln(200 / tokens) standard deviations under 200 tokens",
        "0.5 of its score, 0.5 of the one before",
    ]
    assert len(found.ranking) == 5
    assert found.read == 20
    assert set(found.ranking.ids) <= set(found.passages)
    for id_, span in zip(found.ranking.ids, found.evidence, strict=True):
        text = found.passages[id_].text
        assert text[span[0] : span[1]] in ("paris is a city.", text[17:])
    unranked = search(service, service.reranker, Search(QUERY, k=5, depth=20, mix=0), Ticket.lasting(60))
    assert unranked.read == 0
    assert list(unranked.ranking.ids) == list(found.traces[2].ranking.ids[:5])


def test_filters_and_their_mistakes(service: Service) -> None:
    body = {"query": QUERY, "where": ["n>=25"], "k": 10, "rerank": False}
    results = ask(service, "POST", "/search", json=body).json()["results"]
    assert results
    assert all(result["metadata"]["n"] >= 25 for result in results)
    assert ask(service, "POST", "/search", json={**body, "where": ["n ~ 3"]}).status_code == 400


def test_a_budget_bounds_what_is_read(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.reranker.speed, "rate", 1000.0)
    found = search(service, service.reranker, Search(QUERY, depth=30, budget=0.2), Ticket.lasting(60))
    assert 0 <= found.read < 30
    assert found.notes == (f"the budget was enough for {found.read} of 30 passages",)
    monkeypatch.setattr(service.reranker.speed, "rate", 1e9)
    assert search(service, service.reranker, Search(QUERY, depth=10, budget=30), Ticket.lasting(60)).notes == ()


def test_every_example_of_the_documentation_works(service: Service) -> None:
    described = ask(service, "GET", "/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, about in methods.items():
            content = about.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            if path == "/search":
                content["example"]["where"] = ["n>=2"]
            path = path.replace("{name}", service.reranker.name)
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


def test_a_limit_must_be_a_finite_number_over_0() -> None:
    for wrong in ({"documents": 0}, {"drain_seconds": math.inf}, {"seconds": math.nan}):
        with pytest.raises(crossrank.CrossrankError, match=next(iter(wrong))):
            Limits(**wrong)


def test_folders_of_models_are_not_told(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.cross_encoder(tmp_path / "secret-folder" / "model")
    monkeypatch.chdir(tmp_path)
    for name in (folder, "secret-folder/model"):
        made = Service(crossrank.load(name, backend="fake"))
        assert made.reranker.name == "model"
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


@pytest.mark.parametrize(
    "stated", [b"0", b"900001", b"0000000000019999999999", b"9" * 400, b"\xb2", b"1_0", b"-5", b""]
)
def test_what_a_deadline_cannot_be(service: Service, stated: bytes) -> None:
    body = {"query": QUERY, "documents": ["paris"]}
    reply = ask(service, "POST", "/v2/rerank", json=body, headers={b"X-Crossrank-Deadline-Ms": stated})
    assert reply.status_code == 400
    assert "from 1 to 900000 milliseconds" in reply.text


def test_two_names_for_the_documents_of_a_score_are_refused(service: Service) -> None:
    reply = ask(service, "POST", "/v1/score", json={"text_1": QUERY, "text_2": ["paris"], "documents": ["bread"]})
    assert reply.status_code == 400
    assert "only one" in reply.text


def test_a_search_refuses_fields_that_it_does_not_know(service: Service) -> None:
    body = {"query": QUERY, "documents": ["paris"], "filter": "year>=2020"}
    reply = ask(service, "POST", "/search", json=body)
    assert reply.status_code == 400
    assert "there is no field 'filter'; there are query, model, coarse, k, depth" in reply.text


def test_a_bad_document_is_named_by_its_place(service: Service) -> None:
    reply = ask(service, "POST", "/v2/rerank", json={"query": QUERY, "documents": ["paris", "bread", None]})
    assert reply.status_code == 400
    assert "documents[2] must be a string" in reply.text


@pytest.mark.parametrize("dialect", ["cohere", "jina", "voyage", "vllm", "infinity", "tei"])
def test_a_document_may_call_its_text_content(service: Service, dialect: str) -> None:
    # It was told to hold an image, though it is a plain string, which the command line reads.
    name = "texts" if dialect == "tei" else "documents"
    path = "/cohere/v2/rerank" if dialect == "cohere" else f"/{dialect}/rerank"

    def scores(document: Any) -> Any:
        reply = ask(service, "POST", path, json={"query": QUERY, name: [document]})
        assert reply.status_code in (200, 400, 422), reply.text
        body = reply.json()
        if reply.status_code != 200:
            return body["message"]
        (entry,) = body if dialect == "tei" else body["data" if dialect == "voyage" else "results"]
        return entry.get("score", entry.get("relevance_score"))

    assert scores({"content": "paris", "text": None}) == scores({"content": "paris"}) == scores("paris")
    assert "keep one" in scores({"content": "paris", "text": "bread"})
    assert scores({"content": [{"type": "text", "text": "paris"}]}) == scores("paris")
    assert "of type 'image_url'" in scores({"content": [{"type": "image_url"}]})
    assert "image" in scores({"image": "https://example.org/a.png"})


@pytest.mark.parametrize("dialect", ["cohere", "jina", "voyage", "vllm", "infinity", "tei"])
def test_fields_that_are_not_read_are_named(service: Service, dialect: str) -> None:
    # "threshold" was answered with everything, and nobody was told.
    body = {"query": QUERY, "texts" if dialect == "tei" else "documents": ["paris"]}
    path = "/cohere/v1/rerank" if dialect == "cohere" else f"/{dialect}/rerank"
    assert "x-crossrank-unread" not in ask(service, "POST", path, json={**body, "user": None}).headers
    reply = ask(service, "POST", path, json={**body, "threshold": 0.5, "topn": 1})
    assert reply.headers["x-crossrank-unread"] == "threshold, topn"
    if dialect == "cohere":
        (warning,) = reply.json()["meta"]["warnings"]
        assert warning.startswith("not read: threshold, topn; the fields that are read here are model, query, ")


def test_names_of_fields_that_are_not_read_are_bounded_and_fit_a_header(service: Service) -> None:
    names = ["\u00e9\r\nx: y", "z" * 90, *(f"f{n}" for n in range(30))]
    reply = ask(service, "POST", "/v2/rerank", json={"query": QUERY, "documents": [], **dict.fromkeys(names, 1)})
    told = reply.headers["x-crossrank-unread"].split(", ")
    assert (told[0], told[1], len(told)) == ("%C3%A9%0D%0Ax%3A%20y", "z" * 64, 20)
    half = '{"query": "x", "documents": [], "\\ud800": 1}'
    assert ask(service, "POST", "/v2/rerank", content=half).headers["x-crossrank-unread"] == "%3F"
    unnamed = {"query": "x", "documents": [], "0": 1, "": 1}
    assert ask(service, "POST", "/v2/rerank", json=unnamed).headers["x-crossrank-unread"] == '0, ""'
    reply = ask(service, "POST", "/v1/embeddings", json={"input": "paris", "late_chunking": True})
    assert reply.headers["x-crossrank-unread"] == "late_chunking"


@pytest.mark.parametrize(
    ("kind", "before"),
    [(None, "bread "), ("query", "the "), ("search_query", "the "), ("document", "bread "), ("passage", "bread ")],
)
def test_embeddings_of_queries_and_documents(service: Service, tmp_path: Path, kind: str | None, before: str) -> None:
    """As Voyage, NVIDIA and Cohere name the two; OpenAI's clients say nothing, and mean documents."""
    folder = tiny.bi_encoder(tmp_path / "embedder")
    asking = copy.copy(service)
    asking.embedder = crossrank.load_embedder(folder, query_prompt="the ", document_prompt="bread ")
    reply = ask(asking, "POST", "/v1/embeddings", json={"input": "paris", "input_type": kind})
    wanted = crossrank.load_embedder(folder).embed([f"{before}paris"])[0]
    np.testing.assert_allclose(reply.json()["data"][0]["embedding"], wanted, atol=1e-6)
    assert "x-crossrank-unread" not in reply.headers
    assert ask(asking, "POST", "/v1/embeddings", json={"input": "paris", "input_type": "x"}).status_code == 400


@pytest.mark.parametrize(
    ("path", "more", "before"),
    [
        ("/jina/v1/embeddings", {"input": [{"text": "paris"}], "task": "retrieval.query"}, "the "),
        ("/jina/v1/embeddings", {"input": ["paris"], "task": "retrieval.passage"}, "bread "),
        ("/jina/v1/embeddings", {"input": ["paris"], "task": None}, "bread "),
        ("/voyage/v1/embeddings", {"input": "paris", "input_type": "query", "output_dimension": 32}, "the "),
    ],
)
def test_embeddings_of_jinas_and_voyages_clients(
    service: Service, tmp_path: Path, path: str, more: dict[str, Any], before: str
) -> None:
    """The addresses that the docs give those clients had rerank alone."""
    folder = tiny.bi_encoder(tmp_path / "embedder")
    asking = copy.copy(service)
    asking.embedder = crossrank.load_embedder(folder, query_prompt="the ", document_prompt="bread ")
    reply = ask(asking, "POST", path, json={"model": "theirs", **more})
    wanted = crossrank.load_embedder(folder).embed([f"{before}paris"])[0]
    np.testing.assert_allclose(reply.json()["data"][0]["embedding"], wanted, atol=1e-6)
    assert {"data", "model", "usage", "object"} <= reply.json().keys()
    assert ask(asking, "POST", path, json={"input": "paris", "output_dimension": 33}).status_code == 400
    assert ask(asking, "POST", path, json={"input": "paris", "task": ["x"]}).status_code == 400
    # Bytes of float32 were read as integers, and the wrong field was named.
    for wrong, named in (({"output_dtype": "int8"}, "output_dtype"), ({"embedding_type": "binary"}, "embedding_type"),
                         ({"dimensions": 32, "output_dimension": 16}, "output_dimension"),
                         ({"input_type": "document", "task": "retrieval.query"}, "task")):  # fmt: skip
        refused = ask(asking, "POST", path, json={"input": "paris", **wrong})
        assert refused.status_code == 400
        assert named in refused.text
    assert isinstance(
        ask(asking, "POST", path, json={"input": "paris", "embedding_type": "base64"}).json()["data"][0]["embedding"],
        str,
    )
    assert ask(asking, "POST", path, json={"input": [{"text": "paris", "image": "x"}]}).status_code == 400


@pytest.mark.parametrize("path", ["/embed", "/tei/embed", "/", "/invocations", "/tei"])
def test_embeddings_of_text_embeddings_inference(service: Service, tmp_path: Path, path: str) -> None:
    folder = tiny.bi_encoder(tmp_path / "embedder")
    asking = copy.copy(service)
    asking.embedder = crossrank.load_embedder(folder, query_prompt="the ", document_prompt="bread ")
    long = "paris " * 60
    texts, plain = ["paris", long], crossrank.load_embedder(folder)
    reply = ask(asking, "POST", path, json={"inputs": texts, "normalize": True, "truncation_direction": "Left"})
    np.testing.assert_allclose(reply.json(), plain.embed([f"bread {text}" for text in texts]), atol=1e-6)
    assert reply.headers["x-crossrank-truncated"] == "1"
    assert reply.headers["x-crossrank-unread"] == "truncation_direction"
    assert reply.headers["x-compute-characters"] == str(sum(map(len, texts)))
    assert {"x-compute-tokens", "x-inference-time", "x-queue-time"} <= reply.headers.keys()
    reply = ask(asking, "POST", path, json={"inputs": "paris", "normalize": False, "truncation_direction": "Right"})
    assert reply.headers["x-crossrank-unread"] == "normalize"
    assert np.linalg.norm(reply.json()) == pytest.approx(1, abs=1e-6)
    reply = ask(asking, "POST", path, json={"inputs": "paris", "prompt_name": "query", "truncate": False})
    np.testing.assert_allclose(reply.json(), plain.embed(["the paris"]), atol=1e-6)
    for wrong, says in (
        ({"inputs": long, "truncate": False}, "not read whole: .* leave out truncate"),
        ({"inputs": "paris", "normalize": 1}, "normalize must be true or false"),
        ({"inputs": ["paris", 3]}, r"inputs\[1\] must be a string, not a number"),
        ({"inputs": {"text": "paris"}}, "inputs must be a string, not an object"),
        ({"inputs": "paris", "dimensions": 16}, "have 32 dimensions, not 16"),
        ({"inputs": "paris", "prompt_name": "other"}, "prompt_name must be one of query, "),
    ):
        refused = ask(asking, "POST", path, json=wrong)
        assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")
        assert re.search(says, refused.json()["error"])
    empty = ask(asking, "POST", path, json={"inputs": []})
    assert (empty.status_code, empty.json()["error_type"]) == (400, "Empty")
    asking.embedder = None
    assert ask(asking, "POST", path, json={"inputs": "paris"}).status_code == 404


def test_one_model_is_told_as_the_list_tells_it(service: Service) -> None:
    # OpenAI's client retrieves it, and got 404.
    listed = ask(service, "GET", "/v1/models").json()["data"]
    assert len(listed) == 2
    for told in listed:
        for path in ("/models", "/v1/models", "/infinity/models", "/vllm/v1/models", "/jina/v1/models"):
            found = ask(service, "GET", f"{path}/{told['id']}").json()
            # Each question makes a server of its own here.
            assert found | {"created": 0} == told | {"created": 0}
    for path in ("/v1/models/gpt-4", "/v1/models/a/b", "/v1/models/..%2F..%2Fetc"):
        refused = ask(service, "GET", path)
        assert (refused.status_code, refused.json()["error"]["param"]) == (404, "model"), path
        assert refused.json()["error"]["message"].startswith("no such model is served")


def test_who_asks_and_how_soon_is_not_read_and_named(service: Service) -> None:
    body = {"query": QUERY, "documents": ["paris"], "priority": 7, "user": "x"}
    assert ask(service, "POST", "/v2/rerank", json=body).headers["x-crossrank-unread"] == "priority, user"


def test_two_numbers_of_documents_are_one_or_the_other_is_named(service: Service) -> None:
    # The schema that the server publishes takes both, so two that differ are no error.
    body = {"query": QUERY, "documents": ["paris", "bread"], "top_k": 1}
    for other, unread in ((1, None), (2, "top_n"), (None, None)):
        reply = ask(service, "POST", "/v1/rerank", json={**body, "top_n": other})
        assert (reply.status_code, len(reply.json()["data"])) == (200, 1)
        assert reply.headers.get("x-crossrank-unread") == unread


def test_the_version_in_the_path_decides(service: Service) -> None:
    body = {"query": QUERY, "documents": ["paris"], "rank_fields": ["text"]}
    for path, version in (("/v2/rerank", "2"), ("/cohere/v2/rerank", "2"), ("/v1/rerank", "1"), ("/rerank", "1")):
        reply = ask(service, "POST", path, json=body)
        assert reply.json()["meta"]["api_version"]["version"] == version
        assert reply.headers.get("x-crossrank-unread") == ("rank_fields" if version == "2" else None)
