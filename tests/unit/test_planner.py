"""What is chosen for a budget, what a pipeline does with it, and what of it is kept between processes."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import timeit
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import crossrank
import tiny
from clocks import Clock, Slow, texts
from crossrank.cascade import Stage, Unavailable, rerank
from crossrank.cost import CostModel, Pace
from crossrank.crossencoder import CrossEncoder
from crossrank.errors import InputError
from crossrank.pipeline import MIX, Answer, Pipeline
from crossrank.planner import ADVICE, SETTLES, Memory, check, depths, measure, measured, plan, timing
from crossrank.relevance import last_read
from crossrank.stopping import Stopping
from crossrank.types import Ranking

# Milliseconds that a document of the usual 128 tokens takes.
COSTS = {"tiny": 0.4, "small": 4.0, "large": 20.0}


def model(milliseconds):
    return CostModel(call=0.0005, sequence=0.0, token=milliseconds / 128_000, square=0.0)


def family(clock, *names, depth=1000):
    scorers = {name: Slow(clock, model(COSTS[name])) for name in names}
    return [Stage(scorer, depth, 1.0, name, scorer.pace()) for name, scorer in scorers.items()]


def chosen(names, candidates, milliseconds):
    found = plan(family(Clock(), *names), candidates, milliseconds / 1000)
    return [stage.name for stage in found.stages], found


def test_the_best_model_that_reads_enough():
    names = ("tiny", "small", "large")
    assert chosen(names, 200, 50)[0] == ["tiny"]  # small could read 12: too few
    assert chosen(names, 200, 90)[0] == ["small"]  # under 100 ms, 20 are enough
    assert chosen(names, 200, 150)[0] == ["tiny"]  # with more time 50 should be read
    assert chosen(names, 200, 250)[0] == ["small"]
    assert chosen(names, 200, 1100)[0] == ["large"]
    assert chosen(names, 30, 700)[0] == ["large"]  # all 30 are enough
    assert "left out tiny, small" in chosen(names, 200, 1100)[1].notes[0]


def test_one_model_reads_what_it_can():
    found = plan(family(Clock(), "large"), 100, 0.05)
    assert [stage.name for stage in found.stages] == ["large"]
    assert found.notes == ()


def test_few_candidates_are_left_as_they_are_where_the_first_stage_is_trusted():
    mixing = [replace(stage, weight=0.1) for stage in family(Clock(), "tiny")]
    assert plan(mixing, ADVICE.least - 1, 1.0).stages == ()
    assert "9 candidates are too few" in plan(mixing, 9, 1.0).notes[0]
    assert plan(mixing, ADVICE.least, 1.0).stages == tuple(mixing)
    assert chosen(("tiny",), 3, 1000)[0] == ["tiny"]  # alone: measured to be worth it
    # One stage that does not trust it is enough to read them.
    tiny_alone, small = family(Clock(), "tiny", "small")
    both = (tiny_alone, replace(small, weight=0.1))
    assert plan(both, 3, 1.0).stages == both


def test_a_threshold_has_few_candidates_read_too():
    """Who asks for one must not get what is under it because the list is short: a filter makes lists short."""
    ids = [str(n) for n in range(ADVICE.least - 1)]
    passages = {id_: crossrank.Passage(id_, f"Bread number {id_} needs yeast.") for id_ in ids}
    stage = Stage(crossrank.load(), weight=MIX, pace=Pace(model(0.001)))
    made = Pipeline({"given": Fixed(Clock(), ids)}, lambda some: [passages[id_] for id_ in some], (stage,))
    held = made.within(60_000)
    question = "who wrote Faust?"
    assert "too few" in held.search(question).notes[0]
    for more in ({}, {"where": []}):
        answer = held.search(question, threshold=0.5, **more)
        assert (answer.passages, answer.notes[0].partition(":")[0]) == ((), "nothing reaches the threshold")
    for more in ({}, {"where": []}):
        assert len(held.search(question, read_few=True, **more).traces[-1].scores) == len(ids)
    context = held.context(question, 100, threshold=0.5)
    assert (context.text, context.probability) == ("", pytest.approx(0.0, abs=0.1))
    assert held.context(question, 100).text
    # Where nothing was found, no stage has failed to read it.
    empty = replace(made, retrievers={"given": Fixed(Clock(), [])}).context(question, 100, threshold=0.5)
    assert (empty.text, "threshold" in empty.note) == ("", False)


def test_a_search_that_finds_nothing_says_nothing_of_time_and_teaches_no_pace():
    held = pipeline(Clock(), "tiny", "small", count=0).within(100)
    answer = held.search("what?")
    assert (answer.ranking.ids, answer.notes) == ((), ())
    assert [stage.pace.hope for stage in held.stages] == [1.0, 1.0]
    mixing = pipeline(Clock(), "tiny", count=0, weight=0.1).within(100)
    assert mixing.search("what?").notes == ()


def test_many_candidates_go_coarse_to_fine():
    names, found = chosen(("tiny", "small"), 600, 600)
    assert names == ["tiny", "small"]
    coarse, fine = found.stages
    assert 500 < coarse.depth <= 600  # what four tenths of the time are enough for
    assert 50 <= fine.depth <= ADVICE.most
    # The first takes its time from the second's, which reads so many at most.
    assert fine.depth == int((0.6 - found.stages[0].pace.usual(coarse.depth) - 0.0005) / 0.004)
    assert chosen(("tiny", "small"), 600, 720)[1].stages[1].depth == ADVICE.most
    # Of more the cheaper one reads no more, though the whole time were enough for all.
    assert 500 < chosen(("tiny", "small"), 1000, 600)[1].stages[0].depth < 600
    assert chosen(("tiny", "small"), 499, 600)[0] == ["small"]  # fewer: one model reads the top
    # Where the cheaper one cannot sort out anything, it is not begun.
    assert chosen(("small", "large"), 600, 300)[0] == ["small"]


def test_of_many_candidates_both_stages_run_and_neither_is_told_as_left_out():
    names, found = chosen(("tiny", "small"), 1000, 1000)
    assert (names, found.notes) == (["tiny", "small"], ())
    # Of three, the one between is told, and no other.
    names, found = chosen(("tiny", "small", "large"), 1000, 2500)
    assert names == ["tiny", "large"]
    assert found.notes[0].startswith("left out small:")


def test_a_coarse_stage_that_sorts_out_less_than_half_is_not_begun():
    clock = Clock()
    stages = [
        Stage(Slow(clock, cost), 1000, 1.0, name, Pace(cost))
        for name, cost in (("tiny", CostModel(0.0, 0.003, 0.0, 0.0)), ("small", CostModel(0.0, 0.004, 0.0, 0.0)))
    ]
    # tiny could read 133 and small 100 of them.
    found = plan(stages, 600, 1.0)
    assert [stage.name for stage in found.stages] == ["small"]
    assert "left out tiny" in found.notes[0]


def test_no_stage_reads_nothing_however_few_there_are():
    assert [depths(1, 2), depths(2, 3), depths(3, 2)] == [[1, 1], [2, 1, 1], [3, 1]]


def test_everything_runs_where_everything_fits():
    assert chosen(("tiny", "small"), 100, 1000)[0] == ["tiny", "small"]
    # Or may be hoped to fit, after slow moments in which one was left out.
    stages = family(Clock(), "tiny", "small")
    assert [stage.name for stage in plan(stages, 100, 0.3).stages] == ["small"]
    for stage in stages:
        stage.pace.hope = 0.5
    assert [stage.name for stage in plan(stages, 100, 0.3).stages] == ["tiny", "small"]


def test_where_none_reads_enough_the_better_of_equals_is_taken():
    (one,) = family(Clock(), "small")
    assert [stage.name for stage in plan([one, replace(one, name="better")], 200, 0.05).stages] == ["better"]


def test_a_stage_leaves_at_most_six_tenths_of_the_time_to_those_after_it():
    clock = Clock()
    first, last = family(clock, "small", "large", depth=100)
    given = Ranking.sorted([f"d{n:03}" for n in range(100)], -np.arange(100, dtype=np.float32))
    # large would take two seconds.
    _, traces = rerank("what?", given, [first, last], texts, deadline=clock.now + 0.1, clock=clock)
    assert 10 < len(traces[0].scores) < 100
    assert traces[0].stopped == "deadline"
    assert traces[0].seconds <= 0.4 * 0.1


def test_without_time_nothing_is_begun():
    names, found = chosen(("tiny", "small"), 100, 0.2)
    assert names == []
    assert "not enough to read a passage" in found.notes[0]
    assert plan([], 100, 1.0).stages == ()


class Fixed:
    """A first stage that takes a while."""

    def __init__(self, clock, ids, seconds=0.0):
        self.clock, self.ids, self.seconds, self.asked = clock, ids, seconds, []

    def retrieve(self, queries, depth):
        self.asked += queries
        self.clock.now += self.seconds
        return [Ranking.sorted(self.ids, -np.arange(len(self.ids), dtype=np.float32)).cut(depth) for _ in queries]


def pipeline(clock, *names, count=100, first=0.005, second=0.010, weight=1.0, fetch=0.002):
    ids = [f"d{i:03}" for i in range(count)]
    stages = tuple(replace(stage, depth=100, weight=weight) for stage in family(clock, *names))

    def fetched(some):
        clock.now += fetch if len(some) <= 10 else 0.0
        return texts(some)

    retrievers = {"bm25": Fixed(clock, ids, first), "dense": Fixed(clock, ids[::-1], second)}
    return Pipeline(retrievers, fetched, stages, clock=clock)


@pytest.mark.parametrize("ms", [1, 10, 20, 30, 50, 100, 200, 500, 5000])
def test_an_answer_is_in_time_and_whole(ms):
    clock = Clock()
    held = pipeline(clock, "small").within(ms)
    answer = held.search("what?", k=10)
    assert len(answer.passages) == len(answer.ranking) == 10
    assert answer.budget == ms / 1000
    # bm25 alone takes 5 ms, and fetching 2; nothing else makes an answer late.
    assert answer.seconds <= max(ms / 1000, 0.0071) + 1e-9
    assert answer.late == (answer.seconds > ms / 1000)


def test_time_is_kept_for_texts_that_take_long_to_fetch():
    answer = pipeline(Clock(), "small", fetch=0.025).within(80).search("what?")
    assert answer.traces[-1].scores
    assert not answer.late


def test_more_time_reads_more():
    read = []
    for ms in (10, 30, 50, 100, 200, 500, 1000):
        answer = pipeline(Clock(), "small").within(ms).search("what?")
        read.append(sum(len(trace.scores) for trace in answer.traces))
    assert read == sorted(read)
    assert read[0] == 0
    assert read[-1] == 100


def test_a_retriever_that_would_be_late_is_left_out_when_another_answered():
    answer = pipeline(Clock(), "small", second=0.08).within(50).search("what?")
    assert answer.traces[1].name == "dense"
    assert answer.traces[1].stopped == "deadline"
    assert len(answer.traces[1].ranking) == 0
    assert "dense: left out: it may take 80 ms" in answer.notes[0]
    # The order of the one that answered is what is read on.
    assert answer.traces[2].ranking.ids == answer.traces[0].ranking.ids
    assert set(answer.traces[-1].scores) == set(answer.traces[0].ranking.ids[: len(answer.traces[-1].scores)]) != set()


def test_a_retriever_that_would_be_late_is_asked_where_no_other_found_anything():
    clock = Clock()
    made = pipeline(clock, "small", second=0.08)
    retrievers = {"bm25": Fixed(clock, []), "dense": made.retrievers["dense"]}
    answer = replace(made, retrievers=retrievers).within(50).search("what?")
    assert (len(answer.passages), answer.traces[1].stopped, answer.late) == (10, "", True)


def test_a_retriever_is_not_left_out_for_ever_after_bad_moments():
    clock = Clock()
    held = pipeline(clock, "small").within(50)
    dense = held.retrievers["dense"]
    dense.seconds = 0.5
    for _ in range(3):
        held.search("what?")
    dense.seconds = 0.010
    left_out = [held.search("what?").traces[1].stopped == "deadline" for _ in range(40)]
    assert left_out[0]
    assert not any(left_out[20:])


@pytest.mark.parametrize(("slower", "queries"), [(10, 30), (30, 10)])
def test_a_stage_is_not_left_out_for_ever_after_a_slow_moment(slower, queries):
    """It read nothing, so nothing was measured, and the pace never fell again: in 2,000 of 2,000 queries."""
    clock = Clock()
    held = pipeline(clock, "small").within(50)
    scorer = held.stages[0].scorer

    def read():
        return sum(len(trace.scores) for trace in held.search("what?").traces)

    usual = read()
    scorer.factor = slower
    slow = [read() for _ in range(queries)]
    scorer.factor = 1.0
    after = [read() for _ in range(200)]
    assert usual > 5
    assert slow[-1] == after[0] == 0
    assert after[-1] == usual
    assert after.count(0) < 100


def test_a_machine_that_stays_too_slow_is_tried_seldom():
    clock = Clock()
    held = pipeline(clock, "small").within(50)
    held.stages[0].scorer.factor = 30.0
    late = [held.search("what?").late for _ in range(1000)]
    assert 1 <= sum(late[100:]) < 9


def test_the_better_of_two_models_is_not_left_out_for_ever_either():
    clock = Clock()
    held = pipeline(clock, "tiny", "small").within(105)
    small = held.stages[1].scorer

    def ran():
        return [trace.name for trace in held.search("what?").traces if trace.scores]

    assert ran() == ["small"]
    small.factor = 20.0
    assert [ran() for _ in range(20)][-1] == ["tiny"]
    small.factor = 1.0
    after = [ran() for _ in range(600)]
    assert after[0] == ["tiny"]
    assert after[-100:] == [["small"]] * 100


def test_short_documents_are_read_where_one_of_the_usual_size_would_not_fit():
    """The plan said that the time was not enough for a passage, of 128 tokens, and never learned that these have 6."""
    clock = Clock()
    slow = CostModel(0.0, 0.0, 0.0005, 0.0)
    ids = [f"d{i}" for i in range(20)]

    def short(some):
        return [crossrank.Passage(i, f"a short text {i}") for i in some]

    stage = Stage(Slow(clock, slow), 20, name="slow", pace=Pace(slow))
    held = Pipeline({"bm25": Fixed(clock, ids)}, short, (stage,), clock=clock).within(30)
    assert [len(held.search("what?").traces[-1].scores) > 4 for _ in range(5)] == [True] * 5
    # What is known of them is not forgotten, and a time that is too short even so is told.
    assert "not enough to read a passage" in plan(held.stages, 20, 0.001).notes[0]


def test_a_retriever_may_have_any_name():
    """One called "texts" was taken for the fetching of texts, and its time was kept for that at the end."""
    reads = []
    for name in ("own", "texts"):
        clock = Clock()
        slow = Fixed(clock, [f"d{i}" for i in range(100)], 0.04)
        made = Pipeline({name: slow}, texts, tuple(family(clock, "tiny")), clock=clock).within(80)
        made.search("what?")
        reads.append(len(made.search("what?").traces[-1].scores))
    assert reads[0] == reads[1] > 0


def test_what_a_budget_leaves_out_is_in_the_answer():
    answer = pipeline(Clock(), "tiny", "large").within(60).search("what?")
    names = [trace.name for trace in answer.traces]
    assert names == ["bm25", "dense", "fused", "plan", "tiny"]
    assert any("left out large" in note for note in answer.notes)


def test_a_mixed_stage_stops_when_its_top_is_settled_within_a_budget_only():
    assert MIX <= SETTLES  # What a search does unless it is told otherwise.
    clock = Clock()
    made = pipeline(clock, "small", weight=0.1)
    assert made.search("what?").traces[-1].stopped == ""
    within = made.within(5000).search("what?").traces[-1]
    assert within.stopped == "settled"
    assert 32 <= len(within.scores) < 100
    assert pipeline(clock, "small", weight=1.0).within(5000).search("what?").traces[-1].stopped == ""
    rules = [pipeline(clock, "small", weight=share).within(5000).stages[0].stopping for share in (SETTLES, 0.41)]
    assert rules == [Stopping(), None]


def test_the_top_is_as_long_as_the_answer():
    clock = Clock()
    made = pipeline(clock, "small", weight=0.1, count=300)
    made = replace(made, depth=300, stages=(replace(made.stages[0], depth=300, stopping=Stopping()),))
    few, many = (made.search("what?", k=k).traces[-1] for k in (10, 150))
    assert few.stopped == "settled"
    assert len(few.scores) < 150 <= len(many.scores)


def test_stages_of_one_name_are_told_apart():
    """What the plan left out was not said, and the scores of one were read with the calibration of the other."""
    made = pipeline(Clock(), "tiny", "large")
    made = replace(made, stages=tuple(replace(stage, name="rerank") for stage in made.stages))
    answer = made.within(60).search("what?")
    assert any("left out rerank (2)" in note for note in answer.notes)
    assert last_read(made.stages, answer.traces)[0].scorer is made.stages[0].scorer
    # An answer outlives its process, and another pipeline of the same models reads it.
    kept = pickle.loads(pickle.dumps(answer))
    again = pipeline(Clock(), "tiny", "large")
    again = replace(again, stages=tuple(replace(stage, name="rerank") for stage in again.stages))
    assert last_read(again.stages, kept.traces)[0] is again.stages[0]


def test_a_stage_that_fails_within_a_budget_leaves_the_fused_order():
    class Broken:
        def score(self, pairs):
            raise OSError("no route to host")

    clock = Clock()
    made = replace(pipeline(clock, "small"), stages=(Stage(Broken(), name="far"),))
    with pytest.raises(OSError, match="no route"):
        made.search("what?")
    answer = made.within(500).search("what?")
    assert answer.failed == ("far",)
    assert answer.ranking.ids == answer.traces[2].ranking.ids[:10]
    assert answer.notes == ("far: failed, so the order before it stands: OSError: no route to host",)
    with pytest.raises(OSError, match="no route"):
        made.within(500, on_error="raise").search("what?")
    assert replace(made, on_error="keep").search("what?").failed == ("far",)


def test_a_model_that_is_not_there_takes_the_place_of_none_that_is():
    clock = Clock()
    gone = Unavailable("large", InputError("no such model"))
    (first,) = family(clock, "tiny", depth=100)
    made = replace(pipeline(clock, "tiny"), stages=(first, Stage(gone, 50, name="large")), on_error="keep")
    # tiny could read a half of its 100: nothing is kept for what reads nothing, nor is it chosen in its place.
    alone = replace(made, stages=(first,)).within(40).search("what?")
    answer = made.within(40).search("what?")
    assert [trace.name for trace in answer.traces[-2:]] == ["tiny", "large"]
    assert len(answer.traces[-2].scores) == len(alone.traces[-1].scores) > 20
    assert answer.ranking.ids == alone.ranking.ids
    assert answer.failed == ("large",)
    assert plan([Stage(gone)], 100, 1.0).stages == (Stage(gone),)
    assert plan([Stage(gone)], 0, 1.0).stages == ()


def test_a_budget_is_a_time():
    for bad in (0, -5, float("inf"), float("nan")):
        with pytest.raises(InputError, match="budget"):
            pipeline(Clock(), "small").within(bad)


def test_what_a_budget_is_given_besides_is_checked_at_once():
    made = pipeline(Clock(), "small")
    for refused in (lambda: made.within(50, on_error="ignore"), lambda: replace(made, on_error="ignore")):
        with pytest.raises(InputError, match="on_error must be"):
            refused()
    with pytest.raises(InputError, match=r"such as Memory\(folder\), not 'folder'"):
        made.within(50, memory="folder")


def test_a_pipeline_is_not_changed_by_within():
    made = pipeline(Clock(), "small")
    made.within(50)
    assert made.budget is None
    assert made.on_error == "raise"
    assert made.stages[0].stopping is None
    assert copy.deepcopy(made.within(50)).budget == 0.05


# measuring


@pytest.fixture
def scorer(cross_encoder_folder: Path) -> CrossEncoder:
    return crossrank.load(cross_encoder_folder, threads=1)


@pytest.mark.alone
def test_a_two_layer_model_is_measured_and_a_larger_one_is_slower(tmp_path: Path) -> None:
    """Loose, because machines that run tests are shared: eight times the layers take more than twice the time."""
    folders = [tiny.cross_encoder(tmp_path / str(n), num_hidden_layers=n, hidden_size=64) for n in (2, 16)]
    small, large = (measure(crossrank.load(folder, threads=1), seconds=0.5) for folder in folders)
    lengths = [40] * 64
    assert 0 < small.seconds(lengths) * 2 < large.seconds(lengths) < 5


def test_a_pace_is_measured_once_for_all(scorer: CrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    pace = measured(scorer, seconds=0.1)
    monkeypatch.setattr(timing, "measure", None)
    assert measured(scorer) is pace


def test_who_asks_for_another_scorer_waits_for_no_measurement(
    scorer: CrossEncoder, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, other = (crossrank.load(cross_encoder_folder, backend="fake") for _ in range(2))
    pace = measured(known, seconds=0.01)
    asked: list[CrossEncoder] = []
    begun, end = threading.Event(), threading.Event()

    def measuring(scorer: CrossEncoder, seconds: float) -> CostModel:
        asked.append(scorer)
        if scorer is not other:
            begun.set()
            assert end.wait(60)
        return model(1.0)

    monkeypatch.setattr(timing, "measure", measuring)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(measured, scorer) for _ in range(2)]
        assert begun.wait(60)
        try:
            assert measured(known) is pace
            assert measured(other).known
        finally:
            end.set()
        assert waiting[0].result(60) is waiting[1].result(60) is measured(scorer)
    assert asked == [scorer, other]


FORK = """
import os, threading
import crossrank
from crossrank import cost
from crossrank.planner import measured, timing
scorer = crossrank.load(backend="fake")
begun, end = threading.Event(), threading.Event()
def measuring(scorer, seconds):
    begun.set()
    end.wait(60)
    return cost.CostModel(0.0, 0.0, 0.001, 0.0)
