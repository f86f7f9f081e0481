"""Work beyond one process or one machine: the same scorer and the same files, cut into parts that survive a kill."""

from __future__ import annotations

from crossrank.distributed.leading import Workers
from crossrank.distributed.reranking import Reranked, rerank
from crossrank.distributed.sources import RowSource, RunSource

__all__ = ["Reranked", "RowSource", "RunSource", "Workers", "rerank"]
