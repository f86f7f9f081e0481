"""Read the candidates of one query in their order, as far as the time reaches: a whole ranking at any moment."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crossrank.cost import Pace
from crossrank.errors import InputError
from crossrank.grouping import owner_of
from crossrank.lateinteraction import LateInteraction
from crossrank.packed import offsets_of
from crossrank.scored import Scored, as_scores
from crossrank.scorers import PairScorer
from crossrank.stopping import Stopping
from crossrank.tokenvectors import TokenVectors, VectorStore
from crossrank.types import NotingScorer, Passage, Ranking, Scorer, Tokens, TokenStore, Truncation

Texts = Callable[[Sequence[str]], Sequence[Passage]]
Clock = Callable[[], float]
# Why a step did less than it was there for: the time was up; no unread document could plausibly reach the top; it
# failed; a plan left it out. Empty when it did all.
Stopped = Literal["", "deadline", "settled", "error", "plan"]

# Predicted seconds of one call near the deadline. A forward pass cannot be interrupted, so a prediction that is a
# quarter too low is late by a quarter of this: 5 ms. Shorter calls would waste more on what every call costs.
QUANTUM = 0.020
# A call near the deadline must fit with this much to spare, and one that joins several quanta with this much. With 1.1,
# 98.7 to 99.3 % of 1,000 answers were in time at 50 ms on two threads, with 1.25 99.6 %, at no loss of nDCG@10.
MARGIN, CAUTION = 1.25, 1.5
# Documents of one call where nobody knows what they take, or between two looks at whether the top is settled.
FEW = 8
# Tokens a character, about, of a passage that is not tokenized yet.
TOKENS_A_CHARACTER = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What was read of the candidates.

    Attributes:
        scores: of the first candidates, in their order, raw, shape (read,).
        truncations: what was cut or read in windows; positions count in the candidates, -1 is the query.
        stopped: why it is fewer than all.
        note: for people: that the scorer has no words in the query's script, where token ids could not be used, and
            why reading ended early; empty otherwise.
    """

    scores: NDArray[np.float32]
    truncations: tuple[Truncation, ...]
    stopped: Stopped = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Until:
    """When reading ends before the last candidate.

    Attributes:
        deadline: on `clock`, in seconds; infinite without one.
        clock: what tells the time.
        stopping: the rule by which the top is settled; None reads on.
        weight: the stage's, which the rule needs.
    """

    deadline: float
    clock: Clock
    stopping: Stopping | None = None
    weight: float = 1.0

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - self.clock()


def read(
    scorer: Scorer,
    query: str,
    head: Ranking,
    texts: Texts,
    store: TokenStore | None,
    pace: Pace | None,
    until: Until,
) -> Reading:
    """Score the candidates `head` in their order, until the time is up or the top is settled.

    Without a deadline and a stopping rule it is one call of the scorer. With a rule alone it is as many documents as
    the rule wants in any case, then eight at a time. With a deadline the candidates are cut into quanta, whose places
    do not depend on it; several are joined in one call while it is far away, and one is cut into halves where only a
    part of it fits. So a later deadline never reads fewer documents, where time is as predicted. A scorer whose scores
    compare within one call only reads all or nothing.

    Raises:
        InputError: the scorer gives scores of another shape, or `texts` leaves a candidate out.
    """
    said = scorer.caution(query) if isinstance(scorer, PairScorer) else ""
    if until.deadline == np.inf and until.stopping is None:
        made = _candidates(scorer, query, head.ids, texts, store, sized=False)
        scored = made.score(0, len(head))
        return Reading(scored.scores, scored.truncations, "", _joined(said, made.note, scored.note))
    pace = pace or Pace()
    made = _candidates(scorer, query, head.ids, texts, store)
    whole = bool(getattr(scorer, "listwise", False))
    until = replace(until, stopping=None) if whole else until
    bounds = [0, len(made)] if whole else _quanta(made, pace, until)
    rule = until.stopping
    grouped = rule is not None and rule.per_document is not None
    owners = [owner_of(passage) for passage in fetched(texts, head.ids)] if grouped else []
    scores: list[NDArray[np.float32]] = []
    truncations: list[Truncation] = []
    notes = [made.note]
    done = 0
    stopped: Stopped = ""
    while done < len(head):
        end = _all(made, pace, until) if whole else _next(made, pace, bounds, done, until)
        if end == done:
            stopped = "deadline"
            if not done:
                pace.idle()
            break
        began = until.clock()
        scored = made.score(done, end)
        notes.append(scored.note)
        if not scored.cached:
            # What a memory answers says nothing of how fast the model is.
            pace.observe(made.of(done, end), until.clock() - began, made.characters(done, end), end - done)
        scores.append(scored.scores)
        # The query is cut the same way in every call: it is told once. A call of blank passages alone does not read it.
        told = any(one.position < 0 for one in truncations)
        truncations += [one for one in scored.truncations if one.position >= 0 or not told]
        done = end
        if rule is not None and rule.settled(np.concatenate(scores), head.scores, until.weight, owners):
            stopped = "settled"
            break
    found = np.concatenate(scores) if scores else np.zeros(0, dtype=np.float32)
    # What a language model says it cost counts as often as it is said.
    notes = _times(notes) if isinstance(scorer, NotingScorer) else notes
    notes = [said, *notes] if scores else notes
    if done == len(head):
        return Reading(found, tuple(truncations), "", _joined(*notes))
    why = f"the time was enough for {done} of {len(head)} passages"
    if stopped == "settled":
        why = f"read {done} of {len(head)} passages: no other was likely to reach the top"
    return Reading(found, tuple(truncations), stopped, _joined(*notes, why))


