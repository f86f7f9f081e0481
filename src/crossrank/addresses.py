"""Addresses of models that run elsewhere, told from names of models on this machine."""

from __future__ import annotations


def is_address(name: object) -> bool:
    """Whether this is an address of HTTP, rightly written or not: its scheme says so, in upper or lower case.

    >>> is_address("https://api.openai.com/v1#big"), is_address("HTTP://localhost"), is_address("cross-encoder/big")
    (True, True, False)
    """
    return isinstance(name, str) and name.lower().startswith(("http://", "https://"))
