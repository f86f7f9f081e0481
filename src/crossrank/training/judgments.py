"""What people said about queries and documents: rows as they come, and groups of one query as training needs them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# labels: whole grades, 0 and below not relevant. clicks: every row is relevant and the rest is unknown. scores: a
# teacher's numbers, of which only the order and the distances mean something.
Scale = Literal["labels", "clicks", "scores"]

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Judged:
    """One row: a query, a document, what was said about the two, and which model said it, if the row says so."""

    query: str
    document: str
    label: float
    by: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Judgments:
    """All rows of a file or folder.

    Attributes:
        rows: in the order of the file.
        scale: what the labels are.
        pool: texts of other documents, in which negatives can be looked for.
        source: the file's or folder's name, for messages and the card.
        fractions: labels with a fraction that were in the file, see `reading.read`.
        unread: columns that clicks hold besides; one of them may be a label by another name.
        missing: judged documents of a BEIR folder that its corpus does not hold.
    """

    rows: tuple[Judged, ...]
    scale: Scale
    pool: tuple[str, ...] = ()
    source: str = ""
    fractions: int = 0
    unread: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """One query with its judged documents, each once.

    Attributes:
        query: as written the first time.
        documents: distinct texts.
        labels: one for each document, in their order.
    """

    query: str
    documents: tuple[str, ...]
    labels: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.documents)


def query_key(query: str) -> str:
    """Equal for queries that differ in case, white space, width or final punctuation only.

    >>> query_key("  What is  BM25? ") == query_key("what is bm25")
    True
    """
    return document_key(query).casefold().rstrip(" ?.!")


def document_key(document: str) -> str:
    """Equal for documents that differ in white space or character width only.

    >>> document_key("a\\n b ")
    'a b'
    """
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", document)).strip()


def threshold(groups: Sequence[Group], scale: Scale) -> float:
    """The label above which a document counts as relevant: 0, or the middle of a teacher's scores.

    >>> threshold([Group("q", ("a", "b"), (2.0, 6.0))], "scores")
    4.0
    """
    if scale != "scores":
        return 0.0
    labels = [label for group in groups for label in group.labels]
    return (min(labels) + max(labels)) / 2 if labels else 0.0


def grades(labels: NDArray[np.float64], scale: Scale, low: float, high: float) -> NDArray[np.int64]:
    """Labels as the whole grades that nDCG needs: themselves, or 0 to 10 between `low` and `high` for scores.

    >>> grades(np.array([-1.0, 0.5, 1.0]), "scores", -1.0, 1.0).tolist()
    [0, 8, 10]
    """
    if scale != "scores":
        return np.maximum(labels, 0).astype(np.int64)
    span = high - low
    return np.zeros(len(labels), np.int64) if span <= 0 else np.rint(10 * (labels - low) / span).astype(np.int64)
