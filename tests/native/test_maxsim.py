"""MaxSim against its formula, and attention that does not see the masks of a query expansion, in every tier."""

from __future__ import annotations

import numpy as np
import pytest

import tiny
from crossrank import backends, checkpoint
from crossrank.backends import cpu
from crossrank.backends.maxsim import formula, maxsim
from crossrank.errors import InputError
from crossrank.tokenvectors import TokenVectors


def unit(rng, tokens, width):
    made = rng.standard_normal((tokens, width)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.mark.parametrize("tier", cpu.tiers())
@pytest.mark.parametrize(("tokens", "width"), [(1, 1), (5, 96), (32, 128), (33, 64), (48, 7)])
def test_every_tier_computes_the_formula_of_the_paper(tier, tokens, width):
    rng = np.random.default_rng(tokens * width)
    query = unit(rng, tokens, width)
    documents = [unit(rng, int(length), width) for length in rng.integers(1, 70, 40)]
    packed = TokenVectors.of(documents)
    scores = cpu.maxsim(query, packed.vectors, packed.offsets, tier=tier, threads=2)
    np.testing.assert_allclose(scores, [formula(query, document) for document in documents], atol=1e-4, rtol=0)
    # Alone as among others, to the bit, with any number of threads.
    alone = [
        cpu.maxsim(query, document, np.array([0, len(document)]), tier=tier, threads=1)[0] for document in documents
    ]
    np.testing.assert_array_equal(scores, alone)


def test_an_unknown_tier_is_named_with_those_there_are():
    with pytest.raises(InputError, match=r"has no tier 'avx9'; it has portable"):
        cpu.maxsim(np.ones((1, 2)), np.ones((1, 2)), np.array([0, 1]), tier="avx9")


def test_numpy_does_as_the_engine(monkeypatch):
    rng = np.random.default_rng(0)
    query = unit(rng, 9, 16)
    documents = TokenVectors.of([unit(rng, 4, 16), np.zeros((0, 16), np.float32), unit(rng, 30, 16), unit(rng, 1, 16)])
    native = maxsim(query, documents)
    monkeypatch.setattr(cpu, "tiers", tuple)
    np.testing.assert_allclose(native, maxsim(query, documents), atol=1e-5)
    assert native[1] == -np.inf
    none = TokenVectors(np.zeros((0, 16), np.float32), np.array([0, 0]))
    assert maxsim(query, none).tolist() == [-np.inf]


def test_half_precision_is_compared_in_single():
    rng = np.random.default_rng(0)
    query, document = unit(rng, 9, 16), unit(rng, 20, 16).astype(np.float16)
    [score] = maxsim(query, TokenVectors.of([document]))
    assert score == pytest.approx(formula(query, document.astype(np.float32)), abs=1e-5)


@pytest.mark.parametrize("tier", cpu.tiers())
def test_every_half_is_widened_exactly(tier):
    """One document for each number there is: denormal ones, zeros and the largest among them."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    query = np.ones((1, 1), np.float32)
    scores = cpu.maxsim(query, finite[:, None], np.arange(len(finite) + 1), tier=tier, threads=2)
    np.testing.assert_array_equal(scores, finite.astype(np.float32))
    rng = np.random.default_rng(0)
    packed = TokenVectors.of([unit(rng, int(length), 17).astype(np.float16) for length in rng.integers(0, 50, 60)])
    query, wide = unit(rng, 9, 17), packed.vectors.astype(np.float32)
    scores = [cpu.maxsim(query, vectors, packed.offsets, tier=tier) for vectors in (packed.vectors, wide)]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("name", ["numpy", *cpu.tiers()])
def test_a_number_that_is_not_finite_spoils_its_document(monkeypatch, kind, name):
    """A maximum passed over NaN: a damaged passage had the score of its other tokens."""
    rng = np.random.default_rng(1)
    documents = [unit(rng, 7, 20).astype(kind) for _ in range(5)]
    documents[1][3, 2], documents[2][:], documents[4][6, 19] = np.nan, -np.inf, np.inf
    packed, query = TokenVectors.of(documents), unit(rng, 3, 20)
    if name == "numpy":
        monkeypatch.setattr(cpu, "tiers", tuple)
        scores = maxsim(query, packed)
    else:
        scores = cpu.maxsim(query, packed.vectors, packed.offsets, tier=name)
    assert np.isnan(scores).tolist() == [False, True, True, False, True]
    assert scores[0] == pytest.approx(formula(query, documents[0].astype(np.float32)), abs=1e-5)


def test_negative_products_have_a_maximum_too():
    assert maxsim(np.float32([[1, 0]]), TokenVectors.of([np.float32([[-1, 0], [-0.5, 0]])])).tolist() == [-0.5]


def test_vectors_that_do_not_fit_are_refused():
    query = np.ones((2, 4), np.float32)
    with pytest.raises(InputError, match="one width"):
        cpu.maxsim(query, np.ones((3, 5), np.float32), np.array([0, 3]))
    for offsets in ([0, 4], [1, 3], [0, 2, 1, 3], [0, 2]):
        with pytest.raises(InputError, match="offsets"):
            cpu.maxsim(query, np.ones((3, 4), np.float32), np.array(offsets))
    # Unsigned ones fell without a negative difference, and the engine read outside.
    with pytest.raises(InputError, match="offsets"):
        cpu.maxsim(query, np.ones((3, 4), np.float32), np.array([0, 10**7, 3], dtype=np.uint64))


@pytest.mark.parametrize("name", ["reference", *(f"cpu:{tier}" for tier in cpu.tiers())])
def test_what_attention_does_not_see_changes_no_other_token(tmp_path, name):
    read = checkpoint.read(tiny.late(tmp_path))
    backend = backends.open(read, name, dtype="float32")
    tokens = tiny.random_tokens([12, 3, 12, 40, 12], types=1)
    seen = np.array([5, 3, 12, 33, 1])
    states = backend.states(tokens, seen)
    for row, count in enumerate(seen):
        begin, end = tokens.offsets[row], tokens.offsets[row + 1]
        alone = tiny.Tokens.of([tokens.row(row)[:count].tolist()])
        np.testing.assert_allclose(states[begin : begin + count], backend.states(alone), atol=2e-5)
        # A token that is not seen sees those that are, at its own place: as if it stood alone behind them.
        if count < end - begin:
            other = tokens.ids.copy()
            other[begin + count : end - 1] = 6
            changed = backend.states(tiny.Tokens(other, tokens.types, tokens.offsets), seen)
            np.testing.assert_array_equal(changed[end - 1], states[end - 1])
    full = backend.states(tokens)
    np.testing.assert_allclose(full[tokens.places([2])], states[tokens.places([2])], atol=2e-5)
    assert not np.allclose(full[tokens.places([0])], states[tokens.places([0])], atol=1e-3)


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize("seen", [[1], [0, 3], [4, 4]])
def test_counts_of_other_sequences_are_refused(tmp_path, name, seen):
    backend = backends.open(checkpoint.read(tiny.late(tmp_path)), name)
    with pytest.raises(InputError, match="seen must say"):
        backend.states(tiny.random_tokens([5, 3]), np.array(seen))
