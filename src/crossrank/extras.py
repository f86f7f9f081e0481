"""Optional libraries, guarded at one door: the only text that says how to install an extra."""

from __future__ import annotations

from importlib.util import find_spec

from crossrank.errors import MissingExtraError


def available(module: str) -> bool:
    """Whether `module` could be imported, without importing it; of `a.b`, only `a` is.

    >>> available("json.decoder"), available("no_such_package.module")
    (True, False)
    """
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # Of `a.b`, not even `a` is there.
        return False


def require(module: str, extra: str) -> None:
    """Raise unless `module` can be imported. Called at the top of the one file that needs it.

    Raises:
        MissingExtraError: with the pip command that cures it.

    >>> require("json", extra="search")
    """
    if not available(module):
        raise MissingExtraError(
            f"this needs {module}, which the base install leaves out. Run: pip install 'crossrank[{extra}]'"
        )
