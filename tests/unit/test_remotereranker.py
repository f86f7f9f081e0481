"""Scores from an address: our own server in every dialect, and a server that misbehaves. No network."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import crossrank
from apiserver import serving as api_serving
from crossrank.cli import root
from crossrank.cli.exits import Exit
from crossrank.errors import InputError, RemoteError
from crossrank.scorers import scorer_of
from crossrank.types import Passage, Ranking

pytest.importorskip("httpx", reason="needs the llm extra")

from crossrank.remotereranker import RemoteReranker
from crossrank.rerankwire import DIALECTS

QUERY = "what is the capital of france?"


def length(text: str) -> float:
    """What `honest` scores."""
    return len(text) / 1000


def honest(path: str, body: dict[str, Any]) -> Any:
    """Longer documents are better, the best come first, as real ones answer in each dialect."""
    texts = body.get("texts", body.get("documents"))
    name = "score" if "texts" in body else "relevance_score"
    rows = sorted(
        ({"index": place, name: length(text)} for place, text in enumerate(texts)), key=lambda row: -row[name]
    )
    if "texts" in body:
        return rows
    return {("data" if "top_k" in body else "results"): rows, "usage": {"total_tokens": 7}}


def reranker(url: str, **options: Any) -> RemoteReranker:
    return RemoteReranker(url, "m", **{"pause": 0.001, "timeout": 5.0, **options})


def pairs(*texts: str, query: str = QUERY) -> list[tuple[str, str]]:
    return [(query, text) for text in texts]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_scores_come_in_the_order_of_the_pairs(dialect: str) -> None:
    asked = [*pairs("abc", "x", " ", "abc", "hello", "\u200b"), ("tea?", "abc"), ("tea?", "longest")]
    with api_serving(honest) as api:
        made = reranker(api.url, dialect=dialect, key="secret", concurrency=1).score(asked)
    assert made.dtype == np.float32
    want = [-np.inf if not text.strip(" \u200b") else length(text) for _, text in asked]
    np.testing.assert_array_equal(made, np.float32(want))
    field = DIALECTS[dialect].texts
    assert [(body["query"], body[field]) for body in api.requests] == [
        (QUERY, ["abc", "x", "hello"]), ("tea?", ["abc", "longest"])
    ], "none twice, no blank one"  # fmt: skip
    assert set(api.paths) == {"/v1/rerank"}
    assert api.headers[0]["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("dialect", "more"),
    [
        ("cohere", {"model": "m", "top_n": 2}),
        ("jina", {"model": "m", "top_n": 2, "return_documents": False}),
        ("voyage", {"model": "m", "top_k": 2, "return_documents": False}),
        ("vllm", {"model": "m", "top_n": 2, "use_activation": False}),
        ("infinity", {"model": "m", "top_n": 2, "return_documents": False, "raw_scores": True}),
        ("tei", {"raw_scores": True, "truncate": True}),
    ],
)
def test_what_each_dialect_sends(dialect: str, more: dict[str, Any]) -> None:
    """Cohere's version 2 has no `return_documents`, and Voyage refuses a `top_n`."""
    with api_serving(honest) as api:
        made = reranker(api.url, dialect=dialect)
        made.score(pairs("a", "bc"))
    assert api.requests == [{"query": QUERY, DIALECTS[dialect].texts: ["a", "bc"], **more}]
    assert made.score_space == ("raw" if dialect in ("vllm", "infinity", "tei") else "0 to 1")


