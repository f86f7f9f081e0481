"""LlamaIndex: a node postprocessor that reranks what a retriever found.

It does what the host's contract leaves open: nodes are copied, so that a node shared with an in-memory store never
changes; the retriever's score stays in the copy's metadata, out of every text that a model reads; each start event has
its end event, also when scoring fails; and nothing is emitted when there is nothing to do.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossrank.cascade import Stage, rerank
from crossrank.crossencoder import CrossEncoder, load
from crossrank.errors import InputError
from crossrank.extras import require
from crossrank.types import Passage, Ranking, Scorer

require("llama_index", extra="llama-index")

from llama_index.core.bridge.pydantic import Field, PrivateAttr  # noqa: E402
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload  # noqa: E402
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # noqa: E402
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent  # noqa: E402
from llama_index.core.postprocessor.types import BaseNodePostprocessor  # noqa: E402
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle  # noqa: E402

RETRIEVAL_SCORE = "retrieval_score"  # the host's own rerankers use this key too
READ = "rerank_read"
QUERY_READ = "rerank_query_read"

_dispatcher = get_dispatcher(__name__)
# One lock for all instances: it is held only while a model loads, and instances stay copyable and picklable without it.
_loading = threading.Lock()


class CrossrankRerank(BaseNodePostprocessor):
    """Keep the `top_n` nodes that answer the query best, by a cross-encoder.

    The model is loaded when the first query comes, once, whichever thread asks; pass a loaded model to pay earlier or
    to share it. One instance may serve many threads.

    Args:
        top_n: nodes to return; all of them, ordered, when fewer come in.
        model: a name of `crossrank models`, a hub name, a folder, or a ready scorer: what `crossrank.load(...)` gave,
            or any object with `score(pairs)`. Options such as device or window belong to `crossrank.load`.
        keep_retrieval_score: write the score a node came with into `metadata["retrieval_score"]` of the copy. It is
            excluded from the texts made for embedding and for the LLM. A value already there is replaced.
        metadata_mode: which metadata is read with the text. The default, `EMBED`, is the text the retriever embedded:
            metadata first, less what the node excludes for embedding. `NONE` reads the node's text alone.
        callback_manager: for the legacy callbacks; the events need no setting.

    Scores of the returned nodes are the model's raw logits (larger is better, no fixed range), best first; equal
    scores keep their incoming order. crossrank's models read no blank node: its score is -inf. A long node is read
    in windows; what was not read at all is told in `metadata["rerank_read"]` of the copy ("25000 of 31000 tokens"), and
    for the query in `metadata["rerank_query_read"]`.

    Raises:
        InputError: `top_n` under 1, or a model that is neither a name nor a scorer.

    >>> from llama_index.core.schema import NodeWithScore, TextNode
    >>> class Length:
    ...     def score(self, pairs):
    ...         return np.array([len(text) for _, text in pairs], np.float32)
    >>> nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in ("ab", "abcd", "abc")]
    >>> best = CrossrankRerank(top_n=2, model=Length()).postprocess_nodes(nodes, query_str="which is longest?")
    >>> [(node.text, node.score, node.metadata["retrieval_score"]) for node in best]
    [('abcd', 4.0, 0.5), ('abc', 3.0, 0.5)]
    """

    model: str = Field(description="Name of the model, or of the scorer that was passed.")
    top_n: int = Field(description="Nodes to return, best first.")
    keep_retrieval_score: bool = Field(default=True, description="Keep the retriever's score in the copy's metadata.")
    metadata_mode: MetadataMode = Field(default=MetadataMode.EMBED, description="Which metadata is read with the text.")
    _scorer: Scorer | None = PrivateAttr(default=None)

    def __init__(
        self,
        top_n: int = 5,
        model: str | Path | Scorer = "small",
        keep_retrieval_score: bool = True,
        metadata_mode: MetadataMode = MetadataMode.EMBED,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        if isinstance(top_n, bool) or not isinstance(top_n, int) or top_n < 1:
            raise InputError(f"top_n must be a whole number of at least 1, not {top_n!r}")
        fields: dict[str, Any] = {
            "model": _name_of(model),
            "top_n": top_n,
            "keep_retrieval_score": keep_retrieval_score,
            "metadata_mode": metadata_mode,
            "callback_manager": callback_manager or CallbackManager(),
        }
        super().__init__(**fields)
        if not isinstance(model, (str, Path)):
            self._scorer = model

    @classmethod
    def class_name(cls) -> str:
        """The name that the host writes into serialized components."""
        return "CrossrankRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("a reranker needs the query: pass query_str=... or query_bundle=... to postprocess_nodes")
        if not nodes:
            return []
        scorer, query = self._ready(), query_bundle.query_str
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: self.top_n,
        }
        best: list[NodeWithScore] = []
        _dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=self.top_n, model_name=self.model))
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                best = self._best(scorer, query, nodes)
                event.on_end(payload={EventPayload.NODES: best})
        finally:
            # Without an end, a tracer shows this step as running for ever; after a failure it ends with no nodes.
            _dispatcher.event(ReRankEndEvent(nodes=best))
        return best

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        # A forward pass is seconds of arithmetic: on the event loop it would stop every other task of the process.
        return await asyncio.to_thread(self._postprocess_nodes, nodes, query_bundle)

    def _ready(self) -> Scorer:
        with _loading:
            if self._scorer is None:
                self._scorer = load(self.model)
            return self._scorer

    def _best(self, scorer: Scorer, query: str, nodes: Sequence[NodeWithScore]) -> list[NodeWithScore]:
        texts = [node.node.get_content(metadata_mode=self.metadata_mode) for node in nodes]
        # The engine takes ids, and a list may hold one node twice: positions are the ids here.
        passages = {str(position): Passage(str(position), text) for position, text in enumerate(texts)}
        arrived = Ranking(tuple(passages), np.zeros(len(nodes), np.float32), head=0)
        stage = Stage(scorer, depth=len(nodes))
        ranking, (trace,) = rerank(query, arrived, [stage], lambda ids: [passages[i] for i in ids])
        cut = {t.position: f"{t.read} of {t.tokens} tokens" for t in trace.truncations if t.read < t.tokens}
        best = []
        for position, score in zip(map(int, ranking.ids[: self.top_n]), ranking.scores.tolist(), strict=False):
            notes = {READ: cut.get(position), QUERY_READ: cut.get(-1)}
            best.append(self._copy(nodes[position], score, {key: note for key, note in notes.items() if note}))
        return best

    def _copy(self, scored: NodeWithScore, score: float, notes: Mapping[str, str]) -> NodeWithScore:
        """A node with its own metadata: the caller's node may live in a store that other queries read."""
        kept = {RETRIEVAL_SCORE: scored.score} if self.keep_retrieval_score else {}
        added: dict[str, Any] = {**kept, **notes}
        node = scored.node
        copied = node.model_copy(
            update={
                "metadata": {**node.metadata, **added},
                # Bookkeeping is not content: no model should read it, nor a second reranker.
                "excluded_embed_metadata_keys": _union(node.excluded_embed_metadata_keys, added),
                "excluded_llm_metadata_keys": _union(node.excluded_llm_metadata_keys, added),
            }
        )
        return scored.model_copy(update={"node": copied, "score": score})


def _name_of(model: str | Path | Scorer) -> str:
    if isinstance(model, (str, Path)):
        return str(model)
    if not callable(getattr(model, "score", None)):
        raise InputError(f"model must be a name, a folder or an object with score(pairs), not {type(model).__name__}")
    return model.checkpoint.name if isinstance(model, CrossEncoder) else type(model).__name__


def _union(keys: Sequence[str], added: Mapping[str, Any]) -> list[str]:
    return [*keys, *(key for key in added if key not in keys)]
