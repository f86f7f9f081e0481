"""All trainings of one tuning: a fold and a seed each, what they are worth on held-out queries, and the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossrank import checkpoint
from crossrank.calibration import Platt
from crossrank.errors import InputError
from crossrank.extras import require
from crossrank.training import gate, measuring
from crossrank.training import network as net
from crossrank.training.gate import Gains, General, Point, Verdict
from crossrank.training.loop import STATE, Step, train
from crossrank.training.measuring import Lists
from crossrank.training.negatives import score
from crossrank.training.outcome import InSearch, Progress
from crossrank.training.prepared import Prepared
from crossrank.training.settings import Plan
from crossrank.training.work import Work

require("torch", extra="train")
import torch  # noqa: E402


class Trainings:
    """All trainings of one tuning, what they were worth on held-out queries, and what follows."""

    def __init__(
        self, prepared: Prepared, work: Work, network: net.Network, plan: Plan, rows: NDArray[np.int64]
    ) -> None:
        self.prepared, self.work, self.network, self.plan, self.rows = prepared, work, network, plan, rows
        material = prepared.material
        self.runs = [(repeat, part) for repeat in range(plan.repeats) for part in material.parts]
        self._before = {part: [prepared.held_base[i] for i in self._rows(part)] for part in material.parts}
        self.base, self.expected = self._both(self._before)

    def run(self) -> None:
        """Do every training that is not done yet; further repeats only when the first one gained something."""
        began, first = time.monotonic(), -1.0
        for number, (repeat, part) in enumerate(self.runs):
            if part == self.prepared.material.parts[0] and repeat and self._hopeless(number):
                self.runs = self.runs[:number]
                return
            folder = self._folder(repeat, part)
            if (folder / "done").exists():
                continue
            items = self.prepared.without(part)
            before = float(self.base[self._of(part)].mean()) if len(self._of(part)) else 0.0

            def told(step: Step, number: int = number, before: float = before) -> None:
                nonlocal first
                share = (number + step.done / step.steps) / len(self.runs)
                if first < 0:
                    first = share
                left = (time.monotonic() - began) / (share - first) * (1 - share) if share > first else None
                self.prepared.tell(Progress("training", number + 1, len(self.runs), step.done, step.steps, step.loss,
                                          step.value, before if step.value is not None else None, left))  # fmt: skip

            def measured(epoch: int, repeat: int = repeat, part: int = part) -> float:
                found = self._values([repeat], part, epoch, max(self.prepared.settings.shares))
                return float(found.mean()) if len(found) else 0.0

            seed = [self.prepared.settings.seed, repeat, part]
            train(
                self.network, items, self.prepared.old, self.plan, self.prepared.settings, seed, folder, measured, told
            )
            (folder / "done").touch()
            (folder / STATE).unlink(missing_ok=True)

    def _hopeless(self, done: int) -> bool:
        """Whether nothing was gained by the trainings before number `done`, which are whole repeats."""
        _, expected = self._gains(self.runs[:done])
        blocks = self.prepared.material.block[self.rows]
        return not len(blocks) or float(gate.crossed(expected, blocks).mean()) <= 0

    def _folder(self, repeat: int, part: int) -> Path:
        return self.work.folder / f"run-{repeat}-{part}"

    def _of(self, part: int) -> NDArray[np.int64]:
        """Places in `rows` of a fold."""
        return np.flatnonzero(self.prepared.material.fold[self.rows] == part)

    def _rows(self, part: int) -> list[int]:
        """Held-out queries of a fold."""
        return [int(row) for row in self.rows[self._of(part)]]

    def _last(self, repeat: int, part: int, epoch: int) -> int:
        """The epoch itself, or the last one of a training that stopped before."""
        folder = self._folder(repeat, part)
        return max(n for n in range(1, epoch + 1) if (folder / f"epoch-{n}.safetensors").exists())

    def _weights(self, repeat: int, part: int, epoch: int) -> dict[str, torch.Tensor]:
        epoch = self._last(repeat, part, epoch)
        return net.load(self._folder(repeat, part) / f"epoch-{epoch}.safetensors")

    def _scores(self, repeats: Sequence[int], part: int, epoch: int, share: float) -> list[NDArray[np.float32]]:
        """Of the held-out queries of a fold, by the mean of trainings that never saw them."""
        ends = [self._last(repeat, part, epoch) for repeat in repeats]
        lists = self.prepared.material.lists(self._rows(part))
        runs = "-".join(f"{repeat}.{end}" for repeat, end in zip(repeats, ends, strict=True))
        name = f"scores-{part}/{runs}-{share:g}"

        def made() -> list[NDArray[np.float32]]:
            trained: list[net.Weights] = [self._weights(repeat, part, epoch) for repeat in repeats]
            return self._scored(net.mixed(self.network.begun, trained, share), lists)

        return self.work.once(name, made)

    def _scored(self, weights: net.Weights, shown: Sequence[Lists]) -> list[NDArray[np.float32]]:
        if not shown:
            return []
        folder = self.work.folder / "measured"
        self.network.write(weights, folder)
        return score(shown, self.prepared.scorer(checkpoint.read(folder)))

    def _values(self, repeats: Sequence[int], part: int, epoch: int, share: float) -> NDArray[np.float64]:
        return self.prepared.material.values(self._rows(part), self._scores(repeats, part, epoch, share))

    def _gains(self, runs: Sequence[tuple[int, int]]) -> tuple[Gains, Gains]:
        """By epoch and share, in the order of `rows`: gains of held-out queries in nDCG@10 and in expected nDCG@10.

        Each fold is ranked by the mean of its trainings, because the final model is a mean, and better than they are.
        """
        plain, expected = {}, {}
        for epoch, share in self.points:
            parts = self.prepared.material.parts
            values, after = self._both({p: self._scores(_repeats(runs, p), p, epoch, share) for p in parts})
            plain[epoch, share], expected[epoch, share] = values - self.base, after - self.expected
        return plain, expected

    def _both(
        self, scores: Mapping[int, Sequence[NDArray[np.float32]]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """nDCG@10 and expected nDCG@10 of all held-out queries, in the order of `rows`, by the scores of each fold.

        Noise is in proportion to the scores of a fold, because each fold is scored by a model of its own.
        """
        material = self.prepared.material
        return self._valued(scores, material.values), self._valued(scores, material.expected)

    def _valued(
        self,
        scores: Mapping[int, Sequence[NDArray[np.float32]]],
        measure: Callable[[Sequence[int], Sequence[NDArray[np.float32]]], NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """A measure of all held-out queries, in the order of `rows`, by the scores of each fold."""
        values = np.zeros(len(self.rows))
        for part, found in scores.items():
            values[self._of(part)] = measure(self._rows(part), found)
        return values

    @property
    def points(self) -> list[Point]:
        """What can be chosen: each epoch with the largest share, the last one with all. Mixing is like stopping."""
        shares = sorted(self.prepared.settings.shares)
        last = self.plan.epochs
        return [*((epoch, shares[-1]) for epoch in range(1, last + 1)), *((last, share) for share in shares[:-1])]

    def decide(self) -> tuple[Verdict, Point | None]:
        """The verdict, and the epoch and share that it is about.

        A model that forgets too much is tried with smaller shares of the tuned weights before it is given up.
        """
        plain, expected = self._gains(self.runs)
        point = gate.pick(expected, np.ones(len(self.rows), np.bool_))
        if point is None:
            return self._verdict(plain, expected, [], chosen=False), None
        verdict = self._verdict(plain, expected, self._general(point), chosen=True)
        for share in sorted((s for e, s in self.points if e == self.plan.epochs and s < point[1]), reverse=True):
            forgot = any(one.loss > self.prepared.settings.most_loss for one in verdict.general)
            if verdict.kept == "tuned" or not forgot or verdict.expected is None or verdict.expected.low <= 0:
                break
            point = (self.plan.epochs, share)
            alone = {point: plain[point]}, {point: expected[point]}
            verdict = self._verdict(*alone, self._general(point), chosen=True)
        return verdict, point

    def _verdict(self, plain: Gains, expected: Gains, found: Sequence[General], chosen: bool) -> Verdict:
        settings, blocks = self.prepared.settings, self.prepared.material.block[self.rows]
        verdict = gate.decide(
            self.base,
            gate.crossed(expected, blocks, of=plain),
            found,
            chosen=chosen,
            expected=gate.crossed(expected, blocks),
            by_chance=gate.chance(expected, blocks) if len(blocks) else 1.0,
            confidence=settings.confidence,
            least_gain=settings.least_gain,
            most_loss=settings.most_loss,
        )
        if verdict.kept == "tuned" and not found:
            missing = "this Python has no sources to make general questions of: name a judged set with --general"
            return replace(verdict, kept="base", reasons=(missing,))
        return verdict

    def _general(self, point: Point) -> list[General]:
        """What the final model does on general questions."""
        self.prepared.tell(Progress("general questions"))
        weights = self.mean(point)
        found = []
        for name, shown in self.prepared.general.items():
            scores = self._scored(weights, shown)
            base = [one.base for one in shown]
            high = max(float(one.labels.max()) for one in shown)
            before, after = (float(measuring.values(shown, s, "labels", 0, high).mean()) for s in (base, scores))
            found.append(General(name, before, after, measuring.agreement(base, scores), len(shown)))
        return found

    def in_search(self, point: Point) -> InSearch | None:
        """What the models are worth in a search, by share; None where held-out queries are ranked as lists."""
        material = self.prepared.material
        if not material.searched:
            return None
        tuned = {part: self._scores(_repeats(self.runs, part), part, *point) for part in material.parts}
        base, after = (
            {mix: self._valued(scores, partial(material.values, mix=mix)) for mix in material.mixes}
            for scores in (self._before, tuned)
        )
        return InSearch.of(base, after, self.prepared.settings.confidence)

    def mean(self, point: Point) -> dict[str, torch.Tensor]:
        """Weights of the final model: the mean of all trainings, mixed with the base model's."""
        epoch, share = point
        return net.mixed(self.network.begun, [self._weights(*run, epoch) for run in self.runs], share)

    def calibration(self, point: Point) -> Platt:
        """Fitted on held-out queries.

        Raises:
            InputError: none can be: the labels are a teacher's scores, or scores do not rise with relevance.
        """
        material = self.prepared.material
        if material.scale == "scores":
            raise InputError("the labels are a teacher's scores, which do not say what is relevant")
        scores, relevant = [], []
        for part in material.parts:
            rows = self._rows(part)
            each = self._scores(_repeats(self.runs, part), part, *point)
            for one, found in zip(material.lists(rows), each, strict=True):
                order, labels = measuring.documents(one, found)
                scores.append(order)
                relevant.append(labels[: len(order)] > material.limit)
        return Platt.fit(np.concatenate(scores), np.concatenate(relevant))


def _repeats(runs: Sequence[tuple[int, int]], part: int) -> list[int]:
    return [repeat for repeat, other in runs if other == part]
