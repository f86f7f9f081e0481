from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from crossrank import textids
from crossrank.backends import cpu
from crossrank.errors import InputError
from crossrank.index.documents import Document
from crossrank.index.headings import sections
from crossrank.index.passages import passages_of, split
from crossrank.models import named
from crossrank.textids import TextIds


def words() -> Tokenizer:
    """One token a word and one a punctuation mark; all unknown, but counted."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "alpha": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


WORDS = words()


def characters() -> Tokenizer:
    """One token a character, as for scripts without spaces."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return tokenizer


def count(text: str) -> int:
    return len(WORDS.encode(text, add_special_tokens=False).ids)


def test_a_short_text_stays_whole() -> None:
    pieces = split("# Only\n\nOne line.\n\nAnother.", WORDS, 50, markup="markdown")
    assert [(piece.title, piece.text) for piece in pieces] == [("Only", "One line.\n\nAnother.")]


def test_blank_texts() -> None:
    assert split("", WORDS) == []
    assert split(" \n\t ", WORDS) == []
    assert [(piece.title, piece.text) for piece in split("", WORDS, title="Only a title")] == [("Only a title", "")]


def test_cuts_prefer_paragraphs_then_sentences_then_words() -> None:
    first = " ".join(["alpha"] * 18)
    text = f"{first}\n\n{first}\n\n{first}"
    assert [piece.text for piece in split(text, WORDS, 20)] == [first, first, first]
    sentences = "Alpha beta gamma delta epsilon zeta. " * 10
    assert all(piece.text.endswith(".") for piece in split(sentences, WORDS, 20))
    assert all(count(piece.text) <= 20 for piece in split("beta " * 1000, WORDS, 20))


def test_the_last_piece_is_not_a_crumb() -> None:
    pieces = split("beta " * 101, WORDS, 100)
    assert [count(piece.text) for piece in pieces] == [76, 25]


def test_headings_become_the_path_of_titles() -> None:
    body = "beta " * 30
    text = f"# Guide\n\n{body}\n## Install\n\n{body}\n### Linux\n{body}\n## Use\n{body}"
    titles = [piece.title for piece in split(text, WORDS, 60, markup="markdown")]
    assert titles == ["Guide", "Guide > Install", "Guide > Install > Linux", "Guide > Use"]
    assert [piece.title for piece in split(text, WORDS, 60, title="Book", markup="markdown")][1] == (
        "Book > Guide > Install"
    )
    assert {piece.title for piece in split(text, WORDS, 60)} == {""}


def test_sections_beside_each_other_are_not_below_the_first() -> None:
    body = "beta " * 30
    for text, markup in (
        (f"## 2.0\n\n{body}\n## 1.0\n\n{body}", "markdown"),
        (f"# 2.0\n\n{body}\n# 1.0\n\n{body}", "html"),
        (f"2.0\n===\n\n{body}\n\n1.0\n===\n\n{body}", "rst"),
    ):
        assert [piece.title for piece in split(text, WORDS, 40, markup=markup)] == ["2.0", "1.0"]
        assert [piece.title for piece in split(text, WORDS, 40, title="News", markup=markup)] == [
            "News > 2.0",
            "News > 1.0",
        ]
        assert [piece.title for piece in split(text, WORDS, 40, title="2.0", markup=markup)] == ["2.0", "2.0 > 1.0"]
        assert [piece.title for piece in split(text, WORDS, 400, markup=markup)] == ["2.0"]


def test_quotes_stay_with_their_sentence() -> None:
    for sentence in ("彼は「これは本です。」と言った。", "他说：“这是一本书！？”然后走了。", "（これは本です。）"):
        # A boundary follows each closing mark, and none stands before one.
        text = sentence * 40
        pieces = split(text, characters(), 20)
        assert "".join(piece.text for piece in pieces) == text
        assert not [piece.text for piece in pieces if piece.text[0] in "」”）"]


def test_a_long_title_is_repeated_in_part() -> None:
    title = " ".join(f"t{number}" for number in range(10_000))
    first, *others = split("# A\n" + "beta " * 100, WORDS, 40, title=title, markup="markdown")
    assert first.title == f"{title} > A"
    assert {piece.title for piece in others} == {" ".join(f"t{number}" for number in range(18)) + " … > A"}
    assert all(count(f"{piece.title}. {piece.text}") <= 43 for piece in others)
    assert all(
        count(f"{piece.title}. {piece.text}") <= 40 for piece in split("beta " * 100, WORDS, 40, title=title)[1:]
    )
    assert len(split("beta " * 100, WORDS, 40, title="x" * 60_000)[1].title) < 400
    # Half of the room is 20 tokens, of which one is for the full stop after the title.
    for length, kept in ((19, [19, 19]), (20, [20, 19])):
        short = " ".join(title.split()[:length])
        pieces = split("beta " * 100, WORDS, 40, title=short)
        assert [len(piece.title.split()) for piece in pieces[:2]] == kept
        assert [piece.title.endswith("…") for piece in pieces[:2]] == [False, length == 20]


