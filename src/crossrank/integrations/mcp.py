"""The Model Context Protocol: `search` and `rerank` as tools for agents, through the official SDK."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from crossrank import __version__
from crossrank.answer import Answer
from crossrank.errors import CrossrankError, InputError
from crossrank.extras import require
from crossrank.falling import published
from crossrank.integrations.best import Best, best
from crossrank.integrations.mcp_lines import Replies, Requests
from crossrank.pipeline import Pipeline
from crossrank.relevance import relevance_of
from crossrank.types import Scorer

require("mcp", extra="mcp")

import anyio  # noqa: E402
from mcp.server.mcpserver import MCPServer  # noqa: E402
from mcp.server.mcpserver.exceptions import ToolError  # noqa: E402
from mcp.server.stdio import stdio_server  # noqa: E402
from pydantic import BeforeValidator, Field, ValidationError  # noqa: E402

MOST_DOCUMENTS, MOST_CHARACTERS = 1_000, 4_000_000
"""What one `rerank` may bring: an agent waits for the answer."""
_DOCUMENTS, _CHARACTERS = 64, 32_000
"""What is scored before the next look at whether anybody waits for it: about a second."""
_STOP: ContextVar[threading.Event] = ContextVar("_STOP")
"""Set when the request that is worked on was cancelled; threads of tools inherit it."""

Query = Annotated[str, Field(description="A question or key words, in plain language.")]


def _place(location: Sequence[str | int]) -> str:
    """An argument and a place in it; pydantic also names the functions and the types that it has tried there."""
    return ".".join(map(str, (*location[:1], *(part for part in location[1:] if isinstance(part, int)))))


def _no_switch(said: str) -> BeforeValidator:
    """Whoever says `true` means "with a threshold", and not one of 1.0, which nothing reaches, or a list of one."""

    def check(value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"{said}, not true or false")
        return value

    return BeforeValidator(check)


Wanted = Annotated[
    int, Field(ge=1, le=100, description="How many to return."), _no_switch("k is a whole number from 1 to 100")
]
Threshold = Annotated[
    Annotated[float, Field(ge=0, le=1), _no_switch("a threshold is a probability from 0 to 1 or 'model'")]
    | Literal["model"]
    | None,
    Field(
        description="Of the k passages return only those with at least this probability to be relevant; 'model' takes "
        "the model's own choice. An empty list then means that nothing found is likely to answer. Notes tell what was "
        "left out, or that the model read none of them, so that all are returned. Null returns all."
    ),
]


PerDocument = Annotated[
    Annotated[int, Field(ge=1, le=100), _no_switch("per_document is a whole number from 1 to 100")] | None,
    Field(
        description="At most so many passages of one document, its best: 1 gives k different documents. Notes tell "
        "what was left out. Null is any number."
    ),
]


@dataclass(frozen=True)
class Hit:
    """A passage that was found; rank: in this list, from 1; score: larger is more relevant, null for one without text.
    It orders this list and says no more: passages that the model did not read are put under the others; probability:
    that the passage is relevant, null where nothing says so. Line 0 is unknown.
    """

    rank: int
    score: float | None
    probability: float | None
    text: str
    title: str
    document: str
    file: str
    line: int


@dataclass(frozen=True)
class Found:
    """The passages, best first, and notes: what `per_document` or a threshold left out, what failed.

    The passages are called as the protocol calls a list that a tool gives, which is what this tool gave before notes.
    """

    result: list[Hit]
    notes: list[str]


@dataclass(frozen=True)
class Place:
    """A document of the given list, by its position from 0; score: larger is more relevant, null for a blank one."""

    position: int
    score: float | None
    text: str
    notes: dict[str, str]


class _Server(MCPServer):
    """The SDK's, which says more clearly what is wrong with a call, and answers what was asked before stdin ended."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """As the SDK's, which passes over arguments that a tool does not know, and names its own library in errors."""
        known = {tool.name: list(tool.input_schema.get("properties", ())) for tool in await self.list_tools()}
        if unknown := next((one for one in arguments if one not in known.get(name, arguments)), None):
            raise ToolError(f"{name} has no argument {unknown!r}; there are {', '.join(known[name])}")
        try:
            return await self._unless_cancelled(name, arguments, context)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            wrong = [f"{_place(one['loc'])}: {one['msg']}" for one in error.__cause__.errors()]
            raise ToolError("; ".join(wrong)) from error

    async def _unless_cancelled(self, name: str, arguments: dict[str, Any], context: Any) -> Any:
        """As the SDK's, which does not tell a tool's thread that nobody waits for it any more."""
        stop, failed, made = threading.Event(), None, None
        _STOP.set(stop)
        async with anyio.create_task_group() as group:
            group.start_soon(_set_at_the_end, stop)
            try:
                made = await super().call_tool(name, arguments, context)
            except Exception as error:  # raised below: the group would wrap it
                failed = error
            group.cancel_scope.cancel()
        if failed is not None:
            raise failed
        return made

    async def run_stdio_async(self) -> None:
        """As the SDK's, which drops what is under way when stdin ends: `crossrank mcp < requests` must answer all."""
        try:
            async with stdio_server() as (read, write):
                requests = Requests(read, write)
                server = self._lowlevel_server
                await server.run(requests, Replies(write, requests), server.create_initialization_options())
        except Exception as error:
            # The agent has left, and nobody is there to be answered.
            if not _broken_pipe(error):
                raise


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
    server = _Server("crossrank", instructions=about, version=__version__)

    def search(query: Query, k: Wanted = 5, threshold: Threshold = None, per_document: PerDocument = None) -> Found:
        assert pipeline is not None
        with _told():
            _go_on()
            refresh()
            answer = pipeline.search(query, k, threshold=threshold, per_document=per_document)
            return Found(_hits(pipeline, answer, asked=threshold is not None), list(answer.notes))

    def rerank(query: Query, documents: list[str], k: Wanted = 10) -> list[Place]:
        assert scorer is not None
        with _told():
            if len(documents) > MOST_DOCUMENTS or sum(map(len, documents)) > MOST_CHARACTERS:
                raise InputError(f"at most {MOST_DOCUMENTS:,} documents and {MOST_CHARACTERS:,} characters at once")
            found = _best(scorer, query, documents, k)
        return [Place(one.position, _finite(one.score), documents[one.position], dict(one.notes)) for one in found]

    if pipeline is not None:
        about = (
            "Search the user's indexed documents for the passages that answer a question, best first. Each has the "
            "probability that it is relevant, where the model gives one: a low one says that the documents hardly "
            "answer, which a rank does not. Notes tell what could not be done as it should."
        )
        server.tool(description=about)(search)
    if scorer is not None:
        about = "Order texts that you already have by how well they answer a question, best first."
        server.tool(description=about)(rerank)
    return server


