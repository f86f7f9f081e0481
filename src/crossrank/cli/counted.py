"""A language model that many queries are put to, and what all of them cost together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossrank.llm import Judged, LanguageModel


class Counted:
    """Scores as the model does, without a note a call: `note` is that of all."""

    def __init__(self, model: LanguageModel) -> None:
        self.name = model.model
        self._model = model
        self._calls: list[Judged] = []

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """As the model's."""
        judged = self._model.judged(pairs)
        self._calls.append(judged)
        return judged.scores

    @property
    def note(self) -> str:
        """What all calls cost, and what they could not do."""
        import numpy as np

        from crossrank.llm import Judged

        calls = self._calls
        return Judged(
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
