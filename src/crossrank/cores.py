"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_PROCESS = Path("/proc/self")
# How files of /proc write white space and backslashes within a path.
_ESCAPED = re.compile(r"\\([0-7]{3})")


def available() -> int:
    """Cores the operating system lets this process run on, and no more than its control groups grant; at least 1.

    A share is rounded up to whole cores: threads beyond it only wait for each other.

    >>> available() >= 1
    True
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it, others do not
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(count, _quota(_PROCESS))))


@cache
def _quota(process: Path) -> float:
    """Cores that control groups grant a process of this folder in /proc; infinity where there is no limit, or no Linux.

    The least of its own group and of all that enclose it, as of a pod or a slice of systemd: each holds for all within
    it. Groups of both versions count, because a machine may have both. Read once, since each comparison of a query with
    token vectors asks, and in some sandboxes it takes milliseconds. Sources: the Linux kernel's "Control Group v2"
    (cpu.max) and "CFS Bandwidth Control" (cpu.cfs_quota_us).
    """
    try:
        return min(map(_granted, _groups(process)), default=math.inf)
    except ValueError:  # a /proc of a sandbox that writes its lines otherwise
        return math.inf


def _groups(process: Path) -> Iterator[Path]:
    """The folders of the groups in which the process is, and of those that enclose them, as far as they are to be seen.

    A container may see its own group as the root, or the host's path to it below a mount that begins there.
    """
    paths: dict[str, str] = {}
    for line in _lines(process / "cgroup"):
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    for line in _lines(process / "mountinfo"):
        mount, _, system = line.partition(" - ")
        root, point = (_ESCAPED.sub(lambda code: chr(int(code[1], 8)), field) for field in mount.split(" ")[3:5])
        kind, *_, options = system.split(" ")
        # The second version has no name of a controller, and each mount of it shows all.
        controller = {"cgroup2": "", "cgroup": "cpu" if "cpu" in options.split(",") else None}.get(kind)
        if controller in paths:
            yield from _enclosing(Path(point), Path(root), Path(paths[controller]))


def _enclosing(mount: Path, root: Path, path: Path) -> Iterator[Path]:
    """The folder of a group at `path` and all above it, to the one that is mounted, which is the group at `root`."""
    inside = path.is_relative_to(root) and ".." not in path.parts
    folder = mount / path.relative_to(root) if inside else mount
    yield folder
    while folder != mount:
        folder = folder.parent
        yield folder


def _granted(group: Path) -> float:
    """Cores that a group grants all within it; infinity where it sets no limit."""
    for allowed, period in (_numbers(group, "cpu.max"), _numbers(group, "cpu.cfs_quota_us", "cpu.cfs_period_us")):
        if allowed > 0 and period > 0:
            return allowed / period
    return math.inf


def _numbers(group: Path, *names: str) -> tuple[int, int]:
    """What a group may take in a period and how long that is, in microseconds; zeros where that is not limited."""
    try:
        allowed, period = " ".join((group / name).read_text(encoding="ascii") for name in names).split()
        return int(allowed), int(period)
    except (OSError, ValueError):  # no such file, or no quota: "max"
        return 0, 0


def _lines(file: Path) -> list[str]:
    """Lines as the kernel ends them: a path may hold what `str.splitlines` takes for an end."""
    try:
        return [line for line in file.read_text(encoding="utf-8", errors="surrogateescape").split("\n") if line]
    except OSError:
        return []
