"""What all hosts' rerankers share: how many of a list come back, which, and how their scores are told. No host."""

from __future__ import annotations

import crossrank
from crossrank.integrations.lists import best

QUERY = "capital of France?"


def test_a_text_that_was_not_counted_whole_is_told_as_more_than_its_bound() -> None:
    # "19300 of 122880 tokens": the second number was how far the count went, and the text was longer.
    scorer = crossrank.load("fast", max_windows=1)
    (found,) = best(scorer, QUERY, ["bread " * 200_000], 1)
    (cut,) = scorer.scored([(QUERY, "bread " * 200_000)]).truncations
    assert not cut.exact
    assert found.notes == {"rerank_read": f"{cut.read} of more than {cut.tokens} tokens"}
