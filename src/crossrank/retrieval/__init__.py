"""First stages: text in, rankings of passages out. `bm25` finds words, `dense` finds meanings."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from crossrank.errors import InputError
from crossrank.types import Ranking, ReportingRetriever, Retrieved, Retriever

_Found = TypeVar("_Found")


def check_retrievers(retrievers: Any) -> None:
    """Refuse what are no retrievers by their names, at least one.

    >>> check_retrievers([])
    Traceback (most recent call last):
        ...
    crossrank.errors.InputError: retrievers have names, as in {"bm25": retriever}; this is a list
    """
    if not isinstance(retrievers, Mapping):
        told = type(retrievers).__name__
        raise InputError(f'retrievers have names, as in {{"bm25": retriever}}; this is a {told}')
    if not retrievers:
        raise InputError("a pipeline needs at least one retriever")
    for name, retriever in retrievers.items():
        if not callable(getattr(retriever, "retrieve", None)):
            raise InputError(
                f"the retriever {name!r} ({type(retriever).__name__}) has no retrieve(queries, depth); of a "
                "function make one with crossrank.retrieval.remote.function.FunctionRetriever(function)"
            )


def retrieved(retriever: Retriever, query: str, depth: int) -> Retrieved:
    """What a retriever finds for one query, with what it says of it where it says anything.

    Raises:
        InputError: it gives something else than one ranking for the query; and what it raises itself.
    """
    if isinstance(retriever, ReportingRetriever):
        return _single(retriever.retrieved([query], depth), Retrieved, f"{type(retriever).__name__}.retrieved")
    return Retrieved(_single(retriever.retrieve([query], depth), Ranking, f"{type(retriever).__name__}.retrieve"), ())


def _single(found: Any, kind: type[_Found], call: str) -> _Found:
    if isinstance(found, Sequence) and len(found) == 1 and isinstance(found[0], kind):
        return found[0]
    told = f"{len(found)} of them" if isinstance(found, (list, tuple)) else type(found).__name__
    wanted = f"{call}(queries, depth) must give a list with a {kind.__name__} for each query"
    raise InputError(f"{wanted}, not {told} for one; where nothing is found, Ranking.sorted([], [])")
