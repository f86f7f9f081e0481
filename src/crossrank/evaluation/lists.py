"""Queries that bring their own judged documents, as rows of query, document and label do: no collection is searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

from crossrank.errors import InputError
from crossrank.evaluation.beir import JudgedSet
from crossrank.evaluation.words import Words
from crossrank.types import Passage, Ranking, Run


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
    words = Words([passage.text for passage in corpus.values()])
    row = {id_: place for place, id_ in enumerate(corpus)}
    digest = {id_: blake2b(passage.text.encode("utf-8", "surrogatepass")).digest() for id_, passage in corpus.items()}
    run = {}
    for query, text in queries.items():
        mine = sorted(qrels[query], key=digest.__getitem__)
        run[query] = Ranking.sorted(mine, words.scores(text, [row[id_] for id_ in mine]))
    return run
