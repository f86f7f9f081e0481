"""Addresses of models that run elsewhere, told from names of models on this machine."""

from __future__ import annotations

from urllib.parse import parse_qs


def is_address(name: object) -> bool:
    """Whether this is an address of HTTP, rightly written or not: its scheme says so, in upper or lower case.

    >>> is_address("https://api.openai.com/v1#big"), is_address("HTTP://localhost"), is_address("cross-encoder/big")
    (True, True, False)
    """
    return isinstance(name, str) and name.lower().startswith(("http://", "https://"))


def parted(name: str, option: str) -> tuple[str, str, str | None]:
    """URL, MODEL and VALUE of `URL#MODEL` or `URL#MODEL?option=VALUE`; MODEL is empty where a name is neither.

    >>> parted("http://gpu/v1#e5?dimensions=512", "dimensions"), parted("http://gpu/v1#e5?size=512", "dimensions")
    (('http://gpu/v1', 'e5', '512'), ('http://gpu/v1', '', None))
    """
    url, _, rest = name.partition("#")
    model, _, options = rest.partition("?")
    asked = parse_qs(options, keep_blank_values=True)
    value = asked.pop(option, [None])[0]
    return (url, "", None) if asked else (url, model, value)
