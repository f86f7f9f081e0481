"""The examples of docs/bulk.md run and give what they say."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bulk.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="docs/ is not in this distribution")
def test_the_examples_run():
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted >= 8
    assert found.failed == 0
