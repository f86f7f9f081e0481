"""What a store of passages that others run answers, and how its rows become passages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.index.documents import plain_metadata
from crossrank.types import Passage, check_k
from crossrank.unicode import valid_text

Found = Sequence[tuple[str, float]]
"""Ids and scores, best first; larger scores are better."""
DEEPEST = 10_000
"""Passages that one question to a store may ask for: what OpenSearch and Elasticsearch allow, too."""
TIMEOUT = 10.0
"""Seconds in which a store must answer, unless the caller says otherwise."""
GRACE = 2.0
"""Seconds beyond the server's own limit after which nobody waits for it any longer."""
_NOTHING = object()


class Store(Protocol):
    """Passages behind an address. Everything can be called from many threads."""

    def words(self, query: str, depth: int) -> Found:
        """At most `depth` passages by their words, best first; each id once."""
        ...

    def nearest(self, vector: NDArray[np.float32], depth: int) -> Found:
        """At most `depth` passages by their vectors, best first; each id once."""
        ...

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        """Passages by id, in the order of the ids."""
        ...


@dataclass(frozen=True, slots=True)
class Fields:
    """Where in a row of the store its texts are: names of columns, payload keys or fields.

    `meta.title` is the field of that name, or where a row has none, `title` in its object `meta`.

    Attributes:
        text: what is read.
        title: read before the text; "" where there is none.
        document: id of the document that holds the passage; "" where a row is a document.
        metadata: fields of the row that a passage carries along.

    >>> Fields("body", title="head", metadata=["year"]).passage("7", {"body": "Cats purr.", "head": None, "year": 2019})
    Passage(id='7', text='Cats purr.', title='', document='', metadata={'year': 2019}, place=None)
    """

    text: str = "text"
    title: str = ""
    document: str = ""
    metadata: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.text:
            raise InputError("Fields needs the name of the field that holds the text")
        if isinstance(self.metadata, str) or not isinstance(self.metadata, Iterable):
            raise InputError(f"Fields.metadata is a list of names, not one {type(self.metadata).__name__}")
        # They are gone through for each row, and a generator only once.
        object.__setattr__(self, "metadata", tuple(self.metadata))

    @property
    def names(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys(name for name in (self.text, self.title, self.document, *self.metadata) if name))

    def passage(self, id_: str, row: Mapping[str, Any]) -> Passage:
        """The passage of a row. An empty text stays empty; metadata are kept as an index keeps them, of any length.

        Raises:
            InputError: the row has no such field for the text, or something else than text in it.
        """
        values = {name: value for name in self.names if (value := _value(row, name)) is not _NOTHING}
        if self.text not in values:
            raise InputError(f"passage {id_} has no field {self.text!r} for its text: name the right one in Fields")
        title, document = values.get(self.title), values.get(self.document)
        kept = plain_metadata({name: values[name] for name in self.metadata if name in values}, copied=False)
        text = self._read(id_, values[self.text])
        return Passage(id_, text, self._read(id_, title), "" if document is None else str(document), kept)

    def _read(self, id_: str, value: Any) -> str:
        if value is not None and not isinstance(value, str):
            told = f"passage {id_} holds {type(value).__name__} where Fields says that its text or title is"
            raise InputError(f"{told}: name a field of text")
        return valid_text(value or "")


def _value(row: Mapping[str, Any], name: str) -> Any:
    """The field of that name, or of the longest part of it whose object holds the rest; else `_NOTHING`."""
    if name in row:
        return row[name]
    for at in reversed([at for at, sign in enumerate(name) if sign == "."]):
        inner = row.get(name[:at])
        if isinstance(inner, Mapping) and (value := _value(inner, name[at + 1 :])) is not _NOTHING:
            return value
    return _NOTHING


def check_depth(depth: int) -> None:
    """Refuse a depth that a store cannot answer.

    Raises:
        InputError: under 1 or over `DEEPEST`.
    """
    check_k(depth, "depth")
    if depth > DEEPEST:
        raise InputError(f"a store answers with at most {DEEPEST:,} passages, not {depth:,}: ask for fewer")


def check_timeout(seconds: float) -> float:
    """The seconds; refused unless they are a time over 0 that ends."""
    if not 0 < seconds < math.inf:
        raise InputError(f"a timeout is a time over 0, not {seconds}")
    return seconds


def numbers(vector: NDArray[np.float32]) -> list[float]:
    """The numbers of a query vector.

    Raises:
        InputError: it is no single vector of finite numbers.
    """
    values = np.asarray(vector, dtype=np.float32)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise InputError(f"a query vector is a row of finite numbers, not of the shape {values.shape}")
    return [float(value) for value in values]


def in_order(ids: Sequence[str], found: Mapping[str, Passage], store: object) -> list[Passage]:
    """The passages in the order of the ids.

    Raises:
        InputError: the store gave none for an id.
    """
    missing = [id_ for id_ in ids if id_ not in found]
    if missing:
        raise InputError(
            f"{store!r} has no passage {missing[0]!r}{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}: it "
            "may have been deleted since it was found; ask again"
        )
    return [found[id_] for id_ in ids]
