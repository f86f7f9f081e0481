"""How many connections fit into this process: each takes a file descriptor, of which many systems give 1,024."""

from __future__ import annotations

import sys

# What is not for connections: models, an index that is searched by many threads, an embedder behind an address,
# pipes, and connections that were taken and are not counted yet.
RESERVE = 256
_LEAST = 16


def ask_for(connections: int) -> None:
    """Raise the limit of this process, as far as it may, so that so many connections fit. It is never lowered."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = connections + RESERVE
        if soft != resource.RLIM_INFINITY and soft < wanted:
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            # macOS bounds it once more, and does not say where.
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            except (ValueError, OSError):
                return


def fitting(connections: int) -> int:
    """So many connections, or as many as fit when that is less.

    >>> fitting(1)
    1
    """
    if sys.platform == "win32":
        return connections
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections
    return min(connections, max(soft - RESERVE, soft // 2, _LEAST))
