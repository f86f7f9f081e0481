"""What the reply of `POST /search` says besides its results: what was not read, and why nothing was found."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

import crossrank
import serving
import tiny
from crossrank.cascade import Stage, rerank
from crossrank.evidence import pairs
from crossrank.pipeline import MIX, Pipeline
from crossrank.retrieval.first import first_stage, usual_fusion
from crossrank.server.app import build
from crossrank.server.limits import Limits, estimate
from crossrank.server.searches import Search, foreseen
from crossrank.server.service import Service
from crossrank.server.speeds import Speed
from crossrank.stopping import Stopping
from crossrank.types import Passage, Ranking


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    pytest.importorskip("lance", reason="the index needs the search extra")
    with serving.searching(tmp_path_factory.mktemp("search"), documents=3) as made:
        yield made


def ask(service: Service, **body: Any) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=build(service).app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/search", json=body)

    return asyncio.run(asked())


def test_candidates_that_the_embedder_does_not_read_whole_are_told(service: Service) -> None:
    # The cross-encoder reads long ones in windows, and what the embedder had left unread was told nobody.
    assert service.embedder is not None
    room = service.embedder.room
    reply = ask(service, query="paris", documents=["bread", "paris " * (room + 9), "paris"])
    assert reply.json()["warnings"] == [f"dense: passage 2 was not read whole: {room} of {room + 9} tokens"]
    assert reply.headers["x-crossrank-truncated"] == "1"


def test_queries_go_through_the_queue(service: Service) -> None:
    assert service.embedder is not None
    assert service.embedder.queries.backend is service.embedder.backend


def test_candidates_are_compared_with_the_query_as_the_embedder_reads_it(service: Service, tmp_path: Path) -> None:
    asking = copy.copy(service)
    folder = tiny.bi_encoder(tmp_path / "embedder")
    asking.embedder = crossrank.load_embedder(folder, query_prompt="what is the ", document_prompt="bread ")
    plain = crossrank.load_embedder(folder)
    found = ask(asking, query="capital", documents=["paris", "yeast"], mix=0).json()["results"]
    vectors = plain.embed(["what is the capital", "bread paris", "bread yeast"])
    assert {one["text"]: one["steps"]["dense"]["score"] for one in found} == pytest.approx(
        {"paris": float(vectors[1] @ vectors[0]), "yeast": float(vectors[2] @ vectors[0])}, abs=1e-4
    )


def test_documents_that_no_model_reads_do_not_count(service: Service) -> None:
    few = copy.copy(service)
    few.limits = replace(service.limits, tokens=200)
    long = "paris " * 90
    assert ask(few, query="paris", documents=[long] * 3).status_code == 413
    assert ask(few, query="paris", documents=[long, "paris", "bread"], depth=1).status_code == 200
    without = copy.copy(few)
    without.embedder = None
    assert ask(without, query="paris", documents=[long] * 3, mix=0).status_code == 200
    assert ask(without, query="paris", documents=[long] * 3, depth=2).status_code == 200


def test_a_warning_about_the_query_says_whose_it_is(service: Service) -> None:
    # Two warnings about one query had different figures, and /search alone had no header to count it.
    assert service.embedder is not None
    for more in ({}, {"documents": ["paris", "bread"]}):
        reply = ask(service, query="paris " * 180, **more)
        dense, reranked = reply.json()["warnings"]
        assert dense == f"dense: the query was not read whole: {service.embedder.room} of 180 tokens"
        assert reranked.startswith("reranked: the query was not read whole: ")
        assert reply.headers["x-crossrank-truncated"] == "1"
    assert "x-crossrank-truncated" not in ask(service, query="paris").headers


def test_of_many_cut_texts_the_header_counts_all(service: Service) -> None:
    reply = ask(service, query="paris", documents=["paris " * 600] * 30)
    assert (len(reply.json()["warnings"]), reply.headers["x-crossrank-truncated"]) == (20, "30")


def test_a_title_of_a_candidate_is_read_before_its_text(service: Service) -> None:
    # It was dropped, and two documents that differ in it alone had one score and no title.
    given = [
        {"text": "a city"},
        {"text": "a city", "title": "Paris"},
        {"text": "bread", "title": None},
        "Paris. a city",
    ]
    found = {one["id"]: one for one in ask(service, query="capital of france", documents=given).json()["results"]}
    assert [found[id_]["title"] for id_ in "1234"] == ["", "Paris", "", ""]
    assert found["2"]["text"] == "a city"
    assert found["2"]["probability"] == found["4"]["probability"] != found["1"]["probability"]
    assert found["2"]["steps"]["dense"]["score"] == found["4"]["steps"]["dense"]["score"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"text": "a", "txet": 1}, "documents[1] has a field 'txet'"),
        ({"text": "a", "title": 3}, "the title of documents[1] must be a string, not a number"),
        ({"title": "a"}, 'documents[1] must hold its text in "text"'),
    ],
)
def test_what_is_not_read_of_a_candidate_is_refused(service: Service, document: Any, said: str) -> None:
    refused = ask(service, query="paris", documents=["a", document])
    assert (refused.status_code, said in refused.json()["message"]) == (400, True)


def test_conditions_on_candidates_are_refused(service: Service) -> None:
    # They have no metadata, and the conditions were passed over.
    for documents in ([], ["paris"]):
        refused = ask(service, query="paris", documents=documents, where=["n>=1"])
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "where")
        assert "leave out where, or documents" in refused.json()["message"]
    assert ask(service, query="paris", documents=["paris"], where=[]).json()["results"]


@pytest.mark.parametrize("where", ["year>>2020", "", ["lang=en", "year"], ["a=b"] * 65, "lang=" + "e" * 10_001])
def test_a_condition_that_is_none_is_told_by_its_field(service: Service, where: Any) -> None:
    reply = ask(service, query="paris", where=where)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "where"), reply.json()


def test_a_field_that_no_passage_has_is_told(service: Service) -> None:
    def warnings(*where: str) -> Any:
        reply = ask(service, query="paris", where=list(where)).json()
        assert not reply["results"]
        return reply["warnings"]

    assert warnings("m!=1", "yaer>=2020") == ["no passage has a value in the field 'yaer'"]
    assert warnings("n>=2020") == ["nothing was found with where; try without it"]
    assert ask(service, query="paris", where=["yaer!=2020"]).json()["warnings"] == []


class Waiting:
    """An embedder elsewhere that answers when it is told to."""

    width, fingerprint = 4, "waiting"

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        assert self.answers.wait(30)
        return np.full((len(texts), 4), 0.5, np.float32)


def test_a_deadline_holds_while_an_embedder_elsewhere_is_waited_for(
    tmp_path: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The answer came when the embedder had answered, 4 s late, whatever the deadline.
    pytest.importorskip("lance", reason="the index needs the search extra")
    from crossrank.index import Document, Index

    far, scorer = Waiting(), crossrank.load(cross_encoder_folder, backend="fake")
    index = Index.create(tmp_path / "index", far, scorer.checkpoint.tokenizer())
    index.add([Document("a", "paris is a city.")], far, scorer.checkpoint.tokenizer())
    service = Service(scorer, None, index, Limits(requests=2), batch_tokens=1024, asker=far)
    service.start()
    built = build(service)
    # Only the two that were answered say how long requests take, and not those that waited in vain.
    taught: list[tuple[float, float]] = []
    monkeypatch.setattr(built.gate, "_learn", lambda *times: taught.append(times))

    async def replies() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=built.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

            async def search(deadline: int) -> httpx.Response:
                return await client.post(
                    "/search", json={"query": "paris"}, headers={"X-Crossrank-Deadline-Ms": f"{deadline}"}
                )

            made = [await search(30_000)]
            far.answers.clear()
            made += await asyncio.gather(search(500), search(500))
            # Their threads are still there, and a third would wait for one of them.
            assert [ticket.cancelled for ticket in built.gate.tickets] == [True, True]
            made.append(await search(30_000))
            far.answers.set()
            while built.gate.tickets:
                await asyncio.sleep(0.01)
            return [*made, await search(30_000)]

    began = time.monotonic()
    found = asyncio.run(replies())
    assert time.monotonic() - began < 20
    assert [reply.status_code for reply in found] == [200, 503, 503, 429, 200]
    assert "was not ready within the 0." in found[1].json()["message"]
    assert len(taught) == 2
    service.stop()


@pytest.fixture(scope="module")
def small() -> Iterator[Service]:
    made = Service(crossrank.load("small"))
    made.start()
    yield made
    made.stop()


TEXTS = ["Bread needs yeast.", "Paris is the capital of France.", "Paris is its capital."]


def test_a_threshold_leaves_out_what_is_less_probable(small: Service) -> None:
    asked = {"query": "capital of France?", "documents": TEXTS}
    every = ask(small, **asked).json()["results"]
    chances = [result["probability"] for result in every]
    for least in (0.0, 0.05, chances[0], 1.0):
        reply = ask(small, **asked, threshold=least).json()
        kept = [result for result in every if result["probability"] >= least]
        assert [result["id"] for result in reply["results"]] == [result["id"] for result in kept]
        left = len(every) - len(kept)
        said = f"left out: {left} passage{'s' * (left > 1)} under the threshold of {least:g}"
        if not kept:
            best = f"the best passage has a probability of {chances[0]:.3f}, under {least:g}"
            said = f"nothing reaches the threshold: {best}"
        assert (reply["warnings"], reply["read"]) == ([said] if left else [], 3)
    own = ask(small, **asked, threshold="model").json()["results"]
    assert [result["id"] for result in own] == ["2", "3"]
    unread = ask(small, **asked, threshold=0.0, depth=1).json()["warnings"]
    assert unread[-1] == "left out: 2 passages that the last stage did not read"


def test_a_script_that_the_model_has_no_words_in_is_told(small: Service) -> None:
    said = (
        "the model has no words in the query's script (Cyrillic), so its scores say little: load one of that language"
    )
    assert ask(small, query="где музей?", documents=TEXTS).json()["warnings"] == [said]
    assert ask(small, query="где музей?", documents=TEXTS, rerank=False).json()["warnings"] == []


def test_what_was_not_read_has_a_score_under_what_was(small: Service) -> None:
    # The first stage's stood there as it was, above the logits: a client that sorted by score put it first.
    reply = ask(small, query="capital of France?", documents=[*TEXTS, " "], depth=1).json()
    scores = [result["score"] for result in reply["results"]]
    assert scores == [scores[0], scores[0] - 1, scores[0] - 2, scores[0] - 3]
    assert [result["probability"] is None for result in reply["results"]] == [False, True, True, True]
    given = [result["steps"]["given"]["score"] for result in reply["results"]]
    assert (given, scores[0] < -2) == ([-1, -2, -3, -4], True)
    blank = ask(small, query="capital of France?", documents=[" ", *TEXTS], depth=2).json()["results"]
    assert [result["score"] is None for result in blank] == [False, True, False, False]
    assert blank[0]["score"] > blank[2]["score"] > blank[3]["score"]


@pytest.mark.parametrize("mix", [0.2, 0.4])
def test_reading_ends_where_nothing_else_would_reach_the_top(small: Service, mix: float) -> None:
    # Within a budget a pipeline read a third of the passages, and the server all of them.
    about = ["Paris is the capital of France", "Lyon is a city in France", "Bread needs yeast"]
    texts = [f"{about[min(n // 6, 2)]}, says number {n}." for n in range(60)]
    asked = {"query": "capital of France?", "documents": texts, "mix": mix, "k": 3}
    given = Ranking.sorted([str(n + 1) for n in range(60)], -np.arange(1, 61, dtype=np.float32))
    stage = Stage(small.reranker.scorer, 60, mix, stopping=Stopping(k=3))
    want, (trace,) = rerank(
        "capital of France?", given, [stage], lambda ids: [Passage(id_, texts[int(id_) - 1]) for id_ in ids]
    )
    assert (len(trace.scores), trace.stopped) == (32, "settled")
    for more in ({"stop_early": True}, {"budget_ms": 600_000}):
        reply = ask(small, **asked, **more).json()
        assert (reply["read"], reply["steps"][-1]["stopped"], reply["warnings"]) == (32, "settled", [])
        assert [result["id"] for result in reply["results"]] == list(want.ids[:3])
    for more in ({}, {"stop_early": False, "budget_ms": 600_000}, {"budget_ms": 600_000, "mix": 1.0}):
        reply = ask(small, **{**asked, **more}).json()
        assert (reply["read"], reply["steps"][-1]["stopped"]) == (60, None)
    assert ask(small, **{**asked, "k": 60}, stop_early=True).json()["read"] == 60
    assert ask(small, **asked, stop_early="yes").json()["error"]["param"] == "stop_early"


def test_of_each_document_so_many_passages_are_returned(small: Service, tmp_path: Path) -> None:
    pytest.importorskip("lance", reason="the index needs the search extra")
    from crossrank.index import Document, Index

    embedder = crossrank.load_embedder()
    index = Index.create(tmp_path / "i", embedder, embedder.tokenizer, model="embed", size=16)
    guide = Document("guide", "\n\n".join(f"Paris is the capital of France, says part {n}." for n in range(40)))
    notes = [Document(f"note{n}", f"Lyon is a city in France, says note {n}.") for n in range(15)]
    index.add([guide, *notes], embedder, embedder.tokenizer)
    made = Service(small.reranker.scorer, embedder, index)
    made.start()
    try:
        asked = {"query": "capital of France?", "k": 8, "depth": 100}
        whole = Pipeline(
            first_stage(index, embedder),
            index.passages,
            (Stage(made.reranker.scorer, 100, MIX),),
            100,
            usual_fusion(index),
        )
        for most in (1, 3):
            want = whole.search(asked["query"], 8, per_document=most)  # type: ignore[arg-type]
            reply = ask(made, **asked, per_document=most).json()
            assert [result["id"] for result in reply["results"]] == list(want.ranking.ids)
            assert reply["warnings"] == list(want.notes)
            assert reply["warnings"][0].startswith("left out: ")
        # Reading ends where the places of the documents are settled, and not those of the passages.
        early = ask(made, **asked, per_document=1, stop_early=True).json()
        stage = Stage(made.reranker.scorer, 100, MIX, stopping=Stopping())
        same = replace(whole, stages=(stage,)).search(asked["query"], 8, per_document=1)  # type: ignore[arg-type]
        assert [result["id"] for result in early["results"]] == list(same.ranking.ids)
        assert early["read"] == len(same.traces[-1].scores)
        assert early["read"] > ask(made, **asked, stop_early=True).json()["read"]
    finally:
        made.stop()


def test_per_document_is_a_whole_number_and_documents_are_one_each(small: Service) -> None:
    for wrong in (0, -1, 1001, "1", True, 1.5):
        assert ask(small, query="paris", documents=TEXTS, per_document=wrong).json()["error"]["param"] == "per_document"
    asked = {"query": "capital of France?", "documents": TEXTS}
    reply = ask(small, **asked, per_document=1).json()
    assert reply["results"] == ask(small, **asked, per_document=None).json()["results"]
    assert reply["warnings"] == ["no passage names its document, so each counts as one"]


def test_the_limit_of_tokens_holds_for_all_rounds(small: Service) -> None:
    few = copy.copy(small)
    few.reranker = copy.copy(small.reranker)
    few.reranker.limits = replace(small.limits, tokens=4000)
    # Each is one word in the estimate, and some 70 tokens.
    asked = {"query": "capital of France?", "documents": ["!?" * 30 + str(n) for n in range(60)], "stop_early": True}
    assert ask(few, **asked, k=50, depth=52).status_code == 200
    refused = ask(few, **asked, k=50)
    assert (refused.status_code, "more than 4,000 tokens" in refused.json()["message"]) == (413, True)


def test_a_threshold_where_nothing_was_read_leaves_all(small: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    # A budget that was enough for no passage gave an empty answer, as if nothing were relevant.
    monkeypatch.setattr(small.reranker.speed, "rate", 1e-6)
    monkeypatch.setattr(Speed, "learn", lambda *batch: None)
    reply = ask(small, query="capital of France?", documents=TEXTS, budget_ms=1, threshold=0.9).json()
    assert ([result["id"] for result in reply["results"]], reply["read"]) == (["1", "2", "3"], 0)
    assert reply["warnings"] == [
        "the budget was enough for 0 of 3 passages",
        "the threshold was not used: no stage that gives probabilities has read a passage",
    ]


def test_a_threshold_that_cannot_be_held_is_refused(service: Service, small: Service) -> None:
    asked = {"query": "paris", "documents": ["paris"]}
    for more in ({"rerank": False}, {"mix": 0}):
        refused = ask(small, **asked, threshold=0.1, **more)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "threshold")
        assert ask(small, **asked, threshold=None, **more).status_code == 200
    for wrong in (1.5, -0.1, "own", True):
        assert ask(small, **asked, threshold=wrong).json()["error"]["param"] == "threshold"
    # The model of this one was trained to give probabilities, and nobody has chosen a threshold.
    assert ask(service, **asked, threshold=0.0).status_code == 200
    assert "give a probability" in ask(service, **asked, threshold="model").json()["message"]
    plain = copy.copy(service)
    plain.reranker = copy.copy(service.reranker)
    plain.reranker.scorer = copy.copy(service.reranker.scorer)
    plain.reranker.scorer.checkpoint = replace(service.reranker.scorer.checkpoint, activation="identity")
    assert "no probabilities" in ask(plain, **asked, threshold=0.5).json()["message"]


@pytest.fixture
def unlearned(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service foresees a million tokens a second, or what a test says, and goes on to foresee that."""
    monkeypatch.setattr(Speed, "learn", lambda *batch: None)
    for speed in service.speeds:
        monkeypatch.setattr(speed, "rate", 1e6)