def _hits(pipeline: Pipeline, answer: Answer, asked: bool) -> list[Hit]:
    """The passages of an answer; `asked`: with a threshold, see `relevance_of`."""
    chances = relevance_of(pipeline.stages, answer.traces, answer.ranking.ids, asked).probabilities
    scores = published(answer.ranking)
    made = []
    for rank, (passage, score, chance) in enumerate(zip(answer.passages, scores, chances, strict=True), start=1):
        file, line = (passage.place.file, passage.place.line) if passage.place is not None else ("", 0)
        made.append(Hit(rank, score, chance, passage.text, passage.title, passage.document, file, line))
    return made


def _best(scorer: Scorer, query: str, documents: Sequence[str], k: int) -> list[Best]:
    """As `best`, unless the request is cancelled meanwhile. A model's score of a document does not depend on others."""
    if getattr(scorer, "listwise", False) or not documents:
        return best(scorer, query, documents, k)
    found: list[Best] = []
    start, room = 0, _CHARACTERS
    for place, text in enumerate([*documents, ""]):
        room -= len(text)
        if place == len(documents) or place - start == _DOCUMENTS or (room < 0 and place > start):
            _go_on()
            part = best(scorer, query, documents[start:place], None) if place > start else []
            found += [replace(one, position=start + one.position) for one in part]
            start, room = place, _CHARACTERS - len(text)
    return sorted(found, key=lambda one: (-one.score, one.position))[:k]


def _go_on() -> None:
    """Raise what ends a tool where nobody waits for its answer any more."""
    stop = _STOP.get(None)
    if stop is not None and stop.is_set():
        raise ToolError("cancelled")


async def _set_at_the_end(stop: threading.Event) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        stop.set()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except CrossrankError as error:
        raise ToolError(str(error)) from error


def _broken_pipe(error: BaseException) -> bool:
    """Whether this is nothing but a reader that has left, alone or in groups."""
    inner = getattr(error, "exceptions", None)
    return isinstance(error, BrokenPipeError) if inner is None else all(map(_broken_pipe, inner))


def _finite(score: float) -> float | None:
    return score if math.isfinite(score) else None
