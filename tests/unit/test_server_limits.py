"""The gate: what is foreseen, and who is refused because of it; and what one body and one reply may hold."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

import crossrank
import tiny
from crossrank.server import bodies, replies
from crossrank.server.answering import Answering, Call, Job
from crossrank.server.app import build
from crossrank.server.batches import LARGE_SHARE
from crossrank.server.limits import Gate, Limits, Reach
from crossrank.server.metrics import Metrics
from crossrank.server.refusals import RefusedError
from crossrank.server.service import Service
from crossrank.server.speeds import Speed
from crossrank.server.tickets import Ticket
from crossrank.server.wire import openai
from serving import Slow, until

SPEED, EMBEDDING = Speed("score"), Speed("embed")


@pytest.fixture
def gate() -> Gate:
    """Of backends that compute 1000 tokens a second."""
    SPEED.rate = EMBEDDING.rate = 1000.0
    return Gate(Limits())


def admitted(gate: Gate, estimate: int, seconds: float, embedded: int = 0) -> AbstractContextManager[Ticket]:
    return gate.admitted({SPEED: estimate - embedded, EMBEDDING: embedded}, seconds)


def refused(gate: Gate, estimate: int, seconds: float) -> bool:
    try:
        with admitted(gate, estimate, seconds):
            return False
    except RefusedError as refusal:
        return refusal.status == 429 and refusal.retry_after is not None


def test_the_end_of_a_deadline_is_not_planned_away(gate: Gate) -> None:
    # Admitted up to its last moment, a tenth to a fifth of the requests of an overloaded server were late.
    with admitted(gate, 1000, 60.0):
        assert not refused(gate, 1000, 2.8)
        assert refused(gate, 1000, 2.5)


def test_what_requests_took_lately_is_foreseen(gate: Gate) -> None:
    assert gate.slip == 1.0
    for _ in range(60):
        with admitted(gate, 1000, 60.0) as ticket:
            # Three seconds instead of one: tokenizing, or another program on the machine.
            ticket.tokenizing, ticket.blocked = 1.0, 2.0
    assert gate.slip == pytest.approx(3.0, rel=0.02)
    with admitted(gate, 1000, 60.0):
        assert refused(gate, 1000, 7.5)
        assert not refused(gate, 1000, 8.5)


def test_who_leaves_and_who_is_quick_teach_nothing(gate: Gate) -> None:
    with admitted(gate, 1000, 60.0) as ticket:
        ticket.blocked = 30.0
        ticket.cancelled = True
    with admitted(gate, 1, 60.0) as ticket:
        ticket.blocked = 0.04
    assert gate.slip == 1.0


def test_an_embedder_behind_an_address_says_nothing_about_this_machine(gate: Gate) -> None:
    # After twenty searches of 1.5 s there, a rerank of 0.7 s was refused for its deadline of 5.
    for _ in range(60):
        with admitted(gate, 1000, 60.0) as ticket:
            ticket.arrived -= 30.0
            ticket.blocked = 1.0
    assert gate.slip == 1.0


def test_who_is_not_waited_for_has_nothing_left_to_compute(gate: Gate) -> None:
    with admitted(gate, 3000, 60.0) as ticket:
        assert refused(gate, 1000, 5.0)
        ticket.cancelled = True
        assert not refused(gate, 1000, 5.0)


def test_memory_is_not_held_for_who_has_left() -> None:
    # The thread of a request that was answered as late may ask when nobody gives back any more.
    gate = Gate(Limits(bytes=100))
    with gate.holding() as grow:
        grow(60)
    grow(60)
    with gate.holding() as other:
        other(100)
    # Who leaves gives back what he held, and no more.
    with gate.holding() as other:
        other(60)
        with gate.holding() as grow:
            grow(40)
        with gate.holding() as grow, pytest.raises(RefusedError, match="fill the memory"):
            grow(41)


def test_no_more_requests_are_under_way_than_allowed() -> None:
    gate = Gate(Limits(requests=2))
    with admitted(gate, 1, 60.0):
        with admitted(gate, 1, 60.0):
            assert refused(gate, 1, 60.0)
        assert not refused(gate, 1, 60.0)


def test_a_small_request_waits_for_small_ones_and_for_the_share_of_large_ones(gate: Gate) -> None:
    with admitted(gate, 20_000, 60.0):
        assert not refused(gate, 1000, 2.0)
        assert refused(gate, 20_000, 50.0)
    with admitted(gate, 20_000, 60.0), admitted(gate, 3000, 60.0):
        seconds = (3.0 / (1.0 - LARGE_SHARE) + 1.0) / 0.75
        assert refused(gate, 1000, 0.95 * seconds)
        assert not refused(gate, 1000, 1.05 * seconds)


def test_who_asks_again_when_told_to_is_let_in(gate: Gate) -> None:
    with admitted(gate, 4000, 60.0), pytest.raises(RefusedError) as late, admitted(gate, 1000, 2.0):
        pass
    # 5 s are needed and 1.5 of the deadline planned with: after 3 there is not enough, and 5 are more than it takes.
    assert late.value.retry_after == 4.0


def test_a_server_with_nothing_else_to_do_tries(gate: Gate) -> None:
    with admitted(gate, 1000, 60.0) as ticket:
        ticket.blocked = 1000.0
    assert gate.slip > 100
    assert not refused(gate, 1000, 1.1)


def test_a_quick_embedder_says_nothing_about_the_cross_encoder(gate: Gate) -> None:
    # One speed for both: after a while of embeddings a rerank of 10 s was let in that had 1 s.
    for _ in range(50):
        EMBEDDING.learn(1024, 0.01)
    assert SPEED.rate == 1000.0
    with pytest.raises(RefusedError, match=r"take 10\.0 s here"), admitted(gate, 10_000, 1.0):
        pass
    with admitted(gate, 10_000, 1.0, embedded=10_000) as ticket:
        # Nor does a rerank wait for long behind it.
        assert not refused(gate, 500, 1.0)
        assert sum(ticket.outstanding.values()) == pytest.approx(0.1, rel=0.05)
    # Half and half.
    half = Ticket.lasting(1.0, {SPEED: 1000, EMBEDDING: 1000})
    assert sum(half.outstanding.values()) == pytest.approx(1.01, rel=0.02)


def test_a_lone_query_does_not_stand_for_a_speed() -> None:
    # It is all overhead.
    speed = Speed("score", rate=1000.0)
    speed.learn(10, 1.0)
    assert speed.rate > 990


def test_what_nobody_has_measured_refuses_nothing(gate: Gate) -> None:
    SPEED.rate = 0.0
    with admitted(gate, 10**9, 1.0):
        assert not refused(gate, 10**9, 1.0)


def test_models_take_turns_so_a_quick_one_does_not_wait_for_all_of_a_slow_one(gate: Gate) -> None:
    slow, quick = Speed("score", "slow", 1024, rate=1000.0), Speed("score", "quick", 10_240, rate=10_000.0)
    with gate.admitted({slow: 40_000}, 60.0), gate.admitted({slow: 4000}, 60.0):
        # A second of its own, and a batch of the slow model meanwhile, of 44 seconds that wait for that one.
        with gate.admitted({quick: 10_240}, 3.0):
            pass
        with pytest.raises(RefusedError, match=r"about 2\.0 s of work"), gate.admitted({quick: 10_240}, 2.0):
            pass
        # Two of them: four batches.
        with (
            gate.admitted({quick: 10_240}, 60.0),
            pytest.raises(RefusedError, match=r"about 4\.1 s of work"),
            gate.admitted({quick: 10_240}, 4.0),
        ):
            pass
    # What does not fill a batch of its own waits for one of the other, which may be under way.
    with gate.admitted({slow: 3000}, 60.0), pytest.raises(RefusedError, match=r"about 1\.0 s of work"):
        gate.admitted({quick: 10}, 0.5).__enter__()
    # And of what waits of the other model no more than there is.
    with gate.admitted({slow: 100}, 60.0), gate.admitted({quick: 10}, 0.5):
        pass


def test_the_size_of_a_request_is_told_in_time(gate: Gate) -> None:
    # By tokens, four batches of the slow model stood behind what takes the quick one as long.
    slow, quick = Speed("score", "slow", 100, rate=1000.0), Speed("score", "quick", 10_000, rate=100_000.0)
    sizes = [Ticket.lasting(1.0, {speed: tokens}).batches for speed, tokens in ((slow, 400), (quick, 40_000))]
    assert sizes == [4.0, 4.0]
    assert Ticket.lasting(1.0, {slow: 200, quick: 20_000}).batches == 4.0
    ticket = Ticket.lasting(1.0, {slow: 400})
    ticket.tokens = 800
    assert ticket.batches == 8.0


def test_the_embedder_is_measured_at_the_start(tmp_path: Path) -> None:
    # By the cross-encoder's speed, large requests for embeddings were refused until it had embedded for a while.
    backend = Slow(rate=20_000.0)
    scorer = crossrank.CrossEncoder(
        crossrank.load(tiny.cross_encoder(tmp_path / "ce"), backend="fake").checkpoint, backend
    )
    made = Service(scorer, crossrank.load_embedder(tiny.bi_encoder(tmp_path / "be"), backend="fake"))
    made.start()
    made.stop()
    assert made.reranker.speed.rate <= 20_000.0
    assert made.embedding_speed.rate > 5 * made.reranker.speed.rate


def test_speeds_of_a_busy_minute_do_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Who is refused computes nothing, so that nothing taught the server that the machine was free again: large requests
    # got 413 for good, and a search with a budget said "enough for 0 of 20 passages".
    monkeypatch.setattr("crossrank.server.speeds.IDLE_SECONDS", 0.05)
    backend = Slow(rate=4000.0)
    scorer = crossrank.CrossEncoder(
        crossrank.load(tiny.cross_encoder(tmp_path / "ce"), backend="fake").checkpoint, backend
    )
    made = Service(scorer, crossrank.load_embedder(tiny.bi_encoder(tmp_path / "be"), backend="fake"))
    made.start()
    made.embedding_speed.rate = 4000.0
    gate, asked = Gate(Limits()), {made.reranker.speed: 100_000}
    with pytest.raises(RefusedError), gate.admitted(asked, 1.0):
        pass
    backend.rate = 1e9
    until(lambda: made.reranker.speed.rate > 200_000 and made.embedding_speed.rate > 200_000)
    assert made.reranker.speed.batch_tokens > 2000
    with gate.admitted(asked, 1.0):
        pass
    made.stop()


def test_time_that_is_left_is_not_called_the_deadline(gate: Gate) -> None:
    # A deadline of 50 ms was reported as one of 0.0395 s, which is what the body had left of it.
    with pytest.raises(RefusedError, match=r"and 39\.5 ms of the deadline are left"), admitted(gate, 1000, 0.0395):
        pass
    with admitted(gate, 1000, 60.0), pytest.raises(RefusedError, match=r"and 1\.5 s of the deadline are left"):
        admitted(gate, 1000, 1.5).__enter__()
    with pytest.raises(RefusedError, match=r"within the 0\.0395 s left of the deadline"):
        Ticket(deadline=0.0395, arrived=0.0).check()

    async def receive() -> Any:
        await asyncio.sleep(60)

    for seconds, within in ((0.01, r"the 0\.01 s left of the deadline"), (60.0, r"0\.02 s")):
        with pytest.raises(RefusedError, match=f"within {within}$"):
            asyncio.run(bodies.read(receive, (), Limits(body_seconds=0.02), lambda size: None, seconds))


# What a request is foreseen to take.


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With an index of three passages, on a backend that computes 1000 tokens a second."""
    pytest.importorskip("lance", reason="the index needs the search extra")
    from crossrank.index import Document, Index

    folder = tmp_path_factory.mktemp("limits")
    embedder = crossrank.load_embedder(tiny.bi_encoder(folder / "embedder"), backend="fake")
    index = Index.create(folder / "index", embedder, embedder.tokenizer)
    documents = [Document(f"{n}", f"paris is number {n}") for n in range(3)]
    index.add(documents, embedder, embedder.tokenizer)
    scorer = crossrank.load(tiny.cross_encoder(folder / "reranker"), backend="fake")
    made = Service(scorer, embedder, index, batch_tokens=1024)
    made.start()
    made.scheduler.measures = {}
    made.reranker.speed.rate = made.embedding_speed.rate = 1000.0
    yield made
    made.stop()


