"""LangChain: a document compressor, a cross-encoder for the host's own rerankers, and a retriever over an index.

Documents are copied and keep their metadata. Each class runs off the event loop in the host's `a...` methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from crossrank.cascade import OnError
from crossrank.extras import require
from crossrank.integrations.best import Asked, Scores, Threshold, best
from crossrank.integrations.lists import Model, facts, found, noted, wanted
from crossrank.pipeline import Pipeline
from crossrank.types import Scorer, check_k

require("langchain_core", extra="langchain")

from langchain_core.callbacks import (  # noqa: E402
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
    Callbacks,
)
from langchain_core.cross_encoders import BaseCrossEncoder  # noqa: E402
from langchain_core.documents import BaseDocumentCompressor, Document  # noqa: E402
from langchain_core.retrievers import BaseRetriever  # noqa: E402
from langchain_core.runnables import run_in_executor  # noqa: E402
from pydantic import PrivateAttr, SerializerFunctionWrapHandler, model_serializer  # noqa: E402

SCORE = "relevance_score"  # the host's own rerankers use this key


class CrossrankCompressor(BaseDocumentCompressor):
    """Keep the `top_n` documents that answer the query best, by a cross-encoder.

    The model is loaded when the first query comes. One instance may serve many threads.

    Args:
        top_n: documents to return; all of them, ordered, when fewer come in or it is None.
        model: a name of `crossrank models`, a hub name, a folder, or a scorer.
        load_options: keywords for `crossrank.load`, such as `{"window": 200, "overlap": 50}`; only for names.
        scores: "logit" or "probability", from 0 to 1.
        threshold: only documents that have at least this probability are returned, whatever `scores` says; "model"
            takes the model's own. Like `scores="probability"` it needs a model that gives probabilities, such as
            "small".
        mix: share of the model's score in the order, over 0 and at most 1; the rest is from the documents'
            `metadata["relevance_score"]`, or from their order where one has none. Over what a good hybrid search found
            0.4 is better than the model alone (README, quality). Under 1, scores are mixed ones, which order and mean
            nothing else, and `metadata["probability"]` is there where the model is calibrated.
        budget_ms: milliseconds in which the answer is due: documents that could not be read until then stay behind the
            others, in their order.
        on_error: "keep" returns the documents in the order they came in where the model cannot be loaded or fails, with
            the reason in `metadata["rerank_note"]` and in the log; "raise" passes the error on.

    The score is in `metadata["relevance_score"]` of the copy: larger is better. Logits have no fixed range; a blank
    document has none, and comes last with the lowest other score less 1. What the model did not read whole is told in
    `metadata["rerank_read"]`, and of the query in `metadata["rerank_query_read"]`.

    Raises:
        InputError: `top_n` under 1, a threshold that is no probability, or a model that is neither a name nor a scorer.
            With the first query: probabilities are asked for, and the model gives none.

    >>> import numpy as np
    >>> class Length:
    ...     def score(self, pairs):
    ...         return np.array([len(text) for _, text in pairs], np.float32)
    >>> documents = [Document("ab"), Document("abcd", metadata={"page": 3})]
    >>> CrossrankCompressor(top_n=1, model=Length()).compress_documents(documents, "which is longest?")
    [Document(metadata={'page': 3, 'relevance_score': 4.0}, page_content='abcd')]
    """

    model: str
    top_n: int | None
    load_options: dict[str, Any]
    scores: Scores
    threshold: Threshold
    mix: float
    budget_ms: float | None
    on_error: OnError
    _model: Model = PrivateAttr()

    def __init__(
        self,
        top_n: int | None = 5,
        model: str | Path | Scorer = "small",
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
            "load_options": given.options,
            "scores": scores,
            "threshold": threshold,
            "mix": mix,
            "budget_ms": budget_ms,
            "on_error": on_error,
        }
        super().__init__(**fields)
        self._model = given

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """As pydantic writes it; a model is written by its name, and a scorer is refused with an `InputError`."""
        _ = wanted(self).written
        return super().model_dump(**options)

    def model_dump_json(self, **options: Any) -> str:
        """Like `model_dump`."""
        _ = wanted(self).written
        return super().model_dump_json(**options)

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Within another model pydantic calls no `model_dump`; it turns what is raised here into an error of its own.
        _ = wanted(self).written
        made: dict[str, Any] = handler(self)
        return made

    def __getstate__(self) -> dict[Any, Any]:
        _ = wanted(self).written
        return super().__getstate__()

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The best documents, best first; equal scores keep their incoming order."""
        texts = [document.page_content for document in documents]
        asked = Asked(self.scores, self.threshold, self.mix, self.budget_ms, self.on_error)
        before = [_number(document.metadata.get(SCORE)) for document in documents]
        kept = best(wanted(self).ready_or(self.on_error), query, texts, self.top_n, asked, before)
        return [
            documents[one.position].model_copy(
                update={"metadata": noted({**documents[one.position].metadata, SCORE: one.told}, one.notes)}
            )
            for one in kept
        ]


