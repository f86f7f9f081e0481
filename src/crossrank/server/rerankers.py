"""A cross-encoder that is served: pairs to scores for one ticket, through the shared scheduler."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from crossrank.calibration import sigmoid
from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError
from crossrank.scorecache import CachedScorer
from crossrank.scored import Scored
from crossrank.server.cutting import Caps, Cutter, chunks, merged
from crossrank.server.limits import Limits, Reach
from crossrank.server.refusals import invalid
from crossrank.server.scheduler import Scheduler, Shared
from crossrank.server.speeds import Speed
from crossrank.server.tickets import Ticket, working
from crossrank.types import Truncation

_LOG = logging.getLogger("crossrank.server")
WARM_QUERY = "which way does the river run?"
WARM_TEXT = "The quick brown fox jumps over the lazy dog while the river carries the boats down to the sea. " * 4
_WARM_FOREIGN = "где"


class Reranker:
    """A cross-encoder under the name that requests call it by.

    Args:
        name: of the model, for requests, replies and metrics.
        scorer: the cross-encoder. Of one that remembers, only what its file does not know is computed.
        scheduler: computes.
        speed: of the model.
        limits: of one request.
    """

    def __init__(self, name: str, scorer: CrossEncoder, scheduler: Scheduler, speed: Speed, limits: Limits) -> None:
        self.name, self.speed, self.limits = name, speed, limits
        self._bare = scorer.backend
        # Copies, so that the caller's own scorer keeps its backend.
        computing = copy.copy(scorer.uncached)
        computing.backend = Shared(scorer.backend, scheduler, speed)
        self.scorer: CrossEncoder = computing
        if isinstance(scorer, CachedScorer):
            self.scorer = CachedScorer(computing, scorer.store.path, scorer.store.most)
        self.cutter = Cutter(self.scorer)
        self.fingerprint = scorer.fingerprint
        ids = scorer.checkpoint.tokenizer().encode(WARM_QUERY, WARM_TEXT).ids
        self._sequence = ids[: scorer.max_length]

    def called(self, name: str) -> Reranker:
        """The same under another name: nothing is loaded twice, and both have one speed."""
        other = copy.copy(self)
        other.name = name
        return other

    def measure(self, seconds: float) -> None:
        """Learn how fast it is here; see `Speed.measure`."""
        self.speed.measure(self._bare.forward, self._sequence, seconds)

    def warm(self) -> None:
        """Compute once what a first request would wait for. Needs a scheduler that was started."""
        with working(Ticket.lasting(60.0)):
            self.scorer.uncached.score([(WARM_QUERY, WARM_TEXT)])
            # Of a vocabulary of 250,000 pieces it takes a second to know which scripts it has.
            self.scorer.caution(_WARM_FOREIGN)

    def close(self) -> None:
        """Close the file of remembered scores, where there is one."""
        if isinstance(self.scorer, CachedScorer):
            self.scorer.close()

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        ticket: Ticket,
        caps: Caps | None = None,
        *,
        ends: range = range(0),
        enough: Callable[[NDArray[np.float32]], bool] = lambda scores: False,
    ) -> Scored:
        """Raw logits of (query, document) pairs, in their order, with what was cut; -inf for a blank document.

        Args:
            pairs: all that there are.
            ticket: of the request.
            caps: how much of the texts is read.
            ends: after so many pairs `enough` is asked.
            enough: whether these scores, of the pairs up to there, make all others needless.

        Raises:
            RefusedError: too many tokens, too late, or a query in which the model reads nothing.
            CancelledRequestError: the client left.
        """
        scores = [np.zeros(0, dtype=np.float32)]
        truncations: dict[Truncation, None] = {}
        total = begin = 0
        with working(ticket):
            for chunk in chunks(pairs, ends):
                if begin in ends and enough(np.concatenate(scores)):
                    break
                ticket.check()
                texts, cuts = self.cutter.cut(chunk, caps)
                try:
                    scored = self.scorer.scored(texts)
                except InputError as error:  # of texts only a query can be refused: a document may be blank
                    raise invalid(str(error), "query") from error
                if scored.note:
                    # What its file of scores cannot do costs no answer.
                    _LOG.warning("%s", scored.note)
                total += scored.tokens
                self.limits.check_tokens(total)
                scores.append(scored.scores)
                for cut in merged(cuts, scored.truncations):
                    truncations[cut if cut.position < 0 else replace(cut, position=cut.position + begin)] = None
                begin += len(chunk)
        return Scored(np.concatenate(scores), tuple(truncations), total)

    def cautions(self, pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
        """What is to be said of the scores for these queries, once; of many the first ten are looked at."""
        queries = list(dict.fromkeys(query for query, _ in pairs))[:10]
        return tuple(dict.fromkeys(filter(None, map(self.scorer.caution, queries))))

    def reach(self, caps: Caps | None = None) -> Reach:
        """How far the cross-encoder reads a query and a document, when a request wants so much of them read."""
        caps, windows = caps or Caps(), self.scorer.windows
        most = windows.size * min(windows.read, caps.windows or windows.read)
        half = self.scorer.max_length // 2
        return Reach(
            min(half, caps.query or half, caps.pair or half), min(most, caps.document or most, caps.pair or most)
        )

    @property
    def score_kind(self) -> str:
        """What a probability of this model is: "calibrated" on judgments, "trained" by the model's authors, or a plain
        "sigmoid" over a logit, which orders but does not state a chance.
        """
        if self.scorer.calibrated:
            return "calibrated"
        return "trained" if self.scorer.checkpoint.activation in ("sigmoid", "softmax") else "sigmoid"

    def probability(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores in [0, 1], in the same order; see `score_kind`. -inf gives 0."""
        return sigmoid(scores) if self.score_kind == "sigmoid" else self.scorer.probability(scores)

    def chance(self, logit: float) -> float:
        """One score in [0, 1], see `probability`."""
        return float(self.probability(np.array([logit], dtype=np.float32))[0])
