"""Sentences: every character but white space once, in order, in linear time, in many scripts."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrank.sentences import LONGEST, spans

PIECES = st.lists(
    st.sampled_from([*"aB1.?! \n\t\"')(-*。”؟।", "\r\n", "\n\n", "Dr.", "U.S.", "e.g.", "1."]), max_size=60
)


def cut(text: str) -> list[str]:
    return [text[start:stop] for start, stop in spans(text)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" \n\t ", []),
        ("One", ["One"]),
        ("It rained. It stopped! Did it?", ["It rained.", "It stopped!", "Did it?"]),
        ("Dr. Ito met Mrs. Bell at 3.15. They left.", ["Dr. Ito met Mrs. Bell at 3.15.", "They left."]),
        ("The U.S. Army came. J. R. R. Tolkien wrote.", ["The U.S. Army came.", "J. R. R. Tolkien wrote."]),
        ("See Fig. 3 and No. 5. No. He left.", ["See Fig. 3 and No. 5.", "No.", "He left."]),
        ("It is cheap, e.g. Bread. Milk too.", ["It is cheap, e.g. Bread.", "Milk too."]),
        ('"Really?" she said. “Done.” Next.', ['"Really?" she said.', "“Done.”", "Next."]),
        ("Über ihn. élan vital. Ende.", ["Über ihn. élan vital.", "Ende."]),
        ("東京は首都です。雨でした。", ["東京は首都です。", "雨でした。"]),
        ("यह वाक्य है। दूसरा वाक्य।", ["यह वाक्य है।", "दूसरा वाक्य।"]),
        ("هل هذا سؤال؟ نعم هذا.", ["هل هذا سؤال؟", "نعم هذا."]),
        ("Это первое. Это второе.", ["Это первое.", "Это второе."]),
        ("A line\nthat is wrapped. Next.", ["A line\nthat is wrapped.", "Next."]),
        ("A heading\n\nA paragraph\n- a point\n2. another", ["A heading", "A paragraph", "- a point", "2. another"]),
        ("1. Unpack it. 2. Plug it in.", ["1. Unpack it.", "2. Plug it in."]),
        ("2015 2016 2017 2018 2019 were good. It ended.", ["2015 2016 2017 2018 2019 were good.", "It ended."]),
        ("The first ends.\n\nand the second goes on.", ["The first ends.", "and the second goes on."]),
        ("So do I. Then it ends.", ["So do I.", "Then it ends."]),
        ("We chose plan B. 3 days later it failed.", ["We chose plan B.", "3 days later it failed."]),
    ],
)
def test_sentences_of_many_kinds(text: str, sentences: list[str]) -> None:
    assert cut(text) == sentences


@given(st.one_of(PIECES.map("".join), st.text(max_size=200)))
def test_every_character_lies_in_one_sentence(text: str) -> None:
    found = spans(text)
    assert "".join("".join(text[a:b].split()) for a, b in found) == "".join(text.split())
    assert all(a < b for a, b in found)
    assert all(before[1] <= after[0] for before, after in pairwise(found))
    assert all(text[a:b] == text[a:b].strip() for a, b in found)


@pytest.mark.parametrize("text", ["word " * 1000, "a line of a table\n" * 300, "x" * 3500])
def test_a_sentence_without_an_end_is_cut_at_lines_or_spaces(text: str) -> None:
    found = cut(text)
    assert len(found) > 1
    assert max(map(len, found)) <= LONGEST
    wholes = set(text.split())
    assert all(set(piece.split()) <= wholes for piece in found) or " " not in text
    # As few pieces as whole lines and words allow, not one for each line.
    assert all(len(before) + len(after) > LONGEST for before, after in pairwise(found))


@pytest.mark.parametrize("unit", [".", "\n", " ", ". ", "1. ", '."', "\n ", "a.", "。", "Dr. ", "'" * 50, "- "])
def test_time_is_linear(unit: str) -> None:
    began = time.process_time()
    spans(unit * (200_000 // len(unit)))
    assert time.process_time() - began < 3.0
