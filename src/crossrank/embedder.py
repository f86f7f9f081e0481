"""A bi-encoder: text to one unit vector."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank import backends, checkpoint
from crossrank.addresses import is_address
from crossrank.asking import OF_EMBEDDERS, Elsewhere, check_texts
from crossrank.batching import budget_of, plan
from crossrank.checkpoint import settings
from crossrank.credentials import without_secrets
from crossrank.encoder import begun
from crossrank.errors import CheckpointError, IndexFileError, InputError
from crossrank.models import named
from crossrank.packed import offsets_of
from crossrank.textids import TextIds
from crossrank.types import Backend, Embedded, Pooling, Tokens, Truncation
from crossrank.unicode import valid_text

E = TypeVar("E")


class TextEmbedder(Elsewhere):
    """Texts to unit vectors. One embedder serves many threads.

    Texts are documents. Queries go to `queries`, the same embedder with its model's other prompt, where it has one: an
    index and its searches do so by themselves. Prompts are those of sentence-transformers' `encode_query` and
    `encode_document`, or where the model names only a default prompt, that one before every text, as `encode` has it.

    Args:
        read: a bi-encoder's checkpoint.
        backend: what computes; what `crossrank.backends.open` gives when absent.

    >>> embedder = TextEmbedder(load_embedder().checkpoint)
    >>> embedder.width, embedder.room
    (384, 254)
    """

    _elsewhere = OF_EMBEDDERS

    def __init__(self, read: checkpoint.Checkpoint, backend: Backend | None = None) -> None:
        checkpoint.check_read(read, "load_embedder")
        if read.kind == "bi-encoder" and read.pooling is None:
            raise CheckpointError(
                f"{read.name} does not say how the vectors of tokens become one: its folder has no modules.json with a "
                "Pooling. Copy the whole folder, or save the model with sentence-transformers"
            )
        if read.kind != "bi-encoder" or read.pooling is None:
            raise CheckpointError(
                f"{read.name} is a {read.kind} model, not a bi-encoder; embed with a sentence-transformers model such "
                "as 'embed', or load it with crossrank.load(...) to score pairs"
            )
        self.checkpoint = read
        self.backend = backends.open(read) if backend is None else backend
        self.max_length = read.max_length
        self._pooling: Pooling = read.pooling
        self.tokenizer: Tokenizer = read.tokenizer()
        self.threads: int | None = getattr(self.backend, "threads", None)
        self._text_ids = TextIds(self.tokenizer, self.threads)
        marks = self.tokenizer.encode("a").special_tokens_mask
        self._specials = sum(marks)
        self._closing = sum(marks[marks.index(0) :]) if 0 in marks else 0
        self._prompt, self._query_prompt = self._measured(read.prompt), self._measured(read.query_prompt)

    def __repr__(self) -> str:
        return f"TextEmbedder({self.checkpoint.name!r}, backend={self.backend.name!r}, width={self.width})"

    def _measured(self, prompt: str) -> int:
        """Tokens of a prompt."""
        # Some tokenizers read a prompt's last space with the word that follows.
        tokens = len(self.tokenizer.encode(prompt.rstrip(), add_special_tokens=False).ids)
        if self.max_length - self._specials - tokens < 1:
            name = self.checkpoint.name
            raise CheckpointError(f"{name} has a prompt of {tokens} tokens, which leaves no room for a text")
        return tokens

    @property
    def queries(self) -> TextEmbedder:
        """What queries go to: this embedder with its model's prompt for them, on the backend that this one has now."""
        read = self.checkpoint
        if read.query_prompt == read.prompt:
            return self
        other = copy.copy(self)
        other.checkpoint = replace(read, prompt=read.query_prompt)
        other._prompt = self._query_prompt
        return other

    @property
    def width(self) -> int:
        """Numbers in one vector."""
        return self.checkpoint.width

    @property
    def fingerprint(self) -> str:
        """Equal exactly for checkpoints with equal weights, tokenizer, pooling and prompt before documents."""
        return self.checkpoint.fingerprint

    @property
    def prompts(self) -> dict[str, str]:
        """Its prompts as `load_embedder` takes them, where they are others than its model's own."""
        read = self.checkpoint
        if settings.prompts_of(read.folder) == (read.query_prompt, read.prompt):
            return {}
        return {"query_prompt": read.query_prompt, "document_prompt": read.prompt}

    def prompted(self, query_prompt: str | None = None, document_prompt: str | None = None) -> TextEmbedder:
        """The same with other prompts, such as those that an index keeps; those that are absent stay."""
        read = self.checkpoint
        if query_prompt is not None:
            read = replace(read, query_prompt=query_prompt)
        if document_prompt is not None:
            read = replace(read, prompt=document_prompt)
        return TextEmbedder(read, self.backend)

    @property
    def room(self) -> int:
        """Tokens of a text that it reads, special tokens and a prompt left out."""
        return self.max_length - self._specials - self._prompt

    def count(self, text: str) -> int:
        """Tokens of a text as its tokenizer counts, special tokens left out.

        >>> load_embedder().count("Paris is its capital.")
        5
        """
        return len(self._text_ids.of(check_texts([text], "count")).ids)

    def embed(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (n, width), in the order of the texts; their dot product is the cosine.

        A text of more than `room` tokens is read up to there, as bi-encoders do; `embedded` says which ones were.
        Split long texts into passages first. Equal texts are embedded once.

        Raises:
            InputError: one string in place of a list, or an item that is no string.

        >>> import crossrank
        >>> vectors = crossrank.load_embedder().embed(["a cat", "a kitten", "tax law"])
        >>> vectors.shape, bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])
        ((3, 384), True)
        """
        return self.embedded(texts).vectors

    def embedded(self, texts: Iterable[str]) -> Embedded:
        """Like `embed`, with a report of the texts that were not read to their end.

        >>> import crossrank
        >>> made = crossrank.load_embedder().embedded(["a cat", "meow " * 300])
        >>> [(cut.position, cut.tokens, cut.read) for cut in made.truncations]
        [(1, 600, 254)]
        """
        texts = check_texts(texts, "embed")
        place = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        tokens, cut = self._encode(list(place))
        out = np.empty((len(place), self.width), dtype=np.float32)
        for batch in plan(tokens.lengths, budget_of(self.backend), self.backend.padded):
            out[batch] = self.backend.pool(tokens.take(batch), self._pooling)
        # Cosine needs unit vectors, also where the checkpoint has no Normalize module.
        out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
        rows = [place[text] for text in texts]
        truncations = [replace(cut[row], position=position) for position, row in enumerate(rows) if row in cut]
        return Embedded(out[rows], tuple(truncations))

    def _encode(self, texts: list[str]) -> tuple[Tokens, dict[int, Truncation]]:
        """Sequences that the model can read, and what was cut for it, by row."""
        tokens, exact = begun(texts, self.max_length, self._framed)
        beside, lengths = self._specials + self._prompt, tokens.lengths
        cut = {}
        for row in np.flatnonzero((lengths > self.max_length) | ~exact).tolist():
            total = int(lengths[row]) - beside
            cut[row] = Truncation(row, total, min(total, self.room), 1, bool(exact[row]))
        # The special tokens that close a text stay.
        place = np.arange(len(tokens.ids)) - np.repeat(tokens.offsets[:-1], lengths)
        kept = (place < self.max_length - self._closing) | (place >= np.repeat(lengths - self._closing, lengths))
        read = lengths.clip(max=self.max_length)
        return Tokens(tokens.ids[kept], tokens.types[kept], offsets_of(read)), cut

    def _framed(self, texts: Sequence[str]) -> Tokens:
        prompt = self.checkpoint.prompt
        return self._text_ids.framed([prompt + text for text in texts] if prompt else texts)


def load_embedder(
    name: str | Path | None = None,
    *,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
) -> TextEmbedder:
    """Load a bi-encoder.

    Args:
        name: a name of `crossrank models`, a folder, or a hub name; "embed", which is in the wheel, when absent.
        backend: "auto", "cpu", "cuda", "reference" or "torch"; see `crossrank.backends.open`, also for the next two.
        device: "auto", "cpu", "cuda", or cards: "cuda:1", and for the cuda backend "cuda:0,1" or "cuda:all".
        dtype: "auto", "float32", "bfloat16", "float16" or "int16".
        threads: cores that one call of the native engine may use, tokenization included; all when absent.
        revision: branch, tag or commit of a hub model; the newest when absent. Models in the wheel, folders and files
            have none.
        token: of the hub, for models that are not public; the one that is stored on this machine when absent. A model
            that is here needs neither it nor the next, and is the same with them.
        cache_dir: the hub's local cache; where HF_HOME says when absent.
        query_prompt: what the model was trained to read before a query, where its folder does not say so: "query: " of
            E5, "Represent this sentence for searching relevant passages: " of BGE, "search_query: " of Nomic's. An
            index that is made with it keeps it, and the next.
        document_prompt: what it was trained to read before a document: "passage: " of E5, nothing of BGE.

    Raises:
        CheckpointError: the model is missing, damaged, or no bi-encoder; or it leaves prompts out of its pooling.
        InputError: a revision of a model that has none, a device or dtype that the backend lacks, `threads` out of
            its range, or a prompt that is no text.

    >>> vectors = load_embedder().embed(["a cat", "a kitten", "tax law"])
    >>> int((vectors @ vectors[0])[1:].argmax())
    0
    """
    if is_address(name):
        raise CheckpointError(
            f"{without_secrets(name)} is an address, and what is loaded here is a model on this machine: addresses are "
            "for crossrank index (--model) and other commands (--embedder), and in Python for "
            "crossrank.remoteembedder.RemoteEmbedder"
        )
    read = named.read(name, default="embed", revision=revision, token=token, cache_dir=cache_dir)
    for name, text in (("query_prompt", query_prompt), ("document_prompt", document_prompt)):
        if text is not None and not isinstance(text, str):
            raise InputError(f"{name} is a text, not {text!r:.80}")
        settings.check_pooled(read.folder, text or "")
    if query_prompt is not None:
        read = replace(read, query_prompt=valid_text(query_prompt))
    if document_prompt is not None:
        read = replace(read, prompt=valid_text(document_prompt))
    return TextEmbedder(read, backends.open(read, backend, device, dtype, threads))


def own_name(name: str | None, folder: str | Path) -> str | None:
    """The embedder that the index in a folder names as its own, for `load_embedder`; None is its default.

    Raises:
        IndexFileError: it is behind an address, and an index from a stranger must not say where queries and keys go; or
            its folder is gone.
    """
    if is_address(name):
        raise IndexFileError(
            f"the index {folder} was made with a model behind an address, and queries go there only when you say so: "
            f'--embedder "{name}" (embedder=RemoteEmbedder(...))'
        )
    if name is not None and Path(name).is_absolute() and not Path(name).exists():
        raise IndexFileError(
            f"the index {folder} was made with the embedder {name}, and nothing is there: where it was moved, name "
            "it with --embedder FOLDER (embedder=FOLDER)"
        )
    return name


def asked_as(embedder: E, prompts: Mapping[str, str]) -> E:
    """An embedder with the prompts of the index that it searches; as it is where it has prompts, or takes none."""
    prompted = getattr(embedder, "prompted", None)
    return (
        prompted(**prompts) if prompts and prompted is not None and not getattr(embedder, "prompts", {}) else embedder
    )
