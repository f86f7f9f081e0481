"""Texts cut to the tokens that a request wants read: how much is left, from which end, and what is said of it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

import crossrank
import tiny
from crossrank.encoder import Windows
from crossrank.server.cutting import Caps, Cutter, merged
from crossrank.server.service import Service
from crossrank.types import Truncation

QUERY = "what is the capital of france?"


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> crossrank.CrossEncoder:
    return crossrank.load(tiny.cross_encoder(tmp_path_factory.mktemp("cutting") / "model"), backend="fake")


@pytest.fixture(scope="module")
def cutter(scorer: crossrank.CrossEncoder) -> Cutter:
    return Cutter(scorer)


def test_caps_cut_what_is_read(cutter: Cutter) -> None:
    long = "paris " * 50
    room = len(cutter._tokenizer.encode(QUERY, "").ids)
    for caps, document in [
        (Caps(document=3), "paris paris paris"),
        (Caps(document=1000), long),
        (Caps(pair=room + 2), "paris paris"),
        (Caps(windows=1), long),
        (Caps(windows=1, document=2), "paris paris"),
        (Caps(pair=room + 2, document=1), "paris"),
        (Caps(), long),
    ]:
        ((query, cut),), _ = cutter.cut([(QUERY, long)], caps)
        assert (query, cut) == (QUERY, document), caps
    assert cutter.cut([(QUERY, "bread")], Caps(query=2))[0] == [("what is", "bread")]


def test_white_space_is_no_part_of_what_is_read(cutter: Cutter) -> None:
    for document in (" " * 300 + "paris is a", "paris" + "\n" * 5000 + "is a city", "\x00" * 300 + "paris is a"):
        ((query, cut),), _ = cutter.cut([(" " * 30 + "what is", document)], Caps(query=1, document=2))
        assert query == "what"
        assert cut.strip("\x00").split() == ["paris", "is"]


def test_a_text_is_not_searched_for_tokens_behind_what_the_scorer_reads(tmp_path: Path) -> None:
    scorer = crossrank.load(tiny.cross_encoder(tmp_path / "model"), backend="fake")
    scorer.windows = Windows(size=20, overlap=5, most=2)
    ((_, cut),), cuts = Cutter(scorer).cut([(QUERY, "a" + " " * 100_000 + "b c d")], Caps(document=3))
    assert cut.split() == ["a"]
    assert cuts == (Truncation(0, 1, 1, 1, exact=False),)
    assert cuts[0].lost


def test_a_number_of_windows_is_as_many_tokens_as_they_cover(tmp_path: Path) -> None:
    scorer = crossrank.load(tiny.cross_encoder(tmp_path / "model"), backend="fake")
    scorer.windows = Windows(size=20, overlap=5, most=4)
    for windows, read in ((1, 20), (2, 35), (3, 50)):
        _, cuts = Cutter(scorer).cut([(QUERY, "paris " * 60)], Caps(windows=windows))
        assert [(cut.position, cut.tokens, cut.read) for cut in cuts] == [(0, 60, read)]


def test_a_text_that_is_cut_twice_tells_how_long_it_was_at_first(cutter: Cutter) -> None:
    """Told from the first cut on, half of what was lost would be hidden."""
    room = cutter._count(QUERY) + 3
    _, cuts = cutter.cut([(QUERY, "paris " * 12)], Caps(document=8, pair=room + 4))
    assert cuts == (Truncation(0, 12, 4, 1),)


def test_a_scorer_with_a_length_of_its_own_reports_a_query_once(tmp_path: Path) -> None:
    """It was cut for the checkpoint's length, and then once more, and reported twice, for the scorer's."""
    scorer = crossrank.load(tiny.cross_encoder(tmp_path / "model"), backend="fake", max_length=20)
    query = "what is the capital " * 10
    pairs, cuts = Cutter(scorer).cut([(query, "bread " * 20)], Caps(document=10))
    found = merged(cuts, scorer.scored(pairs).truncations)
    assert [cut.position for cut in found] == [-1, 0]
    assert Service(scorer).reranker.reach().query == 20 // 2


@pytest.mark.parametrize(
    ("caps", "pair"),
    [
        (Caps(pair=12, left=True), (QUERY, "cat cat")),
        (Caps(pair=12), (QUERY, "bread.")),
        # The query alone is too long: it keeps its beginning or its end, and the document a token.
        (Caps(pair=6), ("what is", "bread")),
        (Caps(pair=6, left=True), ("france?", "cat")),
        (Caps(pair=3), ("what", "bread")),
        # The other caps keep beginnings.
        (Caps(pair=12, document=3, left=True), (QUERY, ". the")),
        (Caps(query=3, left=True), ("what is the", "bread. the cat cat")),
    ],
)
def test_which_end_is_kept(cutter: Cutter, caps: Caps, pair: tuple[str, str]) -> None:
    assert cutter.cut([(QUERY, "bread. the cat cat")], caps)[0] == [pair]


EMOJI, LIGATURE = "\U0001f984", "\ufdfa"


def reader(normalizer: normalizers.Normalizer) -> Cutter:
    """Of a scorer that reads bytes."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizer, pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens(["<s>", "<unk>"])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=["<s>", "<unk>"], initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([], trainer)
    made.post_processor = processors.TemplateProcessing(pair="<s> $A <s> $B", special_tokens=[("<s>", 0)])
    scorer = crossrank.load("tiny", backend="fake")
    scorer.checkpoint = Read(made)  # type: ignore[assignment]
    return Cutter(scorer)


