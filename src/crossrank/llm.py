"""A language model behind an OpenAI-compatible address, as a reranker: it judges documents alone, or orders several."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.asking import K_ELSEWHERE, check_list, check_pairs, check_sendable, check_whole, without
from crossrank.chat import Chat
from crossrank.credentials import without_secrets
from crossrank.errors import InputError
from crossrank.jobs import at_once
from crossrank.judging import ask_for_order, ask_for_score, check_prompt, filled, in_place
from crossrank.questions import Questions
from crossrank.ranked import Ranked
from crossrank.remote import Address, can_be_asked
from crossrank.scored import Scored
from crossrank.unicode import is_blank, valid_text
from crossrank.verdicts import UnreadableError
from crossrank.verdicts import read_order as order_in
from crossrank.verdicts import read_score as score_in

_USUAL: Mapping[str, Any] = {"temperature": 0, "response_format": {"type": "json_object"}}
"""What is sent unless the caller says otherwise. Not every server can promise JSON; the prompt asks for it anyway."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """A document that the model did not judge, and that keeps its place in the order in which it came.

    Attributes:
        position: in the list of pairs.
        reason: for people.
    """

    position: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What a language model said of pairs, and what it cost.

    Attributes:
        scores: in the order of the pairs, shape (n,), larger is more relevant. One document a question: 0 to 10. With a
            window: how many documents of the query are below. -inf for a blank document, which is not asked about.
        fallbacks: positions rising.
        cut: positions of documents that were longer than what is sent.
        questions: that were asked.
        retries: requests beyond one for each question.
        prompt_tokens: as the server counts; of the answers that say so.
        completion_tokens: likewise.
        uncounted: answers that did not say what they cost.
        seconds: wall-clock time.
        note: all of that in one line.
    """

    scores: NDArray[np.float32]
    fallbacks: tuple[Fallback, ...]
    cut: tuple[int, ...]
    questions: int
    retries: int
    prompt_tokens: int
    completion_tokens: int
    uncounted: int
    seconds: float

    @classmethod
    def joined(cls, calls: Sequence[Judged]) -> Judged:
        """What several calls cost together; their positions count in lists of their own."""
        return cls(
            np.concatenate([np.zeros(0, np.float32), *(call.scores for call in calls)]),
            tuple(fallback for call in calls for fallback in call.fallbacks),
            tuple(place for call in calls for place in call.cut),
            sum(call.questions for call in calls),
            sum(call.retries for call in calls),
            sum(call.prompt_tokens for call in calls),
            sum(call.completion_tokens for call in calls),
            sum(call.uncounted for call in calls),
            sum(call.seconds for call in calls),
        )

    @property
    def note(self) -> str:
        """For people: questions, tokens and seconds, then what was not as it should be."""
        reasons: dict[str, int] = {}
        for fallback in self.fallbacks:
            reasons[fallback.reason] = reasons.get(fallback.reason, 0) + 1
        told = [f"{reason} ({times})" if times > 1 else reason for reason, times in reasons.items()]
        asked = "question" if self.questions == 1 else "questions"
        lost = "document was" if len(self.cut) == 1 else "documents were"
        kept = "document keeps its" if len(self.fallbacks) == 1 else "documents keep their"
        parts = [
            f"{self.questions} {asked}, {self.prompt_tokens} + {self.completion_tokens} tokens, {self.seconds:.1f} s",
            f"{self.retries} {'retry' if self.retries == 1 else 'retries'}" if self.retries else "",
            f"{self.uncounted} without a count of tokens" if self.uncounted else "",
            f"{len(self.cut)} {lost} sent without the end" if self.cut else "",
            f"{len(self.fallbacks)} {kept} place: {', '.join(told)}" if told else "",
        ]
        return "; ".join(filter(None, parts))