RIVERS = ["bread is yeast.", *(f"paris is {n} cities. It is in france. Bread is number {n}." for n in range(3))]


def test_a_budget_holds_for_the_embedding_of_candidates(service: Service, unlearned: None) -> None:
    # All were embedded first, whatever the budget: the answer was late, and the cross-encoder had read nothing.
    service.embedding_speed.rate = 10.0
    asked: dict[str, Any] = {"query": "paris", "documents": RIVERS}
    reply = ask(service, **asked, budget_ms=3000).json()
    assert ([step["name"] for step in reply["steps"]], reply["read"]) == (["given", "reranked"], 4)
    assert [step["how"] for step in reply["steps"]] == [None, None]
    assert reply["warnings"] == ["the budget was not enough to embed 4 documents: they were taken in the order given"]
    given = ask(service, **asked, budget_ms=3000, rerank=False).json()
    assert [result["id"] for result in given["results"]] == ["1", "2", "3", "4"]
    assert len(given["warnings"]) == 1
    for budget in (60_000, None):
        reply = ask(service, **asked, budget_ms=budget).json()
        assert ([step["name"] for step in reply["steps"]][1], reply["warnings"]) == ("dense", [])
    # The query is embedded with them, so neither is foreseen.
    made = Search("paris", budget=3.0, documents=tuple(Passage(f"{n}", text) for n, text in enumerate(RIVERS)))
    speed = service.embedding_speed
    assert foreseen(service, service.reranker, made)[speed] == 0
    assert foreseen(service, service.reranker, replace(made, budget=60.0))[speed] > 30


