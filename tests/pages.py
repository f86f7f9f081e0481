"""The code of a page of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def sections(page: Path, language: str = "python") -> dict[str, str]:
    """The code of each section that has some, by the section's heading."""
    found = {}
    for part in page.read_text(encoding="utf-8").split("\n## ")[1:]:
        blocks = re.findall(rf"^```{language}\n(.*?)^```", part, re.DOTALL | re.MULTILINE)
        if blocks:
            found[part.split("\n", 1)[0]] = "\n".join(blocks)
    return found
