"""The scores of a part of the pairs, and what a worker must agree on before it gives any."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from crossrank.crossencoder import CrossEncoder
from crossrank.distributed import pairs, parts
from crossrank.distributed.parts import Part
from crossrank.distributed.work import Do
from crossrank.distributed.workfolder import WorkFolder
from crossrank.errors import InputError, ReadError
from crossrank.scorers import load


@dataclass(frozen=True, slots=True)
class Scoring:
    """Reranking as a work: a part becomes one line of JSON for each pair, `{"query", "document", "score", "unread"}`.

    Attributes:
        folder: where the pairs are.
        model: as `crossrank.load` takes it.
        options: the other arguments of `crossrank.load`.
        identity: `CrossEncoder.identity` of the scorer that the leading process loaded.
    """

    folder: WorkFolder
    model: str | Path | None
    options: Mapping[str, Any]
    identity: tuple[str, str, str, int]

    def start(self) -> Do:
        """Load the scorer.

        Raises:
            InputError: it would give other scores than the leading process: another processor, or another model.
        """
        scorer = load(self.model, **self.options)
        if scorer.identity != self.identity:
            raise InputError(
                f"{socket.gethostname()} would give other scores: it has {scorer.identity}, and the work was begun "
                f"with {self.identity}. Name what all machines have, such as --backend cpu:avx2 --dtype float32, and "
                "put the same model on all of them"
            )
        return partial(_scored, self.folder, scorer)


def _scored(folder: WorkFolder, scorer: CrossEncoder, part: Part) -> bytes:
    rows = pairs.read(folder.input, part)
    if len(rows) != len(part):
        raise ReadError(f"{folder.input} lacks pairs: delete it, and run the same command again, which makes it anew")
    scored = scorer.scored([(query, text) for _, _, query, text in rows])
    unread = {cut.position: cut.tokens - cut.read for cut in scored.truncations if cut.position >= 0 and cut.lost}
    lines = [
        json.dumps(
            {
                "query": query,
                "document": document,
                "score": score if math.isfinite(score) else None,
                # More than the limit of windows was there, and nobody counted how much.
                "unread": max(unread[row], 1) if row in unread else 0,
            },
            ensure_ascii=False,
        )
        for row, ((query, document, _, _), score) in enumerate(zip(rows, scored.scores.tolist(), strict=True))
    ]
    queries_cut = sum(cut.position < 0 and cut.lost for cut in scored.truncations)
    facts = {"pairs": len(rows), "tokens": scored.tokens, "queries_cut": queries_cut}
    return parts.sealed("\n".join(lines).encode(), facts)
