from __future__ import annotations

import csv
import errno
import gzip
import json
import math
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unicodedata import normalize
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from crossrank.errors import IndexFileError, InputError
from crossrank.index import Changes, Document, Index, Progress, commits, lock, readers, table
from crossrank.index.filters import Condition, decode_metadata, encode_metadata, mistake, parse, to_sql
from crossrank.index.folders import TABLE
from crossrank.index.lock import exclusive
from crossrank.pipeline import Pipeline
from crossrank.retrieval.bm25 import BM25Retriever
from crossrank.retrieval.dense import DenseRetriever
from crossrank.types import Embedded, Truncation

lance = pytest.importorskip("lance", reason="needs the search extra")
pa = pytest.importorskip("pyarrow", reason="needs the search extra")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the search extra")


class HashEmbedder:
    def __init__(self, width: int = 16, fingerprint: str = "hash") -> None:
        self.width = width
        self.fingerprint = fingerprint
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += texts
        out = np.full((len(texts), self.width), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            np.add.at(out[row], [crc32(word.encode()) % self.width for word in text.lower().split()], 1)
        return out / np.linalg.norm(out, axis=1, keepdims=True)


def letters(offset: int = 0) -> Tokenizer:
    vocabulary = {"[UNK]": 0} | {chr(code): code + offset for code in range(33, 127)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


EMBEDDER, TOKENIZER = HashEmbedder(), letters()


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index.create(tmp_path / "index", EMBEDDER, TOKENIZER)


def add(index: Index, *documents: Document) -> Changes:
    return index.add(documents, EMBEDDER, TOKENIZER)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def update(index: Index, *paths: Path) -> tuple[int, int, int, int, list[str]]:
    done = index.update(paths, EMBEDDER, TOKENIZER)
    return done.added, done.changed, done.deleted, done.unchanged, [failure.reason for failure in done.failed]


# What is stored.


def test_passages_come_back_as_they_went_in(index: Index) -> None:
    metadata = {"year": 2020, "score": 1.0, "ok": True, "none": None, "text": 'it\'s "x"', "": "", "a.b": "\u0000é😀"}
    add(index, Document("a", "Body  text.", "Title", metadata), Document("b'; --", "Other", "", {}))
    first, second, third = index.passages(["b'; --", "a", "b'; --"])
    assert (first.id, first.text, first.title, first.metadata) == ("b'; --", "Other", "", {})
    assert (second.id, second.document, second.text, second.title) == ("a", "a", "Body  text.", "Title")
    assert dict(second.metadata) == metadata
    assert {key: type(value) for key, value in second.metadata.items()} == {k: type(v) for k, v in metadata.items()}
    assert third == first
    assert index.passages([]) == []
    with pytest.raises(InputError, match="no passage 'c'"):
        index.passages(["a", "c"])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (Document(5, "one"), r"the id of document 1 is int \(5\), not a string"),  # type: ignore[arg-type]
        (Document("n", None), "the text of document 'n' is NoneType, not a string"),  # type: ignore[arg-type]
        (Document("n", "one", 7), "the title of document 'n' is int, not a string"),  # type: ignore[arg-type]
        (Document("n", "one", metadata=["a"]), "the metadata of document 'n' is list"),  # type: ignore[arg-type]
        (Document("", "one"), "needs an id"),
        ("one", "expected a Document or a mapping .*, not str"),
    ],
)
def test_a_document_of_other_types_is_refused_by_name(index: Index, document: Document, message: str) -> None:
    with pytest.raises(InputError, match=message):
        add(index, Document("a", "first"), document)
    with pytest.raises(InputError, match=r"an id is a string, not int \(5\)"):
        index.remove(["a", 5])  # type: ignore[list-item]


def test_token_ids_are_those_of_the_scored_text(index: Index) -> None:
    add(index, Document("a", "b c", "t"), Document("b", "x"), Document("c", "\u200b"))
    tokens = index.tokens(["b", "a"])
    assert [tokens.row(0).tolist(), tokens.row(1).tolist()] == [[ord("x")], [ord("t"), ord("."), ord("b"), ord("c")]]
    assert set(tokens.types.tolist()) == {1}
    assert index.tokens([]).offsets.tolist() == [0]
    assert (index.lengths(["b", "a"]).tolist(), index.lengths([]).tolist()) == ([1, 4], [])
    with pytest.raises(InputError, match="has no passage 'd'"):
        index.lengths(["a", "d"])


def test_long_documents_are_split(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", EMBEDDER, TOKENIZER, size=20, overlap=4)
    add(index, Document("long", "a b c d e " * 20), Document("short", "a"))
    assert index.ids() == [*(f"long#{n + 1}" for n in range(len(index) - 1)), "short"]
    assert {passage.document for passage in index.passages(index.ids())} == {"long", "short"}
    assert max(index.tokens(index.ids()).lengths) <= 20
    assert index.info().documents == 2
    # A document whose own id is that of a passage of another one is refused, not mixed up with it.
    assert "has the id of a passage" in add(index, Document("long#1", "x")).failed[0].reason


def test_info(index: Index, tmp_path: Path) -> None:
    info = index.info()
    assert (info.model, info.embedder, info.width, info.passages, info.documents) == (None, "hash", 16, 0, 0)
    assert Index.create(tmp_path / "b", EMBEDDER, TOKENIZER, model="embed", language="German").info().model == "embed"
    assert info.bytes > 0


# Searching.


def test_bm25_agrees_with_a_calculation_by_hand(index: Index) -> None:
    texts = ["alpha beta gamma", "alpha alpha delta", "beta zeta eta theta iota kappa alpha", "lambda mu nu"]
    add(index, *(Document(str(number), text) for number, text in enumerate(texts)))
    split = [text.split() for text in texts]
    mean = sum(map(len, split)) / len(split)

    def score(words: list[str], query: str) -> float:
        total = 0.0
        for term in query.split():
            holding = sum(term in other for other in split)
            idf = math.log(1 + (len(split) - holding + 0.5) / (holding + 0.5))
            tf = words.count(term)
            total += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * len(words) / mean))
        return total

    found = index.bm25("alpha delta", 10)
    expected = sorted(((score(words, "alpha delta"), str(n)) for n, words in enumerate(split)), reverse=True)[:3]
    assert found.ids == tuple(id_ for _, id_ in expected)
    assert found.scores == pytest.approx([value for value, _ in expected], abs=1e-5)


def test_bm25_reads_words_as_people_do(index: Index) -> None:
    add(
        index,
        Document("stem", "The running foxes"),
        Document("accent", "Un café à Zürich"),
        Document("title", "nothing here", "Zebra crossing"),
    )
    assert index.bm25("fox runs", 5).ids == ("stem",)
    assert index.bm25("CAFE Zurich", 5).ids == ("accent",)
    assert index.bm25("zebras", 5).ids == ("title",)


@pytest.mark.parametrize("language", ["English", "French", "any"])
def test_bm25_finds_letters_however_they_are_coded(tmp_path: Path, language: str) -> None:
    index = Index.create(tmp_path / "i", EMBEDDER, TOKENIZER, language=language)
    texts = {form: normalize(form, "the résumé of Beyoncé 서울") for form in ("NFC", "NFD")}
    add(index, Document("plain", "bread"), *(Document(form, text, text) for form, text in texts.items()))
    for word in ("résumé", "Beyoncé", "서울", "resume", "beyonce"):
        for form in texts:
            assert sorted(index.bm25(normalize(form, word), 5).ids) == ["NFC", "NFD"], (word, form)
    # What is shown is what was given, and lies where it lay.
    for passage in index.passages(["NFC", "NFD"]):
        assert passage.text == passage.title == texts[passage.id]
    assert update(index, write(tmp_path / "a.txt", "\n\n" + texts["NFD"]))[0] == 1
    (found,) = index.passages(["a.txt"])
    assert found.place is not None
    assert (found.text, found.place.start) == (texts["NFD"], 2)


@pytest.mark.parametrize("language", ["English", "German", "Turkish", "any"])
def test_bm25_finds_words_of_other_letters(tmp_path: Path, language: str) -> None:
    """Lance folds letters after stemming, and parts words at what does not show."""
    index = Index.create(tmp_path / "i", EMBEDDER, TOKENIZER, language=language)
    texts = ("İstanbul", "Straße", "co\u00adoperation", "pre\u2060fixes", "ﬁnding")
    add(index, *(Document(str(n), text) for n, text in enumerate(texts)))
    queries = (
        ("istanbul", "İSTANBUL", "I\u0307stanbul", "i\u0307stanbul"),
        ("Straße", "straße", *["strasse"] * (language != "Turkish")),
        ("cooperation", "co\u00adoperation"),
        ("prefixes",),
        ("finding", "ﬁnding"),
    )
    for number, words in enumerate(queries):
        for word in words:
            assert index.bm25(word, 5).ids == (str(number),), word
    assert [passage.text for passage in index.passages([str(n) for n in range(5)])] == list(texts)


def test_english_words_are_stemmed_in_english_letters(index: Index) -> None:
    texts = {
        "œuvres": "oeuvres",
        "fjørds": "fjords",
        "þorns": "thorns",
        "Łódź": "lodz",
        "encyclopædias": "encyclopaedia",
    }
    add(index, *(Document(text, f"{text} re\u200bread") for text in texts))
    assert {text: index.bm25(word, 5).ids for text, word in texts.items()} == {text: (text,) for text in texts}
    assert len(index.bm25("reread", 9)) == len(texts)


def test_an_index_of_an_older_spelling_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossrank.index.index.SPELLING", 0)
    older = Index.create(tmp_path / "older", EMBEDDER, TOKENIZER)
    for n in range(2):  # One way in both, as queries are read that way, too.
        add(older, Document(f"a{n}", "two co\u00adoperations"))
        assert (len(older.bm25("cooperations", 5)), len(older.bm25("co\u00adoperations", 5))) == (0, n + 1)


def test_an_index_made_before_words_were_normalized_is_as_it_was(tmp_path: Path, index: Index) -> None:
    lance.dataset(str(tmp_path / "index" / "passages.lance")).drop_columns(["shown"])
    index = Index.open(tmp_path / "index")
    add(index, Document("a", "my résumé"), Document("b", normalize("NFD", "my résumé")))
    assert add(index, Document("a", "the résumé")).changed == 1
    assert [index.bm25(word, 5).ids for word in ("résumé", "resume")] == [("a",), ()]
    assert [passage.text for passage in index.passages(["a", "b"])] == ["the résumé", normalize("NFD", "my résumé")]