def understood(service: Service, path: str, body: dict[str, Any], limits: Limits | None = None) -> Job:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    answering = Answering(service, Gate(limits or Limits()), Metrics())
    call = Call("1", path, (), receive, 0.0)
    routes = {
        "/search": answering.search, "/v1/embeddings": answering.embed, "/score": answering.score,
        "/embed": answering.embed_bare,
    }  # fmt: skip
    return routes.get(path, answering.rerank)(call, body)


LONG = "paris " * 33_000


@pytest.mark.parametrize(
    ("path", "body", "most"),
    [
        ("/v2/rerank", {"query": "paris", "documents": [LONG] * 4, "max_tokens_per_doc": 20}, 120),
        ("/vllm/rerank", {"query": LONG, "documents": ["paris"] * 10, "max_tokens_per_query": 5}, 120),
        ("/vllm/rerank", {"query": "paris", "documents": [LONG], "truncate_prompt_tokens": 30}, 40),
        ("/v1/rerank", {"query": "paris", "documents": [LONG], "max_chunks_per_doc": 2}, 810),
        ("/v2/rerank", {"query": "paris", "documents": [LONG]}, 25_700),
        ("/v1/embeddings", {"input": LONG}, 550),
        ("/embed", {"inputs": LONG}, 550),
        ("/", {"inputs": LONG}, 550),
        ("/score", {"queries": ["a " * 2500] + ["paris"] * 99, "documents": ["paris"] * 100}, 1000),
        ("/search", {"query": "paris", "k": 1}, 480),
        ("/search", {"query": "paris", "depth": 1000}, 480),
        ("/search", {"query": "paris", "budget_ms": 200}, 210),
        ("/search", {"query": "paris", "rerank": False}, 10),
        ("/search", {"query": "paris", "documents": ["paris " * 20] * 300, "depth": 2}, 10_400),
    ],
)
def test_what_is_sent_but_not_read_is_not_foreseen(
    service: Service, path: str, body: dict[str, Any], most: int
) -> None:
    # Such requests got 413 for their own size, and others 429 for theirs.
    assert 0 < sum(understood(service, path, body).costs.values()) <= most


