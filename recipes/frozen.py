"""Hidden states of frozen layers: computed once for all texts of a training by the native engine, kept on disk.

A training of the layers above them then costs what those layers cost. States are float16, which holds the outputs of
the last layers of a BERT (under 30 in size) to 2^-11, less than the bfloat16 that they may be computed in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap

from crossrank import backends
from crossrank.batching import plan
from crossrank.checkpoint import Checkpoint
from crossrank.packed import offsets_of
from crossrank.types import Tokens
from crossrank.writing import whole

# Texts between two notes of how far it is, and tokens of one batch.
SAVED, BUDGET = 1500, 8192


def lowest(model: Checkpoint, layers: int) -> Checkpoint:
    """The first so many layers of a model as a model of their own."""
    return replace(model, config={**model.config, "num_hidden_layers": layers})


class States:
    """The states of sequences after the lowest layers of a model; goes on where it was stopped.

    Args:
        model: whose layers they are.
        layers: how many of them.
        rows: token ids with special tokens, one list a sequence.
        work: where `states-*.npy` goes; its name tells model, layers and texts.
        threads: cores to use; all when 0.
    """

    def __init__(self, model: Checkpoint, layers: int, rows: Sequence[list[int]], work: Path, threads: int = 0) -> None:
        self._offsets = offsets_of([len(row) for row in rows])
        which = sha256(json.dumps([model.fingerprint, layers, *rows]).encode()).hexdigest()[:16]
        file, done = work / f"states-{which}.npy", work / f"states-{which}.done"
        begin = int(done.read_text() or 0) if done.exists() else 0
        shape = (int(self._offsets[-1]), int(model.config["hidden_size"]))
        self._states = (
            np.load(file, mmap_mode="r+") if begin else open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
        )
        if begin == len(rows):
            return
        engine = backends.open(lowest(model, layers), "cpu", threads=threads or None)
        for start in range(begin, len(rows), SAVED):
            tokens = Tokens.of(rows[start : start + SAVED])
            for batch in plan(tokens.lengths, BUDGET, engine.padded):
                places = self._offsets[start] + tokens.places(batch)
                self._states[places] = engine.states(tokens.take(batch))
            self._states.flush()
            with whole(done) as part:
                part.write_text(str(start + len(tokens)))
            print(f"{layers} frozen layers have read {start + len(tokens)} of {len(rows)} texts", flush=True)

    def padded(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """States of some sequences and which are real, (n, longest rounded up to 16, hidden) and (n, longest)."""
        lengths = [int(self._offsets[i + 1] - self._offsets[i]) for i in rows]
        longest = -(-max(lengths) // 16) * 16
        states = torch.zeros(len(rows), longest, self._states.shape[1])
        for place, (i, length) in enumerate(zip(rows, lengths, strict=True)):
            part = self._states[self._offsets[i] : self._offsets[i + 1]].astype(np.float32)
            states[place, :length] = torch.from_numpy(part)
        return states, torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
