"""One training: the same steps in the same order, whether it was interrupted or not. Needs the extra `train`.

What a step draws depends on the seed and its number only, dropout is off, and the state on disk is that of a whole
step, so a killed training goes on where its last state was and ends with the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError
from crossrank.extras import require
from crossrank.packed import offsets_of
from crossrank.training import network as net
from crossrank.training.losses import LOSSES
from crossrank.training.settings import Plan, Settings
from crossrank.types import Tokens
from crossrank.writing import whole

require("torch", extra="train")
import torch  # noqa: E402
from torch.nn import functional  # noqa: E402

WARMUP = 0.1
WEIGHT_DECAY = 0.01
STATE_SECONDS = 20.0
# A training whose held-out value fell so far below its best one is over: more epochs make it worse.
STOP = 0.02
# Tokens whose activations are held at once: 40 abstracts in one step took 4.6 GB, where 4 are promised.
HELD = 4096
STATE = "state.pt"


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One query as the loop reads it.

    Attributes:
        tokens: one sequence a document.
        targets: what the loss is given, shape (n,), float32.
        relevant: which documents may stand first, shape (n,).
        rows: documents that are trained on, positions.
        graded: whether documents that are relevant, too, may stand beside the first.
    """

    tokens: Tokens
    targets: NDArray[np.float32]
    relevant: NDArray[np.bool_]
    rows: NDArray[np.int64]
    graded: bool

    @property
    def usable(self) -> bool:
        """Whether there is something to tell apart."""
        targets = self.targets[self.rows]
        return bool(self.relevant[self.rows].any()) and bool(targets.max() > targets.min())

    def drawn(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """A relevant document and `count - 1` others: any others when graded, not relevant ones otherwise."""
        order = rng.permutation(self.rows)
        first = order[self.relevant[order]][:1]
        rest = order[order != first[0]] if self.graded else order[~self.relevant[order]]
        return np.concatenate([first, rest[: count - 1]])


@dataclass(frozen=True, slots=True)
class Step:
    """Where a training is: steps done and to do, the mean loss of the last 20, the held-out value if there is one."""

    done: int
    steps: int
    loss: float
    value: float | None = None


def train(
    network: net.Network,
    items: Sequence[Item],
    remembered: Sequence[Item],
    plan: Plan,
    settings: Settings,
    seed: Sequence[int],
    folder: Path,
    measured: Callable[[int], float],
    told: Callable[[Step], None],
) -> None:
    """Train from the base model's weights; leave the weights of each epoch in `folder` as `epoch-N.safetensors`.

    Args:
        network: its weights are set to the base model's first.
        items: queries to learn from, all of them usable.
        remembered: questions on which the scores are to stay, targets being those of the base model.
        plan: loss, epochs, rate, queries of an epoch.
        settings: sizes of a step.
        seed: of what is drawn.
        folder: for state and weights; what an interrupted call left there is gone on from.
        measured: after each epoch, the held-out value of its weights, which lie in `folder`.
        told: after each step.

    Raises:
        InputError: the loss is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network.take(network.begun)
    weights = list(network.trained.values())
    optimizer = torch.optim.AdamW(weights, lr=plan.rate, weight_decay=WEIGHT_DECAY)
    size = min(plan.queries, len(items))
    each = -(-size // settings.queries_a_step)
    steps = each * plan.epochs
    begin, losses, best = _resumed(folder / STATE, network, optimizer)
    saved = time.monotonic()
    for step in range(begin, steps):
        epoch, place = divmod(step, each)
        order = np.random.default_rng([*seed, epoch]).permutation(len(items))[:size]
        picked = order[place * settings.queries_a_step : (place + 1) * settings.queries_a_step]
        rng = np.random.default_rng([*seed, epoch, place, 1])
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * _share(step, steps)
        loss = 0.0
        for part in _losses(network, [items[i] for i in picked.tolist()], remembered, plan, settings, rng):
            part.backward()  # type: ignore[no-untyped-call]
            loss += float(part.detach())
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses = [*losses[-19:], loss]
        if not math.isfinite(losses[-1]):
            raise InputError(f"the loss is {losses[-1]} at step {step + 1}; lower the rate ({plan.rate:g})")
        value = None
        if place + 1 == each:
            net.save(network.weights(), folder / f"epoch-{epoch + 1}.safetensors")
            value = measured(epoch + 1)
        told(Step(step + 1, steps, sum(losses) / len(losses), value))
        if value is not None and value < best - STOP:
            break
        best = best if value is None else max(best, value)
        if time.monotonic() - saved > STATE_SECONDS:
            _save(folder / STATE, network, optimizer, step + 1, losses, best)
            saved = time.monotonic()


def _share(step: int, steps: int) -> float:
    """Of the highest rate: up over the first tenth, then down to 0 on a line."""
    warm = max(1.0, WARMUP * steps)
    return min(1.0, (step + 1) / warm) * (1 - step / steps)


def _losses(
    network: net.Network,
    items: Sequence[Item],
    remembered: Sequence[Item],
    plan: Plan,
    settings: Settings,
    rng: np.random.Generator,
) -> Iterator[torch.Tensor]:
    """Parts of a step's loss, of some queries each: their sum is the mean over its queries, and what it costs to leave
    the base model's scores. A part's activations can go before the next ones come."""
    old = []
    if settings.remember and remembered:
        drawn = rng.integers(0, len(remembered), max(1, len(items) // 4)).tolist()
        old = [(remembered[i], remembered[i].drawn(settings.candidates, rng)) for i in drawn]
    new = [(item, item.drawn(settings.candidates, rng)) for item in items]
    losses = [LOSSES[plan.loss]] * len(new) + [functional.mse_loss] * len(old)
    weights = [1 / len(new)] * len(new) + [settings.remember / max(1, len(old))] * len(old)
    asked = [*new, *old]
    for some in _within([item.tokens.take(rows) for item, rows in asked], HELD):
        scores = torch.split(network.logits(joined([tokens for _, tokens in some])).cpu(), [len(t) for _, t in some])
        parts = []
        for (i, _), found in zip(some, scores, strict=True):
            item, rows = asked[i]
            parts.append(weights[i] * losses[i](found, torch.from_numpy(item.targets[rows])))
        yield torch.stack(parts).sum()


def _within(parts: Sequence[Tokens], most: int) -> Iterator[list[tuple[int, Tokens]]]:
    """Neighbours with their places, as many as have `most` tokens together; one that has more is alone."""
    some: list[tuple[int, Tokens]] = []
    held = 0
    for i, tokens in enumerate(parts):
        size = int(tokens.offsets[-1])
        if some and held + size > most:
            yield some
            some, held = [], 0
        some.append((i, tokens))
        held += size
    if some:
        yield some


def joined(parts: Sequence[Tokens]) -> Tokens:
    """All sequences of all parts, in their order."""
    offsets = offsets_of(np.concatenate([part.lengths for part in parts]))
    ids, types = np.concatenate([part.ids for part in parts]), np.concatenate([part.types for part in parts])
    return Tokens(ids, types, offsets)


def _save(
    path: Path, network: net.Network, optimizer: torch.optim.Optimizer, step: int, losses: list[float], best: float
) -> None:
    state = {"step": step, "losses": losses, "best": best, "weights": network.weights(),
             "optimizer": optimizer.state_dict()}  # fmt: skip
    with whole(path) as part:
        torch.save(state, part)


def _resumed(path: Path, network: net.Network, optimizer: torch.optim.Optimizer) -> tuple[int, list[float], float]:
    if not path.exists():
        return 0, [], -math.inf
    state = torch.load(path, weights_only=True)
    network.take(state["weights"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), [float(loss) for loss in state["losses"]], float(state["best"])