@pytest.mark.parametrize("language", ["English", "any"])
def test_long_words_are_found(tmp_path: Path, language: str) -> None:
    index = Index.create(tmp_path / "i", EMBEDDER, TOKENIZER, language=language)
    words = {length: "".join(random.Random(length).choices("0123456789abcdef", k=length)) for length in (40, 64, 128)}
    add(index, *(Document(str(length), f"fixed in {word} today") for length, word in words.items()))
    assert {length: index.bm25(word, 9).ids for length, word in words.items()} == {
        length: (str(length),) for length in words
    }


def test_words_of_an_older_index_are_as_long_as_they_were(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = "a1" * 19, "b2" * 20
    with monkeypatch.context() as before:
        before.setattr(table, "_LONGEST_WORD", 39)
        add(index, Document("short", short), Document("long", long))
    assert (index.bm25(short, 9).ids, index.bm25(long, 9).ids) == (("short",), ())
    add(index, Document("more", "x"))  # A small index makes its words anew.
    assert (index.bm25(short, 9).ids, index.bm25(long, 9).ids) == (("short",), ("long",))


def test_text_without_spaces_has_words(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "i", EMBEDDER, TOKENIZER, language="any")
    add(index, Document("chinese", "我们喜欢信息检索系统"), Document("english", "The running foxes"))
    assert index.bm25("检索", 5).ids == ("chinese",)
    assert index.bm25("THE foxes", 5).ids == ("english",)
    with pytest.raises(InputError, match="no language 'Klingon'"):
        Index.create(tmp_path / "j", EMBEDDER, TOKENIZER, language="Klingon")


HOSTILE = [
    "",
    " ",
    "the of and",
    '"',
    "'",
    "' OR 1=1 --",
    "a:b AND (",
    "*",
    "\\",
    "\0",
    "\ud800",
    "((((",
    "NOT",
    "+-~^",
]


@pytest.mark.parametrize("query", [*HOSTILE, "x" * 100_000, "é" * 10_000, "word " * 10_000])
def test_no_query_raises(index: Index, query: str) -> None:
    assert len(index.bm25(query, 5)) == 0
    add(index, Document("a", "some text"))
    assert len(index.bm25(query, 5)) == 0
    assert index.bm25(f"{query} text", 5).ids == ("a",)


def test_random_queries_do_not_raise(index: Index) -> None:
    add(index, Document("a", "some text"))

    @settings(max_examples=150)
    @given(st.text(st.characters(), max_size=40))
    def ask(query: str) -> None:
        index.bm25(query, 3)

    ask()


def test_dense_is_exact(index: Index) -> None:
    texts = [" ".join(random.Random(n).choices("abcdefghij", k=5)) for n in range(200)]
    add(index, *(Document(f"{n:03}", text) for n, text in enumerate(texts)))
    query = EMBEDDER.embed(["a b c"])[0]
    found = index.dense(query, 20)
    scores = EMBEDDER.embed(texts) @ query
    assert found.scores == pytest.approx(sorted(scores, reverse=True)[:20], abs=1e-6)
    assert [scores[int(id_)] for id_ in found.ids] == pytest.approx(found.scores, abs=1e-6)


@pytest.mark.parametrize("bad", [np.ones(3, np.float32), np.full(16, np.nan, np.float32), np.ones((1, 16), np.float32)])
def test_dense_refuses_other_vectors(index: Index, bad: NDArray[np.float32]) -> None:
    with pytest.raises(InputError, match="16 finite numbers"):
        index.dense(bad, 5)


def test_ties_are_ordered_by_id(index: Index) -> None:
    names = [f"{n:03}" for n in range(300)]
    for part in (names[200:], names[:100], names[100:200]):
        add(index, *(Document(name, "equal words", metadata={"even": int(name) % 2 == 0}) for name in part))
    vector = EMBEDDER.embed(["equal words"])[0]
    for depth in (1, 7, 150, 1000):
        assert list(index.bm25("equal", depth).ids) == names[:depth]
        assert list(index.dense(vector, depth).ids) == names[:depth]
    assert list(index.bm25("equal", 5, "even=true").ids) == names[:10:2]


def test_depth_and_empty_index(index: Index) -> None:
    assert len(index.bm25("x", 5)) == len(index.dense(EMBEDDER.embed(["x"])[0], 5)) == 0
    for call in (lambda: index.bm25("x", 0), lambda: index.dense(EMBEDDER.embed(["x"])[0], -1)):
        with pytest.raises(InputError, match="at least 1"):
            call()
    add(index, Document("a", "x"))
    for depth in (2**31, 2**63, 10**30):  # Beyond 64 bits it was told to be damage.
        assert index.bm25("x", depth).ids == index.dense(EMBEDDER.embed(["x"])[0], depth).ids == ("a",)


def test_rows_that_no_index_holds_yet_are_found(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossrank.index.table.Table.tidy", lambda self: None)
    add(index, Document("a", "old words"))
    monkeypatch.undo()
    assert index._table.unindexed() == 1
    assert index.bm25("words", 5).ids == ("a",)
    add(index)  # Nothing to add, but something was left to do.
    assert index._table.unindexed() == 0
    assert index.bm25("words", 5).ids == ("a",)


def test_retrievers(index: Index) -> None:
    add(index, Document("a", "apple pie", metadata={"n": 1}), Document("b", "banana bread", metadata={"n": 2}))
    words, meaning = BM25Retriever(index), DenseRetriever(index, EMBEDDER)
    assert [ranking.ids for ranking in words.retrieve(["banana", "", "apple"], 5)] == [("b",), (), ("a",)]
    assert [len(ranking) for ranking in meaning.retrieve(["banana bread", " ", "apple pie"], 1)] == [1, 0, 1]
    assert [words.retrieve(["\u200b"], 1)[0].ids, meaning.retrieve(["\u200b"], 1)[0].ids] == [(), ()]
    assert DenseRetriever(index, EMBEDDER, ["n>1"]).retrieve(["apple pie"], 5)[0].ids == ("b",)
    assert words.retrieve([], 5) == meaning.retrieve([], 5) == []
    for retriever in (words, meaning):
        with pytest.raises(InputError, match="list of queries"):
            retriever.retrieve("banana", 5)  # type: ignore[arg-type]
    with pytest.raises(IndexFileError, match="another embedder"):
        DenseRetriever(index, HashEmbedder(fingerprint="other"))


def test_threads_get_the_answers_of_one(index: Index) -> None:
    add(index, *(Document(str(n), f"word{n % 7} and word{n % 3}") for n in range(100)))
    queries = [f"word{n}" for n in range(7)] * 8

    def ask(query: str) -> tuple[tuple[str, ...], tuple[str, ...], list[str]]:
        found = index.bm25(query, 5).ids
        nearest = index.dense(HashEmbedder().embed([query])[0], 5).ids
        return found, nearest, [passage.text for passage in index.passages(found)]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, queries)) == [ask(query) for query in queries]


# Filters.


def test_filters(index: Index) -> None:
    add(
        index,
        Document("int", "w", metadata={"year": 2020, "lang": "en", "ok": True}),
        Document("float", "w", metadata={"year": 2021.5, "lang": "de", "ok": False}),
        Document("text", "w", metadata={"year": "2020", "lang": "it's", "date": "2020-05-01"}),
        Document("none", "w", metadata={"year": None}),
    )

    def ask(where: str | list[str]) -> set[str]:
        found = set(index.bm25("w", 10, where).ids)
        assert found == set(index.dense(EMBEDDER.embed(["w"])[0], 10, where).ids)
        return found

    assert ask("year=2020") == {"int", "text"}
    assert ask('year="2020"') == {"text"}
    assert ask("year>=2020") == {"int", "float"}
    assert ask("year > 2020 AND year<2021.6") == {"float"}
    assert ask("year!=2020") == {"float", "none"}
    assert ask("lang!=en") == {"float", "text", "none"}
    assert ask("lang='it\\'s'") == {"text"}
    assert ask("ok=TRUE") == ask("ok==true") == ask("ok == True") == {"int"}
    assert ask("year==2020") == {"int", "text"}
    assert ask("date>=2020-04 and date<2020-06") == {"text"}
    assert ask(["year=2020", "lang=en"]) == {"int"}
    assert ask("nosuch=1") == ask("lang=' OR 1=1 --'".replace("' OR", '" OR').replace("--'", '--"')) == set()
    assert ask([]) == {"int", "float", "text", "none"}
    assert [index.has_field(name) for name in ("year", "lang", "ok")] == [True] * 3
    assert not index.has_field("nosuch")
    assert not index.has_field("it's")
    assert index.has_field("date", ("s",))
    assert not index.has_field("date", ("n", "b"))


def test_filters_with_several_values(index: Index) -> None:
    documents = {"en": "en", "de": "de", "both": "en, de", "paren": "(en)", "two": "two words", "six": 6, "yes": True}
    add(index, *(Document(id_, "w", metadata={"lang": value, "n": 1}) for id_, value in documents.items()))
    add(index, Document("none", "w"))

    def ask(where: str | list[str]) -> set[str]:
        return set(index.bm25("w", 20, where).ids)

    assert ask("lang in (en, de)") == ask("lang IN(en,de)") == ask('"lang" in ( "en" , \'de\' )') == {"en", "de"}
    assert ask('lang in ("en, de", "(en)", "two words")') == {"both", "paren", "two"}
    assert ask("lang in (6, true)") == ask("lang in (6.0, TRUE)") == {"six", "yes"}
    assert ask('lang in ("6")') == set()
    assert ask("lang not in (en, de, 6)") == {"both", "paren", "two", "yes", "none"}
    assert ask("lang in (en) AND n=1 and lang not in (de)") == {"en"}
    assert ask(["lang in (en, de)", "lang!=en"]) == {"de"}
    add(index, Document("odd", "w", metadata={"in": "has", "has": "in", "not": "and"}))
    assert ask("in=has") == ask("has in (in)") == ask("not=and AND in in (has)") == {"odd"}
    with pytest.raises(InputError, match="may have 64 conditions, not 65"):
        ask(f"lang in ({', '.join(map(str, range(65)))})")
    assert ask(f"lang in ({', '.join(map(str, range(64)))})") == {"six"}


