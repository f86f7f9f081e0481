"""Every architecture that can be tuned: what is trained moves, and the written folder scores as torch did."""

from __future__ import annotations

from pathlib import Path

import architectures
import numpy as np
import pytest

from crossrank import checkpoint, load
from crossrank.encoder import PairEncoder, Windows
from crossrank.training import network as net

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("name", architectures.NAMES)
def test_a_tuned_folder_scores_as_its_network(tmp_path: Path, name: str, labels: int) -> None:
    read = checkpoint.read(architectures.make(name, tmp_path / "base", labels=labels))
    network = net.Network(read, layers=1, device="cpu")
    network._low = False  # float32, so that the two can be compared closely
    pairs = [("What is the capital?", text) for text in architectures.TEXTS]
    tokens = PairEncoder(read.tokenizer(), 64).encode(pairs, Windows(fold="first", most=1)).tokens
    before = network.logits(tokens)
    before.sum().backward()
    assert all(weight.grad is not None for weight in network.trained.values())
    assert sum(".2." in weight for weight in network.trained) >= 4
    assert not any(".0." in weight or ".1." in weight or "embedding" in weight for weight in network.trained)
    moved = {weight: value + 0.02 * (-1) ** i for i, (weight, value) in enumerate(network.begun.items())}
    network.take(moved)
    after = network.logits(tokens).detach().numpy()
    assert np.abs(after - before.detach().numpy()).max() > 1e-3
    network.write(moved, tmp_path / "tuned")
    for backend in ("reference", "torch"):
        scorer = load(tmp_path / "tuned", backend=backend, max_length=64, fold="first", max_windows=1)
        np.testing.assert_allclose(scorer.score(pairs), after, atol=2e-4)
