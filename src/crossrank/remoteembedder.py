"""Vectors from an OpenAI-compatible address, such as those of text-embedding-3-small."""

from __future__ import annotations

import copy
import operator
import threading
from collections.abc import Iterable, Sequence
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.addresses import parted
from crossrank.asking import check_sendable, check_texts, check_whole
from crossrank.credentials import without_secrets
from crossrank.errors import InputError, RemoteError
from crossrank.jobs import at_once
from crossrank.remote import Address, can_be_asked
from crossrank.unicode import is_blank, valid_text

# What one request may hold: OpenAI takes 2,048 texts and 300,000 tokens, others less.
_TEXTS, _CHARACTERS = 128, 400_000
_MOST_BYTES = 64 * 2**20
_PERHAPS_TOO_MANY = frozenset({400, 413, 422})
"""How servers refuse more texts than they take in one request; and much else."""


class RemoteEmbedder:
    """Texts to unit vectors, by a model behind an address. One embedder serves many threads.

    It can be copied and pickled; a pickle holds the key.

    Args:
        url: an OpenAI-compatible address, such as `https://api.openai.com/v1`.
        model: as the address calls it.
        key: of the address; "" for one that wants none.
        dimensions: numbers in one vector, for models that can shorten them; None leaves that to the model, and whoever
            asks for `width` first waits for one vector.
        concurrency: requests under way at once.
        timeout: seconds of one try, from the connection to the last byte.
        tries: requests for one answer, at most.
        pause: seconds before the second try; each further one waits longer, see `crossrank.remote.Address`.
        query_prompt: what the model was trained to read before a query, such as "query: ", for addresses that do not
            add it; see `crossrank.load_embedder`.
        document_prompt: what it was trained to read before a document.

    Raises:
        InputError: an address that is none, a number out of its range, or a model's name that cannot be sent.

    >>> RemoteEmbedder("http://localhost:7997/v1", "embed", dimensions=384).name
    'http://localhost:7997/v1#embed?dimensions=384'
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str = "",
        *,
        dimensions: int | None = None,
        concurrency: int = 4,
        timeout: float = 60.0,
        tries: int = 4,
        pause: float = 0.5,
        query_prompt: str = "",
        document_prompt: str = "",
    ) -> None:
        check_whole("concurrency", concurrency)
        check_whole("dimensions", 1 if dimensions is None else dimensions)
        if concurrency < 1 or (dimensions is not None and dimensions < 1):
            raise InputError("concurrency and dimensions must be at least 1")
        for side, text in (("query_prompt", query_prompt), ("document_prompt", document_prompt)):
            if not isinstance(text, str):
                raise InputError(f"{side} is a text, not {text!r:.80}")
        if not model:
            raise InputError("a remote embedder needs the name of its model")
        check_sendable("the model's name", model)
        self.address = Address(url, key, timeout=timeout, tries=tries, pause=pause, most_bytes=_MOST_BYTES)
        self.model = model
        self.dimensions = dimensions
        self._query_prompt, self._prompt = valid_text(query_prompt), valid_text(document_prompt)
        self._concurrency = concurrency
        self._width = dimensions
        self._most = _TEXTS
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"RemoteEmbedder({self.name!r})"

    @classmethod
    def named(cls, name: str, key: str = "", *, timeout: float = 60.0, tries: int = 4) -> RemoteEmbedder:
        """The embedder of a name such as `URL#MODEL` or `URL#MODEL?dimensions=512`.

        Raises:
            InputError: not such a name.
        """
        url, model, dimensions = parted(name, "dimensions")
        if not model or not can_be_asked(url) or not (dimensions is None or dimensions.isdecimal()):
            # What stands before a # may be the beginning of a password alone, so that the whole is told or nothing.
            shown = without_secrets(name)
            raise InputError(f"{shown!r} is no address of an embedder: write URL#MODEL or URL#MODEL?dimensions=512")
        numbers = None if dimensions is None else int(dimensions)
        return cls(url, model, key, dimensions=numbers, timeout=timeout, tries=tries)

    @property
    def name(self) -> str:
        """As `named` takes it; an index keeps it, and never the key, a password or what looks like one."""
        options = f"?dimensions={self.dimensions}" if self.dimensions is not None else ""
        return f"{self.address.url}#{self.model}{options}"

    @property
    def fingerprint(self) -> str:
        """Of address, model, dimensions and the prompt before documents. Whether the model behind them stays the same
        is the provider's word."""
        return sha256((self.name + (f"\n{self._prompt}" if self._prompt else "")).encode()).hexdigest()

    @property
    def prompts(self) -> dict[str, str]:
        """Its prompts as it takes them; none where it has none."""
        stated = {"query_prompt": self._query_prompt, "document_prompt": self._prompt}
        return stated if any(stated.values()) else {}

    def prompted(self, query_prompt: str = "", document_prompt: str = "") -> RemoteEmbedder:
        """The same with other prompts, such as those that an index keeps.

        >>> RemoteEmbedder("http://localhost:7997/v1", "e5").prompted("query: ", "passage: ").prompts
        {'query_prompt': 'query: ', 'document_prompt': 'passage: '}
        """
        other = copy.copy(self)
        other._query_prompt, other._prompt = valid_text(query_prompt), valid_text(document_prompt)
        return other

    @property
    def queries(self) -> RemoteEmbedder:
        """What queries go to: the same, with the prompt before queries."""
        return self if self._query_prompt == self._prompt else self.prompted(self._query_prompt, self._query_prompt)

    @property
    def width(self) -> int:
        """Numbers in one vector."""
        if self._width is None:
            self._width = len(self._asked(["width"])[0])
        return self._width

    def expect(self, width: int) -> None:
        """Take this for the width unless one is known: that of an index which this embedder has made.

        So nobody waits for a vector to learn it, and vectors of another width are refused.
        """
        with self._lock:
            self._width = self._width or width

    def embed(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (n, width), in the order of the texts.

        Equal texts are sent once, up to 128 in one request; how many fewer an address takes is learned from its first
        refusals. A blank text is not sent, because many addresses refuse it: its vector has the same number everywhere.

        Raises:
            InputError: one string in place of a list, or an item that is no string.
            RemoteError: the address refuses, does not answer, or answers with something else than one vector of `width`
                finite numbers for each text.
        """
        texts = [valid_text(text) for text in check_texts(texts, "embed")]
        distinct = list(dict.fromkeys(text for text in texts if not is_blank(text)))
        sent = [self._prompt + text for text in distinct]
        stop = threading.Event()
        jobs = [partial(self._taken, batch, stop) for batch in _batches(sent, self._most)]
        made = [vector for vectors in at_once(jobs, self._concurrency, stop) for vector in vectors]
        rows = dict(zip(distinct, made, strict=True))
        out = np.full((len(texts), self.width), 1.0, dtype=np.float32)
        for place, text in enumerate(texts):
            if text in rows:
                out[place] = rows[text]
        # Theirs are unit vectors already; that of a blank text is not.
        norms = np.linalg.norm(out, axis=1, keepdims=True)
        return np.asarray(out / norms, dtype=np.float32)

    def _taken(self, batch: Sequence[str], stop: threading.Event) -> list[NDArray[np.float32]]:
        """Unit vectors of a batch, in as many requests as the address takes it in."""
        made: list[NDArray[np.float32]] = []
        size, refused = min(self._most, len(batch)), False
        while len(made) < len(batch):
            # One text alone tells whether their number is to blame: a wrong name of the model costs two requests.
            part = batch[len(made) :][: size if made or not refused else 1]
            try:
                made += self._asked(part, stop)
            except RemoteError as error:
                if error.status not in _PERHAPS_TOO_MANY or len(part) == 1:
                    raise
                refused, size = True, len(part) // 2
        if refused:
            with self._lock:
                self._most = min(self._most, size)
        return made

    def _asked(self, batch: Sequence[str], stop: threading.Event | None = None) -> list[NDArray[np.float32]]:
        """Unit vectors of one request."""
        body: dict[str, Any] = {"model": self.model, "input": list(batch), "encoding_format": "float"}
        if self.dimensions is not None:
            body["dimensions"] = self.dimensions
        rows = self.address.post("/embeddings", body, stop).body.get("data")
        try:
            given = [(operator.index(row["index"]), _unit(row["embedding"])) for row in rows or ()]
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise RemoteError(f"{self.address.url} gave no vectors that can be read ({error!r})", 200) from error
        placed = dict(given)
        if len(given) != len(placed) or sorted(placed) != list(range(len(batch))):
            twice = ", numbered wrongly" if len(given) == len(batch) else ""
            raise RemoteError(f"{self.address.url} gave {len(given)} vectors for {len(batch)} texts{twice}", 200)
        # Of requests at once, the first to be read decides, and the others must agree.
        with self._lock:
            width = self._width = self._width or len(placed[0])
        if any(len(vector) != width for vector in placed.values()):
            raise RemoteError(f"{self.address.url} gave vectors that are not of {width} finite numbers", 200)
        return [placed[place] for place in range(len(batch))]


def _unit(numbers: Any) -> NDArray[np.float32]:
    """A vector at length 1.

    Raises:
        ValueError: there is none of that direction.
    """
    given = np.asarray(numbers)
    if given.ndim != 1 or not given.size or given.dtype.kind not in "iuf":
        raise ValueError(f"not a list of numbers: {numbers!r:.60}")
    # In double precision and with a largest number of 1, so that no square is beyond what a number can hold.
    vector = given.astype(np.float64)
    largest = np.abs(vector).max()
    if not (np.isfinite(largest) and largest > 0):
        raise ValueError("a vector that is not of finite numbers, or of zeros alone")
    vector /= largest
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def _batches(texts: Sequence[str], most: int) -> list[list[str]]:
    """The texts in order, in parts that one request may hold."""
    parts: list[list[str]] = []
    room = 0
    for text in texts:
        if not parts or len(parts[-1]) >= most or len(text) > room:
            parts.append([])
            room = _CHARACTERS
        parts[-1].append(text)
        room -= len(text)
    return parts
