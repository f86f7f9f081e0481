"""Haystack: a ranker component."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from crossrank.errors import InputError
from crossrank.extras import require
from crossrank.integrations.lists import Model, Scores, Threshold, best, check
from crossrank.types import Scorer

require("haystack", extra="haystack")

from haystack import Document, component, default_from_dict, default_to_dict  # noqa: E402


@component
class CrossrankRanker:
    """Keep the `top_k` documents that answer the query best, by a cross-encoder.

    Args:
        model: a name of `crossrank models`, a hub name, a folder, or a scorer; a scorer cannot be written to a file.
        top_k: documents to return; all of them, ordered, when fewer come in or it is None.
        meta_fields_to_embed: fields of `meta` that the model reads before the content, each on its own line; absent,
            None and empty ones are left out.
        load_options: keywords for `crossrank.load`, such as `{"window": 200, "overlap": 50}`; only for names.
        scores: "logit" or "probability", from 0 to 1, as the host's rankers give with `scale_score`.
        threshold: only documents that have at least this probability are returned, whatever `scores` says; "model"
            takes the model's own. Like `scores="probability"` it needs a model that gives probabilities, such as
            "small".

    Documents are copied; in `score` larger is better. Logits have no fixed range. A document without content is read
    as a blank one and comes last, with a logit of -inf, which JSON does not have. What the model did not read whole is
    told in `meta["rerank_read"]`, and of the query in `meta["rerank_query_read"]`. The model is loaded by `warm_up`, or
    when the first query comes. To read a pipeline from a file the host wants the module named: `Pipeline.load(file,
    allowed_modules=["crossrank.integrations.*"])`.

    Raises:
        InputError: `top_k` under 1, a threshold that is no probability, a model that is neither a name nor a scorer, or
            one string in the place of a list of fields. With the first query: probabilities are asked for, and the
            model gives none.

    >>> import numpy as np
    >>> class Length:
    ...     def score(self, pairs):
    ...         return np.array([len(text) for _, text in pairs], np.float32)
    >>> ranker = CrossrankRanker(model=Length(), top_k=1)
    >>> found = ranker.run(query="which is longest?", documents=[Document(content="ab"), Document(content="abcd")])
    >>> [(document.content, document.score) for document in found["documents"]]
    [('abcd', 4.0)]
    """

    def __init__(
        self,
        model: str | Scorer = "small",
        top_k: int | None = 10,
        meta_fields_to_embed: Sequence[str] = (),
        load_options: dict[str, Any] | None = None,
        scores: Scores = "logit",
        threshold: Threshold = None,
    ) -> None:
        check(top_k, "top_k", scores, threshold)
        if isinstance(meta_fields_to_embed, str):
            raise InputError(
                f"meta_fields_to_embed is a list of names, so one is meta_fields_to_embed=[{meta_fields_to_embed!r}]"
            )
        self.model = Model(model, load_options)
        self.top_k = top_k
        self.meta_fields_to_embed = list(meta_fields_to_embed)
        self.scores = scores
        self.threshold = threshold

    @property
    def load_options(self) -> dict[str, Any]:
        """Those of the model; other ones need a new component."""
        return self.model.options

    def warm_up(self) -> None:
        """Load the model."""
        _ = self.model.ready

    def to_dict(self) -> dict[str, Any]:
        """As the host writes components; a model is written by its name.

        Raises:
            InputError: the model was given as a scorer.
        """
        return default_to_dict(
            self,
            model=self.model.written,
            top_k=self.top_k,
            meta_fields_to_embed=self.meta_fields_to_embed,
            load_options=self.load_options,
            scores=self.scores,
            threshold=self.threshold,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CrossrankRanker:
        """The component that `to_dict` wrote."""
        made: CrossrankRanker = default_from_dict(cls, data)
        return made

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """The best documents, best first; equal scores keep their incoming order.

        Args:
            query: what the user asks.
            documents: of a retriever or joiner; not changed.
            top_k: instead of the component's.
        """
        k = self.top_k if top_k is None else top_k
        check(k, "top_k", self.scores, self.threshold)
        texts = [self._text(document) for document in documents]
        found = best(self.model.ready, query, texts, k, self.scores, self.threshold)
        made = [
            replace(documents[one.position], score=one.score, meta={**documents[one.position].meta, **one.notes})
            for one in found
        ]
        return {"documents": made}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, documents: list[Document], top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """As `run`, in a thread: a forward pass on the event loop would stop every other task."""
        return await asyncio.to_thread(self.run, query, documents, top_k)

    def _text(self, document: Document) -> str:
        values = [document.meta.get(name) for name in self.meta_fields_to_embed]
        # 0 and False say something.
        fields = [str(value) for value in values if value not in (None, "", [], {})]
        return "\n".join([*fields, document.content or ""])
