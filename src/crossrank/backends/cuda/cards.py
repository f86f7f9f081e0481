"""Several cards behind one scorer. Needs the extra `gpu`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from crossrank import extras
from crossrank.backends.cuda import devices
from crossrank.backends.cuda.card import Card
from crossrank.backends.cuda.layers import Place
from crossrank.checkpoint import Checkpoint
from crossrank.types import Pooling, TokenBackend, Tokens

extras.require("torch", extra="gpu")
import torch  # noqa: E402

WORTH = 16_384  # tokens a card: with fewer, dividing a call takes longer than computing it on one

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


def places(device: str, dtype: str) -> tuple[Place, ...]:
    """See `crossrank.backends.cuda.places`."""
    found = devices.named(device)
    return tuple(Place(card, devices.format_of(dtype, torch.cuda.get_device_capability(card))) for card in found)


def open(checkpoint: Checkpoint, places: Sequence[Place]) -> TokenBackend:
    """See `crossrank.backends.cuda.open`."""
    found = [Card(checkpoint, place.device, place.dtype) for place in places]
    return found[0] if len(found) == 1 else Cards(found)


class Cards:
    """One model on several cards: a large call is divided among them, a small one goes to the least busy.

    Equal cards give equal scores to a sequence only up to rounding, as batches of different sizes do.
    """

    padded = False

    def __init__(self, cards: Sequence[Card]) -> None:
        self._cards = list(cards)
        self._busy = [0] * len(cards)
        self._lock = Lock()
        self.name = f"{cards[0].name} and {len(cards) - 1} more"

    @property
    def budget(self) -> int:
        """Tokens that a call should bring, so that each card gets as much as it would alone."""
        return sum(card.budget for card in self._cards)

    def forward(self, tokens: Tokens) -> Floats:
        """See `Card.forward`."""
        return self._divided(tokens, lambda card, part, _: card.forward(part))[0]

    def pool(self, tokens: Tokens, pooling: Pooling) -> Floats:
        """See `Card.pool`."""
        return self._divided(tokens, lambda card, part, _: card.pool(part, pooling))[0]

    def states(self, tokens: Tokens, seen: NDArray[np.int64] | None = None) -> Floats:
        """See `Card.states`."""

        def run(card: Card, part: Tokens, rows: Rows) -> Floats:
            return card.states(part, None if seen is None else seen[rows])

        found, rows = self._divided(tokens, run, whole=False)
        out = np.empty_like(found)
        out[tokens.places(rows)] = found
        return out

    def _divided(
        self, tokens: Tokens, run: Callable[[Card, Tokens, Rows], Floats], whole: bool = True
    ) -> tuple[Floats, Rows]:
        """Results of all sequences and their positions: in the caller's order when `whole`, else in theirs."""
        parts = shares(tokens.lengths, min(len(self._cards), max(1, int(tokens.offsets[-1]) // WORTH)))
        with self._least_busy(len(parts)) as chosen:
            if len(parts) == 1:
                rows = np.arange(len(tokens))
                return run(chosen[0], tokens, rows), rows
            with ThreadPoolExecutor(len(parts)) as pool:
                made = pool.map(lambda card, part: run(card, tokens.take(part), part), chosen, parts)
                found = np.concatenate(list(made))
        rows = np.concatenate(parts)
        if not whole:
            return found, rows
        out = np.empty_like(found)
        out[rows] = found
        return out, rows

    @contextmanager
    def _least_busy(self, count: int) -> Iterator[list[Card]]:
        """So many cards, each once, counted as busy until the caller is done."""
        with self._lock:
            chosen = sorted(range(len(self._cards)), key=self._busy.__getitem__)[:count]
            for i in chosen:
                self._busy[i] += 1
        try:
            yield [self._cards[i] for i in chosen]
        finally:
            with self._lock:
                for i in chosen:
                    self._busy[i] -= 1


def shares(lengths: NDArray[np.int64], count: int) -> list[Rows]:
    """Positions dealt into `count` parts of nearly equal cost: longest first, back and forth.

    >>> [part.tolist() for part in shares(np.array([5, 1, 4, 2, 3, 6]), 2)]
    [[5, 4, 3], [0, 2, 1]]
    """
    order = np.argsort(-lengths, kind="stable")
    place = np.arange(len(order)) % (2 * count)
    hand = np.where(place < count, place, 2 * count - 1 - place)
    return [order[hand == i] for i in range(count)]
