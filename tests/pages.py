"""The code of a page of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def blocks(page: Path, language: str = "python") -> list[str]:
    """The code of each block in the language, in the page's order."""
    return _blocks(page.read_text(encoding="utf-8"), language)


def sections(page: Path, language: str = "python") -> dict[str, str]:
    """The code of each section that has some, by the section's heading."""
    found = {}
    for part in page.read_text(encoding="utf-8").split("\n## ")[1:]:
        if code := _blocks(part, language):
            found[part.split("\n", 1)[0]] = "\n".join(code)
    return found


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
