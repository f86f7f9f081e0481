"""Texts to ids: as the tokenizers library gives them, and natively where the shipped models' texts are read."""

from __future__ import annotations

import copy
import pickle
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, processors

import crossrank
import tiny
from crossrank import cores, index, textids, wordpiece
from crossrank.backends import cpu
from crossrank.backends.cpu import library
from crossrank.models import named
from crossrank.planner import timing
from crossrank.textids import TextIds
from crossrank.unicode import valid_text

ROOT = Path(__file__).parents[2]
native = pytest.mark.skipif(not cpu.tiers(), reason="the native library is not built")
MIXED = [
    "what is paris?",
    "",
    "\U00030000 is the planet",
    "bread\u302e",
    "the [SEP] cat",
    "\ud800 yeast",
    "a\0b\tc",
    "é" * 120,
]


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts that the tokenizers library was asked for."""
    asked: list[str] = []
    original = TextIds._foreign

    def noted(self: TextIds, texts: Sequence[str], special: bool = False) -> list[list[int]]:
        asked.extend(texts)
        return original(self, texts, special)

    monkeypatch.setattr(TextIds, "_foreign", noted)
    return asked


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No text is too short to take a vocabulary up for it."""
    monkeypatch.setattr(textids, "_CHARACTERS", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.cross_encoder(tmp_path_factory.mktemp("model"))


def opened(folder: Path) -> Tokenizer:
    made = crossrank.checkpoint.read(folder).tokenizer()
    made.encode_special_tokens = True
    return made


def wanted(tokenizer: Tokenizer, texts: Sequence[str], special: bool = False) -> list[list[int]]:
    return [one.ids for one in tokenizer.encode_batch([valid_text(text) for text in texts], add_special_tokens=special)]


def wanted_spans(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[list[int]]]:
    made = tokenizer.encode_batch([valid_text(text) for text in texts], add_special_tokens=False)
    return [[list(span) for span in one.offsets] for one in made]


def spans(ids: TextIds, texts: Sequence[str]) -> list[list[list[int]]]:
    return [one.tolist() for one in ids.spans(texts)]


def rows(tokens: crossrank.types.Tokens) -> list[list[int]]:
    return [tokens.row(i).tolist() for i in range(len(tokens))]


@native
@pytest.mark.usefixtures("at_once")
def test_what_is_left_to_the_library_keeps_its_place(folder: Path, foreign: list[str]) -> None:
    tokenizer = opened(folder)
    ids = TextIds(tokenizer)
    for texts in (MIXED, MIXED[::-1], MIXED[2:4], [], MIXED[:1], MIXED * 40):
        assert rows(ids.of(texts)) == wanted(tokenizer, texts)
        assert rows(ids.framed(texts)) == wanted(tokenizer, texts, special=True)
        assert spans(ids, texts) == wanted_spans(tokenizer, texts)
    assert set(foreign) == set(MIXED[2:4])


@cache
def small(plain: bool) -> tuple[Tokenizer, TextIds]:
    """With special tokens read as text, or not."""
    tokenizer = named.read("small", default="small").tokenizer()
    tokenizer.encode_special_tokens = plain
    return tokenizer, TextIds(tokenizer)


@given(st.lists(st.text() | st.sampled_from(MIXED)), st.booleans())
def test_any_texts(texts: list[str], plain: bool) -> None:
    tokenizer, ids = small(plain)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textids, "_CHARACTERS", 0)
        assert rows(ids.of(texts)) == wanted(tokenizer, texts)
        assert rows(ids.framed(texts)) == wanted(tokenizer, texts, special=True)
        assert spans(ids, texts) == wanted_spans(tokenizer, texts)


