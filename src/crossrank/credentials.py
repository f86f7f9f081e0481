"""What of an address nobody else may see, and how it is sent: keys, users and passwords."""

from __future__ import annotations

import re
from base64 import b64encode
from urllib.parse import SplitResult, unquote, urlsplit

_SECRET = re.compile(r"[^=]*(?:key|token|secret|pass|sig|auth|cred|jwt)|code=|[^=]*=(?:sk-|.{33})", re.I)
"""Parts of a query that are left out of all names: called as secrets are, or as long."""


def without_secrets(url: object) -> object:
    """An address as it may be told to anyone, also one that is none: without a user, a password or keys in its query.

    >>> without_secrets("https://me:pw@example.com/v1?api-version=1&api-key=abc#m")
    'https://example.com/v1?api-version=1&api-key=***#m'
    >>> without_secrets("https://me:p/w@example.com/v1#m"), without_secrets("me:pw@example.com"), without_secrets("a@2")
    ('***@example.com/v1#m', '***@example.com', 'a@2')
    """
    if not isinstance(url, str):
        return url
    # Where no host stands as it should, a password may reach up to the last @: it holds a / ? or # itself.
    told = re.sub(r"//[^/?#]*@", "//", url) if _has_host(url) else re.sub(r"^.*:.*@", "***@", url, flags=re.DOTALL)
    address, mark, fragment = told.partition("#")
    head, asks, query = address.partition("?")
    shown = [f"{one.partition('=')[0]}=***" if _SECRET.match(one) else one for one in query.split("&")]
    return f"{head}{asks}{'&'.join(shown)}{mark}{fragment}"


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 0) >= 0
    except ValueError:
        return False


def public_query(query: str) -> str:
    """The parts of an address's query that may be in names.

    >>> public_query("api-version=1&api-key=abc")
    'api-version=1'
    """
    return "&".join(one for one in query.split("&") if one and not _SECRET.match(one))


def authorization(key: str, parts: SplitResult) -> dict[str, str]:
    """The header by which a request shows who asks: by the user and password of its address, or else by the key."""
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return {"Authorization": f"Basic {b64encode(login.encode()).decode()}"}
    return {"Authorization": f"Bearer {key}"} if key else {}
