"""The page at `/` without a browser: its own example, with the model that ships."""

from __future__ import annotations

import re

import numpy as np
import pytest

import crossrank
from crossrank.server import page


@pytest.mark.parametrize("model", ["small", "fast", "tiny"])
def test_the_example_shows_what_reranking_is_for(model: str) -> None:
    # Its right answer stood third, under a text about leather.
    script = page.files()["/page/page.js"][0].decode()
    found = re.search(r'const EXAMPLE = \{\s+query: "([^"]+)",\s+candidates: `([^`]+)`', script)
    assert found is not None
    query, candidates = found[1], found[2].splitlines()
    right = next(place for place, text in enumerate(candidates) if text.startswith("Leonardo da Vinci painted"))
    embedder = crossrank.load_embedder()
    nearness = embedder.embed(candidates) @ embedder.embed([query])[0]
    scorer = crossrank.load(model)
    scores = scorer.score([(query, text) for text in candidates])
    assert right != 0
    assert int(np.argmax(nearness)) != right
    assert int(np.argmax(scores)) == right
    # No near thing that another instruction set could turn.
    second, first = np.sort(scorer.probability(scores))[-2:].astype(np.float64)
    assert np.log(first / (1 - first)) - np.log(second / (1 - second)) > 0.4
