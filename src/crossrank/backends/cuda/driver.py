"""Is there an NVIDIA driver? Answered without torch, which takes seconds to import."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@cache
def installed() -> bool:
    """Whether the driver's library can be loaded. It is not started: a started driver does not survive a fork."""
    return loads(LIBRARY)


def loads(library: str) -> bool:
    """Whether the system finds and loads a library of this name.

    >>> loads("no-such-library.so.1")
    False
    """
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