def test_a_budget_holds_for_the_evidence(service: Service, unlearned: None) -> None:
    # It began as soon as any time was left, and compared up to 16 sentences of 50 passages then.
    asked: dict[str, Any] = {"query": "paris", "documents": RIVERS, "evidence": True, "rerank": False}
    every = ask(service, **asked).json()
    assert all(result["evidence"] for result in every["results"])
    costs = [
        estimate(pairs("paris", Passage("", result["text"])), service.reranker.reach()) for result in every["results"]
    ]
    service.reranker.speed.rate = (sum(costs) - max(costs) / 2) / 20
    reply = ask(service, **asked, budget_ms=20_000).json()
    found = [result["evidence"] for result in reply["results"]]
    left = found.count(None)
    assert found == [result["evidence"] for result in every["results"]][: 4 - left] + [None] * left
    assert (1 <= left <= 2, reply["steps"][-1]["passages"]) == (True, 4 - left)
    assert reply["warnings"] == [f"the budget was enough for the evidence of {4 - left} of 4 passages"]
    assert (
        ask(service, **asked, budget_ms=1).json()["warnings"][-1].startswith("the budget was enough for the evidence")
    )


def read_of(service: Service, asked: Search) -> int:
    return foreseen(service, service.reranker, asked)[service.reranker.speed]