ELEMENTS = st.one_of(
    st.text(max_size=4), st.sampled_from(["a", "b", ", ", '"', "\\", "1", "true", "]", '", "', "a, 1, b"]),
    st.integers(-3, 3), st.floats(-2, 2).map(lambda x: round(x, 1) + 0), st.booleans(), st.none(),
)  # fmt: skip


def nested(depth: int) -> list[Any]:
    return ["x"] if depth <= 1 else [nested(depth - 1)]


def test_filters_look_into_lists(index: Index) -> None:
    held = {
        "a": ["new", 1, 2.5, True, None],
        "b": ["new york", "1", "a, 1, b", '"new"'],
        "text": '["new"]',
        "by": {"new": 1},
    }
    add(index, *(Document(id_, "w", metadata={"tags": value}) for id_, value in held.items()))
    add(index, Document("empty", "w", metadata={"tags": []}), Document("none", "w"))

    def ask(where: str) -> set[str]:
        return set(index.bm25("w", 20, where).ids)

    assert ask("tags has new") == ask('tags HAS "new"') == {"a"}
    assert ask('tags has "new york"') == {"b"}
    assert ask("tags has 1") == {"a", "b"}
    assert ask("tags has 1.0") == {"a"}  # the number, and the text "1.0"
    assert ask('tags has "1"') == {"b"}
    assert ask("tags has 2.5") == ask("tags has true") == {"a"}
    assert ask('tags has ", "') == ask("tags has york") == ask("nosuch has 1") == set()
    assert ask("tags has '\\\"new\\\"'") == {"b"}
    assert ask("tags has new AND tags has 1 AND tags has true") == {"a"}
    large = 2**64 + 1
    deep: list[Any] = [["x", "], "], {"k": [1, {"m": "new"}]}, "late", large, -0.0]
    add(index, Document("deep", "w", metadata={"deep": deep}))
    for where in ("deep has late", f"deep has {large}", "deep has 0", "deep has 0.0", "deep has -0"):
        assert ask(where) == {"deep"}, where
    for where in ("deep has x", "deep has k", "deep has new", "deep has m", f"deep has {large + 1}", "deep has 1"):
        assert ask(where) == set(), where
    near: list[Any] = [2.0**53, 2.0**64]
    add(index, Document("near", "w", metadata={"near": near, "deeper": [nested(16), "late"], "deepest": nested(40)}))
    assert ask(f"near has {2**53}") == ask(f"near has {2**64}") == ask("deeper has late") == {"near"}
    assert ask(f"near has {2**53 + 1}") == ask(f"near has {2**64 + 1}") == ask("deepest has x") == set()
    # Python reads no number of so many digits.
    assert ask(f"n={'0' * 5000}{2**53 + 1}") == ask(f"n={'9' * 5000}") == set()


@settings(max_examples=25)
@given(st.lists(ELEMENTS, max_size=5), ELEMENTS.filter(lambda one: one is not None))
def test_a_list_has_what_is_in_it(tmp_path_factory: pytest.TempPathFactory, held: list[Any], asked: Any) -> None:
    if isinstance(asked, str):
        told = asked.replace("\\", "\\\\").replace('"', '\\"')
        where, wanted = f'tags has "{told}"', any(isinstance(one, str) and one == asked for one in held)
    else:
        same = [one for one in held if isinstance(one, bool) == isinstance(asked, bool) and one == asked]
        texts = [one for one in held if isinstance(one, str) and one == str(asked).lower()]
        where, wanted = f"tags has {str(asked).lower()}", bool(same or texts)
    stored = pa.array([encode_metadata({"tags": held})], pa.json_(pa.string()))
    dataset = lance.write_dataset(pa.table({"metadata": stored}), str(tmp_path_factory.mktemp("lists") / "x.lance"))
    assert dataset.count_rows(to_sql(parse(where))) == int(wanted)


def test_whole_numbers_that_a_float_cannot_tell_apart(index: Index) -> None:
    snowflake = 1234567890123456789
    numbers = [snowflake + i for i in range(4)] + [-snowflake, 1.5, 2**53, 2**63 - 1]
    add(index, *(Document(str(i), "w", metadata={"n": number}) for i, number in enumerate(numbers)))

    def ask(where: str) -> set[str]:
        return set(index.bm25("w", 10, where).ids)

    assert ask(f"n={snowflake}") == {"0"}
    assert ask(f"n!={snowflake + 1}") == set("0234567")
    assert ask(f"n>{snowflake + 1}") == set("237")
    assert ask(f"n<={-snowflake}") == {"4"}
    assert ask(f"n={2**53}") == {"6"}
    assert ask(f"n={2**63 - 1}") == {"7"}
    assert ask(f"n>={2**63}") <= {"7"}  # beyond 64 bits a number is a float again
    # The least that a float cannot tell from its neighbour.
    add(index, *(Document(f"p{i}", "w", metadata={"p": 2**53 + i}) for i in range(3)))
    assert [ask(f"p={2**53 + i}") for i in range(3)] == [{"p0"}, {"p1"}, {"p2"}]
    assert ask(f"p>{2**53}") == {"p1", "p2"}


def test_floats_beyond_64_bits_beside_large_numbers(index: Index) -> None:
    numbers = {"huge": 1e300, "edge": 2.0**63, "low": -(2.0**63), "deep": -1e300, "whole": 2**60, "half": 0.5}
    add(index, *(Document(id_, "w", metadata={"n": number}) for id_, number in numbers.items()))
    add(index, Document("none", "w"))

    def ask(where: str) -> set[str]:
        return set(index.bm25("w", 10, where).ids)

    assert ask(f"n>={2**60}") == {"huge", "edge", "whole"}
    assert ask(f"n<{2**60}") == {"low", "deep", "half"}
    assert ask(f"n={2**60}") == {"whole"}
    assert ask(f"n!={2**60}") == {"huge", "edge", "low", "deep", "half", "none"}
    assert ask(f"n<={-(2**63)}") == {"low", "deep"}
    assert ask(f"n>{-(2**63)}") == {"huge", "edge", "whole", "half"}


def test_backslashes_in_filters() -> None:
    def value(text: str) -> str:
        return parse(f"path={text}")[0].value

    assert value(r'"C:\data\x"') == r"C:\data\x"
    assert value(r"C:\data\x") == r"C:\data\x"
    assert value(r'"\\server \"a\" \'b\'"') == r"""\server "a" 'b'"""
    with pytest.raises(InputError, match="not understood"):
        value('"C:\\"')  # The quote is a part of the value, and nothing closes it.


def test_lists_and_mappings_come_back_as_they_were(index: Index) -> None:
    """They were text, which nobody could tell from text that looks like a list."""
    nested = {"tags": ["x", 1, None, float("nan")], "by": {"name": "é", 1: [True]}, "empty": [], "text": '["x"]'}
    add(index, Document("a", "w", metadata=nested))  # type: ignore[arg-type]
    want = {"tags": ["x", 1, None, None], "by": {"name": "é", "1": [True]}, "empty": [], "text": '["x"]'}
    assert index.passages(["a"])[0].metadata == want
    for where in ("tags='[\"x\", 1, null, null]'", "empty=[]", "text='[\"x\"]'"):
        assert index.bm25("w", 5, where).ids == ("a",), where
    assert not index.bm25("w", 5, "tags=x").ids


def test_lists_in_indexes_and_readers_of_before(tmp_path: Path, index: Index) -> None:
    assert decode_metadata('{"n:year": 2020, "s:tags": "[\\"x\\"]"}') == {"year": 2020, "tags": '["x"]'}
    add(index, Document("a", "w", metadata={"tags": ["x"]}))
    (stored,) = lance.dataset(str(tmp_path / "index" / TABLE)).to_table(columns=["metadata"])["metadata"].to_pylist()
    # As `decode_metadata` was.
    assert {key[2:]: value for key, value in json.loads(stored).items()} == {"tags": '["x"]'}


def test_why_a_filter_finds_nothing(index: Index) -> None:
    add(index, Document("a", "w", metadata={"year": 2020, "price": "9.50", "tags": ["x", "y"], "ok": True}))

    def why(where: str) -> str | None:
        assert not index.bm25("w", 5, where).ids
        return mistake(where, index.has_field)

    assert why("yaer=2020") == "no passage has a value in the field 'yaer'"
    assert why("price>=5") == (
        "no value of 'price' is a number: compare dates as text, price>=\"5\"; numbers have to be indexed as numbers"
    )
    assert why('year="2020"') == "no value of 'year' is text, so leave out the quotes: year=2020"
    assert why("ok='true'") == "no value of 'ok' is text, so leave out the quotes: ok=true"
    assert why("year=''") == why('year="new"') == "no value of 'year' is text"
    assert why("tags=x") == ("perhaps no passage has tags=x as a whole; where the value is a list, write: tags has x")
    assert why("tags has z") is None
    assert why("year in (2021, 2022)") is None
    assert why("yaer in (2021)") == "no passage has a value in the field 'yaer'"
    assert why("year=2021") is None
    assert why("year=2020 AND yaer!=2021 AND price=1") is None  # what has no such field is not the mistake
    assert why('tags!=\'["x", "y"]\'') is None
    add(index, Document("b", "w", metadata={"year": "unknown"}))
    assert why('year="2020"') == "numbers in 'year' are compared without the quotes: year=2020"


@pytest.mark.parametrize(
    "where",
    [
        *("", "year", "=1", "a=1 OR b=2", "a=b c", "a=1 AND", "a==", "a='x", 'a"b=1', "a=1;b=2 x", "year>= <", "a b c"),
        *("a in", "a in b", "a in ()", "a in (b", "a in (b,)", "a in (b c)", "a not (b)", "a not in b", "a in (b=c)"),
        *("a has", "a in (b) c=d", "a has =b"),
    ],
)
def test_filters_that_are_not_understood(index: Index, where: str) -> None:
    with pytest.raises(InputError, match="filter"):
        index.bm25("x", 5, where)


