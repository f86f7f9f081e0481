"""Scores do not depend on how a list is sliced, nor on whether passages come as texts or as token ids."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import crossrank
import spies
import tiny
from crossrank import checkpoint, crossencoder
from crossrank.backends.cpu import Native, library
from crossrank.checkpoint import vocabulary
from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError, ScoreError
from crossrank.scored import Scored
from crossrank.types import Backend, Passage, Pooling, Tokens

WORDS = ["the", "what", "capital", "france", "paris", "bread", "yeast", "cat", "planet", "a1-b"]
SOURCE = Path(__file__).resolve().parents[2] / "src"


def text(rng: np.random.Generator, most: int) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(0, most)))


@pytest.fixture
def pairs() -> list[tuple[str, str]]:
    """Many queries, some cut; blank, repeated, short and windowed passages."""
    rng = np.random.default_rng(0)
    queries = ["what is the capital", "cat " * 50, *(f"the {text(rng, 5)}" for _ in range(10))]
    passages = [*(text(rng, 20) for _ in range(30)), *(text(rng, 400) for _ in range(10)), "", " "]
    made = [(str(rng.choice(queries)), str(rng.choice(passages))) for _ in range(150)]
    return [*made, *made[:20]]


@pytest.fixture
def scorer(cross_encoder_folder: Path) -> CrossEncoder:
    return crossrank.load(cross_encoder_folder, backend="fake", window=20, overlap=5, max_windows=6)


def narrow(monkeypatch: pytest.MonkeyPatch, first: int = 200, most: int = 500) -> None:
    monkeypatch.setattr(crossencoder, "FIRST_SLICE", first)
    monkeypatch.setattr(crossencoder, "SLICE", most)


class Seen:
    """A backend that notes how it was called, and may fail."""

    padded = False
    name = "seen"

    def __init__(self, inner: Backend, fail_after: int | None = None, value: float | None = None) -> None:
        self.inner, self.fail_after, self.value = inner, fail_after, value
        self.tokens: list[int] = []
        self.threads: set[str] = set()

    def forward(self, tokens: Tokens) -> NDArray[np.float32]:
        self.threads |= {thread.name for thread in threading.enumerate()}
        self.tokens.append(int(tokens.offsets[-1]))
        scores = self.inner.forward(tokens)
        if self.fail_after is not None and len(self.tokens) > self.fail_after:
            if self.value is None:
                raise RuntimeError("the backend failed")
            scores[0] = self.value
        return scores

    def pool(self, tokens: Tokens, pooling: Pooling) -> NDArray[np.float32]:
        return self.inner.pool(tokens, pooling)


def lookaheads(names: set[str]) -> list[str]:
    return [name for name in names if name.startswith("crossrank-lookahead")]


def alive() -> list[str]:
    return lookaheads({thread.name for thread in threading.enumerate()})


def test_slices_change_nothing(
    scorer: CrossEncoder, pairs: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scorer.scored(pairs)
    assert {cut.position < 0 for cut in whole.truncations} == {True, False}
    narrow(monkeypatch)
    scorer.backend = seen = Seen(scorer.backend)
    sliced = scorer.scored(pairs)
    np.testing.assert_array_equal(sliced.scores, whole.scores)
    assert sliced.truncations == whole.truncations
    assert sliced.tokens == whole.tokens == sum(seen.tokens)
    assert len(seen.tokens) > 20
    assert lookaheads(seen.threads)
    assert not alive()


def test_slices_change_a_real_model_by_rounding_only(
    cross_encoder_folder: Path, pairs: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = crossrank.load(cross_encoder_folder, backend="reference")
    whole = scorer.score(pairs)
    narrow(monkeypatch)
    np.testing.assert_allclose(scorer.score(pairs), whole, atol=2e-5)


def test_equal_pairs_of_different_slices_are_scored_once(scorer: CrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch, 10, 10)
    scorer.backend = seen = Seen(scorer.backend)
    pairs = [("what", f"cat {number % 7}") for number in range(70)]
    scores = scorer.score(pairs)
    assert len(seen.tokens) == 7
    assert [scores[number] for number in range(70)] == [scores[number % 7] for number in range(70)]


def test_a_short_list_starts_no_thread(scorer: CrossEncoder) -> None:
    scorer.backend = seen = Seen(scorer.backend)
    scorer.score([("what", f"the planet {number}") for number in range(100)])
    assert not lookaheads(seen.threads)


def test_each_query_is_tokenized_once_over_all_slices(scorer: CrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow(monkeypatch, 20, 20)
    spy = spies.Counting(scorer._encoder._ids)
    monkeypatch.setattr(scorer._encoder, "_ids", spy)
    scorer.score([(f"what {number % 3}", f"cat {number}") for number in range(60)])
    assert len(spy.texts) == len(set(spy.texts)) == 63


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_failure_leaves_no_thread(
    scorer: CrossEncoder, pairs: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, value: float | None
) -> None:
    narrow(monkeypatch)
    scorer.backend = Seen(scorer.backend, fail_after=2, value=value)
    with pytest.raises(RuntimeError if value is None else ScoreError) as caught:
        scorer.score(pairs)
    # While somebody still holds the exception, and with it every frame that it went through.
    assert not alive(), caught


def test_a_failure_in_the_thread_is_the_callers(
    scorer: CrossEncoder, pairs: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch)
    real, calls = scorer._encoder.encode, []

    def encode(*args: object) -> object:
        calls.append(threading.current_thread().name)
        if len(calls) == 4:
            raise MemoryError("of the tokenizer")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(scorer._encoder, "encode", encode)
    with pytest.raises(MemoryError, match="of the tokenizer"):
        scorer.score(pairs)
    assert calls[3].startswith("crossrank-lookahead")
    assert not alive()


# Passages as token ids.


def ids_of(scorer: CrossEncoder, passages: list[str]) -> Tokens:
    tokenizer = vocabulary.plain(scorer.checkpoint.tokenizer())
    assert vocabulary.fingerprint(tokenizer) == scorer.tokenizer
    return Tokens.of([tokenizer.encode(passage, add_special_tokens=False).ids for passage in passages])


@pytest.mark.parametrize("sliced", [False, True])
def test_token_ids_give_the_scores_of_their_texts(
    scorer: CrossEncoder, pairs: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, sliced: bool
) -> None:
    pairs = [pair for pair in pairs if pair[1].strip()]
    want = scorer.scored(pairs)
    if sliced:
        narrow(monkeypatch)
    got = scorer.scored_tokens([query for query, _ in pairs], ids_of(scorer, [passage for _, passage in pairs]))
    np.testing.assert_array_equal(got.scores, want.scores)
    assert got.truncations == want.truncations
    assert got.tokens == want.tokens
    assert not alive()


def test_token_ids_are_not_tokenized(scorer: CrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    passages = ids_of(scorer, ["cat", "bread", "cat"])
    spy = spies.Counting(scorer._encoder._ids)
    monkeypatch.setattr(scorer._encoder, "_ids", spy)
    scores = scorer.scored_tokens(["what"] * 3, passages).scores
    assert spy.texts == ["what"]
    assert scores[0] == scores[2] != scores[1]


def test_what_scored_tokens_refuses(scorer: CrossEncoder) -> None:
    two = Tokens.of([[5], [6]])
    with pytest.raises(InputError, match="one query for each of the 2 passages"):
        scorer.scored_tokens(["what"], two)
    with pytest.raises(InputError, match="one query"):
        scorer.scored_tokens("ab", two)
    with pytest.raises(InputError, match="not a string"):
        scorer.scored_tokens(["what", ["what"]], two)  # type: ignore[list-item]
    with pytest.raises(InputError, match="empty"):
        scorer.scored_tokens(["what", " "], two)
    assert len(scorer.scored_tokens([], Tokens.of([])).scores) == 0


@pytest.mark.parametrize(
    ("kind", "load"),
    [
        (crossrank.CrossEncoder, "load"),
        (crossrank.TextEmbedder, "load_embedder"),
        (crossrank.LateInteraction, "load_late"),
    ],
)
def test_a_model_made_of_its_name_says_how_it_is_loaded(kind: Any, load: str, cross_encoder_folder: Path) -> None:
    with pytest.raises(InputError, match=rf"not of str; use crossrank\.{load}\('small'\)"):
        kind("small")
    with pytest.raises(InputError, match=rf"use crossrank\.{load}\('{cross_encoder_folder}'\)"):
        kind(cross_encoder_folder)
    with pytest.raises(InputError, match=rf"not of NoneType; use crossrank\.{load}\(name\)"):
        kind(None)


def test_a_checkpoint_alone_is_enough(cross_encoder_folder: Path) -> None:
    made, loaded = CrossEncoder(checkpoint.read(cross_encoder_folder)), crossrank.load(cross_encoder_folder)
    assert made.backend is loaded.backend


@pytest.mark.parametrize("how", ["text", "ids"])
def test_where_the_first_window_counts_no_other_is_read(cross_encoder_folder: Path, how: str) -> None:
    def scored(**windows: Any) -> crossencoder.Scored:
        read = crossrank.load(cross_encoder_folder, backend="fake", window=20, overlap=5, **windows)
        if how == "ids":
            return read.scored_tokens(["what"] * 2, ids_of(read, texts))
        return read.scored([("what", text) for text in texts])

    texts = ["the cat " * 100, "bread"]
    first, one = scored(fold="first"), scored(max_windows=1)
    np.testing.assert_array_equal(first.scores, one.scores)
    assert first.tokens == one.tokens < scored().tokens
    assert first.truncations == one.truncations
    (cut,) = first.truncations
    assert (cut.read, cut.windows, cut.lost) == (20, 1, True)


def test_what_is_not_read_of_a_passage_costs_nothing(cross_encoder_folder: Path) -> None:
    first = crossrank.load(cross_encoder_folder, backend="fake", window=20, overlap=5, fold="first")
    lengths, counts = first.sequence_lengths("what", np.array([5, 300]))
    assert counts.tolist() == [1, 1]
    assert len(lengths) == 2
    whole = crossrank.load(cross_encoder_folder, backend="fake", window=20, overlap=5)
    (short, long), (_, all_of_it) = (made._costs([(4, 20), (4, 1_000_000)]) for made in (first, whole))
    assert short < long < all_of_it / 20


def test_progress_ends_with_all_pairs(scorer: CrossEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    narrow(monkeypatch)
    texts = [f"the cat {number} {'bread ' * number}" for number in range(30)]
    pairs = [("what", text) for text in texts]
    cached = crossrank.CachedScorer(scorer, tmp_path / "scores")
    seen: list[tuple[int, int]] = []

    def told(*now: int) -> None:
        seen.append(now)  # type: ignore[arg-type]

    for model in (scorer, cached):
        seen.clear()
        model.score([*pairs, *pairs, ("what", "")], progress=told)
        assert seen == sorted(seen)
        assert len(seen) > 3
        assert seen[-1] == (30, 30)
    for documents, last in ((texts, 30), ([*texts, "", "a hat"], 31), (["", " "], 0), (["\u200b"], 1)):
        for model in (scorer, cached, crossrank.CachedScorer(cached, tmp_path / "more")):
            seen.clear()
            model.rank("what", documents, progress=told)
            assert seen[-1] == (last, last)


def test_a_class_of_the_users_need_not_tell_progress(scorer: CrossEncoder, tmp_path: Path) -> None:
    class Mine(CrossEncoder):
        def scored(self, pairs: Any) -> Scored:  # type: ignore[override]
            return super().scored(pairs)

    mine = Mine(scorer.checkpoint, scorer.backend)
    pairs = [("what", "the cat")]
    want = scorer.score(pairs)
    assert mine.score(pairs) == want
    assert mine.rank("what", ["the cat"]).scores == want
    assert crossrank.CachedScorer(mine, tmp_path / "scores").score(pairs) == want


def test_a_calibration_is_what_probabilities_rest_on_and_stays(cross_encoder_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    base = tiny.cross_encoder(tmp_path / "base")
    tiny.write_json(base / "crossrank.json", {"calibration": {"slope": 1.0, "intercept": 0.0}, "threshold": 0.3})
    # Numbers of NumPy must not fail when the folder is half written.
    platt = crossrank.Platt(np.float32(2), np.int64(-1))  # type: ignore[arg-type]
    scorer = crossrank.load(base, backend="fake", calibration=platt)
    assert scorer.calibrated
    assert scorer.threshold is None, "it was chosen for other probabilities"
    scores = np.float32([-1, 0.5, 3])
    np.testing.assert_array_equal(scorer.probability(scores), platt.probability(scores))
    assert scorer.backend is crossrank.load(base, backend="fake").backend
    checkpoint.export(scorer.checkpoint, tmp_path / "copy")
    again = crossrank.load(tmp_path / "copy", backend="fake")
    np.testing.assert_array_equal(again.probability(scores), platt.probability(scores))
    same = crossrank.load(base, backend="fake", calibration={"slope": 2.0, "intercept": -1.0})
    np.testing.assert_array_equal(same.probability(scores), platt.probability(scores))
    for wrong in ({"slope": 2.0}, {"slope": "2", "intercept": 0.0}, 2.0, [2.0, -1.0]):
        with pytest.raises(InputError, match="a calibration"):
            crossrank.load(base, calibration=wrong)  # type: ignore[arg-type]


# What can be asked.

UNSEEN = ["\u200b", "\ufeff", "\0", "\u00ad", "\u2060", "\x07", " \u200b\t"]


def test_a_document_without_any_token_is_blank_however_it_comes(scorer: CrossEncoder) -> None:
    texts = ["bread", *UNSEEN, "cat " * 400, "", "paris"]
    ranked = scorer.rank("what is the capital", texts)
    blank = [*range(1, len(UNSEEN) + 1), len(texts) - 2]
    assert ranked.positions[-len(blank) :] == tuple(blank)
    assert np.isneginf(ranked.scores[-len(blank) :]).all()
    assert np.isfinite(ranked.scores[: -len(blank)]).all()
    pairs = [("what is the capital", text) for text in texts]
    found, known = scorer.scored(pairs), scorer.scored_tokens([query for query, _ in pairs], ids_of(scorer, texts))
    np.testing.assert_array_equal(found.scores, known.scores)
    assert found.truncations == known.truncations
    # No model reads them.
    filled = [pair for row, pair in enumerate(pairs) if row not in blank]
    assert found.tokens == known.tokens == scorer.scored(filled).tokens
    assert np.isneginf(scorer.score([("what", "\u200b")])).all()


@pytest.mark.parametrize("query", [*UNSEEN, "\ufe0f", "", " "])
def test_a_query_without_any_token_is_refused(scorer: CrossEncoder, query: str) -> None:
    for documents in (["bread"], [""], ["\u200b"]):
        with pytest.raises(InputError, match="the query is empty"):
            scorer.rank(query, documents)
        with pytest.raises(InputError, match="the query is empty"):
            scorer.score([("what", "bread"), *((query, document) for document in documents)])
    with pytest.raises(InputError, match="the query is empty"):
        scorer.scored_tokens(["what", query], Tokens.of([[5], [6]]))


def test_any_iterable_is_a_list(scorer: CrossEncoder) -> None:
    pairs = [("what", "bread"), ("what", "a cat. The bread."), ("cat", "paris")]
    want = scorer.score(pairs)
    for given in (
        iter(pairs),
        map(list, pairs),
        (pair for pair in pairs),
        [list(pair) for pair in pairs],
        tuple(pairs),
    ):
        np.testing.assert_array_equal(scorer.score(given), want)
    texts = [text for _, text in pairs]
    ranked = scorer.rank("what", texts, evidence=True)
    again = scorer.rank("what", iter(texts), evidence=True)
    assert (again.positions, again.evidence) == (ranked.positions, ranked.evidence)
    passages = ids_of(scorer, texts)
    np.testing.assert_array_equal(scorer.scored_tokens((query for query, _ in pairs), passages).scores, want)


@pytest.mark.parametrize(
    "bad",
    [
        "what",
        None,
        5,
        [None],
        ["ab"],
        [("what",)],
        [("what", "a", "b")],
        [("what", None)],
        [(["what"], "bread")],
        [{"q", "p"}],
    ],
)
def test_what_score_refuses(scorer: CrossEncoder, bad: object) -> None:
    with pytest.raises(InputError, match=r"pair|string"):
        scorer.score(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", ["bread", None, 5, b"bread", {"id": "bread"}])
def test_what_rank_refuses(scorer: CrossEncoder, bad: object) -> None:
    with pytest.raises(InputError, match="rank takes a list of documents"):
        scorer.rank("what", bad)  # type: ignore[arg-type]


# Memory.

PEAK = """
import sys
import crossrank

