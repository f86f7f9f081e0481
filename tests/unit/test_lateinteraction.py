"""A late-interaction scorer: what it reads, what it reports, and how it serves as a stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import crossrank
import tiny
from crossrank import backends, checkpoint
from crossrank.backends.maxsim import formula
from crossrank.cascade import Stage, rerank
from crossrank.errors import CheckpointError, InputError, ScoreError
from crossrank.evaluation import candidates
from crossrank.evaluation.reliability import reliability
from crossrank.evaluation.systems import Owners
from crossrank.lateinteraction import LateInteraction
from crossrank.models import catalog
from crossrank.scorers import load_scorer
from crossrank.tokenvectors import TokenVectors
from crossrank.types import Passage, Ranking, Tokens, Truncation

QUERY = "what is the capital of france?"
TEXTS = ["Paris is the capital of France.", "bread needs yeast", "", "the cat, " * 20, "bread needs yeast"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.late(tmp_path_factory.mktemp("late"))


@pytest.fixture(scope="module")
def scorer(folder):
    return crossrank.load_late(folder, dtype="float32")


def test_a_score_is_the_formula_over_its_own_vectors(scorer):
    query = scorer._queries([QUERY])[0][QUERY]
    documents, _ = scorer.encode(TEXTS)
    assert np.linalg.norm(documents.vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    expected = [formula(query, documents.row(i)) if TEXTS[i] else -np.inf for i in range(len(TEXTS))]
    scores = scorer.score([(QUERY, text) for text in TEXTS])
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert scores[1] == scores[4]
    assert scores.dtype == np.float32


def test_a_backend_can_be_replaced(folder):
    """As a cross-encoder's: the one that it had at first went on computing."""
    scorer = crossrank.load_late(folder, backend="reference")
    before = scorer.score([(QUERY, TEXTS[0])])
    scorer.backend = backends.open(scorer.checkpoint, "fake")
    assert "fake" in repr(scorer)
    assert scorer.score([(QUERY, TEXTS[0])]) != before


def test_a_score_does_not_depend_on_the_list(scorer):
    pairs = [(query, text) for query in (QUERY, "bread") for text in TEXTS]
    together = scorer.score(pairs)
    np.testing.assert_allclose(together, [scorer.score([pair])[0] for pair in pairs], atol=1e-5)
    assert scorer.score([]).shape == (0,)


def test_progress_ends_with_all_pairs(scorer, monkeypatch):
    """As of a cross-encoder: never backwards, blank and equal pairs left out, and at its end all of them."""
    monkeypatch.setattr("crossrank.lateinteraction.FIRST_SLICE", 20)
    monkeypatch.setattr("crossrank.lateinteraction.SLICE", 40)
    texts = [f"the cat {number} {'bread ' * number}" for number in range(30)]
    pairs = [(QUERY, text) for text in texts]
    seen = []
    whole = scorer.score([*pairs, *pairs, (QUERY, "")])
    told = scorer.score([*pairs, *pairs, (QUERY, "")], progress=lambda *now: seen.append(now))
    np.testing.assert_array_equal(told, whole)
    assert seen == sorted(seen)
    assert len(seen) > 3
    assert seen[-1] == (30, 30)
    for documents, last in ((texts, 30), ([*texts, "", "a hat"], 31), (["", " "], 0), (["\u200b"], 1)):
        seen.clear()
        scorer.rank(QUERY, documents, progress=lambda *now: seen.append(now))
        assert seen[-1] == (last, last)


def test_long_lists_are_read_in_slices(scorer, monkeypatch):
    pairs = [(query, text) for query in (QUERY, "bread") for text in TEXTS] * 3
    whole = scorer.scored(pairs)
    monkeypatch.setattr("crossrank.lateinteraction.FIRST_SLICE", 20)
    monkeypatch.setattr("crossrank.lateinteraction.SLICE", 40)
    cut = scorer.scored(pairs)
    np.testing.assert_allclose(cut.scores, whole.scores, atol=1e-5)
    assert cut.truncations == whole.truncations
    assert (
        scorer.scored(pairs[:2]).tokens - scorer.scored(pairs[:1]).tokens
        == scorer.sequence_lengths(QUERY, [scorer.count(pairs[1][1])])[0].sum()
    )


def test_what_is_cut_is_reported(scorer):
    ranked = scorer.rank("cat " * 11, TEXTS)
    assert ranked.positions[-1] == 2
    assert ranked.scores[-1] == -np.inf
    assert ranked.truncations == (Truncation(-1, 11, 9, 1), Truncation(3, 60, 21, 1))


def test_ranks_are_cut_to_k_and_ties_keep_their_order(scorer):
    ranked = scorer.rank(QUERY, ["bread", "bread", "paris"], k=2)
    assert len(ranked) == 2
    assert [p for p in ranked.positions if p < 2] == sorted(p for p in ranked.positions if p < 2)