@pytest.mark.parametrize(
    "where",
    [["a=1"] * 65, " AND ".join(["a=1"] * 65), ["a=" + "1" * 2000] * 6, "a=" + "1" * 10_000, "\ud800=1", "a=\udfff"],
    ids=["conditions", "joined", "characters", "one", "surrogate", "other"],
)
def test_filters_that_are_too_much_or_no_text(index: Index, where: str | list[str]) -> None:
    # The store recursed through each condition: 50,000 ended the process, and 5,000 took 39 s.
    with pytest.raises(InputError, match="filter"):
        index.bm25("x", 5, where)


def test_as_many_conditions_as_a_filter_may_have(index: Index) -> None:
    add(index, Document("a", "w", metadata={"x": "1"}))
    assert index.bm25("w", 5, ["x=1"] * 64).ids


def test_a_number_may_have_its_sign(index: Index) -> None:
    add(index, *(Document(f"d{n}", "w", metadata={"n": n}) for n in (-7, 3, 7)))
    assert set(index.bm25("w", 5, "n > +5").ids) == {"d7"}
    assert set(index.bm25("w", 5, "n=+3").ids) == {"d3"}
    assert set(index.bm25("w", 5, "n<-5").ids) == {"d-7"}


def test_a_filter_is_never_code(index: Index) -> None:
    add(index, Document("a", "w", metadata={"x": "1"}))

    @settings(max_examples=150)
    @given(st.text(max_size=20), st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), st.text(max_size=20))
    def ask(field: str, op: str, value: str) -> None:
        quoted = [json.dumps(part, ensure_ascii=False) for part in ("".join(filter(str.isprintable, field)), value)]
        text = f"{quoted[0]} {op} {quoted[1]}"
        assert len(parse(text)) == 1
        assert set(index.bm25("w", 5, text).ids) <= {"a"}

    ask()
    assert parse('"a b"="c\\"d" AND e<5') == (Condition("a b", "=", 'c"d', True), Condition("e", "<", "5"))


# Updating.


