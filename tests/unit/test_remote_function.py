"""A function as a retriever, what a store's rows become, and the pipeline over a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crossrank
from apiserver import serving
from crossrank.errors import InputError
from crossrank.fusion import Scores
from crossrank.hybrid import hybrid
from crossrank.retrieval.remote.function import FunctionRetriever, VectorRetriever
from crossrank.retrieval.remote.store import Fields, check_depth, check_timeout, in_order, numbers
from crossrank.types import Passage

TEXTS = {"tea": "Tea is hot.", "bread": "Bread needs yeast.", "cat": "The cat is a planet."}


class Memory:
    """A store in a dictionary: words in common, and the embedder's cosine."""

    def __init__(self, embedder: Any) -> None:
        self.vectors = embedder.embed(list(TEXTS.values()))

    def words(self, query: str, depth: int) -> list[tuple[str, float]]:
        counts = {id_: len(set(query.lower().split()) & set(text.lower().split())) for id_, text in TEXTS.items()}
        return [(id_, count) for id_, count in counts.items() if count]

    def nearest(self, vector: np.ndarray, depth: int) -> list[tuple[str, float]]:
        return list(zip(TEXTS, (self.vectors @ vector).tolist(), strict=True))

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        return [Passage(id_, TEXTS[id_]) for id_ in ids]


def test_a_function_is_asked_for_each_query_that_says_something():
    asked = []

    def find(query: str, depth: int) -> list[tuple[str, float]]:
        asked.append((query, depth))
        return [("a", 1), ("b", 2.5), ("c", 1), ("d", -1)]

    found = FunctionRetriever(find).retrieve(["x", "  ", "y", "\u200b"], 3)
    assert [ranking.ids for ranking in found] == [("b", "a", "c"), (), ("b", "a", "c"), ()]
    assert found[0].scores.tolist() == [2.5, 1, 1]
    assert [ranking.head for ranking in found] == [3, 0, 3, 0]
    assert asked == [("x", 3), ("y", 3)]


def test_what_is_read_once_is_a_list():
    for find in (lambda: zip("ab", [1, 2], strict=True), lambda: {"a": 1, "b": 2}.items(), lambda: iter([("b", 2)])):
        (found,) = FunctionRetriever(lambda query, depth, find=find: find()).retrieve(["x"], 1)
        assert (found.ids, found.scores.tolist()) == (("b",), [2])

    def failing():
        yield ("a", 1)
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        FunctionRetriever(lambda query, depth: failing()).retrieve(["x"], 1)


@pytest.mark.parametrize(
    ("found", "order"),
    [([("a", 2**53), ("b", 2**53 + 1)], ("b", "a")), ([("none", -np.inf), ("a", -1e30)], ("a", "none"))],
)
def test_large_whole_numbers_differ_and_minus_infinity_comes_last(found: Any, order: tuple[str, ...]) -> None:
    assert FunctionRetriever(lambda query, depth: found).retrieve(["x"], 10)[0].ids == order


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([("a", 1), ("a", 2)], "comes twice"),
        ([(7, 1.0)], r"ids are strings, not int \(7\)"),
        ([("a", float("nan"))], "gives 'a' the score nan, which is no number"),
        ([("a", float("inf"))], "gives 'a' the score inf, which no other can reach: give a finite one"),
        ([("a", 10**400)], "which is no number"),
        ([("a", None)], "gives 'a' the score None, which is no number"),
        ([("a", "high")], "the score 'high', which is no number"),
        (None, r"gives a list of \(id, score\) pairs, not NoneType"),
        ({"a": 1.0}, r"not dict: give its items\(\)"),
        ("ab", "not str"),
        (b"ab", "not bytes"),
        (["a"], "in its list is 'a'"),
        ([("a", 1.0, "b")], "in its list is"),
    ],
)
def test_what_a_function_may_not_give(found, message):
    with pytest.raises(InputError, match=message):
        FunctionRetriever(lambda query, depth: found).retrieve(["x"], 10)
    with pytest.raises(InputError, match="a list of queries"):
        FunctionRetriever(lambda query, depth: found).retrieve("x", 10)
    with pytest.raises(InputError, match=r"^depth must be at least 1, not 0$"):
        FunctionRetriever(lambda query, depth: found).retrieve(["x"], 0)


def test_a_vector_retriever_embeds_once_and_tells_what_was_cut(bi_encoder_folder: Path) -> None:
    embedder = crossrank.load_embedder(bi_encoder_folder)
    retriever = VectorRetriever(Memory(embedder).nearest, embedder)
    plain, blank, long = retriever.retrieved(["the cat", "", "the cat " * 40], 2)
    assert plain.ranking.ids[0] == "cat"
    assert (len(plain.ranking), len(blank.ranking), len(long.ranking)) == (2, 0, 2)
    assert [(cut.position, cut.tokens, cut.read) for cut in long.truncations] == [(-1, 80, 46)]
    assert (plain.truncations, blank.truncations) == ((), ())
    assert retriever.retrieve(["\u200b\n"], 2)[0].ids == ()
    with pytest.raises(InputError, match=r"^depth must be at least 1, not 0$"):
        retriever.retrieve(["the cat"], 0)
    np.testing.assert_array_equal(retriever.retrieve(["the cat"], 2)[0].scores, plain.ranking.scores)


