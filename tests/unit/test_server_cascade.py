"""`POST /search` with `coarse`: a cheaper model reads first, and `model` only the best of what it leaves."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import crossrank
import tiny
from crossrank.cascade import Stage, rerank
from crossrank.falling import published
from crossrank.pipeline import MIX, open_pipeline
from crossrank.planner import ADVICE
from crossrank.server import openapi
from crossrank.server.guard import ACCESS
from crossrank.server.limits import estimate
from crossrank.server.rerankers import Reranker
from crossrank.server.searches import Search, foreseen, texts_read
from crossrank.server.service import Service
from crossrank.server.speeds import Speed
from crossrank.stopping import Stopping
from crossrank.types import Passage, Ranking
from serving import asked, serving

QUERY = "what is the capital of France?"
ABOUT = ["Paris is the capital of France", "Lyon is a city in France", "Bread needs yeast", "The capital is Paris"]
TEXTS = [f"{ABOUT[n % 4]}, says number {n}." for n in range(90)]
# Documents as this server reads them: none has an embedder, so they are taken as given.
GIVEN = [text if n else " " for n, text in enumerate(TEXTS[:30])]


@pytest.fixture(scope="module")
def scorers() -> dict[str, crossrank.CrossEncoder]:
    made = {"small": crossrank.load("small"), "tiny": crossrank.load("tiny")}
    return {**made, "cheap": made["tiny"]}


@pytest.fixture(scope="module")
def service(scorers: dict[str, crossrank.CrossEncoder]) -> Iterator[Service]:
    made = Service(scorers)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def rates(service: Service, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Speed]:
    """The speeds by name, which stay as a test sets them."""
    monkeypatch.setattr(Speed, "learn", lambda *batch: None)
    for speed in service.speeds:
        monkeypatch.setattr(speed, "rate", 1e6)
    return {name: one.speed for name, one in service.rerankers.items()}


def ask(service: Service, **body: Any) -> httpx.Response:
    return asked(service, "/search", {"query": QUERY, **body})


def test_it_agrees_with_the_pipeline_over_an_index(tmp_path: Path, scorers: dict[str, crossrank.CrossEncoder]) -> None:
    pytest.importorskip("lance", reason="the index needs the search extra")
    from crossrank.index import Document, Index

    embedder = crossrank.load_embedder()
    index = Index.create(tmp_path / "i", embedder, embedder.tokenizer, model="embed")
    index.add([Document(f"{n}", text) for n, text in enumerate(TEXTS)], embedder, embedder.tokenizer)
    # As one that was tuned in a search: each model has a share of its own, unless the request names one.
    own = copy.copy(scorers["small"])
    own.checkpoint = replace(own.checkpoint, mix=0.8)
    scorers = {**scorers, "small": own}
    made = Service(scorers, embedder, index)
    made.start()
    try:
        for more in ({}, {"depth": 30}, {"depth": 1}, {"mix": 1.0}, {"stop_early": True, "k": 5}):
            body: dict[str, Any] = {"k": 70, "depth": 80, "columns": 100, **more}
            whole = open_pipeline(
                tmp_path / "i", scorers["small"], coarse=[scorers["tiny"]], embedder=embedder,
                depth=body["depth"], mix=body.get("mix"), stop_early="stop_early" in more,
            )  # fmt: skip
            assert [stage.weight for stage in whole.stages] == [body.get("mix", MIX), body.get("mix", 0.8)]
            want = whole.search(QUERY, body["k"])
            reply = ask(made, coarse="tiny", **body).json()
            assert [one["id"] for one in reply["results"]] == list(want.ranking.ids)
            assert [one["score"] for one in reply["results"]] == pytest.approx(published(want.ranking), abs=1e-3)
            assert [step["name"] for step in reply["steps"]] == ["bm25", "dense", "fused", "coarse", "reranked"]
            for trace, step, column in zip(want.traces[-2:], reply["steps"][-2:], reply["columns"][-2:], strict=True):
                assert (step["passages"], step["stopped"]) == (len(trace.scores), trace.stopped or None)
                found = {one["id"]: one["logit"] for one in column["entries"] if one["logit"] is not None}
                seen = {id_: trace.scores[id_] for id_ in trace.ranking.ids[:100] if id_ in trace.scores}
                assert found == pytest.approx(seen, abs=1e-3)
            assert reply["read"] == len(want.traces[-1].scores)
            chances = whole.relevance(want).probabilities
            assert [one["probability"] for one in reply["results"]] == pytest.approx(chances, abs=1e-3)
        assert ask(made, k=5).json()["coarse"] is None
    finally:
        made.stop()


@pytest.mark.parametrize("more", [{}, {"mix": 0.4}, {"mix": 0.4, "stop_early": True, "k": 3}, {"depth": 21}])
def test_documents_are_read_coarse_to_fine_too(
    service: Service, scorers: dict[str, crossrank.CrossEncoder], more: dict[str, Any]
) -> None:
    texts = GIVEN if "stop_early" not in more else TEXTS
    depth, k, mix = more.get("depth", len(texts)), more.get("k", 10), more.get("mix", 1.0)
    given = Ranking.sorted([str(n + 1) for n in range(len(texts))], -np.arange(1, len(texts) + 1, dtype=np.float32))
    rule = Stopping(k=k) if "stop_early" in more else None
    stages = [
        Stage(scorers["tiny"], depth, mix, "coarse", stopping=rule),
        Stage(scorers["small"], min(50, depth // 2), mix, "reranked", stopping=rule),
    ]
    want, traces = rerank(QUERY, given, stages, lambda ids: [Passage(id_, texts[int(id_) - 1]) for id_ in ids])
    reply = ask(service, documents=texts, coarse="tiny", **more).json()
    assert [one["id"] for one in reply["results"]] == list(want.ids[:k])
    assert [one["score"] for one in reply["results"]] == pytest.approx(published(want.cut(k)), abs=1e-3)
    assert [step["passages"] for step in reply["steps"][1:]] == [len(trace.scores) for trace in traces]
    assert (reply["model"], reply["coarse"], reply["read"]) == ("small", "tiny", len(traces[-1].scores))
    if rule is not None:
        # The rule of the first stage keeps what the second reads: at k=3 alone it ends after 32.
        assert len(traces[0].scores) > 45


def test_each_step_tells_what_its_own_model_says(service: Service, scorers: dict[str, crossrank.CrossEncoder]) -> None:
    reply = ask(service, documents=TEXTS[:8], coarse="cheap", k=8, evidence=True).json()
    assert (reply["coarse"], reply["read"], len(reply["results"])) == ("cheap", 4, 8)
    for row, result in enumerate(reply["results"]):
        coarse, fine = result["steps"]["coarse"], result["steps"]["reranked"]
        for step, name in ((coarse, "tiny"), (fine, "small")):
            logit = scorers[name].score([(QUERY, result["text"])])
            if step is coarse or row < 4:
                assert step["logit"] == pytest.approx(float(logit[0]), abs=1e-3)
                assert step["probability"] == pytest.approx(float(scorers[name].probability(logit)[0]), abs=1e-3)
        # What only the first has read has no probability: the last one's are the answer's.
        assert (result["probability"] is None) == (fine["logit"] is None) == (row >= 4)
    scores = [result["score"] for result in reply["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(result["evidence"] for result in reply["results"])


def test_the_model_finds_the_evidence(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    readers: list[str] = []
    plain = Reranker.score

    def score(self: Reranker, *asked: Any, **more: Any) -> Any:
        readers.append(self.name)
        return plain(self, *asked, **more)

    monkeypatch.setattr(Reranker, "score", score)
    reply = ask(service, documents=[f"{TEXTS[2]} {TEXTS[0]}"] * 2, coarse="tiny", evidence=True).json()
    start, stop = reply["results"][0]["evidence"]
    assert reply["results"][0]["text"][start:stop] == TEXTS[0]
    assert readers[:2] == ["tiny", "small"]
    assert set(readers[2:]) == {"small"}


def budgeted(service: Service, rates: Mapping[str, Speed], coarse: float, fine: float, **more: Any) -> httpx.Response:
    """A search that is to take 60 s, in which the models read about so many of ten documents of one length."""
    one = estimate([(QUERY, TEXTS[0])], service.reranker.reach())
    rates["tiny"].rate = coarse * one / (ADVICE.coarse * 60.0)
    rates["small"].rate = fine * one / 60.0
    return ask(service, documents=[TEXTS[0]] * 10, coarse="tiny", budget_ms=60_000, **more)


def test_a_budget_is_divided(service: Service, rates: Mapping[str, Speed]) -> None:
    reply = budgeted(service, rates, 7.5, 3.5).json()
    assert reply["warnings"] == [
        "coarse: the budget was enough for 7 of 10 passages",
        "reranked: the budget was enough for 3 of 5 passages",
    ]
    steps = [(step["name"], step["passages"], step["stopped"]) for step in reply["steps"][1:]]
    assert steps == [("coarse", 7, "deadline"), ("reranked", 3, "deadline")]
    # The second reads of nothing but what the first has sorted.
    assert budgeted(service, rates, 2.5, 9.5).json()["read"] == 2
    assert budgeted(service, rates, 30, 30).json()["warnings"] == []


def test_where_the_coarse_one_has_no_time_the_other_reads_alone(service: Service, rates: Mapping[str, Speed]) -> None:
    reply = budgeted(service, rates, 0.5, 30).json()
    assert ([step["name"] for step in reply["steps"]], reply["read"]) == (["given", "reranked"], 10)
    assert reply["warnings"] == ["coarse: the budget was enough for 0 of 10 passages"]
    alone = ask(service, documents=[TEXTS[0]] * 10).json()
    assert [one["probability"] for one in reply["results"]] == [one["probability"] for one in alone["results"]]


def test_probabilities_are_of_the_last_that_has_read(
    service: Service, rates: Mapping[str, Speed], scorers: dict[str, crossrank.CrossEncoder]
) -> None:
    # As `Pipeline.relevance`: in the budget the model came to nothing.
    reply = budgeted(service, rates, 30, 0.5, threshold=0.0)
    found = reply.json()
    assert (found["read"], [step["name"] for step in found["steps"]]) == (0, ["given", "coarse"])
    chance = float(scorers["tiny"].probability(scorers["tiny"].score([(QUERY, TEXTS[0])]))[0])
    assert [one["probability"] for one in found["results"]] == pytest.approx([chance] * 10, abs=1e-3)
    assert reply.headers["x-crossrank-score"] == service.rerankers["tiny"].score_kind
    assert found["warnings"] == ["reranked: the budget was enough for 0 of 5 passages"]
    none = budgeted(service, rates, 0.5, 0.5, threshold=0.0)
    assert (none.json()["read"], len(none.json()["results"])) == (0, 10)
    assert none.json()["warnings"][-1].startswith("the threshold was not used")
    assert "x-crossrank-score" not in none.headers


def test_a_threshold_is_held_against_what_the_last_that_has_read_says(
    service: Service, rates: Mapping[str, Speed], scorers: dict[str, crossrank.CrossEncoder]
) -> None:
    first, last = (
        float(scorers[name].probability(scorers[name].score([(QUERY, TEXTS[0])]))[0]) for name in ("tiny", "small")
    )
    between = (first + last) / 2
    assert abs(first - last) > 1e-3
    # Only the coarse one has read, then both, and what the model has not read is left out.
    assert len(budgeted(service, rates, 30, 0.5, threshold=between).json()["results"]) == (10 if first > last else 0)
    assert len(budgeted(service, rates, 30, 30, threshold=between).json()["results"]) == (5 if last > first else 0)


def test_what_either_cuts_is_told_once_a_document() -> None:
    made = Service({name: crossrank.load(name, max_length=32, max_windows=1) for name in ("small", "tiny")})
    made.start()
    try:
        # The second of the documents is the best, so that the model reads it at another place than the coarse one.
        reply = ask(made, documents=[TEXTS[2], f"{TEXTS[0]} " * 9, TEXTS[2]], coarse="tiny")
    finally:
        made.stop()
    assert reply.json()["steps"][2]["passages"] == 1
    assert reply.headers["x-crossrank-truncated"] == "1"
    assert [one.partition(" was")[0] for one in reply.json()["warnings"]] == [
        "coarse: passage 2",
        "reranked: passage 2",
    ]


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        ({"coarse": "small"}, 400, "small reads last already: name a cheaper model as coarse, or leave it out"),
        ({"coarse": "cheap", "model": "tiny"}, 400, "cheap is tiny, and so reads last already: name a cheaper model"),
        ({"coarse": "tiny", "rerank": False}, 400, "coarse reads for the cross-encoder: leave out rerank and mix"),
        ({"coarse": "tiny", "mix": 0}, 400, "coarse reads for the cross-encoder"),
        ({"coarse": 5}, 400, "coarse must be a string"),
        ({"coarse": ["tiny"]}, 400, "coarse must be a string"),
        ({"coarse": "fast"}, 404, "no model 'fast' reranks here; there are small (the default), tiny, cheap"),
    ],
)
def test_what_cannot_read_first_is_refused(service: Service, more: dict[str, Any], status: int, said: str) -> None:
    reply = ask(service, documents=TEXTS[:3], **more)
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, "coarse"), reply.text
    assert reply.json()["message"].startswith(said)
    assert ask(service, documents=TEXTS[:3], **{**more, "coarse": None}).status_code == 200


def test_no_documents_give_no_results(service: Service) -> None:
    assert ask(service, documents=[], coarse="tiny").json()["results"] == []
    one = ask(service, documents=TEXTS[:1], coarse="tiny").json()
    assert (one["read"], one["steps"][1]["passages"]) == (1, 1)
    few = ask(service, documents=TEXTS[:9], coarse="tiny", depth=5).json()
    assert few["warnings"] == ["depth leaves 4 of 9 documents unread: raise it, or leave it out to read all"]
    assert (few["read"], few["steps"][1]["passages"]) == (2, 5)


def test_a_script_without_words_is_told_by_step(service: Service) -> None:
    warnings = asked(service, "/search", {"query": "где музей?", "documents": TEXTS[:3], "coarse": "tiny"}).json()[
        "warnings"
    ]
    assert [one.split(" the model has no words")[0] for one in warnings] == ["coarse:", "reranked:"]


def test_what_both_read_is_foreseen(service: Service, rates: Mapping[str, Speed]) -> None:
    small, coarse = service.reranker, service.rerankers["tiny"]
    documents = tuple(Passage(f"{n}", TEXTS[0]) for n in range(20))
    one = estimate([(QUERY, TEXTS[0])], small.reach())
    search = Search(QUERY, depth=20, documents=documents, coarse=coarse)

    def costs(**more: Any) -> tuple[int, int]:
        made = foreseen(service, small, replace(search, **more))
        return made.get(coarse.speed, 0) // one, made[small.speed] // one

    assert costs() == (20, 10)
    assert costs(coarse=None) == (0, 20)
    assert costs(mix=0.0) == (0, 0)
    assert costs(documents=()) == (0, 0)
    # A budget of ten seconds: four of them for the first, and the other reads no more than this leaves.
    rates["tiny"].rate, rates["small"].rate = 1.6 * one, 1.0 * one
    assert costs(budget=10.0) == (6, 6)
    rates["tiny"].rate = 1.6 * 8 * one
    assert costs(budget=10.0) == (20, 8)
    rates["tiny"].rate, rates["small"].rate = 0.1 * one, 1e6
    assert costs(budget=10.0) == (0, 20)


def test_the_limits_count_what_each_reads(service: Service) -> None:
    documents = tuple(Passage(f"{n}", "paris " * (n + 1)) for n in range(8))
    search = Search(QUERY, depth=6, documents=documents, coarse=service.rerankers["tiny"])

    def lengths(**more: Any) -> list[list[int]]:
        read = texts_read(service, service.reranker, replace(search, **more))
        return [[text.count("paris") for _, text in pairs] for pairs, _ in read]

    # The longest count: it is not known which the first leaves.
    assert lengths() == [[1, 2, 3, 4, 5, 6], [6, 5, 4]]
    assert lengths(budget=1.0) == [[1, 2, 3, 4, 5, 6]] * 2
    assert lengths(coarse=None) == [[1, 2, 3, 4, 5, 6]]
    assert lengths(mix=0.0) == []


def test_metrics_and_log_tell_both_models(
    scorers: dict[str, crossrank.CrossEncoder], caplog: pytest.LogCaptureFixture
) -> None:
    with serving(scorers) as made, caplog.at_level(logging.INFO, ACCESS.name):
        for more in ({"coarse": "cheap"}, {"coarse": "nobody"}, {}):
            made.client.post("/search", json={"query": QUERY, "documents": TEXTS[:10], **more})
        told = made.client.get("/metrics").text
    assert 'crossrank_documents_total{model="small"} 15.0' in told
    assert 'crossrank_documents_total{model="cheap"} 10.0' in told
    assert "nobody" not in told
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == ACCESS.name]
    search = [line for line in lines if line["path"] == "/search"]
    assert [(line.get("coarse"), line["documents"]) for line in search if line["status"] == 200] == [
        ("cheap", 10), (None, 10),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`plain` gives no probabilities, `second` does and has no threshold of its own; `alias` is `second`."""
    folder = tmp_path_factory.mktemp("kinds")
    identity = {"activation_fn": "torch.nn.modules.linear.Identity"}
    plain = crossrank.load(tiny.cross_encoder(folder / "plain", sentence_transformers=identity), backend="fake")
    second = crossrank.load(tiny.cross_encoder(folder / "second"), backend="fake")
    made = Service({"second": second, "plain": plain, "alias": second}, batch_tokens=1024)
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("more", "fits"),
    [
        ({"coarse": "plain"}, True),
        ({"coarse": None, "rerank": False}, True),
        ({"coarse": "plain", "rerank": False}, False),
        ({"coarse": "plain", "mix": 0}, False),
        ({"coarse": "second"}, False),
        ({"coarse": "alias", "model": None}, False),
        ({"coarse": "alias", "model": "second"}, False),
        ({"coarse": "alias", "model": "plain"}, True),
        ({"coarse": "plain", "model": "plain"}, False),
        ({"coarse": "nobody"}, False),
        ({"coarse": 1}, False),
        ({"coarse": "plain", "threshold": 0.1}, True),
        # The coarse one may be the last that reads, and has none.
        ({"coarse": "plain", "threshold": 0.1, "budget_ms": 500}, False),
        ({"coarse": "plain", "threshold": 0.1, "budget_ms": None}, True),
        ({"coarse": "plain", "budget_ms": 500}, True),
        ({"coarse": "alias", "model": "plain", "threshold": 0.1}, False),
    ],
)
def test_the_description_agrees(kinds: Service, more: dict[str, Any], fits: bool) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="comes with schemathesis")
    about = openapi.document(kinds)["paths"]["/search"]["post"]
    schema = about["requestBody"]["content"]["application/json"]["schema"]
    body = {"query": QUERY, "documents": TEXTS[:3], **more}
    assert jsonschema.Draft202012Validator(schema).is_valid(body) == fits
    assert (asked(kinds, "/search", body).status_code == 200) == fits


def test_one_model_has_no_other_before_it(scorers: dict[str, crossrank.CrossEncoder]) -> None:
    made = Service({"a": scorers["tiny"], "b": scorers["tiny"]})
    made.start()
    try:
        about = openapi.document(made)["paths"]["/search"]["post"]
        schema = about["requestBody"]["content"]["application/json"]["schema"]
        assert schema["properties"]["coarse"]["enum"] == [None]
        assert ask(made, documents=TEXTS[:2], model="a", coarse="b").json()["error"]["param"] == "coarse"
    finally:
        made.stop()