def test_an_update_embeds_only_what_changed(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in "abc":
        (docs / f"{name}.txt").write_text(f"text of {name}")
    (docs / "rows.jsonl").write_text("\n".join(json.dumps({"_id": f"r{n}", "text": f"row {n}"}) for n in range(5)))
    embedder = HashEmbedder()
    index = Index.create(tmp_path / "index", embedder, TOKENIZER)

    def run() -> tuple[int, int, int, int, set[str]]:
        embedder.texts.clear()
        done = index.update([docs], embedder, TOKENIZER)
        assert done.failed == ()
        return done.added, done.changed, done.deleted, done.unchanged, set(embedder.texts)

    everything = {"text of a", "text of b", "text of c", *(f"row {n}" for n in range(5))}
    assert run() == (8, 0, 0, 0, everything)
    version = index.info().version
    assert run() == (0, 0, 0, 8, set())
    assert index.info().version == version  # No change, no commit.
    (docs / "a.txt").write_text("other text")
    (docs / "b.txt").unlink()
    (docs / "d.txt").write_text("new")
    rows = [{"_id": "r1", "text": "row 1"}, {"_id": "r2", "text": "row two"}, {"_id": "r9", "text": "row 9"}]
    (docs / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert run() == (2, 2, 4, 2, {"other text", "new", "row two", "row 9"})
    assert sorted(index.ids()) == ["docs/a.txt", "docs/c.txt", "docs/d.txt", "r1", "r2", "r9"]
    assert index.passages(["docs/a.txt"])[0].text == "other text"
    assert len(index.bm25("row", 10)) == 3
    assert index.bm25("b", 10).ids == ()
    os.utime(docs / "a.txt", ns=(1, 1))
    assert run() == (0, 0, 0, 6, set())  # A new time, the same content.
    (docs / "c.txt").write_text("text of z")
    os.utime(docs / "c.txt", ns=(2, 2))
    assert run() == (0, 1, 0, 5, {"text of z"})  # Of the same size.
    assert Index.open(tmp_path / "index").ids() == index.ids()


@pytest.mark.parametrize(
    "change", [{"text": "# other"}, {"title": "other"}, {"metadata": {"year": 2021}}, {"markup": "markdown"}]
)
def test_whatever_changes_of_a_document_it_is_another(index: Index, change: dict[str, Any]) -> None:
    add(index, Document("a", "# some text", "title", {"year": 2020}))
    other = replace(Document("a", "# some text", "title", {"year": 2020}), **change)
    assert [(done.changed, done.unchanged) for done in (add(index, other), add(index, other))] == [(1, 0), (0, 1)]


def test_many_documents_are_deleted_a_part_at_a_time(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossrank.index.build._DELETE_AT_ONCE", 2)
    add(index, *(Document(f"d{n}", "w") for n in range(6)))
    assert index.remove([f"d{n}" for n in range(5)]).deleted == 5
    assert index.ids() == ["d5"]


def test_updates_of_other_places_are_left_alone(tmp_path: Path, index: Index) -> None:
    for name in ("one/a.txt", "two/b.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    assert update(index, tmp_path / "one")[:2] == (1, 0)
    assert update(index, tmp_path / "two")[:2] == (1, 0)
    add(index, Document("mine", "by hand"))
    assert update(index, tmp_path / "one", tmp_path / "two") == (0, 0, 0, 2, [])
    # The same file by another path keeps its id.
    (tmp_path / "one/a.txt").write_text("changed")
    assert update(index, tmp_path / "one/a.txt") == (0, 1, 0, 0, [])
    assert sorted(index.ids()) == ["mine", "one/a.txt", "two/b.txt"]
    shutil.rmtree(tmp_path / "one")
    assert update(index, tmp_path / "one") == (0, 0, 1, 0, [])
    with pytest.raises(InputError, match="no such file"):
        update(index, tmp_path / "one")
    done = index.remove(["mine", "nobody"])
    assert (done.deleted, done.unchanged) == (1, 1)
    assert index.ids() == ["two/b.txt"]


def test_paths_are_read_once_and_are_paths(tmp_path: Path, index: Index) -> None:
    write(tmp_path / "d/a.md", "x")
    for _ in range(2):  # Nothing was found of a generator the second time, so that all below its paths went.
        index.update((tmp_path / "d").glob("*.md"), EMBEDDER, TOKENIZER)
        index.update(os.scandir(tmp_path / "d"), EMBEDDER, TOKENIZER)  # type: ignore[arg-type]
        assert index.ids() == ["a.md"]
    for wrong, told in [(None, "not NoneType"), ("d", "not one path"), (b"d", "not one path"), ([b"d"], "not bytes")]:
        with pytest.raises(InputError, match=told):
            index.update(wrong, EMBEDDER, TOKENIZER)  # type: ignore[arg-type]


def test_only_what_is_absent_counts_as_deleted(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "d/a.md", "x")
    index.update(["d"], EMBEDDER, TOKENIZER)
    for wrong, told in [("nosuch/../d", "no such file or folder: nosuch"), ("d/a.md/", "no such"), ("", "empty path")]:
        with pytest.raises(InputError, match=told):
            index.update([wrong], EMBEDDER, TOKENIZER)
    assert index.ids() == ["d/a.md"]
    shutil.rmtree(tmp_path / "d")
    assert index.update(["nosuch/../d"], EMBEDDER, TOKENIZER).deleted == 1


def test_what_is_known_is_read_in_time_that_grows_with_the_passages(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 100_000  # Of one document: a tuple that grew by one for each took half a minute.
    same = {"document": "d", "source": "", "digest": "", "size": 0, "modified": 0}
    rows = pa.table({"id": list(map(str, range(count))), **{name: [value] * count for name, value in same.items()}})
    monkeypatch.setattr(index._table, "_data", SimpleNamespace(to_table=lambda columns: rows))
    began = time.process_time()
    assert index._table.known()["d"].passages == tuple(map(str, range(count)))
    assert time.process_time() - began < 10


def test_an_id_that_a_program_gives_twice_has_a_cure_for_programs(index: Index) -> None:
    done = add(index, Document("a", "one"), Document("a", "two"))
    assert (done.added, [one.reason for one in done.failed]) == (
        1, ["the id 'a' comes twice, first in document 'a': give each document its own, or join their texts into one "
            "document"],
    )  # fmt: skip


def test_remove_takes_ids_as_add_does(index: Index) -> None:
    add(index, Document("a", "x"), Document("1", "x"), Document("\ud800x", "x"))
    with pytest.raises(InputError, match="a list of ids"):
        index.remove("a1")
    assert index.remove(["\ud800x"]).deleted == 1
    assert index.ids() == ["a", "1"]


def test_metadata_of_subclasses_is_stored_plainly(index: Index) -> None:
    kind = Enum("kind", {"A": "x"}, type=str)
    metadata = {"f": np.float64(2.5), "i": np.int64(2020), "b": np.bool_(True), "s": np.str_("x"), "e": kind("x")}
    add(index, Document("a", "w", metadata=metadata))
    (passage,) = index.passages(["a"])
    assert passage.metadata == {"f": 2.5, "i": 2020, "b": True, "s": "x", "e": "x"}
    assert index.bm25("w", 5, "i >= 2020 AND b = true AND e = x").ids == ("a",)
    with pytest.raises(InputError, match="field 'k' cannot be kept"):
        add(index, Document("b", "w", metadata={"k": {(1, 2): 3}}))


class Thing:
    """Something whose only text is where it lies in memory."""


def test_metadata_of_other_objects_stay_the_same(index: Index) -> None:
    metadata: dict[str, Any] = {
        "array": np.arange(3),
        "times": np.array(["2020-01-01"], dtype="datetime64[ns]"),
        "one": np.array(2.5),
        "set": {"b", "a", 10, 9},
        "nested": [{"x": frozenset("ba"), "y": np.ones(2)}],
        "path": Path("a/b"),
        "thing": Thing(),
    }
    done = add(index, Document("a", "w", metadata=metadata))
    assert (done.added, done.omitted) == (1, {"thing": 1})
    assert index.passages(["a"])[0].metadata == {
        "array": [0, 1, 2],
        "times": ["2020-01-01T00:00:00.000000000"],
        "one": 2.5,
        "set": [9, 10, "a", "b"],
        "nested": [{"x": ["a", "b"], "y": [1.0, 1.0]}],
        "path": str(Path("a/b")),
    }
    with pytest.raises(InputError, match="field 'k' cannot be kept as JSON: a Thing has no text of its own"):
        add(index, Document("b", "w", metadata={"k": [Thing()]}))


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Paths that cannot be looked at; tests run as root, whom no permission stops."""
    paths: set[Path] = set()

    def refusing(real: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def look(path: str | Path, **options: object) -> os.stat_result:
            if isinstance(path, (str, Path)) and paths & {Path(path), *Path(path).parents}:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, **options)

        return look

    monkeypatch.setattr(os, "stat", refusing(os.stat))
    monkeypatch.setattr(os, "lstat", refusing(os.lstat))
    return paths


@pytest.mark.parametrize("hidden", ["docs/sub/a.txt", "docs/sub", "docs"])
def test_what_cannot_be_reached_is_not_deleted(
    tmp_path: Path, index: Index, unreachable: set[Path], hidden: str
) -> None:
    write(tmp_path / "docs/sub/a.txt", "one")
    write(tmp_path / "docs/b.txt", "two")
    update(index, tmp_path / "docs")
    unreachable.add(tmp_path / hidden)
    done = index.update([tmp_path / "docs"], EMBEDDER, TOKENIZER)
    assert (done.deleted, [failure.source for failure in done.failed]) == (0, [str(tmp_path / hidden)])
    assert "Permission denied" in done.failed[0].reason
    unreachable.clear()
    (tmp_path / "docs/sub/a.txt").unlink()
    assert update(index, tmp_path / "docs") == (0, 0, 1, 1, [])


def test_what_a_walk_does_not_meet_is_deleted_only_when_it_is_gone(
    tmp_path: Path, index: Index, unreachable: set[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`os.walk` takes a link to a folder that cannot be reached for a file."""
    for name in ("a.txt", "b.txt"):
        write(tmp_path / "docs" / name, name)
    update(index, tmp_path / "docs")
    monkeypatch.setattr(readers, "find", lambda paths, known: readers.Found((), ()))
    unreachable.add(tmp_path / "docs/a.txt")
    done = index.update([tmp_path / "docs"], EMBEDDER, TOKENIZER)
    assert (done.deleted, [failure.source for failure in done.failed]) == (1, [str(tmp_path / "docs/a.txt")])


def test_odd_files_do_not_stop_an_update(tmp_path: Path, index: Index) -> None:
    docs = tmp_path / "docs"
    write(docs / "good.txt", "good")
    write(docs / "page.html", b'<meta charset="undefined"><p>caf\xe9')
    packed = bytearray(gzip.compress(b'{"text": "x"}\n' * 9))
    packed[10:20] = b"\xff" * 10
    write(docs / "rows.jsonl.gz", bytes(packed))
    done = index.update([docs], EMBEDDER, TOKENIZER)
    assert (done.added, index.ids()) == (1, ["docs/good.txt"])
    page, rows = done.failed
    assert (page.source, rows.source) == (str(docs / "page.html"), str(docs / "rows.jsonl.gz"))
    assert "not UTF-8" in page.reason
    assert "cannot be read" in rows.reason


def test_places_name_lines_of_the_file_or_none(tmp_path: Path, index: Index) -> None:
    docs = tmp_path / "docs"
    write(docs / "a.md", "\n\nwords")
    write(docs / "b.html", "<p>\n\n\nwords")
    write(docs / "c.htm", "<p>words")
    write(docs / "d.csv", "id,text\nd,words\n")
    update(index, docs)
    places = {passage.document: passage.place for passage in index.passages(index.ids())}
    assert {name: place and place.line for name, place in places.items()} == {
        "docs/a.md": 3,
        "docs/b.html": 0,
        "docs/c.htm": 0,
        "d": 0,
    }


def test_names_that_are_not_utf8_are_escaped(tmp_path: Path, index: Index) -> None:
    docs = tmp_path / "docs"
    rows = {"jsonl": '{"text": "x"}', "csv": "text\nx", "txt": "x", "html": b"\xe9"}
    try:
        for suffix, content in rows.items():
            write(docs / os.fsdecode(b"d\xe9") / os.fsdecode(b"caf\xe9." + suffix.encode()), content)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    pq.write_table(pa.table({"text": ["x"]}), docs / "a.parquet")
    (docs / "a.parquet").rename(docs / os.fsdecode(b"caf\xe9.parquet"))
    done = index.update([docs], EMBEDDER, TOKENIZER)
    folder, name = "docs/d\\udce9", "caf\\udce9"
    ids = [f"docs/{name}.parquet#1", f"{folder}/{name}.csv#1", f"{folder}/{name}.jsonl#1", f"{folder}/{name}.txt"]
    assert sorted(index.ids()) == sorted(ids)
    (failure,) = done.failed
    assert failure.source.endswith(f"{folder}/{name}.html")
    assert failure.reason.encode()
    assert update(index, docs)[:4] == (0, 0, 0, 4)
    shutil.rmtree(docs / os.fsdecode(b"d\xe9"))
    assert update(index, docs)[:4] == (0, 0, 3, 1)


def test_failures_do_not_stop_an_update(tmp_path: Path, index: Index) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "bad.txt").write_bytes(b"caf\xe9")
    (docs / "blank.md").write_text(" \n")
    (docs / "good.txt").write_text("good")
    (docs / "rows.jsonl").write_text('{"_id": "1", "text": "x"}\nnonsense\n{"_id": "1", "text": "again"}\n')
    added, _, _, _, reasons = update(index, docs)
    assert added == 2
    assert [
        "not UTF-8" in reasons[0],
        "blank" in reasons[1],
        "not JSON" in reasons[2],
        "comes twice" in reasons[3],
    ] == ([True] * 4)
    # What was indexed stays when its file becomes unreadable or one of its rows does.
    (docs / "good.txt").write_bytes(b"\0")
    (docs / "rows.jsonl").write_text("nonsense")
    assert update(index, docs)[:3] == (0, 0, 0)
    assert sorted(index.ids()) == ["1", "docs/good.txt"]
    (docs / "good.txt").write_text("")
    assert update(index, docs)[2] == 1  # Blank now: there is nothing to find.


def test_moved_rows_and_shared_ids(tmp_path: Path, index: Index) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.jsonl").write_text('{"_id": "1", "text": "x"}')
    assert update(index, docs)[:3] == (1, 0, 0)
    (docs / "a.jsonl").rename(docs / "b.jsonl")
    assert update(index, docs) == (0, 1, 0, 0, [])
    (docs / "c.jsonl").write_text('{"_id": "1", "text": "y"}')
    added, changed, deleted, _, reasons = update(index, docs)
    assert (added, changed, deleted) == (0, 0, 0)
    assert f"comes twice, first in {docs / 'b.jsonl'}" in reasons[0]
    assert index.passages(["1"])[0].text == "x"


def test_the_cure_for_files_of_one_name_works(tmp_path: Path, index: Index) -> None:
    files = [write(tmp_path / "dup" / name / "readme.md", f"about {name}") for name in "ab"]
    *counts, reasons = update(index, *files)
    assert counts == [1, 0, 0, 0]
    assert f"'readme.md' comes twice, first in {files[0]}: a file is called by" in reasons[0]
    assert "rows without" not in reasons[0]
    assert "index the folder that holds both" in reasons[0]
    assert update(index, tmp_path / "dup") == (1, 0, 0, 1, [])
    assert sorted(index.ids()) == ["dup/b/readme.md", "readme.md"]


def test_the_cure_for_rows_of_one_id_works(tmp_path: Path, index: Index) -> None:
    files = [write(tmp_path / name, "id,text\n1,one\n2,two\n") for name in ("p.csv", "semi.csv")]
    *counts, reasons = update(index, *files)
    assert counts == [2, 0, 0, 0]
    assert all("rename or take out the field id" in reason for reason in reasons)
    for file in files:
        write(file, "number,text\n1,one\n2,two\n")
    assert update(index, *files) == (4, 0, 2, 0, [])
    assert sorted(index.ids()) == ["p.csv#1", "p.csv#2", "semi.csv#1", "semi.csv#2"]


def test_documents_that_moved_are_updated(tmp_path: Path, index: Index) -> None:
    for name in ("a.txt", "b.txt"):
        write(tmp_path / "old" / "docs" / name, f"about {name}")
    assert update(index, tmp_path / "old" / "docs") == (2, 0, 0, 0, [])
    (tmp_path / "new").mkdir()
    (tmp_path / "old" / "docs").rename(tmp_path / "new" / "docs")
    (tmp_path / "new" / "docs" / "b.txt").unlink()
    done = index.update([tmp_path / "new" / "docs"], EMBEDDER, TOKENIZER)
    assert (done.changed, done.deleted, done.failed) == (1, 0, ())
    # What was not found again stays, and is named.
    assert done.missing == (str(tmp_path / "old" / "docs" / "b.txt"),)
    assert update(index, *map(Path, done.missing)) == (0, 0, 1, 0, [])
    assert update(index, tmp_path / "new" / "docs") == (0, 0, 0, 1, [])
    assert index.ids() == ["docs/a.txt"]


def test_a_known_file_elsewhere_is_looked_at_once(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network's drive a look takes a millisecond, and an index may know a million files."""
    for folder in ("here", "elsewhere"):
        for name in ("a.txt", "b.txt"):
            write(tmp_path / folder / name, f"{folder} {name}")
    assert update(index, tmp_path)[0] == 4
    (tmp_path / "elsewhere" / "b.txt").unlink()
    looks: Counter[str] = Counter()
    for name in ("stat", "lstat"):
        genuine = getattr(os, name)

        def counted(path: Any, *rest: Any, genuine: Any = genuine, **more: Any) -> Any:
            looks[str(path)] += 1
            return genuine(path, *rest, **more)

        monkeypatch.setattr(os, name, counted)
    done = index.update([tmp_path / "here"], EMBEDDER, TOKENIZER)
    assert done.missing == (str(tmp_path / "elsewhere" / "b.txt"),)
    assert looks[str(tmp_path / "elsewhere" / "a.txt")] == 1


def test_a_folder_reached_through_a_link_is_the_same(tmp_path: Path, index: Index) -> None:
    file = write(tmp_path / "real" / "docs" / "a.txt", "about a")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert update(index, tmp_path / "real" / "docs")[:4] == (1, 0, 0, 0)
    assert update(index, tmp_path / "link" / "docs") == (0, 0, 0, 1, [])
    assert update(index, tmp_path / "link" / "docs", tmp_path / "real" / "docs") == (0, 0, 0, 1, [])
    file.write_text("about something else")
    assert update(index, tmp_path / "link" / "docs") == (0, 1, 0, 0, [])
    assert update(index, tmp_path / "real" / "docs") == (0, 0, 0, 1, [])


def test_rows_that_went_are_found_through_a_link(tmp_path: Path, index: Index) -> None:
    file = write(tmp_path / "real" / "a.csv", "id,text\n1,one\n2,two\n3,three\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert update(index, tmp_path / "real")[0] == 3
    write(file, "id,text\n1,one\n2,changed\n4,new\n")
    assert update(index, tmp_path / "link") == (1, 1, 1, 1, [])
    # All rows are still of one file, by whatever path it is given.
    write(file, "id,text\n1,one\n")
    assert update(index, tmp_path / "real") == (0, 0, 2, 1, [])
    file.unlink()
    assert update(index, tmp_path / "real") == (0, 0, 1, 0, [])


def test_rows_that_moved_between_files_of_a_folder_are_found(tmp_path: Path, index: Index) -> None:
    docs = tmp_path / "docs"
    write(docs / "a.csv", "id,text\n1,one\n")
    write(docs / "b.csv", "id,text\n2,two\n")
    update(index, docs)
    write(docs / "a.csv", "id,text\n1,one\n2,two\n")
    write(docs / "b.csv", "id,text\n3,three\n")
    assert update(index, docs) == (1, 1, 0, 1, [])
    # Two change places, and one is in both.
    write(docs / "a.csv", "id,text\n3,three\n2,two\n")
    write(docs / "b.csv", "id,text\n1,one\n2,two\n")
    added, changed, deleted, unchanged, reasons = update(index, docs)
    assert (added, changed, deleted, unchanged) == (0, 2, 0, 1)
    assert reasons == [f"the id '2' comes twice, first in {docs / 'a.csv'}: give each document its own, or rename or "
                       "take out the field id (or _id) of these rows, which are then called by their file and "
                       "number"]  # fmt: skip
    write(docs / "b.csv", "id,text\n1,one\n")
    assert update(index, docs) == (0, 0, 0, 3, [])
    # Both have it, and the one that is read first has not had it before.
    write(docs / "a.csv", "id,text\n1,uno\n2,two\n3,three\n")
    assert "comes twice, first in" in update(index, docs)[4][0]
    assert index.passages(["1"])[0].text == "one"


def test_another_file_does_not_take_over_the_ids_of_one_that_is_away(tmp_path: Path, index: Index) -> None:
    disk = write(tmp_path / "disk" / "tickets.csv", "id,text\n1,one\n2,two\n").parent
    update(index, disk)
    disk.rename(tmp_path / "unplugged")
    file = write(tmp_path / "more" / "letters.csv", "id,text\n1,another\n3,three\n")
    added, changed, _, _, reasons = update(index, file)
    assert (added, changed) == (1, 0)
    assert f"belongs to {disk / 'tickets.csv'}: that file is gone; name it in PATHS, too" in reasons[0]
    assert index.passages(["1"])[0].text == "one"
    # The cure works.
    assert update(index, file, disk / "tickets.csv") == (0, 1, 1, 1, [])
    # A file of the same name is the one that was moved, whatever it holds now.
    (tmp_path / "more").rename(tmp_path / "most")
    write(tmp_path / "most" / "letters.csv", "id,text\n1,changed\n3,three\n")
    assert update(index, tmp_path / "most") == (0, 2, 0, 0, [])


@pytest.mark.parametrize("blank", ["4,\n", "1,again\n"])
def test_a_row_with_nothing_to_index_holds_back_no_deletion(tmp_path: Path, index: Index, blank: str) -> None:
    rows = write(tmp_path / "rows.csv", "id,text\n1,one\n2,two\n3,three\n" + blank)
    assert update(index, rows)[:3] == (3, 0, 0)
    rows.write_text(rows.read_text().replace("2,two\n", ""))
    done = index.update([rows], EMBEDDER, TOKENIZER)
    assert done.deleted == 1
    assert [failure.source for failure in done.failed] == [f"{rows}, row 3"]
    # A row that cannot be read may be any of those that are missing: they wait for it.
    rows.write_text("id,text\n1,one\n2,two,much\n")
    done = index.update([rows], EMBEDDER, TOKENIZER)
    assert (done.deleted, index.ids()) == (0, ["1", "3"])
    assert done.failed[0].source == f"{rows}, row 2"
    assert done.failed[0].reason.endswith("; until this is mended, one of its documents stays in the index as before")


def test_an_error_that_nobody_foresaw_costs_no_work(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> Iterator[Document]:
        yield Document("b.jsonl#1", "two")
        raise ArithmeticError("a mistake of ours")

    write(tmp_path / "docs" / "a.txt", "one")
    write(tmp_path / "docs" / "b.jsonl", "")
    real = readers.read
    monkeypatch.setattr(readers, "read", lambda source, *rest: (read if source.has_rows else real)(source, *rest))
    with pytest.raises(ArithmeticError):
        update(index, tmp_path / "docs")
    assert sorted(Index.open(tmp_path / "index").ids()) == ["b.jsonl#1", "docs/a.txt"]


def test_a_file_that_goes_while_an_update_runs(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    docs, real = tmp_path / "docs", readers.count
    for name in ("a.txt", "b.txt"):
        write(docs / name, name)

    def count(source: readers.Source) -> int:
        (docs / "b.txt").unlink(missing_ok=True)
        return real(source)

    monkeypatch.setattr(readers, "count", count)
    assert update(index, docs) == (1, 0, 0, 0, ["went away while this ran: run this again"])


def test_fields_that_are_left_out_are_counted(tmp_path: Path, index: Index) -> None:
    done = add(index, Document("a", "one", metadata={"vector": [0.5] * 999, "tags": ["x"], "raw": b"x"}))  # type: ignore[dict-item]
    assert done.omitted == {"vector": 1, "raw": 1}
    rows = [{"id": str(n), "text": "two", "vector": [0.5] * 999} for n in range(3)]
    path = write(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, rows)))
    assert index.update([path], EMBEDDER, TOKENIZER).omitted == {"vector": 3}
    assert index.update([path], EMBEDDER, TOKENIZER).omitted == {}
    assert index.passages(["a"])[0].metadata == {"tags": ["x"]}


def test_metadata_that_all_passages_would_hold_are_bounded(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row whose copies took 2 GB ended the run, with the advice to make the index anew."""
    monkeypatch.setattr("crossrank.index.filters._COPIES", 100_000)
    long = {"id": "long", "text": "x " * 2_000, "note": "n" * 30_000, "html": "h" * 40_000}
    rows = [long, {"id": "small", "text": "y", "note": "n" * 30_000}]
    path = write(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, rows)))
    done = index.update([path], EMBEDDER, TOKENIZER)
    (failure,) = done.failed
    assert failure.source.endswith("rows.jsonl, line 1")
    assert "metadata of 30,014 bytes would be stored with each of its " in failure.reason
    assert (done.added, done.omitted) == (1, {})
    assert index.passages(["small"])[0].metadata == {"note": "n" * 30_000}
    monkeypatch.undo()
    done = index.update([path], EMBEDDER, TOKENIZER)
    assert (done.added, done.failed, done.omitted) == (1, (), {"html": 1})
    assert index.passages(["long#2"])[0].metadata == {"note": "n" * 30_000}


def test_an_error_in_making_rows_is_not_called_damage(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def table_of(*given: object) -> None:
        raise TypeError("no such rows")

    monkeypatch.setattr("crossrank.index.layout.table_of", table_of)
    with pytest.raises(TypeError, match="no such rows"):
        add(index, Document("a", "one"))


def test_rows_of_a_table_that_loses_its_column_of_texts_are_kept(tmp_path: Path, index: Index) -> None:
    """A .tsv file without one is passed over, and what had been indexed of it went without a word."""
    docs = tmp_path / "docs"
    for name in ("rows.tsv", "rows.csv"):
        write(docs / name, f"id\ttext\n{name}\tThe login fails.\n")
    assert update(index, docs)[:4] == (2, 0, 0, 0)
    for name in ("rows.tsv", "rows.csv"):
        write(docs / name, f"id\tgrade\n{name}\t1\n")
    write(docs / "grades.tsv", "id\tgrade\n1\t1\n")
    *counts, failed = update(index, docs)
    assert counts == [0, 0, 0, 0]
    assert [("no text column" in reason, "stays in the index" in reason) for reason in failed] == [(True, True)] * 2
    assert sorted(index.ids()) == ["rows.csv", "rows.tsv"]
    (docs / "rows.tsv").unlink()
    assert update(index, docs)[2] == 1, "a file that is gone is a deletion"
    assert index.ids() == ["rows.csv"]


def test_rows_behind_a_quote_that_is_not_closed_are_kept(tmp_path: Path, index: Index) -> None:
    rows = write(tmp_path / "rows.csv", "id,text\n1,The login fails.\n2,Reset the token\n3,Tea is hot.\n")
    assert update(index, rows)[:3] == (3, 0, 0)
    rows.write_text(rows.read_text().replace("Reset", '"Reset'))
    *counts, reasons = update(index, rows)
    assert counts == [0, 0, 0, 0]
    assert f"{rows}, line 3: the quote" in reasons[0]
    assert index.ids() == ["1", "2", "3"]


@pytest.mark.parametrize("seed", range(3))
def test_updated_and_new_indexes_give_equal_answers(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    words = [f"w{n}" for n in range(30)]

    def text() -> str:
        return " ".join(chance.choices(words, k=chance.randint(1, 12)))

    file = tmp_path / "rows.jsonl"
    documents = {f"d{n}": text() for n in range(60)}
    old = Index.create(tmp_path / "old", EMBEDDER, TOKENIZER)
    for _ in range(4):
        for id_ in chance.sample(sorted(documents), 10):
            documents[id_] = text()
        for id_ in chance.sample(sorted(documents), 5):
            del documents[id_]
        documents[f"d{chance.randint(100, 999)}"] = text()
        file.write_text("\n".join(json.dumps({"_id": id_, "text": text}) for id_, text in documents.items()))
        assert update(old, file)[4] == []
    new = Index.create(tmp_path / "new", EMBEDDER, TOKENIZER)
    update(new, file)
    assert sorted(old.ids()) == sorted(new.ids())
    for query in ("w1 w2", "w3", "w4 w5 w6 w29"):
        first, second = old.bm25(query, 20), new.bm25(query, 20)
        assert first.scores == pytest.approx(second.scores, abs=1e-5)
        assert dict(zip(first.ids, first.scores, strict=True)).keys() >= set(second.ids[:5])


def test_work_is_committed_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "COMMIT_PASSAGES", 10)
    index = Index.create(tmp_path / "i", EMBEDDER, TOKENIZER)
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if progress.stage == "committed" and progress.passages == 30:
            raise KeyboardInterrupt

    documents = [Document(str(n), f"text {n}") for n in range(100)]
    with pytest.raises(KeyboardInterrupt):
        index.add(documents, EMBEDDER, TOKENIZER, stop)
    again = Index.open(tmp_path / "i")
    assert len(again) == 30
    assert again.bm25("text", 100).ids != ()
    done = again.add(documents, EMBEDDER, TOKENIZER, seen.append)
    assert (done.added, done.unchanged) == (70, 30)
    assert [progress.stage for progress in seen[-3:]] == ["committed", "tidying", "done"]
    assert (seen[-1].documents, seen[-1].expected, seen[-1].passages) == (100, 100, 100)


@pytest.mark.parametrize("seconds", [0.0, 15.0])
def test_what_is_reported_as_committed_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(commits, "COMMIT_SECONDS", seconds)
    monkeypatch.setattr(commits, "COMMIT_PASSAGES", 3)
    index = Index.create(tmp_path / "i", EMBEDDER, TOKENIZER)
    reported: list[int] = []

    def check(progress: Progress) -> None:
        if progress.stage == "committed":
            there = Index.open(tmp_path / "i")
            assert len(there) == progress.passages >= progress.documents
            reported.append(progress.documents)

    index.add([Document(str(n), f"text {n}") for n in range(10)], EMBEDDER, TOKENIZER, check)
    assert reported == (list(range(1, 11)) if seconds == 0 else [3, 6, 9, 10])


def test_old_versions_do_not_pile_up(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_READ_FOR", 0.0)
    for n in range(12):
        add(index, *(Document(f"{n}-{m}", f"text {m}") for m in range(20)))
    assert len(list((tmp_path / "index").rglob("*.manifest"))) <= 2
    assert len(index.bm25("text", 1000)) == 240


# Opening.


class ShortSighted(HashEmbedder):
    """Reads the first `room` words of a text."""

    room = 30

    def embedded(self, texts: Sequence[str]) -> Embedded:
        counts = [len(TOKENIZER.encode(text).ids) for text in texts]
        cut = [Truncation(place, n, self.room, 1) for place, n in enumerate(counts) if n > self.room]
        return Embedded(self.embed(texts), tuple(cut))


def test_passages_whose_vectors_ignore_their_ends_are_reported(tmp_path: Path) -> None:
    embedder = ShortSighted()
    index = Index.create(tmp_path / "i", embedder, TOKENIZER)
    assert index.info().size == 30, "passages are no longer than what the embedder reads"
    documents = [Document("a", "x y z"), Document("b", "text " * 40), Document("c", "short", "t " * 40)]
    done = index.add(documents, embedder, TOKENIZER)
    (unread,) = done.unread
    assert (unread.passage, unread.tokens, unread.read, unread.exact) == ("c", 42, 30, True)
    assert index.add(documents, embedder, TOKENIZER).unread == (), "nothing was embedded again"
    whole = Index.create(tmp_path / "whole", embedder, TOKENIZER, size=1_000)
    assert [unread.passage for unread in whole.add(documents, embedder, TOKENIZER).unread] == ["b", "c"]
    assert Index.create(tmp_path / "usual", EMBEDDER, TOKENIZER).info().size == 200
    embedder.room = 3
    assert Index.create(tmp_path / "least", embedder, TOKENIZER).info().size == 16


def test_a_query_that_the_embedder_cuts_is_reported(tmp_path: Path) -> None:
    embedder = ShortSighted()
    index = Index.create(tmp_path / "i", embedder, TOKENIZER)
    index.add([Document("a", "x y z")], embedder, TOKENIZER)
    retriever = DenseRetriever(index, embedder)
    queries = ["x", " ", "y " * 40]
    found = retriever.retrieved(queries, 5)
    assert [one.truncations for one in found] == [(), (), (Truncation(-1, 40, 30, 1),)]
    assert [one.ranking.ids for one in found] == [ranking.ids for ranking in retriever.retrieve(queries, 5)]


def test_no_index(tmp_path: Path) -> None:
    with pytest.raises(IndexFileError, match="make one with `crossrank index"):
        Index.open(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(IndexFileError, match="neither empty nor an index"):
        Index.create(tmp_path / "file", EMBEDDER, TOKENIZER)
    with pytest.raises(IndexFileError, match="neither empty nor an index"):
        Index.create(tmp_path, EMBEDDER, TOKENIZER)
    (tmp_path / "half" / "passages.lance").mkdir(parents=True)
    with pytest.raises(IndexFileError, match="cut short"):
        Index.open(tmp_path / "half")
    assert len(Index.open_or_create(tmp_path / "half", EMBEDDER, TOKENIZER)) == 0


def test_another_embedder_or_tokenizer_is_refused(tmp_path: Path, index: Index) -> None:
    add(index, Document("a", "x"))
    other = HashEmbedder(8, "other")
    for attempt in (
        lambda: index.add([], other, TOKENIZER),
        lambda: index.add([], EMBEDDER, letters(5)),
        lambda: Index.open_or_create(tmp_path / "index", other, TOKENIZER),
        lambda: Index.open_or_create(tmp_path / "index", EMBEDDER, TOKENIZER, size=99),
    ):
        with pytest.raises(IndexFileError, match="rebuild"):
            attempt()
    with pytest.raises(IndexFileError, match="rebuild=True"):
        Index.create(tmp_path / "index", EMBEDDER, TOKENIZER)
    rebuilt = Index.open_or_create(tmp_path / "index", other, TOKENIZER, rebuild=True)
    assert len(rebuilt) == 0
    assert rebuilt.add([Document("b", "y")], other, TOKENIZER).added == 1
    assert Index.open_or_create(tmp_path / "index", other, TOKENIZER).info().width == 8


def test_a_refused_update_leaves_readers_where_they_are(tmp_path: Path, index: Index) -> None:
    """They compared vectors of one embedder with passages of another."""
    add(index, Document("a", "x"))
    retriever, other = DenseRetriever(index, EMBEDDER), HashEmbedder(fingerprint="other")
    remade = Index.create(tmp_path / "index", other, TOKENIZER, rebuild=True)
    remade.add([Document("b", "x")], other, TOKENIZER)
    with pytest.raises(IndexFileError, match="another embedder"):
        add(index, Document("c", "x"))
    assert index.settings.embedder == EMBEDDER.fingerprint
    assert retriever.retrieve(["x"], 5)[0].ids == ("a",)
    # Who updates with the new models goes on to them, and leaves the retriever behind.
    assert index.add([Document("c", "x")], other, TOKENIZER).added == 1
    assert sorted(DenseRetriever(index, other).retrieve(["x"], 5)[0].ids) == ["b", "c"]
    with pytest.raises(IndexFileError, match="another embedder"):
        retriever.retrieve(["x"], 5)


def test_an_index_stays_where_it_is_when_the_program_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        index = Index.create("i", EMBEDDER, TOKENIZER)
    monkeypatch.chdir(tmp_path / "here")
    assert add(index, Document("a", "x")).added == 1
    assert (len(Index.open("i")), len(Index.open(tmp_path / "there/i"))) == (0, 1)


def test_folders_without_permission_are_told_from_no_index(
    tmp_path: Path, index: Index, unreachable: set[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = r"index cannot be reached \(Permission denied\): check its permissions"
    unreachable.add(tmp_path / "index")
    for attempt in (Index.open, lambda folder: Index.open_or_create(folder, EMBEDDER, TOKENIZER)):
        with pytest.raises(IndexFileError, match=refused):
            attempt(tmp_path / "index")
    unreachable.clear()

    def listdir(folder: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(IndexFileError, match=refused):
        Index.open(tmp_path / "index")


def test_files_that_go_while_they_are_counted(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may be tidying up."""
    real = os.walk

    def walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        return ((below, folders, [*files, "gone"]) for below, folders, files in real(folder))

    before = index.info()
    monkeypatch.setattr(os, "walk", walk)
    assert index.info() == before
    assert before.bytes > 1_000


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda index: index.bm25("q", 5, where=5), "a filter is a condition"),
        (lambda index: index.bm25("q", 5, where=[5]), "a filter is a condition"),
        (lambda index: index.dense(np.ones(16), 5, where={"a": 1}), "a filter is a condition"),
        (lambda index: index.passages("d1"), r"a list of ids, so one is \['d1'\]"),
        (lambda index: index.tokens(5), "a list of ids"),
        (lambda index: index.passages([1]), r"an id is a string, not int \(1\)"),
        (lambda index: index.remove([1]), r"an id is a string, not int \(1\)"),
        (lambda index: index.add(Document("a", "x"), EMBEDDER, TOKENIZER), "a list of documents, not one Document"),
    ],
)
def test_wrong_types_are_told(index: Index, attempt: Callable[[Index], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        attempt(index)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": None}, "no language None"),
        ({"size": 200.5}, "the size of passages must be a whole number, not 200.5"),
        ({"size": "200"}, "the size of passages must be a whole number"),
        ({"size": 200, "overlap": 2.5}, "the overlap of passages must be a whole number"),
    ],
)
def test_settings_of_wrong_types_are_told(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Index.create(tmp_path / "i", EMBEDDER, TOKENIZER, **options)
    made = Index.create(tmp_path / "i", EMBEDDER, TOKENIZER, size=np.int64(100), overlap=np.int32(5))
    assert (made.settings.size, made.settings.overlap) == (100, 5)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other locks")
@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOLCK, "cannot be locked .*: use a folder on a disk that has locks"), (errno.EAGAIN, "another process")],
)
def test_a_disk_without_locks_is_no_other_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    def refuse(handle: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock, "_take", refuse)
    with pytest.raises(IndexFileError, match=message), exclusive(tmp_path / "writer.lock"):
        pass


LONG, SHORT = " ".join(["word"] * 500), "word"
"""A document of several passages, `a#1`, `a#2` and so on, and one that is whole."""


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": LONG}, {"a": SHORT, "a#2": SHORT}),
        ({"a": LONG}, {"a#2": SHORT}),
        ({"a": SHORT, "a#2": SHORT}, {"a": LONG}),
        ({"a": SHORT, "a#2": SHORT}, {"a": LONG, "a#2": LONG}),
        ({"a": SHORT, "a#2": SHORT, "a#2#2": SHORT}, {"a": LONG, "a#2": LONG}),
        ({"a": LONG, "b": SHORT}, {"a": f"{LONG} more", "b": LONG}),
    ],
)
def test_ids_of_passages_pass_on_within_an_update(
    tmp_path: Path, index: Index, before: dict[str, str], after: dict[str, str], backwards: bool, rows: bool
) -> None:
    """`a#2` is a passage of "a" before or after, and a document of its own after or before."""
    path = tmp_path / "rows.jsonl"

    def bring(texts: dict[str, str]) -> Changes:
        found = list(texts.items())[:: -1 if backwards else 1]
        if rows:
            write(path, "\n".join(json.dumps({"id": id_, "text": text}) for id_, text in found))
            return index.update([path], EMBEDDER, TOKENIZER)
        index.remove([id_ for id_ in index.documents() if id_ not in texts])
        return add(index, *(Document(id_, text) for id_, text in found))

    bring(before)
    done = bring(after)
    assert (done.failed, done.unchanged) == ((), 0)
    assert sorted(index.documents()) == sorted(after)
    assert len(set(index.ids())) == len(index.ids())
    fresh = Index.create(tmp_path / "fresh", EMBEDDER, TOKENIZER)
    add(fresh, *(Document(id_, text) for id_, text in after.items()))
    assert sorted((one.id, one.document, one.text) for one in index.passages(index.ids())) == sorted(
        (one.id, one.document, one.text) for one in fresh.passages(fresh.ids())
    )
    assert bring(after).unchanged == len(after)


