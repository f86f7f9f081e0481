"""A server of several models: which of them a request is for, and what they have in common."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crossrank
import tiny
from crossrank.errors import RemoteError
from crossrank.remotereranker import RemoteReranker
from crossrank.server import openapi
from crossrank.server.guard import ACCESS
from crossrank.server.service import Service
from crossrank.server.speeds import MOST_TOKENS
from crossrank.server.wire import dialects
from serving import Slow, asked, serving, until

QUERY = "what is the capital of france?"
BODY = {"query": QUERY, "documents": ["bread", "paris"]}
# Where its own product names the model of a request, and the field of the documents.
PATHS = {
    "/rerank": "documents", "/v1/rerank": "documents", "/v2/rerank": "documents", "/jina/v1/rerank": "documents",
    "/voyage/v1/rerank": "documents", "/vllm/v1/rerank": "documents", "/infinity/rerank": "documents",
    "/tei/rerank": "texts", "/": "texts", "/cohere/v2/rerank": "documents",
}  # fmt: skip


def scorer(folder: Path, rate: float = 1e9, **config: Any) -> crossrank.CrossEncoder:
    read = crossrank.load(tiny.cross_encoder(folder, **config), backend="fake").checkpoint
    return crossrank.CrossEncoder(read, Slow(rate))


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, crossrank.CrossEncoder]:
    """`first` gives plain sigmoids, and `second` probabilities that its authors trained; `alias` is `second`."""
    folder = tmp_path_factory.mktemp("models")
    identity = {"activation_fn": "torch.nn.modules.linear.Identity"}
    second = scorer(folder / "second")
    return {"first": scorer(folder / "first", sentence_transformers=identity), "second": second, "alias": second}


@pytest.fixture(scope="module")
def service(scorers: dict[str, crossrank.CrossEncoder]) -> Iterator[Service]:
    made = Service(scorers, batch_tokens=1024)
    made.start()
    yield made
    made.stop()


def calls(scorers: dict[str, crossrank.CrossEncoder], name: str) -> int:
    backend = scorers[name].backend
    assert isinstance(backend, Slow)
    return len(backend.calls)


@pytest.mark.parametrize("path", [*PATHS, "/search"])
def test_the_model_that_is_named_is_the_one_that_reads(
    service: Service, scorers: dict[str, crossrank.CrossEncoder], path: str
) -> None:
    body = {"query": QUERY, PATHS.get(path, "documents"): ["bread", "paris"]}
    for name, reads, other in ((None, "first", "second"), ("first", "first", "second"), ("alias", "second", "first")):
        before = calls(scorers, reads), calls(scorers, other)
        reply = asked(service, path, body if name is None else {**body, "model": name})
        assert reply.status_code == 200, reply.text
        assert (calls(scorers, reads) > before[0], calls(scorers, other)) == (True, before[1])
        assert reply.headers["x-crossrank-score"] == {"first": "sigmoid", "second": "trained"}[reads]
        if not isinstance(reply.json(), list):
            assert reply.json()["model"] == (name or "first")


@pytest.mark.parametrize("path", [*PATHS, "/search", "/score"])
def test_a_model_that_is_not_served_is_refused_with_those_that_are(service: Service, path: str) -> None:
    body = {"query": QUERY, PATHS.get(path, "documents"): ["bread", "paris"]}
    if path == "/score":
        body = {"text_1": QUERY, "text_2": ["bread"]}
    reply = asked(service, path, {**body, "model": "rerank-english-v3.0"})
    told = "no model 'rerank-english-v3.0' reranks here; there are first (the default), second, alias"
    assert (reply.status_code, reply.json()["message"]) == (404, told)
    # Whoever sends megabytes gets a short answer.
    assert len(asked(service, path, {**body, "model": "x" * 100_000}).content) < 2000
    for wrong in (5, ["first"], {"name": "first"}, True):
        reply = asked(service, path, {**body, "model": wrong})
        assert reply.json()["message"] == "model must be a string"
        assert reply.status_code in (400, 422)


def test_one_model_answers_whatever_clients_of_other_products_call_theirs(
    scorers: dict[str, crossrank.CrossEncoder],
) -> None:
    made = Service(scorers["first"], batch_tokens=1024)
    made.start()
    try:
        for name in ("rerank-english-v3.0", "", 5, None):
            reply = asked(made, "/v1/rerank", {**BODY, "model": name})
            assert (reply.status_code, reply.json()["model"]) == (200, "first")
        # Of crossrank's own search no field is passed over.
        assert asked(made, "/search", {**BODY, "model": "first"}).status_code == 200
        reply = asked(made, "/search", {**BODY, "model": "rerank-english-v3.0"})
        told = "no model 'rerank-english-v3.0' reranks here; there is first"
        assert (reply.status_code, reply.json()["message"]) == (404, told)
    finally:
        made.stop()


def test_a_service_has_a_model() -> None:
    with pytest.raises(crossrank.CrossrankError, match="needs a model"):
        Service({})


def test_two_names_of_one_model_share_its_place(service: Service) -> None:
    assert len(service.loaded) == len(service.speeds) == 2
    assert service.rerankers["alias"].speed is service.rerankers["second"].speed


def test_info_and_the_list_name_every_model(tmp_path: Path, scorers: dict[str, crossrank.CrossEncoder]) -> None:
    embedder = crossrank.load_embedder(tiny.bi_encoder(tmp_path / "embedder"), backend="fake")
    with serving(scorers, embedder=embedder) as made:
        info = made.client.get("/info").json()
        assert [one["name"] for one in info["models"]] == ["first", "second", "alias"]
        assert (info["model"], info["model_id"]) == (info["models"][0], "first")
        assert [one["probability"] for one in info["models"]] == ["sigmoid", "trained", "trained"]
        assert info["models"][1]["fingerprint"] == scorers["second"].fingerprint
        for path in dialects.MODELS:
            names = [one["id"] for one in made.client.get(path).json()["data"]]
            assert names == ["first", "second", "alias", "embedder"]
            assert all(made.client.get(f"{path}/{name}").json()["id"] == name for name in names)


@pytest.mark.parametrize("path", ["", "/v2", "/jina/v1", "/voyage/v1", "/vllm", "/infinity"])
def test_our_own_client_chooses_in_every_dialect(scorers: dict[str, crossrank.CrossEncoder], path: str) -> None:
    pairs = [(QUERY, "bread"), (QUERY, "paris")]
    with serving(scorers) as made:
        found = RemoteReranker(f"{made.listener.url.rstrip('/')}{path}", "alias").score(pairs)
        assert np.argmax(found) == np.argmax(scorers["second"].score(pairs))
        with pytest.raises(RemoteError, match="no model 'nobody' reranks here; there are first"):
            RemoteReranker(f"{made.listener.url.rstrip('/')}{path}", "nobody").score(pairs)
        lines = made.client.get("/metrics").text.splitlines()
        counted = [line for line in lines if line.startswith("crossrank_requests_total") and 'status="200"' in line]
        assert ["alias" if 'model="alias"' in line else line for line in counted if "rerank" in line] == ["alias"]


def test_metrics_and_log_name_the_model(
    scorers: dict[str, crossrank.CrossEncoder], caplog: pytest.LogCaptureFixture
) -> None:
    with serving(scorers) as made, caplog.at_level(logging.INFO, ACCESS.name):
        for name, documents in (("first", 1), ("alias", 2), ("nobody", 3)):
            made.client.post("/v2/rerank", json={**BODY, "documents": ["paris"] * documents, "model": name})
        told = made.client.get("/metrics").text
    for line in (
        'crossrank_requests_total{dialect="cohere",model="alias",route="/v2/rerank",status="200"} 1.0',
        # A stranger's name is no label: there would be as many series as strangers like.
        'crossrank_requests_total{dialect="cohere",model="",route="/v2/rerank",status="404"} 1.0',
        'crossrank_documents_total{model="first"} 1.0',
        'crossrank_documents_total{model="alias"} 2.0',
        'crossrank_tokens_total{lane="score",model="second"}',
        'crossrank_tokens_per_second{model="first"}',
        'crossrank_backend_seconds_total{model="second"}',
    ):
        assert line in told, line
    assert "nobody" not in told
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == ACCESS.name]
    assert [line.get("model") for line in lines if line["path"] == "/v2/rerank"] == ["first", "alias", None]


def test_a_slow_model_does_not_hold_up_a_quick_one(tmp_path: Path) -> None:
    slow, quick = scorer(tmp_path / "slow", rate=10_000.0), scorer(tmp_path / "quick")
    with serving({"slow": slow, "quick": quick}) as made:
        made.service.rerankers["slow"].speed.rate = 10_000.0
        # 5 s of the slow model.
        body = {"query": QUERY, "documents": [f"paris {n} " * 10 for n in range(2000)], "model": "slow"}
        one = threading.Thread(target=lambda: made.client.post("/v2/rerank", json=body, timeout=60))
        one.start()
        try:
            until(lambda: made.service.scheduler.queued_tokens > 5000)
            # Foreseen by tokens alone, or behind all that waits, this was refused.
            reply = made.client.post(
                "/v2/rerank", json={**BODY, "model": "quick"}, headers={"X-Crossrank-Deadline-Ms": "2000"}
            )
            assert reply.status_code == 200, reply.text
            assert one.is_alive()
            reply = made.client.post(
                "/v2/rerank", json={**body, "documents": body["documents"][:200]},
                headers={"X-Crossrank-Deadline-Ms": "600"},
            )  # fmt: skip
            assert reply.status_code in (429, 413), reply.text
        finally:
            one.join()


def test_each_model_is_measured_for_itself(tmp_path: Path) -> None:
    made = Service({"slow": scorer(tmp_path / "slow", rate=50_000.0), "quick": scorer(tmp_path / "quick")})
    made.start()
    try:
        slow, quick = (made.rerankers[name].speed for name in ("slow", "quick"))
        assert 0 < slow.rate <= 50_000 < quick.rate
        # 20 ms of each.
        assert slow.batch_tokens < 1200 < quick.batch_tokens <= MOST_TOKENS
        assert set(made.scheduler.measures) == {slow, quick}
    finally:
        made.stop()


def test_a_busy_model_does_not_keep_another_from_being_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One clock for all: while one model has requests, what another program slowed down kept the other's out for good.
    monkeypatch.setattr("crossrank.server.speeds.IDLE_SECONDS", 0.05)
    made = Service({"busy": scorer(tmp_path / "busy"), "other": scorer(tmp_path / "other")}, batch_tokens=64)
    made.start()
    try:
        made.rerankers["other"].speed.rate = 1.0
        for _ in range(200):
            assert asked(made, "/v2/rerank", {**BODY, "documents": ["paris"] * 20}).status_code == 200
            if made.rerankers["other"].speed.rate > 1000.0:
                break
        assert made.rerankers["other"].speed.rate > 1000.0
    finally:
        made.stop()


def test_one_file_of_scores_serves_all_models(tmp_path: Path, scorers: dict[str, crossrank.CrossEncoder]) -> None:
    kept = {name: crossrank.CachedScorer(scorers[name], tmp_path / "scores") for name in ("first", "second")}
    made = Service(kept, batch_tokens=1024)
    made.start()
    try:
        for name in ("first", "second"):
            # The files have other weights, or other probabilities of the same: no model is told another's scores.
            first = asked(made, "/v2/rerank", {**BODY, "model": name}).json()
            before = calls(scorers, name)
            again = asked(made, "/v2/rerank", {**BODY, "model": name}).json()
            assert again["results"] == first["results"]
            assert calls(scorers, name) == before
    finally:
        made.stop()


def test_the_description_knows_the_models(service: Service, scorers: dict[str, crossrank.CrossEncoder]) -> None:
    paths = openapi.document(service)["paths"]
    for path in ("/v2/rerank", "/jina/rerank", "/tei/rerank", "/v1/score", "/search"):
        schema = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["properties"]["model"]["enum"] == ["first", "second", "alias", None]
        assert asked(service, path, schema["example"]).status_code == 200
        assert "404" in paths[path]["post"]["responses"]
    one = openapi.document(Service(scorers["first"]))["paths"]["/v2/rerank"]
    assert "enum" not in one["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]["model"]


@pytest.mark.parametrize(
    ("more", "fits"),
    [
        ({"threshold": 0.1}, False),
        ({"threshold": 0.1, "model": None}, False),
        ({"threshold": 0.1, "model": "first"}, False),
        ({"threshold": 0.1, "model": "second"}, True),
        ({"threshold": "model", "model": "second"}, False),
        ({"model": "first"}, True),
        ({"model": "nobody"}, False),
        ({}, True),
    ],
)
def test_a_threshold_is_one_of_the_model_that_is_asked(service: Service, more: dict[str, Any], fits: bool) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="comes with schemathesis")
    about = openapi.document(service)["paths"]["/search"]["post"]
    schema = about["requestBody"]["content"]["application/json"]["schema"]
    body = {**BODY, **more}
    assert jsonschema.Draft202012Validator(schema).is_valid(body) == fits
    assert (asked(service, "/search", body).status_code == 200) == fits
