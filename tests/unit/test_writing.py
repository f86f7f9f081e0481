"""Files that are written whole or not at all: by whomever, over whatever, and when writing fails."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
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


@pytest.mark.skipif(os.name == "nt", reason="pipes and links of POSIX")
def test_no_file_takes_the_place_of_a_pipe_or_device(tmp_path: Path) -> None:
    """As root a file took the place of /dev/null."""
    pipe, null, opened = tmp_path / "pipe", tmp_path / "null", tmp_path / "opened"
    os.mkfifo(pipe)
    null.symlink_to(os.devnull)
    with (tmp_path / "a.txt").open("w") as file:
        opened.symlink_to(f"/dev/fd/{file.fileno()}")
        for path in (pipe, null, opened):
            assert writing.is_stream(path)
            with pytest.raises(OSError, match="pipe or a device, whose place no file can take: name a file"):
                writing.check(path)
            with pytest.raises(OSError, match="pipe or a device"), whole(path) as part:
                part.write_text("text")
    assert pipe.is_fifo()
    assert null.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "null", "opened", "pipe"]
    (tmp_path / "link").symlink_to(tmp_path / "a.txt")
    assert [writing.is_stream(tmp_path / name) for name in ("a.txt", "link", "none")] == [False] * 3


@pytest.mark.parametrize("usual", [True, False])
def test_a_private_file_stays_so_unless_the_usual_permissions_are_asked_for(tmp_path: Path, usual: bool) -> None:
    path, other = tmp_path / "new.bin", tmp_path / "other"
    other.touch()
    with whole(path, usual=usual) as part:
        os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))  # as safetensors 0.8 does
    assert stat.S_IMODE(path.stat().st_mode) == (stat.S_IMODE(other.stat().st_mode) if usual else 0o600)


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
    with pytest.raises(OSError, match="directory"):
        writing.check(tmp_path)
    with pytest.raises(OSError, match="too long"):
        writing.check(tmp_path / ("a" * 256))


def test_a_name_as_long_as_names_may_be(tmp_path: Path) -> None:
    """The name of the unfinished file was longer than the file's own, so that those of 242 bytes or more failed."""
    file = tmp_path / ("a" * 255)
    for text in ("one", "two"):
        with whole(file) as part:
            part.write_text(text)
    assert held(tmp_path) == {file.name: "two"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("mode", [0o600, 0o444, 0o664])
def test_a_file_that_is_replaced_hands_on_its_permissions(tmp_path: Path, mode: int) -> None:
    """A private file was readable for all afterwards."""
    file = tmp_path / "a.txt"
    file.write_text("before")
    file.chmod(mode)
    with whole(file) as part:
        part.write_text("after")
        assert stat.S_IMODE(part.stat().st_mode) == 0o600, "also while it is written"
    assert (stat.S_IMODE(file.stat().st_mode), file.read_text()) == (mode, "after")


@pytest.mark.parametrize(("number", "fails"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_file_system_that_promises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fails: bool
) -> None:
    def sync(_: int) -> None:
        raise OSError(number, "no")

    def write() -> None:
        with whole(tmp_path / "a.txt") as part:
            part.write_text("text")

    monkeypatch.setattr(os, "fsync", sync)
    if fails:
        with pytest.raises(OSError, match="no"):
            write()
    else:
        write()
    assert held(tmp_path) == ({} if fails else {"a.txt": "text"})


KILLED = """
import os, pathlib, sys
from crossrank.writing import whole
with whole(pathlib.Path(sys.argv[1])) as part:
    part.write_text("half")
    os._exit(9)
"""


def test_what_a_killed_process_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file of every process that was killed lay there for ever."""
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.txt")], check=False)
    (left,) = tmp_path.iterdir()
    # Not the newest: it may be of a process on another machine. And not that of one that runs, however old.
    sleeping = left.with_name(f".crossrank-{os.getpid()}-0{writing.UNFINISHED}")
    others = [sleeping, tmp_path / f"a{writing.UNFINISHED}"]
    for file in others:
        file.touch()

    def names(age: float) -> set[str]:
        monkeypatch.setattr(writing, "_tidied", set())
        for file in (left, *others):
            if file.exists():
                os.utime(file, (time.time() - age,) * 2)
        with whole(tmp_path / "a.txt") as part:
            part.write_text("text")
        return {file.name for file in tmp_path.iterdir()}

    kept = {"a.txt", *(file.name for file in others)} if os.name != "nt" else {"a.txt", others[1].name}
    assert names(3600) == {*kept, left.name, sleeping.name}
    assert names(90_000) == kept