def status(field):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(field))

count, words = int(sys.argv[2]), int(sys.argv[3])
scorer = crossrank.load(sys.argv[1], backend="fake")
pairs = [("what is the capital", f"{number} " + "paris " * words) for number in range(count)]
scorer.score(pairs[:1])
before = status("VmRSS")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the high-water mark starts again here
scored = scorer.scored(pairs)
print(scored.tokens, status("VmHWM") - before)
"""


def peak(folder: Path, count: int, words: int) -> tuple[int, float]:
    """Tokens read, and megabytes above what was there before the call."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the system does not tell the peak of its memory")
    command = [sys.executable, "-c", PEAK, str(folder), str(count), str(words)]
    ran = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(SOURCE)}, check=False)
    assert ran.returncode == 0, ran.stderr
    tokens, megabytes = ran.stdout.split()
    return int(tokens), float(megabytes)


@pytest.fixture
def long_reader(tmp_path: Path) -> Path:
    """A model that reads 512 tokens."""
    folder = tiny.cross_encoder(tmp_path / "long", max_position_embeddings=512)
    stated = (folder / "tokenizer_config.json").read_text().replace('"model_max_length": 60', '"model_max_length": 512')
    (folder / "tokenizer_config.json").write_text(stated)
    return folder


@pytest.mark.slow
def test_ten_thousand_pairs_of_512_tokens_need_less_than_400_mb(long_reader: Path) -> None:
    tokens, megabytes = peak(long_reader, 10_000, 500)
    assert tokens > 10_000 * 505
    assert megabytes < 400


