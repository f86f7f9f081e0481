"""`GET /info`: models, index and limits."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from typing import Any

from crossrank import __version__
from crossrank.server.rerankers import Reranker
from crossrank.server.service import Service

_LOG = logging.getLogger("crossrank.server")
# Seconds that one reply waits for the index: a folder on a network may not answer at all.
_PATIENCE = 5.0


class About:
    """What a service is. The index is looked at in a thread, one at a time, so that a folder that hangs holds no more:
    not the end of the process either, which would wait for the thread of a pool.

    Args:
        service: what is told about.
        patience: seconds to wait for the index.
    """

    def __init__(self, service: Service, patience: float = _PATIENCE) -> None:
        self._service = service
        self._patience = patience
        self._looking: asyncio.Future[dict[str, Any]] | None = None
        self._logged = ""

    async def told(self) -> dict[str, Any]:
        """Models, limits, and the index at its last commit; null and the reason where it cannot be read."""
        made = _info(self._service)
        if self._service.index is None:
            return made
        if self._looking is None or self._looking.done():
            looking: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            threading.Thread(target=self._look, args=(looking,), name="crossrank-info", daemon=True).start()
            # Only now: where the system gives no thread, the next one to ask looks again.
            self._looking = looking
        try:
            return made | await asyncio.wait_for(asyncio.shield(self._looking), self._patience)
        except asyncio.TimeoutError:
            return made | {"index_error": f"the index did not answer within {self._patience:.3g} s"}

    def _look(self, looking: asyncio.Future[dict[str, Any]]) -> None:
        found = self._index()
        # The loop may have ended meanwhile, and then nobody waits.
        with suppress(RuntimeError):
            looking.get_loop().call_soon_threadsafe(_settle, looking, found)

    def _index(self) -> dict[str, Any]:
        try:
            found = {"index": {"passages": len(self._service.latest()[0])}}
            self._logged = ""
            return found
        except Exception as error:
            # Its message names the folder, which is for the log alone; and there once until the index is well again,
            # however often somebody asks.
            if str(error) != self._logged:
                self._logged = str(error)
                _LOG.error("the index cannot be told about: %s", error)
            return {
                "index_error": "the index cannot be read, or is of another embedder now; the server's log says more"
            }


def _settle(looking: asyncio.Future[dict[str, Any]], found: dict[str, Any]) -> None:
    if not looking.done():
        looking.set_result(found)


def _info(service: Service) -> dict[str, Any]:
    """Models, the default first, and limits; also the names under which TEI's clients look for those of the default."""
    limits, models = service.limits, [_model(one) for one in service.rerankers.values()]
    default = service.reranker
    made: dict[str, Any] = {
        "version": __version__,
        "model": models[0],
        "models": models,
        "embedder": None,
        "index": None,
        "limits": {
            "body_bytes": limits.body, "documents": limits.documents, "tokens": limits.tokens,
            "requests": limits.requests, "seconds": limits.seconds, "most_seconds": limits.most_seconds,
            "batch_tokens": default.speed.batch_tokens,
        },
        "model_id": default.name,
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_concurrent_requests": limits.requests,
        "max_input_length": default.scorer.max_length,
        "max_batch_tokens": default.speed.batch_tokens,
        "max_client_batch_size": limits.documents,
    }  # fmt: skip
    if service.embedder is not None:
        made["embedder"] = {
            "name": service.embedding_model, "width": service.embedder.width,
            "max_length": service.embedder.max_length, "fingerprint": service.embedder.fingerprint,
        }  # fmt: skip
    return made


def _model(reranker: Reranker) -> dict[str, Any]:
    return {
        "name": reranker.name,
        "fingerprint": reranker.fingerprint,
        "backend": reranker.scorer.backend.name,
        "max_length": reranker.scorer.max_length,
        "probability": reranker.score_kind,
        "batch_tokens": reranker.speed.batch_tokens,
    }