@pytest.mark.parametrize("bad", [(" ", ["a"], None), ("q", "abc", None), ("q", ["a"], 0), ("q", [3], None)])
def test_impossible_requests(scorer, bad):
    with pytest.raises(InputError):
        scorer.rank(*bad)


def test_known_token_ids_score_as_their_texts(scorer):
    plain = scorer.checkpoint.tokenizer()
    filled = [text for text in TEXTS if text]
    ids = Tokens.of([plain.encode(text, add_special_tokens=False).ids for text in filled])
    known, read = scorer.scored_tokens([QUERY] * 4, ids), scorer.scored([(QUERY, text) for text in filled])
    np.testing.assert_allclose(known.scores, read.scores, atol=1e-5)
    assert known.truncations == read.truncations
    lengths, counts = scorer.sequence_lengths(QUERY, ids.lengths)
    assert lengths.tolist() == [min(n, 21) + 3 for n in ids.lengths]
    assert counts.tolist() == [1] * 4
    assert [found.tolist() for found in scorer.sequence_lengths(QUERY, [3, 90])] == [[6, 24], [1, 1]]
    with pytest.raises(InputError, match="NoneType, not a string"):
        scorer.count(None)
    with pytest.raises(InputError, match="one query for each"):
        scorer.scored_tokens([QUERY], ids)


def test_known_vectors_score_as_their_texts(scorer):
    documents, cut = scorer.encode(TEXTS)
    assert [one.position for one in cut] == [3]
    found = scorer.scored_vectors(QUERY, documents)
    np.testing.assert_allclose(found.scores, scorer.score([(QUERY, text) for text in TEXTS]), atol=1e-5)
    half = TokenVectors(documents.vectors.astype(np.float16), documents.offsets)
    np.testing.assert_allclose(scorer.scored_vectors(QUERY, half).scores, found.scores, atol=1e-2)
    assert len(scorer.encode([])[0]) == 0


@pytest.mark.parametrize("unseen", ["\u200b", "\ufeff", "\0", "\u00ad", "\u2060"])
def test_a_text_without_any_token_is_blank(scorer, unseen):
    texts = [unseen, "bread", "", "paris"]
    ranked = scorer.rank(QUERY, texts)
    assert ranked.positions[2:] == (0, 2)
    assert np.isneginf(ranked.scores[2:]).all()
    vectors, _ = scorer.encode(texts)
    assert [len(vectors.row(i)) > 0 for i in range(4)] == [False, True, False, True]
    plain = scorer.checkpoint.tokenizer()
    ids = Tokens.of([plain.encode(text, add_special_tokens=False).ids for text in texts])
    for found in (scorer.scored_vectors(QUERY, vectors), scorer.scored_tokens([QUERY] * 4, ids)):
        np.testing.assert_allclose(found.scores, scorer.score([(QUERY, text) for text in texts]), atol=1e-5)
    for query in (unseen, "\ufe0f"):
        for call in (
            lambda query=query: scorer.rank(query, ["bread"]),
            lambda query=query: scorer.rank(query, [""]),
            lambda query=query: scorer.scored_vectors(query, vectors),
            lambda query=query: scorer.scored_tokens([query] * 4, ids),
        ):
            with pytest.raises(InputError, match="the query is empty"):
                call()


def test_vectors_that_are_not_finite_are_an_error(scorer):
    """NaN was passed over, and the passage kept the score of its other tokens."""
    vectors, _ = scorer.encode(["bread", "the cat"])
    vectors.vectors[len(vectors.row(0)), 0] = np.nan
    with pytest.raises(ScoreError, match="vectors of passage 1 hold NaN or infinity: encode it again"):
        scorer.scored_vectors(QUERY, vectors)


def test_any_iterable_is_a_list(scorer):
    pairs = [(QUERY, text) for text in TEXTS]
    np.testing.assert_array_equal(scorer.score(list(pair) for pair in pairs), scorer.score(pairs))
    assert scorer.rank(QUERY, iter(TEXTS)).positions == scorer.rank(QUERY, TEXTS).positions
    np.testing.assert_array_equal(scorer.encode(iter(TEXTS))[0].offsets, scorer.encode(TEXTS)[0].offsets)
    for bad in ("hello", None, [3]):
        with pytest.raises(InputError, match=r"string|list"):
            scorer.encode(bad)


class Store:
    """An index of vectors, or of vectors of another model."""

    tokenizer = "another"

    def __init__(self, late, vectors):
        self.late, self._vectors, self.asked = late, vectors, []

    def token_vectors(self, ids):
        self.asked.append(tuple(ids))
        return self._vectors.take([int(i) for i in ids])

    def tokens(self, ids):
        raise AssertionError("the tokenizer is another")


def passages(ids):
    return [Passage(i, TEXTS[int(i)]) for i in ids]