def test_memory_does_not_grow_with_the_list(long_reader: Path) -> None:
    # Without slices these took 12 and 46 MB, and the 10,000 pairs above 425.
    small, large = (peak(long_reader, count, 250)[1] for count in (500, 2_000))
    assert large < small + 15


@pytest.mark.skipif(library.obstacle() is not None, reason=f"no native library: {library.obstacle()}")
def test_threads_reach_the_native_engine_and_change_no_score(
    cross_encoder_folder: Path, bi_encoder_folder: Path, pairs: list[tuple[str, str]]
) -> None:
    one, three = (crossrank.load(cross_encoder_folder, backend="cpu", threads=threads) for threads in (1, 3))
    assert isinstance(one.backend, Native)
    assert isinstance(three.backend, Native)
    assert (one.backend.threads, three.backend.threads) == (1, 3)
    np.testing.assert_array_equal(one.score(pairs), three.score(pairs))
    embedder = crossrank.load_embedder(bi_encoder_folder, backend="cpu", threads=2)
    assert isinstance(embedder.backend, Native)
    assert embedder.backend.threads == 2
    with pytest.raises(InputError, match="threads must be from 1 to 1024, not 0"):
        crossrank.load(cross_encoder_folder, backend="cpu", threads=0)


def test_options_that_are_no_whole_numbers_are_refused_at_once(cross_encoder_folder: Path) -> None:
    """os.cpu_count() / 2 is a float: `load` took it, and scoring failed in ctypes."""
    wrong: list[dict[str, Any]] = [{"threads": 2.0}, {"threads": "2"}, {"max_length": 64.0}, {"window": 9.5},
                                   {"overlap": 1.0}, {"max_windows": True}]  # fmt: skip
    for options in wrong:
        with pytest.raises(InputError, match="whole number"):
            crossrank.load(cross_encoder_folder, **{"backend": "cpu", **options})
    for options in ({"device": None}, {"backend": None}):
        with pytest.raises(InputError, match="must be one of"):
            crossrank.load(cross_encoder_folder, **options)  # type: ignore[arg-type]
    assert crossrank.load(cross_encoder_folder, backend="cpu", threads=np.int64(1)).score([("a", "b")]).shape == (1,)  # type: ignore[arg-type]