def test_words_that_are_not_read_are_not_counted(service: Service) -> None:
    body = {"query": "paris", "documents": [LONG] * 10}
    with pytest.raises(RefusedError, match="words"):
        understood(service, "/v2/rerank", body, Limits(tokens=100_000))
    understood(service, "/v2/rerank", {**body, "max_tokens_per_doc": 20}, Limits(tokens=100_000))


def test_words_are_counted_pair_by_pair() -> None:
    pairs = [("a " * 1000, "b")] + [("a", "b")] * 500
    Limits(tokens=2100).check_words(pairs, Reach(1000, 1000))
    with pytest.raises(RefusedError, match="words"):
        Limits(tokens=1900).check_words(pairs, Reach(1000, 1000))


# Bodies and replies.


@pytest.mark.parametrize(
    "value",
    [[[]] * 60, [{}] * 60, [1] * 110, ["a"] * 110, [{"a": 1}] * 60, [""] * 300, ['a"b,\\"'] * 110],
    ids=["lists", "objects", "numbers", "texts", "members", "empty", "quotes"],
)
def test_a_body_has_a_bounded_number_of_values(value: Any) -> None:
    # Python reads JSON in one go: 10 million empty lists stopped everybody for 4 s on an idle machine.
    for text in (json.dumps({"z": value}).encode(), json.dumps({"z": value}).encode("utf-16")):
        with pytest.raises(RefusedError) as refused:
            bodies.parse(text, 100)
        assert refused.value.status == 413


