"""Files that are written whole or not at all: by whomever, over whatever, and when writing fails."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from crossrank import writing
from crossrank.writing import whole


def held(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_name_is_taken_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("before")
    with whole(file) as part:
        part.write_text("after")
        assert part.parent == tmp_path  # a rename across file systems is a copy
        assert part.name.endswith(writing.UNFINISHED)
        assert file.read_text() == "before"
    assert held(tmp_path) == {"a.txt": "after"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a.txt").write_text("before")

    def write() -> None:
        with whole(tmp_path / "a.txt") as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert held(tmp_path) == {"a.txt": "before"}


def test_what_cannot_be_written_or_replaced_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"), whole(tmp_path / "folder") as part:
        part.write_text("text")
    with pytest.raises(FileNotFoundError), whole(tmp_path / "a.txt"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions and links")
def test_permissions_are_those_of_any_file_and_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("target")
    (tmp_path / "a.txt").symlink_to(tmp_path / "target")
    before = os.umask(0o027)
    try:
        with whole(tmp_path / "a.txt") as part:
            part.write_text("text")
    finally:
        os.umask(before)
    assert held(tmp_path) == {"target": "target", "a.txt": "text"}
    assert not (tmp_path / "a.txt").is_symlink()
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_writers_at_one_time_do_not_mix(tmp_path: Path) -> None:
    ready = threading.Barrier(4)

    def write(letter: str) -> None:
        with whole(tmp_path / "a.txt") as part, part.open("w") as stream:
            stream.write(letter * 1000)
            ready.wait()
            stream.write(letter * 1000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held(tmp_path) in [{"a.txt": letter * 2000} for letter in "abcd"]


def test_the_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    replace, sync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("replace"), replace(*names)))
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("fsync"), sync(number)))
    with whole(tmp_path / "a.txt") as part:
        part.write_text("text")
    assert done[:2] == ["fsync", "replace"]


def test_checking_leaves_nothing(tmp_path: Path) -> None:
    writing.check(tmp_path / "a.txt")
    assert held(tmp_path) == {}
    with pytest.raises(OSError, match="gone"):
        writing.check(tmp_path / "gone" / "a.txt")
