"""Deadlines with a clock of the test's own: what is read, what is said about it, and what never happens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crossrank
from clocks import Clock, Slow, texts
from crossrank.cascade import Stage, mixed, rerank
from crossrank.cost import CostModel, Pace
from crossrank.errors import InputError
from crossrank.stopping import Stopping
from crossrank.types import Passage, Ranking, Tokens

MODEL = CostModel(call=0.001, sequence=0.0005, token=0.00008, square=0.0)


def start(count):
    return Ranking.sorted([f"d{i:03}" for i in range(count)], np.linspace(9, 1, count))


def run(left, count=60, depth=60, factor=1.0, model=MODEL, known=True, weight=1.0, stopping=None):
    clock = Clock()
    scorer = Slow(clock, model, factor=factor)
    stage = Stage(scorer, depth, weight, "slow", scorer.pace() if known else None, stopping)
    deadline = None if left is None else clock.now + left
    final, traces = rerank("q", start(count), [stage], texts, deadline=deadline, clock=clock)
    return final, traces, clock.now - 100.0, scorer


def test_without_a_deadline_it_is_one_call():
    final, (trace,), _, scorer = run(None)
    assert scorer.calls == [60]
    assert (final.head, trace.stopped, trace.note) == (60, "", "")


def test_at_the_deadline_the_best_known_ranking_is_the_answer():
    final, (trace,), took, _ = run(0.1)
    assert 10 < final.head < 60
    assert took <= 0.1
    assert trace.stopped == "deadline"
    assert trace.note == f"the time was enough for {final.head} of 60 passages"
    assert set(final.ids[: final.head]) == set(start(60).ids[: final.head])  # read in their order
    assert final.ids[final.head :] == start(60).ids[final.head :]
    assert list(trace.scores) == list(start(60).ids[: final.head])


def test_it_uses_the_time_it_has():
    _, _, took, scorer = run(0.1)
    assert took > 0.085
    assert len(scorer.calls) < 12


@pytest.mark.parametrize("left", [-np.inf, -1.0, 0.0, 0.0005])
def test_without_time_the_order_before_stands(left):
    final, (trace,), took, scorer = run(left)
    assert final.ids == start(60).ids
    assert scorer.calls == []
    assert took == 0
    assert trace.stopped == "deadline"
    assert trace.scores == {}


def test_one_document_alone_is_not_read_for_it_would_move_nothing():
    assert run(0.004)[3].calls == []


def test_a_machine_that_became_slower_is_late_by_little():
    """The pace learns within the query: half as fast as predicted, and still late by less than a short call."""
    _, _, took, _ = run(0.2, factor=2.0)
    assert took < 0.2 + 0.020


def test_a_scorer_that_nobody_measured_tells_by_its_first_documents():
    final, (trace,), took, scorer = run(0.1, known=False)
    assert scorer.calls[0] == 2
    assert 10 < final.head < 60
    assert took < 0.11
    assert trace.stopped == "deadline"


def test_a_list_that_surely_fits_is_one_call():
    assert run(10.0)[3].calls == [60]


@settings(max_examples=60)
@given(
    st.integers(1, 80), st.integers(1, 80), st.floats(0, 0.4), st.floats(0, 0.1),
    st.sampled_from([1, 2, 3]), st.sampled_from([0.0, 0.003]),
)  # fmt: skip
def test_any_deadline_gives_a_permutation_and_a_later_one_reads_no_less(count, depth, left, more, workers, call):
    model = CostModel(call, 0.0005, 0.00008, 0.0, workers=workers)
    final, traces, took, _ = run(left, count, depth, model=model)
    later = run(left + more, count, depth, model=model)[0]
    assert sorted(final.ids) == sorted(start(count).ids)
    assert final.head <= (min(depth, count) if traces[0].scores else count)
    read = len(traces[0].scores)
    assert read <= min(depth, count)
    assert took <= left + 1e-9 or read == 0
    if workers == 1:
        assert len(run(left + more, count, depth, model=model)[1][0].scores) >= read
    assert len(later) == count


def test_the_first_scores_keep_the_scale_that_a_whole_reading_gives_them():
    """Standardized over the few documents read, the scores before would outvote the scorer."""
    before, logits = start(60), np.float32([0, 1, 2, 3])
    head = before.cut(4)
    got = mixed(head, logits, 0.1, among=before.scores)
    assert got.ids == ("d003", "d002", "d001", "d000")
    assert mixed(head, logits, 0.1).ids == ("d000", "d001", "d002", "d003")
    whole = mixed(before, np.linspace(0, 1, 60).astype(np.float32), 0.3)
    same = mixed(before, np.linspace(0, 1, 60).astype(np.float32), 0.3, among=before.scores)
    assert whole.ids == same.ids
    assert whole.scores.tolist() == same.scores.tolist()


def test_a_partial_head_is_mixed_so_in_a_cascade():
    final, (trace,), _, _ = run(0.05, weight=0.5)
    read = [trace.scores[i] for i in start(60).ids[: final.head]]
    want = mixed(start(60).cut(final.head), np.float32(read), 0.5, among=start(60).scores)
    assert final.ids[: final.head] == want.ids


def test_a_stage_keeps_time_for_those_after_it():
    clock = Clock()
    coarse, fine = Slow(clock, CostModel(0.0005, 0.0, 0.00002, 0.0)), Slow(clock, MODEL)
    stages = [Stage(coarse, 60, name="coarse", pace=coarse.pace()), Stage(fine, 8, name="fine", pace=fine.pace())]
    final, traces = rerank("q", start(60), stages, texts, deadline=clock.now + 0.1, clock=clock)
    assert final.head == 8
    assert clock.now <= 100.1
    assert [trace.stopped for trace in traces][1] == ""


def test_what_a_hurried_stage_did_not_reach_the_next_does_not_read():
    clock = Clock()
    coarse, fine = Slow(clock, MODEL), Slow(clock, CostModel(0.0, 0.0, 1e-7, 0.0))
    stages = [Stage(coarse, 60, name="coarse", pace=coarse.pace()), Stage(fine, 60, name="fine", pace=fine.pace())]
    _, traces = rerank("q", start(60), stages, texts, deadline=clock.now + 0.05, clock=clock)
    assert 0 < len(traces[0].scores) < 60
    assert set(traces[1].scores) <= set(traces[0].scores)


def in_a_second(*seconds):
    """How many of 60 documents each stage reads that takes so many seconds for one."""
    clock = Clock()
    scorers = [Slow(clock, CostModel(0.0, each, 0.0, 0.0)) for each in seconds]
    stages = [Stage(scorer, 60, name=f"stage {at}", pace=scorer.pace()) for at, scorer in enumerate(scorers)]
    _, traces = rerank("q", start(60), stages, texts, deadline=clock.now + 1.0, clock=clock)
    assert clock.now <= 101.0 + 1e-9
    return traces


def test_a_stage_after_a_hurried_one_reads_what_that_one_has_sorted_and_not_what_an_earlier_one_had():
    first, hurried, last = in_a_second(0.001, 0.02, 0.001)
    assert (len(first.scores), hurried.stopped) == (60, "deadline")
    assert set(last.scores) == set(hurried.scores)
    assert 30 < len(last.scores) < 60


def test_a_stage_keeps_four_tenths_of_the_time_however_long_those_after_it_take():
    first, slow = in_a_second(0.01, 0.1)
    assert 35 < len(first.scores) <= 40
    assert 4 <= len(slow.scores) <= 6


class Broken:
    def score(self, pairs):
        raise RuntimeError("the model\nis gone")


def test_a_failing_stage_raises_by_default():
    with pytest.raises(RuntimeError, match="is gone"):
        rerank("q", start(3), [Stage(Broken())], texts)
    with pytest.raises(InputError, match="on_error"):
        rerank("q", start(3), [], texts, on_error="ignore")


def test_a_failing_stage_may_leave_the_order_before_it():
    clock = Clock()
    good = Slow(clock, MODEL)
    stages = [Stage(good, 5, name="good"), Stage(Broken(), 3, name="broken"), Stage(good, 4, name="last")]
    final, traces = rerank("q", start(9), stages, texts, on_error="keep", clock=clock)
    assert [trace.stopped for trace in traces] == ["", "error", ""]
    assert traces[1].ranking.ids == traces[0].ranking.ids
    assert traces[1].note == "failed, so the order before it stands: RuntimeError: the model is gone"
    assert final.head == 4


def test_a_scorer_that_fails_halfway_leaves_the_order_before_it():
    class Halfway(Slow):
        def score(self, pairs):
            if self.calls:
                raise OSError("connection lost")
            return super().score(pairs)

    clock = Clock()
    scorer = Halfway(clock, MODEL)
    stage = Stage(scorer, 60, pace=scorer.pace())
    final, (trace,) = rerank("q", start(60), [stage], texts, deadline=clock.now + 0.08, clock=clock, on_error="keep")
    assert final.ids == start(60).ids
    assert trace.stopped == "error"


def test_a_settled_top_ends_a_stage():
    rule = Stopping(k=3, least=12)
    final, (trace,), _, scorer = run(None, weight=0.05, stopping=rule)
    assert 12 <= final.head < 60
    assert trace.stopped == "settled"
    assert "no other was likely to reach the top" in trace.note
    assert sum(scorer.calls) == final.head
    # All that was read tells, not the last eight: it goes on, and still ends before the last.
    later, (trace,), _, scorer = run(None, weight=0.5, stopping=rule)
    assert (trace.stopped, scorer.calls[0], set(scorer.calls[1:])) == ("settled", 12, {8})
    assert sum(scorer.calls) == later.head < 60


class Places:
    """A scorer of places: those of two calls do not compare."""

    listwise = True

    def __init__(self, clock):
        self.clock, self.calls = clock, []

    def score(self, pairs):
        self.calls.append(len(pairs))
        self.clock.now += 0.1
        return np.arange(len(pairs), 0, -1, dtype=np.float32)


@pytest.mark.parametrize("stopping", [None, Stopping(k=3, least=12)])
def test_places_in_an_order_are_asked_for_at_once(stopping):
    """With parts of the list, the best of each part stood before the second best of another."""
    clock = Clock()
    scorer, pace = Places(clock), Pace()
    for left, read in ((9.0, 60), (0.05, 0), (0.2, 60)):
        stage = Stage(scorer, 60, 0.5, pace=pace, stopping=stopping)
        final, (trace,) = rerank("q", start(60), [stage], texts, deadline=clock.now + left, clock=clock)
        assert final.ids == start(60).ids
        assert (len(trace.scores), trace.stopped) == (read, "" if read else "deadline")
    assert scorer.calls == [60, 60]


def test_an_order_that_would_have_been_late_is_tried_again():
    # What reads nothing is not measured: after one slow moment it was left out for ever.
    clock = Clock()
    scorer = Places(clock)
    stage = Stage(scorer, 60, pace=Pace(CostModel(1.0, 0.0, 0.0, 0.0)))
    for _ in range(400):
        rerank("q", start(60), [stage], texts, deadline=clock.now + 0.5, clock=clock)
    assert 100 < len(scorer.calls) < 400


class Asked:
    """A scorer that tells what each call has cost."""

    def score(self, pairs):
        return self.noted(pairs)[0]

    def noted(self, pairs):
        return np.arange(len(pairs), dtype=np.float32), f"{len(pairs)} questions"


def test_what_calls_have_cost_counts_as_often_as_it_was_paid():
    _, (trace,) = rerank("q", start(60), [Stage(Asked(), 60, stopping=Stopping(k=10, error=1e-9))], texts)
    assert trace.note == "32 questions; 8 questions (3 times); 4 questions"


class Ids:
    """Token ids of passages, as an index holds them."""

    def __init__(self, scorer, passages):
        made = scorer.checkpoint.tokenizer()
        self.tokenizer = scorer.tokenizer
        self.ids = {one.id: made.encode(one.text, add_special_tokens=False).ids for one in passages}

    def tokens(self, ids):
        return Tokens.of([self.ids[id_] for id_ in ids])


def test_a_query_that_is_cut_is_told_though_the_first_passages_are_blank(cross_encoder_folder):
    # The first call reads 12 of them, which do not read the query.
    passages = [Passage(f"d{number}", "" if number < 12 else "the cat") for number in range(28)]
    passages[13] = Passage("d13", "the cat " * 100)
    ranking = Ranking.sorted([passage.id for passage in passages], np.arange(28, 0, -1))
    scorer = crossrank.load(cross_encoder_folder, backend="fake")
    for stopping in (None, Stopping(k=10, least=4)):
        stage = Stage(scorer, 28, stopping=stopping)
        for store in (None, Ids(scorer, passages)):
            _, (trace,) = rerank("the cat " * 300, ranking, [stage], lambda ids: passages, store)
            # Places are those of the whole list, whichever call has read the passage.
            assert [cut.position for cut in trace.truncations] == [-1, 13]
            assert list(trace.scores) == list(ranking.ids)
            assert [id_ for id_, score in trace.scores.items() if score > -np.inf] == list(ranking.ids[12:])


def test_what_is_remembered_says_nothing_of_how_fast_a_model_is(cross_encoder_folder, tmp_path):
    """Its answers take no time: a slow model would be thought fast, and the next query would be late."""
    scorer = crossrank.CachedScorer(crossrank.load(cross_encoder_folder, backend="fake"), tmp_path / "scores")
    pace, clock = Pace(CostModel(call=1.0, sequence=0.0, token=0.0, square=0.0)), Clock()
    ratios = []
    for _ in range(3):
        rerank("the cat", start(8), [Stage(scorer, 8, pace=pace)], texts, deadline=clock.now + 100, clock=clock)
        ratios.append(pace.ratio)
    assert scorer.uses.known == 16
    assert ratios[0] < 1.0
    assert ratios[1:] == ratios[:1] * 2


def test_a_pace_without_its_owner_learns_too():
    pace = Pace(MODEL)
    clock = Clock()
    scorer = Slow(clock, MODEL, factor=1.5)
    for _ in range(20):
        rerank("q", start(60), [Stage(scorer, 60, pace=pace)], texts, deadline=clock.now + 0.1, clock=clock)
    assert pace.ratio == pytest.approx(1.5, rel=0.05)