def test_a_stage_reads_the_vectors_of_an_index_that_has_them(scorer):
    start = Ranking.sorted(list("01234"), [5, 4, 3, 2, 1])
    store = Store(scorer.fingerprint, scorer.encode(TEXTS)[0])

    def no_texts(ids):
        raise AssertionError("vectors lie ready")

    plain, [told] = rerank(QUERY, start, [Stage(scorer, 4)], passages)
    found, [trace] = rerank(QUERY, start, [Stage(scorer, 4)], no_texts, store)
    assert found.ids == plain.ids
    np.testing.assert_allclose(found.scores, plain.scores, atol=1e-5)
    assert store.asked == [("0", "1", "2", "3")]
    assert (trace.note, told.note) == ("", "")
    assert [cut.position for cut in told.truncations] == [3]
    # Within a time, too.
    late, _ = rerank(QUERY, start, [Stage(scorer, 4)], no_texts, store, deadline=1e9)
    assert late.ids == plain.ids


def test_vectors_of_another_model_are_left_alone(scorer):
    start = Ranking.sorted(list("01234"), [5, 4, 3, 2, 1])
    store = Store("another", scorer.encode(TEXTS)[0])
    found, [trace] = rerank(QUERY, start, [Stage(scorer, 5)], passages, store)
    assert found.ids == rerank(QUERY, start, [Stage(scorer, 5)], passages)[0].ids
    assert store.asked == []
    assert "another tokenizer" in trace.note


def test_it_is_evaluated_as_a_cross_encoder_is(scorer):
    corpus = {str(i): Passage(str(i), text) for i, text in enumerate(TEXTS)}
    run = {"q": Ranking.sorted(list("01234"), [5, 4, 3, 2, 1])}
    read = candidates.read(candidates.given({"q": QUERY}, "bm25", run, corpus), {"late": scorer}, depth=3)["late"]
    expected = scorer.score([(QUERY, text) for text in TEXTS[:3]]).tolist()
    assert list(read.traces["q"].scores.values()) == pytest.approx(expected, abs=1e-5)
    assert reliability(read, {"q": {"0": 1, "1": 0}}, Owners({})) is None


def test_kinds_are_told_apart(folder, cross_encoder_folder, bi_encoder_folder):
    assert isinstance(load_scorer(folder), LateInteraction)
    assert isinstance(load_scorer(cross_encoder_folder), crossrank.CrossEncoder)
    with pytest.raises(CheckpointError, match="no map of token vectors"):
        crossrank.load_late(bi_encoder_folder)
    with pytest.raises(CheckpointError, match=r"crossrank\.load_late"):
        crossrank.load(folder)
    with pytest.raises(CheckpointError, match="not a bi-encoder"):
        crossrank.load_embedder(folder)


def test_a_backend_without_token_vectors_is_refused(folder):
    class Pooling:
        name, padded = "pooling", False

        def forward(self, tokens): ...

        def pool(self, tokens, pooling): ...

    with pytest.raises(InputError, match="gives no token vectors"):
        LateInteraction(checkpoint.read(folder), Pooling())


def test_a_map_of_another_model_is_refused(tmp_path):
    folder = tiny.late(tmp_path)
    tiny.save_file({"linear.weight": np.ones((8, 31), np.float32)}, folder / "1_Dense" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"31.*32 numbers a token"):
        crossrank.load_late(folder)


def test_nan_is_an_error(tmp_path):
    folder = tiny.late(tmp_path)
    tiny.save_file({"linear.weight": np.full((8, 32), np.nan, np.float32)}, folder / "1_Dense" / "model.safetensors")
    with pytest.raises(ScoreError, match="gives NaN"):
        crossrank.load_late(folder).score([("cat", "bread")])


def test_the_fake_backend_finds_equal_words(folder):
    scorer = crossrank.load_late(folder, backend="fake")
    assert scorer.rank("paris", ["bread", "cat paris", "yeast"]).positions[0] == 1


@pytest.mark.skipif(not Path(catalog.locate("late", default="late").source).is_dir(), reason="no model in this tree")
@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_the_model_of_the_wheel_ranks_alike_with_and_without_the_engine(dtype):
    """Both texts about the question come first, whatever computes."""
    query = "What is transformer attention mechanism?"
    texts = [
        "Attention is a key concept in machine learning broadly.",
        "BERT uses transformer architecture for natural language processing.",
        "Recurrent networks are an alternative to transformer-based models.",
        "The attention mechanism in transformer networks scales quadratically.",
        "Transformer attention mechanism is a core component of modern NLP.",
    ]
    wanted = crossrank.load_late("late", backend="reference").rank(query, texts)
    found = crossrank.load_late("late", dtype=dtype).rank(query, texts)
    assert found.positions == wanted.positions
    np.testing.assert_allclose(found.scores, wanted.scores, atol=0.1 if dtype == "auto" else 1e-3)
    assert set(wanted.positions[:2]) == {3, 4}
