"""Lines of text files, plain or gzip, with every way to be damaged turned into one error."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from crossrank.errors import ReadError

M = TypeVar("M", bound=Mapping[str, Any])
# The longest line of public judged sets is about 1 MB; a gzip file can unfold a small download into any memory.
LINE_BYTES = 16 * 1024 * 1024


def lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text without its line end) for every line of a UTF-8 file that is not blank.

    A name that ends in `.gz` is read as gzip. A byte-order mark at the start is dropped.

    Raises:
        ReadError: the file is missing, not UTF-8, not whole gzip, or has a line over `LINE_BYTES` bytes.
    """
    path = Path(path)
    try:
        with _open(path) as stream:
            number = 0
            while raw := stream.readline(LINE_BYTES + 1):
                number += 1
                if len(raw) > LINE_BYTES:
                    raise ReadError(
                        f"{path}, line {number}: over {LINE_BYTES} bytes. Split it, or check the file's format"
                    )
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    yield number, text
    except FileNotFoundError as error:
        raise ReadError(f"{path} does not exist. Check the folder and the file's name") from error
    except UnicodeDecodeError as error:
        raise ReadError(f"{path}, line {number}: not UTF-8 ({error.reason}). Convert the file to UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ReadError(f"{path} cannot be read: {error}. Fetch it again if it is cut off") from error


def existing(folder: Path, *names: str) -> Path:
    """The first of `names` that exists in `folder`, as it is or with `.gz`.

    Raises:
        ReadError: none exists; the message lists what the folder holds.
    """
    for name in names:
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    if not folder.is_dir():
        raise ReadError(f"{folder} is not a folder")
    held = ", ".join(sorted(entry.name for entry in folder.iterdir())[:20]) or "nothing"
    raise ReadError(f"{folder} has no {' or '.join(names)} (also not .gz). It holds: {held}")


def filled(path: Path, found: M, what: str) -> M:
    """What was read from a file, which must be something.

    Raises:
        ReadError: it is empty.
    """
    if not found:
        raise ReadError(f"{path} holds no {what}")
    return found


def _open(path: Path) -> IO[bytes]:
    # Both branches give a binary stream whose readline takes a limit.
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]
