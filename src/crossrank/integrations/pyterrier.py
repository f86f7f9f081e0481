"""PyTerrier: a transformer that reranks a frame of results, and one that searches a crossrank index.

Frames go in and frames come out, as the host's data model has them; nothing here starts its Java engine. What is set on
a transformer later, as `pt.GridSearch` does, holds from then on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from crossrank.calibration import without_probabilities
from crossrank.cascade import mixed
from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError, ScoreError
from crossrank.extras import require
from crossrank.falling import falling, finite
from crossrank.grouping import owner_of
from crossrank.integrations.best import Asked, Scores
from crossrank.integrations.lists import Model, wanted
from crossrank.pipeline import Pipeline
from crossrank.scored import Progress, Scored, as_scores, scored_by
from crossrank.scorers import PairScorer, name_of
from crossrank.types import NotingScorer, Ranking, Scorer, check_k
from crossrank.unicode import is_blank

require("pyterrier", extra="pyterrier")

import pandas as pd  # noqa: E402
import pyterrier as pt  # noqa: E402

Docno = Literal["document", "passage"]
_FOUND = ["docno", "score", "rank", "text"]
_log = logging.getLogger(__name__)


class CrossrankReranker(pt.Transformer):
    """Score each row of a frame of results by a cross-encoder or a late-interaction model, and rank by that.

    Args:
        model: a name of `crossrank models` ("small", "late"), a hub name, a folder, or a scorer; loaded with the first
            row.
        text_field: the column that is read.
        load_options: keywords for `crossrank.load`, such as `{"window": 200, "overlap": 50}`; only for names.
        scores: "logit", the model's raw score, or "probability", from 0 to 1.
        mix: share of the model's score in the new one, over 0 and at most 1; the rest is from the column `score`. Both
            are standardized over the rows of a query. Over what a good hybrid search found 0.4 is better than the model
            alone (README, quality). Under 1, scores order and mean nothing else.
        verbose: show a progress bar of pairs; language models and scorers of your own have none.

    In: `qid`, `query`, `docno`, the text, and `score` where `mix` is under 1. Out: the same rows in the same order with
    all their columns, and `score` and `rank` (from 0) anew; equal scores rank in the order of the rows. Rows are scored
    together, whatever their query: each query and each text is tokenized once, and equal pairs are scored once. So the
    frame may hold a document twice, and both rows stay. A blank text has no logit, and gets 1 less than the lowest
    other one of its query. Texts and queries that were not read to their end are counted in the log, with the first.

    Raises:
        InputError: a model that is neither a name nor a scorer, an unknown `scores`, or a `mix` that is no share. With
            a frame: a text, a `qid` or a `docno` is missing (None or NaN), a query is blank, or probabilities are asked
            for and the model gives none. A column that is missing is the host's `pt.validate.InputValidationError`.
        ScoreError: the model gives NaN.

    >>> class Length:
    ...     def score(self, pairs):
    ...         return np.array([len(text) for _, text in pairs], np.float32)
    >>> rows = [["1", "tea?", "a", "Tea."], ["1", "tea?", "b", "Tea is hot."], ["2", "bread?", "a", "Tea."]]
    >>> frame = pd.DataFrame(rows, columns=["qid", "query", "docno", "text"])
    >>> CrossrankReranker(Length())(frame)[["qid", "docno", "score", "rank"]].values.tolist()
    [['1', 'a', 4.0, 1], ['1', 'b', 11.0, 0], ['2', 'a', 4.0, 0]]
    """

    def __init__(
        self,
        model: str | Path | Scorer = "small",
        *,
        text_field: str = "text",
        load_options: Mapping[str, Any] | None = None,
        scores: Scores = "logit",
        mix: float = 1.0,
        verbose: bool = False,
    ) -> None:
        Asked(scores=scores, mix=mix)
        self._model = Model(model, load_options)
        self.model = self._model.name
        self.load_options = self._model.options
        self.text_field = text_field
        self.scores: Scores = scores
        self.mix = mix
        self.verbose = verbose

    def __repr__(self) -> str:
        usual = {"text_field": "text", "load_options": {}, "scores": "logit", "mix": 1.0}
        told = [f"{name}={getattr(self, name)!r}" for name, value in usual.items() if getattr(self, name) != value]
        return f"{type(self).__name__}({', '.join([repr(self.model), *told])})"

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """The frame with `score` and `rank`; it is copied."""
        Asked(scores=self.scores, mix=self.mix)
        before = ["score"] if self.mix < 1.0 else []
        pt.validate.result_frame(inp, extra_columns=["query", self.text_field, *before])
        _check_rows(inp, "docno")
        pairs = list(zip(_queries(inp), self._texts(inp), strict=True))
        came = _came(inp) if before else None
        # Nothing loads for no rows: the host asks with an empty frame which columns come out.
        new = self._scores(inp, pairs, came) if pairs else np.zeros(0)
        made = inp.drop(columns=["score", "rank"], errors="ignore").assign(score=new)
        return pt.model.add_ranks(made)

    def _texts(self, inp: pd.DataFrame) -> list[str]:
        texts: list[str] = inp[self.text_field].tolist()
        wrong = [row for row, text in enumerate(texts) if not isinstance(text, str)]
        if wrong:
            field = self.text_field
            raise InputError(
                f"{field!r} is no string in {len(wrong)} of {len(texts)} rows, first in {_row(inp, wrong[0])}, which "
                f"has {texts[wrong[0]]!r:.40}: load texts with pt.text.get_text(...), or say that a document has none "
                f"with frame.fillna({{{field!r}: ''}})"
            )
        return texts

    def _scores(
        self, inp: pd.DataFrame, pairs: list[tuple[str, str]], came: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        """The new scores, shape (rows,), in the order of the rows; mixed with those that they came with, if given."""
        scorer = wanted(self).ready
        probability = _probability(scorer) if self.scores == "probability" else None
        with _bar(repr(self), self.verbose and isinstance(scorer, PairScorer)) as progress:
            scored = _scored(scorer, pairs, _order(inp), progress)
        bad = np.flatnonzero(np.isnan(scored.scores) | np.isposinf(scored.scores))
        if len(bad):
            raise ScoreError(
                f"{name_of(scorer)} gives {scored.scores[bad[0]]} for {_row(inp, bad[0])}, so there is no order; of a "
                "model of crossrank, try load_options={'dtype': 'float32'}"
            )
        for note in _notes(scorer, scored, inp, pairs):
            _log.warning("%r: %s", self, note)
        raw = scored.scores if probability is None else probability(scored.scores)
        made = raw.astype(np.float64)
        for rows in inp.groupby("qid", sort=False).indices.values():
            own = made[rows] if came is None else _mixed(raw[rows], came[rows], self.mix)
            made[rows] = finite(own.tolist())
        return made


class CrossrankRetriever(pt.Transformer):
    """Search a crossrank index: BM25, vectors, fusion and reranking in one step.

    Args:
        pipeline: what `crossrank.open_pipeline(...)` gave; with `rerank=False`, the first stage alone.
        k: rows for each query, at most. The pipeline's `depth` (100) bounds what each of its retrievers finds.
        docno: "document" gives the id of the document, which judgments name, and its best passage alone; "passage" the
            passage's own id, and as many of a document as were found.

    In: `qid` and `query`. Out: for each of these rows, with all its columns, up to `k` with `docno`, `score`, `rank`
    (from 0) and `text`, best first. `text` is the passage as models read it, its title first. `score` orders the rows
    of a query and means nothing else: mostly a mix of the first stage's score and the reranker's. Equal queries are
    searched once. What steps of the pipeline could not do as they should is counted in the log, with the first.

    Raises:
        InputError: no pipeline, a `k` under 1, or another `docno`. With a frame: a `qid` is missing, or a query blank.
            A column that is missing is the host's `pt.validate.InputValidationError`.

    >>> from crossrank import Passage
    >>> class Newest:
    ...     def retrieve(self, queries, depth):
    ...         return [Ranking.sorted(["a#2", "a#1", "b#1"], [3, 2, 1]) for _ in queries]
    >>> texts = {name: Passage(name, f"Text of {name}.", document=name[0]) for name in ("a#1", "a#2", "b#1")}
    >>> pipeline = Pipeline({"newest": Newest()}, lambda ids: [texts[i] for i in ids])
    >>> CrossrankRetriever(pipeline).search("tea?")[["qid", "docno", "rank", "text"]].values.tolist()
    [['1', 'a', 0, 'Text of a#2.'], ['1', 'b', 1, 'Text of b#1.']]
    """

    def __init__(self, pipeline: Pipeline, k: int = 100, *, docno: Docno = "document") -> None:
        if not isinstance(pipeline, Pipeline):
            raise InputError(f"pipeline must be what crossrank.open_pipeline(...) gave, not {type(pipeline).__name__}")
        self.pipeline = pipeline
        self.k = k
        self.docno: Docno = docno
        self._check()

    def __repr__(self) -> str:
        steps = [" + ".join(self.pipeline.retrievers), *(stage.name for stage in self.pipeline.stages)]
        told = "" if self.docno == "document" else f", docno={self.docno!r}"
        return f"{type(self).__name__}({' >> '.join(steps)}, k={self.k}{told})"

    def _check(self) -> None:
        check_k(self.k)
        if self.docno not in get_args(Docno):
            raise InputError(f'docno is "document" or "passage", not {self.docno!r}')

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """A frame of results for a frame of queries, in their order."""
        self._check()
        pt.validate.query_frame(inp, extra_columns=["query"])
        _check_rows(inp)
        queries = _queries(inp)
        found = self._found(list(dict.fromkeys(queries)))
        rows = [(row, *one) for row, query in enumerate(queries) for one in found[query]]
        places, ids, scores, texts = (
            ([list(column) for column in zip(*rows, strict=True)]) if rows else ([], [], [], [])
        )
        made = inp.drop(columns=_FOUND, errors="ignore").iloc[places].reset_index(drop=True)
        made = made.assign(docno=ids, score=np.array(scores, np.float64))
        return pt.model.add_ranks(made).assign(text=texts)

    def _found(self, queries: Sequence[str]) -> dict[str, list[tuple[str, float, str]]]:
        """Of each query the ids, scores and texts, best first."""
        made: dict[str, list[tuple[str, float, str]]] = {}
        said: list[str] = []
        one = self.docno == "document"
        for query in queries:
            answer = self.pipeline.search(query, self.k, per_document=1 if one else None)
            made[query] = [
                (owner_of(passage) if one else passage.id, score, passage.scored_text)
                for passage, score in zip(answer.passages, falling(answer.ranking), strict=True)
            ]
            # Why a document is there once was asked for.
            notes = [note for note in answer.notes if note not in answer.grouped]
            said += [f"{query!r:.80}: {'; '.join(notes)}"] if notes else []
        if said:
            _log.warning("%r: of %d queries %d have notes, the first %s", self, len(queries), len(said), said[0])
        return made


def _check_rows(inp: pd.DataFrame, *others: str) -> None:
    """Refuse rows that the host could not group, or judge."""
    for name in ("qid", *others):
        wrong = np.flatnonzero(inp[name].isna())
        if len(wrong):
            raise InputError(
                f"{name!r} is missing (None or NaN) in {len(wrong)} of {len(inp)} rows, first in row {wrong[0]}"
            )


def _queries(inp: pd.DataFrame) -> list[str]:
    """The queries of all rows; refuse what is no text, or a blank one, with its `qid`."""
    queries: list[str] = inp["query"].tolist()
    for row, query in enumerate(queries):
        if not isinstance(query, str) or is_blank(query):
            raise InputError(
                f"the query of qid {inp['qid'].iloc[row]!r} is {query!r:.40}; it must be a text to ask something"
            )
    return queries


def _row(inp: pd.DataFrame, row: int) -> str:
    """Which row it is, for people."""
    return f"row {row} (qid {inp['qid'].iloc[row]!r}, docno {inp['docno'].iloc[row]!r})"


def _probability(scorer: Scorer) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """What makes probabilities of the scorer's scores; refuse one that has none before it reads anything."""
    if not isinstance(scorer, CrossEncoder):
        raise InputError(without_probabilities(name_of(scorer), "scores"))
    scorer.probability(np.zeros(0, np.float32))
    return scorer.probability


