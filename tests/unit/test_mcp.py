"""The tools for agents, through the protocol's own client. No network: in memory, and over stdin and stdout."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("mcp.server.mcpserver", reason="needs the mcp extra")

with warnings.catch_warnings():
    # The SDK's own imports may warn of what it deprecates in itself or its libraries; ours must not.
    warnings.simplefilter("ignore")
    from mcp import Client, ClientSession, StdioServerParameters, stdio_client

import crossrank
import tiny
from crossrank import index
from crossrank.cli import root
from crossrank.errors import InputError
from crossrank.integrations.mcp import build
from crossrank.retrieval.dense import DenseRetriever


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, bi_encoder_folder: Path) -> Path:
    """An index of two files."""
    base = tmp_path_factory.mktemp("mcp")
    (base / "bread.txt").write_text("Bread is of yeast.", encoding="utf-8")
    (base / "cat.txt").write_text("\n\nThe cat is a planet.", encoding="utf-8")
    embedder = crossrank.load_embedder(bi_encoder_folder)
    made = index.Index.create(base / "i", embedder, embedder.tokenizer, model=str(bi_encoder_folder), size=40)
    made.update([base / "bread.txt", base / "cat.txt"], embedder, embedder.tokenizer)
    return base / "i"


def call(server: Any, tool: str, **arguments: Any) -> Any:
    async def ask() -> Any:
        async with Client(server) as client:
            return await client.call_tool(tool, arguments)

    return asyncio.run(ask())


def test_the_tools_are_listed_with_what_they_take(folder: Path, cross_encoder_folder: Path) -> None:
    pipeline = crossrank.open_pipeline(folder, cross_encoder_folder, backend="fake")

    async def listed(server: Any) -> dict[str, Any]:
        async with Client(server) as client:
            return {tool.name: tool for tool in (await client.list_tools()).tools}

    both = asyncio.run(listed(build(pipeline.stages[0].scorer, pipeline)))
    assert set(both) == {"search", "rerank"}
    assert both["rerank"].input_schema["required"] == ["query", "documents"]
    assert all(tool.description for tool in both.values())
    assert set(asyncio.run(listed(build(pipeline.stages[0].scorer)))) == {"rerank"}
    with pytest.raises(InputError):
        build(None)


def test_rerank(cross_encoder_folder: Path) -> None:
    scorer = crossrank.load(cross_encoder_folder, backend="fake")
    documents = ["Bread needs yeast.", "The cat is a planet.", " "]
    made = call(build(scorer), "rerank", query="what is the planet?", documents=documents)
    assert not made.is_error
    found = made.structured_content["result"]
    want = scorer.rank("what is the planet?", documents)
    assert [one["position"] for one in found] == list(want.positions)
    assert [one["text"] for one in found] == [documents[position] for position in want.positions]
    assert [one["score"] for one in found] == pytest.approx([*want.scores.tolist()[:2], None])


def test_search_leads_back_to_the_file(folder: Path, cross_encoder_folder: Path) -> None:
    pipeline = crossrank.open_pipeline(folder, cross_encoder_folder, backend="fake")
    made = call(build(None, pipeline), "search", query="what is the cat?", k=2)
    found = made.structured_content["result"]
    assert [one["rank"] for one in found] == [1, 2]
    (cat,) = (one for one in found if one["document"] == "cat.txt")
    assert (cat["file"], cat["line"], cat["text"]) == (str(folder.parent / "cat.txt"), 3, "The cat is a planet.")


def test_search_gives_so_many_passages_of_a_document(tmp_path: Path, bi_encoder_folder: Path) -> None:
    embedder = crossrank.load_embedder(bi_encoder_folder)
    made = index.Index.create(tmp_path / "i", embedder, embedder.tokenizer, model=str(bi_encoder_folder), size=16)
    guide = " ".join(f"The cat is a planet of {n}." for n in range(6))
    texts = {"guide": guide, "bread": "Bread is of yeast."}
    made.add([index.Document(id_, text) for id_, text in texts.items()], embedder, embedder.tokenizer)
    server = build(None, crossrank.open_pipeline(tmp_path / "i", rerank=False))
    query = "the cat is a planet"
    assert {one["document"] for one in call(server, "search", query=query, k=2).structured_content["result"]} == {
        "guide"
    }
    found = call(server, "search", query=query, k=2, per_document=1).structured_content
    assert [(one["rank"], one["document"]) for one in found["result"]] == [(1, "guide"), (2, "bread")]
    assert found["notes"][0].startswith("left out: ")
    for wrong in (0, True):
        assert call(server, "search", query=query, per_document=wrong).is_error


def test_a_passage_that_was_not_read_has_a_score_under_the_others(folder: Path, cross_encoder_folder: Path) -> None:
    """It had that of the first stage, and an agent that sorts by score put it first."""
    pipeline = crossrank.open_pipeline(folder, crossrank.load(cross_encoder_folder, backend="fake"))
    (stage,) = pipeline.stages
    pipeline = replace(pipeline, stages=(replace(stage, depth=1, weight=1.0),))
    answer = pipeline.search("what is the cat?", 2)
    read, unread = call(build(None, pipeline), "search", query="what is the cat?", k=2).structured_content["result"]
    assert read["score"] == pytest.approx(answer.ranking.scores[0])
    assert unread["score"] == pytest.approx(read["score"] - 1)


def test_search_says_how_probable_and_takes_a_threshold(
    folder: Path, cross_encoder_folder: Path, plain_folder: Path
) -> None:
    """A rank says which passage is best, and an agent has to know whether any answers."""
    scorer = crossrank.load(cross_encoder_folder, backend="fake", calibration={"slope": 1.0, "intercept": 0.0})
    pipeline = crossrank.open_pipeline(folder, scorer)
    server, query = build(None, pipeline), "what is the cat?"
    found = call(server, "search", query=query).structured_content["result"]
    chances = pipeline.relevance(pipeline.search(query, 5)).probabilities
    assert [one["probability"] for one in found] == pytest.approx(chances)
    limit = max(one["probability"] for one in found)
    kept = call(server, "search", query=query, threshold=limit).structured_content["result"]
    left = [one for one in found if one["probability"] >= limit]
    assert kept == [{**one, "rank": rank} for rank, one in enumerate(left, start=1)]
    assert len(kept) < len(found)
    nothing = call(server, "search", query=query, threshold=1).structured_content
    assert (nothing["result"], "nothing reaches the threshold: the best passage" in nothing["notes"][0]) == ([], True)
    assert call(server, "search", query=query, threshold=None).structured_content["result"] == found
    assert "no threshold of its own" in call(server, "search", query=query, threshold="model").content[0].text
    assert call(server, "search", query=query, threshold=2).is_error
    wrong = call(server, "search", query=query, threshold="NaN").content[0].text
    assert "threshold: Input should be less than or equal to 1; threshold: Input should be 'model'" in wrong
    switched = call(server, "search", query=query, threshold=True)
    assert switched.is_error, "it was taken for 1.0"
    assert "from 0 to 1 or 'model', not true or false" in switched.content[0].text
    # Its authors trained it to give probabilities, which count where they are asked for by name.
    trained = build(None, crossrank.open_pipeline(folder, cross_encoder_folder, backend="fake"))
    found = call(trained, "search", query=query, threshold=0).structured_content["result"]
    assert all(one["probability"] is not None for one in found)
    plain = build(None, crossrank.open_pipeline(folder, plain_folder, backend="fake"))
    assert [one["probability"] for one in call(plain, "search", query=query).structured_content["result"]] == [None] * 2
    refused = call(plain, "search", query=query, threshold=0.5)
    assert (refused.is_error, "uncalibrated logits" in refused.content[0].text) == (True, True)
    assert refused.content[0].text.endswith("or leave out the threshold"), "an agent can cure nothing else"

    async def listed() -> dict[str, Any]:
        async with Client(server) as client:
            (tool,) = (await client.list_tools()).tools
            assert tool.description is not None
            assert "probability" in tool.description
            return dict(tool.input_schema["properties"])

    assert "'model' takes the model's own" in asyncio.run(listed())["threshold"]["description"]


def test_what_a_threshold_could_not_be_held_against_is_told(
    folder: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `Pipeline.search` has it: an agent must not take what was not read for what does not answer."""
    scorer = crossrank.load(cross_encoder_folder, backend="fake", calibration={"slope": 1.0, "intercept": 0.0})
    query = "what is the cat?"
    pipeline = crossrank.open_pipeline(folder, scorer)
    shallow = replace(pipeline, stages=tuple(replace(stage, depth=1) for stage in pipeline.stages))
    found = call(build(None, shallow), "search", query=query, threshold=0.0).structured_content
    assert len(found["result"]) == 1
    assert found["notes"] == ["left out: 1 passage that the last stage did not read"]

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("broken")

    keeps = build(None, crossrank.open_pipeline(folder, scorer, on_error="keep"))
    assert call(keeps, "search", query=query, threshold=0.0).structured_content["notes"] == []
    monkeypatch.setattr(type(scorer.backend), "forward", broken)
    for threshold in (None, 0.0):
        found = call(keeps, "search", query=query, threshold=threshold).structured_content
        assert len(found["result"]) == 2
        assert "broken" in found["notes"][0]
        assert any("threshold was not used" in note for note in found["notes"]) == (threshold is not None)


