"""Contexts for a language model: never over the budget, nothing twice, and every marker leads back."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import lance
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import crossrank
from crossrank.calibration import Platt
from crossrank.cascade import Trace
from crossrank.cli import root
from crossrank.context import Context, assemble
from crossrank.errors import InputError
from crossrank.index import Index
from crossrank.index.documents import Document
from crossrank.types import Passage, Place

WORDS = [f"w{number}" for number in range(400)]


def words(text: str) -> int:
    return len(text.split())


def subword(text: str) -> int:
    """Pieces of four characters, over the borders of words: as uneven as the tokens of a language model."""
    return -(-len(text) // 4)


def window(document: str, text: str, start: int, stop: int, *, placed: bool = True) -> Passage:
    """The words from `start` to `stop` of a text, as an index cuts it."""
    ends = [0, *(found.end() for found in re.finditer(r"\S+\s*", text))]
    body = text[ends[start] : ends[stop]]
    place = Place(f"/{document}", ends[start], 1 + text.count("\n", 0, ends[start])) if placed else None
    return Passage(f"{document}#{start}-{stop}", body.strip(), "", document, place=place)


@st.composite
def found(draw: st.DrawFn) -> list[Passage]:
    """Windows of a few documents, best first; some overlap, some are equal."""
    texts = [" ".join(WORDS[100 * at : 100 * at + 60]) for at in range(3)]
    made = []
    for _ in range(draw(st.integers(0, 8))):
        at, start = draw(st.integers(0, 2)), draw(st.integers(0, 50))
        made.append(window(f"d{at}", texts[at], start, start + draw(st.integers(1, 10)), placed=draw(st.booleans())))
    return list({passage.id: passage for passage in made}.values())


@given(found(), st.integers(1, 120), st.sampled_from([words, subword]), st.sampled_from(["score", "document"]))
def test_the_budget_holds_and_nothing_is_lost(passages, tokens, count, order):
    context = assemble(passages, tokens, count, order=order)
    assert count(context.text) == context.tokens <= tokens or context.text == ""
    inside = [id_ for source in context.sources for id_ in source.passages]
    cut = [source for source in context.sources if source.cut]
    assert sorted([*inside, *(left.passage for left in context.left_out)]) == sorted(p.id for p in passages)
    assert not cut or len(context.sources) == 1
    texts = {passage.id: passage.text for passage in passages}
    for number, source in enumerate(context.sources, start=1):
        assert source.marker == number
        assert f"{source.head}\n{source.text}" in context.text
        assert all(texts[id_] in source.text for id_ in source.passages) or source.cut
    if passages and count(f"[1] (d0)\n{passages[0].text}") <= tokens:
        assert passages[0].id in inside


@given(found())
def test_overlapping_windows_are_text_of_the_document_once(passages):
    """What is joined stands in the document as it is, so that no word is doubled or lost."""
    context = assemble(passages, 10_000, words, near=2)
    documents = {f"d{at}": " ".join(WORDS[100 * at : 100 * at + 60]) for at in range(3)}
    for source in context.sources:
        assert source.text in documents[source.document]
        if source.place is not None:
            assert documents[source.document][source.place.start :].startswith(source.text)


def test_neighbours_are_joined_and_strangers_are_not():
    text = "One two three.\n\nFour five six.\n\n\n\n\n\nSeven eight nine."
    first, second, third = (window("d", text, start, start + 3) for start in (0, 3, 6))
    context = assemble([second, third, first], 100, words)
    assert [source.passages for source in context.sources] == [(first.id, second.id), (third.id,)]
    assert context.sources[0].text == "One two three.\n\nFour five six."
    assert [source.rank for source in context.sources] == [1, 2]
    other = replace(second, document="other")
    assert len(assemble([first, other], 100, words).sources) == 2


@pytest.mark.parametrize(
    ("spans", "sources"),
    [
        # The last one closes the gap between two that were strangers.
        ([(0, 3), (6, 9), (3, 6)], [("d#0-3", "d#3-6", "d#6-9")]),
        # One within another adds nothing, is no duplicate that is left out, and does not move the end.
        ([(0, 10), (2, 5), (10, 13)], [("d#0-10", "d#2-5", "d#10-13")]),
        ([(2, 5), (0, 10), (10, 13)], [("d#0-10", "d#2-5", "d#10-13")]),
    ],
)
def test_all_that_touch_become_one_source_in_whatever_order_they_were_found(spans, sources):
    text = " ".join(WORDS[:13])
    context = assemble([window("d", text, *span) for span in spans], 100, words)
    assert [source.passages for source in context.sources] == sources
    assert context.sources[0].text == " ".join(WORDS[: max(stop for _, stop in spans)])
    assert context.left_out == ()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # Under two titles: the words of one would stand under the other's.
        (("one two three", "A", "/x", 0), ("four five", "B", "/x", 14)),
        # One document's name, but another file: the places do not compare.
        (("one two three", "", "/x", 0), ("four five", "", "/y", 14)),
        # The place says within, the text says no: it would be told as read, and be lost.
        (("aaaa bbbb cccc dddd", "", "/x", 0), ("XXXX", "", "/x", 5)),
        (("aaaa bbbb", "", "/x", 0), ("XXXX cccc", "", "/x", 5)),
    ],
)
def test_what_only_seems_to_touch_is_not_joined(first, second):
    passages = [
        Passage(id_, text, title, "d", place=Place(file, start, 1))
        for id_, (text, title, file, start) in zip("ab", (first, second), strict=True)
    ]
    context = assemble(passages, 100, words)
    assert [(source.passages, source.text) for source in context.sources] == [(("a",), first[0]), (("b",), second[0])]
    assert [source.head for source in context.sources] == [
        " ".join(filter(None, [f"[{number}]", title, "(d)"]))
        for number, (_, title, _, _) in enumerate((first, second), start=1)
    ]


def test_a_line_is_named_where_it_is_not_the_first():
    found = [Passage("a", "one", document="d", place=Place("/d", 9, line)) for line in (0, 1, 2)]
    heads = [assemble([passage], 100, words).sources[0].head for passage in found]
    assert heads == ["[1] (d)", "[1] (d)", "[1] (d, line 2)"]


def test_a_passage_of_one_letter_between_two_others_is_missed():
    text = "Vitamin\nC\nhelps."
    first, _, third = (window("d", text, start, start + 1) for start in range(3))
    assert [source.text for source in assemble([first, third], 100, words).sources] == ["Vitamin", "helps."]


def test_windows_without_places_are_joined_by_what_they_share():
    text = "the quick brown fox jumps over the lazy dog and runs away from everything"
    first, second = Passage("a", text[:60], document="d"), Passage("b", text[20:], document="d")
    (source,) = assemble([second, first], 100, words).sources
    assert (source.passages, source.text) == (("a", "b"), text)
    assert len(assemble([first, replace(second, text=text[50:])], 100, words).sources) == 2, "ten letters are chance"


def test_a_near_duplicate_is_left_out_and_another_number_is_not():
    text = " ".join(WORDS[:60]).replace("w", "word")
    near = text.replace("word30", "else", 1)
    passages = [Passage("a", text), Passage("b", near + " extra"), Passage("c", text.replace("word59", "word99"))]
    context = assemble(passages, 1000, words)
    assert [source.passages for source in context.sources] == [("a",), ("c",)]
    assert [(left.passage, left.reason) for left in context.left_out] == [("b", "near-duplicate of a")]
    assert len(assemble(passages, 1000, words, near=2).sources) == 3


LONG = " ".join(WORDS[:60])


@pytest.mark.parametrize(
    "texts",
    [
        [f"The rate was {rate} percent in the last quarter of 2024." for rate in ("-5", "5", "+5", "\u2212.5", ".5")],
        [f"{LONG} and a rate of {rate} percent" for rate in ("-5", "5", "$5", "€5", "-$5", ".5")],
        [f"Use {name} for the hot loop and nothing else." for name in ("C++", "C", "C#")],
        [f"Set the flag if x {sign} y here" for sign in "><-*/+&=≤"],
        ["👍", "🎉", "!!!", "?!", "👍👍"],
        ["कि", "का"],
    ],
)
def test_passages_that_differ_in_a_symbol_are_no_duplicates(texts):
    passages = [Passage(str(place), text) for place, text in enumerate(texts)]
    titled = [Passage(passage.id, passage.text, "One title of all") for passage in passages]
    for found in (passages, passages[::-1]):
        context = assemble(found, 1000, words)
        assert sorted(source.passages[0] for source in context.sources) == [passage.id for passage in passages]
    if not re.search(r"\w", "".join(texts)):
        assert len(assemble(titled, 1000, words).sources) == len(texts)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("“Cats” don’t purr – they hum… [1] (2020–2024)", "'Cats' don't purr - they hum. [1], 2020-2024!"),
        ("See https://a.example/b?c=1, then GPT-4.", "see https://a.example/b?c=1; then gpt\u20114"),
        ("!!!", "!!!"),
        ("👍", "👍"),
    ],
)
def test_punctuation_makes_no_other_statement(text, other):
    (left,) = assemble([Passage("a", text), Passage("b", other)], 1000, words, near=1.0).left_out
    assert left.reason == "near-duplicate of a"


def test_passages_that_differ_in_their_last_word_are_no_duplicates():
    found = [Passage(text, text) for text in ("The server is up", "The server is down")]
    assert assemble(found, 100, words).left_out == ()


@pytest.mark.parametrize(
    "pair", [("100 € net", "100 $ net"), ("5 °C", "5 °F"), ("±5", "5"), ("3 %", "3 ‰"), ("−5", "5")]
)
def test_what_a_number_counts_is_a_part_of_it(pair):
    text = " ".join(WORDS[:55]).replace("w", "word")
    passages = [Passage(one, f"{text} is {one}", document=f"{one}.md") for one in pair]
    assert len(assemble(passages, 1000, words).sources) == 2


@pytest.mark.parametrize("pair", [("5 %", "5\n%"), ("$ 5.00", "$5.00"), ("$5 $6", "$5\n$6"), ("5 €", "5\xa0€")])
def test_white_space_within_a_number_is_none(pair):
    text = " ".join(WORDS[:55]).replace("w", "word")
    passages = [Passage(one, f"{text} is {one} now", document=f"{one}.md") for one in pair]
    assert len(assemble(passages, 1000, words).left_out) == 1


@pytest.mark.parametrize("short", ["No", "5", "thin", "t 2", "2015.", "Nothing was"])
def test_a_short_text_is_a_part_of_another_only_as_whole_words(short):
    """Without places, "No" was lost within "Nothing"."""
    long = "Nothing was paid at 2.5 % in 2015."
    found = [Passage(one, one, document="d") for one in (long, short)]
    sources = assemble(found, 1000, words, near=2.0).sources
    assert len(sources) == (1 if short in ("2015.", "Nothing was") else 2)


def test_short_texts_under_one_long_title_are_no_duplicates():
    title = "may a customer who bought at a sale return what was bought within thirty days of the delivery"
    found = [Passage(text, text, title, f"{text}.md") for text in ("Yes.", "No.")]
    assert len(assemble(found, 1000, words).sources) == 2
    other = replace(found[0], id="other", title=title.replace("customer", "shop"), document="other.md")
    assert len(assemble([found[0], other], 1000, words).sources) == 2
    same = replace(found[0], id="same", document="same.md")
    assert [left.passage for left in assemble([found[0], same], 1000, words).left_out] == ["same"]


def test_a_shorter_passage_takes_the_room_that_is_left():
    passages = [Passage("a", "x " * 10), Passage("b", "y " * 50), Passage("c", "z " * 5), Passage("d", "  ")]
    context = assemble(passages, 20, words)
    assert [source.passages for source in context.sources] == [("a",), ("c",)]
    assert [(left.passage, left.reason) for left in context.left_out] == [("b", "over the budget"), ("d", "blank")]


def test_the_last_is_thrown_out_when_all_together_take_more_than_each_alone():
    """Added up they fit and together they do not: the best must be the one that stays."""

    def count(text):
        return words(text) + 50 * ("[1]" in text and "[2]" in text)

    context = assemble([Passage("a", "one two three"), Passage("b", "four five six")], 40, count)
    assert [source.passages for source in context.sources] == [("a",)]
    assert [(left.passage, left.reason) for left in context.left_out] == [("b", "over the budget")]


def test_one_that_only_seems_to_fit_does_not_keep_out_one_that_does():
    """By what each takes alone the third just fits; together they are over, and it would keep the fourth out."""

    def count(text):
        return words(text) + 3 * max(0, text.count("]") - 1)

    texts = ("one two three four", "five six seven eight", "nine ten eleven twelve", "last")
    context = assemble([Passage(id_, text) for id_, text in zip("abcd", texts, strict=True)], 19, count)
    assert [source.passages for source in context.sources] == [("a",), ("b",), ("d",)]


def test_the_best_is_cut_when_nothing_fits():
    context = assemble([Passage("a", "one two three four", "Title", "d"), Passage("b", "x " * 9)], 5, words)
    assert context.text == "[1] Title (d)\none two"
    assert (context.sources[0].cut, context.tokens) == (True, 5)
    assert context.note == "no passage fits the budget whole; the best was cut"
    assert [left.passage for left in context.left_out] == ["b"]
    nothing = assemble([Passage("a", "one two", "Title", "d")], 2, words)
    assert (nothing.text, nothing.tokens, len(nothing.left_out)) == ("", 0, 1)
    assert "nor the start" in nothing.note


@pytest.mark.parametrize(
    ("text", "tokens", "begins"),
    [
        ("東京は日本の首都です。大阪もあります。", 15, "東京は日本の首都です。"),
        ("東京は日本の首都です。大阪もあります。", 14, "東京は日本の首都で"),  # no line begins with a full stop
        ("人口は14000000人です。" * 9, 10, "人口は"),  # a number is whole
        ("ที่นี่มีชาร้อน" * 9, 11, "ที่นี่"),  # no letter without its marks
        ("ガス" * 9, 4, ""),
        ("x" * 99, 50, ""),
    ],
)
def test_scripts_without_spaces_are_cut_too(text, tokens, begins):
    """They were one word, so that a long passage in Chinese gave no context at all."""
    context = assemble([Passage("a", text)], tokens, len)
    assert context.text == (f"[1]\n{begins}" if begins else "")
    assert context.tokens <= tokens


@pytest.mark.parametrize("blank", ["", " \n", "\u200b", "\u00ad\ufeff "])
def test_a_text_that_shows_nothing_is_no_source(blank):
    context = assemble([Passage("a", blank, "Title", "z.txt"), Passage("b", "Tea is hot.")], 100, words)
    assert [source.passages for source in context.sources] == [("b",)]
    assert [(left.passage, left.reason) for left in context.left_out] == [("a", "blank")]


def test_order_as_in_the_document():
    text = " ".join(WORDS[:60])
    passages = [window("d", text, 40, 50), Passage("e", "other", document="e"), window("d", text, 0, 9)]
    context = assemble(passages, 1000, words, order="document")
    assert [source.passages for source in context.sources] == [("d#0-9",), ("d#40-50",), ("e",)]
    assert [source.marker for source in context.sources] == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": 0}, "^tokens must be at least 1, not 0$"),
        ({"order": "best"}, "'score' and 'document'"),
        ({"count": lambda text: None}, "number of tokens"),
        ({"count": len, "tokens": 2.5}, "^tokens must be a whole number"),
    ],
)
def test_what_means_nothing_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        assemble([Passage("a", "text")], **{"tokens": 10, "count": words, **arguments})


def test_what_is_counted_grows_with_the_passages_and_not_with_their_square():
    read = 0

    def count(text: str) -> int:
        nonlocal read
        read += len(text)
        return words(text)

    passages = [Passage(str(at), " ".join(f"{at}x{word}" for word in range(20))) for at in range(200)]
    for tokens in (1000, 10_000):
        read = 0
        assert len(assemble(passages, tokens, count).sources) == min(tokens // 21, 200)
        assert read < 5 * sum(len(passage.text) for passage in passages)


@given(found(), st.integers(1, 3000))
def test_the_budget_holds_whatever_counts(passages, tokens):
    context = assemble(passages, tokens, lambda text: words(text) ** 2)
    assert words(context.text) ** 2 == context.tokens <= tokens
    order = [passage.id for passage in passages]
    left = [left.passage for left in context.left_out]
    assert left == sorted(left, key=order.index)


def test_a_count_of_numpy_is_a_number():
    context = assemble([Passage("a", "text")], 10, lambda text: np.int64(words(text)))
    assert (type(context.tokens), context.tokens) == (int, 2)


# --- over an index -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, bi_encoder_folder: Path) -> Path:
    """An index of two files of several passages, with the files beside it."""
    base = tmp_path_factory.mktemp("context")
    (base / "files").mkdir()
    lines = [f"Line {number} is of the planet and the cat.\n\n" for number in range(1, 30)]
    (base / "files" / "cat.md").write_text("# Cats\n\n" + "".join(lines), encoding="utf-8")
    (base / "files" / "bread.txt").write_text("\n\n  Bread is of yeast.\n", encoding="utf-8")
    embedder = crossrank.load_embedder(bi_encoder_folder)
    index = Index.create(base / "index", embedder, embedder.tokenizer, model=str(bi_encoder_folder), size=40)
    index.update([base / "files"], embedder, embedder.tokenizer)
    return base / "index"


def test_an_index_knows_where_a_passage_begins(folder: Path) -> None:
    index = Index.open(folder)
    for passage in index.passages(index.ids()):
        assert passage.place is not None
        text = Path(passage.place.file).read_text(encoding="utf-8")
        assert text[passage.place.start :].startswith(passage.text)
        assert text.count("\n", 0, passage.place.start) == passage.place.line - 1


def test_a_row_of_a_file_has_no_line(tmp_path: Path, bi_encoder_folder: Path) -> None:
    rows = [{"_id": f"r{n}", "text": "\n".join(f"The cat is in france {n}." for _ in range(9))} for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "rows.csv").write_text('id,text\nc,"the\n\nbread"\n', encoding="utf-8")
    embedder = crossrank.load_embedder(bi_encoder_folder)
    index = Index.create(tmp_path / "index", embedder, embedder.tokenizer, size=40)
    index.update([tmp_path], embedder, embedder.tokenizer)
    passages = index.passages(index.ids())
    assert len(passages) > 4
    assert {passage.place and (Path(passage.place.file).name, passage.place.line) for passage in passages} == {
        ("rows.jsonl", 0),
        ("rows.csv", 0),
    }
    sources = assemble(passages[:3], 500, words).sources
    assert all("line" not in source.head for source in sources)


def test_an_index_made_before_places_is_read_and_updated(folder: Path, tmp_path: Path, bi_encoder_folder: Path) -> None:
    embedder = crossrank.load_embedder(bi_encoder_folder)
    index = Index.create(tmp_path / "old", embedder, embedder.tokenizer, size=40)
    lance.dataset(str(tmp_path / "old" / "passages.lance")).drop_columns(["start", "line"])
    index = Index.open(tmp_path / "old")
    for text in ("Cats purr.", "Cats sleep."):
        index.add([Document("a", text)], embedder, embedder.tokenizer)
    (passage,) = index.passages(["a"])
    assert (passage.text, passage.place) == ("Cats sleep.", None)


def test_markers_of_a_search_lead_back(folder: Path, cross_encoder_folder: Path) -> None:
    pipeline = crossrank.open_pipeline(folder, cross_encoder_folder, backend="fake")
    context = pipeline.context("what is the planet?", 200)
    assert 0 < context.tokens <= 200
    assert context.counted_by == f"the tokenizer of {cross_encoder_folder}"
    assert context.probability is None
    for source in context.sources:
        assert source.place is not None
        text = " ".join(Path(source.place.file).read_text(encoding="utf-8")[source.place.start :].split())
        assert text.startswith(" ".join(source.text.split()))
    assert pipeline.context("what is the planet?", 20, count=words).counted_by == "a function of the caller"
    words_alone = {"bm25": pipeline.retrievers["bm25"]}
    with pytest.raises(InputError, match="count="):
        replace(pipeline, stages=(), retrievers=words_alone).context("what?", 20)
    with pytest.raises(InputError, match="from 0 to 1"):
        pipeline.context("what?", 20, threshold=1.5)
    with pytest.raises(InputError, match=r"^tokens must be at least 1, not 0$"):
        pipeline.context("what?", tokens=0)


def test_without_the_model_the_embedder_counts(folder: Path, bi_encoder_folder: Path) -> None:
    pipeline = crossrank.open_pipeline(folder, "nosuch", on_error="keep")
    context = pipeline.context("what is the planet?", 50)
    assert context.counted_by == f"the tokenizer of {bi_encoder_folder}"
    assert 0 < context.tokens <= 50
    arguments = ["search", str(folder), "the planet?", "--model", "nosuch", "--on-error", "keep", "--context", "50"]
    ran = CliRunner().invoke(root, arguments)
    assert ran.exit_code == 3
    assert "[1]" in ran.stdout


def test_a_context_of_an_answer_is_that_of_its_query(folder: Path, cross_encoder_folder: Path) -> None:
    pipeline = crossrank.open_pipeline(folder, cross_encoder_folder, backend="fake")
    answer = pipeline.search("what is the planet?", 4)
    assert pipeline.context(answer, 200) == pipeline.context("what is the planet?", 200, 4)
    # Of an answer the first k, and all where nobody says how many.
    assert pipeline.context(answer, 200, 2) == pipeline.context(pipeline.search("what is the planet?", 2), 200)
    assert pipeline.context(answer, 200, 2) != pipeline.context(answer, 200)
    by_document, count = pipeline.context(answer, 200, order="document"), pipeline.stages[0].scorer.count  # type: ignore[attr-defined]
    assert by_document.sources == assemble(answer.passages, 200, count, order="document").sources
    assert by_document.sources != pipeline.context(answer, 200).sources
    for call in (answer, "what is the planet?"):
        with pytest.raises(InputError, match="k must be at least 1"):
            pipeline.context(call, 200, 0)
    noted = replace(answer, traces=(*answer.traces, Trace("plan", answer.ranking, 0.0, {}, note="too few")))
    assert pipeline.context(noted, 200).notes == ("plan: too few",)


def test_a_threshold_needs_a_calibration_and_then_empties(folder: Path, plain_folder: Path) -> None:
    pipeline = crossrank.open_pipeline(folder, plain_folder, backend="fake")
    # A threshold that was passed over would give a language model what answers nothing.
    for ask in (pipeline.search, lambda query, **how: pipeline.context(query, 200, **how)):
        with pytest.raises(InputError, match="uncalibrated logits"):
            ask("what is the planet?", threshold=0.5)
    with pytest.raises(InputError, match="only retrieves"):
        replace(pipeline, stages=()).search("what is the planet?", threshold=0.5)
    scorer = pipeline.stages[0].scorer
    assert isinstance(scorer, crossrank.CrossEncoder)
    scorer._calibration = Platt(1.0, -100.0)
    empty = pipeline.context("what is the planet?", 200, threshold=0.5)
    assert (empty.text, empty.sources, empty.tokens) == ("", (), 0)
    assert empty.probability is not None
    assert empty.probability < 0.5
    assert "nothing reaches the threshold" in empty.note
    assert empty.notes == (empty.note,)
    answer = pipeline.search("what is the planet?", threshold=0.5)
    assert (answer.passages, len(answer.ranking)) == ((), 0)
    assert answer.notes == (empty.note,)
    assert len(empty.left_out) == 10
    # The best passage just reaches it: for a context as for a search.
    scorer._calibration = Platt(1.0, 0.0)
    best = pipeline.context("what is the planet?", 200, threshold=0.0).probability
    assert best is not None
    assert pipeline.context("what is the planet?", 200, threshold=best).sources
    assert pipeline.search("what is the planet?", threshold=best).passages
    assert not pipeline.context("what is the planet?", 200, threshold=best + 1e-6).sources
    scorer._calibration = Platt(1.0, 100.0)
    assert pipeline.context("what is the planet?", 200, threshold=0.5).sources
    assert isinstance(empty, Context)
    every = pipeline.search("what is the planet?", threshold=0.5)
    assert every.ranking.ids == pipeline.search("what is the planet?").ranking.ids
    assert every.notes == ()


def test_a_threshold_keeps_the_passages_that_are_probable(folder: Path, cross_encoder_folder: Path) -> None:
    pipeline = crossrank.open_pipeline(folder, cross_encoder_folder, backend="fake", mix=1.0)
    scorer = pipeline.stages[0].scorer
    assert isinstance(scorer, crossrank.CrossEncoder)
    whole = pipeline.search("what is the planet?", 4)
    # Half of them are over the middle of the second and the third.
    middle = float(whole.ranking.scores[1:3].mean())
    assert whole.ranking.scores[1] > whole.ranking.scores[2]
    scorer._calibration = Platt(1.0, -middle)
    left = pipeline.search("what is the planet?", 4, threshold=0.5)
    assert left.ranking.ids == whole.ranking.ids[:2]
    assert [passage.id for passage in left] == list(left.ranking.ids)
    assert left.thresholded == ("left out: 2 passages under the threshold of 0.5",)
    assert min(one for one in pipeline.relevance(left).probabilities if one is not None) >= 0.5


def test_a_threshold_that_time_left_unused_is_told(folder: Path, cross_encoder_folder: Path) -> None:
    # An answer is not empty because of its budget or because a stage failed; but nobody may think it was held.
    class Broken(crossrank.CrossEncoder):
        def scored(self, pairs, *, progress=None):
            raise crossrank.ScoreError("broken")

        scored_tokens = scored

    made = Broken(crossrank.load(cross_encoder_folder, backend="fake").checkpoint)
    made._calibration = Platt(1.0, 0.0)
    pipeline = crossrank.open_pipeline(folder, made, on_error="keep")
    answer = pipeline.search("what is the planet?", threshold=0.5)
    assert answer.failed
    assert answer.passages
    assert any("threshold was not used" in note for note in answer.notes)
    context = pipeline.context("what is the planet?", 200, threshold=0.5)
    assert context.sources
    assert "threshold was not used" in context.note
    assert context.note in context.notes


def test_the_models_own_threshold(folder: Path, cross_encoder_folder: Path) -> None:
    pipeline = crossrank.open_pipeline(folder, cross_encoder_folder, backend="fake")
    scorer = pipeline.stages[0].scorer
    assert isinstance(scorer, crossrank.CrossEncoder)
    assert scorer.threshold is None
    scorer._calibration = Platt(1.0, -100.0)
    with pytest.raises(InputError, match="no threshold of its own"):
        pipeline.context("what is the planet?", 200, threshold="model")
    scorer.checkpoint = replace(scorer.checkpoint, threshold=0.4)
    empty = pipeline.context("what is the planet?", 200, threshold="model")
    assert (empty.text, empty.sources) == ("", ())
    assert "under 0.4" in empty.note
    with pytest.raises(InputError, match='"model"'):
        pipeline.context("what is the planet?", 200, threshold="auto")  # type: ignore[arg-type]


def test_on_the_command_line(folder: Path, plain_folder: Path) -> None:
    asked = ["search", str(folder), "what is the planet?", "-m", str(plain_folder), "--backend", "fake"]
    run = CliRunner().invoke(root, [*asked, "--context", "60"])
    assert run.exit_code == 0, run.output
    assert run.stdout.startswith("[1] ")
    assert "tokens by the tokenizer of" in run.stderr
    assert "over the budget" in run.stderr
    own = CliRunner().invoke(root, [*asked, "--context", "60", "--threshold", "model"])
    assert (own.exit_code, own.stdout) == (1, "")
    assert "uncalibrated logits" in own.stderr
    told = json.loads(CliRunner().invoke(root, [*asked, "--context", "60", "--json"]).stdout)
    assert told["text"] + "\n" == run.stdout
    assert told["sources"][0]["place"]["line"] >= 1
    for more in (
        ["--context", "60", "--no-rerank"],
        ["--context", "60", "--explain"],
        ["--no-rerank", "--threshold", "0.5"],
        ["--context", "60", "--threshold", "high"],
    ):
        assert CliRunner().invoke(root, [*asked, *more]).exit_code == 2