@native
def test_little_text_takes_no_vocabulary_up(folder: Path, foreign: list[str]) -> None:
    ids = TextIds(opened(folder))
    half = ["the cat " * (textids._CHARACTERS // 20)]
    for _ in range(4):
        ids.of(half)
    assert foreign == half * 2


@native
@pytest.mark.usefixtures("at_once")
def test_a_tokenizer_that_is_changed_is_taken_up_anew(folder: Path) -> None:
    tokenizer = opened(folder)
    ids, text = TextIds(tokenizer), ["paris [SEP] FRANCE new word"]
    found = [rows(ids.of(text))]
    tokenizer.encode_special_tokens = False
    found.append(rows(ids.of(text)))
    normalizer = tokenizer.normalizer
    normalizer.lowercase = False
    tokenizer.normalizer = normalizer
    found.append(rows(ids.of(text)))
    tokenizer.add_tokens([AddedToken("new word", normalized=False)])
    found.append(rows(ids.of(text)))
    tokenizer.enable_truncation(2)
    found.append(rows(ids.of(text)))
    assert found[-1] == wanted(tokenizer, text)
    assert len({str(row) for row in found}) == 5


@native
@pytest.mark.usefixtures("at_once")
def test_a_frame_that_is_more_than_tokens_around_a_text(folder: Path) -> None:
    tokenizer = opened(folder)
    numbers = [(word, tokenizer.token_to_id(word)) for word in ("[CLS]", "[SEP]")]
    for single in ("$A", "[CLS] $A", "$A [SEP]", "[CLS] [CLS] $A [SEP] [SEP]", "[CLS] $A [SEP] $A", "[CLS]"):
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=numbers)
        assert rows(TextIds(tokenizer).of(MIXED)) == wanted(tokenizer, MIXED), single
        assert rows(TextIds(tokenizer).framed(MIXED)) == wanted(tokenizer, MIXED, special=True), single


def test_a_frame_around_a_vocabulary_without_the_letter_a() -> None:
    tokenizer = Tokenizer(models.BPE({"[CLS]": 0, "[SEP]": 1, "b": 2}, []))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    assert rows(TextIds(tokenizer).framed(["b", "a", ""])) == [[0, 2, 1], [0, 1], [0, 1]]
    assert spans(TextIds(tokenizer), ["bb", "a", ""]) == [[[0, 1], [1, 2]], [], []]


@native
@pytest.mark.usefixtures("at_once")
def test_a_frame_that_is_changed(folder: Path) -> None:
    tokenizer = opened(folder)
    ids, texts = TextIds(tokenizer), ["what is the capital of france?"]
    numbers = [(word, tokenizer.token_to_id(word)) for word in ("[CLS]", "[SEP]")]
    changes: list[Callable[[], None]] = [
        lambda: None,
        lambda: setattr(tokenizer, "post_processor", processors.TemplateProcessing("$A [SEP]", "$A $B", numbers)),
        lambda: setattr(tokenizer, "post_processor", processors.TemplateProcessing("[CLS]", "$A $B", numbers)),
        lambda: setattr(tokenizer, "post_processor", processors.TemplateProcessing("[CLS] $A", "$A $B", numbers)),
        lambda: tokenizer.enable_truncation(4),
        tokenizer.no_truncation,
        lambda: tokenizer.enable_padding(length=40),
    ]
    for change in changes:
        change()
        assert rows(ids.framed(texts)) == wanted(tokenizer, texts, special=True)
        assert rows(ids.of(texts)) == wanted(tokenizer, texts)


def test_what_is_not_for_the_native_library_is_asked_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(wordpiece, "settings", lambda one: asked.append(one))
    ids = TextIds(opened(folder))
    assert rows(ids.of(MIXED)) == rows(ids.of(MIXED)) == wanted(ids.tokenizer, MIXED)
    assert len(asked) == 1


@pytest.mark.usefixtures("at_once")
def test_without_the_native_library_nothing_else_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, foreign: list[str]
) -> None:
    monkeypatch.setattr(library, "NAMES", ())
    library.handle.cache_clear()
    try:
        assert rows(TextIds(opened(folder)).of(MIXED)) == wanted(opened(folder), MIXED)
    finally:
        library.handle.cache_clear()
    assert foreign == MIXED


@native
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_reads_what_the_original_reads(folder: Path, copied: object) -> None:
    ids = TextIds(opened(folder))
    texts = ["what is the capital of france?", "\U00030000", "a [SEP] b"]
    found = rows(ids.of(texts))
    assert rows(copied(ids).of(texts)) == found  # type: ignore[operator]


def real_texts() -> list[str]:
    """Paragraphs of the documentation: quotes, dashes, code, tables, names with accents."""
    files = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.py")])
    return [part for file in files for part in file.read_text(encoding="utf-8").split("\n\n")]