def test_rows_become_passages():
    fields = Fields("body", title="head", document="file", metadata=iter(["tags", "year", "gone"]))  # type: ignore[arg-type]
    row = {"body": "Cats \ud800 purr.", "head": None, "file": 7, "tags": ["a"], "year": 2019, "other": 1}
    want = Passage("1", "Cats \ufffd purr.", "", "7", {"tags": ["a"], "year": 2019})
    assert fields.passage("1", row) == want
    assert fields.names == ["body", "head", "file", "tags", "year", "gone"]
    assert fields.passage("1", {"body": None}).text == ""
    for wrong in ({}, {"body": 3}, {"body": "x", "head": ["y"]}):
        with pytest.raises(InputError, match="passage 1"):
            fields.passage("1", wrong)
    for arguments in ({"text": ""}, {"metadata": "year"}):
        with pytest.raises(InputError):
            Fields(**arguments)


def test_parts_of_a_row() -> None:
    """A document may have the number 0, and the longest name that leads somewhere is followed."""
    fields = Fields("a.b.c", document="number")
    row = {"a": {"b": {"c": "short"}}, "a.b": {"c": "long"}, "number": 0}
    assert fields.passage("1", row) == Passage("1", "long", "", "0")
    assert fields.passage("1", {**row, "a.b": {"d": "elsewhere"}}).text == "short"
    for wrong in (0, False, []):
        with pytest.raises(InputError, match="name a field of text"):
            Fields().passage("1", {"text": wrong})
    with pytest.raises(InputError, match="a list of names, not one int"):
        Fields(metadata=5)  # type: ignore[arg-type]


def test_what_a_store_may_be_asked() -> None:
    check_depth(10_000)
    with pytest.raises(InputError, match="at most 10,000 passages, not 10,001"):
        check_depth(10_001)
    assert (check_timeout(1e-3), check_timeout(3)) == (1e-3, 3)
    for wrong in (0, -1.0, np.inf, np.nan):
        with pytest.raises(InputError, match="a timeout is a time over 0"):
            check_timeout(wrong)
    assert numbers(np.float32([0.5, -1])) == [0.5, -1.0]
    for bad in ([], [[0.5]], [np.nan]):
        with pytest.raises(InputError, match="a row of finite numbers"):
            numbers(np.float32(bad))


@pytest.mark.parametrize(("ids", "told"), [(["a", "b"], "'b': it may"), (["b", "c", "a"], "'b' and 1 more: it may")])
def test_passages_that_a_store_does_not_give(ids: list[str], told: str) -> None:
    with pytest.raises(InputError, match=f"has no passage {told} have been deleted"):
        in_order(ids, {"a": Passage("a", "x")}, Path("notes"))


def test_the_pipeline_over_a_store(bi_encoder_folder: Path, cross_encoder_folder: Path) -> None:
    embedder = crossrank.load_embedder(bi_encoder_folder)
    made = hybrid(Memory(embedder), embedder, crossrank.load(cross_encoder_folder, backend="fake"), depth=2)
    answer = made.search("is the cat a planet", k=2)
    assert [trace.name for trace in answer.traces] == ["words", "vectors", "fused", str(cross_encoder_folder)]
    assert [len(trace.ranking) for trace in answer.traces[:2]] == [2, 2]
    assert [passage.text for passage in answer.passages] == [TEXTS[id_] for id_ in answer.ranking.ids]
    by_scores = hybrid(Memory(embedder), embedder, cross_encoder_folder, fusion=Scores({"words": 1, "vectors": 1}))
    assert len(by_scores.search("tea", k=3).passages) == 3
    with pytest.raises(InputError, match=r"^depth must be at least 1, not 0$"):
        hybrid(Memory(embedder), embedder, cross_encoder_folder, depth=0)
    assert by_scores.within(10_000).search("tea").late is False


def test_the_pipeline_takes_any_scorer(bi_encoder_folder: Path) -> None:
    class Length:
        def score(self, pairs: Any) -> np.ndarray:
            return np.array([len(text) for _, text in pairs], np.float32)

    embedder = crossrank.load_embedder(bi_encoder_folder)
    for model, name in ((crossrank.load_late(), "late"), ("late", "late"), (Length(), "Length"), (None, "small")):
        answer = hybrid(Memory(embedder), embedder, model, depth=3, mix=1.0).search("is the cat a planet", k=3)
        assert answer.traces[-1].name == name
        assert len(answer.traces[-1].scores) == 3
        if name == "Length":
            assert answer.passages[0].text == max(TEXTS.values(), key=len)
    with pytest.raises(InputError, match=r"an object with score\(pairs\), not int"):
        hybrid(Memory(embedder), embedder, 42)  # type: ignore[arg-type]


def test_a_model_behind_an_address_embeds_the_queries() -> None:
    pytest.importorskip("httpx", reason="needs the llm extra")
    from crossrank.remoteembedder import RemoteEmbedder

    def letters(path: str, body: dict[str, Any]) -> Any:
        rows = [[1.0 + text.lower().count(letter) for letter in "abcdefgh"] for text in body["input"]]
        return {"data": [{"index": place, "embedding": row} for place, row in enumerate(rows)]}

    with serving(letters) as api:
        embedder = RemoteEmbedder(api.url, "m", timeout=5.0)
        store = Memory(embedder)
        found = VectorRetriever(store.nearest, embedder).retrieve(["bread", "tea", " "], 3)
    assert [len(ranking) for ranking in found] == [3, 3, 0]
    assert found[0].ids[0] == "bread"
    assert api.requests[-1]["input"] == ["bread", "tea"], "one request for all queries"
