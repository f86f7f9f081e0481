"""Judgments, models and general questions made ready for the trainings of one tuning. Needs the extra `train`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from crossrank import __version__, backends
from crossrank.checkpoint import Checkpoint
from crossrank.crossencoder import CrossEncoder
from crossrank.encoder import PairEncoder, Windows
from crossrank.training import general
from crossrank.training import network as net
from crossrank.training.gate import FEWEST_HELD_OUT
from crossrank.training.judgments import Group
from crossrank.training.loop import Item
from crossrank.training.material import Material
from crossrank.training.measuring import Lists
from crossrank.training.negatives import Shown, mine, score, scored
from crossrank.training.outcome import Engine, Progress
from crossrank.training.settings import Plan, Settings, fitting, planned
from crossrank.training.work import Work
from crossrank.types import Tokens

# Built-in general questions: measured on, and remembered.
MEASURED, REMEMBERED = 100, 100
BUILT_IN = "Python's documentation strings"
# Pairs that tell how long sequences are; and of a passage that is longer than one, its beginning counts.
LOOKED_AT = 1_000
FIRST = Windows(fold="first", most=1)
# General questions are remembered in sequences of so many tokens at least, however short the user's texts are: in 64,
# with scores of the whole texts as targets, one of four models forgot 0.024 (LOG.md).
GENERAL_TOKENS = 128
# Candidates of a search that a held-out query is ranked with: as many as there is time for, and no fewer than the last.
DEPTHS = (100, 70, 50, 30, 20)


class Prepared:
    """One tuning: what its steps share."""

    def __init__(
        self,
        read: Checkpoint,
        material: Material,
        settings: Settings,
        engine: Engine,
        sets: Mapping[str, Sequence[Group]],
        tell: Callable[[Progress], None],
    ) -> None:
        self.read, self.material, self.settings, self.engine, self.tell = read, material, settings, engine, tell
        self.length = min(settings.max_tokens or self._fitting(), read.max_length)
        self.general_length = min(max(self.length, GENERAL_TOKENS), read.max_length)
        asked = {BUILT_IN: general.questions(MEASURED, part=0), **sets}
        self.general = {name: _plain(groups) for name, groups in asked.items() if groups}
        self.remembered = _plain(general.questions(REMEMBERED, part=1))
        self.depth = 0  # candidates of a search that held-out queries are ranked with; of no search none

    def key(self) -> str:
        """Of everything that the result depends on.

        That the backend's name tells tier and number format: the scores of the base and of the tuned model must come
        from one, or their difference is that of two formats.
        """
        told = chain(
            (self.read.fingerprint, asdict(self.settings), self.engine.device, self.material.scale),
            (self.scorer(self.read).backend.name, __version__, self.material.fold.tolist()),
            ([one.query, one.documents, one.labels.tolist(), one.judged.tolist()] for one in self.material.shown),
            ([one.documents, one.first.tolist(), one.labels.tolist()] for one in self.material.answers),
            ([one.query, one.documents] for sets in self.general.values() for one in sets),
        )
        whole = hashlib.sha256()
        for part in told:  # one by one: a hundred candidates of each of thousands of queries are a gigabyte
            whole.update(json.dumps(part).encode())
        return whole.hexdigest()

    def scorer(self, read: Checkpoint) -> CrossEncoder:
        """What measures: the backend that a user gets, on as much of a passage as the model reads at once.

        All windows of long documents would leave too few queries within `Settings.measured_tokens` to be sure of
        anything: 10 with documents of 2,000 tokens, where 20 are the fewest.
        """
        engine = self.engine
        backend = backends.open(read, engine.backend, engine.device, engine.dtype, engine.threads)
        return CrossEncoder(read, backend, FIRST)

    def _fitting(self) -> int:
        """Tokens of a sequence in training, by `LOOKED_AT` of the judged pairs."""
        pairs = [
            (one.query, text)
            for one in self.material.shown
            for text, judged in zip(one.documents, one.judged.tolist(), strict=True)
            if judged
        ]
        drawn = np.random.default_rng([self.settings.seed, 11]).permutation(len(pairs))[:LOOKED_AT]
        encoder = PairEncoder.of(self.read, self.read.max_length)
        found = encoder.encode([pairs[i] for i in drawn.tolist()], FIRST)
        return fitting(found.tokens.lengths, self.read.max_length)

    def hold_out(self) -> NDArray[np.int64]:
        """Which queries are measured on, as many as `Settings.measured_tokens` rank, with distractors for what is left.

        Where a fold has more of them, these are held out instead of folds: the others would be for nothing.
        `needed` becomes the tokens that ranking the fewest takes of which anything is certain.
        """
        rows = self._searches() if self.material.searched else self._lists()
        material, parts = self.material, len(self.material.parts)
        # A held-out file is one part, and what of it is not measured is not trained on either.
        if self.settings.folds is None and parts > 1 and FEWEST_HELD_OUT <= len(rows) <= material.telling.sum() / parts:
            self.material = material.holding_out(rows, self.settings.seed)
        return rows

    def _lists(self) -> NDArray[np.int64]:
        encoder = PairEncoder.of(self.read, self.read.max_length)
        plain = [one.hardest(0) for one in self.material.shown]
        lengths = np.array([_tokens(encoder, one).offsets[-1] for one in plain], dtype=np.int64)
        material, settings = self.material, self.settings
        rows = material.measured(lengths, settings.measured_tokens, settings.seed)
        self.needed = material.needed(lengths, FEWEST_HELD_OUT, settings.seed)
        used, documents = lengths[rows].sum(), sum(len(plain[row]) for row in rows.tolist())
        # A distractor is taken to be as long as the other documents are.
        left = int((settings.measured_tokens - used) * documents / (used * len(rows))) if len(rows) else 0
        self.material = material.with_distractors(rows, left)
        return rows

    def _searches(self) -> NDArray[np.int64]:
        """The same for queries as a search answers them: fewer candidates before fewer queries."""
        encoder, most = PairEncoder.of(self.read, self.read.max_length), self.settings.measured_tokens
        used: dict[int, NDArray[np.int64]] = {}
        least = 0
        for row in self.material.drawn(self.settings.seed).tolist():
            used[row] = np.cumsum(_tokens(encoder, self.material.answers[row]).lengths)
            least += int(used[row][: DEPTHS[-1]][-1])
            if least > 2 * most:  # and more queries are not measured, whatever the depth
                break
        for depth in DEPTHS:
            found = self.material.as_deep(depth)
            drawn = np.array([row for row in used if found.telling[row]], np.int64)
            tokens = np.cumsum([used[row][len(found.answers[row]) - 1] for row in drawn.tolist()], dtype=np.int64)
            if not len(drawn) or tokens[-1] <= most:
                break
        self.material, self.depth = found.with_distractors(np.zeros(0, np.int64), 0), depth
        self.needed = int(tokens[:FEWEST_HELD_OUT][-1]) if len(drawn) else 0
        return np.sort(drawn[tokens <= most])

    def score_base(self, work: Work, rows: NDArray[np.int64]) -> None:
        """Let the base model score everything, once for all calls, and mark what is likely relevant after all.

        Args:
            work: where scores are kept.
            rows: queries that are measured on, and read as far as for that; others as far as they are trained on.
        """
        self.tell(Progress("scoring with the base model"))
        scorer = self.scorer(self.read)

        def kept(name: str, some: Sequence[Lists], reads: CrossEncoder) -> list[NDArray[np.float32]]:
            return work.once(name, lambda: score(some, reads))

        shown, searched = self.material.shown, self.material.searched
        held = kept("base-held", self.material.lists(rows.tolist()), scorer)
        self.held_base = dict(zip(rows.tolist(), held, strict=True))
        # What a search finds is another list than what is trained on, and that is scored by itself then.
        base = {} if searched else dict(self.held_base)
        others = [i for i in range(len(shown)) if i not in base]
        shorter = CrossEncoder(self.read, scorer.backend, FIRST, self.length)
        found = kept("base-trained", [shown[i] for i in others], shorter)
        base.update(zip(others, found, strict=True))
        self.material = self.material.showing(scored(shown, [base[i] for i in range(len(shown))], self.material.limit))
        # Targets of a training, so of what it reads.
        trained = CrossEncoder(self.read, scorer.backend, FIRST, self.general_length)
        found = kept("remembered", self.remembered, trained)
        self.remembered = [replace(one, base=scores) for one, scores in zip(self.remembered, found, strict=True)]
        for number, (name, sets) in enumerate(self.general.items()):
            found = kept(f"general-{number}", sets, scorer)
            self.general[name] = [replace(one, base=scores) for one, scores in zip(sets, found, strict=True)]

    def encode(self) -> None:
        """Make `items` of all queries and `old` of what is remembered."""
        flat = np.concatenate([one.base for one in self.material.shown])
        spread = float(flat[np.isfinite(flat)].std()) or 1.0
        plain = self.material.scale != "scores" and self.material.high <= 1
        self.items = []
        encoder = PairEncoder.of(self.read, self.length)
        for row, one in enumerate(self.material.shown):
            labels = self.material.targets(row, spread)
            # A teacher's scores have no border: its best document stands first.
            relevant = (
                one.labels >= one.labels.max() if self.material.scale == "scores" else self.material.relevant(row)
            )
            self.items.append(Item(_tokens(encoder, one), labels, relevant, one.trained, not plain))
        general_ = PairEncoder.of(self.read, self.general_length)
        self.old = [
            Item(_tokens(general_, one), one.base, np.ones(len(one), np.bool_), np.arange(len(one)), True)
            for one in self.remembered
        ]

    def without(self, part: int) -> list[Item]:
        """What can be trained on while a fold is held out."""
        folds = self.material.fold.tolist()
        return [item for item, fold in zip(self.items, folds, strict=True) if fold != part and item.usable]

    def plan(self) -> Plan:
        """What is done with so much data; a held-out part of its own is decided on by two seeds at least."""
        size = self.settings.candidates
        parts = len(self.material.parts)
        share = (parts - 1) / parts if parts > 1 else 1.0
        # A held-out part of its own is no fold: no training sees it.
        usable = [item for item in self.items if item.usable] if parts > 1 else self.without(self.material.parts[0])
        each = [float(item.tokens.lengths.mean()) * min(size, len(item.rows)) for item in usable]
        queries = max(1, round(len(usable) * share))
        depth = net.depth_of(self.read)
        plan = planned(self.settings, self.material.scale, self.material.high, queries, 1.25 * share * sum(each), depth)
        return replace(plan, repeats=plan.repeats if self.settings.repeats or parts > 1 else 2)


def _tokens(encoder: PairEncoder, one: Lists) -> Tokens:
    return encoder.encode([(one.query, text) for text in one.documents], FIRST).tokens


def _plain(groups: Sequence[Group]) -> list[Shown]:
    """Groups as they are: nothing is mined."""
    return mine(groups, lambda queries, depth: [[] for _ in queries], (), 0.0, 0, wanted=0)
