"""One contract for every backend that is installed: reference, the native engine's tiers, torch, cuda, fake."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tiny
from crossrank import backends, extras
from crossrank.backends.cpu import library
from crossrank.checkpoint import read
from crossrank.errors import CheckpointError, InputError
from crossrank.parity import MOVES
from crossrank.types import Backend, Tokens

NATIVE = [f"cpu:{tier}-{dtype}" for tier in library.tiers() for dtype in library.dtypes(tier)]
# How far a sequence's answer may move with what else is in its batch.
TOLERANCE = dict.fromkeys(NATIVE, MOVES["cpu"]) | MOVES

needs_torch = pytest.mark.skipif(
    not (extras.available("torch") and extras.available("transformers")), reason="the extra torch is not installed"
)
KINDS = [
    "reference",
    *NATIVE,
    "fake",
    pytest.param("torch", marks=[needs_torch, pytest.mark.torch]),
    pytest.param("torch-bfloat16", marks=[needs_torch, pytest.mark.torch]),
    # The GPU engine, computing on the CPU.
    pytest.param("cuda", marks=[needs_torch, pytest.mark.torch]),
    pytest.param("cuda-bfloat16", marks=[needs_torch, pytest.mark.torch]),
]


def opened(kind: str, folder: Path) -> Backend:
    name, _, dtype = kind.partition("-")
    if name == "cuda":
        return card_on_the_cpu(folder, dtype or "float32")
    return backends.open(read(folder), name, "cpu", dtype or "auto")


def card_on_the_cpu(folder: Path, dtype: str) -> Backend:
    import torch

    from crossrank.backends.cuda.card import Card
    from crossrank.backends.cuda.devices import DTYPES

    return Card(read(folder), torch.device("cpu"), DTYPES[dtype], rounded=True)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def scorer(kind: str, cross_encoder_folder: Path) -> Backend:
    return opened(kind, cross_encoder_folder)


@pytest.fixture(scope="module")
def embedder(kind: str, bi_encoder_folder: Path) -> Backend:
    return opened(kind, bi_encoder_folder)


LENGTHS = [5, 60, 1, 17, 17, 17, 3, 33, 64, 2]


def test_it_is_a_backend_and_says_what_it_is(scorer: Backend, kind: str) -> None:
    assert isinstance(scorer, Backend)
    assert scorer.name.startswith(kind.partition("-")[0].partition(":")[0])
    assert isinstance(scorer.padded, bool)


def test_order_is_kept_and_alone_equals_in_a_batch(scorer: Backend, kind: str) -> None:
    tokens = tiny.random_tokens(LENGTHS)
    scores = scorer.forward(tokens)
    assert scores.shape == (len(LENGTHS),)
    assert scores.dtype == np.float32
    assert len(set(scores.tolist())) == len(LENGTHS), (
        "different sequences must be told apart for this test to mean much"
    )
    alone = np.concatenate([scorer.forward(tokens.take([i])) for i in range(len(tokens))])
    np.testing.assert_allclose(scores, alone, rtol=0, atol=TOLERANCE[kind])


def test_any_order_of_the_batch_gives_the_same_answers(scorer: Backend, kind: str) -> None:
    tokens = tiny.random_tokens(LENGTHS)
    shuffled = np.random.default_rng(1).permutation(len(LENGTHS))
    np.testing.assert_allclose(
        scorer.forward(tokens.take(shuffled)), scorer.forward(tokens)[shuffled], rtol=0, atol=TOLERANCE[kind]
    )


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling_keeps_order_and_alone_equals_in_a_batch(embedder: Backend, kind: str, pooling: str) -> None:
    tokens = tiny.random_tokens(LENGTHS)
    vectors = embedder.pool(tokens, pooling)
    assert vectors.shape == (len(LENGTHS), tiny.CONFIG["hidden_size"])
    assert vectors.dtype == np.float32
    alone = np.concatenate([embedder.pool(tokens.take([i]), pooling) for i in range(len(tokens))])
    np.testing.assert_allclose(vectors, alone, rtol=0, atol=TOLERANCE[kind])


def test_no_sequences_give_no_answers(scorer: Backend, embedder: Backend) -> None:
    assert scorer.forward(Tokens.of([])).shape == (0,)
    assert embedder.pool(Tokens.of([]), "mean").shape == (0, tiny.CONFIG["hidden_size"])


def test_a_sequence_without_tokens_is_refused(scorer: Backend, embedder: Backend) -> None:
    with pytest.raises(InputError, match="no tokens"):
        scorer.forward(Tokens.of([[2, 3], []]))
    with pytest.raises(InputError, match="no tokens"):
        embedder.pool(Tokens.of([[]]), "cls")


def test_many_more_tokens_than_one_unit(scorer: Backend, kind: str) -> None:
    lengths = (np.arange(300) % 64 + 1).tolist()
    tokens = tiny.random_tokens(lengths)
    scores = scorer.forward(tokens)
    some = [0, 77, 150, 299]
    alone = np.concatenate([scorer.forward(tokens.take([i])) for i in some])
    np.testing.assert_allclose(scores[some], alone, rtol=0, atol=TOLERANCE[kind])


def test_the_tokens_are_not_changed(scorer: Backend, embedder: Backend) -> None:
    tokens = tiny.random_tokens(LENGTHS)
    before = [tokens.ids.copy(), tokens.types.copy(), tokens.offsets.copy()]
    scorer.forward(tokens)
    embedder.pool(tokens, "mean")
    for was, now in zip(before, [tokens.ids, tokens.types, tokens.offsets], strict=True):
        np.testing.assert_array_equal(was, now)


def test_sixteen_threads_give_the_single_threaded_answers(scorer: Backend, embedder: Backend) -> None:
    batches = [tiny.random_tokens([3 + i % 60, 40, 7 * (1 + i % 8)], seed=i) for i in range(64)]
    scores = [scorer.forward(batch) for batch in batches]
    vectors = [embedder.pool(batch, "mean") for batch in batches]
    with ThreadPoolExecutor(16) as pool:
        threaded = list(pool.map(scorer.forward, batches))
        pooled = list(pool.map(lambda batch: embedder.pool(batch, "mean"), batches))
    for one, many in zip(scores + vectors, threaded + pooled, strict=True):
        np.testing.assert_array_equal(one, many)


def test_another_pooling_is_refused(embedder: Backend) -> None:
    with pytest.raises(InputError, match="pooling"):
        embedder.pool(tiny.random_tokens([4]), "max")  # type: ignore[arg-type]


def test_what_the_model_has_no_row_for_is_refused(scorer: Backend, kind: str) -> None:
    if kind == "fake":
        pytest.skip("the fake has no tables")
    with pytest.raises(InputError, match="at most 64"):
        scorer.forward(tiny.random_tokens([65]))
    with pytest.raises(InputError, match="token ids must lie in"):
        scorer.forward(Tokens.of([[2, tiny.CONFIG["vocab_size"]]]))
    with pytest.raises(InputError, match="token ids must lie in"):
        scorer.forward(Tokens.of([[2, -1]]))
    with pytest.raises(InputError, match="token types must lie in"):
        scorer.forward(Tokens.of([[2, 3]], [[0, 2]]))


def test_a_config_that_states_no_types_means_two(tmp_path: Path, kind: str) -> None:
    if kind == "fake":
        pytest.skip("the fake has no tables")
    folder = tiny.cross_encoder(tmp_path / "model")
    stated = json.loads((folder / "config.json").read_text())
    del stated["type_vocab_size"]
    (folder / "config.json").write_text(json.dumps(stated))
    scorer = opened(kind, folder)
    assert scorer.forward(Tokens.of([[2, 3]], [[0, 1]])).shape == (1,)
    for wrong in (2, 5000, -1):
        with pytest.raises(InputError, match="token types must lie in"):
            scorer.forward(Tokens.of([[2, 3]], [[0, wrong]]))


def test_a_bi_encoder_does_not_score(embedder: Backend, kind: str) -> None:
    if kind == "fake":
        pytest.skip("the fake has no head")
    with pytest.raises(CheckpointError, match="newly initialised"):
        embedder.forward(tiny.random_tokens([4]))


def test_nan_weights_give_nan_without_a_warning(tmp_path: Path, kind: str) -> None:
    if kind == "fake":
        pytest.skip("the fake has no weights")
    folder = tiny.cross_encoder(tmp_path)
    tensors = tiny.weights(tiny.CONFIG, 1)
    tensors["classifier.bias"][:] = np.nan
    tiny.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert np.isnan(opened(kind, folder).forward(tiny.random_tokens([4, 9]))).all()
