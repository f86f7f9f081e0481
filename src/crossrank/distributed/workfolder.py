"""The folder of a large work: what it is made of, the parts that are done, and how often a part was begun."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from crossrank.distributed import parts
from crossrank.distributed.parts import Part
from crossrank.errors import InputError, ReadError
from crossrank.index.lock import exclusive
from crossrank.writing import UNFINISHED

# Times that a part may end the process that works on it. Twice can be chance: a machine that was taken away.
MOST_TRIES = 3
_MADE_OF, _LOCK, _INPUT, _RANKED = "work.json", "lock", "input.sqlite", "ranked.sqlite"
_CALLED = "called"
_FOLDERS = {"parts", "tries"}


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """Files of one work. Workers on other machines see it under the same path.

    Attributes:
        path: absolute.
        fingerprint: of what the work is made of; every part carries it in its name.
        discarded: parts of a work begun with something else, which were thrown away.
    """

    path: Path
    fingerprint: str
    discarded: int = 0

    @property
    def input(self) -> Path:
        """The input, brought into a form that can be read from anywhere."""
        return self.path / _INPUT

    @property
    def ranked(self) -> Path:
        """The scores of all parts in the order of the rankings, while these are written."""
        return self.path / _RANKED

    def file(self, part: Part) -> Path:
        """Where the result of a part lies, once it is done."""
        return self.path / "parts" / f"{part.name}-{self.fingerprint}"

    def missing(self, all_parts: Sequence[Part]) -> list[Part]:
        """The parts that are not done; the files of the others are read and checked.

        Raises:
            ReadError: some are damaged; all of them are named, so that they can be deleted at once.
        """
        found, damaged = [], []
        for part in all_parts:
            if not self.file(part).exists():
                found.append(part)
                continue
            try:
                parts.read(self.file(part))
            except ReadError as error:
                damaged.append((self.file(part), error))
        if len(damaged) == 1:
            raise damaged[0][1]
        if damaged:
            raise ReadError(
                f"{len(damaged)} parts are damaged or cannot be read: {', '.join(str(path) for path, _ in damaged)}. "
                "Check the disk, delete them, and run the same command again, which makes only these parts anew"
            )
        return found

    def keep(self, part: Part, result: bytes) -> None:
        """The part is done."""
        parts.write(self.file(part), [result])
        self._tries(part).unlink(missing_ok=True)

    def begin(self, part: Part) -> None:
        """Called by whoever begins to work on a part, so that one that ends every process does not do so for ever.

        Raises:
            InputError: it was begun too often, or this machine does not see the folder.
        """
        try:
            with self._tries(part).open("ab") as stream:
                tries = stream.tell()
                stream.write(b".")
        except OSError as error:
            cure = "choose a folder that all machines see under the same path"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                cure = "make room, and run the same command again: what is done is kept"
            raise InputError(
                f"{socket.gethostname()} cannot write to {self.path} ({error.strerror}): {cure}"
            ) from error
        if tries >= MOST_TRIES:
            raise InputError(
                f"the rows {part.begin:,} to {part.end:,} of the input ended {tries} worker processes before they were "
                "done, so they are not tried again. Where memory is short, use fewer workers, or smaller parts in a "
                "new folder; else see the workers' own messages"
            )

    def _tries(self, part: Part) -> Path:
        return self.path / "tries" / part.name


@contextmanager
def opened(
    path: Path, made_of: Mapping[str, Any], called: Mapping[str, str] | None = None, *, anew: bool = False
) -> Iterator[WorkFolder]:
    """The folder of a work for the one process that leads it; made if there is none.

    Args:
        path: new, empty, or a folder of the same work.
        made_of: everything that the result depends on, as JSON has it.
        called: what people call some of that, such as a model that is known by its hash; it is only shown.
        anew: where the folder is of the same kind of work (`made_of["work"]`), begun with something else: throw away
            what was made, instead of refusing.

    Raises:
        InputError: the folder belongs to another work, or to something else.
        IndexFileError: another process works in it.
    """
    path = path.absolute()
    stated = json.dumps({"crossrank": 1, **made_of}, sort_keys=True)
    try:
        held = {file.name for file in path.iterdir()} if path.exists() else set()
        if held - _FOLDERS and _LOCK not in held:
            raise InputError(f"{path} holds something else: name a new folder for the results")
        for name in _FOLDERS:
            (path / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be a folder for the results ({error.strerror}): name another") from error
    with exclusive(path / _LOCK, "the folder"):
        # An input that was refused binds nothing: put right, it may go into the same folder.
        discarded = _check(path / _MADE_OF, stated, dict(called or {}), bound=(path / _INPUT).exists(), anew=anew)
        # Left by a process that died: nobody else works here.
        for leftover in (*path.glob(f"*{UNFINISHED}*"), *path.glob(f"parts/*{UNFINISHED}"), *path.glob("tries/*")):
            leftover.unlink()
        yield WorkFolder(path, sha256(stated.encode()).hexdigest()[:16], discarded)


def empty(path: Path) -> None:
    """Delete what the work in a folder made, and nothing else; for whoever holds the folder.

    The input goes after the parts that were made of it, so that this may be killed, too.
    """
    made = (*path.glob("parts/*"), *path.glob("tries/*"), path / _RANKED, path / _INPUT, path / _MADE_OF)
    for file in made:
        file.unlink(missing_ok=True)


def is_own(file: Path, folder: Path) -> bool:
    """Whether a work in the folder writes or deletes files of this name itself."""
    file, folder = file.resolve(), folder.resolve()
    if folder not in file.parents:
        return False
    name = file.relative_to(folder).parts[0]
    return name in {_MADE_OF, _LOCK, _INPUT, _RANKED, *_FOLDERS} or (file.parent == folder and UNFINISHED in name)


def _check(file: Path, stated: str, called: dict[str, str], bound: bool, anew: bool) -> int:
    """Refuse another work, or throw it away, and count its parts; write down this one where there is none."""
    now = json.loads(stated)
    written = json.dumps({**now, _CALLED: called}, sort_keys=True).encode()
    if not bound or not file.exists():
        parts.write(file, [written])
        return 0
    before = None
    with suppress(ValueError, OSError):
        before = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(before, dict):
        raise ReadError(f"{file} is damaged: name a new folder for the results, or delete {file.parent}")
    then = before.pop(_CALLED, {})
    if other := [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]:
        if anew and "work" not in other:
            made = sum(1 for _ in file.parent.glob("parts/*"))
            empty(file.parent)
            parts.write(file, [written])
            return made
        raise InputError(
            f"{file.parent} was begun with another {' and '.join(other)} than this: give the same as then, or name a "
            f"new folder (then: {_shown(before, other, then, called)}; now: {_shown(now, other, called, then)})"
        )
    return 0


def _shown(
    made_of: Mapping[str, Any], names: Sequence[str], called: Mapping[str, str], there: Mapping[str, str]
) -> str:
    """What people call each; as it is where it has no such name, or is called the same `there`."""
    told = {name: called[name] for name in names if name in called and called[name] != there.get(name)}
    return ", ".join(f"{name} {told.get(name) or json.dumps(made_of.get(name))[:120]}" for name in names)


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex digits.

    Raises:
        ReadError: it cannot be read.
    """
    whole = sha256()
    try:
        if path.exists() and not path.is_file():
            raise ReadError(
                f"{path} is a pipe, device or folder, and bulk work reads its input twice: write it to a file"
            )
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                whole.update(block)
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}. Check the file's name") from error
    return whole.hexdigest()
