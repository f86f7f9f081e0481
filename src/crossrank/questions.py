"""What one call has asked a language model, what came back and what it cost; and when to ask no more."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crossrank.errors import RemoteError
from crossrank.judging import Messages
from crossrank.remote import CURES, RETRIED
from crossrank.verdicts import UnreadableError, spent, text_of

Ask = Callable[[Messages, threading.Event], tuple[Mapping[str, Any], int]]
"""The answer to one question, and the requests it took."""

_HOPELESS = CURES.keys() - {403}
"""Refusals that no other document would fare better with. A 403 may be a filter's, of one document."""
_OWN = frozenset({400, 413})
"""Refusals that one document may get and the next one not."""
_PASSING = RETRIED | {0}
"""What may be over when the next question is asked, also no answer at all. It was tried again before it counts."""
_PATIENCE = 5
"""Questions that get one refusal of any other kind, while none is answered: all would get it."""


class Questions:
    """The questions of one call; shared by its threads.

    Args:
        ask: as `Ask`.
        prompt: the caller's own, see `judging.check_prompt`; for those who write the questions.
        together: questions that may be under way at once.
    """

    def __init__(self, ask: Ask, prompt: str | None, together: int) -> None:
        self._ask = ask
        self.prompt = prompt
        # A server that is dead fails all that are under way; when it has failed as many again, it is not by chance.
        # 64 documents at a dead address took 23 s to say so, each tried four times.
        self._patience = max(_PATIENCE, 2 * together)
        self._lock = threading.Lock()
        self.stop = threading.Event()
        self.reasons: dict[int, str] = {}
        self.questions = self.requests = self.answers = 0
        self.prompt_tokens = self.completion_tokens = self.uncounted = 0
        self.refused: RemoteError | None = None
        self._over = ""
        self._refusals: Counter[int] = Counter()
        self._under_way: set[int] = set()

    def text(self, messages: Messages) -> str:
        """The text of the answer to one question.

        Raises:
            UnreadableError: it did not come, or has no text; or it was not asked, because no question would fare better
                than one before. What was answered until then was paid for and counts.
            RemoteError: no other question would fare better, and none was answered.
        """
        with self._lock:
            if self._over:
                raise UnreadableError(self._over)
            self.questions += 1
            self.requests += 1
            number = self.questions
            self._under_way.add(number)
        try:
            body, tries = self._ask(messages, self.stop)
        except RemoteError as error:
            with self._lock:
                self.refused = self.refused or error
                self.requests += error.tries - 1
                self._refusals[error.status] += 1
                hopeless = self._hopeless(number, error.status)
                if hopeless and self.answers:
                    self._over = self._over or str(error)
                    raise UnreadableError(self._over) from error
            if hopeless:
                raise
            raise UnreadableError(str(error)) from error
        finally:
            with self._lock:
                self._under_way.discard(number)
        prompt, completion = spent(body)
        with self._lock:
            self.answers += 1
            self.requests += tries - 1
            if prompt is None or completion is None:
                self.uncounted += 1
            else:
                self.prompt_tokens += prompt
                self.completion_tokens += completion
        return text_of(body)

    def _hopeless(self, number: int, status: int) -> bool:
        """Whether no other question would fare better than this one, which was refused so. Holds the lock."""
        if status in _HOPELESS:
            return True
        if self.answers or status in _OWN:
            return False
        if status in _PASSING:
            # One that was asked before may still be answered: by a server that is slow, and too busy for the others.
            return number == min(self._under_way) and sum(self._refusals[one] for one in _PASSING) >= self._patience
        return self._refusals[status] >= _PATIENCE

    def keep(self, places: Sequence[int], reason: str) -> None:
        """Note documents that keep their place."""
        with self._lock:
            self.reasons.update(dict.fromkeys(places, reason))