def test_search_goes_on_when_the_index_is_updated(
    tmp_path: Path, cross_encoder_folder: Path, bi_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent's session is longer than versions of an index are kept."""
    embedder = crossrank.load_embedder(bi_encoder_folder, backend="fake")
    made = index.Index.create(tmp_path / "i", embedder, embedder.tokenizer, model=str(bi_encoder_folder), size=40)
    made.add([index.Document(name, "bread") for name in "abcdef"], embedder, embedder.tokenizer)
    server = build(None, crossrank.open_pipeline(tmp_path / "i", cross_encoder_folder, backend="fake"))
    monkeypatch.setattr("crossrank.index.table._READ_FOR", 0.0)
    made.remove(["b", "c", "d", "e", "f"])
    made.add([index.Document("a", "the cat")], embedder, embedder.tokenizer)
    answer = call(server, "search", query="bread", k=3)
    assert not answer.is_error
    assert [one["text"] for one in answer.structured_content["result"]] == ["the cat"]


def test_search_sees_what_was_committed_since(
    tmp_path: Path, cross_encoder_folder: Path, bi_encoder_folder: Path
) -> None:
    embedder = crossrank.load_embedder(bi_encoder_folder, backend="fake")
    made = index.Index.create(tmp_path / "i", embedder, embedder.tokenizer, model=str(bi_encoder_folder), size=40)
    made.add([index.Document("a", "bread")], embedder, embedder.tokenizer)
    pipeline = crossrank.open_pipeline(tmp_path / "i", cross_encoder_folder, backend="fake")
    assert isinstance(pipeline.store, index.Index)
    server = build(None, pipeline, pipeline.store.refresh)
    assert len(call(server, "search", query="bread", k=3).structured_content["result"]) == 1
    made.add([index.Document("b", "more bread")], embedder, embedder.tokenizer)
    assert len(call(server, "search", query="bread", k=3).structured_content["result"]) == 2


def test_a_search_that_begins_does_not_move_one_that_is_under_way(
    tmp_path: Path, cross_encoder_folder: Path, bi_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tools run in threads over one index: the other search's refresh made this one fail, "has no passage"."""
    embedder = crossrank.load_embedder(bi_encoder_folder, backend="fake")
    made = index.Index.create(tmp_path / "i", embedder, embedder.tokenizer, model=str(bi_encoder_folder), size=40)
    made.add([index.Document(name, "bread") for name in "ab"], embedder, embedder.tokenizer)
    pipeline = crossrank.open_pipeline(tmp_path / "i", cross_encoder_folder, backend="fake")
    assert isinstance(pipeline.store, index.Index)
    refresh, real = pipeline.store.refresh, DenseRetriever.retrieved

    def found(self: DenseRetriever, queries: Sequence[str], depth: int) -> Any:
        ids = real(self, queries, depth)
        made.remove(["b"])
        refresh()
        return ids

    monkeypatch.setattr(DenseRetriever, "retrieved", found)
    server = build(None, pipeline, refresh)
    for known in (2, 1):
        answer = call(server, "search", query="bread")
        assert not answer.is_error, answer
        assert len(answer.structured_content["result"]) == known


def test_what_an_agent_can_cure_is_told(cross_encoder_folder: Path) -> None:
    server = build(crossrank.load(cross_encoder_folder, backend="fake"))
    for arguments, message in (
        ({"query": " ", "documents": ["a"]}, "the query is empty"),
        ({"query": "q", "documents": ["a"] * 1001}, "at most 1,000 documents"),
        ({"query": "q", "documents": ["a"], "k": 0}, "k: Input should be greater than or equal to 1"),
        ({"query": "q"}, "documents: Field required"),
        ({"query": "q", "documents": ["a"], "top": 3}, "rerank has no argument 'top'; there are query, documents, k"),
    ):
        made = call(server, "rerank", **arguments)
        assert made.is_error
        assert message in made.content[0].text
        assert "pydantic" not in made.content[0].text
    assert "Unknown tool: find" in call(server, "find", query="q").content[0].text


def test_an_embedder_that_was_moved(
    folder: Path, cross_encoder_folder: Path, bi_encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = shutil.copytree(bi_encoder_folder, tmp_path / "moved")
    loaded = []
    real = crossrank.opening.load_embedder
    monkeypatch.setattr("crossrank.opening.load_embedder", lambda name, **how: loaded.append(name) or real(name, **how))
    monkeypatch.setattr("mcp.server.mcpserver.MCPServer.run", lambda server: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    arguments = ["mcp", str(folder), "-m", str(cross_encoder_folder), "--backend", "fake", "--embedder", str(moved)]
    done = CliRunner().invoke(root, arguments)
    assert done.exit_code == 0, done.output
    assert loaded == [str(moved)]


def test_a_late_interaction_model_without_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late, servers = str(tiny.late(tmp_path / "late")), []
    monkeypatch.setattr("mcp.server.mcpserver.MCPServer.run", lambda server: servers.append(server))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    done = CliRunner().invoke(root, ["mcp", "-m", late, "--backend", "reference"])
    assert done.exit_code == 0, done.output
    documents = ["bread", "the capital of france"]
    made = call(servers[0], "rerank", query="capital", documents=documents)
    ranked = crossrank.load_late(late, backend="reference").rank("capital", documents)
    assert [one["position"] for one in made.structured_content["result"]] == list(ranked.positions)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_ends_it_while_it_waits_for_the_agent(cross_encoder_folder: Path) -> None:
    arguments = [sys.executable, "-m", "crossrank.cli", "mcp", "-m", str(cross_encoder_folder), "--backend", "fake"]
    with subprocess.Popen(arguments, stdin=-1, stdout=-1, stderr=-1, text=True) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        # A reply says that the server reads its stdin; before that there is nothing that could hang.
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
        running.stdin.write(json.dumps(asked) + "\n")
        running.stdin.flush()
        told = json.loads(running.stdout.readline())["result"]["serverInfo"]
        assert (told["name"], told["version"]) == ("crossrank", crossrank.__version__)
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130


def test_over_stdin_and_stdout(folder: Path, cross_encoder_folder: Path) -> None:
    """The command itself: nothing but the protocol may be on its stdout."""
    arguments = ["-m", "crossrank.cli", "mcp", str(folder), "-m", str(cross_encoder_folder), "--backend", "fake"]
    started = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))

    async def ask() -> Any:
        with open(os.devnull, "w") as nowhere:
            async with stdio_client(started, errlog=nowhere) as (read, write), ClientSession(read, write) as session:
                await session.initialize()
                return await session.call_tool("search", {"query": "what is the cat?", "k": 1})

    made = asyncio.run(ask())
    assert not made.is_error
    assert len(made.structured_content["result"]) == 1


def requests(*calls: dict[str, Any]) -> str:
    """What an agent writes that asks all at once."""
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    asked = [
        {"id": 0, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        *({"id": number, "method": "tools/call", "params": one} for number, one in enumerate(calls, start=1)),
    ]
    return "".join(json.dumps({"jsonrpc": "2.0", **one}) + "\n" for one in asked)


def test_what_was_asked_before_stdin_ends_is_answered(cross_encoder_folder: Path) -> None:
    # All answers under way were lost.
    asked = {"name": "rerank", "arguments": {"query": "bread", "documents": ["a", "b"]}}
    arguments = [sys.executable, "-m", "crossrank.cli", "mcp", "-m", str(cross_encoder_folder), "--backend", "fake"]
    gone = json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 3}})
    text = f"no JSON\n{requests(*[asked] * 4)}{gone}\n"
    done = subprocess.run(arguments, input=text, capture_output=True, text=True, timeout=60, check=True)
    answers = {one.get("id"): one for one in map(json.loads, done.stdout.splitlines())}
    assert {0, 1, 2, 4} <= set(answers)
    assert len(answers[4]["result"]["structuredContent"]["result"]) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_an_agent_that_left_is_no_error(cross_encoder_folder: Path) -> None:
    arguments = [sys.executable, "-m", "crossrank.cli", "mcp", "-m", str(cross_encoder_folder), "--backend", "fake"]
    with subprocess.Popen(arguments, stdin=-1, stdout=-1, stderr=-1, text=True) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        running.stdin.write(requests({"name": "rerank", "arguments": {"query": "bread", "documents": ["a"]}}))
        running.stdin.close()
        assert running.wait(30) == 0
        assert "Traceback" not in running.stderr.read()