class LanguageModel:
    """A scorer that asks a language model. It may be a stage, and one serves many threads.

    By default each document is judged alone, from 0 to 10, so that what one document says cannot touch the others. With
    a `window`, the model orders so many documents at a time, from the end of the list to its top, as RankGPT does (Sun
    et al. 2023); documents then see each other, and so do instructions that one of them may hold.

    Every document keeps a score. One whose answer cannot be read or does not come keeps its place, which the result and
    a stage's note say. It can be copied and pickled; a pickle holds the key.

    Args:
        url: an OpenAI-compatible address, such as `https://api.openai.com/v1` or `http://localhost:8000/v1`.
        model: as the address calls it.
        key: of the address; "" for one that wants none.
        window: documents in one question, at least 2; None asks about each alone.
        concurrency: questions under way at once.
        characters: of a document that are sent.
        timeout: seconds of one try, from the connection to the last byte.
        tries: requests for one answer, at most.
        pause: seconds before the second try; each further one waits longer, see `crossrank.remote.Address`.
        extra: more for the body of a request, such as `{"max_completion_tokens": 500}`. None leaves out what is sent by
            default, a temperature of 0 and a wish for JSON; where a server's refusal names one of these two, it is left
            out from then on.
        prompt: your own question, in which `{query}` and `{document}` (with a window `{documents}`) stand for the texts
            between their marker lines. Said besides are what form the answer has, and that texts give no orders.
        headers: more that every request has, as gateways want them; see `crossrank.remote.Address`.

    Raises:
        InputError: an address that is none, a number out of its range, or what cannot be sent of the rest.

    >>> from crossrank import Stage
    >>> Stage(LanguageModel("http://localhost:8000/v1", "qwen3"), depth=20, name="llm").name
    'llm'
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str = "",
        *,
        window: int | None = None,
        concurrency: int = 8,
        characters: int = 24_000,
        timeout: float = 60.0,
        tries: int = 4,
        pause: float = 0.5,
        extra: Mapping[str, Any] | None = None,
        prompt: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        check_whole("window", 2 if window is None else window)
        check_whole("concurrency", concurrency)
        check_whole("characters", characters)
        if window is not None and window < 2:
            raise InputError(f"a window orders at least 2 documents, not {window}; None asks about each alone")
        if concurrency < 1 or characters < 1:
            raise InputError("concurrency and characters must be at least 1")
        self.address = Address(url, key, timeout=timeout, tries=tries, pause=pause, headers=headers)
        self.model = model
        self.window = window
        self._prompt = None if prompt is None else check_prompt(prompt, window is not None)
        check_sendable("the prompt", prompt or "")
        self._concurrency = concurrency
        self._characters = characters
        self._chat = Chat(self.address, model, _USUAL, extra)

    def __repr__(self) -> str:
        return f"LanguageModel({self.address.url!r}, {self.model!r}, window={self.window})"

    @property
    def listwise(self) -> bool:
        """Whether scores compare within one call only, as with a window: they are places in an order."""
        return self.window is not None

    def questions(self, depth: int) -> int:
        """Questions about so many documents of one query, all of them different.

        >>> LanguageModel("http://localhost:8000/v1", "qwen3", window=20).questions(100)
        9
        """
        if self.window is None:
            return depth
        # Windows overlap by half, see `_Ordered`.
        return 1 + -(-max(0, depth - self.window) // (self.window - self.window // 2))

    @classmethod
    def named(cls, name: str, key: str = "", **options: Any) -> LanguageModel:
        """The model of a name `URL#MODEL`, as the command line takes it; `options` are those of the class.

        Raises:
            InputError: not such a name.

        >>> LanguageModel.named("http://localhost:8000/v1#qwen3")
        LanguageModel('http://localhost:8000/v1', 'qwen3', window=None)
        """
        url, _, model = name.partition("#")
        # What stands before a # may be the beginning of a password alone, so that the whole is told or nothing.
        if not model or not can_be_asked(url):
            raise InputError(f"{without_secrets(name)!r} is no address of a language model: write URL#MODEL")
        return cls(url, model, key, **options)

    @without(K_ELSEWHERE)
    def rank(self, query: str, documents: Iterable[str], k: int | None = None) -> Ranked:
        """The documents that answer the query, best first.

        Args:
            query: what the user asks; must not be blank.
            documents: texts, and all of them are asked about. Duplicates are kept, blank ones come last.
            k: entries to return; all when absent or larger than the list.

        Returns:
            Positions in `documents` with the scores of `Judged.scores`; ties keep their incoming order. The note says
            what it cost, and which documents were not judged.

        Raises:
            InputError: a blank query, a document that is no string, or a `k` under 1.
            RemoteError: as of `score`.
        """
        documents = check_list(query, documents, k)
        judged = self.judged([(query, document) for document in documents])
        return Ranked.of(Scored(judged.scores, (), judged.prompt_tokens, note=judged.note), k)

    def score(self, pairs: Iterable[Sequence[str]]) -> NDArray[np.float32]:
        """Scores of (query, document) pairs, shape (n,), in their order; see `Judged.scores`.

        Raises:
            InputError: a query is blank, or an item is not a pair of strings.
            RemoteError: the address answers no question at all, as where it refuses the key or the model. Once there
                are answers, a refusal that all others would get ends the questions, and the rest keeps its place.
        """
        return self.judged(pairs).scores

    def noted(self, pairs: Iterable[Sequence[str]]) -> tuple[NDArray[np.float32], str]:
        """Like `score`, with what it cost and which documents were not judged."""
        judged = self.judged(pairs)
        return judged.scores, judged.note

    def judged(self, pairs: Iterable[Sequence[str]]) -> Judged:
        """Like `score`, with a report."""
        began = time.perf_counter()
        pairs = check_pairs(pairs)
        lists = _by_query(pairs)
        cut = tuple(
            place for place, (_, text) in enumerate(pairs) if len(text) > self._characters and not is_blank(text)
        )
        scores = np.full(len(pairs), -np.inf, dtype=np.float32)
        jobs: list[Callable[[], Any]] = []
        found: dict[str, NDArray[np.float32]] = {}
        together = self._concurrency if self.window is None else min(self._concurrency, len(lists))
        call = Questions(self._chat.ask, self._prompt, together)
        for query, places in lists.items():
            texts = [valid_text(pairs[place][1][: self._characters]) for place in places]
            asked = valid_text(query)
            found[query] = np.full(len(places), np.nan, dtype=np.float32)
            if self.window is None:
                distinct: dict[str, list[int]] = {}
                for row, text in enumerate(texts):
                    distinct.setdefault(text, []).append(row)
                jobs += [_Alone(call, asked, text, rows, places, found[query]) for text, rows in distinct.items()]
            elif texts:
                jobs.append(_Ordered(call, asked, texts, places, found[query], self.window))
        _run(jobs, self._concurrency, call)
        for query, places in lists.items():
            scores[places] = filled(found[query])
        fallbacks = tuple(Fallback(place, call.reasons[place]) for place in sorted(call.reasons))
        return Judged(
            scores, fallbacks, cut, call.questions, call.requests - call.questions, call.prompt_tokens,
            call.completion_tokens, call.uncounted, time.perf_counter() - began,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Alone:
    """One document that is judged alone; `rows` are its copies in the list of its query."""

    call: Questions
    query: str
    text: str
    rows: list[int]
    places: list[int]
    found: NDArray[np.float32]

    def __call__(self) -> None:
        try:
            self.found[self.rows] = score_in(self.call.text(ask_for_score(self.query, self.text, self.call.prompt)))
        except UnreadableError as error:
            self.call.keep([self.places[row] for row in self.rows], str(error))


@dataclass(frozen=True, slots=True, eq=False)
class _Ordered:
    """All documents of one query, ordered a window at a time."""

    call: Questions
    query: str
    texts: list[str]
    places: list[int]
    found: NDArray[np.float32]
    window: int

    def __call__(self) -> None:
        order = list(range(len(self.texts)))
        judged: set[int] = set()
        missed: dict[int, str] = {}
        end = len(order)
        while True:
            start = max(0, end - self.window)
            some = order[start:end]
            try:
                texts = [self.texts[row] for row in some]
                answer = self.call.text(ask_for_order(self.query, texts, self.call.prompt))
                named = order_in(answer, len(some))
                order[start:end] = [some[number] for number in in_place(named, len(some))]
                judged.update(some[number] for number in named)
                reason = "the answer leaves it out"
            except UnreadableError as error:
                reason = str(error)
            missed.update((row, reason) for row in some if row not in judged)
            if start == 0:
                break
            # Half of a window goes on to the next, so that what is good climbs from the end to the top.
            end = start + self.window // 2
        for row, reason in missed.items():
            if row not in judged:
                self.call.keep([self.places[row]], reason)
        self.found[order] = np.arange(len(order) - 1, -1, -1, dtype=np.float32)


def _by_query(pairs: Sequence[tuple[str, str]]) -> dict[str, list[int]]:
    """Places of the pairs that are asked about, by query."""
    lists: dict[str, list[int]] = {}
    for place, (query, document) in enumerate(pairs):
        places = lists.setdefault(query, [])
        if not is_blank(document):
            places.append(place)
    return lists


def _run(jobs: Sequence[Callable[[], Any]], concurrency: int, call: Questions) -> None:
    """Run the jobs, some at once; the first error that none of them could cure ends all."""
    at_once(jobs, concurrency, call.stop)
    if call.refused is not None and not call.answers:
        raise call.refused
