"""A rerank API behind an address as a scorer: Cohere, Jina, Voyage, vLLM, infinity, TEI, or `crossrank serve`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.addresses import parted
from crossrank.asking import K_ELSEWHERE, Elsewhere, check_list, check_pairs, check_sendable, check_whole, without
from crossrank.credentials import without_secrets
from crossrank.errors import InputError, RemoteError
from crossrank.jobs import at_once
from crossrank.ranked import Ranked
from crossrank.remote import Address, can_be_asked
from crossrank.rerankwire import DIALECTS, Fits, dialect_of, parts
from crossrank.scored import Scored
from crossrank.types import Passage
from crossrank.unicode import is_blank, valid_text

_MOST_BYTES = 32 * 2**20
_PERHAPS_TOO_MANY = frozenset({400, 413, 422})
"""How servers refuse more documents than they take in one request; and much else."""
_ENDING = "/rerank"


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What a rerank API said of pairs, and what it cost.

    Attributes:
        scores: in the order of the pairs, shape (n,), larger is more relevant; -inf for a blank document.
        documents: that were sent and scored, each once for its query.
        requests: that brought scores.
        retries: further ones, which failed or were refused.
        tokens: as the server counts, of the answers that say so.
        seconds: wall-clock time.
    """

    scores: NDArray[np.float32]
    documents: int
    requests: int
    retries: int
    tokens: int
    seconds: float

    @classmethod
    def joined(cls, calls: Sequence[Answered]) -> Answered:
        """Several calls as one."""
        return cls(
            np.concatenate([np.zeros(0, np.float32), *(call.scores for call in calls)]),
            sum(call.documents for call in calls),
            sum(call.requests for call in calls),
            sum(call.retries for call in calls),
            sum(call.tokens for call in calls),
            sum(call.seconds for call in calls),
        )

    @property
    def note(self) -> str:
        """All of it but the scores in one line, for people."""
        parts = [
            _count(self.requests, "request", "requests"),
            _count(self.documents, "document", "documents"),
            _count(self.tokens, "token", "tokens") if self.tokens else "",
            f"{self.seconds:.1f} s",
        ]
        retries = f"; {_count(self.retries, 'retry', 'retries')}" if self.retries else ""
        return ", ".join(filter(None, parts)) + retries