@dataclass
class Read:
    """Stands for a checkpoint with a tokenizer of its own."""

    made: Tokenizer
    pair: None = None

    def tokenizer(self) -> Tokenizer:
        return self.made


@pytest.mark.parametrize("left", [False, True], ids=["beginning", "end"])
@pytest.mark.parametrize(
    ("normalizer", "sign", "each"),
    [(normalizers.NFC(), EMOJI, 4), (normalizers.NFKC(), LIGATURE, 33)],
    ids=["bytes", "longer forms"],
)
def test_a_character_may_be_many_tokens(normalizer: normalizers.Normalizer, sign: str, each: int, left: bool) -> None:
    """Such a text was read whole, four times as long as a request wanted, and without a word."""
    cutter = reader(normalizer)
    for most in (50, 4 * each, 3 * each - 1, each + 1):
        ((_, cut),), cuts = cutter.cut([("w", sign * 50)], Caps(pair=most + 3, left=left))
        assert cut == sign * (most // each)
        assert cuts == (Truncation(0, 50 * each, most // each * each, 1),)
    # A character at least is kept, and what is kept is said.
    assert cutter.cut([("w", sign * 2)], Caps(document=1))[0] == [("w", sign)]
    assert cutter.cut([("w", sign * 2)], Caps(document=1))[1] == (Truncation(0, 2 * each, each, 1),)
    assert cutter.cut([("w", sign)], Caps(document=1)) == ([("w", sign)], ())


def test_a_cut_is_reported_once(cutter: Cutter, scorer: crossrank.CrossEncoder) -> None:
    pairs = [(QUERY, "paris"), (QUERY, "paris " * 9), ("cat", "paris " * 400)]
    _, cuts = cutter.cut(pairs, Caps(query=3, document=4))
    assert cuts == (Truncation(-1, 7, 3, 1), Truncation(1, 9, 4, 1), Truncation(2, 15, 4, 1, exact=False))
    # What the scorer cuts again counts the tokens that the text had at first, and a query is not cut twice.
    _, cuts = cutter.cut([(QUERY * 50, "paris " * 400)], Caps(query=300, document=350))
    scored = scorer.scored(cutter.cut([(QUERY * 50, "paris " * 400)], Caps(query=300, document=350))[0]).truncations
    assert [(cut.position, cut.lost) for cut in merged(cuts, scored)] == [(-1, True), (0, True)]
    assert merged(cuts, scored)[1].tokens == 400
    assert merged((), scored) == list(scored)


def test_no_pair_has_more_tokens_than_its_cap(cutter: Cutter) -> None:
    chosen = random.Random(0)
    words = [*tiny.WORDS, "capitalfrance", "bread-yeast", "x" * 130, "[SEP]", "\ud800", "  \t", "the.", "yeasts", "?!"]
    for _ in range(400):
        query, document = ("what" + " ".join(chosen.choices([*words, ""], k=chosen.randint(0, 30))) for _ in range(2))
        pair, left = chosen.randint(1, 60), chosen.random() < 0.5
        ((asked, read),), cuts = cutter.cut([(query, document)], Caps(pair=pair, left=left))
        assert asked in query
        assert read in document
        assert cutter._count(asked) + cutter._count(read) + 3 <= max(pair, 5), (query, document, pair, left)
        # The scorer reads 30 tokens of a query.
        whole = cutter._count(query) <= min(30, pair - 3 - cutter._count(document))
        assert whole == (not cuts) == ((asked, read) == (query, document))
