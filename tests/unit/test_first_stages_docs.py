"""Every Python and SQL block of docs/first-stages.md runs, a section at a time, with servers that the tests start."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

import apiserver
import pgserving
import searchserving
from pages import DOCS, sections

PAGE = DOCS / "first-stages.md"
SQL = sections(PAGE, "sql")
# What answers in the place of the addresses that a section names.
Stands = Callable[[], Any]


@contextmanager
def postgres() -> Iterator[dict[str, str]]:
    """A server whose database is as the page's SQL makes it."""
    psycopg = pytest.importorskip("psycopg", reason="needs the postgres extra")
    with pgserving.serving() as uri:
        with psycopg.connect(uri) as connection:
            connection.execute(SQL["PostgreSQL"])
        yield {"postgresql://localhost/wiki": uri}


@contextmanager
def qdrant() -> Iterator[dict[str, str]]:
    """Nothing: the page uses the local mode."""
    pytest.importorskip("qdrant_client", reason="needs the qdrant extra")
    yield {}


@contextmanager
def opensearch() -> Iterator[dict[str, str]]:
    """A server with two documents."""
    pytest.importorskip("opensearchpy", reason="needs the opensearch extra")
    texts = {"bread": "Bread needs yeast.", "faq": "Failed uploads are retried three times."}
    with apiserver.serving(searchserving.answering(texts, "body", searchserving.OPEN)) as api:
        yield {"http://localhost:9200": api.url.removesuffix("/v1")}


@contextmanager
def lance() -> Iterator[dict[str, str]]:
    """A folder in the place of a bucket."""
    pytest.importorskip("lance", reason="needs the search extra")
    with tempfile.TemporaryDirectory() as folder:
        yield {"s3://bucket/notes.lance": f"{folder}/notes.lance"}


# Who answers, and the first line that the section prints.
NEEDS: dict[str, tuple[Stands, str]] = {
    "A function": (nullcontext, "Failed uploads are retried three times."),
    "PostgreSQL": (postgres, "Uploads Failed uploads are retried three times."),
    "Qdrant": (qdrant, "Failed uploads are retried three times."),
    "OpenSearch and Elasticsearch": (opensearch, "Failed uploads are retried three times."),
    "Lance": (lance, "Failed uploads are retried three times."),
}


def test_every_section_with_code_is_run() -> None:
    assert set(sections(PAGE)) | set(SQL) == set(NEEDS)


@pytest.mark.parametrize("section", NEEDS)
def test_the_code_of_a_section_runs(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    stands, said = NEEDS[section]
    with stands() as addresses:
        code = sections(PAGE)[section]
        for named, real in (addresses or {}).items():
            assert named in code
            code = code.replace(named, real)
        exec(compile(code, f"{PAGE}: {section}", "exec"), {"__name__": "page"})
    assert capsys.readouterr().out.splitlines()[0] == said
