"""A cache never changes an answer: same scores to the bit, same reports, whatever happens to the file."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import crossrank
from crossrank.cascade import Stage, rerank
from crossrank.crossencoder import CrossEncoder, Scored
from crossrank.errors import InputError, ScoreError
from crossrank.scorecache import CachedScorer
from crossrank.scorestore import Entry, Store
from crossrank.types import Passage, Ranking, Tokens

QUERY = "what is the capital of france?"
DOCUMENTS = ["paris is the capital.", "bread", "", "bread", "a cat of the planet " * 60, "yeast"]
forked = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")


class Counting(CrossEncoder):
    """A scorer that counts what it computes."""

    def __init__(self, scorer: CrossEncoder) -> None:
        vars(self).update(vars(scorer))
        self.computed = 0
        forward = scorer.backend.forward
        outer = self

        class Spy:
            name, padded = scorer.backend.name, scorer.backend.padded

            def forward(self, tokens: Tokens) -> object:
                outer.computed += len(tokens)
                return forward(tokens)

        self.backend = Spy()  # type: ignore[assignment]


@pytest.fixture
def plain(cross_encoder_folder: Path) -> Counting:
    # A function of the ids: what else is in a batch does not matter, as in the native engine.
    return Counting(crossrank.load(cross_encoder_folder, backend="fake"))


@pytest.fixture
def cached(plain: Counting, tmp_path: Path) -> CachedScorer:
    return CachedScorer(plain, tmp_path / "scores")


def pairs(*documents: str) -> list[tuple[str, str]]:
    return [(QUERY, document) for document in documents]


# Answers ----------------------------------------------------------------------------------------------------------


def test_remembered_scores_and_reports_are_those_of_the_scorer(plain: Counting, cached: CachedScorer) -> None:
    long_query = "is the planet a cat? " * 40
    asked = [*pairs(*DOCUMENTS), *((long_query, document) for document in DOCUMENTS), *pairs("bread", "cat")]
    wanted = plain.scored(asked)
    first = cached.scored(asked)
    again = cached.scored(asked)
    for found in (first, again):
        assert found.scores.tolist() == wanted.scores.tolist()
        assert found.truncations == wanted.truncations
        assert found.note == ""
    assert {cut.position for cut in wanted.truncations} >= {-1, 4}
    assert (first.cached, first.tokens) == (0, wanted.tokens)
    # Blank passages are not scored, so they are not remembered either.
    assert (again.cached, again.tokens) == (len(asked) - 2, 0)


def test_texts_that_are_read_differently_share_no_score(plain: Counting, cached: CachedScorer) -> None:
    asked = pairs("par\ud800is", "par?is", "par\ufffdis", "\u200b", "bread")
    wanted = plain.scored(asked)
    for _ in range(2):
        assert cached.scored(iter(asked)).scores.tolist() == wanted.scores.tolist()
    assert wanted.scores[0] == wanted.scores[2] != wanted.scores[1]
    assert wanted.scores[3] == -np.inf


def test_only_new_pairs_are_computed(plain: Counting, cached: CachedScorer) -> None:
    cached.score(pairs("bread", "paris"))
    before = plain.computed
    found = cached.scored(pairs("cat", "bread", "paris", "cat", "yeast"))
    assert (plain.computed - before, found.cached) == (2, 2)
    assert found.scores.tolist() == plain.score(pairs("cat", "bread", "paris", "cat", "yeast")).tolist()
    assert cached.scored([]).scores.shape == (0,)


def test_a_cascade_uses_it_with_token_ids(plain: Counting, cached: CachedScorer) -> None:
    class Ids:
        tokenizer = plain.tokenizer

        def tokens(self, ids: list[str]) -> Tokens:
            encode = plain.checkpoint.tokenizer().encode
            return Tokens.of([encode(texts[id_], add_special_tokens=False).ids for id_ in ids])

    texts = {"a": "bread", "b": "paris is the capital.", "c": "cat"}
    start = Ranking.sorted(list(texts), [3.0, 2.0, 1.0])

    def passages(ids: object) -> list[Passage]:
        raise AssertionError("a text was read")

    once, traces = rerank(QUERY, start, [Stage(cached)], passages, Ids())
    before = plain.computed
    twice, _ = rerank(QUERY, start, [Stage(cached)], passages, Ids())
    assert plain.computed == before
    assert (once.ids, once.scores.tolist()) == (twice.ids, twice.scores.tolist())
    assert once.ids == rerank(QUERY, start, [Stage(plain)], passages, Ids())[0].ids
    assert traces[0].note == ""


def test_a_class_of_the_users_is_asked_for_its_own_scores(plain: Counting, tmp_path: Path) -> None:
    """The cache computed as a plain `CrossEncoder`, whatever the scorer that it was given does."""

    class Sevens(Counting):
        threshold = 0.7

        def scored(self, asked: Iterable[Sequence[str]]) -> Scored:
            found = super().scored(asked)
            return replace(found, scores=np.full_like(found.scores, 7))

        def probability(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.full_like(scores, 0.5)

    own = Sevens(plain)
    cached = CachedScorer(own, tmp_path / "scores")
    for _ in range(2):
        assert cached.rank(QUERY, ["bread", "cat"]).scores.tolist() == [7, 7]
    assert (cached.threshold, cached.probability(np.float32([1])).tolist()) == (0.7, [0.5])
    # One file serves both, and neither gets the other's scores.
    other = CachedScorer(plain, tmp_path / "scores")
    assert other.scored(pairs("bread")).cached == 0
    assert other.score(pairs("bread")).tolist() == plain.score(pairs("bread")).tolist()


def test_a_cache_of_a_cache_asks_it(plain: Counting, tmp_path: Path) -> None:
    inner = CachedScorer(plain, tmp_path / "inner")
    wanted = inner.score(pairs("bread", "cat"))
    outer = CachedScorer(inner, tmp_path / "outer")
    before = plain.computed
    found = outer.scored(pairs("bread", "cat"))
    assert (found.scores.tolist(), found.cached, plain.computed) == (wanted.tolist(), 2, before)
    assert len(outer.store) == 2
    assert outer.uncached is inner.uncached is plain


def test_rank_says_how_many_were_known(cached: CachedScorer) -> None:
    assert cached.rank(QUERY, DOCUMENTS).cached == 0
    ranked = cached.rank(QUERY, DOCUMENTS, evidence=True)
    assert ranked.cached == len(DOCUMENTS) - 1
    assert len(ranked.evidence) == len(DOCUMENTS)


def test_a_cut_is_told_of_the_text_that_was_cut(plain: Counting, tmp_path: Path) -> None:
    """Whether it was computed now or is remembered: a first passage, and the second of several queries."""
    long, long_query = "a cat of the planet " * 60, "is the planet a cat? " * 40
    lists = [pairs(long), pairs(long, "bread"), [(QUERY, "bread"), (long_query, "bread")]]
    lists.append([(long_query, "bread"), ("cat?", "bread"), ("planet? " * 99, "bread")])
    for number, asked in enumerate(lists):
        cached, wanted = CachedScorer(plain, tmp_path / f"{number}"), plain.scored(asked).truncations
        assert len(wanted) == (2 if len(asked) == 3 else 1)
        assert [cached.scored(asked).truncations for _ in range(2)] == [wanted, wanted]


def test_progress_counts_each_pair_with_text_once(cached: CachedScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossrank.scorecache._AT_ONCE", 2)
    cached.scored(pairs("bread"))
    told: list[tuple[int, int]] = []
    asked = pairs("bread", "", " \n", "cat", "cat", "yeast", "planet")
    cached.scored(asked, progress=lambda done, total: told.append((done, total)))
    assert {total for _, total in told} == {4}
    counts = [done for done, _ in told]
    assert (counts, counts[-1]) == (sorted(counts), 4)
    assert counts[0] == 1, "one is known before the first is computed"
    told.clear()
    cached.scored(pairs("bread", "cat"), progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 2)], "also where nothing is computed"


def test_uses_are_counted_over_all_calls(cached: CachedScorer) -> None:
    for asked in (pairs("bread", " ", "cat"), pairs("bread", ""), pairs("yeast", "yeast")):
        cached.scored(asked)
    assert (cached.uses.asked, cached.uses.known) == (5, 1)


def test_some_of_the_token_ids_are_known(plain: Counting, cached: CachedScorer) -> None:
    passages = Tokens.of([[5, 6], [7], [8, 9]])
    wanted = plain.scored_tokens([QUERY] * 3, passages).scores.tolist()
    cached.scored_tokens([QUERY], passages.take([1]))
    found = cached.scored_tokens([QUERY] * 3, passages)
    assert (found.scores.tolist(), found.cached) == (wanted, 1)


def test_keys_are_of_a_kind_and_long_enough(cached: CachedScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,), (ids,) = (cached._keys(kind, [QUERY], [b"same"]) for kind in (b"text", b"ids"))
    assert text != ids
    assert (len(text), len(ids)) == (16, 16)
    monkeypatch.setattr("crossrank.scorecache._SCORES", 0)
    assert CachedScorer(cached.uncached, cached.store.path)._keys(b"text", [QUERY], [b"same"]) != [text]


def test_a_cache_is_what_its_scorer_is(plain: Counting, tmp_path: Path) -> None:
    inner = CachedScorer(plain, tmp_path / "scores", most=7)
    _, arguments = inner.__reduce__()
    assert arguments == (plain, tmp_path / "scores", 7)
    assert inner.calibrated == plain.calibrated
    # One around it computes the same scores: over the same file it finds them.
    inner.score(pairs("cat"))
    CachedScorer(inner, tmp_path / "scores").score(pairs("cat"))
    assert len(inner.store) == 1


def test_notes_of_both_caches_are_told_once(plain: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossrank.scorecache._AT_ONCE", 1)
    (tmp_path / "file").touch()
    inner = CachedScorer(plain, tmp_path / "file" / "inner")
    note = CachedScorer(inner, tmp_path / "outer").scored(pairs("cat", "bread", "yeast")).note
    assert "inner" in note
    assert len(set(note.split("; "))) == len(note.split("; "))


def test_whatever_changes_scores_is_another_entry(cross_encoder_folder: Path, tmp_path: Path) -> None:
    options = [{}, {"window": 20, "overlap": 5}, {"fold": "mean"}, {"max_length": 20}, {"backend": "fake"}]
    scorers = [crossrank.load(cross_encoder_folder, **{"backend": "reference", **one}) for one in options]  # type: ignore[arg-type]
    for scorer in scorers:
        assert CachedScorer(scorer, tmp_path / "scores").scored(pairs("a cat")).cached == 0
    for scorer in scorers:
        assert CachedScorer(scorer, tmp_path / "scores").scored(pairs("a cat")).cached == 1


def test_bad_input_is_refused_as_without_a_cache(cached: CachedScorer) -> None:
    with pytest.raises(InputError, match="empty"):
        cached.scored([(" ", "text")])
    with pytest.raises(InputError, match="pair"):
        cached.scored(["ab"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="one query"):
        cached.scored_tokens("query", Tokens.of([[1]]))


def test_nan_is_raised_and_not_remembered(cached: CachedScorer) -> None:
    cached.backend.forward = lambda tokens: np.full(len(tokens), np.nan, np.float32)  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(ScoreError, match="NaN"):
            cached.score(pairs("bread"))
    assert len(cached.store) == 0


# The file ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="has no such permissions")
def test_only_the_owner_may_read_it_and_no_text_is_in_it(cached: CachedScorer, tmp_path: Path) -> None:
    cached.score(pairs("bread and yeast"))
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    held = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"bread" not in held
    assert b"capital" not in held


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    now = [1000.0]
    store = Store(tmp_path / "scores", most=100, clock=lambda: now[0])
    for number in range(100):
        store.put({b"%d" % number: Entry(float(number))})
        now[0] += 100
    store.get([b"0", b"1"])
    now[0] += 100
    assert store.put({b"new": Entry(1.0)}) == ""
    assert len(store) == 95
    found, _ = store.get([b"%d" % number for number in range(100)] + [b"new"])
    assert set(found) == {b"0", b"1", b"new", *(b"%d" % number for number in range(8, 100))}
    store.put({b"many %d" % number: Entry(0.0) for number in range(1000)})
    assert len(store) <= 100


def test_a_damaged_file_is_set_aside_and_said(plain: Counting, tmp_path: Path) -> None:
    file = tmp_path / "scores"
    cached = CachedScorer(plain, file)
    cached.score(pairs(*(f"cat {number}" for number in range(500))))
    cached.close()
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    hurt = CachedScorer(plain, file)
    found = hurt.scored(pairs("cat 1", "cat 2"))
    assert "was damaged" in found.note
    assert "scores.damaged-1" in found.note
    assert found.scores.tolist() == plain.score(pairs("cat 1", "cat 2")).tolist()
    assert (tmp_path / "scores.damaged-1").exists()
    later = [hurt.scored(pairs("cat 1", "cat 2")) for _ in range(2)][-1]
    assert (later.note, later.cached) == ("", 2)


def test_a_row_that_is_not_as_it_was_written_is_damage(plain: Counting, cached: CachedScorer) -> None:
    cached.score(pairs("cat"))
    with cached.store._connected() as connection:
        connection.execute("UPDATE score SET passage = x'00'")
    found = cached.scored(pairs("cat"))
    assert "not as it was written" in found.note
    assert found.scores.tolist() == plain.score(pairs("cat")).tolist()


def test_a_long_list_is_kept_as_it_is_computed(
    plain: Counting, cached: CachedScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossrank.scorecache._AT_ONCE", 8)
    asked = [*pairs(*(f"cat {number}" for number in range(20))), *pairs("a cat of the planet " * 60, "cat 3")]
    wanted, found = plain.scored(asked), cached.scored(asked)
    assert (found.scores.tolist(), found.truncations) == (wanted.scores.tolist(), wanted.truncations)
    assert found.tokens == wanted.tokens
    many = pairs(*(f"bread {number}" for number in range(20)))
    forward, calls = cached.backend.forward, []

    def failing(tokens: Tokens) -> object:
        calls.append(len(tokens))
        if len(calls) > 2:
            raise KeyboardInterrupt
        return forward(tokens)

    cached.backend.forward = failing  # type: ignore[assignment,method-assign]
    with pytest.raises(KeyboardInterrupt):
        cached.scored(many)
    cached.backend.forward = forward  # type: ignore[method-assign]
    assert cached.scored(many).cached == 16


def test_a_file_of_somebody_else_is_refused_and_left(plain: Counting, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("dear diary")
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE dear (diary)")
    connection.close()
    for file in (text, other):
        before = file.read_bytes()
        with pytest.raises(InputError, match="something else"):
            CachedScorer(plain, file)
        assert file.read_bytes() == before
    with pytest.raises(InputError, match="folder"):
        CachedScorer(plain, tmp_path)
    with pytest.raises(InputError, match="at least 1"):
        CachedScorer(plain, tmp_path / "new", most=0)
    with pytest.raises(InputError, match="whole number"):
        CachedScorer(plain, tmp_path / "new", most=1.5)  # type: ignore[arg-type]
    (tmp_path / "empty").touch()
    (tmp_path / "zeros").write_bytes(bytes(8192))
    for name in ("empty", "zeros"):
        made = CachedScorer(plain, tmp_path / name)
        made.scored(pairs("cat"))
        assert made.scored(pairs("cat")).scores.tolist() == plain.score(pairs("cat")).tolist()


@forked
def test_a_pipe_is_no_cache(plain: Counting, tmp_path: Path) -> None:
    """To open one waits for a writer, for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe"):
        CachedScorer(plain, tmp_path / "pipe")


