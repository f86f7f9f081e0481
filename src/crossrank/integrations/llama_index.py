"""LlamaIndex: a node postprocessor that reranks what a retriever found, and a retriever over a crossrank index.

The postprocessor does what the host's contract leaves open: nodes are copied, so that a node shared with an in-memory
store never changes; the retriever's score stays in the copy's metadata, out of every text that a model reads; each
start event has its end event, also when scoring fails; and nothing is emitted when there is nothing to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossrank.cascade import OnError
from crossrank.errors import InputError
from crossrank.extras import require
from crossrank.integrations.best import Asked, Scores, Threshold, best
from crossrank.integrations.lists import Model, facts, found, free, noted, wanted
from crossrank.pipeline import Pipeline
from crossrank.types import Passage, Scorer, check_k

require("llama_index", extra="llama-index")

from llama_index.core.base.base_retriever import BaseRetriever  # noqa: E402
from llama_index.core.bridge.pydantic import (  # noqa: E402
    Field,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload  # noqa: E402
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]  # noqa: E402
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent  # noqa: E402
from llama_index.core.postprocessor.types import BaseNodePostprocessor  # noqa: E402
from llama_index.core.schema import (  # noqa: E402
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)

RETRIEVAL_SCORE = "retrieval_score"  # the host's own rerankers use this key too

_dispatcher = get_dispatcher(__name__)


class CrossrankRerank(BaseNodePostprocessor):
    """Keep the `top_n` nodes that answer the query best, by a cross-encoder.

    The model is loaded when the first query comes, once, whichever thread asks; pass a loaded model to pay earlier or
    to share it. One instance may serve many threads.

    Args:
        top_n: nodes to return; all of them, ordered, when fewer come in or it is None.
        model: a name of `crossrank models`, a hub name, a folder, or a ready scorer: what `crossrank.load(...)` gave,
            or any object with `score(pairs)`.
        load_options: keywords for `crossrank.load`, such as `{"window": 200, "overlap": 50}`; only for names.
        keep_retrieval_score: write the score a node came with into `metadata["retrieval_score"]` of the copy. It is
            excluded from the texts made for embedding and for the LLM. A value already there is replaced.
        metadata_mode: which metadata is read with the text. The default, `EMBED`, is the text the retriever embedded:
            metadata first, less what the node excludes for embedding. `NONE` reads the node's text alone.
        callback_manager: for the legacy callbacks; the events need no setting.
        scores: "logit" or "probability", from 0 to 1, which the host's `SimilarityPostprocessor` expects.
        threshold: only nodes that have at least this probability are returned, whatever `scores` says; "model" takes
            the model's own. Like `scores="probability"` it needs a model that gives probabilities, such as "small".
        mix: share of the model's score in the order, over 0 and at most 1; the rest is from the scores that the nodes
            came with, or from their order where one has none. Over what a good hybrid search found 0.4 is better than
            the model alone (README, quality). Under 1, scores are mixed ones, which order and mean nothing else, and
            `metadata["probability"]` is there where the model is calibrated.
        budget_ms: milliseconds in which the answer is due: nodes that could not be read until then stay behind the
            others, in their order.
        on_error: "keep" returns the nodes in the order they came in where the model cannot be loaded or fails, with the
            reason in `metadata["rerank_note"]` and in the log; "raise" passes the error on.

    Scores of the returned nodes are the model's raw logits (larger is better, no fixed range), best first; equal
    scores keep their incoming order. crossrank's models read no blank node: it has no logit, and its score is the
    lowest other one less 1, because the host takes None for 0, above negative logits. A long node is read in windows;
    what was not read at all is told in `metadata["rerank_read"]` of the copy ("25000 of 31000 tokens"), and
    for the query in `metadata["rerank_query_read"]`.

    Raises:
        InputError: `top_n` under 1, a threshold that is no probability, or a model that is neither a name nor a scorer.
            With the first query: probabilities are asked for, and the model gives none.

    >>> import numpy as np
    >>> class Length:
    ...     def score(self, pairs):
    ...         return np.array([len(text) for _, text in pairs], np.float32)
    >>> nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in ("ab", "abcd", "abc")]
    >>> best = CrossrankRerank(top_n=2, model=Length()).postprocess_nodes(nodes, query_str="which is longest?")
    >>> [(node.text, node.score, node.metadata["retrieval_score"]) for node in best]
    [('abcd', 4.0, 0.5), ('abc', 3.0, 0.5)]
    """

    model: str = Field(description="Name of the model, or of the scorer that was passed.")
    top_n: int | None = Field(description="Nodes to return, best first; None returns all.")
    keep_retrieval_score: bool = Field(default=True, description="Keep the retriever's score in the copy's metadata.")
    metadata_mode: MetadataMode = Field(default=MetadataMode.EMBED, description="Which metadata is read with the text.")
    load_options: dict[str, Any] = Field(default_factory=dict, description="Keywords for crossrank.load.")
    scores: Scores = Field(default="logit", description="What the score of a returned node is.")
    threshold: Threshold = Field(default=None, description="The least probability of a returned node.")
    mix: float = Field(default=1.0, description="Share of the model's score; the rest is of the scores before.")
    budget_ms: float | None = Field(default=None, description="Milliseconds in which the answer is due.")
    on_error: OnError = Field(default="raise", description="What is done where the model fails.")
    _model: Model = PrivateAttr()

    def __init__(
        self,
        top_n: int | None = 5,
        model: str | Path | Scorer = "small",
        keep_retrieval_score: bool = True,
        metadata_mode: MetadataMode = MetadataMode.EMBED,
        callback_manager: CallbackManager | None = None,
        load_options: dict[str, Any] | None = None,
        scores: Scores = "logit",
        threshold: Threshold = None,
        mix: float = 1.0,
        budget_ms: float | None = None,
        on_error: OnError = "raise",
    ) -> None:
        if top_n is not None:
            check_k(top_n, "top_n")
        Asked(scores, threshold, mix, budget_ms, on_error)
        given = Model(model, load_options)
        fields: dict[str, Any] = {
            "model": given.name,
            "top_n": top_n,
            "keep_retrieval_score": keep_retrieval_score,
            "metadata_mode": metadata_mode,
            "load_options": given.options,
            "callback_manager": callback_manager or CallbackManager(),
            "scores": scores,
            "threshold": threshold,
            "mix": mix,
            "budget_ms": budget_ms,
            "on_error": on_error,
        }
        super().__init__(**fields)
        self._model = given

    @classmethod
    def class_name(cls) -> str:
        """The name that the host writes into serialized components."""
        return "CrossrankRerank"

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """As pydantic writes it; a model is written by its name, and a scorer is refused with an `InputError`."""
        _ = wanted(self).written
        return super().model_dump(**options)

    def model_dump_json(self, **options: Any) -> str:
        """Like `model_dump`."""
        _ = wanted(self).written
        return super().model_dump_json(**options)

    @model_serializer(mode="wrap")
    def custom_model_dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """The host's own, which adds the class name."""
        # Within another model pydantic calls no `model_dump`; it turns what is raised here into an error of its own.
        _ = wanted(self).written
        made: dict[str, Any] = super().custom_model_dump(handler, info)
        return made

    def __getstate__(self) -> dict[str, Any]:
        # The host leaves out what cannot be pickled, and would load a model by the scorer's name.
        _ = wanted(self).written
        return super().__getstate__()

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("a reranker needs the query: pass query_str=... or query_bundle=... to postprocess_nodes")
        if not nodes:
            return []
        scorer, query = wanted(self).ready_or(self.on_error), query_bundle.query_str
        most = len(nodes) if self.top_n is None else self.top_n
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: most,
        }
        best: list[NodeWithScore] = []
        _dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=most, model_name=self.model))
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

    def _best(self, scorer: Scorer, query: str, nodes: Sequence[NodeWithScore]) -> list[NodeWithScore]:
        texts = [node.node.get_content(metadata_mode=self.metadata_mode) for node in nodes]
        asked = Asked(self.scores, self.threshold, self.mix, self.budget_ms, self.on_error)
        kept = best(scorer, query, texts, self.top_n, asked, [node.score for node in nodes])
        return [self._copy(nodes[one.position], one.told, one.notes) for one in kept]

    def _copy(self, scored: NodeWithScore, score: float, notes: Mapping[str, Any]) -> NodeWithScore:
        """A node with its own metadata: the caller's node may live in a store that other queries read."""
        kept = {RETRIEVAL_SCORE: scored.score} if self.keep_retrieval_score else {}
        node = scored.node
        made = noted({**node.metadata, **kept}, notes)
        added = [name for name in made if name in kept or name not in node.metadata]
        copied = node.model_copy(
            update={
                "metadata": made,
                # Bookkeeping is not content: no model should read it, nor a second reranker.
                "excluded_embed_metadata_keys": _union(node.excluded_embed_metadata_keys, added),
                "excluded_llm_metadata_keys": _union(node.excluded_llm_metadata_keys, added),
            }
        )
        return scored.model_copy(update={"node": copied, "score": score})