SLOW = """
import sys, time
import numpy as np
from crossrank.integrations.mcp import build

class Slow:
    def score(self, pairs):
        pairs = list(pairs)
        print("scored", len(pairs), file=sys.stderr, flush=True)
        time.sleep(0.2 if len(pairs[0][1]) > 1000 else 0)
        return np.array([len(text) for _, text in pairs], np.float32)

build(Slow()).run()
"""


def test_what_is_no_request_is_answered_too() -> None:
    """The SDK drops what it cannot read, and whoever had asked waited for ever: half of a surrogate pair was enough."""
    asked = {"name": "rerank", "arguments": {"query": "te\ud800a", "documents": ["\ud800 lone", "tea"]}}
    call = {"jsonrpc": "2.0", "id": "b", "method": "tools/call", "params": asked}
    ping = {"jsonrpc": "2.0", "id": 7, "method": "ping"}
    lines = [[call, ping, {"jsonrpc": "1.0", "id": 8, "method": "ping"}], {"id": 9, "method": "ping"}, [], {}, 3]
    # The SDK takes these for notifications.
    lines += [{**ping, "id": id_} for id_ in (None, 1.5, True, [1])] + [[{**ping, "id": None}]]
    # It ended at the first, and forgot request 1 at the others.
    lines += [{**ping, "method": "notifications/cancelled", "params": {"requestId": id_}} for id_ in ([1], True, 1.0)]
    for line in lines[-3:]:
        del line["id"]
    text = requests(asked) + "".join(f"{json.dumps(line)}\n" for line in lines) + "no JSON\n\n" + "[" * 9999 + "\n"
    done = subprocess.run([sys.executable, "-c", SLOW], input=text, capture_output=True, text=True, timeout=300)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    known = {one["id"]: one for one in answers if one["id"] is not None}
    for id_ in (1, "b"):
        found = known[id_]["result"]["structuredContent"]["result"]
        assert [one["text"] for one in found] == ["\ufffd lone", "tea"]
    assert known[7]["result"] == {}
    assert [known[id_]["error"]["code"] for id_ in (8, 9)] == [-32600, -32600]
    assert sorted(one["error"]["code"] for one in answers if one["id"] is None) == [-32700] * 2 + [-32600] * 8