def test_evidence_is_foreseen(service: Service, unlearned: None) -> None:
    text = "The river runs past the town, and it carries boats down to the sea. " * 10
    documents = tuple(Passage(f"{n}", text, title="rivers") for n in range(8))
    asked = Search("which river carries boats?", documents=documents, k=4)
    read, more = (read_of(service, replace(asked, evidence=evidence)) for evidence in (False, True))
    taken = estimate(pairs(asked.query, documents[0]), service.reranker.reach())
    assert more - read == pytest.approx(4 * taken, rel=0.3)
    index = [read_of(service, Search("paris", k=k, evidence=True)) for k in (1, 2)]
    assert read_of(service, Search("paris")) < index[0] < index[1]
    service.reranker.speed.rate = 1000.0
    assert read_of(service, replace(asked, evidence=True, budget=0.2)) <= 200


def test_the_event_loop_does_not_read_the_index(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    # A folder on a network that hung held up /health: a search was foreseen by counting the passages.
    def counted(index: Any) -> int:
        assert threading.current_thread() is not threading.main_thread()
        return counts(index)

    counts = type(service.index).__len__
    monkeypatch.setattr(type(service.index), "__len__", counted)
    assert ask(service, query="paris").json()["results"]
    assert read_of(service, Search("paris")) > read_of(service, Search("paris", depth=1))