class CrossrankRetriever(BaseRetriever):
    """Passages of a crossrank index: BM25, vectors, fusion and reranking in one step.

    Args:
        pipeline: what `crossrank.open_pipeline(...)` gave.
        k: nodes to return.
        callback_manager: for the legacy callbacks.

    A node has the passage's id, text and metadata, its document as the host's `ref_doc_id`, `document`, `title`, and
    where it begins (`file`, `start`, `line`); of these a model is given the title and the document alone. `probability`
    is there too, where the reranker read the passage and is calibrated; the node's score is a mix of the first stage's
    score and the reranker's logit, which orders and nothing else. Where the passage's metadata have such a name
    themselves, ours is `crossrank_document` and so on.
    """

    def __init__(self, pipeline: Pipeline, k: int = 10, callback_manager: CallbackManager | None = None) -> None:
        check_k(k)
        super().__init__(callback_manager=callback_manager)
        self.pipeline = pipeline
        self.k = k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [
            NodeWithScore(node=_node(passage, more), score=score)
            for passage, score, more in found(self.pipeline, query_bundle.query_str, self.k)
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        # The host would run `_retrieve` on the event loop.
        return await asyncio.to_thread(self._retrieve, query_bundle)


class _Found(TextNode):
    """A node whose identity is the passage's: the host merges what several queries found by `hash`, which holds the
    metadata, and the probability of one passage is another for each query."""

    _of_query: frozenset[str] = PrivateAttr(default=frozenset())

    @property
    def hash(self) -> str:
        """As the host makes it, without what the query added."""
        own = {name: value for name, value in self.metadata.items() if name not in self._of_query}
        return TextNode(text=self.text, metadata=own).hash


def _node(passage: Passage, more: Mapping[str, float]) -> TextNode:
    hidden = [free(passage, name) for name in ("file", "start", "line", *more)]
    fields: dict[str, Any] = {
        "id_": passage.id,
        "text": passage.text,
        "metadata": facts(passage, **more),
        # The host's `ref_doc_id`, by which others group nodes and cite.
        "relationships": {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=passage.document)}
        if passage.document
        else {},
        "excluded_embed_metadata_keys": hidden,
        "excluded_llm_metadata_keys": list(hidden),
    }
    made = _Found(**fields)
    made._of_query = frozenset(free(passage, name) for name in more)
    return made


def _union(keys: Sequence[str], added: Sequence[str]) -> list[str]:
    return [*keys, *(key for key in added if key not in keys)]