def _order(inp: pd.DataFrame) -> NDArray[np.int64]:
    """The rows by the ranks that they came with: transformers before this one may have left them anywhere."""
    if "rank" not in inp.columns:
        return np.arange(len(inp))
    return np.argsort(inp["rank"].to_numpy(np.float64), kind="stable")


def _scored(
    scorer: Scorer, pairs: list[tuple[str, str]], order: NDArray[np.int64], progress: Progress | None
) -> Scored:
    """The raw scores of all pairs in one call, which finds those that are equal.

    A language model that sees several at once, or leaves one where it was, needs them in their `order`.
    """
    if isinstance(scorer, PairScorer):
        return scored_by(scorer.scored, pairs, progress)
    ordered = [pairs[row] for row in order]
    scores, note = scorer.noted(ordered) if isinstance(scorer, NotingScorer) else (scorer.score(ordered), "")
    made = np.empty(len(pairs), np.float32)
    made[order] = as_scores(scores, len(pairs))
    return Scored(made, (), 0, note=note)


def _came(inp: pd.DataFrame) -> NDArray[np.float64]:
    """The scores that the rows came with, for a mix."""
    scores: NDArray[np.float64] = inp["score"].to_numpy(np.float64)
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        raise InputError(f"the score of {_row(inp, wrong[0])} is {scores[wrong[0]]}, which no mix can hold")
    return scores


