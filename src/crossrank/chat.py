"""Questions to a chat model behind an address, without the parameters that it refuses."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from typing import Any

from crossrank.asking import check_sendable
from crossrank.errors import InputError, RemoteError
from crossrank.judging import Messages
from crossrank.remote import Address

_UNWANTED = frozenset({400, 422})
"""How servers refuse a parameter that they or the model do not know."""
_CALLED = {"response_format": "response_format|json mode|json_object"}
"""What refusals call a parameter, where that is not its name alone: a regular expression."""
_INSTEAD = {"max_tokens": "max_completion_tokens"}
"""What a model that refuses a parameter takes in its place, and then says so. These are limits: a passage that is too
long for the model is refused in their name as well, and without one an answer costs what it likes."""


class Chat:
    """A chat model behind an OpenAI-compatible address. Safe to share between threads.

    Args:
        address: where it is asked.
        model: as the address calls it.
        usual: parameters that every question has; one that a refusal names is left out from then on. Not so
            `max_tokens`: it becomes `max_completion_tokens` where the refusal names this, too.
        extra: parameters of the caller's own, which are sent as they are, also in place of usual ones; None leaves one
            out.

    Raises:
        InputError: `extra` is no mapping of names to what JSON can hold, or the model's name cannot be sent.

    >>> Chat(Address("http://localhost:8000/v1"), "qwen3", {"temperature": 0, "max_tokens": 5}, {"max_tokens": None})
    Chat('http://localhost:8000/v1', 'qwen3', {'temperature': 0})
    """

    def __init__(
        self, address: Address, model: str, usual: Mapping[str, Any], extra: Mapping[str, Any] | None = None
    ) -> None:
        check_sendable("the model's name", model)
        self.address = address
        self.model = model
        sent = {**usual, **_checked({} if extra is None else extra)}
        self._sent = {name: value for name, value in sent.items() if value is not None}
        self._own = frozenset(extra or ())
        self._usual = frozenset(usual) - self._own

    def __repr__(self) -> str:
        return f"Chat({self.address.url!r}, {self.model!r}, {self._sent})"

    def ask(self, messages: Messages, stop: threading.Event | None = None) -> tuple[Mapping[str, Any], int]:
        """The answer to one question, and the requests it took; `stop`, set by another thread, ends pauses.

        Raises:
            RemoteError: as of `crossrank.remote.Address.post`.
        """
        sent, tries = self._sent, 0
        while True:
            try:
                reply = self.address.post(
                    "/chat/completions", {"model": self.model, "messages": messages, **sent}, stop
                )
                break
            except RemoteError as error:
                tries += error.tries
                named = _named_in(error, sent)
                refused = frozenset(name for name in named & self._usual if _INSTEAD.get(name, "") in str(error))
                if not refused:
                    raise _with_cure(error, named & self._own, tries) from error
                instead = {_INSTEAD[name]: sent[name] for name in refused if name in _INSTEAD}
                sent = {name: value for name, value in sent.items() if name not in refused} | instead
        if tries:
            # Only now: a refusal may quote a document.
            self._sent = sent
        return reply.body, tries + reply.tries


def _checked(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(extra, Mapping) or not all(isinstance(name, str) for name in extra):
        raise InputError(f'extra holds parameters by name, such as {{"max_completion_tokens": 500}}, not {extra!r:.80}')
    try:
        json.dumps(dict(extra), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"extra cannot be sent as JSON: {error}") from error
    return extra


def _named_in(error: RemoteError, sent: Mapping[str, Any]) -> frozenset[str]:
    """Those of the parameters that a refusal is about."""
    if error.status not in _UNWANTED:
        return frozenset()
    called = {name: _CALLED.get(name, re.escape(name)) for name in sent}
    return frozenset(name for name, one in called.items() if re.search(rf"\b(?:{one})\b", str(error), re.I))


def _with_cure(error: RemoteError, named: frozenset[str], tries: int) -> RemoteError:
    """The refusal of a question that took so many requests, and what may help where it is about parameters."""
    cure = f"; leave it out with extra={{{', '.join(f'{name!r}: None' for name in sorted(named))}}}" if named else ""
    return RemoteError(f"{error}{cure}", error.status, tries)
