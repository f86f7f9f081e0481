"""The Model Context Protocol: `search` and `rerank` as tools for agents, through the official SDK."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from crossrank import __version__
from crossrank.errors import CrossrankError, InputError
from crossrank.extras import require
from crossrank.integrations.lists import best
from crossrank.pipeline import Pipeline
from crossrank.types import Scorer

require("mcp", extra="mcp")

from mcp.server.mcpserver import MCPServer  # noqa: E402
from mcp.server.mcpserver.exceptions import ToolError  # noqa: E402
from pydantic import Field  # noqa: E402

MOST_DOCUMENTS, MOST_CHARACTERS = 1_000, 4_000_000
"""What one `rerank` may bring: an agent waits for the answer."""

Query = Annotated[str, Field(description="A question or key words, in plain language.")]
Wanted = Annotated[int, Field(ge=1, le=100, description="How many to return.")]


@dataclass(frozen=True)
class Hit:
    """A passage that was found; score: larger is more relevant, null for one without text. Line 0 is unknown."""

    rank: int
    score: float | None
    text: str
    title: str
    document: str
    file: str
    line: int


@dataclass(frozen=True)
class Place:
    """A document of the given list, by its position from 0; score: larger is more relevant, null for a blank one."""

    position: int
    score: float | None
    text: str
    notes: dict[str, str]


def build(
    scorer: Scorer | None, pipeline: Pipeline | None = None, refresh: Callable[[], None] = lambda: None
) -> MCPServer:
    """A server with a `rerank` tool over a scorer and a `search` tool over a pipeline; `run()` answers over stdio.

    Tools run in threads. What a user can cure (a blank query, too many documents) is the answer of the tool, marked as
    an error, in words that a model can act on. `refresh` is called before each search: an agent's session is long, and
    `Index.refresh` goes on to what was committed since.

    Raises:
        InputError: neither is given.
    """
    if scorer is None and pipeline is None:
        raise InputError("a server needs a scorer, a pipeline, or both")
    about = "Find and order passages by how well they answer a question."
    server = MCPServer("crossrank", instructions=about, version=__version__)

    def search(query: Query, k: Wanted = 5) -> list[Hit]:
        assert pipeline is not None
        with _told():
            refresh()
            answer = pipeline.search(query, k)
        made = []
        for rank, (passage, score) in enumerate(
            zip(answer.passages, answer.ranking.scores.tolist(), strict=True), start=1
        ):
            file, line = (passage.place.file, passage.place.line) if passage.place is not None else ("", 0)
            made.append(Hit(rank, _finite(score), passage.text, passage.title, passage.document, file, line))
        return made

    def rerank(query: Query, documents: list[str], k: Wanted = 10) -> list[Place]:
        assert scorer is not None
        with _told():
            if len(documents) > MOST_DOCUMENTS or sum(map(len, documents)) > MOST_CHARACTERS:
                raise InputError(f"at most {MOST_DOCUMENTS:,} documents and {MOST_CHARACTERS:,} characters at once")
            found = best(scorer, query, documents, k)
        return [Place(one.position, _finite(one.score), documents[one.position], dict(one.notes)) for one in found]

    if pipeline is not None:
        about = "Search the user's indexed documents for the passages that answer a question, best first."
        server.tool(description=about)(search)
    if scorer is not None:
        about = "Order texts that you already have by how well they answer a question, best first."
        server.tool(description=about)(rerank)
    return server


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except CrossrankError as error:
        raise ToolError(str(error)) from error


def _finite(score: float) -> float | None:
    return score if math.isfinite(score) else None
