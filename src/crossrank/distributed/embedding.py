"""The passages, token ids and vectors of a part of the documents: made by a worker, used by the update of an index."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.checkpoint import vocabulary
from crossrank.distributed import documents, parts
from crossrank.distributed.parts import Part
from crossrank.distributed.work import Do
from crossrank.distributed.workfolder import WorkFolder
from crossrank.embedder import TextEmbedder, load_embedder
from crossrank.errors import InputError
from crossrank.index.build import digest_of
from crossrank.index.documents import Document
from crossrank.index.passages import ids_of, passages_of
from crossrank.packed import offsets_of
from crossrank.textids import TextIds
from crossrank.types import Embedded, Passage, Place, Truncation

# Texts that are embedded together: tokens of a part are bounded, and so is what one call holds.
_AT_ONCE = 1_024
# Texts whose vectors wait for the update to ask for them: a commit holds 1,024 passages and one document.
_WAITING = 16_384


@dataclass(frozen=True, slots=True)
class Embedding:
    """Indexing as a work: a part becomes NumPy arrays (`.npz`), by document in the order of the input.

    Attributes:
        folder: where the documents are.
        model: as `crossrank.load_embedder` takes it.
        options: the other arguments of `crossrank.load_embedder`.
        identity: what the leading process's embedder has: see `identity_of`.
        size: tokens of a passage, at most.
        overlap: tokens that a passage repeats.
    """

    folder: WorkFolder
    model: str | Path | None
    options: Mapping[str, Any]
    identity: tuple[str, str]
    size: int
    overlap: int

    def start(self) -> Do:
        """Load the embedder.

        Raises:
            InputError: it would give other vectors than the leading process: another processor, or another model.
        """
        embedder = load_embedder(self.model, **self.options)
        if identity_of(embedder) != self.identity:
            raise InputError(
                f"{socket.gethostname()} would give other vectors: it has {identity_of(embedder)}, and the work was "
                f"begun with {self.identity}. Name what all machines have, such as --backend cpu:avx2 --dtype float32, "
                "and put the same model on all of them"
            )
        return partial(_made, self, embedder)


def identity_of(embedder: TextEmbedder) -> tuple[str, str]:
    """What a vector depends on besides the text: weights, backend with tier and dtype."""
    return embedder.fingerprint, embedder.backend.name


def _made(work: Embedding, embedder: TextEmbedder, part: Part) -> bytes:
    text_ids = TextIds(vocabulary.plain(embedder.tokenizer), embedder.threads)
    told, passages, tokens = [], list[Passage](), list[NDArray[np.int32]]()
    for file, document in documents.read(work.folder.input, part):
        made = passages_of(document, text_ids, work.size, work.overlap, file)
        passages += [passage for passage, _ in made]
        tokens += [ids for _, ids in made]
        told.append({"digest": digest_of(document), "passages": [_told(passage) for passage, _ in made]})
    vectors, cut = _embedded(embedder, [passage.scored_text for passage in passages])
    content = BytesIO()
    np.savez(
        content,
        told=np.frombuffer(json.dumps([told, cut]).encode(), dtype=np.uint8),
        tokens=np.concatenate([*tokens, np.zeros(0, np.int32)]),
        offsets=offsets_of([len(ids) for ids in tokens]),
        vectors=vectors,
    )
    return parts.sealed(content.getvalue(), {"documents": len(told), "passages": len(passages)})


def _told(passage: Passage) -> list[Any]:
    assert passage.place is not None
    # Without ids: documents of one content share what was made of the first of them.
    return [passage.text, passage.title, passage.place.start, passage.place.line]


def _embedded(embedder: TextEmbedder, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[list[Any]]]:
    vectors, cut = [np.zeros((0, embedder.width), np.float32)], []
    for at in range(0, len(texts), _AT_ONCE):
        made = embedder.embedded(texts[at : at + _AT_ONCE])
        vectors.append(made.vectors)
        cut += [[at + one.position, one.tokens, one.read, one.windows, one.exact] for one in made.truncations]
    return np.concatenate(vectors), cut


class Prepared:
    """An embedder, and a way to cut documents, that gives what workers made; what they did not see, it makes itself.

    Used by one thread. Vectors and passages are those of `embedder`, so that an index cannot tell.

    Args:
        folder: where the parts are.
        all_parts: of the input.
        embedder: that the workers had.
        size: see `Embedding`.
        overlap: see `Embedding`.
    """

    def __init__(
        self, folder: WorkFolder, all_parts: Sequence[Part], embedder: TextEmbedder, size: int, overlap: int
    ) -> None:
        self._folder = folder
        self._embedder = embedder
        self._text_ids = TextIds(vocabulary.plain(embedder.tokenizer), embedder.threads)
        self._size, self._overlap = size, overlap
        self._where: dict[str, tuple[Part, int]] = {}
        for part in all_parts:
            for place, digest in enumerate(_Made(folder.file(part)).digests):
                self._where.setdefault(digest, (part, place))
        self._opened: tuple[Part, _Made] | None = None
        self._waiting: dict[str, tuple[NDArray[np.float32], Truncation | None]] = {}

    @property
    def width(self) -> int:
        """Numbers in one vector."""
        return self._embedder.width

    @property
    def fingerprint(self) -> str:
        """That of the embedder."""
        return self._embedder.fingerprint

    @property
    def room(self) -> int:
        """Tokens of a text that it reads, special tokens left out."""
        return self._embedder.room

    def cut(self, document: Document, file: str) -> list[tuple[Passage, NDArray[np.int32]]]:
        """As `passages.passages_of`."""
        found = self._where.get(digest_of(document))
        if found is None:
            return passages_of(document, self._text_ids, self._size, self._overlap, file)
        part, place = found
        if self._opened is None or self._opened[0] != part:
            self._opened = part, _Made(self._folder.file(part))
        made = self._opened[1].document(place, document, file)
        for passage, _, vector, cut in made:
            self._waiting[passage.scored_text] = vector, cut
        while len(self._waiting) > max(_WAITING, len(made)):
            del self._waiting[next(iter(self._waiting))]
        return [(passage, tokens) for passage, tokens, _, _ in made]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As `TextEmbedder.embed`."""
        return self.embedded(texts).vectors

    def embedded(self, texts: Sequence[str]) -> Embedded:
        """As `TextEmbedder.embedded`."""
        if any(text not in self._waiting for text in texts):
            return self._embedder.embedded(texts)
        found = [self._waiting[text] for text in texts]
        cuts = [(row, cut) for row, (_, cut) in enumerate(found) if cut is not None]
        truncations = tuple(Truncation(row, cut.tokens, cut.read, cut.windows, cut.exact) for row, cut in cuts)
        return Embedded(np.stack([vector for vector, _ in found]), truncations)


