"""Judgments of files, folders and programs: JSONL or CSV rows, triples, click-like positives, BEIR folders."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from crossrank.errors import ReadError
from crossrank.evaluation import read_set
from crossrank.evaluation.beir import objects
from crossrank.evaluation.files import LINE_BYTES, lines
from crossrank.evaluation.trec import HIGHEST_GRADE
from crossrank.index import tsv
from crossrank.training.judgments import Judged, Judgments, Scale

# Names of columns, in any case. Of several that a row holds, the first counts; but a `text` before all other documents.
QUERY = ("query", "question", "anchor", "sentence1")
DOCUMENT = ("document", "passage", "text", "doc", "answer", "sentence2")
LABEL = ("label", "labels", "relevance", "rel", "grade", "rating", "relevant", "is_relevant")
SURELY = ("label", "relevance", "grade")
SCORE = ("score", "scores", "teacher_score", "teacher_scores", "relevance_score")
POSITIVE = ("positive", "positives", "pos")
NEGATIVE = ("negative", "negatives", "neg", "negs", "hard_negative", "hard_negatives")
POSITIVE_SCORES, NEGATIVE_SCORES = ("pos_scores", "positive_scores"), ("neg_scores", "negative_scores")
HEADINGS = "query and document, with label (or score, or neither for clicks); or query, positive and negative"
# What rows may hold besides, and what says nothing about relevance. A table written with its index has a column without
# a name.
BESIDES = (
    *("title", "by", "url", "", "unnamed: 0", "id", "_id", "query_id", "query-id", "qid", "question_id", "document_id"),
    *("doc_id", "docid", "passage_id", "pid", "corpus_id", "corpus-id"),
)
_READ = frozenset((*QUERY, *DOCUMENT, *LABEL, *SCORE, *POSITIVE, *NEGATIVE, *POSITIVE_SCORES, *NEGATIVE_SCORES))

_TRUTHS = {"true": 1, "false": 0}

_Row = tuple[str, Mapping[str, Any]]


def read(path: str | Path, *, split: str = "train", clicks: bool = False) -> Judgments:
    """Read judgments.

    Args:
        path: a .jsonl, .ndjson, .csv or .tsv file (also .gz), or a folder in BEIR layout.
        split: the judgments of a BEIR folder, `qrels/SPLIT.tsv`.
        clicks: labelled rows are click-like: those above 0 are relevant, others are left out as unknown.

    Rows hold `query`, `document` and `label` (whole grades; 0 and below is not relevant; where labels from 0 to 1 have
    fractions, a document is relevant from 0.5 on), or `score` (a teacher's number; so are other labels with fractions),
    or neither (clicks: every row is relevant). Of a row with `document` and `text`, as `crossrank search --json` writes
    them, the text counts. Triples hold `query`, `positive` and `negative`, each one text
    or, in JSONL, a list, with `pos_scores` and `neg_scores` where a teacher gave them. Case and white space of the
    names do not count, and common other names are read, too. A BEIR folder whose judgments are all above 0 is read as
    clicks, because such folders leave out what is not relevant.

    Raises:
        ReadError: the file is missing, damaged, a row is none of these, or rows differ in which they are.
    """
    path = Path(path)
    if path.is_dir():
        return _clicked(_of_beir(path, split), clicks)
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind in ("jsonl", "ndjson"):
        found = _made(path, list(_jsonl(path)), clicks)
    elif kind in ("csv", "tsv"):
        found = _made(path, list(_csv(path)), clicks)
    else:
        raise ReadError(f"{path}: judgments are read from .jsonl, .csv or .tsv files or a BEIR folder, not .{kind}")
    return _clicked(found, clicks)


def rows(
    given: Iterable[Mapping[str, Any] | Sequence[Any]], *, source: str = "rows", clicks: bool = False
) -> Judgments:
    """Judgments that a program holds.

    Args:
        given: (query, document, label), or (query, document) where every row is relevant; or mappings with the names of
            a file's rows, see `read`, such as those of a data set of sentence-transformers. All of one kind.
        source: what messages and the model's card call them.
        clicks: as in `read`.

    Raises:
        ReadError: there are none, a row is none of these, or rows differ in which they are.

    >>> rows([("tea?", "Tea is hot.", 1), ("tea?", "Bread needs yeast.", 0)]).scale
    'labels'
    >>> rows([{"anchor": "tea?", "positive": "Tea is hot.", "negative": "Bread needs yeast."}]).rows[1].label
    0.0
    """
    places = ((f"{source}, row {number}", row) for number, row in enumerate(given, start=1))
    named = [(where, _of_program(where, row)) for where, row in places]
    return _clicked(_made(Path(source), named, clicks), clicks)


def _of_program(where: str, row: Any) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return _folded(where, row.items())
    if isinstance(row, (str, bytes)) or not isinstance(row, Sequence) or len(row) not in (2, 3):
        raise ReadError(f"{where}: a row is (query, document, label), or a mapping with {HEADINGS}, not {row!r:.80}")
    return dict(zip(("query", "document", "label"), row, strict=False))


def _of_beir(folder: Path, split: str) -> Judgments:
    judged = read_set(folder, split)
    texts = {document: passage.scored_text for document, passage in judged.corpus.items()}
    missing: dict[str, None] = {}
    rows = []
    for query, text in judged.queries.items():
        for document, grade in judged.qrels[query].items():
            if document in texts:
                rows.append(Judged(text, texts[document], float(grade)))
            else:
                missing[document] = None
    if not rows:
        raise ReadError(f"{folder}: none of the judged documents of qrels/{split} is in corpus.jsonl")
    scale: Scale = "clicks" if all(row.label > 0 for row in rows) else "labels"
    return Judgments(tuple(rows), scale, tuple(texts.values()), str(folder.name), missing=tuple(missing))


def _clicked(found: Judgments, clicks: bool) -> Judgments:
    if not clicks:
        return found
    rows = tuple(Judged(row.query, row.document, 1.0) for row in found.rows if row.label > 0)
    # What was shown and not clicked is unknown, and as good a place to look for negatives as any.
    pool = dict.fromkeys((*found.pool, *(row.document for row in found.rows)))
    return Judgments(rows, "clicks", tuple(pool), found.source, missing=found.missing)


def _jsonl(path: Path) -> Iterator[_Row]:
    for number, row in objects(path):
        where = f"{path}, line {number}"
        yield where, _folded(where, row.items())


def _csv(path: Path) -> Iterator[_Row]:
    """Rows of a table, after one with the names of its columns; what separates them is told as an index tells it."""
    held: list[str] = []
    for number, line in lines(path):
        # `lines` leaves out blank ones, which are text between quotes.
        held += [""] * (number - len(held) - 1)
        held.append(line)
    first = next(filter(None, held), "")
    header: list[str] = []
    for number, row in _cells(path, held, tsv.separator(path, first)):
        where = f"{path}, line {number}"
        if not header:
            header = row
        elif len(row) > len(header):
            raise ReadError(f"{where}: more fields than the heading has; put texts with commas between quotes")
        elif row:
            # What a short row lacks is there and empty: where all lack their labels, they are no clicks.
            yield where, _folded(where, zip_longest(header, row))


def _cells(path: Path, held: Sequence[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table, each with the number of its first line."""
    if tsv.is_tsv(path):
        yield from tsv.records((line + "\n" for line in held), LINE_BYTES)
        return
    csv.field_size_limit(max(csv.field_size_limit(), LINE_BYTES))  # the module's own limit is 128 KiB
    cells = csv.reader(io.StringIO("\n".join(held), newline=""), delimiter=separator, strict=True)
    end = 0
    try:
        for row in cells:
            begin, end = end + 1, cells.line_num
            yield begin, row
    except csv.Error as error:
        raise ReadError(
            f"{path}, line {end + 1}: not CSV ({error}). Put texts that hold commas or line ends between quotes"
        ) from None


def _folded(where: str, row: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A row by names in lower case without white space around them."""
    folded: dict[str, Any] = {}
    for given, value in row:
        name = str(given).strip().lower()
        if name in folded and name in _READ:
            raise ReadError(f"{where}: two columns are called {name!r}; rename one")
        folded[name] = value
    return folded


def _made(path: Path, rows: Sequence[_Row], clicks: bool) -> Judgments:
    if not rows:
        raise ReadError(f"{path} holds no rows; each needs {HEADINGS}")
    triples = _all_have(rows, POSITIVE)
    _check_one_meaning(rows, (POSITIVE, NEGATIVE) if triples else (LABEL, (*LABEL, *SCORE)))
    if triples:
        found = _triples(path, rows)
        if found.scale != "clicks":  # of which every unread column is told
            _check_scores_of_triples(rows)
        return found
    label = _all_have(rows, LABEL)
    score = not label and _all_have(rows, SCORE)
    judged = []
    for where, row in rows:
        document = _text(where, row, DOCUMENT)
        value = _number(where, row, _name(row, LABEL if label else SCORE)) if label or score else 1.0
        judged.append(Judged(_text(where, row, QUERY), document, value, _by(row)))
    fractions = sum(row.label != int(row.label) for row in judged)
    # Labels from 0 to 1 say how sure somebody is; others with a fraction are no grades, but their order counts.
    sure = bool(label and fractions) and all(0 <= row.label <= 1 for row in judged)
    if sure:
        judged = [replace(row, label=float(row.label >= 0.5)) for row in judged]
    scale: Scale = "scores" if score or (fractions and not sure) else "labels" if label else "clicks"
    if scale == "labels":
        for (where, _), one in zip(rows, judged, strict=True):
            _check_grade(where, one, clicks)
    unread = _unread(rows, (*QUERY, *DOCUMENT)) if scale == "clicks" else ()
    return Judgments(tuple(judged), scale, (), path.name, fractions if label else 0, unread)


def _check_one_meaning(rows: Sequence[_Row], groups: Sequence[Sequence[str]]) -> None:
    """Refuse rows that hold two columns of one group, such as a rating and a score: nobody knows which is meant."""
    for names in groups:
        for where, row in rows:
            held = [name for name in names if row.get(name) is not None]
            # A label beside a score is a person's beside a teacher's, and counts; a rating may be anything.
            if len(held) > 1 and not (held[0] in SURELY and held[1] in SCORE):
                said = ", ".join(map(repr, held))
                raise ReadError(f"{where}: which of {said} counts? Leave the others out, or rename them")


def _check_scores_of_triples(rows: Sequence[_Row]) -> None:
    """Refuse a label or score of a whole triple: nobody knows which of its documents is meant, or both."""
    for where, row in rows:
        if held := next((name for name in (*LABEL, *SCORE) if row.get(name) is not None), None):
            raise ReadError(
                f"{where}: which document of the triple has this {held!r}? A teacher's scores of its documents are "
                "pos_scores and neg_scores; leave anything else out"
            )


def _check_grade(where: str, row: Judged, clicks: bool) -> None:
    if row.label > HIGHEST_GRADE and not clicks:
        raise ReadError(
            f"{where}: the label {row.label:g} is no grade, as counts and times are none: grades are whole, up to "
            f"{HIGHEST_GRADE:,}. If it counts clicks, say --clicks; if it is a teacher's score, call the column score"
        )


def _by(row: Mapping[str, Any]) -> str:
    by = row.get("by")
    return by if isinstance(by, str) else ""


def _unread(rows: Sequence[_Row], read: Sequence[str]) -> tuple[str, ...]:
    """Columns that nobody reads and that may say what is relevant."""
    return tuple(dict.fromkeys(name for _, row in rows for name in row if name not in BESIDES and name not in read))


def _all_have(rows: Sequence[_Row], names: Sequence[str]) -> bool:
    """Whether rows hold one of these names. Some that do and some that do not would be read as something else."""
    first = _name(rows[0][1], names)
    for where, row in rows:
        name = _name(row, names)
        if (name is None) != (first is None):
            said = f"{name!r} is here and not" if name else f"{first!r} is missing here and is"
            raise ReadError(f"{where}: {said} in the rows before. Give it in every row or in none, or make two files")
    return first is not None


def _triples(path: Path, rows: Sequence[_Row]) -> Judgments:
    judged: dict[Judged, None] = {}
    scored = _all_have(rows, (*POSITIVE_SCORES, *NEGATIVE_SCORES))
    without = True
    for where, row in rows:
        query = _text(where, row, QUERY)
        for names, label, scores in ((POSITIVE, 1.0, POSITIVE_SCORES), (NEGATIVE, 0.0, NEGATIVE_SCORES)):
            name = _name(row, names)
            if name is None or row[name] is None:
                if names is POSITIVE:
                    raise ReadError(f"{where}: a triple needs its positive")
                continue
            texts = row[name] if isinstance(row[name], list) else [row[name]]
            if not all(isinstance(text, str) for text in texts):
                raise ReadError(f"{where}: {name} must be a text or a list of texts")
            values = _scores(where, row, scores, len(texts)) if scored else [label] * len(texts)
            without &= names is POSITIVE or not texts
            # A row that comes again in another triple is no duplicate by mistake: one positive has many negatives.
            judged.update(
                {Judged(query, text, value, _by(row)): None for text, value in zip(texts, values, strict=True)}
            )
    scale: Scale = "scores" if scored else "clicks" if without else "labels"
    unread = _unread(rows, (*QUERY, *POSITIVE, *NEGATIVE)) if scale == "clicks" else ()
    return Judgments(tuple(judged), scale, (), path.name, unread=unread)


def _scores(where: str, row: Mapping[str, Any], names: Sequence[str], count: int) -> list[float]:
    name = _name(row, names) or names[0]
    given = row.get(name)
    given = given if isinstance(given, list) else [given]
    try:
        values = [float(value) for value in given if isinstance(value, int | float)]
    except OverflowError:  # a whole number of hundreds of digits
        values = []
    if len(given) != count or len(values) != count or not all(map(math.isfinite, values)):
        raise ReadError(f"{where}: {name} must hold {count} numbers, one for each text")
    return values


def _name(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in row), None)


def _text(where: str, row: Mapping[str, Any], names: Sequence[str]) -> str:
    name = _name(row, names)
    # `crossrank search --json` calls the file of a passage `document`.
    if names is DOCUMENT and isinstance(row.get("text"), str) and row["text"].strip():
        name = "text"
    if name is None or not isinstance(row[name], str):
        held = ", ".join(map(str, list(row)[:8])) or "nothing"
        raise ReadError(f"{where}: a row needs {names[0]!r}, a text; this one holds {held}. Rows have {HEADINGS}")
    value = str(row[name])
    title = row.get("title")
    # As an index and BEIR read a document: the title before the text.
    return f"{title}. {value}" if names is DOCUMENT and isinstance(title, str) and title else value


def _number(where: str, row: Mapping[str, Any], name: str | None) -> float:
    given: Any = row[name] if name else None
    if isinstance(given, str):
        # As pandas writes in a table what JSON holds as true and false.
        given = _TRUTHS.get(given.strip().lower(), given)
    try:
        # Python reads 1_0 as 10.
        value = float(given.replace("_", "none") if isinstance(given, str) else given)
    except (TypeError, ValueError, OverflowError):
        raise ReadError(f"{where}: {name} must be a number, not {given!r:.60}") from None
    if not math.isfinite(value):
        raise ReadError(f"{where}: {name} must be a finite number, not {given!r:.60}")
    return value