def fetched(texts: Texts, ids: Sequence[str]) -> list[Passage]:
    """The passages of the given ids, in their order, in whatever order `texts` gives them.

    Raises:
        InputError: one is missing: the scores of those after it would be other documents'. Or what is given is no
            `Passage`.

    >>> [passage.text for passage in fetched(lambda ids: [Passage("b", "B"), Passage("a", "A")], ["a", "b"])]
    ['A', 'B']
    """
    found = list(texts(ids))
    if wrong := [one for one in found if not isinstance(one, Passage)]:
        raise InputError(
            f"`texts` must give a crossrank.Passage for each id, not {type(wrong[0]).__name__}; make them with "
            "Passage(id, text)"
        )
    if [passage.id for passage in found] == list(ids):
        return found
    by_id = {passage.id: passage for passage in found}
    if missing := [id_ for id_ in ids if id_ not in by_id]:
        raise InputError(
            f"there is no passage for {len(missing)} of {len(ids)} documents, the first of which is {missing[0]!r}: "
            "`texts` must give one with that id for each that a retriever finds"
        )
    return [by_id[id_] for id_ in ids]


def _times(notes: Sequence[str]) -> list[str]:
    """Notes once each, with how often they came.

    >>> _times(["8 questions", "4 questions", "8 questions"])
    ['8 questions (2 times)', '4 questions']
    """
    return [f"{note} ({count} times)" if count > 1 and note else note for note, count in Counter(notes).items()]


def _joined(*notes: str) -> str:
    return "; ".join(dict.fromkeys(filter(None, notes)))


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """Documents of one query, ready to be scored in stretches.

    Attributes:
        score: scores of documents `begin` to `end`, and what was cut, positions in the whole list.
        lengths: tokens of each sequence, by estimate where passages are texts.
        first: the first sequence of each document, and one past the last, shape (n + 1,).
        texts: characters of each document that must be tokenized; zeros where token ids lie ready.
        note: why they must be, where an index holds ids.
    """

    score: Callable[[int, int], Scored]
    lengths: NDArray[np.int64]
    first: NDArray[np.int64]
    texts: NDArray[np.int64]
    note: str = ""

    def __len__(self) -> int:
        return len(self.first) - 1

    def of(self, begin: int, end: int) -> NDArray[np.int64]:
        return self.lengths[self.first[begin] : self.first[end]]

    def characters(self, begin: int, end: int) -> int:
        return int(self.texts[begin:end].sum())

    def seconds(self, pace: Pace, begin: int, end: int) -> float:
        return pace.seconds(self.of(begin, end), self.characters(begin, end))


