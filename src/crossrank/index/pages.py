"""How large the pages of a Parquet file are when they are decompressed, told by their headers before any is.

A few hundred bytes may hold a page of 2 GB, or a dictionary with one text of 1 MB to which every row refers. The footer
says only what a column takes in all; a value is never larger than the page that it is written in.
"""

from __future__ import annotations

from typing import BinaryIO

# Of Thrift's compact protocol, in which a page's header is written.
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, 12
_DEEPEST = 8
_DECOMPRESSED, _COMPRESSED = 2, 3
"""Fields of a header: the sizes of what follows it."""


def largest(file: BinaryIO, start: int, size: int) -> int:
    """Bytes of the largest page of a column chunk, decompressed.

    Args:
        file: the Parquet file.
        start: where the first page of the chunk begins.
        size: bytes of the chunk in the file.

    Raises:
        ValueError: something else than pages is there.
    """
    most, end = 0, start + size
    while start < end:
        file.seek(start)
        header = _struct(file, 0)
        if min(header.get(_DECOMPRESSED, -1), header.get(_COMPRESSED, -1)) < 0:
            raise ValueError("no header of a page")
        most = max(most, header[_DECOMPRESSED])
        start = file.tell() + header[_COMPRESSED]
    return most


def _struct(file: BinaryIO, depth: int) -> dict[int, int]:
    """The numbers among the fields of a struct."""
    if depth > _DEEPEST:
        raise ValueError("no header of a page")
    found: dict[int, int] = {}
    field = 0
    while head := _byte(file):
        field = field + (head >> 4) if head >> 4 else _signed(file)
        found[field] = _value(file, head & 15, depth)
    return found


def _value(file: BinaryIO, kind: int, depth: int) -> int:
    """A number; 0 for all else, which is passed over."""
    if kind in _INTEGERS:
        return _signed(file)
    if kind == _STRUCT:
        _struct(file, depth + 1)
    elif kind == _BINARY:
        file.seek(_unsigned(file), 1)
    elif kind == _DOUBLE:
        file.seek(8, 1)
    elif kind == _BYTE:
        _byte(file)
    elif kind not in _BOOLEANS:  # A boolean is its kind.
        raise ValueError("no header of a page")
    return 0


def _byte(file: BinaryIO) -> int:
    read = file.read(1)
    if not read:
        raise ValueError("the file ends within the header of a page")
    return read[0]


def _unsigned(file: BinaryIO) -> int:
    number = shift = 0
    while shift < 64:
        byte = _byte(file)
        number |= (byte & 127) << shift
        if byte < 128:
            return number
        shift += 7
    raise ValueError("no header of a page")


def _signed(file: BinaryIO) -> int:
    number = _unsigned(file)
    return (number >> 1) ^ -(number & 1)
