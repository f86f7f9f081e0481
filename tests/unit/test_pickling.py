"""A scorer goes into other processes and is copied: it opens its model again, or is the same."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import crossrank
import tiny
from crossrank.backends import cpu
from crossrank.types import Tokens

QUERY = "what is the capital of france?"
# The second spells a special token, which a tokenizer that was pickled alone would read as one.
PAIRS = [(QUERY, "paris is the capital."), (QUERY, "paris [SEP] bread"), (QUERY, "")]
native = pytest.mark.skipif(not cpu.tiers(), reason="the native library is not built")


@pytest.mark.parametrize("backend", ["auto", "reference", "fake"])
def test_a_scorer_scores_in_another_process(cross_encoder_folder: Path, backend: str) -> None:
    scorer = crossrank.load(cross_encoder_folder, backend=backend, threads=1, max_length=40)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(scorer.score, PAIRS).result(timeout=120)
    assert found.tolist() == scorer.score(PAIRS).tolist()


@native
def test_a_pickle_is_small_and_opens_the_model_as_it_was_asked_for(cross_encoder_folder: Path, tmp_path: Path) -> None:
    folder = tiny.cross_encoder(tmp_path / "model", hidden_size=256, intermediate_size=1024)
    weights = (folder / "model.safetensors").stat().st_size
    for backend in ("cpu:portable", "reference"):
        scorer = crossrank.load(folder, backend=backend, max_length=40)
        pickled = pickle.dumps(scorer)
        assert len(pickled) < weights / 10
        again = pickle.loads(pickled)
        assert again.identity == scorer.identity
        assert again.score(PAIRS).tolist() == scorer.score(PAIRS).tolist()


def test_everything_that_loads_a_model_can_be_pickled(
    cross_encoder_folder: Path, bi_encoder_folder: Path, tmp_path: Path
) -> None:
    late = crossrank.load_late(tiny.late(tmp_path / "late"))
    assert pickle.loads(pickle.dumps(late)).score(PAIRS).tolist() == late.score(PAIRS).tolist()
    embedder = crossrank.load_embedder(bi_encoder_folder)
    texts = [text for _, text in PAIRS]
    assert pickle.loads(pickle.dumps(embedder)).embed(texts).tolist() == embedder.embed(texts).tolist()
    cached = crossrank.CachedScorer(crossrank.load(cross_encoder_folder), tmp_path / "scores", most=7)
    wanted = cached.score(PAIRS).tolist()
    again = pickle.loads(pickle.dumps(cached)).scored(PAIRS)
    assert (again.scores.tolist(), again.cached) == (wanted, 2)


@native
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_outlives_its_original(cross_encoder_folder: Path, copied: object) -> None:
    """The copy of a backend had the engine of one that was freed: a segmentation fault."""
    tokens = Tokens.of([[2, 7, 3, 8, 3]])
    scorer = crossrank.load(cross_encoder_folder, backend="cpu")
    wanted = scorer.backend.forward(tokens).tolist()
    again, backend = copied(scorer), copied(scorer.backend)  # type: ignore[operator]
    scores = scorer.score(PAIRS).tolist()
    del scorer
    gc.collect()
    np.ones(1_000_000)
    assert backend.forward(tokens).tolist() == wanted
    assert again.score(PAIRS).tolist() == scores