class _Made:
    """A part as it was made."""

    def __init__(self, path: Path) -> None:
        body, _ = parts.read(path)
        with np.load(BytesIO(body), allow_pickle=False) as arrays:
            self._tokens, self._offsets, self._vectors = arrays["tokens"], arrays["offsets"], arrays["vectors"]
            self._told, cut = json.loads(arrays["told"].tobytes())
        self._cut = {row: Truncation(row, *rest) for row, *rest in cut}
        self._first = offsets_of([len(told["passages"]) for told in self._told])

    @property
    def digests(self) -> list[str]:
        return [told["digest"] for told in self._told]

    def document(
        self, place: int, document: Document, file: str
    ) -> list[tuple[Passage, NDArray[np.int32], NDArray[np.float32], Truncation | None]]:
        """Passage, token ids, vector and what was cut of each passage of a document."""
        told = self._told[place]["passages"]
        made = []
        rows = zip(ids_of(document, len(told)), told, strict=True)
        for row, (id_, (text, title, start, line)) in enumerate(rows, int(self._first[place])):
            passage = Passage(id_, text, title, document.id, document.metadata, Place(file, start, line))
            ids = self._tokens[self._offsets[row] : self._offsets[row + 1]]
            made.append((passage, ids, self._vectors[row], self._cut.get(row)))
        return made
