"""Late interaction: query and documents are encoded apart, a vector a token, and compared by MaxSim.

    score(q, d) = sum over query tokens i of max over document tokens j of E_q[i] . E_d[j]

(Khattab and Zaharia 2020, "ColBERT".) E are the encoder's last hidden states, mapped to fewer numbers by one linear map
and scaled to length 1. So documents can be encoded before any query is known, and an index may keep their vectors.
`crossrank.checkpoint.late` says which checkpoints are read, `crossrank.lateencoder` which tokens they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossrank import backends, checkpoint
from crossrank.asking import (
    OF_RANK,
    OF_SCORE,
    check_list,
    check_pairs,
    check_queries,
    check_query,
    check_texts,
    without,
)
from crossrank.backends.maxsim import maxsim
from crossrank.batching import budget_of, plan, slices
from crossrank.calibration import Threshold, without_probabilities
from crossrank.checkpoint.late import PROJECTION
from crossrank.crossencoder import CHARACTERS, FIRST_SLICE, SLICE
from crossrank.errors import CheckpointError, InputError, ScoreError
from crossrank.foreign import caution
from crossrank.lateencoder import LateEncoder, Marked
from crossrank.models import named
from crossrank.packed import offsets_of
from crossrank.ranked import Ranked
from crossrank.scored import Pairs, Progress, Scored, scored_by, spread
from crossrank.tokenvectors import TokenVectors
from crossrank.types import Backend, Passage, TokenBackend, Tokens, Truncation

Floats = NDArray[np.float32]


class LateInteraction:
    """Scores (query, passage) pairs by MaxSim over token vectors. One scorer serves many threads.

    A passage is read up to the model's document length, and what is cut is reported; split longer ones first.

    Args:
        read: a late-interaction checkpoint.
        backend: what computes; what `crossrank.backends.open` gives when absent.

    >>> scorer = LateInteraction(load_late().checkpoint)
    >>> scorer.rank("capital of France?", ["Bread needs yeast.", "Paris is the capital of France."], k=1).positions
    (1,)
    """

    def __init__(self, read: checkpoint.Checkpoint, backend: Backend | None = None) -> None:
        checkpoint.check_read(read, "load_late")
        if read.late is None:
            raise CheckpointError(
                f"{read.name} is a {read.kind}, which has no map of token vectors; load it with crossrank.load(...) or "
                "crossrank.load_embedder(...), or name a late-interaction model such as colbert-ir/colbertv2.0"
            )
        backend = backends.open(read) if backend is None else backend
        if not isinstance(backend, TokenBackend):
            raise InputError(f"the backend {backend.name} gives no token vectors; use 'cpu', 'reference' or 'torch'")
        self.checkpoint = read
        self.backend: TokenBackend = backend
        self._threads: int | None = getattr(backend, "threads", None)
        self._encoder = LateEncoder(read.tokenizer(), read.late, read.mask, self._threads)
        self._map, self._bias = _map_of(read)

    def __repr__(self) -> str:
        return f"LateInteraction({self.checkpoint.name!r}, backend={self.backend.name!r}, width={self.width})"

    @property
    def width(self) -> int:
        """Numbers in one token's vector."""
        return len(self._map)

    @property
    def fingerprint(self) -> str:
        """Equal exactly for checkpoints with equal weights, tokenizer, markers and prompts."""
        return self.checkpoint.fingerprint

    @property
    def tokenizer(self) -> str:
        """Fingerprint of its tokenizer: `scored_tokens` takes ids of an index whose `tokenizer` equals it.

        No index has that of a model with a prompt before documents: a prompt and its text are tokenized as one.
        """
        return self._encoder.fingerprint

    @property
    def score_space(self) -> str:
        """What `score` returns: "maxsim", at most the number of the query's tokens. There are no probabilities."""
        return "maxsim"

    def count(self, text: str) -> int:
        """Tokens of a text as its tokenizer counts, special tokens left out.

        >>> load_late().count("Paris is its capital.")
        5
        """
        return self._encoder.count(text)

    def caution(self, query: str) -> str:
        """As of a cross-encoder."""
        return caution(lambda: self._encoder.scripts, query)

    @without(OF_SCORE)
    def score(self, pairs: Pairs, *, progress: Progress | None = None) -> Floats:
        """MaxSim of (query, passage) pairs, shape (n,), in their order; larger is more relevant.

        A blank passage, or one without any token, gets -inf. Scores of different queries do not compare: each query
        token adds at most 1.

        Args:
            pairs: texts.
            progress: as in `CrossEncoder.score`.

        Raises:
            InputError: a query is blank or has no token, or an item is not a pair of texts.
            ScoreError: the model gives NaN.

        >>> done = []
        >>> scores = load_late().score([("tea?", "Tea is hot."), ("tea?", "")], progress=lambda *of: done.append(of))
        >>> len(scores), done[-1]
        (2, (1, 1))
        """
        return scored_by(self.scored, pairs, progress).scores

    def scored(self, pairs: Pairs, *, progress: Progress | None = None) -> Scored:
        """Like `score`, with a report of what was cut. Equal texts are encoded once in a slice of the list."""
        pairs = check_pairs(pairs)
        distinct = list({pair: None for pair in pairs if pair[1].strip()})

        def encode(part: slice) -> tuple[list[int], Marked]:
            some = distinct[part]
            place = {text: row for row, text in enumerate(dict.fromkeys(text for _, text in some))}
            return [place[text] for _, text in some], self._encoder.documents(list(place))

        found = self._sliced([query for query, _ in distinct], [len(text) for _, text in distinct], encode, progress)
        # Those that stand beside blank passages only are not read, but refused all the same.
        self._encoder.queries(list({query for query, _ in pairs} - {query for query, _ in distinct}))
        place = {pair: row for row, pair in enumerate(distinct)}
        return spread(found, [place.get(pair, -1) for pair in pairs])

    def scored_tokens(self, queries: Iterable[str], passages: Tokens) -> Scored:
        """Like `scored`, for passages whose token ids are known, as those of an index are: only queries are tokenized.

        Args:
            queries: texts, one for each passage.
            passages: ids without special tokens, made by a tokenizer whose fingerprint is `tokenizer`; one without any
                id gets -inf. Those for a model with a prompt before documents begin with it.

        Raises:
            InputError: a query is blank or has no token, or the two are not of one length.
            ScoreError: the model gives NaN.
        """
        queries = check_queries(queries, len(passages))

        def encode(part: slice) -> tuple[list[int], Marked]:
            rows = range(len(passages))[part]
            return list(range(len(rows))), self._encoder.document_tokens(passages.take(list(rows)))

        return self._sliced(queries, (passages.lengths * CHARACTERS).tolist(), encode)

    def scored_vectors(self, query: str, passages: TokenVectors) -> Scored:
        """Like `scored`, for passages whose vectors are known, as those of an index may be: only the query is encoded.

        Args:
            query: what the user asks; must not be blank.
            passages: vectors that a model with this `fingerprint` made (`encode`); one without any gets -inf.

        Raises:
            InputError: the query is blank or has no token, or the vectors are of another width.
            ScoreError: the model gives NaN, or a vector is not finite.
        """
        check_query(query)
        made, cut, tokens = self._queries([query])
        scores = maxsim(made[query], passages, self._threads)
        if len(bad := np.flatnonzero(np.isnan(scores))):
            raise ScoreError(
                f"vectors of passage {bad[0]} hold NaN or infinity: encode it again, or make the index anew"
            )
        return Scored(scores, cut, tokens)

    def encode(self, passages: Iterable[str]) -> tuple[TokenVectors, tuple[Truncation, ...]]:
        """Token vectors of passages, in their order, and a report of those that were cut, for `scored_vectors`.

        A blank passage, or one without any token, has no vectors. They take `width` numbers a token: keep few at once,
        or as float16.

        Raises:
            InputError: one string in place of a list, or an item that is no string.
        """
        passages = check_texts(passages, "encode")
        filled = [text for text in passages if text.strip()]
        marked = self._encoder.documents(filled)
        made = self._vectors(marked)
        place = [position for position, text in enumerate(passages) if text.strip()]
        lengths = np.zeros(len(passages), dtype=np.int64)
        lengths[place] = np.diff(made.offsets)
        cut = tuple(replace(one, position=place[one.position]) for one in marked.truncations)
        return TokenVectors(made.vectors, offsets_of(lengths)), cut

    def sequence_lengths(self, query: str, passages: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens of the sequence that each passage of so many tokens becomes, and that it is one, each of shape (n,).

        The query is not among them: it is read once, whatever is compared with it.
        """
        room = self._encoder.document_room
        beside = self._encoder.late.document_length - room
        lengths = np.asarray(passages, dtype=np.int64)
        return lengths.clip(max=room) + beside, np.ones_like(lengths)

    @without(OF_RANK)
    def rank(
        self,
        query: str,
        documents: Iterable[str | Passage],
        k: int | None = None,
        *,
        threshold: Threshold | None = None,
        progress: Progress | None = None,
    ) -> Ranked:
        """The documents that answer the query, best first.

        Args:
            query: what the user asks; must not be blank.
            documents: texts, or passages, whose titles are read, too. Duplicates are kept, blank ones come last.
            k: entries to return; all when absent or larger than the list.
            threshold: refused, as it is by any model without probabilities.
            progress: as in `CrossEncoder.score`.

        Returns:
            Positions in `documents` with MaxSim scores. Ties keep their incoming order.

        Raises:
            InputError: a query that is blank or has no token, a document that is no text, a `k` under 1, or a
                threshold.
        """
        if threshold is not None:
            raise InputError(without_probabilities(self.checkpoint.name))
        given = check_list(query, documents, k)
        scored = scored_by(self.scored, [(query, document) for document in given], progress)
        return Ranked.of(scored, k, self.caution(query) if given else "")

    def _sliced(
        self,
        queries: Sequence[str],
        characters: Sequence[int],
        encode: Callable[[slice], tuple[list[int], Marked]],
        progress: Progress | None = None,
    ) -> Scored:
        """Scores of query `i` with passage `i`, a slice at a time, so that vectors do not grow with the list.

        `encode` gives for a slice the sequence of each of its passages, and the sequences.
        """
        asked, cut, tokens = self._queries(list(dict.fromkeys(queries)))
        scores = np.empty(len(queries), dtype=np.float32)
        truncations = list(cut)
        for part in slices(1 + np.array(characters, dtype=np.int64), FIRST_SLICE, SLICE):
            of, marked = encode(part)
            documents = self._vectors(marked, None if progress is None else _within(part, len(queries), progress))
            tokens += len(marked.tokens.ids)
            rows: dict[str, list[int]] = {}
            for row, query in enumerate(queries[part]):
                rows.setdefault(query, []).append(row)
            for query, mine in rows.items():
                some = documents.take([of[row] for row in mine])
                scores[part.start + np.array(mine)] = maxsim(asked[query], some, self._threads)
            by_sequence = {one.position: one for one in marked.truncations}
            truncations += [
                replace(by_sequence[row], position=part.start + place)
                for place, row in enumerate(of)
                if row in by_sequence
            ]
        if progress is not None:
            progress(len(queries), len(queries))
        return Scored(scores, tuple(truncations), tokens)

    def _queries(self, texts: list[str]) -> tuple[dict[str, Floats], tuple[Truncation, ...], int]:
        """Vectors of distinct queries, which of them were cut (as position -1), and the tokens read."""
        marked = self._encoder.queries(texts)
        made = self._vectors(marked)
        cut = tuple(replace(one, position=-1) for one in marked.truncations)
        rows = np.split(np.asarray(made.vectors, dtype=np.float32), made.offsets[1:-1]) if texts else []
        return dict(zip(texts, rows, strict=True)), cut, len(marked.tokens.ids)

    def _vectors(self, marked: Marked, tell: Progress | None = None) -> TokenVectors:
        """Unit vectors of the tokens that count; `tell` hears after each batch how many sequences of all are done."""
        tokens, kept, done = marked.tokens, marked.kept, 0
        out = np.empty((len(tokens.ids), self.width), dtype=np.float32)
        for batch in plan(tokens.lengths, budget_of(self.backend), self.backend.padded):
            states = self.backend.states(tokens.take(batch), None if marked.seen is None else marked.seen[batch])
            mapped = states @ self._map.T
            if self._bias is not None:
                mapped += self._bias
            # As torch's normalize does, so that a vector of zeros stays one.
            mapped /= np.maximum(np.linalg.norm(mapped, axis=1, keepdims=True), 1e-12)
            out[tokens.places(batch)] = mapped
            done += len(batch)
            if tell is not None:
                tell(done, len(tokens))
        if np.isnan(out).any():
            raise ScoreError(
                f"{self.checkpoint.name} gives NaN. Its weights are damaged or overflow in this dtype: load it with "
                "dtype='float32', or save it again"
            )
        return TokenVectors(out[kept], offsets_of(kept)[tokens.offsets])


def _within(part: slice, total: int, progress: Progress) -> Progress:
    """Sequences of a slice as pairs of the whole list."""
    return lambda done, of: progress(part.start + (part.stop - part.start) * done // of, total)


def _map_of(read: checkpoint.Checkpoint) -> tuple[Floats, Floats | None]:
    """Weight (width, hidden) and bias (width,) of the linear map."""
    found = read.tensors()
    weight, bias = found[f"{PROJECTION}.weight"], found.get(f"{PROJECTION}.bias")
    hidden = read.config.get("hidden_size")
    if weight.ndim != 2 or weight.shape[1] != hidden or (bias is not None and bias.shape != weight.shape[:1]):
        raise CheckpointError(
            f"{read.folder}: {PROJECTION}.weight has shape {list(weight.shape)}, but the encoder gives {hidden} "
            "numbers a token. The two are of different models; copy the folder again."
        )
    return weight, bias


def load_late(
    name: str | Path | None = None,
    *,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> LateInteraction:
    """Load a late-interaction model.

    Args:
        name: a name of `crossrank models`, a folder in PyLate's or ColBERTv2's layout, or a hub name; "late", which is
            in the wheel, when absent.
        backend: "auto", "cpu", "cuda", "reference" or "torch"; see `crossrank.backends.open`, also for the next two.
        device: "auto", "cpu", "cuda", or cards: "cuda:1", and for the cuda backend "cuda:0,1" or "cuda:all".
        dtype: "auto", "float32", "bfloat16", "float16" or "int16".
        threads: cores that one call of the native engine may use, tokenization included; all when absent.
        revision: branch, tag or commit of a hub model; the newest when absent. Models in the wheel, folders and files
            have none.
        token: of the hub, for models that are not public; the one that is stored on this machine when absent. A model
            that is here needs neither it nor the next, and is the same with them.
        cache_dir: the hub's local cache; where HF_HOME says when absent.

    Raises:
        CheckpointError: the model is missing, damaged, or no late-interaction model.
        InputError: a revision of a model that has none, a device or dtype that the backend lacks, or `threads` out of
            its range.

    >>> load_late().rank("what is yeast?", ["tax law of 1990", "yeast is a fungus"]).positions
    (1, 0)
    """
    read = named.read(name, default="late", revision=revision, token=token, cache_dir=cache_dir)
    return LateInteraction(read, backends.open(read, backend, device, dtype, threads))