@pytest.mark.parametrize(
    ("url", "dialect", "name"),
    [
        ("https://api.cohere.com/v2/rerank", "cohere", "https://api.cohere.com/v2#m"),
        ("https://api.cohere.com/v1", "jina", "https://api.cohere.com/v1#m"),
        ("https://api.jina.ai/v1/rerank/", "jina", "https://api.jina.ai/v1#m"),
        ("https://api.voyageai.com/v1", "voyage", "https://api.voyageai.com/v1#m"),
        ("https://api.voyageai.com.evil.example/v1", "jina", "https://api.voyageai.com.evil.example/v1#m"),
        ("http://gpu:8000/infinity", "infinity", "http://gpu:8000/infinity#m"),
        ("http://gpu:8000/tei/rerank?a=1", "tei", "http://gpu:8000/tei?a=1#m"),
        ("http://gpu:8000", "jina", "http://gpu:8000#m"),
    ],
)
def test_an_address_says_its_dialect(url: str, dialect: str, name: str) -> None:
    made = RemoteReranker(url, "m")
    assert (made.dialect, made.name) == (dialect, name)
    assert RemoteReranker.named(name).fingerprint == made.fingerprint
    other = RemoteReranker(url, "m", dialect="vllm")
    assert other.name == f"{name}?dialect=vllm"
    assert RemoteReranker.named(other.name).dialect == "vllm"
    assert other.fingerprint != made.fingerprint


@pytest.mark.parametrize("name", ["http://x", "http://x#", "small", "http://x#m?size=3", "http://x#m?dialect=x"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(InputError):
        RemoteReranker.named(name)


def test_what_cannot_be_is_refused_at_once() -> None:
    for wrong in ({"concurrency": 0}, {"most": 0}, {"most": 1.5}, {"timeout": "5"}, {"dialect": "cohere2"}):
        with pytest.raises(InputError):
            RemoteReranker("http://localhost:9/v1", "m", **wrong)
    for url, model in (("ftp://x", "m"), (None, "m"), ("http://x", ""), ("http://x", "\udcff"), ("http://x", None)):
        with pytest.raises(InputError):
            RemoteReranker(url, model)
    for odd in ("ab", [("q", 1)], [(" ", "a")], None):
        with pytest.raises(InputError):
            reranker("http://localhost:9").score(odd)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"results": []}, "0 scores for 2 documents"),
        ({"error": ""}, "0 scores for 2 documents"),
        ({"results": [{"index": 1, "relevance_score": 1}]}, "1 scores for 2 documents"),
        ({"results": [{"index": n, "relevance_score": 1} for n in (0, 1, 0)]}, "3 scores for 2 documents"),
        ({"results": [{"index": n, "relevance_score": 1} for n in (1, 1)]}, "2 scores for 2 documents, numbered wrong"),
        ({"results": [{"index": n, "relevance_score": 1} for n in (-1, 0)]}, "numbered wrongly"),
        ([{"index": n, "score": 1} for n in (1, 2)], "numbered wrongly"),
        *(
            ({"data": [{"index": 0, "relevance_score": odd}, {"index": 1, "relevance_score": 1}]}, "can be read")
            for odd in (None, "0.5", True, float("nan"), float("inf"), 1e39, 10**400, [1])
        ),
        *(
            ({"data": [{"index": odd, "score": 1}, {"index": 1, "score": 1}]}, "can be read")
            for odd in (False, "0", 0.0)
        ),
        ({"results": 3}, "no scores that can be read"),
        ({"results": ["a", "b"]}, "no scores that can be read"),
        ({"scores": [1, 2]}, "0 scores for 2 documents"),
        ((200, b"7", {}), "no JSON object"),
        ((200, {"error": {"message": "out of memory", "code": 500}}, {}), "answered 500"),
        ((401, {"message": "invalid api token"}, {}), "key is missing or wrong"),
        ((503, b"", {}), "2 tries"),
    ],
)  # fmt: skip
def test_a_bad_answer_is_an_error(answer: Any, message: str) -> None:
    with api_serving(lambda path, body: answer) as api, pytest.raises(RemoteError, match=message):
        reranker(api.url, tries=2).score(pairs("a", "b"))


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_address_that_takes_fewer_documents_at_once_is_asked_so(status: int) -> None:
    def answer(path: str, body: dict[str, Any]) -> Any:
        return honest(path, body) if len(body["documents"]) <= 20 else (status, {"message": "too many"}, {})

    asked = pairs(*("x" * number for number in range(1, 101)))
    with api_serving(answer) as api:
        made = reranker(api.url)
        first = made.judged(asked)
        before = len(api.requests)
        again = made.judged(asked)
        sizes = [len(body["documents"]) for body in api.requests[before:]]
    want = np.float32([length(text) for _, text in asked])
    for found in (first, again):
        np.testing.assert_array_equal(found.scores, want)
    assert (first.requests + first.retries, again.requests, again.retries) == (before, len(sizes), 0)
    assert first.retries <= 8, "each refusal halves the number or the bytes"
    assert max(sizes) <= 20, "it is known from then on"