class RemoteReranker(Elsewhere):
    """A scorer that a rerank API computes. It may be a stage, and one serves many threads.

    Scores are what the API says, see `score_space`: no probabilities, so that no threshold goes with them, and those of
    two models do not compare. What of a long document the model reads is the provider's choice, and no API tells it.

    It can be copied and pickled; a pickle holds the key.

    Args:
        url: such as `https://api.cohere.com/v2`, with or without `/rerank` behind it.
        model: as the address calls it. text-embeddings-inference has one, and is not told its name.
        key: of the address; "" for one that wants none.
        dialect: one of `DIALECTS`. When absent the address says it: a part of its path that is called so
            (`http://gpu:8000/tei`), Voyage's host, a path that ends in `/v2`, which is Cohere's, and else it is "jina",
            which most servers take.
        most: documents in one request; the dialect's when absent. That an address takes fewer, or less of them, is
            learned from its first refusals.
        concurrency: requests under way at once.
        timeout: seconds of one try, from the connection to the last byte.
        tries: requests for one answer, at most.
        pause: seconds before the second try; each further one waits longer, see `crossrank.remote.Address`.
        headers: more that every request has, as gateways want them; see `crossrank.remote.Address`.

    Raises:
        InputError: an address that is none, an unknown dialect, a number out of its range, or a model's name that
            cannot be sent.

    >>> from crossrank import Stage
    >>> scorer = RemoteReranker("http://gpu:8000/tei", "small")
    >>> Stage(scorer, depth=50, name="small").scorer.name, scorer.score_space
    ('http://gpu:8000/tei#small', 'raw')
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str = "",
        *,
        dialect: str | None = None,
        most: int | None = None,
        concurrency: int = 4,
        timeout: float = 60.0,
        tries: int = 4,
        pause: float = 0.5,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        check_whole("concurrency", concurrency)
        check_whole("most", 1 if most is None else most)
        if concurrency < 1 or (most is not None and most < 1):
            raise InputError("concurrency and most must be at least 1")
        if not model:
            raise InputError("a remote reranker needs the name of its model")
        check_sendable("the model's name", model)
        base = _without_ending(url)
        sent: dict[str, Any] = {"headers": headers, "most_bytes": _MOST_BYTES, "array": "results"}
        self.address = Address(base, key, timeout=timeout, tries=tries, pause=pause, **sent)
        self.model = model
        self.dialect = dialect_of(self.address.url) if dialect is None else dialect
        if self.dialect not in DIALECTS:
            raise InputError(f"there is no dialect {dialect!r:.80}; there are: {', '.join(DIALECTS)}")
        self._wire = DIALECTS[self.dialect]
        self._concurrency = concurrency
        # Set by several threads without a lock: the worst that can come of it is one more refusal.
        self._most = most or self._wire.most
        self._fits = Fits()

    def __repr__(self) -> str:
        return f"RemoteReranker({self.name!r})"

    @classmethod
    def named(cls, name: str, key: str = "", **options: Any) -> RemoteReranker:
        """The reranker of a name such as `URL#MODEL` or `URL#MODEL?dialect=tei`; `options` are those of the class.

        Raises:
            InputError: not such a name.

        >>> RemoteReranker.named("http://localhost:8080#bge?dialect=tei")
        RemoteReranker('http://localhost:8080#bge?dialect=tei')
        """
        url, model, dialect = parted(name, "dialect")
        if not model or not can_be_asked(url):
            # What stands before a # may be the beginning of a password alone, so that the whole is told or nothing.
            shown = without_secrets(name)
            raise InputError(f"{shown!r} is no address of a rerank API: write URL#MODEL or URL#MODEL?dialect=tei")
        return cls(url, model, key, dialect=dialect, **options)

    @property
    def name(self) -> str:
        """As `named` takes it, without the key, a password or what looks like one."""
        url = self.address.url
        return f"{url}#{self.model}" + ("" if self.dialect == dialect_of(url) else f"?dialect={self.dialect}")

    @property
    def fingerprint(self) -> str:
        """Of address, dialect and model. Whether the model behind them stays the same is the provider's word."""
        return sha256(self.name.encode()).hexdigest()

    @property
    def score_space(self) -> str:
        """ "raw" of the dialects that are asked for scores as the model made them (vllm, infinity, tei), else "0 to 1",
        which is what these APIs say of themselves."""
        return "raw" if self._wire.raw else "0 to 1"

    @without(K_ELSEWHERE)
    def rank(self, query: str, documents: Iterable[str], k: int | None = None) -> Ranked:
        """The documents that answer the query, best first; all are sent.

        Args:
            query: what the user asks; must not be blank.
            documents: texts. Duplicates are kept, blank ones come last.
            k: entries to return; all when absent or larger than the list.

        Returns:
            Positions in `documents` with their scores; ties keep their incoming order. The note says what it cost.

        Raises:
            InputError: a blank query, a document that is no string, or a `k` under 1.
            RemoteError: as of `score`.
        """
        documents = check_list(query, documents, k)
        made = self.judged([(query, document) for document in documents])
        return Ranked.of(Scored(made.scores, (), made.tokens, note=made.note), k)

    def score(self, pairs: Iterable[Sequence[str | Passage]]) -> NDArray[np.float32]:
        """Scores of (query, document) pairs, shape (n,), in their order; see `Answered.scores`.

        Equal documents of a query are sent once. A blank document is not sent, because some APIs refuse it.

        Raises:
            InputError: a query is blank, or an item is not a pair of strings.
            RemoteError: the address refuses, does not answer, or answers with something else than one finite score for
                each document.
        """
        return self.judged(pairs).scores

    def noted(self, pairs: Iterable[Sequence[str | Passage]]) -> tuple[NDArray[np.float32], str]:
        """Like `score`, with what it cost."""
        made = self.judged(pairs)
        return made.scores, made.note

    def judged(self, pairs: Iterable[Sequence[str | Passage]]) -> Answered:
        """Like `score`, with a report."""
        began = time.perf_counter()
        pairs = check_pairs(pairs)
        scores = np.full(len(pairs), -np.inf, dtype=np.float32)
        lists: dict[str, dict[str, list[int]]] = {}
        for place, (query, text) in enumerate(pairs):
            if not is_blank(text):
                lists.setdefault(valid_text(query), {}).setdefault(valid_text(text), []).append(place)
        asked = [(query, part) for query, texts in lists.items() for part in parts(query, list(texts), self._most)]
        stop = threading.Event()
        calls = at_once([partial(self._taken, *part, stop) for part in asked], self._concurrency, stop)
        for (query, texts), call in zip(asked, calls, strict=True):
            for text, score in zip(texts, call.scores, strict=True):
                scores[lists[query][text]] = score
        made = Answered.joined(calls)
        seconds = time.perf_counter() - began
        return Answered(scores, made.documents, made.requests, made.retries, made.tokens, seconds)

    def _taken(self, query: str, texts: Sequence[str], stop: threading.Event) -> Answered:
        """Scores of some documents, in as many requests as the address takes them in."""
        made: list[Answered] = []
        done, retries, alone, fits = 0, 0, False, self._fits
        while done < len(texts):
            # One document alone tells whether their number is to blame: a wrong key or model costs two requests.
            part = texts[done : done + 1] if alone else fits.part(query, texts[done:])
            try:
                made.append(self._asked(query, part, stop))
                done, alone = done + len(part), False
            except RemoteError as error:
                if error.status not in _PERHAPS_TOO_MANY or len(part) == 1:
                    raise
                fits, alone = fits.less(query, part), not made
                retries += error.tries
        # Another list may have learned more meanwhile.
        self._fits = self._fits.least(fits)
        whole = Answered.joined(made)
        return Answered(whole.scores, whole.documents, whole.requests, whole.retries + retries, whole.tokens, 0.0)

    def _asked(self, query: str, texts: Sequence[str], stop: threading.Event) -> Answered:
        """Scores of one request."""
        wire = self._wire
        body = {"query": query, wire.texts: list(texts), **wire.more}
        body |= {"model": self.model} if wire.model else {}
        body |= {wire.count: len(texts)} if wire.count else {}
        try:
            reply = self.address.post(_ENDING, body, stop)
        except RemoteError as error:
            if error.status == 422 and "`texts`" in str(error) and wire.texts != "texts":
                cure = "it seems to be text-embeddings-inference: give dialect='tei', or write URL#MODEL?dialect=tei"
                raise RemoteError(f"{error}; {cure}", error.status, error.tries) from error
            raise
        try:
            told = reply.body.get("results")
            given = [_placed(row) for row in (reply.body.get("data") if told is None else told) or ()]
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise RemoteError(f"{self.address.url} gave no scores that can be read ({error!r:.200})", 200) from error
        placed = dict(given)
        if len(given) != len(placed) or sorted(placed) != list(range(len(texts))):
            twice = ", numbered wrongly" if len(given) == len(texts) else ""
            raise RemoteError(f"{self.address.url} gave {len(given)} scores for {len(texts)} documents{twice}", 200)
        scores = np.array([placed[place] for place in range(len(texts))], dtype=np.float32)
        return Answered(scores, len(texts), 1, reply.tries - 1, _tokens(reply.body.get("usage")), 0.0)


def _placed(row: Mapping[str, Any]) -> tuple[int, np.float32]:
    """Place and score of one document.

    Raises:
        TypeError, KeyError, ValueError, OverflowError: the row has none that can be read.
    """
    place, score = row["index"], row["relevance_score"] if "relevance_score" in row else row["score"]
    if type(place) is not int or type(score) not in (int, float):
        raise ValueError(f"no number: {place!r:.40}, {score!r:.40}")
    # A number may be too large for float32, and JSON as Python reads it has NaN.
    with np.errstate(over="ignore"):
        made = np.float32(score)
    if not np.isfinite(made):
        raise ValueError(f"a score that is not finite: {score!r:.40}")
    return place, made


def _tokens(usage: Any) -> int:
    found = usage.get("total_tokens") if isinstance(usage, Mapping) else None
    return found if type(found) is int and found > 0 else 0


def _without_ending(url: str) -> str:
    """The address without the path of the call, which everyone copies from a provider's page; a query stays."""
    if not can_be_asked(url):
        return url
    head, asks, query = str(url).partition("?")
    return f"{head.rstrip('/').removesuffix(_ENDING)}{asks}{query}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
