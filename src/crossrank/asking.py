"""Can this be scored? What every scorer of texts refuses, in the same words, and what it takes as a list.

Any iterable is a list, read once: a generator that a check has read to its end would leave nothing to score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

from crossrank.errors import InputError
from crossrank.types import Passage, check_k
from crossrank.unicode import is_blank, valid_text

T = TypeVar("T")
P = ParamSpec("P")
LARGEST = 2**31 - 1
"""What is counted here has at most 32 bits; libraries below fail by larger numbers, each in its own way."""
# What to pass of a data frame.
_COLUMN, _COLUMNS = "a column, such as df['text'].tolist()", "two columns, such as zip(df['query'], df['text'])"
# Where rows and objects of other libraries have their text.
_TEXTS = ("text", "content", "contents", "body", "passage", "page_content")
_SCORE = "call score(pairs), and probability(scores) for chances from 0 to 1"
# What sentence-transformers, FlagEmbedding, and FlashRank or Cohere call what is here.
_OF_SCORERS: Mapping[str, str] = {
    "predict": _SCORE,
    "compute_score": _SCORE,
    "rerank": "call rank(query, documents, k=5), which gives positions in documents and scores",
}
_SAVE = "call crossrank.checkpoint.export(its .checkpoint, folder)"
OF_CROSS_ENCODERS: Mapping[str, str] = {
    **_OF_SCORERS,
    "fit": "`crossrank tune` and crossrank.training.tuning.tune(judgments, folder) train a copy",
    "save": _SAVE,
    "save_pretrained": _SAVE,
}
OF_EMBEDDERS: Mapping[str, str] = {
    "encode": "call embed(texts), and queries.embed(texts) for queries",
    "encode_document": "call embed(texts)",
    "encode_query": "call queries.embed(texts)",
    "get_sentence_embedding_dimension": "it is width",
    "similarity": "vectors have length 1, so their products are cosines: queries @ documents.T",
    "save": _SAVE,
    "save_pretrained": _SAVE,
}


# What they call arguments.
_BATCHES = "leave it out; batches are filled by tokens, with as many as the backend takes"
K_ELSEWHERE: Mapping[str, str] = dict.fromkeys(("top_k", "top_n"), "say k, the number of entries to return")
OF_RANK: Mapping[str, str] = {
    **K_ELSEWHERE,
    "batch_size": _BATCHES,
    "return_documents": "leave it out; positions are places in documents",
}
OF_SCORE: Mapping[str, str] = {
    "batch_size": _BATCHES,
    "show_progress_bar": "say progress=called, which is told how many pairs are scored, and of how many",
}
OF_LOAD: Mapping[str, str] = {
    "trust_remote_code": "leave it out; no code of a model is ever run",
    "activation_fn": "leave it out; scores are logits, and probability(scores) gives chances from 0 to 1",
}


class Elsewhere:
    """Tells whoever calls a scorer or an embedder as another library's is called what that call is here.

    >>> Elsewhere().predict([("tea?", "Tea is hot.")])
    Traceback (most recent call last):
        ...
    AttributeError: Elsewhere has no predict: call score(pairs), and probability(scores) for chances from 0 to 1
    """

    _elsewhere: ClassVar[Mapping[str, str]] = _OF_SCORERS

    if not TYPE_CHECKING:  # A checker of types would believe that every name is there.

        def __getattr__(self, name: str) -> Any:
            if name in self._elsewhere:
                raise AttributeError(f"{type(self).__name__} has no {name}: {self._elsewhere[name]}")
            # Again, for its own message: a property may have failed.
            return object.__getattribute__(self, name)


def without(elsewhere: Mapping[str, str]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Tells whoever passes an argument that only other libraries have what to do here. Signature and help stay.

    Args:
        elsewhere: what to do, by the names of such arguments.

    >>> @without({"top_k": "say k"})
    ... def rank(k=None): ...
    >>> rank(top_k=5)
    Traceback (most recent call last):
        ...
    TypeError: rank() has no argument top_k: say k
    """

    def decorated(call: Callable[P, T]) -> Callable[P, T]:
        @wraps(call)
        def asked(*args: P.args, **given: P.kwargs) -> T:
            for name in given:
                if name in elsewhere:
                    raise TypeError(f"{call.__name__}() has no argument {name}: {elsewhere[name]}")
            return call(*args, **given)

        return asked

    return decorated


def check_query(query: Any) -> None:
    """Refuse a query that is no string, or blank: a model would score it, and the order would mean nothing."""
    if not isinstance(query, str):
        raise InputError(f"the query is {type(query).__name__}, not a string")
    if is_blank(query):
        raise InputError("the query is empty; ask something")