def test_the_title_counts() -> None:
    title = "one two three four five six seven eight"
    pieces = split("beta " * 300, WORDS, 40, title=title)
    assert all(count(f"{piece.title}. {piece.text}") <= 40 for piece in pieces)
    assert len(split("beta " * 100, WORDS, 40, title="long " * 500)) == 5  # A title leaves at least half the room.
    for heading in (30, 60):
        pieces = split("# " + "h " * heading + "\n" + "beta " * 100, WORDS, 40, markup="markdown")
        assert [count(piece.text) for piece in pieces] == [20] * 5


def test_overlap_repeats_tokens() -> None:
    text = " ".join(f"w{number}" for number in range(100))
    pieces = [piece.text.split() for piece in split(text, WORDS, 40, overlap=10)]
    for before, after in pairwise(pieces):
        assert before[-10:] == after[:10]
    assert pieces[-1][-1] == "w99"
    # Beside a title there is room for 20, and a quarter of that is repeated, not a half.
    pieces = [piece.text.split() for piece in split(text, WORDS, 40, overlap=10, title="long " * 100)]
    assert [before[-5:] == after[:5] for before, after in pairwise(pieces)] == [True] * (len(pieces) - 1)
    assert not any(set(before[:-5]) & set(after) for before, after in pairwise(pieces))


def test_what_is_repeated_begins_with_a_sentence_where_one_begins() -> None:
    pieces = split("One two three four five six. " * 12, WORDS, 40, overlap=10)
    assert len(pieces) == 3
    assert all(piece.text.startswith("One two") for piece in pieces)


@pytest.mark.parametrize(("size", "overlap"), [(15, 0), (100, 26), (100, -1)])
def test_sizes_that_cannot_be_kept(size: int, overlap: int) -> None:
    with pytest.raises(InputError):
        split("text", WORDS, size, overlap)


def test_one_endless_word_is_bounded() -> None:
    pieces = split("x" * 100_000, WORDS, 20)
    assert "".join(piece.text for piece in pieces) == "x" * 100_000
    assert max(len(piece.text) for piece in pieces) <= 20 * 16


def test_a_long_word_among_others_keeps_its_place() -> None:
    """It counts as several tokens; out of the order of the text, these would cut away what lies between them."""
    text = ("beta " * 10 + "x" * 100 + " ") * 10
    pieces = split(text, WORDS, 40)
    assert len(pieces) > 1
    assert "".join("".join(piece.text.split()) for piece in pieces) == "".join(text.split())


def test_long_texts_take_linear_time() -> None:
    def seconds(repeats: int) -> float:
        began = time.process_time()
        split("Alpha beta, gamma. Delta epsilon!\n\n" * repeats, WORDS, 100)
        return time.process_time() - began

    seconds(100)
    # Sixteen times the text in at most forty times the time: a quadratic cost would be two hundred and fifty times.
    assert seconds(16_000) < 40 * max(seconds(1_000), 0.01)


ALPHABET = st.characters(codec="utf-8") | st.sampled_from("\n #=-.! \t`~")
# A word of more than 32 characters counts as several tokens.
LONG_WORDS = st.lists(st.sampled_from(["beta.", "\n\n", "# h\n", "x" * 33, "y" * 200]), min_size=10).map(" ".join)


@settings(max_examples=200)
@given(
    st.text(ALPHABET, max_size=400) | LONG_WORDS,
    st.sampled_from(["plain", "markdown", "rst", "html"]),
    st.integers(0, 4),
)
def test_no_letter_is_lost(text: str, markup: str, overlap: int) -> None:
    pieces = split(text, WORDS, 16, overlap, markup=markup)
    joined = Counter("".join(piece.title + piece.text for piece in pieces))
    assert all(joined[letter] >= times for letter, times in Counter(text).items() if letter.isalnum())
    assert all(piece.text == piece.text.strip() for piece in pieces)
    if markup == "plain" and not overlap:
        kept = "".join("".join(piece.text.split()) for piece in pieces)
        assert kept == "".join(text.split())


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["alpha", "beta.", "Gamma", "\n", "\n\n", "(x)", "e.g."]), max_size=300))
def test_no_piece_is_too_long(parts: list[str]) -> None:
    for piece in split(" ".join(parts), WORDS, 24):
        assert count(piece.text) <= 24


@settings(max_examples=200)
@given(st.text(st.sampled_from("ab \n#=-~`>|.*:"), max_size=200), st.sampled_from(["markdown", "rst", "html"]))
def test_sections_are_in_order(text: str, markup: str) -> None:
    found = list(sections(text, markup))
    assert found[0].start == 0
    for before, after in pairwise(found):
        assert before.start <= before.end <= after.start <= after.end <= len(text)