def test_home_is_written_as_in_a_shell(plain: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    CachedScorer(plain, "~/scores").score(pairs("bread"))
    assert (tmp_path / "scores").is_file()


def test_a_locked_file_costs_a_wait_and_no_answer(
    plain: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossrank.scorestore._WAIT_SECONDS", 0.1)
    cached = CachedScorer(plain, tmp_path / "scores")
    cached.score(pairs("cat"))
    other = sqlite3.connect(tmp_path / "scores", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    found = cached.scored(pairs("cat", "bread"))
    assert "locked" in found.note
    assert found.cached == 1
    assert found.scores.tolist() == plain.score(pairs("cat", "bread")).tolist()
    began = time.monotonic()
    assert "locked" in cached.scored(pairs("cat", "yeast")).note
    assert time.monotonic() - began < 5.0
    other.execute("ROLLBACK")
    other.close()


def test_a_full_disk_costs_no_answer(plain: Counting, tmp_path: Path) -> None:
    cached = CachedScorer(plain, tmp_path / "scores")
    cached.score(pairs("cat"))
    with cached.store._connected() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    many = pairs(*(f"cat {number}" for number in range(300)))
    found = cached.scored(many)
    assert "full" in found.note
    assert found.scores.tolist() == plain.score(many).tolist()


def test_a_place_that_cannot_be_written_costs_no_answer(plain: Counting, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cached = CachedScorer(plain, tmp_path / "file" / "scores")
    found = cached.rank(QUERY, ["cat", "bread"])
    assert "could not be read" in found.note
    assert found.scores.tolist() == plain.rank(QUERY, ["cat", "bread"]).scores.tolist()


# Many at once -----------------------------------------------------------------------------------------------------


def test_threads_share_one_scorer(plain: Counting, cached: CachedScorer) -> None:
    asked = [pairs(*(f"cat {(start + step) % 40}" for step in range(10))) for start in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(cached.scored, asked))
    assert {one.note for one in found} == {""}
    assert [one.scores.tolist() for one in found] == [plain.score(one).tolist() for one in asked]
    assert len(cached.store) == 40


def _fill(path: Path, worker: int, rounds: int, problems: object) -> None:
    store = Store(path, most=400)
    rng = np.random.default_rng(worker)
    for _ in range(rounds):
        numbers = rng.integers(0, 600, 20).tolist()
        found, note = store.get([b"%d" % number for number in numbers])
        wrong = [key for key, entry in found.items() if entry.score != float(int(key) % 97)]
        note = note or store.put({b"%d" % number: Entry(float(number % 97)) for number in numbers})
        if note or wrong:
            problems.put(f"{note} {wrong}")  # type: ignore[attr-defined]
    store.close()


@forked
def test_processes_share_one_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    problems = context.Queue()
    workers = [context.Process(target=_fill, args=(tmp_path / "scores", n, 60, problems)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(200)
        assert worker.exitcode == 0
    assert problems.empty()
    store = Store(tmp_path / "scores", most=400)
    assert 200 < len(store) <= 400
    with store._connected() as connection:
        assert connection.execute("SELECT count(*) FROM score").fetchone()[0] == len_of(connection)
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def len_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT rows FROM counted").fetchone()[0])


FORK = """
import os, sys, threading
from crossrank.scorestore import Entry, Store
store = Store(sys.argv[1])
assert store.put({b"parent": Entry(1.0)}) == ""
# The lock is held at the fork, as it would be by another thread.
with store._here.lock:
    child = os.fork()
    if child == 0:
        threading.Timer(20, lambda: os._exit(2)).start()
        os._exit(0 if len(store) == 1 and store.put({b"child": Entry(1.0)}) == "" else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert len(store) == 2
"""


OTHER = """
import sys
from crossrank.scorestore import Entry, Store
store = Store(sys.argv[1])
known = sorted(store.get([bytes([letter]) for letter in b"abcxyz"])[0])
assert store.put({sys.argv[2].encode(): Entry(1.0)}) == ""
store.close()
print(b"".join(known).decode(), end="")
"""


@pytest.mark.parametrize("opened", [True, False])
def test_a_process_with_two_scorers_over_one_file_keeps_its_locks(opened: bool, tmp_path: Path) -> None:
    """On POSIX whoever closes a file that SQLite has open lets go of SQLite's locks: the next process to close its own
    connection then removed the log that this one wrote to.
    """

    def elsewhere(letter: str) -> str:
        command = [sys.executable, "-c", OTHER, str(tmp_path / "scores"), letter]
        return subprocess.run(command, check=True, timeout=60, stdout=subprocess.PIPE, text=True).stdout

    first = Store(tmp_path / "scores")
    assert first.put({b"a": Entry(1.0)}) == ""
    second = Store(tmp_path / "scores")
    if opened:
        assert second.put({b"b": Entry(1.0)}) == ""
    here = "ab" if opened else "a"
    assert elsewhere("x") == here
    assert first.put({b"c": Entry(1.0)}) == ""
    assert elsewhere("y") == f"{here}cx"
    for store in (first, second):
        assert b"".join(sorted(store.get([bytes([letter]) for letter in b"abcxyz"])[0])).decode() == f"{here}cxy"
        store.close()


def test_a_file_of_a_store_that_nobody_closed_is_looked_at_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "scores")
    assert store.put({b"a": Entry(1.0)}) == ""
    del store
    gc.collect()
    (tmp_path / "scores").write_bytes(b"dear diary")
    with pytest.raises(InputError, match="something else"):
        Store(tmp_path / "scores")


def test_a_cache_behind_a_link_to_nothing_yet_is_made(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "scores")
    store = Store(tmp_path / "link")
    assert store.put({b"a": Entry(1.0)}) == ""
    store.close()
    assert stat.S_IMODE((tmp_path / "scores").stat().st_mode) == 0o600


@forked
def test_a_forked_child_uses_the_file_too(tmp_path: Path) -> None:
    # In a process of its own: some libraries that other tests load complain about forks.
    subprocess.run([sys.executable, "-c", FORK, str(tmp_path / "scores")], check=True, timeout=60)


@forked
def test_a_kill_leaves_a_file_that_works(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    problems = context.Queue()
    for delay in (0.0, 0.05, 0.15):
        worker = context.Process(target=_fill, args=(tmp_path / "scores", 1, 100_000, problems))
        worker.start()
        until = time.monotonic() + 30
        while not (tmp_path / "scores-wal").exists() and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(delay)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join(10)
        store = Store(tmp_path / "scores", most=400)
        found, note = store.get([b"%d" % number for number in range(600)])
        assert note == ""
        assert all(entry.score == float(int(key) % 97) for key, entry in found.items())
        assert store.put({b"7": Entry(7.0)}) == ""
        with store._connected() as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            assert connection.execute("SELECT count(*) FROM score").fetchone()[0] == len_of(connection)
        # The -wal file stays, so that the next round begins with one.
    assert not list(tmp_path.glob("*damaged*"))
