"""Queries that bring their own judged documents, as rows of query, document and label do: no collection is searched."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.evaluation.beir import JudgedSet
from crossrank.types import Passage, Ranking, Run

# Anserini's defaults, which suit passages better than Lucene's (Yang et al. 2017).
K1, B = 0.9, 0.4
_WORD = re.compile(r"\w+")


def judged_lists(name: str, lists: Sequence[tuple[str, Mapping[str, float]]]) -> tuple[JudgedSet, Run, list[str]]:
    """A set of judged queries, each with its own documents, which BM25 orders.

    The order in which documents were given is not looked at, because files mostly have the relevant ones first: equal
    scores stand by a digest of the texts.

    Args:
        name: what the set is called.
        lists: a query's text, and its documents' labels by text; a label of 0 and below is not relevant.

    Returns:
        The set, whose ids count queries and documents from 1 in the order given; BM25's run; and what was left out.

    Raises:
        InputError: no query has documents of different grades.

    >>> judged, run, notes = judged_lists("faq", [("hot tea?", {"Bread.": 0, "Tea.": 1}), ("bread?", {"Tea.": 0})])
    >>> judged.qrels, run["1"].ids
    ({'1': {'1': 0, '2': 1}}, ('2', '1'))
    >>> notes
    ['1 of 2 queries has documents of one grade alone, which any order serves as well; left out.']
    """
    ids: dict[str, str] = {}
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for number, (query, labels) in enumerate(lists, start=1):
        grades = {ids.setdefault(text, str(len(ids) + 1)): max(0, int(label)) for text, label in labels.items()}
        if len(set(grades.values())) > 1:
            queries[str(number)], qrels[str(number)] = query, grades
    if not queries:
        raise InputError(
            f"no query of {name} has documents of different grades, so every order of them is as good: give each query "
            "documents that are relevant and others that are not (label 0), such as a search finds"
        )
    corpus = {id_: Passage(id_, text, document=id_) for text, id_ in ids.items()}
    notes = []
    if alone := len(lists) - len(queries):
        notes.append(
            f"{alone:,} of {len(lists):,} queries {'has' if alone == 1 else 'have'} documents of one grade alone, "
            "which any order serves as well; left out."
        )
    return JudgedSet(name, name, corpus, queries, qrels), _by_words(queries, qrels, corpus), notes


def _by_words(queries: Mapping[str, str], qrels: Mapping[str, Mapping[str, int]], corpus: Mapping[str, Passage]) -> Run:
    counted = BM25([passage.text for passage in corpus.values()])
    row = {id_: place for place, id_ in enumerate(corpus)}
    digest = {id_: blake2b(passage.text.encode("utf-8", "surrogatepass")).digest() for id_, passage in corpus.items()}
    run = {}
    for query, text in queries.items():
        mine = sorted(qrels[query], key=digest.__getitem__)
        run[query] = Ranking.sorted(mine, counted.scores(text, [row[id_] for id_ in mine]))
    return run


class BM25:
    """BM25 of few texts in memory: words as they are written but for case, no stemming, no stop words.

    >>> BM25(["red apples", "green pears", "pears"]).scores("are PEARS green?", [0, 1, 2]).round(2).tolist()
    [0.0, 1.4, 0.51]
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._counts = [Counter(_words(text)) for text in texts]
        self._lengths = [counts.total() for counts in self._counts]
        self._mean = sum(self._lengths) / max(1, len(texts)) or 1.0
        # In how many texts each word is.
        self._spread = Counter(word for counts in self._counts for word in counts)

    def scores(self, query: str, rows: Sequence[int]) -> NDArray[np.float64]:
        """Of the texts in these rows, shape (n,); 0 without a word of the query."""
        words = list(_words(query))
        return np.array([sum(self._score(word, row) for word in words) for row in rows], dtype=np.float64)

    def _score(self, word: str, row: int) -> float:
        times = self._counts[row][word]
        if not times:
            return 0.0
        rare = math.log(1 + (len(self._counts) - self._spread[word] + 0.5) / (self._spread[word] + 0.5))
        return rare * times * (K1 + 1) / (times + K1 * (1 - B + B * self._lengths[row] / self._mean))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
