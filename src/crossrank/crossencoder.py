"""A cross-encoder: pairs to sequences, sequences to batches, logits to scores and an order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from crossrank import backends, checkpoint
from crossrank.asking import (
    OF_CROSS_ENCODERS,
    OF_RANK,
    OF_SCORE,
    Elsewhere,
    check_list,
    check_pairs,
    check_queries,
    check_whole,
    without,
)
from crossrank.batching import budget_of, plan, slices
from crossrank.calibration import Platt, Threshold, least, numbers, sigmoid
from crossrank.encoder import CHARACTERS_A_TOKEN, Encoded, PairEncoder, Windows
from crossrank.errors import CheckpointError, InputError, ScoreError
from crossrank.foreign import caution
from crossrank.lookahead import lookahead
from crossrank.ranked import Ranked
from crossrank.scored import Pairs, Progress, Scored, firsts, scored_by, spread
from crossrank.types import Backend, Passage, Tokens, Truncation
from crossrank.windows import fold

# Characters of the first slice of a long list and of any, about 15,000 and 60,000 tokens of English. Tokenizing takes
# some 80 bytes a token until the ids are out, and two slices exist at once.
FIRST_SLICE, SLICE = 65_536, 262_144
_SHOWN = 40  # characters of an instruction, where it is named
CHARACTERS = 4  # a token, about, to compare passages of ids with those of text


class CrossEncoder(Elsewhere):
    """Scores (query, passage) pairs with one transformer reading both. One scorer serves many threads.

    `crossrank.load("small")` makes one from a model's name; this takes what is loaded already.

    Args:
        read: a cross-encoder's checkpoint.
        backend: what computes; what `crossrank.backends.open` gives when absent.
        windows: how passages are read that do not fit into one sequence with their query.
        max_length: tokens in one sequence; the checkpoint's own when absent.

    >>> import crossrank
    >>> scorer = CrossEncoder(crossrank.load().checkpoint)
    >>> scorer.rank("capital of France?", ["Bread needs yeast.", "Paris is the capital of France."], k=1).positions
    (1,)
    """

    _elsewhere = OF_CROSS_ENCODERS

    def __init__(
        self,
        read: checkpoint.Checkpoint,
        backend: Backend | None = None,
        windows: Windows | None = None,
        max_length: int | None = None,
    ) -> None:
        checkpoint.check_read(read, "load")
        check_scores(read)
        if max_length is not None:
            check_whole("max_length", max_length)
        if max_length is not None and not 5 <= max_length <= read.max_length:
            raise InputError(f"max_length must be from 5 to {read.max_length} for {read.name}, not {max_length}")
        self.checkpoint = read
        self.backend = backends.open(read) if backend is None else backend
        self.windows = windows or Windows()
        self.max_length = max_length or read.max_length
        self._encoder = PairEncoder.of(read, self.max_length, getattr(self.backend, "threads", None))
        self._calibration = Platt(**read.calibration) if read.calibration else None

    def __repr__(self) -> str:
        told = self.checkpoint.instruction
        if told is not None and len(told) > _SHOWN:
            told = told[: _SHOWN - 1] + "…"
        asked = "" if told is None else f" instruction={told!r},"
        return f"CrossEncoder({self.checkpoint.name!r},{asked} backend={self.backend.name!r})"

    @property
    def fingerprint(self) -> str:
        """Equal exactly for checkpoints with equal weights, head and tokenizer."""
        return self.checkpoint.fingerprint

    @property
    def identity(self) -> tuple[str, str, str, int]:
        """What a score depends on besides the texts: weights, backend with tier and dtype, windows, sequence length."""
        return self.fingerprint, self.backend.name, repr(self.windows), self._encoder.room

    @property
    def uncached(self) -> CrossEncoder:
        """The scorer that computes each time it is asked: itself, unless it is a `crossrank.CachedScorer`."""
        return self

    @property
    def tokenizer(self) -> str:
        """Fingerprint of its tokenizer: `scored_tokens` takes ids of an index whose `tokenizer` equals it."""
        return self._encoder.fingerprint

    @property
    def score_space(self) -> str:
        """What `score` returns: always "logit". `probability` maps it, when the model can tell probabilities."""
        return "logit"

    @property
    def calibrated(self) -> bool:
        """Whether `probability` rests on a calibration that was fitted to judgments.

        >>> import crossrank
        >>> crossrank.load().calibrated
        True
        """
        return self._calibration is not None

    @property
    def threshold(self) -> float | None:
        """The probability under which the best passage of a list is no answer, or None where nobody has chosen one.

        It is a compromise over several kinds of text: the model's card says how often it errs either way.

        >>> import crossrank
        >>> scorer = crossrank.load()
        >>> best = scorer.rank("capital of France?", ["Bread needs yeast."]).scores[:1]
        >>> bool(scorer.probability(best)[0] >= scorer.threshold)
        False
        """
        return self.checkpoint.threshold

    @property
    def mix(self) -> float | None:
        """The share of its score in the order of a search that suits it, or None where nobody has found one.

        `crossrank tune --index` finds it on held-out queries; searches take it unless they are told another.
        """
        return self.checkpoint.mix

    def count(self, text: str) -> int:
        """Tokens of a text as its tokenizer counts, special tokens left out.

        >>> import crossrank
        >>> crossrank.load().count("Paris is its capital.")
        5
        """
        return self._encoder.count(text)

    def caution(self, query: str) -> str:
        """What is to be said of the scores for a query in a script that the model lacks; see `foreign.caution`."""
        return caution(lambda: self._encoder.scripts, query)

    @without(OF_SCORE)
    def score(self, pairs: Pairs, *, progress: Progress | None = None) -> NDArray[np.float32]:
        """Raw logits of (query, passage) pairs, shape (n,), in their order; larger is more relevant.

        Two-label models give the log-odds of their second label. A blank passage gets -inf. Equal pairs count once.

        Args:
            pairs: tuples or lists of two texts; the second may be a `Passage`, whose title is read, too.
            progress: called after each batch with how many distinct pairs are scored, about, and how many there are
                (those with a blank passage left out); the last call has the two equal.

        Raises:
            InputError: a query is blank or has no token, or an item is not a pair of texts.
            ScoreError: the model gives NaN.

        >>> import crossrank
        >>> scores = crossrank.load().score([("capital of France", "Paris is its capital."), ("capital of France", "")])
        >>> bool(scores[0] > scores[1])
        True
        """
        return scored_by(self.scored, pairs, progress).scores

    def scored(self, pairs: Pairs, *, progress: Progress | None = None) -> Scored:
        """Like `score`, with a report of what was cut or read in windows.

        Long lists are read in slices, so that memory does not grow with them; while the backend scores one slice, a
        thread that lives as long as this call tokenizes the next.

        >>> import crossrank
        >>> found = crossrank.load(max_windows=1).scored([("capital of France", "Paris is its capital. " * 200)])
        >>> [(cut.position, cut.told) for cut in found.truncations]
        [(0, '400 of 1,000 tokens')]
        """
        pairs = check_pairs(pairs)
        distinct = list({pair: None for pair in pairs if pair[1].strip()})
        query_ids: dict[str, NDArray[np.int32]] = {}

        def encode(part: slice) -> Encoded:
            return self._encoder.encode(distinct[part], self.windows, query_ids)

        found = self._sliced(self._costs([(_bytes(query), _bytes(text)) for query, text in distinct]), encode, progress)
        # Also those that stand beside blank passages only.
        self._encoder.check_queries([query for query, _ in pairs], query_ids)
        place = {pair: row for row, pair in enumerate(distinct)}
        return spread(found, [place.get(pair, -1) for pair in pairs])

    def scored_tokens(self, queries: Iterable[str], passages: Tokens) -> Scored:
        """Like `scored`, for passages whose token ids are known, as those of an index are: only queries are tokenized.

        Args:
            queries: texts, one for each passage.
            passages: ids without special tokens, made by a tokenizer whose fingerprint is `tokenizer`; one without any
                id is blank and gets -inf.

        Raises:
            InputError: a query is blank or has no token, or the two are not of one length.
            ScoreError: the model gives NaN.

        >>> import crossrank
        >>> scorer = crossrank.load()
        >>> ids = scorer.checkpoint.tokenizer().encode("Paris is its capital.", add_special_tokens=False).ids
        >>> known = scorer.scored_tokens(["capital of France"], Tokens.of([ids])).scores
        >>> bool(known == scorer.score([("capital of France", "Paris is its capital.")]))
        True
        """
        queries = check_queries(queries, len(passages))
        # A digest stands for the ids, so that equal pairs are found without a copy of all of them.
        keys = [(query, blake2b(passages.row(i).tobytes(), digest_size=16).digest()) for i, query in enumerate(queries)]
        first = firsts(keys)
        distinct = np.array(list(first.values()), dtype=np.int64)
        query_ids: dict[str, NDArray[np.int32]] = {}

        def encode(part: slice) -> Encoded:
            some = distinct[part]
            return self._encoder.encode_tokens([queries[i] for i in some], passages.take(some), self.windows, query_ids)

        lengths = passages.lengths[distinct].tolist()
        sizes = [(_bytes(queries[i]), CHARACTERS * n) for i, n in zip(distinct.tolist(), lengths, strict=True)]
        found = self._sliced(self._costs(sizes), encode)
        place = {key: number for number, key in enumerate(first)}
        return spread(found, [place[key] for key in keys])

    def sequence_lengths(self, query: str, passages: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What passages of so many tokens become with `query`: the tokens of each sequence, in order, and how many
        sequences each passage is, shape (n,). What they cost is known before they are scored.

        >>> import crossrank
        >>> lengths, counts = crossrank.load().sequence_lengths("capital of France", np.array([5, 700]))
        >>> counts.tolist(), lengths.tolist()
        ([1, 2], [11, 406, 406])
        """
        return self._encoder.sequence_lengths(query, passages, self.windows)

    def _costs(self, sizes: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
        """What the model reads of each pair, about, in bytes, from those of its query and its passage."""
        both = np.array(sizes, dtype=np.int64).reshape(-1, 2)
        # Hardly a token has less than a byte, so that only longer passages need windows.
        stretch = np.where(both[:, 1] > self._encoder.room, self._encoder.stretch(self.windows), 1.0)
        read = np.minimum(both[:, 1], CHARACTERS_A_TOKEN * max(self.windows.tokens, self._encoder.room))
        return 1 + both[:, 0] + (read * stretch).astype(np.int64)

    def _sliced(
        self, costs: NDArray[np.int64], encode: Callable[[slice], Encoded], progress: Progress | None = None
    ) -> Scored:
        """Scores of distinct pairs, a slice at a time."""
        scores, tokens = np.empty(len(costs), dtype=np.float32), 0
        queries: list[Truncation] = []
        passages: list[Truncation] = []
        parts, tell = slices(costs, FIRST_SLICE, SLICE), progress or (lambda done, total: None)
        with closing(lookahead(encode, parts)) as encoded:
            for part, whole in zip(parts, encoded, strict=True):
                made = whole.filled()
                logits = np.empty(len(made.tokens), dtype=np.float32)
                for done in self._forward(made.tokens, logits):
                    tell(part.start + (part.stop - part.start) * done // len(logits), len(costs))
                scores[part] = fold(logits, made.owner, part.stop - part.start, self.windows.fold)
                cuts = [(cut.position, cut) for cut in made.truncations]
                queries += [cut for at, cut in cuts if at < 0]
                passages += [replace(cut, position=part.start + at) for at, cut in cuts if at >= 0]
                tokens += int(made.tokens.offsets[-1])
        tell(len(costs), len(costs))
        return Scored(scores, (*queries, *passages), tokens)

    def _forward(self, tokens: Tokens, logits: NDArray[np.float32]) -> Iterator[int]:
        """Fill in `logits` a batch at a time, and say after each how many sequences are done."""
        done = 0
        for batch in plan(tokens.lengths, budget_of(self.backend), self.backend.padded):
            logits[batch] = self.backend.forward(tokens.take(batch))
            yield (done := done + len(batch))
        if np.isnan(logits).any():
            raise ScoreError(
                f"{self.checkpoint.name} gives NaN for {int(np.isnan(logits).sum())} of {len(logits)} sequences. Its "
                "weights are damaged or overflow in this dtype: load it with dtype='float32', or save it again"
            )

    @without(OF_RANK)
    def rank(
        self,
        query: str,
        documents: Iterable[str | Passage],
        k: int | None = None,
        *,
        threshold: Threshold | None = None,
        evidence: bool = False,
        progress: Progress | None = None,
    ) -> Ranked:
        """The documents that answer the query, best first.

        Args:
            query: not blank.
            documents: texts, or passages, whose titles are read, too. Duplicates are kept, blank ones come last.
            k: entries to return; all when absent or larger than the list.
            threshold: of these only those that have at least this probability, perhaps none; "model" takes the model's
                own, see `threshold`. `Ranked.note` says what was left out.
            evidence: also find the sentence of each returned document that answers best, see `crossrank.evidence`.
            progress: as in `score`.

        Returns:
            Positions in `documents` with raw scores. Ties keep their incoming order.

        Raises:
            InputError: a blank query, a document that is no text, a `k` under 1, or a threshold without `probability`.

        >>> import crossrank
        >>> ranked = crossrank.load().rank(
        ...     "Which planet is the largest?",
        ...     ["Mercury is the smallest planet.", "Jupiter is the largest planet.", "Bread needs yeast."],
        ...     k=2,
        ... )
        >>> ranked.positions[0]
        1
        >>> none = crossrank.load().rank("Which planet is the largest?", ["Bread needs yeast."], threshold="model")
        >>> len(none), none.note.partition(":")[0]
        (0, 'nothing reaches the threshold')
        """
        limit = None if threshold is None else least(self, threshold, self.checkpoint.name)
        given = check_list(query, documents, k)
        scored = scored_by(self.scored, [(query, document) for document in given], progress)
        ranked = Ranked.of(scored, k, self.caution(query) if given else "")
        if limit is not None:
            ranked, said = ranked.above(self.probability(ranked.scores), limit)
            ranked = replace(ranked, note="; ".join(filter(None, [ranked.note, said])))
        return ranked.explained(query, given, self.score) if evidence else ranked

    def probability(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raw scores as probabilities that a passage is relevant, same shape and order.

        Raises:
            InputError: no scores, or the model has no calibration and its authors trained it to give no probabilities.

        >>> import crossrank
        >>> crossrank.load().probability(np.array([-np.inf, 20], dtype=np.float32)).round(2).tolist()
        [0.0, 1.0]
        """
        if self._calibration is not None:
            return self._calibration.probability(scores)
        if self.checkpoint.activation in ("sigmoid", "softmax"):
            # Log-odds of a two-label head and logits of a one-label head share the sigmoid.
            return sigmoid(numbers(scores).astype(np.float32))
        raise InputError(
            f"{self.checkpoint.name} gives uncalibrated logits, and a sigmoid over them would not be a probability. "
            "Fit one on judged pairs with `crossrank calibrate`, or give crossrank.load(..., calibration=Platt.fit("
            "scores, relevant))"
        )


def check_scores(read: checkpoint.Checkpoint) -> None:
    """Refuse a model that is no cross-encoder, before it is loaded.

    Raises:
        CheckpointError: it is none.
    """
    if read.kind == "bi-encoder" and read.pooling is None and read.generates:
        raise CheckpointError(
            f"{read.name} is a language model, and nothing in its folder says how it is asked whether a passage is "
            "relevant. Take a folder that sentence-transformers 5.4 or later has saved of it, with a chat template "
            "that has the roles 'query' and 'document' and a module LogitScore, which names the tokens of its "
            "answers; or choose another model"
        )
    if read.kind != "cross-encoder":
        load, taken = ("load_late", "search and rerank take") if read.late else ("load_embedder", "index takes")
        raise CheckpointError(
            f"{read.name} is a {read.kind} model, which has no head that scores pairs; name a cross-encoder, such "
            f"as 'small', or use crossrank.{load}(...). On the command line, crossrank {taken} it as --model"
        )


def _bytes(text: str) -> int:
    """Bytes of a text, which tell its tokens better than characters: "漢" has three, and one to three tokens."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
