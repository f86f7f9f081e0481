"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available() -> int:
    """Cores the operating system lets this process run on, and no more than a container's quota; at least 1.

    >>> available() >= 1
    True
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it, others do not
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(count, _quota(_QUOTA)))


def _quota(file: Path) -> int:
    """A container's share in whole cores, rounded up: threads beyond it only wait for each other."""
    try:
        allowed, period = file.read_text(encoding="ascii").split()
        return math.ceil(int(allowed) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return os.cpu_count() or 1  # no quota ("max"), or not Linux
