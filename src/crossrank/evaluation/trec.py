"""Judgments and runs in the files that TREC and BEIR made common.

qrels, TREC   query iteration document grade      four columns, any white space, or tabs around ids with spaces
qrels, BEIR   query-id<TAB>corpus-id<TAB>score    three columns, with or without this heading or another
run, TREC     query Q0 document rank score tag    six columns, any white space
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from crossrank.errors import InputError, ReadError
from crossrank.evaluation.files import lines
from crossrank.types import Ranking
from crossrank.unicode import valid_text
from crossrank.writing import whole

# What pytrec_eval and ranx call a run: scores by document, by query.
Scored = Mapping[str, float]
AnyRun = Mapping[str, Ranking | Scored]
Ties = Literal["rank", "trec_eval"]
# trec_eval takes memory by the highest grade: a timestamp in the wrong column would end the process.
HIGHEST_GRADE = 1_000
# What a column of query ids is called in the first line of a file that names its columns.
QUERY_IDS = ("_id", "id", "qid", "query_id", "query-id", "query")


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Grades by query and document, queries in the order of the file. 0 and below means judged and not relevant.

    The two formats are told apart by their number of columns. Between tabs, ids may have spaces in them. A first line
    that names its columns, such as `qid` and `rel`, is no judgment.

    Raises:
        ReadError: a line has another number of columns, an id is empty, a grade is not a whole number or beyond
            `HIGHEST_GRADE`, or one document has two different grades for one query.
    """
    qrels: dict[str, dict[str, int]] = {}
    for row, (number, line) in enumerate(lines(path)):
        query, document, text = _judgment(path, number, line)
        if (query, document) == ("query-id", "corpus-id") or (not row and _is_heading(query, text)):
            continue
        grade = _grade(path, number, text)
        grades = qrels.setdefault(query, {})
        if grades.setdefault(document, grade) != grade:
            raise ReadError(f"{path}, line {number}: document {document} of query {query} has two different grades")
    return qrels


def _is_heading(query: str, grade: str) -> bool:
    try:
        _number(grade)
    except ValueError:
        return query.lower() in QUERY_IDS
    return False


def _number(text: str) -> float:
    if "_" in text:  # Python reads 1_0 as 10.
        raise ValueError(text)
    return float(text)


def _grade(path: str | Path, number: int, text: str) -> int:
    try:
        grade = _number(text)
    except ValueError:
        grade = math.nan
    # Some tools write whole numbers as 3.0.
    if not (math.isinf(grade) or grade.is_integer()):
        raise ReadError(f"{path}, line {number}: the grade {text!r} is not a whole number")
    if abs(grade) > HIGHEST_GRADE:
        raise ReadError(
            f"{path}, line {number}: the grade {text:.40} is over {HIGHEST_GRADE:,}; timestamps or counts are no "
            "grades: write 1 where it only says that something is relevant"
        )
    return int(grade)


def _judgment(path: str | Path, number: int, line: str) -> tuple[str, str, str]:
    # As four columns and queries are read: an id with a space behind it is in no run.
    columns = [column.strip() for column in line.split("\t")]
    if len(columns) == 3:
        if not all(columns[:2]):
            raise ReadError(f"{path}, line {number}: the id of a query or document is empty in {line[:80]!r}")
        return columns[0], columns[1], columns[2]
    if len(columns) != 4 or not all(columns):
        columns = line.split()
    if len(columns) == 4:
        return columns[0], columns[2], columns[3]
    raise ReadError(
        f"{path}, line {number}: expected 'query iteration document grade' (TREC) or three columns between tabs "
        f"(BEIR), found {line[:80]!r}"
    )


def read_run(path: str | Path, ties: Ties = "rank") -> dict[str, Ranking]:
    """Rankings by query, queries in the order of the file.

    The order is by score, descending, as the format's evaluators define it. Scores are kept as float32, as trec_eval
    keeps them.

    Args:
        path: the run.
        ties: how equal scores are ordered: by their "rank" column, where scores that differ only beyond float32 keep
            their places, too; or as "trec_eval" does, by document id, descending, whatever the rank column says. On a
            run of half-precision scores the choice moved nDCG@10 of a query by up to 0.07.

    Raises:
        ReadError: a line has not six columns, a score is not a number, a rank is not a whole number, or a document
            comes twice for one query.
    """
    rows: dict[str, list[tuple[float, int, str]]] = {}
    for query, document, rank, score in run_rows(path):
        rows.setdefault(query, []).append((-score, rank, document))
    return {query: _ranking(path, query, found, ties) for query, found in rows.items()}


