"""What every host needs: a model that is loaded when the first query comes, and what an index found."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossrank.calibration import Platt
from crossrank.cascade import OnError, Unavailable
from crossrank.errors import CrossrankError, InputError
from crossrank.falling import falling
from crossrank.models import named
from crossrank.pipeline import Pipeline
from crossrank.scorers import check_scorer, load, load_scorer, name_of
from crossrank.types import Passage, Scorer

PROBABILITY = "probability"
READ = "rerank_read"
QUERY_READ = "rerank_query_read"
NOTE = "rerank_note"

# What every model is loaded with; the other keywords of `crossrank.load` are for cross-encoders.
_COMMON = {"backend", "device", "dtype", "threads", "instruction", "revision", "token", "cache_dir"}
_log = logging.getLogger(__name__)
# One lock for all: it is held only while a model loads, and what holds a model can be copied and pickled without it.
_loading = threading.Lock()


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

    def ready_or(self, on_error: OnError) -> Scorer:
        """The scorer; where it cannot be loaded and an order is to be kept, one that says so when it is asked."""
        try:
            return self.ready
        except CrossrankError as error:
            if on_error == "raise":
                raise
            return Unavailable(self.name, error)

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


def noted(metadata: Mapping[str, Any], notes: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of a host with the notes of a reranker: those of an earlier one go, and a field that is the user's own
    keeps its name and value.

    >>> noted({"probability": 0.7, "rerank_note": "failed"}, {"probability": 0.2})
    {'probability': 0.7, 'crossrank_probability': 0.2}
    """
    kept = {name: value for name, value in metadata.items() if name not in (READ, QUERY_READ, NOTE)}
    return kept | {f"crossrank_{name}" if name in kept else name: value for name, value in notes.items()}


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
