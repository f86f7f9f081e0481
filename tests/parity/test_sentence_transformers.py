"""The whole path, text to ranking, against sentence-transformers on the same folder."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
import architectures
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer import modules

import crossrank
import tiny
from crossrank.checkpoint import export, read
from crossrank.errors import CheckpointError

pytestmark = pytest.mark.torch

DOCUMENTS = [
    *architectures.TEXTS,
    "paris",
    "the capital of france is paris. " * 3,
    "A cat is not a planet!",
    "yeast, bread, bread, yeast",
    "mercury",
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("name", architectures.NAMES)
def test_same_order_as_predict(name: str, labels: int, backend: str, tmp_path: Path) -> None:
    folder = architectures.make(name, tmp_path, labels=labels)
    query = "What is the capital of France?"
    theirs = np.asarray(CrossEncoder(str(folder), device="cpu").predict([(query, text) for text in DOCUMENTS]))
    if labels == 2:
        theirs = theirs[:, 1] - theirs[:, 0]
    gaps = [abs(a - b) for a, b in itertools.combinations(theirs.tolist(), 2)]
    assert min(gaps) > 1e-6, "scores must differ for the order to mean something"
    mine = crossrank.load(folder, backend=backend, device="cpu", dtype="float32").rank(query, DOCUMENTS)
    assert mine.positions == tuple(np.argsort(-theirs, kind="stable").tolist())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_rerankers_saved_as_modules(pooling: str, tmp_path: Path) -> None:
    """ModernBERT, pooling, dense, norm, dense: how the ettin rerankers are saved."""
    encoder = architectures.make("modernbert", tmp_path / "encoder", labels=0)
    chain = [
        modules.Transformer(str(encoder)),
        modules.Pooling(32, pooling),
        modules.Dense(32, 32, bias=False, activation_function=torch.nn.GELU()),
        modules.LayerNorm(32),
        modules.Dense(32, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    torch.nn.init.normal_(chain[3].norm.weight)
    torch.nn.init.normal_(chain[3].norm.bias)
    theirs = CrossEncoder(modules=chain, device="cpu")
    theirs.save_pretrained(str(tmp_path / "model"))
    query = "What is the capital of France?"
    want = theirs.predict([(query, text) for text in DOCUMENTS], activation_fn=torch.nn.Identity())
    mine = crossrank.load(tmp_path / "model", dtype="float32")
    assert mine.checkpoint.kind == "cross-encoder"
    assert np.abs(mine.score([(query, text) for text in DOCUMENTS]) - want).max() < 1e-4
    with pytest.raises(CheckpointError, match="backend='reference'"):
        crossrank.load(tmp_path / "model", backend="torch")

    stated = json.loads((tmp_path / "model" / "2_Dense" / "config.json").read_text())
    for change in ({"activation_function": "torch.nn.modules.activation.ELU"}, {"use_residual": True}):
        tiny.write_json(tmp_path / "model" / "2_Dense" / "config.json", {**stated, **change})
        with pytest.raises(CheckpointError, match="dense modules"):
            crossrank.load(tmp_path / "model")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_same_vectors_as_encode_before_and_after_export(pooling: str, tmp_path: Path) -> None:
    folder = tiny.bi_encoder(tmp_path / "model", pooling)
    export(read(folder), tmp_path / "out")
    mine = crossrank.load_embedder(folder, dtype="float32").embed(DOCUMENTS)
    for place in (folder, tmp_path / "out"):
        theirs = SentenceTransformer(str(place), device="cpu").encode(DOCUMENTS, normalize_embeddings=True)
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    np.testing.assert_allclose(
        crossrank.load_embedder(tmp_path / "out", dtype="float32").embed(DOCUMENTS), mine, atol=1e-6
    )