def test_a_request_that_is_cancelled_is_worked_on_no_more() -> None:
    """All documents were scored, and without stdin the process stayed until they were."""
    asked = {"name": "rerank", "arguments": {"query": "tea", "documents": ["w" * 4_000] * 900}}
    gone = json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
    with subprocess.Popen([sys.executable, "-c", SLOW], stdin=-1, stdout=-1, stderr=-1, text=True) as running:
        assert running.stdin is not None
        assert running.stderr is not None
        running.stdin.write(requests(asked))
        running.stdin.flush()
        assert running.stderr.readline() == "scored 8\n"
        running.stdin.write(f"{gone}\n")
        running.stdin.close()
        scored = running.stderr.read().count("scored")
        assert running.wait(300) == 0
    assert scored < 90


def test_documents_that_are_scored_in_parts_are_ordered_as_one() -> None:
    class Length:
        def score(self, pairs: Any) -> Any:
            return np.array([len(text) % 50 for _, text in pairs], np.float32)

    texts = ["w" * (number % 70) + "a" for number in range(150)] + ["x" * 40_000, " ", "y" * 31_999, "z"]
    found = call(build(Length()), "rerank", query="q", documents=texts, k=100).structured_content["result"]
    want = sorted(range(len(texts)), key=lambda place: (-(len(texts[place]) % 50), place))
    assert [one["position"] for one in found] == want[:100]
    assert all(one["text"] == texts[one["position"]] for one in found)
    assert call(build(Length()), "rerank", query="q", documents=[]).structured_content["result"] == []
