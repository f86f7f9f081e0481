"""API keys: kept as digests, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256

from crossrank.errors import InputError

_LEAST = 8


class Keys:
    """The keys that open this server; none means that it is open to all.

    >>> keys = Keys(["a-long-secret"])
    >>> keys.admit("Bearer a-long-secret", None), keys.admit("Bearer another", None), keys.admit(None, None)
    (True, False, False)
    >>> Keys([]).admit(None, None)
    True
    """

    def __init__(self, keys: Sequence[str]) -> None:
        for number, key in enumerate(keys, start=1):
            _check(key, f"API key {number}")
        # Digests have one length, so that the time of a comparison does not tell a key's length.
        self._digests = tuple(sha256(key.encode()).digest() for key in keys)

    def __len__(self) -> int:
        return len(self._digests)

    def __repr__(self) -> str:
        return f"Keys({len(self)})"

    def admit(self, authorization: str | None, api_key: str | None) -> bool:
        """Whether one of the two headers, `Authorization: Bearer KEY` or `X-API-Key: KEY`, holds a key."""
        if not self._digests:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        candidates = [given.strip() if scheme.lower() == "bearer" else "", api_key or ""]
        found = False
        for candidate in candidates:
            digest = sha256(candidate.encode("utf-8", "replace")).digest()
            for known in self._digests:
                # No early exit: the time must not tell which key matched.
                found |= hmac.compare_digest(digest, known)
        return found


def _check(key: str, name: str) -> None:
    if len(key) < _LEAST or not key.isascii() or any(letter.isspace() for letter in key):
        raise InputError(
            f"{name} must have {_LEAST} or more ASCII characters and no spaces; "
            'make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )


def read_lines(text: str) -> list[str]:
    """Keys from a file's text: one a line; blank lines and lines that begin with # are left out.

    Raises:
        InputError: with the number of a line that holds no key.

    >>> read_lines("# the web shop\\nsecret-of-shop\\n\\n")
    ['secret-of-shop']
    """
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        if (key := line.strip()) and not key.startswith("#"):
            _check(key, f"API key of line {number}")
            keys.append(key)
    return keys