def check_pairs(pairs: Iterable[Sequence[str | Passage]]) -> list[tuple[str, str]]:
    """The pairs in a list, each a tuple of texts; refuse what is no (query, passage) pair, and a blank query.

    A passage is a string, or a `Passage`, of which title and text are read.

    Raises:
        InputError: with the place of the first mistake.

    >>> check_pairs([("tea?", "Tea is hot."), ["tea?", Passage("1", "Is hot.", title="Tea")]])
    [('tea?', 'Tea is hot.'), ('tea?', 'Tea. Is hot.')]
    """
    made: list[tuple[str, str]] = []
    queries: dict[str, None] = {}
    for position, pair in enumerate(_listed(pairs, "score takes a list of (query, passage) pairs", _COLUMNS)):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            cure = "; of an array pass .tolist()" if hasattr(pair, "tolist") else ""
            cure = ": put the pair in a list, score([(query, passage)])" if isinstance(pair, str) else cure
            raise InputError(f"pair {position} is not a (query, passage) pair{cure}")
        query, passage = pair
        text = passage.scored_text if isinstance(passage, Passage) else passage
        if not isinstance(text, str):
            raise InputError(f"document {position} is {type(text).__name__}, not a string{_cure(text)}")
        if not isinstance(query, str):
            check_query(query)
        queries[query] = None
        made.append((query, text))
    for query in queries:
        check_query(query)
    return made


def _cure(document: Any) -> str:
    """How to get at the text of a row or of an object that another library made; empty for anything else."""
    if isinstance(document, Mapping):
        named = next((name for name in _TEXTS if name in document), "text")
        how = f'd["{named}"]'
    elif named := next((name for name in _TEXTS if isinstance(getattr(document, name, None), str)), ""):
        how = f"d.{named}"
    elif isinstance(document, (tuple, list)) and len(document) == 2 and isinstance(document[1], str):
        return ": pass [text for _, text in documents]; the positions that come back are places in that list"
    else:
        return ""
    return f": pass texts, such as [{how} for d in documents]; the positions that come back are places in that list"


def check_queries(queries: Iterable[str], passages: int) -> list[str]:
    """The queries in a list; refuse what is not one query that is not blank for each of so many passages."""
    wanted = f"scored_tokens takes one query for each of the {passages} passages"
    made = _listed(queries, wanted)
    if len(made) != passages:
        raise InputError(f"{wanted}, not {len(made)}")
    for query in made:
        if not isinstance(query, str):
            check_query(query)
    for query in dict.fromkeys(made):
        check_query(query)
    return made


def check_list(query: str, documents: Iterable[T], k: int | None) -> list[T]:
    """The documents in a list; refuse what cannot be ranked: a blank query, one string for a list, a `k` under 1."""
    if k is not None:
        check_k(k, cure="leave it out to keep everything")
    made = _listed(documents, "rank takes a list of documents")
    check_query(query)
    return made


def check_texts(texts: Iterable[str], call: str) -> list[str]:
    """The texts in a list; refuse one string in place of a list, and what is no string.

    Args:
        texts: of the caller.
        call: what the caller called, for the message.
    """
    made = _listed(texts, f"{call} takes a list of texts")
    for position, text in enumerate(made):
        if not isinstance(text, str):
            raise InputError(f"text {position} is {type(text).__name__}, not a string")
    return made


def check_sendable(name: str, text: Any) -> None:
    """Refuse what no request can hold as it is: what is no text, or has half of a surrogate pair in it, as arguments of
    the command line have that are not UTF-8. A name must not be sent as another, so that nothing is replaced.

    >>> check_sendable("the model's name", "qwen3")
    """
    if not isinstance(text, str):
        raise InputError(f"{name} is a text, not {type(text).__name__}")
    if valid_text(text) != text:
        raise InputError(f"{name} cannot be sent, because it is not UTF-8: {text!r:.200}")


def check_whole(name: str, number: Any) -> None:
    """Refuse what is no whole number, such as the 2.0 of `os.cpu_count() / 2`, where an option is one; also one beyond
    32 bits.

    >>> check_whole("threads", 2)
    """
    if isinstance(number, bool) or not isinstance(number, Integral):
        raise InputError(f"{name} must be a whole number, not {number!r}")
    if not -LARGEST - 1 <= int(number) <= LARGEST:
        raise InputError(f"{name} must be less than {LARGEST + 1:,}, not {number}")


def check_real(name: str, number: Any) -> None:
    """Refuse what is no number, such as the "0.5" of a form, or NaN, which no comparison refuses.

    >>> check_real("deadline", 0.5)
    """
    if isinstance(number, bool) or not isinstance(number, Real) or number != number:
        raise InputError(f"{name} must be a number, not {number!r}")


def _listed(given: Iterable[Any], wanted: str, columns: str = _COLUMN) -> list[Any]:
    if isinstance(given, str):
        raise InputError(f"{wanted}, not one string")
    if isinstance(given, (set, frozenset)):
        raise InputError(f"{wanted}, not a set, whose order means nothing: pass a list, to which positions refer")
    if hasattr(given, "columns"):
        # Its items would be the names of columns.
        raise InputError(f"{wanted}, not {type(given).__name__}: pass {columns}")
    if isinstance(given, (Mapping, bytes)):
        # Its items would be keys or numbers, not texts.
        cure = "pass list(d.values()); positions follow its order" if isinstance(given, Mapping) else "decode it first"
        raise InputError(f"{wanted}, not {type(given).__name__}: {cure}")
    try:
        items = iter(given)
    except TypeError:
        raise InputError(f"{wanted}, not {type(given).__name__}") from None
    return list(items)
