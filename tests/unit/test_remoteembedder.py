"""Vectors from an address: our own server's embeddings, and a server that misbehaves. No network."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import crossrank
from apiserver import serving as api_serving
from crossrank.addresses import is_address
from crossrank.cli import root
from crossrank.errors import CheckpointError, IndexFileError, InputError, RemoteError

pytest.importorskip("httpx", reason="needs the llm extra")

from crossrank.llm import LanguageModel
from crossrank.remoteembedder import RemoteEmbedder


def vector(text: str, width: int = 8) -> list[float]:
    """Letters, counted: texts that share letters are close."""
    return [float(1 + sum(ord(letter) % width == place for letter in text)) for place in range(width)]


def honest(path: str, body: dict[str, Any]) -> Any:
    width = body.get("dimensions", 8)
    rows = [{"index": place, "embedding": vector(text, width)} for place, text in enumerate(body["input"])]
    return {"data": rows[::-1], "model": body["model"]}


def embedder(url: str, **options: Any) -> RemoteEmbedder:
    return RemoteEmbedder(url, "m", **{"pause": 0.001, "timeout": 5.0, **options})


FORK = """
import os, sys, threading
import numpy as np
from crossrank.remoteembedder import RemoteEmbedder
embedder = RemoteEmbedder(sys.argv[1], "m")
assert embedder.embed(["1"]).argmax() == 1
children = []
with embedder.address._lock:  # held at the fork, as it would be by another thread
    for place in range(3):
        child = os.fork()
        if child == 0:
            threading.Timer(60, lambda: os._exit(2)).start()
            os._exit(0 if all(embedder.embed([str(place)]).argmax() == place for _ in range(25)) else 1)
        children.append(child)
assert all(embedder.embed(["3"]).argmax() == 3 for _ in range(25))
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_connections_of_its_own():
    """22 of 75 vectors were those of another process's text, without an error."""

    def answer(path, body):
        return {"data": [{"index": 0, "embedding": np.eye(4)[int(body["input"][0])].tolist()}]}

    with api_serving(answer) as api:
        subprocess.run([sys.executable, "-c", FORK, api.url], check=True, timeout=120)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_embeds_as_its_original(copied: Any):
    # A lock among its parts could not be copied.
    with api_serving(honest) as api:
        made = embedder(api.url, key="k")
        wanted = made.embed(["tea"]).tolist()
        again = copied(made)
        assert (again.embed(["tea"]).tolist(), again.name, again.width) == (wanted, made.name, 8)
        assert api.headers[-1]["authorization"] == "Bearer k"


def test_vectors_come_in_the_order_of_the_texts():
    texts = ["abc", "xyz", " ", "abc", "hello", "\u200b"]
    with api_serving(honest) as api:
        made = embedder(api.url, key="secret").embed(texts)
    assert made.shape == (6, 8)
    assert made.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    want = np.array([vector("hello")])
    np.testing.assert_allclose(made[4], want[0] / np.linalg.norm(want), atol=1e-6)
    np.testing.assert_array_equal(made[0], made[3])
    np.testing.assert_array_equal(made[2], made[5])
    assert [body["input"] for body in api.requests] == [["abc", "xyz", "hello"]], "none twice, no blank one"
    assert api.paths == ["/v1/embeddings"]
    assert api.headers[0]["authorization"] == "Bearer secret"


def test_prompts_stand_before_what_is_sent():
    sent: list[str] = []

    def noting(path: str, body: dict[str, Any]) -> Any:
        sent.extend(body["input"])
        return honest(path, body)

    with api_serving(noting) as api:
        url = api.url
        made = embedder(url, query_prompt="query: ", document_prompt="passage: ")
        vectors = made.embed(["b", " ", "a", "b"])
        asked = made.queries.embed(["a"])
        assert sent == ["passage: b", "passage: a", "query: a"]
        np.testing.assert_array_equal(vectors[0], vectors[3])
        assert not np.array_equal(asked[0], vectors[2])
        plain = embedder(url)
        # Only the prompt before documents decides whether an index fits.
        assert plain.prompted("query: ").fingerprint == plain.fingerprint != made.fingerprint
        assert plain.prompts == {}
        assert plain.queries is plain
        assert pickle.loads(pickle.dumps(made)).prompts == made.prompts


