"""Weights from safetensors files, as float32 arrays, with every size checked before memory is spent.

The format is eight bytes of header length, a JSON header, then the data. It is read here rather than with the library's
NumPy reader because NumPy has no bfloat16, the dtype most small models are stored in.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.checkpoint.settings import crowded
from crossrank.errors import CheckpointError

MAX_TENSORS = 100_000
# Bytes of a header of so many, and its objects, lists and names: the format allows five times the bytes.
MAX_HEADER, MAX_PARTS = 200 * MAX_TENSORS, 8 * MAX_TENSORS
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
# What NumPy 1 takes; NumPy 2 takes twice as many.
MAX_DIMENSIONS = 32
CURE = "Download the model again, or copy the folder again from where it came."


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor lies: its dtype by the format's name, its shape, and its bytes counted from the file's start."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def header(path: Path) -> dict[str, Entry]:
    """The table of contents of one safetensors file, checked against the file's real size.

    Raises:
        CheckpointError: the file is missing, cut short, not safetensors, claims more than it holds or has too long a
            header; or tensors overlap.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise CheckpointError(f"{path} is not a whole safetensors file ({size} bytes). {CURE}")
            text = file.read(min(length, MAX_HEADER + 1))
        if len(text) > MAX_HEADER or crowded(text, MAX_PARTS):
            raise CheckpointError(
                f"{path} says too much of its tensors, or has over {MAX_TENSORS:,}. Save the model again with fewer."
            )
        table = json.loads(text)
    except OSError as error:
        raise CheckpointError(f"cannot read the weights {path}: {error.strerror or error}. {CURE}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not a safetensors file: its header is not JSON. {CURE}") from error
    if not isinstance(table, dict):
        raise CheckpointError(f"{path} is not a safetensors file: its header is not a table. {CURE}")
    table.pop("__metadata__", None)
    found = {name: _entry(path, name, value, 8 + length, size) for name, value in table.items()}
    _check_apart(path, found)
    return found


def headers(paths: Iterable[Path]) -> dict[str, Entry]:
    """The tables of contents of several files as one; a pickle has none.

    Raises:
        CheckpointError: as of `header`.
    """
    return {name: one for path in paths if path.suffix == ".safetensors" for name, one in header(path).items()}


def _check_apart(path: Path, found: Mapping[str, Entry]) -> None:
    # Any number of tensors over the same bytes would make a small file take all memory. Empty ones take none.
    filled = sorted((entry.start, entry.stop, name) for name, entry in found.items() if entry.stop > entry.start)
    for (_, stop, one), (start, _, other) in pairwise(filled):
        if start < stop:
            raise CheckpointError(f"{path}: the tensors {one!r} and {other!r} overlap. {CURE}")


def _entry(path: Path, name: str, value: Any, base: int, size: int) -> Entry:
    try:
        dtype, shape = value["dtype"], tuple(value["shape"])
        start, stop = value["data_offsets"]
        whole = len(shape) <= MAX_DIMENSIONS and all(
            type(number) is int and number >= 0 for number in (*shape, start, stop)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: the entry of tensor {name!r} is damaged. {CURE}") from error
    if not whole or not isinstance(dtype, str):
        raise CheckpointError(f"{path}: the entry of tensor {name!r} is damaged. {CURE}")
    if dtype not in SIZES:
        raise CheckpointError(
            f"{path}: tensor {name!r} has dtype {dtype}, which crossrank does not read. "
            "Save the model in float32, float16 or bfloat16."
        )
    # NumPy multiplies the others also where one is 0, and refuses what it could not count.
    if math.prod(max(1, number) for number in shape) * SIZES[dtype] > sys.maxsize:
        raise CheckpointError(f"{path}: tensor {name!r} claims shape {list(shape)}, which no tensor has. {CURE}")
    if math.prod(shape) * SIZES[dtype] != stop - start:
        raise CheckpointError(
            f"{path}: tensor {name!r} claims shape {list(shape)} of {dtype} but {stop - start} bytes. {CURE}"
        )
    if base + stop > size:
        raise CheckpointError(f"{path} is cut short: tensor {name!r} ends at byte {base + stop} of {size}. {CURE}")
    return Entry(dtype, shape, base + start, base + stop)


def rows(place: Path, name: str, shape: tuple[int, ...]) -> int:
    """Rows of the matrix `name`, whose file or folder is `place`.

    Raises:
        CheckpointError: it is no matrix.
    """
    if len(shape) != 2:
        raise CheckpointError(f"{place}: {name} has shape {list(shape)}, and a matrix has two dimensions. {CURE}")
    return shape[0]


def load(path: Path, wanted: Container[str] | None = None) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The floating-point tensors of one file as float32, one at a time; integer buffers are left out.

    Args:
        path: a safetensors file.
        wanted: names of the tensors to read; all when absent.
    """
    entries = header(path)
    with path.open("rb") as file:
        for name, entry in entries.items():
            if entry.dtype not in FLOATS or (wanted is not None and name not in wanted):
                continue
            file.seek(entry.start)
            data = file.read(entry.stop - entry.start)
            if len(data) != entry.stop - entry.start:
                raise CheckpointError(f"{path} became shorter while it was read. {CURE}")
            raw = np.frombuffer(data, dtype=FLOATS[entry.dtype]).reshape(entry.shape)
            yield name, widen(raw) if entry.dtype == "BF16" else raw.astype(np.float32, copy=False)


def widen(raw: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Bfloat16 bit patterns as float32: the same sign, exponent and leading mantissa bits, so exact.

    >>> widen(np.array([0x3F80, 0xC000], dtype=np.uint16)).tolist()
    [1.0, -2.0]
    """
    bits = raw.astype(np.uint32)
    bits <<= np.uint32(16)
    return bits.view(np.float32)


def shards(folder: Path, index: Mapping[str, Any]) -> tuple[Path, ...]:
    """The files a `model.safetensors.index.json` names, in name order.

    Raises:
        CheckpointError: the index is damaged, names a path outside the folder, or a file that is not there.
    """
    table = index.get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise CheckpointError(f"{folder / 'model.safetensors.index.json'} has no weight_map. {CURE}")
    names = sorted(set(table.values()))
    for name in names:
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{folder}: the weight index names {name!r}, which is not a file of this folder.")
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: the weight file {name} is missing. {CURE}")
    return tuple(folder / name for name in names)