def _mixed(logits: NDArray[np.float32], came: NDArray[np.float64], mix: float) -> NDArray[np.float64]:
    """The mixed scores of one query, in the order of its rows; -inf where the logit is."""
    # Scaled here, because a mix standardizes them anyway, and float32 holds 7 digits.
    scale = np.abs(came - came[0]).max() or 1.0
    arrived = Ranking.sorted(map(str, range(len(came))), (came - came[0]) / scale)
    final = mixed(arrived, logits[list(map(int, arrived.ids))], mix)
    made = np.empty(len(came))
    made[list(map(int, final.ids))] = final.scores
    return made


def _notes(scorer: Scorer, scored: Scored, inp: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """What people should know of how the rows were read."""
    if scored.note:
        yield scored.note
    lost = [cut for cut in scored.truncations if cut.lost]
    texts = [cut for cut in lost if cut.position >= 0]
    if texts:
        where = _row(inp, texts[0].position)
        yield f"{len(texts)} of {len(pairs)} texts were not read whole, the first {where}: {texts[0].told}"
    if len(lost) > len(texts):
        cut = next(cut for cut in lost if cut.position < 0)
        yield f"{len(lost) - len(texts)} queries were not read whole, the first: {cut.told}"
    if isinstance(scorer, PairScorer):
        queries = dict.fromkeys(query for query, _ in pairs)
        said = [f"{query!r:.80}: {note}" for query in queries if (note := scorer.caution(query))]
        if said:
            yield f"for {len(said)} of {len(queries)} queries, the first {said[0]}"


@contextmanager
def _bar(called: str, shown: bool) -> Iterator[Progress | None]:
    """The host's progress bar as what a scorer tells its progress to."""
    if not shown:
        yield None
        return
    with pt.tqdm(desc=called, unit="pair") as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell
