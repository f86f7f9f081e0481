"""What every host needs: a model that is loaded when the first query comes, and the best of a list of texts."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from crossrank.calibration import Platt, above, check_threshold, without_probabilities
from crossrank.cascade import Stage, rerank
from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError
from crossrank.falling import falling, finite
from crossrank.models import named
from crossrank.pipeline import Pipeline
from crossrank.relevance import threshold_of
from crossrank.scorers import check_scorer, load, load_scorer, name_of
from crossrank.types import Passage, Ranking, Scorer, check_k

READ = "rerank_read"
QUERY_READ = "rerank_query_read"
NOTE = "rerank_note"
PROBABILITY = "probability"
Scores = Literal["logit", "probability"]
Threshold = float | Literal["model"] | None

# What every model is loaded with; the other keywords of `crossrank.load` are for cross-encoders.
_COMMON = {"backend", "device", "dtype", "threads", "instruction", "revision", "token", "cache_dir"}
_log = logging.getLogger(__name__)
# One lock for all: it is held only while a model loads, and what holds a model can be copied and pickled without it.
_loading = threading.Lock()


@dataclass(frozen=True, slots=True)
class Best:
    """One text of a list.

    Attributes:
        position: in the list.
        score: the model's, raw, or the probability where that was asked for; of a blank text -inf, or 0.
        told: the score as hosts are told it, see `finite`.
        notes: what people should know of how it was read, for the metadata of a host; mostly empty.
    """

    position: int
    score: float
    told: float
    notes: Mapping[str, str]


class Model:
    """A scorer, or the name of one that is loaded once, when it is first asked for, by whichever thread asks.

    A deep copy is this object itself, so that copies share what is loaded. A pickle holds the name and the options; the
    model is loaded again where it is read.

    Args:
        model: a name of `crossrank models`, a hub name, a folder, or an object with `score(pairs)`.
        options: keywords for `crossrank.load`, such as `{"window": 200, "overlap": 50}`; only for names. A
            late-interaction model takes those of `crossrank.load_late`.

    Raises:
        InputError: neither a name nor a scorer, options for a scorer that is loaded already, or a token of the hub,
            which a host would write to its files and logs.
    """

    def __init__(self, model: str | Path | Scorer, options: Mapping[str, Any] | None = None) -> None:
        self._name: str | None = None
        self._options = _writable(options)
        self._scorer: Scorer | None = None
        if isinstance(model, Path):
            model = _path(model)
        if isinstance(model, str):
            self._name = model
            return
        scorer = check_scorer(model)
        if options:
            raise InputError("load_options are for a model that is given by name; this one is loaded already")
        self._scorer = scorer

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Model, (self.written, self._options)

    @property
    def name(self) -> str:
        """For people and for traces."""
        if self._name is not None:
            return self._name
        assert self._scorer is not None
        return name_of(self._scorer)

    @property
    def options(self) -> dict[str, Any]:
        """The keywords it is loaded with; a copy."""
        return dict(self._options)

    @property
    def written(self) -> str:
        """The name under which it may be written to a file, beside the options.

        Raises:
            InputError: it was given as a scorer, and a name alone would be read as another one.
        """
        if self._name is None:
            raise InputError(
                f"a scorer that is loaded already ({self.name}) cannot be written to a file or pickled; give the model "
                "by name or folder, with load_options={...} for crossrank.load, or pass the scorer to a new component"
            )
        return self._name

    def given(self, model: str | Path | Scorer, options: Mapping[str, Any] | None) -> Model:
        """This one, or another where its name or its options were set to something else since.

        Raises:
            InputError: see the class.
        """
        same = model == self.name
        if same and _writable(options) == self._options:
            return self
        scorer = self._scorer if same and self._name is None else None
        return Model(model if scorer is None else scorer, options)

    @property
    def ready(self) -> Scorer:
        """The scorer itself."""
        if self._scorer is None:
            with _loading:
                if self._scorer is None:
                    assert self._name is not None
                    self._scorer = _loaded(self._name, self._options)
        return self._scorer


def wanted(component: Any) -> Model:
    """The model that the fields `model` and `load_options` of a component name.

    They may have been set since its `_model` was made, here or in a copy. A scorer or a folder that was set is told by
    its name from then on.
    """
    made: Model = component._model.given(component.model, component.load_options)
    component._model = made
    if component.model != made.name:
        component.model = made.name
    if component.load_options != made.options:
        component.load_options = made.options
    return made


def plain(options: Mapping[str, Any], called: str) -> dict[str, Any]:
    """Options as a host that writes plain values can write them: paths are strings that stay paths.

    Args:
        options: keywords.
        called: how the component calls them, for messages.

    Raises:
        InputError: one holds an object.

    >>> plain({"window": 200, "coarse": (Path("fast"), "small")}, "load_options") == {
    ...     "window": 200, "coarse": [os.path.join(os.curdir, "fast"), "small"]}
    True
    """
    return {name: _plain(value, f"{called}[{name!r}]") for name, value in options.items()}


def _plain(value: Any, place: str) -> Any:
    if isinstance(value, Path):
        return _path(value)
    if isinstance(value, Mapping):
        return {name: _plain(one, place) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one, place) for one in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise InputError(
        f"{place} holds an object ({type(value).__name__}), which cannot be written to a file: name it by a string"
    )


def _path(path: Path) -> str:
    """A path as a string that is no name: "small" is a model of the catalog, and Path("small") a folder."""
    return os.path.join(os.curdir, path.expanduser())


def _writable(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options as every host can write them to its files, which hold no secrets."""
    made = dict(options or {})
    if isinstance(made.get("token"), str):
        raise InputError(
            "load_options with a token would be written to files and logs as it is: leave it out, and set HF_TOKEN "
            "or run `hf auth login` where the model is loaded"
        )
    if isinstance(found := made.get("calibration"), Platt):
        made["calibration"] = {"slope": found.slope, "intercept": found.intercept}
    if isinstance(made.get("cache_dir"), Path):
        made["cache_dir"] = str(made["cache_dir"])
    return made


def _loaded(name: str, options: Mapping[str, Any]) -> Scorer:
    """The cross-encoder or late-interaction model of this name.

    Raises:
        InputError: it is a late-interaction model, and an option is given that only cross-encoders have.
    """
    others = sorted(set(options) - _COMMON)
    if not others:
        return load_scorer(name, **options)
    hub = {option: options[option] for option in ("revision", "token", "cache_dir") if option in options}
    if (found := named.read(name, default="small", **hub)).late is not None:
        raise InputError(
            f"{found.name} is a late-interaction model, which reads a passage up to its own document length, without "
            f"windows: leave {', '.join(others)} out of load_options"
        )
    return load(name, **options)


def check(k: int | None, name: str, scores: str, threshold: float | str | None) -> None:
    """Refuse a `k`, called so by the host, `scores` or `threshold` that `best` does not take.

    Raises:
        InputError: one of them is something else.
    """
    if k is not None:
        check_k(k, name)
    if scores not in get_args(Scores):
        raise InputError(f'scores are "logit" or "probability", not {scores!r}')
    check_threshold(threshold)


def best(
    scorer: Scorer,
    query: str,
    texts: Sequence[str],
    k: int | None,
    scores: Scores = "logit",
    threshold: Threshold = None,
) -> list[Best]:
    """The `k` texts that answer the query best, best first; equal scores keep their incoming order.

    Args:
        scorer: what reads them.
        query: not blank.
        texts: any; a blank one has the logit -inf and the probability 0.
        k: texts to return at most; None for all.
        scores: "logit" tells the model's raw scores, "probability" those that `scorer.probability` gives, from 0 to 1.
        threshold: only texts that have at least this probability are returned; "model" takes the model's own
            (`CrossEncoder.threshold`), None leaves none out.

    Raises:
        InputError: a blank query, a `k` under 1, or a probability is asked for and the model gives none.
        ScoreError: the model gives NaN.

    >>> class Length:
    ...     def score(self, pairs):
    ...         return np.array([len(text) for _, text in pairs], np.float32)
    >>> [(found.position, found.score) for found in best(Length(), "which?", ["ab", "abcd", "ab"], k=2)]
    [(1, 4.0), (0, 2.0)]
    """
    check(k, "k", scores, threshold)
    if not texts:
        return []
    # The engine takes ids, and a list may hold one text twice: positions are the ids here.
    passages = {str(position): Passage(str(position), text) for position, text in enumerate(texts)}
    arrived = Ranking(tuple(passages), np.zeros(len(texts), np.float32), head=0)
    asked = scores == "probability" or threshold is not None
    if asked and not isinstance(scorer, CrossEncoder):
        options = {"scores": scores == "probability", "threshold": threshold is not None}
        raise InputError(without_probabilities(name_of(scorer), " and ".join(one for one in options if options[one])))
    limit = threshold_of(scorer, 0.0 if threshold is None else threshold) if asked else 0.0
    ranking, (trace,) = rerank(query, arrived, [Stage(scorer, len(texts))], lambda ids: [passages[i] for i in ids])
    final = ranking if k is None else ranking.cut(k)
    chances = np.ones(len(final), np.float32)
    if asked and isinstance(scorer, CrossEncoder):
        chances = scorer.probability(final.scores)
    rows, _ = above(chances.tolist(), limit)
    left = (chances if scores == "probability" else final.scores)[rows].tolist()
    cut = {t.position: t.told for t in trace.truncations if t.lost}
    made = []
    for row, score, told in zip(rows, left, finite(left), strict=True):
        position = int(final.ids[row])
        notes = {READ: cut.get(position), QUERY_READ: cut.get(-1), NOTE: trace.note}
        made.append(Best(position, score, told, {key: note for key, note in notes.items() if note}))
    return made


def found(
    pipeline: Pipeline, query: str, k: int, where: Sequence[str] | None = None
) -> list[tuple[Passage, float, dict[str, float]]]:
    """The `k` best passages of a pipeline with the score that orders them, a mix of the steps', and beside it
    `probability` where the last model that read the passage is calibrated. Scores of passages that it did not read are
    shifted under those of the others, see `falling`. `where`: filters of this query; what is
    likely wrong with those that leave nothing is logged as a warning.
    """
    answer = pipeline.search(query, k, where=where)
    if where and answer.nothing:
        # No error: a field may be there tomorrow, and then the filter is right.
        _log.warning("nothing was found with the filters %s: %s", list(where), answer.nothing)
    chances = pipeline.relevance(answer).probabilities
    more = [{} if chance is None else {PROBABILITY: chance} for chance in chances]
    return list(zip(answer.passages, falling(answer.ranking), more, strict=True))


def facts(passage: Passage, **more: Any) -> dict[str, Any]:
    """What an index knows of a passage besides its text, and `more`, as one mapping.

    The user's own fields keep their names and values. Of ours `document` and `title` are always there, `file`, `start`
    and `line` where the index knows them; line 0 is unknown, as in .html, .pdf and files of rows.

    >>> facts(Passage("1", "Tea.", "Drinks", "menu", {"document": "mine", "year": 2020}), score=0.5)
    {'document': 'mine', 'year': 2020, 'crossrank_document': 'menu', 'title': 'Drinks', 'score': 0.5}
    """
    place = passage.place
    where = {} if place is None else {"file": place.file, "start": place.start, "line": place.line}
    if place is not None and not place.file:
        del where["file"]
    ours = {"document": passage.document, "title": passage.title, **where, **more}
    return {**passage.metadata, **{free(passage, name): value for name, value in ours.items()}}


def free(passage: Passage, name: str) -> str:
    """The name under which `facts` tells one of ours: another one where a field of the user's has it."""
    while name in passage.metadata:
        name = f"crossrank_{name}"
    return name
