"""A model behind an address that many queries are put to, and what all of them cost together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from crossrank.cli import options, terminal
from crossrank.cli.exits import Exit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossrank.llm import LanguageModel
    from crossrank.remotereranker import RemoteReranker


# Calls in a row without any answer, from which the address is gone for good.
_GONE = 3
_KEPT = "; --on-error keep leaves the order before it"


class Counted:
    """Scores as the model does, without a note a call: `note` is that of all.

    Once there was an answer, a call without any leaves the order of its documents: hundreds were paid for by then.

    Args:
        model: what is asked.
        cure: what the command line has for a call without an answer, said with its error.
        name: what people call it; the model's own when empty.
    """

    def __init__(self, model: LanguageModel | RemoteReranker, cure: str = "", name: str = "") -> None:
        from crossrank.llm import Judged, LanguageModel
        from crossrank.remotereranker import Answered

        self.name = name or model.model
        self.model = model.model
        self.address = model.address.url
        self.listwise = isinstance(model, LanguageModel) and model.listwise
        self._ask: Callable[[Sequence[tuple[str, str]]], Any] = model.judged
        self._joined: Callable[[Any], Any] = Judged.joined if isinstance(model, LanguageModel) else Answered.joined
        self._questions = model.questions if isinstance(model, LanguageModel) else int
        self._cure = cure
        self._calls: list[Any] = []
        self._lost: list[str] = []
        self._in_a_row = 0

    def __repr__(self) -> str:
        return f"{self.address}#{self.model}"

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """As the model's."""
        import numpy as np

        from crossrank.errors import RemoteError

        try:
            if self._in_a_row == _GONE:
                raise RemoteError("not asked any more")
            judged = self._ask(pairs)
        except RemoteError as error:
            if not self._calls:
                raise RemoteError(f"{error}{self._cure}", error.status, error.tries) from error
            self._in_a_row = min(self._in_a_row + 1, _GONE)
            self._lost.append(str(error))
            return np.zeros(len(pairs), dtype=np.float32)
        self._in_a_row = 0
        self._calls.append(judged)
        scores: NDArray[np.float32] = judged.scores
        return scores

    def questions(self, depth: int) -> int:
        """A language model's own; a rerank API is sent that many documents."""
        return self._questions(depth)

    @property
    def asked(self) -> bool:
        """Whether there was any answer, so that `note` has something to say."""
        return bool(self._calls)

    @property
    def failed(self) -> bool:
        """Whether there are documents that were not judged."""
        return bool(self._lost) or any(getattr(call, "fallbacks", ()) for call in self._calls)

    @property
    def note(self) -> str:
        """What all calls cost, and what they could not do."""
        told: str = self._joined(self._calls).note
        if self._lost:
            told += f"; {terminal.count(len(self._lost), 'query keeps its order', 'queries keep their order')}: "
            told += "; ".join(dict.fromkeys(self._lost))
        return told


def asked_model(llm: str | None, window: int | None, on_error: str | None = None) -> Counted | None:
    """The model that `--llm` names, if any.

    Raises:
        click.UsageError: `--llm-depth` or `--llm-window` is given without it, or it goes with a budget.
        InputError: it is no address of a model.
    """
    if llm is not None:
        check_budget("--llm")
        return Counted(options.language_model(llm, window), _cure(on_error))
    for option, given in (("--llm-depth", options.typed("llm_depth")), ("--llm-window", window is not None)):
        if given:
            raise click.UsageError(f"{option} is of --llm, which names no model")
    return None


def asked_api(name: str | None, on_error: str | None = None) -> Counted | None:
    """The rerank API that `--rerank-api` names, if any.

    Raises:
        click.UsageError: it goes with a budget, or with the model in whose place it is.
        InputError: it is no address of a rerank API.
    """
    if name is None:
        return None
    if options.typed("model"):
        raise click.UsageError("--rerank-api is in place of --model: leave out one of them")
    check_budget("--rerank-api")
    if click.get_current_context().params.get("stop_early"):
        raise click.UsageError(
            "--stop-early goes without --rerank-api: it would ask about a few passages at a time, and an API bills and "
            "fails by the request"
        )
    return Counted(options.remote_reranker(name), _cure(on_error))


def _cure(on_error: str | None) -> str:
    """What `--on-error` would help, where the command has it and it was not said."""
    return _KEPT if "on_error" in click.get_current_context().params and on_error != "keep" else ""


def check_budget(option: str) -> None:
    """Refuse a budget beside what asks elsewhere.

    Raises:
        click.UsageError: there is one.
    """
    if click.get_current_context().params.get("budget_ms") is not None:
        raise click.UsageError(
            f"{option} goes without --budget-ms (or CROSSRANK_BUDGET_MS): what it takes cannot be planned"
        )


def exit_code(failed: bool, *asked: Counted | None) -> Exit:
    """How the command ends; says what was asked elsewhere and what it cost."""
    for one in asked:
        if one is not None and one.asked:
            terminal.note(f"{one.name}: {one.note}.")
            failed |= one.failed
    return Exit.SOME_FAILED if failed else Exit.OK