@pytest.mark.alone
def test_what_an_address_takes_is_learned_once() -> None:
    def answer(path: str, body: dict[str, Any]) -> Any:
        if "slow" in body["query"]:
            time.sleep(0.8)
        return honest(path, body) if len(body["documents"]) <= 10 else (413, {"message": "too many"}, {})

    asked = pairs(*("x" * (number % 7) + str(number) for number in range(85)))
    with api_serving(answer) as api:
        made = reranker(api.url, most=20)
        turns = [made.judged(asked) for _ in range(4)]
        # The limit is known, and short ones do not make it less: they made it 5, so that 17 requests were needed.
        assert [(turn.requests, turn.retries) for turn in turns[2:]] == [(9, 0)] * 2
        # One that was refused nothing, and ends later, does not forget it.
        other = reranker(api.url)
        both = [*pairs(*map(str, range(30))), ("slow", "a"), ("slow", "b")]
        for retries in (1, 0):
            assert (other.judged(both).retries > 0) is bool(retries)


def test_a_refusal_that_is_not_of_the_number_of_documents() -> None:
    def answer(path: str, body: dict[str, Any]) -> Any:
        return (422, {"message": "x7 is too long"}, {}) if "x7" in body["documents"] else honest(path, body)

    asked = pairs(*(f"x{number}" for number in range(40)))
    with api_serving(lambda path, body: (400, {"message": "no such model"}, {})) as api:
        with pytest.raises(RemoteError, match="no such model"):
            reranker(api.url).score(asked)
        assert [len(body["documents"]) for body in api.requests] == [40, 1]
    with api_serving(answer) as api:
        made = reranker(api.url)
        with pytest.raises(RemoteError, match="x7 is too long"):
            made.score(asked)
        before = len(api.requests)
        made.score(asked[:7])
        assert len(api.requests) == before + 1, "one document that is refused teaches nothing about their number"


def test_long_lists_go_in_parts_at_once() -> None:
    both = threading.Barrier(2)

    def answer(path: str, body: dict[str, Any]) -> Any:
        both.wait(20)
        return honest(path, body)

    texts = [f"{letter}{'é' * 250_000}" for letter in "abcd"]
    with api_serving(answer) as api:
        made = reranker(api.url, concurrency=2).score(pairs(*texts))
    assert [len(body["documents"]) for body in api.requests] == [1] * 4, "two of 500 kB are more than a megabyte"
    assert api.most_at_once == 2
    np.testing.assert_array_equal(made, np.float32([length(texts[0])] * 4))
    with api_serving(honest) as api:
        reranker(api.url, dialect="tei").score(pairs(*(f"{number}" for number in range(70))))
        assert sorted(len(body["texts"]) for body in api.requests) == [6, 32, 32]
        reranker(api.url, most=50).score(pairs(*(f"{number}" for number in range(70))))
        assert sorted(len(body["documents"]) for body in api.requests[3:]) == [20, 50]


def test_half_of_a_surrogate_pair_is_replaced() -> None:
    with api_serving(honest) as api:
        made = reranker(api.url).score(pairs("a", f"b{chr(0xD800)}", "b\ufffd", query=f"q{chr(0xD800)}"))
    assert [(body["query"], body["documents"]) for body in api.requests] == [("q\ufffd", ["a", "b\ufffd"])]
    assert made[1] == made[2]


