"""Do these models and settings fit an index? Its vectors and token ids mean nothing to others than its own models.

What an index takes of a model that it is given: the tokenizer, and the name.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from crossrank.addresses import is_address
from crossrank.checkpoint import Checkpoint, vocabulary
from crossrank.errors import IndexFileError, InputError
from crossrank.index.records import Settings, language_named
from crossrank.index.table import Table
from crossrank.models import named
from crossrank.tokenvectors import TokenEmbedder
from crossrank.types import Embedder

_ANEW = "make the index anew with `crossrank index --rebuild` (rebuild=True), or delete the folder first"


def name_of(model: Embedder | TokenEmbedder) -> str | None:
    """The name that loads a model again; None where it tells none, as one of the caller's own.

    >>> import crossrank
    >>> name_of(crossrank.load_embedder())
    'embed'
    """
    read = getattr(model, "checkpoint", None)
    if isinstance(read, Checkpoint):
        return named.lasting(read)
    # Any object may have a name, and that of a stranger's would be looked for on the hub.
    name = getattr(model, "name", None)
    return name if is_address(name) else None


def tokenizer_of(embedder: Embedder, given: Tokenizer | None) -> Tokenizer:
    """What cuts passages: the tokenizer that is given, or else the embedder's own.

    Raises:
        InputError: none is given, and the embedder has none.
    """
    if given is not None:
        return given
    own = getattr(embedder, "tokenizer", None)
    if not isinstance(own, Tokenizer):
        raise InputError(
            f"{type(embedder).__name__} has no tokenizer of its own to cut passages by: pass "
            "tokenizer=crossrank.load_embedder().tokenizer, or another, and the same with each update of the index"
        )
    return own


def check_embedder(folder: Path, made: Settings, embedder: Embedder) -> None:
    """See `Index.check_embedder`."""
    if (embedder.fingerprint, embedder.width) != (made.embedder, made.width):
        prompt = getattr(getattr(embedder, "checkpoint", None), "prompt", "")
        reads = f", which reads {prompt!r:.80} before documents" if prompt else ""
        raise IndexFileError(
            f"the index {folder} was made with another embedder ({made.model or 'unnamed'}, {made.width} numbers, "
            f"{made.embedder[:12]}) than this one ({embedder.width} numbers, {embedder.fingerprint[:12]}){reads}: "
            f"load that one, or {_ANEW}"
        )


def check_update(at: Table, embedder: Embedder, given: Tokenizer | None, late: TokenEmbedder | None) -> Tokenizer:
    """Refuse models other than those that an index was made with; the tokenizer of an update, as `tokenizer_of`.

    Raises:
        InputError: there is no tokenizer.
        IndexFileError: the fingerprint of one is another, or there is a late-interaction model too few or many.
    """
    folder, made = at.folder, at.settings
    check_embedder(folder, made, embedder)
    tokenizer = tokenizer_of(embedder, given)
    if vocabulary.fingerprint(tokenizer) != made.tokenizer:
        raise IndexFileError(
            f"the index {folder} holds token ids of another tokenizer: use the one it was made with, or {_ANEW}"
        )
    check_late(folder, made, late)
    return tokenizer


def check_late(folder: Path, made: Settings, late: TokenEmbedder | None) -> None:
    """See `Index.check_late`."""
    if ("" if late is None else late.fingerprint) != made.late:
        told = "was made without token vectors, so leave --late (late=...) out"
        if made.late:
            model = f"a late-interaction model ({made.late_model or 'unnamed'}, {made.late[:12]})"
            given = "none" if late is None else f"another ({late.fingerprint[:12]})"
            told = f"holds token vectors of {model}; this update has {given}: give the same with --late (late=...)"
        raise IndexFileError(f"the index {folder} {told}, or {_ANEW}")


def check_settings(folder: Path, made: Settings, size: int | None, overlap: int | None, language: str | None) -> None:
    """Refuse what is asked for, None for nothing, where an index was made otherwise.

    Raises:
        IndexFileError: it was.
    """
    for name, asked, has in (
        ("passages of at most {} tokens", size, made.size),
        ("an overlap of {} tokens", overlap, made.overlap),
        ("the language {}", None if language is None else language_named(language), made.language),
    ):
        if asked is not None and asked != has:
            raise IndexFileError(
                f"the index {folder} was made with {name.format(has)}, not {asked}: leave that out, or {_ANEW}"
            )