@native
@pytest.mark.parametrize("name", ["small", "fast", "tiny", "late", "embed"])
def test_the_shipped_models_read_real_text_natively(name: str, foreign: list[str]) -> None:
    tokenizer = named.read(name, default="small").tokenizer()
    tokenizer.encode_special_tokens = True
    texts = real_texts()
    ids = TextIds(tokenizer)
    assert rows(ids.of(texts)) == wanted(tokenizer, texts)
    assert len(foreign) < len(texts) // 50


@native
@pytest.mark.usefixtures("at_once")
def test_every_kind_of_model_reads_natively(foreign: list[str]) -> None:
    """It cannot be off without a word: the models that are in the wheel are read by it wherever texts are scored."""
    passages = ["Paris is the capital of France.", "Crème brûlée — “burnt cream” — costs 5 €."]
    pairs = [("what is the capital of france?", passage) for passage in passages]
    for scorer in (crossrank.load(backend="fake"), crossrank.load_late(backend="fake")):
        scorer.score(pairs)
        scorer.count(passages[0])
    crossrank.load_embedder(backend="fake").embed(passages)
    # What stands before texts of late interaction is measured when it is loaded.
    assert [text for text in foreign if text] == []


@native
def test_ids_lie_in_memory_of_their_own() -> None:
    """Not in the room that was made for as many ids as the texts have bytes."""
    encoder = wordpiece.WordPiece(named.read("small", default="small").tokenizer())
    ids, _ = encoder.encode(["what is the capital of france?"] * 100)
    assert ids.base is None
    assert ids.dtype == np.int32


@native
def test_the_planner_times_the_way_that_scoring_goes(foreign: list[str]) -> None:
    scorer = crossrank.load(backend="fake")
    timing._tokenizing(scorer, np.random.default_rng(0), time.perf_counter)
    rounds = Counter(foreign)
    assert rounds
    assert max(rounds.values()) < 9 / 2, "the median is of what is read natively"


class Noting:
    """A tokenizer, and how many texts it was given at once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.tokenizer, name)
        if not name.startswith("encode_batch"):
            return found

        def noted(texts: list[str], **how: Any) -> Any:
            self.sizes.append(len(texts))
            return found(texts, **how)

        return noted


@pytest.mark.parametrize(("threads", "most"), [(1, 1), (3, 3), (8, 50), (9, 50), (None, 50)])
def test_the_tokenizers_library_has_no_more_texts_at_once_than_threads(
    folder: Path, monkeypatch: pytest.MonkeyPatch, threads: int | None, most: int
) -> None:
    monkeypatch.setattr(cores, "available", lambda: 8)
    noting, texts = Noting(opened(folder)), MIXED[:5] * 10
    ids = TextIds(cast(Tokenizer, noting), threads)
    assert rows(ids.of(texts)) == wanted(noting.tokenizer, texts)
    assert spans(ids, texts) == wanted_spans(noting.tokenizer, texts)
    assert max(noting.sizes) == most
    assert sum(noting.sizes) == 2 * len(texts)


@native
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("threads", [1, 2, None])
def test_who_asks_for_threads_gets_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int | None
) -> None:
    """Wherever a model with a number of threads reads texts, the native library is told of it."""
    told: list[int] = []
    handle = library.handle()
    original = handle.crossrank_wordpiece_encode

    def noted(*arguments: Any) -> Any:
        told.append(arguments[3])
        return original(*arguments)

    monkeypatch.setattr(handle, "crossrank_wordpiece_encode", noted)
    monkeypatch.setattr(wordpiece, "_BYTES_A_THREAD", 10)
    monkeypatch.setattr(cores, "available", lambda: 3)
    passages = ["Paris is the capital of France.", "Bread needs yeast."] * 5
    scorer, late = crossrank.load("tiny", threads=threads), crossrank.load_late(threads=threads)
    embedder = crossrank.load_embedder(threads=threads)
    reads: list[Callable[[], object]] = [
        lambda: scorer.score([("capital?", passage) for passage in passages]),
        lambda: pickle.loads(pickle.dumps(scorer)).score([("capital?", passages[0])]),
        lambda: late.score([("capital?", passage) for passage in passages]),
        lambda: embedder.embed(passages),
        lambda: index.Index.create(tmp_path / "index", embedder, embedder.tokenizer).add(
            [index.Document("a", " ".join(passages))], embedder, embedder.tokenizer
        ),
    ]
    for read in reads:
        told.clear()
        read()
        assert max(told) == (threads or 3)
