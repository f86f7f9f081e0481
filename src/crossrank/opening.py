"""The models of the usual pipeline, given by name or as they are: the embedder of its index, and its stages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossrank.cascade import OnError, Stage, Unavailable
from crossrank.embedder import asked_as, load_embedder, own_name
from crossrank.errors import CrossrankError
from crossrank.scorers import name_of, scorer_of, share_of
from crossrank.types import Embedder, Scorer

if TYPE_CHECKING:
    from crossrank.index import Index


def stage_of(
    model: str | Path | Scorer | None,
    depth: int,
    mix: float | None,
    usual: float,
    cache: str | Path | None,
    on_error: OnError,
    how: dict[str, Any],
) -> Stage:
    """The stage of one model, see `crossrank.pipeline.open_pipeline` for what it is made of.

    Without a `mix` its share is its own (`CrossEncoder.mix`), or the `usual` one.

    Raises:
        CrossrankError: the model cannot be loaded, unless `on_error` is "keep": then the stage fails when it reads.

    >>> stage_of("small", 50, None, 0.4, None, "raise", {}).weight
    0.4
    """
    from crossrank.scorecache import CachedScorer

    try:
        scorer = scorer_of(model, **how)
    except CrossrankError as error:
        if on_error == "raise":
            raise
        return Stage(Unavailable(str(model), error), depth, usual if mix is None else mix, name=str(model))
    scorer = scorer if cache is None else CachedScorer(scorer, cache)
    return Stage(scorer, depth, share_of(scorer, mix, usual), name=name_of(scorer))


def embedder_of(
    index: Index, folder: str | Path, wanted: str | Path | Embedder | None, how: tuple[str, str, str, int | None]
) -> Embedder:
    """The embedder that queries of an index are read by, with the prompts that the index keeps.

    Args:
        index: what is searched.
        folder: where it was opened, from which the name of its own model counts.
        wanted: a name or an embedder; the index's own when absent.
        how: backend, device, dtype and threads of one given by name.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    if wanted is not None and not isinstance(wanted, (str, Path)):
        return asked_as(wanted, index.settings.prompts)
    backend, device, dtype, threads = how
    name, prompts = wanted or own_name(index.settings.model, folder), index.settings.prompts
    return load_embedder(name, backend=backend, device=device, dtype=dtype, threads=threads, **prompts)