def test_what_texts_hold_is_no_value() -> None:
    body = {"query": 'a "quote", a \\ and [[[{{{,,,', "documents": ['[1, 2], {3}, \\"' * 100] * 90, "ü,": "[,\n"}
    for ascii_only in (True, False):
        text = json.dumps(body, ensure_ascii=ascii_only)
        assert bodies.parse(text.encode(), 100) == bodies.parse(text.encode("utf-16"), 100) == body


def test_as_many_values_as_a_body_may_have() -> None:
    body = {"documents": ["a"] * 98}
    assert bodies.parse(json.dumps(body).encode(), 100) == body


def test_a_reply_of_embeddings_is_bounded(service: Service) -> None:
    # 40 kB of texts became 81 MB.
    body = {"input": ["a"] * 100}
    with pytest.raises(RefusedError, match="base64") as refused:
        understood(service, "/v1/embeddings", body, Limits(reply=50_000))
    assert refused.value.status == 413
    understood(service, "/v1/embeddings", {**body, "encoding_format": "base64"}, Limits(reply=50_000))
    with pytest.raises(RefusedError, match=r"send fewer texts$"):
        understood(service, "/embed", {"inputs": ["a"] * 100}, Limits(reply=50_000))


@pytest.mark.parametrize("form", ["float", "base64"])
def test_the_size_of_a_reply_is_foreseen(service: Service, form: str) -> None:
    body = {"input": ["paris"] * 100, "encoding_format": form}
    reply = ask(service, "POST", "/v1/embeddings", json=body)
    assert service.embedder is not None
    assert len(reply.content) == pytest.approx(openai.read(body).size(service.embedder.width), rel=0.1)