def test_prompts_that_are_no_texts_are_refused():
    with pytest.raises(InputError, match="document_prompt is a text, not None"):
        RemoteEmbedder("http://localhost:1/v1", "m", document_prompt=None)


def test_any_iterable_is_a_list_of_texts():
    """A generator was read to its end by the check of its items, and no vector came back."""
    with api_serving(honest) as api:
        np.testing.assert_array_equal(embedder(api.url).embed(iter("ab")), embedder(api.url).embed(["a", "b"]))
    for wrong in ("ab", [1], {"a": "b"}, None):
        with pytest.raises(InputError):
            embedder(api.url).embed(wrong)


def test_numbers_out_of_their_range_are_refused_at_once():
    for wrong in ({"concurrency": 1.5}, {"concurrency": 0}, {"dimensions": 2.5}, {"timeout": "5"}, {"tries": 1.5}):
        with pytest.raises(InputError):
            RemoteEmbedder("http://localhost:9/v1", "m", **wrong)


def test_half_of_a_surrogate_pair_is_replaced():
    """JSON can smuggle one in, and UTF-8 cannot hold it."""
    with api_serving(honest) as api:
        made = embedder(api.url).embed(["a", f"b{chr(0xD800)}", "b\ufffd"])
    assert [body["input"] for body in api.requests] == [["a", "b\ufffd"]]
    np.testing.assert_array_equal(made[1], made[2])


def test_long_lists_go_in_batches():
    texts = [f"text {number}" for number in range(300)]
    with api_serving(honest) as api:
        made = embedder(api.url).embed([*texts, "x" * 300_000, "y" * 300_000])
    assert sorted(len(body["input"]) for body in api.requests) == [1, 45, 128, 128]
    want = np.array([vector(text) for text in texts])
    np.testing.assert_allclose(made[:300], want / np.linalg.norm(want, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_address_that_takes_fewer_texts_at_once_is_asked_so(status: int) -> None:
    """text-embeddings-inference takes 32, so that nothing could be indexed through it."""

    def answer(path: str, body: dict[str, Any]) -> Any:
        return honest(path, body) if len(body["input"]) <= 32 else (status, {"error": "batch size > 32"}, {})

    texts = [f"text {number}" for number in range(300)]
    with api_serving(answer) as api:
        made = embedder(api.url, concurrency=2)
        found = made.embed(texts)
        asked = len(api.requests)
        assert asked <= 10 + 2 * 3
        made.embed(texts)
        again = [len(body["input"]) for body in api.requests[asked:]]
    want = np.array([vector(text) for text in texts])
    np.testing.assert_allclose(found, want / np.linalg.norm(want, axis=1, keepdims=True), atol=1e-6)
    assert sorted(again) == [12, *[32] * 9], "it is known from then on"


def test_a_refusal_that_is_not_of_the_number_of_texts() -> None:
    texts = [f"text {number}" for number in range(100)]
    with api_serving(lambda path, body: (400, {"error": "no such model"}, {})) as api:
        with pytest.raises(RemoteError, match="no such model"):
            embedder(api.url).embed(texts)
        assert [len(body["input"]) for body in api.requests] == [100, 1]

    def answer(path: str, body: dict[str, Any]) -> Any:
        return (413, {"error": "text 77 is too long"}, {}) if "text 77" in body["input"] else honest(path, body)

    with api_serving(answer) as api:
        made = embedder(api.url)
        with pytest.raises(RemoteError, match="text 77 is too long"):
            made.embed(texts)
        asked = len(api.requests)
        made.embed(texts[:70])
        assert len(api.requests) == asked + 1, "one text that is refused teaches nothing about their number"


def test_width_and_fingerprint():
    with api_serving(honest) as api:
        assert embedder(api.url).width == 8
        assert embedder(api.url, dimensions=5).embed(["a"]).shape == (1, 5)
        assert api.requests[1]["dimensions"] == 5
        assert embedder(api.url).embed([]).shape == (0, 8)
    one, same, other = embedder("http://x"), embedder("http://x/"), embedder("http://x", dimensions=8)
    assert one.fingerprint == same.fingerprint != other.fingerprint
    again = RemoteEmbedder.named(other.name, "secret")
    assert (again.fingerprint, again.width) == (other.fingerprint, 8)
    assert "secret" not in repr(again) + again.name
    assert RemoteEmbedder.named("http://x/v1#nomic:latest").model == "nomic:latest"
    assert is_address(other.name)


@pytest.mark.parametrize("name", ["http://x", "http://x#", "embed", "http://x#m?dimensions=x", "http://x#m?size=3"])
def test_a_name_that_is_none(name):
    with pytest.raises(InputError):
        RemoteEmbedder.named(name)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"data": []}, "0 vectors for 2 texts"),
        ({"data": [{"index": 0, "embedding": [1, 2]}]}, "1 vectors for 2 texts"),
        ({"data": [{"index": n, "embedding": [1, 2]} for n in (0, 1, 0)]}, "3 vectors for 2 texts"),
        ({"data": [{"index": 0, "embedding": [1, 2]}] * 2}, "2 vectors for 2 texts, numbered wrongly"),
        ({"data": [{"index": 0, "embedding": [1, 2]}, {"index": 1, "embedding": [1]}]}, "2 finite numbers"),
        ({"data": [{"index": 0, "embedding": [1, 2]}, {"index": 1, "embedding": [1, float("nan")]}]}, "finite"),
        ({"data": [{"index": 0, "embedding": "AAAA"}, {"index": 1}]}, "no vectors that can be read"),
        *(
            ({"data": [{"index": 0, "embedding": odd}, {"index": 1, "embedding": odd}]}, "no vectors that can be read")
            for odd in ([], 5.0, [0.0, 0.0], [[1.0]], ["1.5"], None, [10**400])
        ),
        ({"data": 3}, "no vectors that can be read"),
        ((200, b'{"data": [{"index": 1e999, "embedding": [1]}]}', {}), "no vectors that can be read"),
        ((400, {"error": {"message": "input too long"}}, {}), "input too long"),
        ((503, b"", {}), "2 tries"),
    ],
)
def test_a_bad_answer_is_an_error(answer, message):
    with api_serving(lambda path, body: answer) as api, pytest.raises(RemoteError, match=message):
        embedder(api.url, tries=2).embed(["a", "b"])


def test_it_tries_again():
    answers = iter([(429, {}, {}), (502, b"", {})])
    lock = threading.Lock()

    def answer(path: str, body: dict[str, Any]) -> Any:
        with lock:
            return next(answers, None) or honest(path, body)

    with api_serving(answer) as api:
        assert embedder(api.url).embed(["a"]).shape == (1, 8)
    assert len(api.requests) == 3


def test_large_and_small_numbers_have_a_direction() -> None:
    """Of 3e38 the squares were more than float32 holds, and the vector became one of zeros."""
    for numbers in ([3e38, 3e38], [1e308, 1e308], [1e-300, 1e-300]):
        rows = [{"index": 0, "embedding": numbers}]
        with api_serving(lambda path, body, rows=rows: {"data": rows}) as api:
            np.testing.assert_allclose(embedder(api.url).embed(["a"]), [[0.5**0.5, 0.5**0.5]], rtol=1e-6)