def _candidates(
    scorer: Scorer, query: str, ids: Sequence[str], texts: Texts, store: TokenStore | None, sized: bool = True
) -> _Candidates:
    """The candidates as the scorer reads them: token ids of the store where it has the same tokenizer, else texts.

    Their lengths, which take tokenizing the query, are found only where somebody wants to know (`sized`).
    """
    if isinstance(scorer, LateInteraction) and isinstance(store, VectorStore) and store.late == scorer.fingerprint:
        return _of_vectors(scorer, query, store.token_vectors(ids))
    if isinstance(scorer, PairScorer) and store is not None and store.tokenizer == scorer.tokenizer:
        return _of_tokens(scorer, query, store.tokens(ids), sized)
    passages = [passage.scored_text for passage in fetched(texts, ids)]
    characters = np.fromiter((len(text) for text in passages), dtype=np.int64, count=len(passages))
    tokens = np.maximum(1, characters * TOKENS_A_CHARACTER).astype(np.int64)
    if not isinstance(scorer, PairScorer):
        first = np.arange(len(ids) + 1, dtype=np.int64)
        return _Candidates(_plain(scorer, query, passages), tokens + len(query) // 4, first, characters)

    def score(begin: int, end: int) -> Scored:
        return _moved(scorer.scored([(query, text) for text in passages[begin:end]]), begin)

    note = "" if store is None else f"tokenized {len(ids)} passages: the index holds ids of another tokenizer"
    return _Candidates(score, *_sizes(scorer, query, tokens, sized), characters, note)


def _sizes(
    scorer: PairScorer, query: str, tokens: NDArray[np.int64], sized: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lengths of all sequences, and where each document's begin."""
    if not sized:
        return tokens, np.arange(len(tokens) + 1, dtype=np.int64)
    lengths, counts = scorer.sequence_lengths(query, tokens)
    return lengths, offsets_of(counts)


def _of_vectors(scorer: LateInteraction, query: str, passages: TokenVectors) -> _Candidates:
    # Nearly all of it is encoding the query, so the first call scores all, and the others look up.
    all_of_them = cache(lambda: scorer.scored_vectors(query, passages))

    def score(begin: int, end: int) -> Scored:
        scored = all_of_them()
        return replace(scored, scores=scored.scores[begin:end])

    ones = np.ones(len(passages), dtype=np.int64)
    return _Candidates(score, ones, np.arange(len(passages) + 1, dtype=np.int64), np.zeros_like(ones))


def _of_tokens(scorer: PairScorer, query: str, passages: Tokens, sized: bool) -> _Candidates:
    def score(begin: int, end: int) -> Scored:
        some = passages if end - begin == len(passages) else passages.take(np.arange(begin, end))
        return _moved(scorer.scored_tokens([query] * (end - begin), some), begin)

    zeros = np.zeros(len(passages), dtype=np.int64)
    return _Candidates(score, *_sizes(scorer, query, passages.lengths, sized), zeros)


def _plain(scorer: Scorer, query: str, passages: list[str]) -> Callable[[int, int], Scored]:
    def score(begin: int, end: int) -> Scored:
        pairs = [(query, text) for text in passages[begin:end]]
        scores, note = scorer.noted(pairs) if isinstance(scorer, NotingScorer) else (scorer.score(pairs), "")
        return Scored(as_scores(scores, end - begin), (), 0, note=note)

    return score


def _moved(scored: Scored, by: int) -> Scored:
    cuts = (cut if cut.position < 0 else replace(cut, position=cut.position + by) for cut in scored.truncations)
    return replace(scored, truncations=tuple(cuts)) if by else scored


def _quanta(made: _Candidates, pace: Pace, until: Until) -> list[int]:
    """Where quanta begin, and the end of the last; one holds a document at least.

    They go by the model without its running correction, so that the places are the same for every deadline. Where only
    a stopping rule ends reading they are numbers: it must not end elsewhere on a faster machine or with a full cache.
    """
    if until.deadline == np.inf and until.stopping is not None:
        first = min(len(made), max(FEW, until.stopping.first))
        return [0, *range(first, len(made), FEW), len(made)]
    if not pace.known:
        return [*range(0, len(made), FEW), len(made)]
    bounds, spent = [0], 0.0
    each = pace.model.shares(made.lengths, made.first, made.texts)
    for place, seconds in enumerate(each.tolist()):
        if place > bounds[-1] and spent + seconds > QUANTUM:
            bounds.append(place)
            spent = 0.0
        spent += seconds
    return [*bounds, len(made)]


def _all(made: _Candidates, pace: Pace, until: Until) -> int:
    """The end, where one call of all documents fits, may be hoped to fit, or nobody knows; else 0."""
    left = until.left
    fits = left > 0 and (not pace.known or made.seconds(pace, 0, len(made)) * pace.hope * MARGIN <= left)
    return len(made) if fits else 0


def _next(made: _Candidates, pace: Pace, bounds: list[int], done: int, until: Until) -> int:
    """Where the next call ends; `done` when not even one document fits.

    What calls hold is a quantum, or 2, 4, 8 of them from a place that is a multiple of as many, or parts of one of 1,
    2, 4 documents. Stretches of two deadlines so never overlap by halves: the earlier deadline's lie within the
    later's, and as joined calls are no slower than their parts, the later is never behind.
    """
    left = until.left
    if not pace.known and until.deadline < np.inf:
        # Nothing is known: two documents tell, if there is time at all.
        return min(len(made), done + 2) if left > 0 else done
    number = bisect_right(bounds, done) - 1
    end = bounds[number + 1]
    if made.seconds(pace, done, end) * MARGIN > left:
        size = 1
        while 2 * size < end - done:
            size *= 2
        while size and made.seconds(pace, done, done + size) * MARGIN > left:
            size //= 2
        if done or size > 1:
            return done + size
        # The score of one document alone moves nothing. Two are tried where they were ruled out long enough.
        two = min(2, len(made))
        return two if made.seconds(pace, 0, two) * pace.hope * MARGIN <= left else 0
    if done != bounds[number] or until.stopping is not None:
        return end
    joined = 2
    while number % joined == 0 and end < len(made):
        wider = bounds[min(number + joined, len(bounds) - 1)]
        if made.seconds(pace, done, wider) * CAUTION > left:
            break
        end, joined = wider, 2 * joined
    return end
