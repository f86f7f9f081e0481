"""A language model that many queries are put to, and what all of them cost together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from crossrank.cli import options, terminal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossrank.llm import Judged, LanguageModel


# Calls in a row without any answer, from which the address is gone for good.
_GONE = 3


class Counted:
    """Scores as the model does, without a note a call: `note` is that of all.

    Once there was an answer, a call without any leaves the order of its documents: hundreds were paid for by then.

    Args:
        model: what is asked.
        cure: what the command line has for a call without an answer, said with its error.
    """

    def __init__(self, model: LanguageModel, cure: str = "") -> None:
        self.name = model.model
        self._model = model
        self._cure = cure
        self._calls: list[Judged] = []
        self._lost: list[str] = []
        self._in_a_row = 0

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """As the model's."""
        import numpy as np

        from crossrank.errors import RemoteError

        try:
            if self._in_a_row == _GONE:
                raise RemoteError("not asked any more")
            judged = self._model.judged(pairs)
        except RemoteError as error:
            if not self._calls:
                raise RemoteError(f"{error}{self._cure}", error.status, error.tries) from error
            self._in_a_row = min(self._in_a_row + 1, _GONE)
            self._lost.append(str(error))
            return np.zeros(len(pairs), dtype=np.float32)
        self._in_a_row = 0
        self._calls.append(judged)
        return judged.scores

    @property
    def listwise(self) -> bool:
        """As the model's: whether scores compare within one call only."""
        return self._model.listwise

    def questions(self, depth: int) -> int:
        """As the model's."""
        return self._model.questions(depth)

    @property
    def asked(self) -> bool:
        """Whether there was any answer, so that `note` has something to say."""
        return bool(self._calls)

    @property
    def failed(self) -> bool:
        """Whether there are documents that were not judged."""
        return bool(self._lost) or any(call.fallbacks for call in self._calls)

    @property
    def note(self) -> str:
        """What all calls cost, and what they could not do."""
        import numpy as np

        from crossrank.llm import Judged

        calls = self._calls
        told = Judged(
            np.concatenate([call.scores for call in calls]) if calls else np.zeros(0, np.float32),
            tuple(fallback for call in calls for fallback in call.fallbacks),
            tuple(place for call in calls for place in call.cut),
            sum(call.questions for call in calls),
            sum(call.retries for call in calls),
            sum(call.prompt_tokens for call in calls),
            sum(call.completion_tokens for call in calls),
            sum(call.uncounted for call in calls),
            sum(call.seconds for call in calls),
        ).note
        if self._lost:
            told += f"; {terminal.count(len(self._lost), 'query keeps its order', 'queries keep their order')}: "
            told += "; ".join(dict.fromkeys(self._lost))
        return told


def asked_for(llm: str | None, window: int | None, cure: str = "") -> Counted | None:
    """The model that `--llm` names, if any; for `cure` see `Counted`.

    Raises:
        click.UsageError: `--llm-depth` or `--llm-window` is given without it.
        InputError: it is no address of a model.
    """
    if llm is not None:
        return Counted(options.language_model(llm, window), cure)
    for option, given in (("--llm-depth", options.typed("llm_depth")), ("--llm-window", window is not None)):
        if given:
            raise click.UsageError(f"{option} is of --llm, which names no model")
    return None