timing.measure = measuring
thread = threading.Thread(target=measured, args=(scorer,))
thread.start()
begun.wait(60)
# Held at the fork, as it would be by another thread.
with cost._learning:
    child = os.fork()
    if child == 0:
        threading.Timer(20, lambda: os._exit(2)).start()
        end.set()
        measured(scorer).observe([100], 1.0)
        os._exit(0)
end.set()
thread.join()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_is_forked_during_a_measurement_measures_for_itself() -> None:
    # In a process of its own: some libraries that other tests load complain about forks.
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=120)


def test_a_check_notices_that_a_model_no_longer_holds(scorer: CrossEncoder) -> None:
    slow = CostModel(call=10.0, sequence=0.0, token=0.0, square=0.0)
    assert check(scorer, slow) < 0.1
    assert not timing.holds(0.1)
    assert timing.holds(1.2)
    assert timing.holds(0.85)


def test_what_was_measured_is_kept_and_checked(
    tmp_path: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossrank.planner import memory

    calls: list[str] = []
    known = CostModel(0.001, 0.0, 0.0001, 0.0)

    def fake(scorer: CrossEncoder, seconds: float) -> CostModel:
        calls.append("measured")
        return known

    ratio = 1.0
    monkeypatch.setattr(memory, "measure", fake)
    monkeypatch.setattr(memory, "check", lambda scorer, model: ratio)
    kept = Memory(tmp_path / "costs", "1")

    def pace(memory: Memory = kept) -> CostModel:
        return memory.pace(crossrank.load(cross_encoder_folder, threads=1)).model

    assert pace() == known
    assert pace() == known
    assert calls == ["measured"]
    pace(Memory(str(tmp_path / "costs"), "2"))  # another version measures for itself
    assert len(calls) == 2
    ratio = 1.3
    pace()
    assert len(calls) == 3
    ratio = 1.0
    file = tmp_path / "costs" / "costs.json"
    assert os.name == "nt" or file.stat().st_mode & 0o777 == 0o600, "nobody else's"
    assert len(json.loads(file.read_text(encoding="utf-8"))) == 2
    for damaged in ("{", "[]", '{"a": 1}', json.dumps({key: {"call": -1} for key in json.loads(file.read_text())})):
        file.write_text(damaged, encoding="utf-8")
        before = len(calls)
        assert pace() == known
        assert len(calls) == before + 1
    entry = json.loads(file.read_text(encoding="utf-8")).popitem()
    for part, bad in {"workers": 2.5, "budget": 10**13, "padded": "no", "call": "1"}.items():
        file.write_text(json.dumps({entry[0]: entry[1] | {part: bad}}), encoding="utf-8")
        before = len(calls)
        assert pace(Memory(tmp_path / "costs", entry[0].rpartition(" | ")[2])) == known
        assert len(calls) == before + 1
    file.write_text("[" * 100_000, encoding="utf-8")
    assert pace() == known
    (tmp_path / "blocked").write_text("a file, not a folder", encoding="utf-8")
    assert pace(Memory(tmp_path / "blocked")) == known
    assert pace(Memory("~nobody-of-this-name/costs")) == known
    assert pace(Memory("no\0path")) == known


def test_what_is_measured_anew_counts_from_then_on(
    tmp_path: Path, scorer: CrossEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was written to the file, and the process went on by what no longer held."""
    from crossrank.planner import memory

    models = [model(1.0), model(2.0), model(3.0)]
    left = iter(models)
    monkeypatch.setattr(memory, "measure", lambda scorer, seconds: next(left))
    monkeypatch.setattr(memory, "check", lambda scorer, model: 2.0)
    kept = Memory(tmp_path)
    pace = kept.pace(scorer)
    for known in models[1:]:
        pace.observe([1000], 1.0)
        assert pace.ratio > 1.0
        assert kept.pace(scorer) is pace is measured(scorer)
        assert (pace.model, pace.ratio) == (known, 1.0)


def test_of_many_who_ask_a_memory_at_once_one_measures(
    tmp_path: Path, scorer: CrossEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossrank.planner import memory

    asked: list[CrossEncoder] = []
    together = threading.Barrier(4)

    def reading(self: Memory) -> dict[str, object]:
        if not asked:
            together.wait(60)
        return {}

    def measuring(scorer: CrossEncoder, seconds: float) -> CostModel:
        asked.append(scorer)
        time.sleep(0.05)
        return model(len(asked))

    monkeypatch.setattr(Memory, "_read", reading)
    monkeypatch.setattr(memory, "measure", measuring)
    with ThreadPoolExecutor(4) as pool:
        paces = list(pool.map(Memory(tmp_path).pace, [scorer] * 4))
    assert asked == [scorer]
    assert len(set(map(id, paces))) == 1


@pytest.mark.alone
def test_the_model_of_the_wheel_keeps_a_budget() -> None:
    """Loose: a shared machine may stop this process for a while, so the best of three counts.

    The budget is half of what this machine needs for all 200: any fixed one is enough for all of them on some machine.
    """
    question = "how often is an upload retried?"
    passages = [
        f"Passage {i} says that a hundred and {i} uploads were tried again after an hour. " * 4 for i in range(200)
    ]
    scorer = crossrank.load()
    whole = min(timeit.repeat(lambda: scorer.rank(question, passages), number=1, repeat=3))

    class Given:
        def retrieve(self, queries, depth):
            return [Ranking.sorted(list(map(str, range(200))), -np.arange(200, dtype=np.float32)) for _ in queries]

    def fetched(ids):
        return [crossrank.Passage(i, passages[int(i)]) for i in ids]

    held = Pipeline({"given": Given()}, fetched, (Stage(scorer, 200, name="small"),)).within(whole / 2 * 1000)
    answers: list[Answer] = [held.search(question) for _ in range(3)]
    assert min(answer.seconds for answer in answers) < whole
    for answer in answers:
        assert len(answer.passages) == 10
        assert len(answer.traces[-1].scores) in range(200)


@pytest.mark.alone
def test_a_family_of_real_models_goes_coarse_to_fine(tmp_path: Path) -> None:
    """A two-layer model made here, and one of sixteen layers: the plan follows what was measured of them."""
    folders = {n: tiny.cross_encoder(tmp_path / str(n), num_hidden_layers=n, hidden_size=64) for n in (2, 16)}
    stages = tuple(
        Stage(crossrank.load(folder, threads=1), depth, name=f"{n} layers")
        for (n, folder), depth in zip(folders.items(), (600, 100), strict=True)
    )
    ids = [f"d{i:03}" for i in range(600)]

    class Given:
        def retrieve(self, queries, depth):
            return [Ranking.sorted(ids, -np.arange(600, dtype=np.float32)) for _ in queries]

    def fetched(some):
        return [crossrank.Passage(i, f"the capital of france is paris and the cat {i}") for i in some]

    made = Pipeline({"given": Given()}, fetched, stages, depth=600).within(600_000)
    answer = made.search("what is the capital of france")
    assert [len(trace.scores) for trace in answer.traces] == [0, 600, 100]
    coarse, fine = (stage.pace for stage in made.stages)
    assert coarse is not None
    assert fine is not None
    both = coarse.usual(600) + fine.usual(100)
    # Four fifths of what both take: the fine one reads fewer, or the coarse one does.
    hurried = plan(made.stages, 600, 0.8 * both)
    assert sum(stage.depth for stage in hurried.stages) < 700
    assert plan(made.stages, 600, coarse.usual(1) / 100).stages == ()


def test_a_scorer_that_remembers_is_measured_as_if_it_did_not(tmp_path: Path, scorer: CrossEncoder) -> None:
    cached = crossrank.CachedScorer(scorer, tmp_path / "scores")
    for _ in range(2):
        measure(cached, seconds=0.1)
    assert cached.uses.asked == 0
    ids = [f"d{i}" for i in range(30)]
    pace = measured(cached, seconds=0.1)
    stage = Stage(cached, 30, pace=pace)
    start = Ranking.sorted(ids, -np.arange(30, dtype=np.float32))
    due = time.perf_counter() + 60
    rerank("cat", start, [stage], texts, deadline=due)
    ratio = pace.ratio
    rerank("cat", start, [stage], texts, deadline=due)
    assert cached.uses.known == 30
    assert pace.ratio == ratio
    cached.close()
