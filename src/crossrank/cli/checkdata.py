"""The queries and documents of `crossrank check`: the user's, or a sample that has one of everything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossrank.asking import check_query
from crossrank.cli import rows
from crossrank.errors import ReadError
from crossrank.types import Passage


@dataclass(frozen=True, slots=True)
class Asked:
    """One query and what it is asked of.

    Attributes:
        query: the text.
        documents: as models read them, titles included.
    """

    query: str
    documents: tuple[str, ...]


_LONG = (
    "The Danube rises in the Black Forest and flows through ten countries before it reaches the Black Sea. Vienna, "
    "Bratislava, Budapest and Belgrade lie on it. "
)
_SHARED = (
    "Paris is the capital of France.", "Lyon is a large city in France, but the capital is Paris.",
    "Bread needs yeast.", "A capital letter begins a sentence.", "Berlin is the capital of Germany.", "",
    "Bread needs yeast.", "When an upload fails, it is retried three times with growing pauses.",
    "Set max_retries=5 in the configuration.", _LONG * 3, _LONG * 25,
    "Water boils at 100 degrees Celsius at sea level, and at less on a mountain.",
    "Die Donau entspringt im Schwarzwald.", "東京は日本の首都です。", "يقع نهر الدانوب في أوروبا.",
    "naïve café — œuvre ☕", "[SEP] [CLS] Which river? [MASK]", "x" * 900, "42", "?",
)  # fmt: skip
SAMPLE = tuple(
    Asked(query, _SHARED)
    for query in (
        "What is the capital of France?", "how do I retry a failed upload", "where does the Danube begin?",
        "boiling point of water on a mountain", "日本の首都", "yeast",
        "which cities lie on the river " + "and which " * 40,
    )
)  # fmt: skip
"""Short and long, other scripts, a blank one, one twice, one in windows, special tokens, one endless word."""


def read(file: str) -> list[Asked]:
    """Queries and documents from JSON lines: {"query": ..., "documents": ["...", {"title": ..., "text": ...}]}.

    Raises:
        ReadError: a row that is not so, or a file without any.
    """
    name = "stdin" if file == "-" else file
    found = []
    with rows.opened(file) as stream:
        for number, line in enumerate(rows.lines(stream, name, "utf-8"), start=1):
            if line.strip():
                found.append(_asked(line, f"{name}:{number}"))
    if not found:
        raise ReadError(f'{Path(name).name} holds no rows; one is {{"query": "...", "documents": ["...", "..."]}}')
    return found


def _asked(line: str, where: str) -> Asked:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ReadError(f"{where} is not a JSON row ({error})") from error
    if not isinstance(row, dict) or not isinstance(row.get("documents"), list) or not row["documents"]:
        raise ReadError(f'{where}: a row is an object such as {{"query": "...", "documents": ["...", "..."]}}')
    try:
        check_query(row.get("query"))
    except ValueError as error:
        raise ReadError(f"{where}: {error}") from error
    return Asked(row["query"], tuple(_texts(row["documents"], where)))


def _texts(documents: list[Any], where: str) -> Iterator[str]:
    for place, document in enumerate(documents):
        if isinstance(document, dict) and isinstance(document.get("text"), str):
            title = document.get("title")
            yield Passage("", document["text"], title if isinstance(title, str) else "").scored_text
        elif isinstance(document, str):
            yield document
        else:
            raise ReadError(f'{where}: document {place} is neither a string nor an object with "text"')