def test_options_beyond_32_bits_are_refused_at_once(cross_encoder_folder: Path) -> None:
    """Scoring failed in NumPy by a window that no array counts."""
    for name in ("window", "overlap", "max_windows", "max_length", "threads"):
        options: dict[str, Any] = {"backend": "fake", name: 10**20}
        with pytest.raises(InputError, match="must be less than 2,147,483,648, not 1000000"):
            crossrank.load(cross_encoder_folder, **options)
    largest = crossrank.load(cross_encoder_folder, backend="fake", window=2**31 - 1, max_windows=2**31 - 1)
    assert largest.scored([("a", "tea " * 1_000)]).scores.shape == (1,)


def test_rank_leaves_out_what_is_less_probable_than_a_threshold() -> None:
    scorer = crossrank.load()
    documents = ["Bread needs yeast.", "", "Paris is the capital of France.", "Tea is hot."]
    whole = scorer.rank("What is the capital of France?", documents)
    assert whole.note == ""
    for threshold in (0.5, "model"):
        left = scorer.rank("What is the capital of France?", documents, threshold=threshold, evidence=True)
        assert (left.positions, left.scores.tolist()) == ((2,), whole.scores[:1].tolist())
        assert len(left.evidence) == 1
        assert left.note.startswith("left out: 3 passages under the threshold of 0.")
    assert len(scorer.rank("What is the capital of France?", documents, threshold=0.0)) == 4
    assert len(scorer.rank("What is the capital of France?", [], threshold=0.5)) == 0
    nothing = scorer.rank("How are bicycles repaired?", documents, threshold=0.5)
    assert (nothing.positions, nothing.scores.shape) == ((), (0,))
    assert nothing.note.startswith("nothing reaches the threshold: the best passage has a probability of 0.")


