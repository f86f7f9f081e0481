"""What is written down about an index, a passage and a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.types import Passage, Truncation

FORMAT = 1
"""Version of the layout on disk; another one is refused."""

SPELLING = 1
"""Version of `layout.as_words` that a new index is made with; one that was made with another stays as it is."""

LANGUAGES = (
    *("Arabic", "Danish", "Dutch", "English", "Finnish", "French", "German", "Greek", "Hungarian", "Italian"),
    *("Norwegian", "Portuguese", "Romanian", "Russian", "Spanish", "Swedish", "Tamil", "Turkish"),
)
"""Languages whose words BM25 stems, and whose stop words it leaves out."""

ANY_LANGUAGE = "any"
"""No stemming and no stop words; words also where there are no spaces between them, as in Chinese or Thai."""


def language_named(name: str) -> str:
    """The language of this name, however it is capitalized, as an index keeps it.

    Raises:
        InputError: an unknown one.

    >>> language_named("german")
    'German'
    """
    known = {language.lower(): language for language in (*LANGUAGES, ANY_LANGUAGE)}
    if (found := known.get(name.lower()) if isinstance(name, str) else None) is None:
        raise InputError(f"no language {name!r}; there are {', '.join(LANGUAGES)} and {ANY_LANGUAGE}")
    return found


Where = str | Sequence[str] | None
"""Conditions on metadata: see `crossrank.index.filters`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How an index was made; every update must agree.

    Attributes:
        embedder: fingerprint of the embedder.
        width: numbers in one vector.
        tokenizer: fingerprint of the tokenizer whose ids are stored.
        model: the name the embedder was asked for by, so that a search can load it again; None when it has none.
        size: tokens of a passage, at most.
        overlap: tokens a passage repeats from the one before it.
        language: one of `LANGUAGES`, or `ANY_LANGUAGE`.
        format: version of this layout.
        late: fingerprint of the late-interaction model whose token vectors are stored; "" for none.
        late_width: numbers in one of them.
        late_model: the name that model was asked for by; None when it has none.
        prompts: arguments of `crossrank.load_embedder` for the prompts of its embedder, where they are not the model's
            own.
        spelling: version of `layout.as_words` by which BM25 reads texts; 0 for those before it was written down.
    """

    embedder: str
    width: int
    tokenizer: str
    model: str | None
    size: int
    overlap: int
    language: str
    format: int = FORMAT
    late: str = ""
    late_width: int = 0
    late_model: str | None = None
    spelling: int = 0
    prompts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A passage with everything the table holds of it.

    Attributes:
        passage: text, title, metadata, ids.
        tokens: ids of its scored text, without special tokens.
        source: the file it came from, absolute; "" for a document that a program passed in.
        digest: hash of the document's content.
        size: of the file, in bytes; where it and `modified` are as before, the file is not read again.
        modified: when the file was last changed, in ns.
    """

    passage: Passage
    tokens: NDArray[np.int32]
    source: str
    digest: str
    size: int
    modified: int


@dataclass(frozen=True, slots=True)
class Unread:
    """A passage whose vector does not tell of its end. BM25 and rerankers read all of it.

    Attributes:
        passage: its id.
        tokens: how many it has for the embedder; at least so many when `exact` is false.
        read: how many the embedder read.
        exact: whether `tokens` is the whole count.
    """

    passage: str
    tokens: int
    read: int
    exact: bool = True

    @property
    def told(self) -> str:
        """What was read of what, in the words of a truncation."""
        return Truncation(0, self.tokens, self.read, 1, self.exact).told


@dataclass(frozen=True, slots=True)
class Known:
    """What the table knows of one document.

    Attributes:
        source: the file it came from, absolute; "" for a document that a program passed in.
        digest: hash of its content.
        size: of the file, in bytes.
        modified: when the file was last changed, in ns.
        passages: the ids of its passages.
    """

    source: str
    digest: str
    size: int
    modified: int
    passages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Info:
    """What an index is.

    Attributes:
        model: the name its embedder was loaded by; None when the embedder was not loaded by name.
        embedder: fingerprint of the embedder.
        tokenizer: fingerprint of the tokenizer whose token ids are stored.
        width: numbers in one vector.
        size: tokens of a passage, at most.
        overlap: tokens a passage repeats from the one before it.
        language: of stemming and stop words.
        passages: how many there are.
        documents: how many there are.
        bytes: on disk, left-overs of old versions included.
        version: grows with every commit.
        late: the name of the late-interaction model whose token vectors it holds; None when it holds none, or the model
            was not loaded by name.
    """

    model: str | None
    embedder: str
    tokenizer: str
    width: int
    size: int
    overlap: int
    language: str
    passages: int
    documents: int
    bytes: int
    version: int
    late: str | None = None

    @classmethod
    def of(cls, made: Settings, passages: int, documents: int, used: int, version: int) -> Info:
        """What these settings and counts say."""
        return cls(
            model=made.model, embedder=made.embedder, tokenizer=made.tokenizer, width=made.width, size=made.size,
            overlap=made.overlap, language=made.language, passages=passages, documents=documents, bytes=used,
            version=version, late=made.late_model,
        )  # fmt: skip
