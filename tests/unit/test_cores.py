"""Cores that this process may use, where control groups limit them."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from crossrank import cores


def machine(folder: Path, groups: str, mounts: list[tuple[str, str, str]], files: dict[str, str]) -> Path:
    """A folder as /proc has one of each process, and the groups' files beside it.

    Args:
        folder: where both are made.
        groups: what /proc/self/cgroup holds.
        mounts: of each the group that is mounted, the place below `folder`, and the file system with its options.
        files: by their paths below `folder`.
    """
    process = folder / "proc"
    process.mkdir()
    (process / "cgroup").write_text(groups)
    lines = [
        f"{number} 23 0:28 {root} {str(folder / at).replace(' ', chr(92) + '040')} rw,relatime shared:9 - {system}\n"
        for number, (root, at, system) in enumerate(mounts, start=31)
    ]
    (process / "mountinfo").write_text("".join(lines))
    for name, held in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(held)
    return process


V2 = ("/", "sys", "cgroup2 cgroup2 rw,nsdelegate")
V1 = ("/", "sys/cpu", "cgroup cgroup rw,cpu,cpuacct")


@pytest.mark.parametrize(
    ("own", "enclosing", "top", "granted"),
    [
        ("200000 100000", "max 100000", None, 2.0),
        # It was not seen: a service without a limit in a slice of one core and a half took all cores.
        ("max 100000", "150000 100000", None, 1.5),
        ("400000 100000", "150000 100000", "100000 100000", 1.0),
        ("max 100000", "max 100000", None, math.inf),
        ("nonsense", "", "0 0", math.inf),
    ],
)
def test_the_least_of_all_enclosing_groups_counts(
    tmp_path: Path, own: str, enclosing: str, top: str | None, granted: float
) -> None:
    files = {"sys/a.slice/b.service/cpu.max": own, "sys/a.slice/cpu.max": enclosing}
    files |= {} if top is None else {"sys/cpu.max": top}
    files["cpu.max"] = "1000 100000"  # above the mount: not a group's
    assert cores._quota(machine(tmp_path, "0::/a.slice/b.service\n", [V2], files)) == granted


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    process = machine(tmp_path, "0::/\n", [V2], {"sys/cpu.max": "50000 100000\n"})
    assert cores._quota(process) == 0.5


@pytest.mark.parametrize("path", ["/docker/ab", "/docker/ab/../../other", "/elsewhere"])
def test_a_container_may_see_the_hosts_path_to_it(tmp_path: Path, path: str) -> None:
    """Its mount begins at its own group; where the path is not below it, that is all that is to be seen."""
    mount = ("/docker/ab", "sys", "cgroup2 cgroup rw")
    assert cores._quota(machine(tmp_path, f"0::{path}\n", [mount], {"sys/cpu.max": "300000 100000"})) == 3.0


def test_the_first_version_of_control_groups(tmp_path: Path) -> None:
    files = {
        "sys/cpu/pod/one/cpu.cfs_quota_us": "-1\n",
        "sys/cpu/pod/one/cpu.cfs_period_us": "100000\n",
        "sys/cpu/pod/cpu.cfs_quota_us": "250000\n",
        "sys/cpu/pod/cpu.cfs_period_us": "100000\n",
        # Of another controller, whose paths say nothing about this one.
        "sys/set/pod/cpu.cfs_quota_us": "1000\n",
        "sys/set/pod/cpu.cfs_period_us": "100000\n",
    }
    groups = "4:cpuset:/pod\n3:name=systemd:/x\n2:cpu,cpuacct:/pod/one\n0::/\n"
    mounts = [V1, ("/", "sys/set", "cgroup cgroup rw,cpuset"), ("/", "sys/unified", "cgroup2 cgroup2 rw")]
    assert cores._quota(machine(tmp_path, groups, mounts, files)) == 2.5


def test_of_both_versions_the_least_counts(tmp_path: Path) -> None:
    files = {
        "sys/cpu/cpu.cfs_quota_us": "300000",
        "sys/cpu/cpu.cfs_period_us": "100000",
        "sys/un i/cpu.max": "200000 100000",
    }
    mounts = [V1, ("/", "sys/un i", "cgroup2 cgroup2 rw")]
    assert cores._quota(machine(tmp_path, "2:cpu,cpuacct:/\n0::/\n", mounts, files)) == 2.0


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cores._quota(tmp_path) == math.inf
    assert cores._quota(machine(tmp_path, "", [("/", "home", "ext4 /dev/sda1 rw,cpu")], {})) == math.inf


@pytest.mark.parametrize(("granted", "count"), [("10000 100000", 1), ("150000 100000", 2), ("max 100000", 4)])
def test_shares_are_rounded_up_to_whole_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granted: str, count: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(4)), raising=False)
    monkeypatch.setattr(cores, "_PROCESS", machine(tmp_path, "0::/\n", [V2], {"sys/cpu.max": granted}))
    assert cores.available() == count


@pytest.mark.parametrize("groups", ["", "\n", "nothing that is known\n", "0::/a\n\n"])
def test_what_is_written_otherwise_limits_nothing(tmp_path: Path, groups: str) -> None:
    process = machine(tmp_path, groups, [V2], {})
    assert cores._quota(process) == math.inf
    (process / "mountinfo").write_text("31 23 0:28 /\n")
    cores._quota.cache_clear()
    assert cores._quota(process) == math.inf


def test_a_line_ends_where_the_kernel_ends_it(tmp_path: Path) -> None:
    place = "sys\u2028here"
    process = machine(tmp_path, "0::/\n", [("/", place, V2[2])], {f"{place}/cpu.max": "100000 100000"})
    assert cores._quota(process) == 1.0