def test_what_a_threshold_leaves_out_is_said_beside_what_the_model_cannot_read() -> None:
    scorer, query = crossrank.load(), "フランスの首都は？"
    caution = scorer.rank(query, ["Bread needs yeast."]).note
    assert caution
    said = scorer.rank(query, ["Bread needs yeast."], threshold=1.0).note
    assert said.startswith(f"{caution}; nothing reaches the threshold")


def test_rank_refuses_a_threshold_without_probabilities(plain_folder: Path) -> None:
    plain = crossrank.load(plain_folder, backend="fake")
    for scorer, said in ((plain, "uncalibrated logits"), (crossrank.load_late(), "no probabilities")):
        with pytest.raises(InputError, match=said):
            scorer.rank("q", ["a"], threshold=0.5)
    with pytest.raises(InputError, match="from 0 to 1"):
        crossrank.load().rank("q", ["a"], threshold=50)
    with pytest.raises(InputError, match="no threshold of its own"):
        crossrank.load(calibration={"slope": 1, "intercept": 0}).rank("q", ["a"], threshold="model")


def test_rank_and_score_read_the_title_of_a_passage() -> None:
    given = Passage("a", "It has two million inhabitants. Bread is sold.", title="Paris")
    for scorer in (crossrank.load(), crossrank.load_late()):
        ranked = scorer.rank("How large is Paris?", [given, "Tea is hot."])
        assert (
            ranked.scores.tolist()
            == scorer.rank("How large is Paris?", [given.scored_text, "Tea is hot."]).scores.tolist()
        )
        # Not to the bit: NumPy multiplies by the late model's map, and rounds by how many rows there are (AVX2, Zen 3).
        assert scorer.score([("How large is Paris?", given)]).tolist() == pytest.approx(ranked.scores[:1], rel=1e-6)
    (evidence,) = crossrank.load().rank("How large is Paris?", [given], evidence=True).evidence
    assert evidence is not None
    # Spans lie in the passage's text, as everywhere.
    assert given.text[evidence.start : evidence.stop] == "It has two million inhabitants."


@pytest.mark.parametrize(
    ("document", "cure"),
    [({"text": "Tea."}, r'\[d\["text"\] for d'), ({"content": "Tea."}, r'\[d\["content"\] for d'),
     ({"x": 1}, r'd\["text"\]'), (SimpleNamespace(page_content="Tea."), r"\[d.page_content for d")],
)  # fmt: skip
def test_rows_and_objects_are_refused_with_the_way_to_their_texts(document: object, cure: str) -> None:
    scorer = crossrank.load()
    for ask in (lambda: scorer.rank("tea?", [document]), lambda: scorer.score([("tea?", document)])):
        with pytest.raises(InputError, match=f"document 0 is .*not a string: pass texts, such as .*{cure}.*positions"):
            ask()
