"""Parts of a large work: a range of the input each, and a file that holds what was made of it, sealed with a digest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from crossrank.errors import InputError, ReadError
from crossrank.writing import whole


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of an input from position `begin` to before `end`."""

    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin

    @property
    def name(self) -> str:
        """The range in digits of one width, so that names sort as parts do.

        >>> Part(0, 6021).name
        '000000000000-000000006021'
        """
        return f"{self.begin:012d}-{self.end:012d}"


def cut(costs: Iterable[int], budget: int) -> Iterator[Part]:
    """Consecutive parts of rows whose costs reach the budget, at least one row each; every row is in exactly one.

    >>> [(part.begin, part.end) for part in cut([1, 1, 5, 1], budget=2)]
    [(0, 2), (2, 3), (3, 4)]
    """
    begin, spent, end = 0, 0, 0
    for end, cost in enumerate(costs, start=1):
        spent += cost
        if spent >= budget:
            yield Part(begin, end)
            begin, spent = end, 0
    if end > begin:
        yield Part(begin, end)


def sealed(body: bytes, facts: dict[str, Any]) -> bytes:
    """A file of any bytes whose last line holds facts about it and its digest.

    >>> unsealed(sealed(b"rows", {"rows": 1}), Path("some file"))
    (b'rows', {'rows': 1})
    """
    return body + b"\n" + json.dumps({**facts, "sha256": sha256(body).hexdigest()}).encode() + b"\n"


def unsealed(content: bytes, path: Path) -> tuple[bytes, dict[str, Any]]:
    """Body and facts of a file that `sealed` made.

    Raises:
        ReadError: it is not as it was written.
    """
    body, _, last = content.removesuffix(b"\n").rpartition(b"\n")
    try:
        facts: dict[str, Any] = json.loads(last)
        if facts.pop("sha256") == sha256(body).hexdigest():
            return body, facts
    except (ValueError, KeyError, AttributeError, TypeError):
        pass
    raise ReadError(f"{path} is damaged: delete it, and run the same command again, which makes only this part anew")


def read(path: Path) -> tuple[bytes, dict[str, Any]]:
    """As `unsealed`, of a file.

    Raises:
        ReadError: it is damaged or cannot be read.
    """
    try:
        return unsealed(path.read_bytes(), path)
    except OSError as error:
        raise ReadError(f"{path} cannot be read ({error.strerror}): check the disk and the permissions") from error


def write(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file whole or not at all, and have it on the disk before this returns.

    Raises:
        InputError: the disk is full, or does not take it.
    """
    with unwritten_told(path), whole(path) as part, part.open("wb") as stream:
        stream.writelines(chunks)


@contextmanager
def unwritten_told(path: Path) -> Iterator[None]:
    """Turn what the system says of a write, which names no file, into an error with its cure.

    Raises:
        InputError: a file that the block writes cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}): make room, or mend the disk or the permissions, "
            "and run the same command again; what is done is kept"
        ) from error