def _number(value: Any) -> float | None:
    """A score in metadata; None for what is no number."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else None


class CrossrankCrossEncoder(BaseCrossEncoder):
    """A model for what takes a `BaseCrossEncoder`, such as the host's `CrossEncoderReranker`.

    Args:
        model: as for `CrossrankCompressor`.
        load_options: likewise.

    >>> scores = CrossrankCrossEncoder().score([("capital of France", "Paris is its capital."), ("capital", "Bread.")])
    >>> scores[0] > scores[1]
    True
    """

    def __init__(self, model: str | Path | Scorer = "small", load_options: dict[str, Any] | None = None) -> None:
        self._model = Model(model, load_options)

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Raw scores of (query, text) pairs, in their order; -inf for a blank text, because the host sorts numbers."""
        return [float(score) for score in self._model.ready.score(text_pairs)]


class CrossrankRetriever(BaseRetriever):
    """Passages of a crossrank index: BM25, vectors, fusion and reranking in one step.

    Args:
        pipeline: what `crossrank.open_pipeline(...)` gave.
        k: documents to return; `invoke(query, k=5)` returns so many instead, and other keywords are a `TypeError`.
        keep_scores: write `relevance_score` and `probability` into the metadata. Those of one passage are others for
            each query, so that hosts which compare documents, as `MultiQueryRetriever` does, take it for several.
        name: the host's own, for traces, like the next two.
        tags: see `name`.
        metadata: see `name`.

    Metadata of a document are the passage's own, `document`, `title`, where it begins (`file`, `start`, `line`),
    `relevance_score`, a mix of the first stage's score and the reranker's logit that orders and nothing else, and
    `probability` where the reranker read it and is calibrated; where the passage's own have such a name, ours is
    `crossrank_document` and so on. Its id is the passage's.
    """

    # Not `Pipeline`: pydantic would look into it, and copy it.
    pipeline: Any
    k: int = 10
    keep_scores: bool = True

    def __init__(
        self,
        pipeline: Pipeline,
        k: int = 10,
        *,
        keep_scores: bool = True,
        name: str | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        check_k(k)
        kept: dict[str, Any] = {"pipeline": pipeline, "k": k, "keep_scores": keep_scores}
        super().__init__(**kept, name=name, tags=tags, metadata=metadata)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return self._found(query, k)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        # The host's own hands no keywords on.
        return await run_in_executor(None, self._found, query, k)

    def _found(self, query: str, k: int | None) -> list[Document]:
        listed = found(self.pipeline, query, self.k if k is None else k)
        return [
            Document(passage.text, id=passage.id, metadata=facts(passage, **self._scores(score, more)))
            for passage, score, more in listed
        ]

    def _scores(self, score: float, more: Mapping[str, float]) -> dict[str, float]:
        return {SCORE: score, **more} if self.keep_scores else {}