def test_requests_at_once_that_disagree_about_the_width() -> None:
    """Both were the first, and the vectors did not fit into one array: a ValueError of NumPy."""
    both = threading.Barrier(2)

    def answer(path: str, body: dict[str, Any]) -> Any:
        both.wait(20)
        width = 3 if "0" in body["input"] else 1
        return {"data": [{"index": n, "embedding": [1.0] * width} for n in range(len(body["input"]))]}

    with api_serving(answer) as api, pytest.raises(RemoteError, match=r"not of [13] finite numbers"):
        embedder(api.url, tries=1).embed([str(number) for number in range(256)])


def test_secrets_of_an_address_are_sent_and_told_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """An index kept `user:password@`, and a query stood before the path."""
    caplog.set_level("DEBUG")
    with api_serving(honest) as api:
        host = api.url.removeprefix("http://")
        url = f"http://me:s3cr%40t@{host}/?api-version=1&api-key=s3cret&deployment=a"
        made = RemoteEmbedder(url, "m", "key", pause=0.001)
        assert made.embed(["a"]).shape == (1, 8)
        assert api.paths == ["/v1/embeddings?api-version=1&api-key=s3cret&deployment=a"]
        assert api.headers[0]["authorization"] == "Basic bWU6czNjckB0"
        assert api.headers[0]["host"] == host.removesuffix("/v1")
        plain = RemoteEmbedder.named(f"{api.url}?api-version=1&deployment=a#m")
        assert plain.embed(["a"]).shape == (1, 8)
        assert api.paths[1] == "/v1/embeddings?api-version=1&deployment=a"
    assert made.name == plain.name == f"{api.url}?api-version=1&deployment=a#m"
    assert made.fingerprint == plain.fingerprint
    with api_serving(lambda path, body: (500, {}, {})) as api, pytest.raises(RemoteError) as failed:
        RemoteEmbedder(f"http://me:s3cret@{api.url[7:]}?code=s3cret", "m", tries=1).embed(["a"])
    said = [repr(made), str(failed.value), *(record.getMessage() for record in caplog.records)]
    for wrong in ("http://me:s3cret@h:x/v1?sig=s3cret", "http://me:s3cret@h/v1#x"):
        with pytest.raises(InputError) as refused:
            RemoteEmbedder(wrong, "m")
        said.append(str(refused.value))
    with pytest.raises(InputError) as refused:
        RemoteEmbedder.named("http://me:s3cret@h/v1?key=s3cret")
    assert not [one for one in (*said, str(refused.value)) if "s3cr" in one]


@pytest.mark.parametrize(
    "url",
    ["https://me:s3/cret@h.example/v1", "https://me:s3?cret@h.example/v1", "https://me:s3#cret@h.example/v1",
     "https:/me:s3cret@h.example/v1", "me:s3cret@h.example/v1", "https://me:[s3@cret@h.example/v1",
     "https://me:s3\ncret@h.example/v1", "//me:s3cret@h.example/v1", "ftp://me:s3cret@h.example/v1"],
)  # fmt: skip
def test_a_password_is_not_told_of_what_is_no_address(url: str, tmp_path: Path) -> None:
    """Nothing was taken out where a password was none as it stood, or the address none."""
    (tmp_path / "a.txt").write_text("tea", encoding="utf-8")
    said = []
    for made in (lambda: RemoteEmbedder(url, "m"), lambda: RemoteEmbedder.named(f"{url}#m"),
                 lambda: LanguageModel(url, "m"), lambda: LanguageModel.named(f"{url}#m"),
                 lambda: crossrank.load(f"{url}#m"), lambda: crossrank.load_embedder(f"{url}#m")):  # fmt: skip
        with pytest.raises((InputError, CheckpointError)) as refused:
            made()
        said.append(str(refused.value))
    asked = ("rerank", "tea", str(tmp_path / "a.txt"), "--model", f"{url}#m")
    told = CliRunner().invoke(root, asked)
    assert told.exit_code == 1
    for one in (*said, told.output):
        assert not [part for part in ("s3", "cret", "me:") if part in one], one
        assert "h.example/v1" in one