def run_rows(path: str | Path) -> Iterator[tuple[str, str, int, float]]:
    """(query, document, rank, score) of each line of a run, in the order of the file; nothing is held.

    Raises:
        ReadError: a line has not six columns, a score is not a number, or a rank is not a whole number.
    """
    for number, line in lines(path):
        columns = line.split()
        if len(columns) != 6:
            raise ReadError(f"{path}, line {number}: expected 'query Q0 document rank score tag', found {line[:80]!r}")
        query, _, document, rank, score, _ = columns
        try:
            # Tables of floating-point numbers write ranks as 3.0.
            place, value = _number(rank), _number(score)
            if not place.is_integer():
                raise ValueError(rank)
        except ValueError:
            raise ReadError(
                f"{path}, line {number}: rank {rank!r} is no whole number, or score {score!r} is no number"
            ) from None
        if math.isnan(value):
            raise ReadError(f"{path}, line {number}: the score is NaN, which has no place in an order")
        yield query, document, int(place), value


# What is too large for float32 becomes infinite, as in trec_eval.
@np.errstate(over="ignore")
def _ranking(path: str | Path, query: str, rows: list[tuple[float, int, str]], ties: Ties) -> Ranking:
    if ties == "trec_eval":
        rows.sort(key=lambda row: row[2].encode(), reverse=True)
        rows.sort(key=lambda row: float(np.float32(row[0])))
    else:
        rows.sort(key=lambda row: row[:2])
    ids = tuple(document for _, _, document in rows)
    if len(set(ids)) != len(ids):
        raise ReadError(f"{path}: a document comes twice in the ranking of query {query}")
    return Ranking(ids, np.array([-minus for minus, _, _ in rows], dtype=np.float32), len(ids))


def ranking_of(query: str, given: Ranking | Scored) -> Ranking:
    """A ranking as it is, and scores by document as `Ranking.sorted` orders them: equal ones as they come.

    Raises:
        InputError: neither, a score that is no number, or a ranking that holds a document twice.

    >>> ranking_of("q", {"a": 1.0, "b": 2.0}).ids
    ('b', 'a')
    """
    if isinstance(given, Ranking):
        # Only `Ranking.sorted` looks. Measures would count the lower place, and a file would not be read again.
        if len(set(given.ids)) != len(given.ids):
            twice = next(id_ for id_ in given.ids if given.ids.count(id_) > 1)
            raise InputError(f"query {query!r} ranks document {twice!r} twice: leave it out where it stands lower")
        return given
    if not isinstance(given, Mapping):
        raise InputError(
            f"query {query!r} has a {type(given).__name__}, and a run has a Ranking of each query: "
            "Ranking.sorted(ids, scores); or a mapping of scores by document"
        )
    try:
        scores = np.array([float(score) for score in given.values()])
    except (TypeError, ValueError, OverflowError):
        scores = np.array([math.nan])
    if np.isnan(scores).any():
        raise InputError(f"query {query!r} has a score that is no number: leave out documents without one")
    return Ranking.sorted(list(given), scores)


def write_run(path: str | Path, run: AnyRun, tag: str = "crossrank") -> None:
    """Write a TREC run file, whole or not at all.

    Every TREC tool sorts by the score column, and a `Ranking` joins scores of different stages that do not compare. So
    the column holds numbers made for it that give exactly the ranking's order, without ties: a ranking of n documents
    has n, n - 1, ..., 1. The scores of the stages are not in the file.

    Args:
        path: the file; one that is there is replaced.
        run: by query, rankings, or scores by document as `ranking_of` orders them.
        tag: names the system.

    Raises:
        InputError: an id or the tag is empty or has white space in it, which the format cannot hold; or as of
            `ranking_of`.
    """
    write_rankings(path, run.items(), tag)


def write_rankings(path: str | Path, rankings: Iterable[tuple[str, Ranking | Scored]], tag: str = "crossrank") -> None:
    """As `write_run`, one ranking at a time: the file is opened before the first, so that none is made for nothing.

    Raises:
        InputError: as `write_run`.
    """
    with whole(Path(path)) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(run_lines(rankings, tag))


def run_lines(rankings: Iterable[tuple[str, Ranking | Scored]], tag: str = "crossrank") -> Iterator[str]:
    """The lines that `write_run` writes, one ranking at a time.

    Raises:
        InputError: as `write_run`.
    """
    check_name(tag)
    for query, given in rankings:
        check_name(query)
        ranking = ranking_of(query, given)
        for position, document in enumerate(ranking.ids):
            check_name(document)
            yield f"{query} Q0 {document} {position + 1} {len(ranking) - position} {tag}\n"


def check_name(name: str) -> None:
    """Refuse an id or tag that a TREC file cannot hold.

    Raises:
        InputError: it is empty, has white space in it, or is no text.
    """
    if not name or any(character.isspace() for character in name):
        raise InputError(f"{name!r} cannot stand in a TREC file: ids and tags must be non-empty, without white space")
    if valid_text(name) != name:
        raise InputError(f"{name!r} cannot stand in a TREC file: it holds half of a surrogate pair, so it is no text")
