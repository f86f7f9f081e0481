"""What is told where an index cannot be read or written: its damage only where nothing else is known."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from crossrank.errors import CrossrankError, IndexFileError
from crossrank.index.failing import told

LANCE = "External error: LanceError(IO): {} (os error {}), /home/runner/work/lance/rust/lance-io/src/local.rs:274:24"
posix = pytest.mark.skipif(os.name != "posix", reason="Windows counts its errors otherwise")


def said(error: BaseException, doing: str = "searching") -> str:
    with (
        pytest.raises(IndexFileError, match=rf"^{doing} the index my\.index failed; ") as found,
        told(Path("my.index"), doing),
    ):
        raise error
    assert found.value.__cause__ is error
    return str(found.value)


@posix
@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.EMFILE, "let it open more (`ulimit -n`)"),
        (errno.ENFILE, "too many files are open on this machine"),
        (errno.ENOSPC, "the disk is full: make room"),
        (errno.EDQUOT, "the disk is full for this user"),
        (errno.EFBIG, "`ulimit -f`"),
        (errno.EACCES, "check the permissions"),
        (errno.EROFS, "use another folder"),
        (errno.ENOMEM, "memory is short"),
        (errno.EIO, "the disk that it lies on does not answer"),
        (errno.ESTALE, "the disk that it lies on does not answer"),
    ],
)
def test_what_the_system_says_is_no_damage(number: int, cure: str) -> None:
    """With too many files open it said to make the index anew."""
    for error in (OSError(LANCE.format(os.strerror(number), number)), OSError(number, os.strerror(number), "x")):
        found = said(error)
        assert cure in found
        assert os.strerror(number) in found
        assert "damaged" not in found


def test_words_alone_are_enough() -> None:
    assert "the disk is full" in said(RuntimeError("LanceError(IO): No space left on device"))
    assert "check the permissions" in said(RuntimeError("LanceError(IO): Permission denied"))


@pytest.mark.parametrize("text", ["LanceError(IO): unexpected end of file", LANCE.format("No such file", 2), ""])
def test_what_is_not_known_is_damage(text: str) -> None:
    assert "--rebuild" in said(RuntimeError(text))
    assert f"delete {Path('my.index', 'passages.lance')}" in said(RuntimeError(text), "replacing")
    assert said(RuntimeError("")).endswith("(RuntimeError)")


@pytest.mark.parametrize("name", ["a\nb", "a\tb", os.fsdecode(b"a\xffb")])
def test_a_name_that_lance_cannot_take_is_no_damage(name: str) -> None:
    with (
        pytest.raises(IndexFileError, match=r"its name holds a line break.*: use another folder"),
        told(Path(name, "index"), "making"),
    ):
        raise ValueError("Invalid user input: no such path")


def test_what_has_its_own_words_keeps_them() -> None:
    for error in (CrossrankError("no"), KeyboardInterrupt(), MemoryError()):
        with pytest.raises(type(error)) as found, told(Path("my.index"), "reading"):
            raise error
        assert found.value is error
