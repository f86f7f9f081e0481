"""Bodies nobody would send, in great number: every one gets an answer that is no failure of the server.

`FUZZ=100000 pytest tests/robustness/test_server_fuzz.py` runs longer; the usual number keeps the suite quick.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import crossrank
import tiny
from crossrank.server.app import build
from crossrank.server.service import Service
from crossrank.server.wire import cohere, dialects, openai, search, teiembed, vllm

EXAMPLES = int(os.environ.get("FUZZ", "200"))
PATHS = [*dialects.RERANK, "/v1/score", "/v1/embeddings", "/embed", "/search"]
DIALECTS = (cohere.V1, cohere.V2, vllm.SCORE, *dialects.BY_NAME.values())
VALID = [dict(one.example) for one in DIALECTS]
VALID += [
    dict(openai.EXAMPLE),
    dict(teiembed.TEI.example),
    {**search.EXAMPLE, "documents": ["a", "b"], "columns": 3, "evidence": True},
]
NAMES = sorted(
    {name for fields in (*(one.fields for one in DIALECTS), openai.FIELDS, search.FIELDS) for name in fields}
    | {*vllm.OWN, *teiembed.TEI.fields}
)

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 9), st.integers(), st.floats(), st.text(max_size=40),
    st.text(st.characters(codec=None), max_size=8), st.sampled_from(["", " ", "\ud800", "\x00", "a" * 3000]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(st.sampled_from(["text", "image", "content"]), st.text(max_size=5)), inner, max_size=3
        ),
    ),
    max_leaves=8,
)
BODIES = st.one_of(
    st.builds(
        lambda body, changes: {**body, **changes},
        st.sampled_from(VALID),
        st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3),
    ),
    st.dictionaries(st.sampled_from(NAMES), VALUES),
    VALUES,
).map(lambda value: json.dumps(value).encode())


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("fuzz")
    scorer = crossrank.load(tiny.cross_encoder(folder / "reranker"), backend="fake")
    embedder = crossrank.load_embedder(tiny.bi_encoder(folder / "embedder"), backend="fake")
    served = Service(scorer, embedder, batch_tokens=4096)
    served.start()
    transport = httpx.ASGITransport(app=build(served).app, raise_app_exceptions=True)
    with asyncio.Runner() if hasattr(asyncio, "Runner") else _Runner() as runner:
        client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        yield lambda path, content: runner.run(client.post(path, content=content, timeout=20))
        runner.run(client.aclose())
    served.stop()


class _Runner:
    """What Python 3.10 lacks of asyncio.Runner."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.close()

    def run(self, awaited: Any) -> Any:
        return self._loop.run_until_complete(awaited)


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(PATHS), content=st.one_of(BODIES, st.binary(max_size=60)))
def test_every_body_gets_an_answer(post: Any, path: str, content: bytes) -> None:
    reply = post(path, content)
    told = reply.json()
    assert reply.status_code in (200, 400, 413, 422), (path, content, told)
    if reply.status_code != 200:
        assert told["error"] if path.startswith("/weaviate") else told["message"]
        plain = path.startswith(("/tei", "/weaviate")) or "error_type" in told
        assert isinstance(told["error"], str if plain else dict)