def test_ids_of_passages_that_nobody_gives_up_are_refused(index: Index) -> None:
    add(index, Document("a", LONG))
    (failure,) = add(index, Document("a#2", SHORT)).failed
    assert failure.reason == "its passage 'a#2' has the id of a passage of 'a': rename one"
    add(index, Document("b", SHORT), Document("b#1", SHORT))
    done = add(index, Document("b", LONG), Document("b#1", "other"))
    assert [failure.source for failure in done.failed] == ["document 'b'"]
    assert index.passages(["b", "b#1"])[1].text == "other"


def test_one_writer_at_a_time(tmp_path: Path, index: Index) -> None:
    with (
        exclusive(tmp_path / "index" / "writer.lock"),
        pytest.raises(IndexFileError, match="another process is writing"),
    ):
        add(index, Document("a", "x"))
    assert add(index, Document("a", "x")).added == 1


def test_an_embedder_that_fails_leaves_the_last_commit(index: Index) -> None:
    class Broken(HashEmbedder):
        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return super().embed(texts) * np.float32("nan")

    add(index, Document("a", "x"))
    with pytest.raises(InputError, match="NaN"):
        index.add([Document("b", "y")], Broken(), TOKENIZER)
    assert index.ids() == ["a"]


def test_a_reader_keeps_its_version(tmp_path: Path, index: Index) -> None:
    add(index, Document("a", "word"))
    reader = Index.open(tmp_path / "index")
    add(index, Document("b", "word"))
    assert reader.ids() == ["a"]
    reader.refresh()
    assert reader.ids() == ["a", "b"]
    # Made anew with another embedder: whoever holds the reader holds the old one, whose vectors mean nothing there.
    other, tokenizer = HashEmbedder(fingerprint="other"), letters(offset=1)
    Index.create(tmp_path / "index", other, tokenizer, rebuild=True).add([Document("c", "word")], other, tokenizer)
    with pytest.raises(IndexFileError, match="made anew with other models: open it again"):
        reader.refresh()
    assert Index.open(tmp_path / "index").ids() == ["c"]


