"""The models in the wheel against transformers and sentence-transformers, over their exported folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
import torch
from safetensors.numpy import load_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoTokenizer, BertModel

import crossrank
from crossrank.backends.cpu import library
from crossrank.checkpoint import export
from crossrank.models import catalog

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.skipif(
        not Path(catalog.locate("small", default="small").source).is_dir(),
        reason="the wheel's models are not built yet",
    ),
]

QUERY = "What is transformer attention mechanism?"
DOCUMENTS = [
    "Attention is a key concept in machine learning broadly.",
    "BERT uses transformer architecture for natural language processing.",
    "Recurrent networks are an alternative to transformer-based models.",
    "The attention mechanism in transformer networks scales quadratically.",
    "Transformer attention mechanism is a core component of modern NLP.",
    "Bread needs yeast, water and time. " * 9,
    "Ein Transformator überträgt elektrische Energie. 变压器",
    "x",
]


@pytest.mark.parametrize("name", ["small", "fast", "tiny"])
@pytest.mark.parametrize("backend", ["reference", "torch", *(f"cpu:{tier}" for tier in library.tiers())])
def test_the_rerankers_give_the_logits_and_order_of_sentence_transformers(
    backend: str, name: str, tmp_path: Path
) -> None:
    mine = crossrank.load(name, backend=backend, device="cpu", dtype="float32")
    export(mine.checkpoint, tmp_path / name)
    theirs = CrossEncoder(str(tmp_path / name), device="cpu")
    pairs = [(QUERY, text) for text in DOCUMENTS]
    want = theirs.predict(pairs, activation_fn=torch.nn.Identity())
    assert np.abs(mine.score(pairs) - want).max() < 1e-4
    predicted = theirs.predict(pairs)
    assert mine.rank(QUERY, DOCUMENTS).positions == tuple(np.argsort(-predicted, kind="stable").tolist())


@pytest.mark.parametrize("backend", ["reference", "torch", "auto", *(f"cpu:{tier}" for tier in library.tiers())])
def test_the_example_of_the_write_up_comes_out_right(backend: str) -> None:
    """Both texts about the question first, and the one that only shares a word with it last. `small` was not trained on
    these texts, but chosen by them among others (LOG.md)."""
    others, right = DOCUMENTS[:3], [DOCUMENTS[4], DOCUMENTS[3]]
    ranked = crossrank.load("small", backend=backend, device="cpu").rank(QUERY, [*others, *right])
    assert ranked.positions[:2] == (3, 4)
    assert ranked.positions[-1] == 0


@pytest.mark.parametrize("backend", ["reference", "torch", *(f"cpu:{tier}" for tier in library.tiers())])
def test_late_gives_the_scores_of_its_exported_folder_by_torch(backend: str, tmp_path: Path) -> None:
    """Its layers are in two files; exported they are in one, which transformers reads by itself."""
    mine = crossrank.load_late("late", backend=backend, device="cpu", dtype="float32")
    export(mine.checkpoint, tmp_path / "late")
    bert = BertModel.from_pretrained(tmp_path / "late", add_pooling_layer=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "late")
    linear = torch.from_numpy(load_file(tmp_path / "late" / "1_Dense" / "model.safetensors")["linear.weight"])
    skipped = set(tokenizer.convert_tokens_to_ids(list(mine.checkpoint.late.skipped)))

    def vectors(text: str) -> tuple[torch.Tensor, list[int]]:
        read = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = bert(**read).last_hidden_state[0] @ linear.T
        return torch.nn.functional.normalize(states, dim=1), read["input_ids"][0].tolist()

    asked, _ = vectors(QUERY)
    want = []
    for made, ids in map(vectors, DOCUMENTS):
        kept = made[[i for i, id_ in enumerate(ids) if id_ not in skipped]]
        want.append(float((asked @ kept.T).max(1).values.sum()))
    np.testing.assert_allclose(mine.score([(QUERY, text) for text in DOCUMENTS]), want, atol=2e-4)


@pytest.mark.parametrize("backend", ["reference", "torch", *(f"cpu:{tier}" for tier in library.tiers())])
def test_embed_gives_the_vectors_of_sentence_transformers(backend: str, tmp_path: Path) -> None:
    mine = crossrank.load_embedder("embed", backend=backend, device="cpu", dtype="float32")
    export(mine.checkpoint, tmp_path / "embed")
    theirs = SentenceTransformer(str(tmp_path / "embed"), device="cpu")
    want = theirs.encode(DOCUMENTS, normalize_embeddings=True)
    assert np.abs(mine.embed(DOCUMENTS) - want).max() < 1e-4
