"""Haystack: a ranker component, and a retriever over a crossrank index."""

from __future__ import annotations

import asyncio
import copy
import math
import threading
from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from crossrank.cascade import OnError
from crossrank.errors import InputError
from crossrank.extras import require
from crossrank.integrations.best import Asked, Scores, Threshold, best
from crossrank.integrations.lists import Model, facts, found, noted, plain
from crossrank.pipeline import Pipeline, open_pipeline
from crossrank.types import Scorer, check_k

require("haystack", extra="haystack")

from haystack import Document, component, default_from_dict, default_to_dict  # noqa: E402

# One lock for all: it is held only while an index is opened, and a component can be copied without it.
_opening = threading.Lock()


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
        mix: share of the model's score in the order, over 0 and at most 1; the rest is from the scores that the
            documents came with, or from their order where one has none. Over what a good hybrid search found 0.4 is
            better than the model alone (README, quality). Under 1, scores are mixed ones, which order and mean nothing
            else, and `meta["probability"]` is there where the model is calibrated.
        budget_ms: milliseconds in which the answer is due: documents that could not be read until then stay behind the
            others, in their order.
        on_error: "keep" returns the documents in the order they came in where the model cannot be loaded or fails, with
            the reason in `meta["rerank_note"]` and in the log; "raise" passes the error on.

    Documents are copied; in `score` larger is better. Logits have no fixed range. A document without content is read
    as a blank one and comes last: it has no logit, and its score is the lowest other one less 1, because the host's
    joiners take None for 0, above negative logits. What the model did not read whole is
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
        mix: float = 1.0,
        budget_ms: float | None = None,
        on_error: OnError = "raise",
    ) -> None:
        if top_k is not None:
            check_k(top_k, "top_k")
        Asked(scores, threshold, mix, budget_ms, on_error)
        if isinstance(meta_fields_to_embed, str):
            raise InputError(
                f"meta_fields_to_embed is a list of names, so one is meta_fields_to_embed=[{meta_fields_to_embed!r}]"
            )
        self.model = Model(model, load_options)
        self.meta_fields_to_embed = list(meta_fields_to_embed)
        self.scores = scores
        # The host writes no numbers of NumPy.
        self.top_k = None if top_k is None else int(top_k)
        self.threshold: Threshold = threshold if threshold is None or threshold == "model" else float(threshold)
        self.mix = float(mix)
        self.budget_ms = None if budget_ms is None else float(budget_ms)
        self.on_error = on_error

    @property
    def load_options(self) -> dict[str, Any]:
        """Those of the model; other ones need a new component."""
        return self.model.options

    def warm_up(self) -> None:
        """Load the model."""
        _ = self.model.ready_or(self.on_error)

    def to_dict(self) -> dict[str, Any]:
        """As the host writes components; a model is written by its name.

        Raises:
            InputError: the model was given as a scorer, or an option as an object.
        """
        return default_to_dict(
            self,
            model=self.model.written,
            top_k=self.top_k,
            meta_fields_to_embed=self.meta_fields_to_embed,
            load_options=plain(self.load_options, "load_options"),
            scores=self.scores,
            threshold=self.threshold,
            mix=self.mix,
            budget_ms=self.budget_ms,
            on_error=self.on_error,
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
        if k is not None:
            check_k(k, "top_k")
        texts = [self._text(document) for document in documents]
        asked = Asked(self.scores, self.threshold, self.mix, self.budget_ms, self.on_error)
        before = [document.score for document in documents]
        kept = best(self.model.ready_or(self.on_error), query, texts, k, asked, before)
        made = [
            replace(documents[one.position], score=one.told, meta=noted(documents[one.position].meta, one.notes))
            for one in kept
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
        # 0 and False say something, and rows of tables hold NumPy's, which compare as arrays do.
        fields = [
            str(value) for value in values if not (value is None or (isinstance(value, Sized) and not len(value)))
        ]
        return "\n".join([*fields, document.content or ""])


@component
class CrossrankRetriever:
    """Passages of a crossrank index: BM25, vectors, fusion and reranking in one step.

    Args:
        pipeline: a folder that `crossrank index` made, or what `crossrank.open_pipeline(...)` gave, which cannot be
            written to a file.
        top_k: documents to return.
        open_options: keywords for `crossrank.open_pipeline`, such as `{"model": "fast", "where": "lang=en"}`; only for
            folders.

    A document has the passage's id, its text as content, and in `meta` the passage's own, `document`, `title`, where it
    begins (`file`, `start`, `line`), and `probability` where the reranker read it and is calibrated; where the
    passage's own have such a name, ours is `crossrank_document` and so on. `score` is a mix of the first stage's score
    and the reranker's logit, which orders and nothing else. A folder is opened by `warm_up`, or when the first query
    comes; deep copies made after that read the same open index.

    Raises:
        InputError: `top_k` under 1, neither a folder nor a pipeline, or options for a pipeline that is open already.
    """

    def __init__(
        self, pipeline: str | Path | Pipeline, top_k: int = 10, open_options: dict[str, Any] | None = None
    ) -> None:
        check_k(top_k, "top_k")
        if not isinstance(pipeline, (str, Path, Pipeline)):
            raise InputError(
                "pipeline must be the folder of an index or what crossrank.open_pipeline(...) gave, not "
                f"{type(pipeline).__name__}"
            )
        if isinstance(pipeline, Pipeline) and open_options:
            raise InputError("open_options are for a pipeline that is given by its folder; this one is open already")
        self.top_k = top_k
        self._options = dict(open_options or {})
        self._folder = None if isinstance(pipeline, Pipeline) else str(pipeline)
        self._pipeline = pipeline if isinstance(pipeline, Pipeline) else None

    def __deepcopy__(self, memo: dict[int, Any]) -> CrossrankRetriever:
        # An open index cannot be copied, and need not be: it is only read.
        memo[id(self._pipeline)] = self._pipeline
        made = object.__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    @property
    def open_options(self) -> dict[str, Any]:
        """The keywords it is opened with; other ones need a new component."""
        return dict(self._options)

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline, opened when it is first asked for."""
        if self._pipeline is None:
            with _opening:
                if self._pipeline is None:
                    assert self._folder is not None
                    self._pipeline = open_pipeline(self._folder, **self._options)
        return self._pipeline

    def warm_up(self) -> None:
        """Open the index and load its models."""
        _ = self.pipeline

    def to_dict(self) -> dict[str, Any]:
        """As the host writes components; a pipeline is written by its folder.

        Raises:
            InputError: it was given open, or an option as an object.
        """
        if self._folder is None:
            raise InputError(
                "a pipeline that is open already cannot be written to a file: give the folder of its index, with "
                "open_options={...} for crossrank.open_pipeline"
            )
        options = plain(self._options, "open_options")
        return default_to_dict(self, pipeline=self._folder, top_k=self.top_k, open_options=options)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CrossrankRetriever:
        """The component that `to_dict` wrote."""
        made: CrossrankRetriever = default_from_dict(cls, data)
        return made

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, top_k: int | None = None, filters: dict[str, Any] | None = None
    ) -> dict[str, list[Document]]:
        """The best passages, best first.

        Args:
            query: what the user asks.
            top_k: instead of the component's.
            filters: the host's, beside those that the pipeline was opened with: comparisons, `in`, `not in`, and `AND`
                of them. `OR`, `NOT` and `in` an empty list are refused. Where nothing meets them, a warning in the log
                of `crossrank.integrations.lists` says what is likely wrong, such as a field that no passage has.

        Raises:
            InputError: a blank query, a `top_k` under 1, or filters that crossrank does not have.
        """
        k = self.top_k if top_k is None else top_k
        check_k(k, "top_k")
        where = conditions(filters) if filters else None
        return {
            "documents": [
                Document(id=passage.id, content=passage.text, meta=facts(passage, **more), score=score)
                for passage, score, more in found(self.pipeline, query, k, where)
            ]
        }

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, top_k: int | None = None, filters: dict[str, Any] | None = None
    ) -> dict[str, list[Document]]:
        """As `run`, in a thread."""
        return await asyncio.to_thread(self.run, query, top_k, filters)


def conditions(filters: Mapping[str, Any]) -> list[str]:
    """The host's filters as crossrank's, which must all hold.

    Raises:
        InputError: what is asked cannot be said so.

    >>> year = {"field": "meta.year", "operator": ">=", "value": 2020}
    >>> conditions({"operator": "AND", "conditions": [year, {"field": "meta.lang", "operator": "==", "value": "en"}]})
    ['"year">=2020', '"lang"=="en"']
    """
    if not isinstance(filters, Mapping):
        raise InputError(f"crossrank takes a filter as a mapping with field, operator and value, not as {filters!r}")
    operator, field = filters.get("operator"), filters.get("field")
    if field is None and operator == "AND" and isinstance(filters.get("conditions"), list):
        return [one for part in filters["conditions"] for one in conditions(part)]
    if not isinstance(field, str) or "value" not in filters:
        raise InputError(f"crossrank joins comparisons by AND alone, so this filter cannot be asked: {filters!r}")
    value, name = filters["value"], _quoted(field.removeprefix("meta."))
    if operator == "not in" and isinstance(value, list):
        return [f"{name}!={_value(one, filters)}" for one in value]
    if operator == "in" and isinstance(value, list) and value:
        return [f"{name} in ({', '.join(_value(one, filters) for one in value)})"]
    if operator not in ("==", "!=", ">", ">=", "<", "<="):
        raise InputError(f"the operator {operator!r} is none of crossrank's (== != > >= < <=, in, not in): {filters!r}")
    return [f"{name}{operator}{_value(value, filters)}"]


def _value(value: Any, filters: Mapping[str, Any]) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, (bool, np.bool_)):
        return str(value).lower()
    # NumPy's numbers, too, which write their type beside their value.
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real) and math.isfinite(value):
        return repr(float(value))
    raise InputError(f"crossrank compares with strings, numbers, true and false, not with {value!r}: {filters!r}")


def _quoted(text: str) -> str:
    told = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{told}"'