def test_a_reader_outlives_its_version(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    add(index, *(Document(str(n), f"word {n}") for n in range(20)))
    warm = Index.open(tmp_path / "index")
    reads: list[Callable[[Index], object]] = [
        lambda index: index.bm25("word", 9).ids,
        lambda index: index.dense(EMBEDDER.embed(["word"])[0], 9).ids,
        lambda index: [passage.text for passage in index.passages(["0", "new"])],
        lambda index: index.tokens(["0", "new"]).ids.tolist(),
        lambda index: (index.ids(), index.documents(), index.known(), index.info(), len(index)),
    ]
    cold = [Index.open(tmp_path / "index") for _ in reads]
    pipeline = Pipeline({"words": BM25Retriever(warm), "dense": DenseRetriever(warm, EMBEDDER)}, warm.passages)
    assert "new" not in pipeline.search("word").ranking.ids
    monkeypatch.setattr(table, "_READ_FOR", 0.0)
    Index.open(tmp_path / "index").remove([str(n) for n in range(1, 20)])
    add(Index.open(tmp_path / "index"), Document("0", "word changed"), Document("new", "word"))
    answer = pipeline.search("word")
    assert sorted(answer.ranking.ids) == ["0", "new"]
    assert sorted(passage.text for passage in answer.passages) == ["word", "word changed"]
    newest = Index.open(tmp_path / "index")
    assert [read(index) for read, index in zip(reads, cold, strict=True)] == [read(newest) for read in reads]
    # Made anew with other models, vectors of queries no longer fit. The cure is not to make it anew once more.
    other = HashEmbedder(fingerprint="other")
    Index.create(tmp_path / "index", other, TOKENIZER, rebuild=True).add([Document("c", "word")], other, TOKENIZER)
    with pytest.raises(IndexFileError, match="made anew with other models: open it again"):
        warm.dense(EMBEDDER.embed(["word"])[0], 9)


@pytest.mark.parametrize("kept", [False, True])
def test_a_version_that_goes_during_a_read_is_not_damage(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    add(index, Document("a", "word"))
    reader = Index.open(tmp_path / "index")
    monkeypatch.setattr(table, "_READ_FOR", 0.0)
    real, asked = table.Table.bm25, []
    # Its manifest goes when all else is gone, or stays for whoever looks at that moment.
    if kept:
        monkeypatch.setattr(table.Table, "gone", False)

    def late(self: table.Table, query: str, *rest: object) -> object:
        asked.append(self)
        if len(asked) == 1:
            add(index, Document("b", "word"))
            raise IndexFileError("searching the index failed (Not found)")
        return real(self, query, *rest)

    monkeypatch.setattr(table.Table, "bm25", late)
    assert sorted(reader.bm25("word", 5).ids) == ["a", "b"]
    assert len(asked) == 2


def test_a_version_is_kept_from_when_it_was_replaced(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(index, Document("a", "word"))
    reader, now = Index.open(tmp_path / "index"), time.time()
    # The version is as old as readers are waited for, and only now is it replaced.
    monkeypatch.setattr(table, "time", SimpleNamespace(time=lambda: now + table._READ_FOR))
    add(index, Document("b", "word"))
    assert not reader._table.gone
    assert (reader.bm25("word", 5).ids, reader.ids()) == (("a",), ["a"])


@pytest.mark.parametrize("harm", ["cut", "empty", "noise", "remove"])
@pytest.mark.parametrize("part", ["data/*.lance", "_versions/*.manifest", "_indices/*/*"])
def test_damaged_files(tmp_path: Path, index: Index, harm: str, part: str) -> None:
    add(index, *(Document(str(n), f"some words {n}", metadata={"n": n}) for n in range(50)))
    for file in (tmp_path / "index" / "passages.lance").glob(part):
        content = file.read_bytes()
        if harm == "remove":
            file.unlink()
        else:
            noise = random.Random(0).randbytes(len(content))
            file.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "noise": noise}[harm])

    def use() -> None:
        damaged = Index.open(tmp_path / "index")
        damaged.bm25("words", 5)
        damaged.dense(EMBEDDER.embed(["x"])[0], 5)
        damaged.passages(["1", "2"])

    with pytest.raises(IndexFileError, match=r"damaged|cut short"):
        use()


@pytest.mark.data
def test_bm25_quality(tmp_path: Path) -> None:
    folder = Path(os.environ.get("CROSSRANK_TEST_DATA", "")) / "scifact"
    if "CROSSRANK_TEST_DATA" not in os.environ or not folder.exists():
        pytest.skip("CROSSRANK_TEST_DATA names no folder with scifact")
    index = Index.create(tmp_path / "i", EMBEDDER, TOKENIZER, size=100_000)
    update(index, folder / "corpus.jsonl.gz")
    with gzip.open(folder / "queries.jsonl.gz", "rt", encoding="utf-8") as lines:
        queries = {row["_id"]: row["text"] for row in map(json.loads, lines)}
    qrels: dict[str, dict[str, int]] = {}
    with (folder / "qrels" / "test.tsv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    total = 0.0
    for query, relevant in qrels.items():
        ids = index.bm25(queries[query], 10).ids
        ideal = sum(1 / math.log2(n + 2) for n in range(min(10, len(relevant))))
        total += sum(1 / math.log2(n + 2) for n, id_ in enumerate(ids) if relevant.get(id_)) / ideal
    assert total / len(qrels) > 0.68


def test_ids_that_were_read_last_are_not_read_again(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    add(index, Document("a", "b c", "t"), Document("b", "x"))
    assert index.lengths(["a", "b"]).tolist() == [4, 1]
    known = index.tokens(["b", "a"])
    mine = index.tokens(["a", "b"])
    mine.ids[:] = 0
    with monkeypatch.context() as patch:
        patch.setattr(table.Table, "rows", lambda *_: pytest.fail("read again"))
        assert index.tokens(["b", "a", "b"]).lengths.tolist() == [1, 4, 1]
        assert index.tokens(["a"]).ids.tolist() == known.row(1).tolist()
    add(index, Document("b", "x y"))
    assert index.lengths(["b"]).tolist() == [2], "of the version before"
