"""Every string becomes one that UTF-8 can hold, and stays as it is where it is one already."""

from __future__ import annotations

import pytest

from crossrank.unicode import valid_text


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("plain", "plain"),
        ("\ufeffcaf\xe9 \U0001f600", "\ufeffcaf\xe9 \U0001f600"),
        ("par\ud800is", "par\ufffdis"),
        ("\udfff", "\ufffd"),
        ("caf\xe9 \ud800\ud800", "caf\xe9 \ufffd\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
    ],
)
def test_halves_of_a_pair_are_replaced_or_joined(given: str, read: str) -> None:
    assert valid_text(given) == read
    assert valid_text(read) == read
    valid_text(given).encode("utf-8")