def test_it_tries_again_and_says_so() -> None:
    answers = iter([(429, {}, {"Retry-After": "0"}), (502, b"", {})])

    def answer(path: str, body: dict[str, Any]) -> Any:
        return next(answers, None) or honest(path, body)

    with api_serving(answer) as api:
        ranked = reranker(api.url).rank(QUERY, ["a", " ", "abc", "ab", "ab"], k=4)
    assert ranked.positions == (2, 3, 4, 0)
    assert ranked.note.startswith("1 request, 3 documents, 7 tokens, ")
    assert ranked.note.endswith("; 2 retries")


def test_text_embeddings_inference_is_told_by_its_refusal() -> None:
    """At its root it answers as if the field were missing, which nobody understands."""

    def answer(path: str, body: dict[str, Any]) -> Any:
        return honest(path, body) if "texts" in body else (422, b"Failed to deserialize: missing field `texts`", {})

    with api_serving(answer) as api:
        with pytest.raises(RemoteError, match=r"write URL#MODEL\?dialect=tei"):
            reranker(api.url).score(pairs("a"))
        assert reranker(api.url, dialect="tei").score(pairs("a")).shape == (1,)


FORK = """
import os, sys, threading
from crossrank.remotereranker import RemoteReranker
scorer = RemoteReranker(sys.argv[1], "m")
def right(text):
    return scorer.score([("q", text)])[0] == len(text)
assert right("1")
children = []
with scorer.address._lock:  # held at the fork, as it would be by another thread
    for place in range(3):
        child = os.fork()
        if child == 0:
            threading.Timer(60, lambda: os._exit(2)).start()
            os._exit(0 if all(right("x" * (2 + place)) for _ in range(25)) else 1)
        children.append(child)
assert all(right("x" * 9) for _ in range(25))
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_connections_of_its_own() -> None:
    def answer(path: str, body: dict[str, Any]) -> Any:
        return {"results": [{"index": 0, "relevance_score": len(body["documents"][0])}]}

    with api_serving(answer) as api:
        subprocess.run([sys.executable, "-c", FORK, api.url], check=True, timeout=120)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_scores_as_its_original(copied: Any) -> None:
    with api_serving(honest) as api:
        made = reranker(api.url, key="k", dialect="voyage")
        again = copied(made)
        assert again.score(pairs("tea", "cup of")).tolist() == made.score(pairs("tea", "cup of")).tolist()
        assert (again.name, api.headers[0]["authorization"]) == (made.name, "Bearer k")


def test_secrets_are_told_nobody() -> None:
    with api_serving(lambda path, body: (403, {}, {})) as api, pytest.raises(RemoteError) as failed:
        RemoteReranker(f"http://me:s3cret@{api.url[7:]}/rerank?code=s3cret", "m", "s3cret").score(pairs("a"))
    said = [str(failed.value), repr(RemoteReranker("http://me:s3cret@h/v1?sig=s3cret", "m", "s3cret"))]
    for wrong in ("http://me:s3cret@h:x/v1?sig=s3cret#m", "http://me:s3cret@h/v1", "http://me:s3/cret@h/v1#m"):
        for made in (RemoteReranker.named, scorer_of):
            with pytest.raises(InputError) as refused:
                made(wrong)
            said.append(str(refused.value))
    assert not [one for one in said if "s3" in one]


def test_as_a_stage_it_says_what_it_cost() -> None:
    texts = {"a": "tea", "b": "a cup of tea", "c": " "}
    before = Ranking.sorted(list(texts), [3.0, 2.0, 1.0])
    with api_serving(honest) as api:
        stage = crossrank.Stage(reranker(api.url), depth=3)
        after, (trace,) = crossrank.rerank(QUERY, before, [stage], lambda ids: [Passage(i, texts[i]) for i in ids])
    assert after.ids == ("b", "a", "c")
    assert trace.note.startswith("1 request, 2 documents, 7 tokens, ")


def test_hosts_take_it_as_a_model() -> None:
    from crossrank.integrations.best import Asked, best
    from crossrank.integrations.lists import Model

    with api_serving(honest) as api:
        model = Model(reranker(api.url))
        assert [one.position for one in best(model.ready, QUERY, ["a", "abc"], k=1)] == [1]
        assert model.name == "m"
        with pytest.raises(InputError, match="m gives scores and no probabilities"):
            best(model.ready, QUERY, ["a"], k=1, asked=Asked(threshold=0.5))


PATHS = {
    "": False, "/v1": False, "/v2": False, "/v2/rerank": False, "/cohere/v2": False, "/jina/v1": False,
    "/voyage/v1": False, "/vllm": True, "/infinity": True, "/tei": True,
}  # fmt: skip


def test_our_own_server_in_every_dialect(cross_encoder_folder: Path) -> None:
    pytest.importorskip("crossrank.server.app", reason="needs the server extra")
    from serving import serving

    local = crossrank.load(cross_encoder_folder, backend="fake")
    asked = pairs("paris is the capital", "bread", " ", "paris is the capital", *(f"the cat {n}" for n in range(40)))
    raw = local.score(asked)
    with serving(cross_encoder_folder) as running:
        for path, logits in PATHS.items():
            made = RemoteReranker(f"{running.listener.url.rstrip('/')}{path}", str(cross_encoder_folder))
            assert made.score_space == ("raw" if logits else "0 to 1")
            want = raw if logits else np.where(np.isfinite(raw), running.service.reranker.probability(raw), -np.inf)
            np.testing.assert_array_equal(made.score(asked), want.astype(np.float32), err_msg=path)


@pytest.fixture
def index(tmp_path: Path, bi_encoder_folder: Path) -> Path:
    pytest.importorskip("lance", reason="needs the extra search")
    (tmp_path / "docs").mkdir()
    for place, text in enumerate(("tea", "tea is hot", "tea is hot and good")):
        (tmp_path / "docs" / f"{place}.txt").write_text(text, encoding="utf-8")
    assert run("index", tmp_path / "docs", "--to", tmp_path / "index", "-m", bi_encoder_folder).exit_code == 0
    return tmp_path / "index"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(root, [str(word) for word in arguments])


def test_a_search_reads_with_it(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "another's")
    with api_serving(honest) as api:
        asked = ("search", index, "tea", "--rerank-api", f"{api.url}#big")
        found = run(*asked, "--mix", 1, "--json", "--explain")
        assert found.exit_code == 0, found.output
        *rows, told = map(json.loads, found.stdout.splitlines())
        assert [row["text"] for row in rows] == ["tea is hot and good", "tea is hot", "tea"]
        assert {(row["step"], row["probability"], row["evidence"]) for row in rows} == {("big", None, None)}
        assert told["explain"]["steps"][-1]["name"] == "big"
        assert "big: 1 request, 3 documents, 7 tokens, " in found.stderr
        assert len(api.requests) == 1, "no sentence is sent"
        assert api.headers[0]["authorization"] == "Bearer secret"
        for option in (("--budget-ms", 50), ("-m", "small"), ("--no-rerank",)):
            refused = run(*asked, *option)
            assert (refused.exit_code, "--rerank-api" in refused.output) == (Exit.USAGE, True), option
        assert "big gives scores and no probabilities" in run(*asked, "--threshold", 0.5).stderr
        assert f"{api.url}#big is none" in run(*asked, "--cache", tmp_path / "scores").stderr
        elsewhere = run("search", index, "tea", "-m", f"{api.url}#big")
        assert (elsewhere.exit_code, "--rerank-api" in elsewhere.stderr) == (1, True)
        assert len(api.requests) == 1
        (tmp_path / "teas.txt").write_text("tea\nhot tea\n\n", encoding="utf-8")
        alone = run("rerank", "tea?", tmp_path / "teas.txt", "--rerank-api", f"{api.url}#big")
        assert alone.stdout.startswith("1\t0.007000\thot tea\n2\t0.003000\ttea\n"), alone.output
        assert "1 request, 2 documents" in alone.stderr
        probable = run("rerank", "tea?", tmp_path / "teas.txt", "--rerank-api", f"{api.url}#big", "--probability")
        assert "a rerank API behind an address, which knows no --probability" in probable.stderr
    with api_serving(lambda path, body: (401, {}, {})) as api:
        asked = ("search", index, "tea", "--rerank-api", f"{api.url}#big")
        gone = run(*asked)
        assert (gone.exit_code, "--on-error keep leaves the order before it" in gone.stderr) == (1, True)
        kept = run(*asked, "--on-error", "keep")
        assert (kept.exit_code, kept.stdout.count("\n")) == (Exit.SOME_FAILED, 3)


def test_an_evaluation_compares_it(
    index: Path, tmp_path: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("ir_measures", "matplotlib"):
        pytest.importorskip(module, reason="needs the extra eval")
    refuses: list[str] = []

    def answer(path: str, body: dict[str, Any]) -> Any:
        return (503, {}, {}) if body["query"] in refuses else honest(path, body)

    monkeypatch.setattr("crossrank.remote.LONGEST_WAIT", 0.01)
    (tmp_path / "q.tsv").write_text("1\ttea\n2\thot tea\n", encoding="utf-8")
    judged = "query-id\tcorpus-id\tscore\n1\tdocs/2.txt\t1\n2\tdocs/2.txt\t1\n"
    (tmp_path / "qrels.tsv").write_text(judged, encoding="utf-8")
    asked = ["eval", index, "--queries", tmp_path / "q.tsv", "--qrels", tmp_path / "qrels.tsv", "--backend", "fake"]
    local = cross_encoder_folder.name
    with api_serving(answer) as api:
        named = f"{api.url}#{local}"
        models = ("--models", f"{cross_encoder_folder},{named}", "--mix", 1)
        made = run(*asked, *models, "--json", "--html", tmp_path / "page.html")
        assert made.exit_code == 0, made.output
        told = json.loads(made.stdout)
        label = f"{local} ({api.url.split('/')[2]})"
        assert [one["name"] for one in told["systems"]][3:] == [local, label]
        assert told["systems"][4]["values"]["nDCG@10"]["mean"] == 1
        assert told["about"]["models"][label] == api.url
        (note,) = (note for note in told["notes"] if note.startswith(f"{label}: "))
        assert note.startswith(f"{label}: 3 requests, 7 documents, 21 tokens, "), "the first opens the connection"
        assert len(api.requests) == 3, "the page marks no sentences with it"
        said = run(*asked, *models).stderr
        assert f"{label} is sent up to 201 passages, the first to warm up." in said
        assert f"{local} read all of 6 passages in one piece" in said
        assert f"{label} read all" not in said, "nobody knows what it cut"
        refuses.append("hot tea")
        part = run(*asked, *models, "--json")
        assert part.exit_code == Exit.SOME_FAILED, "what was paid for counts"
        assert any("1 query keeps its order" in note for note in json.loads(part.stdout)["notes"])
        refused = run("frontier", *asked[1:], *models)
        assert (refused.exit_code, "is behind an address" in refused.stderr) == (Exit.USAGE, True)
        monkeypatch.setenv("RERANK_API_KEY", "secret")
        before = len(api.requests)
        two = run(*asked, "--models", f"{api.url}#a,{api.url.replace('127.0.0.1', 'localhost')}#b")
        assert (two.exit_code, "would be sent to 127.0.0.1" in two.stderr) == (Exit.USAGE, True)
        assert len(api.requests) == before