def test_a_reply_is_written_result_by_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"index": n, "text": "ü\ud800" if n == 7 else "ü"} for n in range(50)]
    payload = {"id": "1", "data": rows, "none": None, "empty": [], "nested": {"rows": [1, [2]]}}
    sizes = []
    write = replies._written
    monkeypatch.setattr(replies, "_written", lambda value: sizes.append(len(write(value))) or write(value))
    assert json.loads(replies.encoded(payload)) == payload
    assert json.loads(replies.encoded(rows)) == rows
    # Python writes JSON in one go too: that of 10,000 vectors took 4 s.
    assert max(sizes) < 50


# What was read.


def ask(service: Service, method: str, path: str, **options: Any) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=build(service).app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            reply = await client.request(method, path, **options)
            reply.extensions["metrics"] = (await client.get("/metrics")).text
            return reply

    return asyncio.run(asked())


@pytest.mark.parametrize(
    ("body", "read"),
    [
        ({"rerank": False, "k": 1}, 0),
        ({"k": 1}, 3),
        ({"depth": 2}, 2),
        ({"documents": ["paris", "bread"], "depth": 1}, 2),
    ],
)
def test_documents_that_nobody_scored_are_not_counted(service: Service, body: dict[str, Any], read: int) -> None:
    reply = ask(service, "POST", "/search", json={"query": "paris", **body})
    assert reply.status_code == 200
    assert f'crossrank_documents_total{{model="reranker"}} {read}.0' in reply.extensions["metrics"]


@pytest.mark.alone
def test_waiting_for_an_index_is_no_tokenizing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nor is waiting for an embedder elsewhere: all of a search that the backend did not take was called so.
    def slow() -> Any:
        time.sleep(1.0)
        return type(service).latest(service)

    monkeypatch.setattr(service, "latest", slow)
    told = ask(service, "POST", "/search", json={"query": "paris"}).headers["server-timing"]
    took = {part.split(";")[0]: float(part.split("=")[1]) for part in told.split(", ")}
    assert took["tokenize"] < 900 < took["total"]


# What HTTP says.


def test_a_slash_too_many_is_no_redirect(service: Service) -> None:
    # It was one to http, whatever the address of the proxy in front.
    reply = ask(service, "POST", "/v1/rerank/", json={"query": "paris", "documents": ["paris"]})
    assert (reply.status_code, len(reply.json()["results"])) == (200, 1)


def test_a_compressed_body_is_told(service: Service) -> None:
    content = gzip.compress(b'{"query": "paris", "documents": ["paris"]}')
    reply = ask(service, "POST", "/v2/rerank", content=content, headers={"Content-Encoding": "gzip"})
    assert reply.status_code == 415
    assert "compressed" in reply.json()["message"]
    plain = {"query": "paris", "documents": ["paris"]}
    assert ask(service, "POST", "/v2/rerank", json=plain, headers={"Content-Encoding": "identity"}).status_code == 200