def titles(text: str, markup: str) -> list[str]:
    return [" > ".join(section.path) for section in sections(text, markup) if section.path]


def test_markdown_headings() -> None:
    assert titles("Title\n=====\ntext\n\nSub\n---\ntext", "markdown") == ["Title", "Title > Sub"]
    assert titles("# A ##\ntext\n#not one\n####### nor this\n", "markdown") == ["A"]
    assert titles("```sh\n# a comment\n```\n# B\ntext", "markdown") == ["B"]
    assert titles("~~~\n# a\n```\n# b\n~~~\n# C\ntext", "markdown") == ["C"]
    assert titles("---\ntitle: x\n---\n# D\ntext", "markdown") == ["D"]
    assert titles("two lines\nof text\n---\n", "markdown") == []
    assert titles("Title\n=====\ntext", "html") == []
    assert titles("# A #\ntext\n# B#\n# #\ntext\n## C # #\ntext", "markdown") == ["A", "B#", "B# > C #"]
    assert titles("# C #\ntext", "html") == ["C #"]


def test_fences_are_those_of_commonmark() -> None:
    assert titles("# A\n```npm install tool```\n# B\n```sh\n# no\n```\n# C\ntext", "markdown") == ["A", "B", "C"]
    assert titles("````md\n```sh\n# no\n```\n````\n# A\ntext", "markdown") == ["A"]  # A shorter fence closes nothing.
    assert titles("```\n``` sh\n# no\n`````\n# A\ntext", "markdown") == ["A"]  # Nor one with something behind it.
    assert titles("~~~ a `b`\n# no\n~~~\nA\n---\ntext", "markdown") == ["A"]
    assert titles("```" + "x" * 400 + "```\n# A\ntext", "markdown") == ["A"]
    assert titles("```\n# A\ntext", "html") == ["A"]  # A page has no fences.


def test_a_rule_is_not_front_matter() -> None:
    assert titles("---\n\n# A\ntext", "markdown") == ["A"]
    assert titles("---\n\n# A\ntext\n\n---\n\n# B\ntext", "markdown") == ["A", "B"]
    assert titles("---\n# A\ntext", "markdown") == ["A"]  # It is never closed.
    assert titles("---\n---\n# A\ntext", "markdown") == ["A"]
    assert titles("--- \n# a comment\ntitle: x\n...\n# A\ntext", "markdown") == ["A"]


@pytest.mark.parametrize("line", ["# a" + " " * 290 + "b", "# a" + " #" * 140 + " b", "```" + "` " * 140, "#" * 290])
def test_headings_take_linear_time(line: str) -> None:
    began = time.process_time()
    list(sections((line + "\n") * 5_000, "markdown"))
    assert time.process_time() - began < 3  # It was half a minute.


def test_rst_headings() -> None:
    text = "=====\nTitle\n=====\n\ntext\n\nPart\n----\ntext\n\nDeeper\n~~~~~~\ntext\n\nPart 2\n------\ntext"
    assert titles(text, "rst") == ["Title", "Title > Part", "Title > Part > Deeper", "Title > Part 2"]
    assert titles("not a title\n---\ntext", "rst") == []  # The line is shorter than the title.


def test_a_heading_with_nothing_under_it_is_kept() -> None:
    text = "# A\n" + "beta " * 40 + "\n# Empty heading\n"
    assert split(text, WORDS, 30, markup="markdown")[-1].text == "# Empty heading"


def test_passages_have_stable_ids_and_their_tokens() -> None:
    long = Document("doc", "alpha beta. " * 100, "Title", {"year": 2020})
    made = passages_of(long, TextIds(WORDS), 50, 0)
    assert [passage.id for passage, _ in made] == [f"doc#{number + 1}" for number in range(len(made))]
    assert len(made) > 1
    for passage, tokens in made:
        assert (passage.document, passage.title, passage.metadata) == ("doc", "Title", {"year": 2020})
        assert tokens.tolist() == WORDS.encode(passage.scored_text, add_special_tokens=False).ids
    ((passage, _),) = passages_of(Document("row", "alpha"), TextIds(WORDS), 50, 0)
    assert (passage.id, passage.document) == ("row", "row")


@pytest.mark.skipif(not cpu.tiers(), reason="the native library is not built")
@given(st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from("aé中각 \n\u0301#.")), st.integers(16, 40))
def test_passages_are_the_same_with_and_without_the_native_library(text: str, size: int) -> None:
    tokenizer = named.read("embed", default="embed").tokenizer()
    document = Document("doc", f"{text} {'word ' * 30}{text * 3}", text)
    made: list[object] = []
    for characters in (0, 10**9):  # That no text is too short for the native library, and that each is.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(textids, "_CHARACTERS", characters)
            found = passages_of(document, TextIds(tokenizer), size, 4)
        made.append([(passage, tokens.tolist()) for passage, tokens in found])
    assert made[0] == made[1]