def test_a_key_that_is_not_set_is_none() -> None:
    assert embedder("http://x", key=None).name == embedder("http://x").name
    with pytest.raises(InputError, match="a text, not int"):
        embedder("http://x", key=3)


def test_our_own_server(bi_encoder_folder: Path, cross_encoder_folder: Path) -> None:
    pytest.importorskip("crossrank.server.app", reason="needs the server extra")
    from serving import serving

    local = crossrank.load_embedder(bi_encoder_folder)
    texts = ["the cat", "bread is of yeast", "the cat"]
    with serving(cross_encoder_folder, embedder=local) as running:
        made = RemoteEmbedder(f"{running.listener.url.rstrip('/')}/v1", str(bi_encoder_folder)).embed(texts)
    np.testing.assert_allclose(made, local.embed(texts), atol=1e-5)


def test_an_index_made_and_searched_through_an_address(
    tmp_path: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("crossrank.index", reason="needs the search extra")
    (tmp_path / "tea.txt").write_text("Tea is hot.", encoding="utf-8")
    (tmp_path / "bread.txt").write_text("Bread needs yeast.", encoding="utf-8")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    files, folder = [str(tmp_path / "tea.txt"), str(tmp_path / "bread.txt")], str(tmp_path / "index")

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(root, arguments)

    search = ("search", folder, "hot tea", "-m", str(cross_encoder_folder), "--backend", "fake", "-k", "1")
    with api_serving(honest) as api:
        name = f"{api.url}#m"
        made = run("index", *files, "--to", folder, "--model", name)
        assert made.exit_code == 0, made.output
        found = run(*search, "--embedder", name)
        assert found.exit_code == 0, found.output
        assert {headers["authorization"] for headers in api.headers} == {"Bearer secret"}
        asked = len(api.requests)
        for refused in (run(*search), run("index", *files, "--to", folder)):
            assert refused.exit_code == 1
            assert name in refused.output
        with pytest.raises(IndexFileError, match="embedder=RemoteEmbedder"):
            crossrank.open_pipeline(folder, cross_encoder_folder)
        assert len(api.requests) == asked, "an address in an index is not followed"
        pipeline = crossrank.open_pipeline(folder, cross_encoder_folder, embedder=RemoteEmbedder.named(name))
        assert len(pipeline.search("hot tea").passages) == 2


def test_what_an_address_finds_is_measured(
    tmp_path: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever embeds with an API asks `eval`, too, whether reranking helps: it could not load the index's embedder."""
    for module in ("crossrank.index", "ir_measures"):
        pytest.importorskip(module, reason="needs the extras search and eval")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    folder, tables = tmp_path / "drinks", {"corpus.jsonl": [], "queries.jsonl": []}
    for id_, text in (("tea", "Tea is hot."), ("bread", "Bread needs yeast.")):
        tables["corpus.jsonl"].append({"_id": id_, "text": text})
        tables["queries.jsonl"].append({"_id": f"q-{id_}", "text": text.lower()})
    (folder / "qrels").mkdir(parents=True)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq-tea\ttea\t1\nq-bread\tbread\t1\n")
    for name, rows in tables.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = ("--models", str(cross_encoder_folder), "--backend", "fake", "--json")

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(root, arguments)

    with api_serving(honest) as api:
        name = f"{api.url}#m"
        cached = ("--cache", str(tmp_path / "cache"), "--embedder", name)
        for command in ("eval", "frontier"):
            made = run(command, str(folder), *cached, *model)
            assert made.exit_code == 0, made.output
        sent = [body["input"] for body in api.requests]
        assert sent.count(["Tea is hot.", "Bread needs yeast."]) == 1, "the second command takes the first one's index"
        (index,) = (tmp_path / "cache").glob("*.index")
        files = ("--queries", str(folder / "queries.jsonl"), "--qrels", str(folder / "qrels" / "test.tsv"))
        asked = len(api.requests)
        refused = run("eval", str(index), *files, *model)
        assert (refused.exit_code, f'--embedder "{name}"' in refused.output) == (1, True)
        assert len(api.requests) == asked, "an address in an index is not followed"
        found = run("eval", str(index), *files, "--embedder", name, *model)
        assert found.exit_code == 0, found.output
        dense = next(one for one in json.loads(found.output)["systems"] if one["name"] == "dense")
        assert dense["values"]["nDCG@10"]["mean"] == 1


def test_an_index_made_through_an_address_is_served(
    tmp_path: Path, cross_encoder_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It could only be searched: `serve` and `mcp` named a class of Python, and had no --embedder."""
    pytest.importorskip("crossrank.index", reason="needs the search extra")
    pytest.importorskip("crossrank.server.app", reason="needs the server extra")
    from crossrank.cli import serve
    from crossrank.index import Document, Index
    from crossrank.models import named
    from crossrank.server.limits import Limits
    from serving import asked

    down: list[bool] = []
    another: list[Any] = []

    def answer(path: str, body: dict[str, Any]) -> Any:
        return (500, {"echo": body}, {}) if down else another[0] if another else honest(path, body)

    tokenizer = named.read(None, default="embed").tokenizer()
    with api_serving(answer) as api:
        remote = embedder(api.url)
        index = Index.create(tmp_path / "index", remote, tokenizer, model=remote.name)
        index.add([Document("tea", "Tea is hot."), Document("bread", "Bread needs yeast.")], remote, tokenizer)
        model = ("-m", str(cross_encoder_folder), "--backend", "fake")
        for command in ("serve", "mcp"):
            refused = CliRunner().invoke(root, (command, str(tmp_path / "index"), *model))
            assert refused.exit_code == 1
            assert f'--embedder "{remote.name}"' in refused.output
            refused = CliRunner().invoke(root, (command, *model, "--embedder", remote.name))
            assert (refused.exit_code, "INDEX" in refused.output) == (2, True)
        engine = ("fake", "auto", "auto", None)
        del api.requests[:]
        down.append(True)
        service = serve._service(
            tmp_path / "index", (str(cross_encoder_folder),), remote.name, engine, False, Limits(), 1024
        )
        service.start()
        try:
            # It did not start while the address was down, and reranked nothing either.
            assert not api.requests
            assert asked(service, "/search", {"query": "hot tea"}).status_code == 503
            assert asked(service, "/v2/rerank", {"query": "tea", "documents": ["hot tea"]}).status_code == 200
            down.clear()
            del api.requests[:]
            found = asked(service, "/search", {"query": "hot tea", "rerank": False})
            assert [one["document"] for one in found.json()["results"]] == ["tea", "bread"]
            own = asked(service, "/search", {"query": "mine", "documents": ["my own"]})
            assert [step["name"] for step in own.json()["steps"]] == ["given", "reranked"]
            assert asked(service, "/v1/embeddings", {"input": "mine"}).status_code == 404
            assert [body["input"] for body in api.requests] == [["hot tea"]], "nothing but queries to the index"
            down.append(True)
            failed = asked(service, "/search", {"query": "hot tea"})
            assert (failed.status_code, "embedder does not answer" in failed.text) == (503, True)
            assert api.url not in failed.text
            down.clear()
            for odd, logged in (({"data": [{"index": 0, "embedding": [1, 2]}]}, "not of 8 finite numbers"),
                                ({"data": [{"index": 0, "embedding": "tea"}]}, "no vectors that can be read"),
                                ((200, b"<p>hot tea", {}), "with no JSON object")):  # fmt: skip
                another[:] = [odd]
                caplog.clear()
                failed = asked(service, "/search", {"query": "hot tea"})
                assert (failed.status_code, "do not fit the index" in failed.text) == (503, True)
                assert "retry-after" not in failed.headers, "it was told to ask again, for ever"
                assert api.url not in failed.text
                assert logged in caplog.text
                assert "tea" not in caplog.text
        finally:
            service.stop()
