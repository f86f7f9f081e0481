"""The page at `/` and the documentation at `/docs`: plain files of the package, which load nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files as resources

from crossrank.pipeline import MIX

# Only what is named here is served: no path of a request is ever opened.
_FILES = {
    "/": ("index.html", "text/html"),
    "/docs": ("docs.html", "text/html"),
    "/page/page.css": ("page.css", "text/css"),
    "/page/page.js": ("page.js", "text/javascript"),
    "/page/address.js": ("address.js", "text/javascript"),
    "/page/drawing.js": ("drawing.js", "text/javascript"),
    "/page/docs.js": ("docs.js", "text/javascript"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}


def files(mix: float = MIX) -> dict[str, tuple[bytes, str]]:
    """Content and media type by path, read from the package once; the page begins with this share.

    >>> sorted(files())[:2]
    ['/', '/docs']
    """
    folder = resources("crossrank.server.page")
    found = {path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}
    page, kind = found["/"]
    return {**found, "/": (page.replace(b"{MIX}", f"{mix:g}".encode()), kind)}
