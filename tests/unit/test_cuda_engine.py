"""The GPU engine at work, on the CPU: batches in flight, memory that runs out, several cards, messages."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra torch is not installed")
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import tiny
from crossrank import backends
from crossrank.backends.cuda import card as engine
from crossrank.backends.cuda import cards, devices, fusing, ladder, model
from crossrank.backends.cuda import graphs as graph_module
from crossrank.backends.cuda.attention import Padded
from crossrank.backends.cuda.batch import Batch
from crossrank.backends.cuda.capturing import capturing
from crossrank.backends.cuda.card import AHEAD, LANES, Card
from crossrank.backends.cuda.cards import Cards
from crossrank.backends.cuda.graphs import Direct, Graphs
from crossrank.backends.cuda.ladder import Ladder
from crossrank.backends.cuda.lanes import Lane
from crossrank.backends.cuda.layers import ACTIVATIONS, Linear, Place, mean
from crossrank.backends.cuda.memory import ran_out
from crossrank.checkpoint import read
from crossrank.errors import InputError
from crossrank.types import Tokens

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
LENGTHS = [5, 60, 1, 17, 17, 17, 3, 33, 64, 2, 40, 40]
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
]


def opened(folder: Path, dtype: Any = torch.float32, rounded: bool = True) -> Card:
    return Card(read(folder), CPU, dtype, rounded=rounded)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BATCH", 100)


class Runner(Direct):
    """Computes, and does before it what a test asks for."""

    def __init__(self, card: Card, before: Callable[[Any], None]) -> None:
        super().__init__(card._model, CPU)
        self.before, self.forgotten = before, 0
        card._direct = self
        card._fitted = None if card._fitted is None else self

    def run(self, numbers: Any, shape: Any, output: Any, partly: bool) -> Any:
        self.before(shape)
        return super().run(numbers, shape, output, partly)

    def forget(self) -> None:
        self.forgotten += 1


def free_lanes(card: Card) -> int:
    return card._lanes._free.qsize()


# --- a batch on the card -----------------------------------------------------------------------------------------


def test_rows_know_their_sequence_and_place() -> None:
    tokens = tiny.random_tokens([3, 1, 4])
    shape = Ladder(1024, 64, 512).fit(tokens)
    assert shape is not None
    numbers = np.empty(shape.numbers, dtype=np.int32)
    ladder.fill(numbers, tokens, None, shape)
    batch = Batch.of(torch.from_numpy(numbers), shape, partly=False)
    assert batch.owner[:8].tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert batch.place[:8].tolist() == [0, 1, 2, 0, 0, 1, 2, 3]
    assert batch.first[:3].tolist() == [0, 3, 4]
    assert batch.real[:8].all()
    assert not batch.real[8:].any()
    assert not batch.place[8:].any()
    assert batch.owner.max() < shape.sequences
    assert batch.first.max() < shape.tokens


def test_the_mean_is_of_a_sequence_alone_whatever_lies_past_the_last() -> None:
    tokens = tiny.random_tokens([3, 1, 4])
    shape = Ladder(1024, 64, 512).fit(tokens)
    assert shape is not None
    numbers = np.empty(shape.numbers, dtype=np.int32)
    ladder.fill(numbers, tokens, None, shape)
    states = torch.randn(shape.tokens, 6, generator=torch.Generator().manual_seed(0))
    states[8:] = float("nan")
    found = mean(states, Batch.of(torch.from_numpy(numbers), shape, partly=False))
    want = torch.stack([states[0:3].mean(0), states[3], states[4:8].mean(0)])
    torch.testing.assert_close(found[:3], want)


@pytest.mark.parametrize("rounded", [True, False])
def test_the_last_layer_computes_first_tokens_only(
    tmp_path: Path, rounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = 80
    card = opened(tiny.cross_encoder(tmp_path, intermediate_size=inner), rounded=rounded)
    rows: list[tuple[int, int]] = []
    original = Linear.__call__

    def spy(self: Linear, x: Any) -> Any:
        rows.append((len(x), len(self.weight)))
        return original(self, x)

    monkeypatch.setattr(Linear, "__call__", spy)
    card.forward(tiny.random_tokens(LENGTHS))
    counts = [count for count, outputs in rows if outputs == inner]
    total, count = sum(LENGTHS), len(LENGTHS)
    assert counts == ([320, 16] if rounded else [total, count])


# --- batches in flight -------------------------------------------------------------------------------------------


def test_two_batches_are_in_flight(
    cross_encoder_folder: Path, small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = opened(cross_encoder_folder)
    want = backends.open(read(cross_encoder_folder), "reference").forward(tiny.random_tokens(LENGTHS))
    events: list[str] = []
    Runner(card, lambda shape: events.append("launch"))
    monkeypatch.setattr(Lane, "wait", lambda self: events.append("wait"))
    got = card.forward(tiny.random_tokens(LENGTHS))
    assert np.abs(got - want).max() < 1e-5
    launches = events.count("launch")
    assert launches >= 4
    assert events == ["launch"] * AHEAD + ["wait", "launch"] * (launches - AHEAD) + ["wait"] * AHEAD
    assert free_lanes(card) == LANES


def test_threads_that_want_more_lanes_than_there_are_all_end(cross_encoder_folder: Path, small_batches: None) -> None:
    card = opened(cross_encoder_folder)
    calls = [tiny.random_tokens([64] * (1 + i % 9), seed=i) for i in range(48)]
    want = [card.forward(call) for call in calls]
    with ThreadPoolExecutor(12) as pool:
        got = list(pool.map(card.forward, calls))
    for one, other in zip(want, got, strict=True):
        np.testing.assert_array_equal(one, other)
    assert free_lanes(card) == LANES


def test_an_error_gives_every_lane_back(cross_encoder_folder: Path, small_batches: None) -> None:
    card = opened(cross_encoder_folder)
    calls = [0]

    def third(shape: Any) -> None:
        calls[0] += 1
        if calls[0] % 3 == 0:
            raise RuntimeError("an error of the card")

    Runner(card, third)
    for _ in range(2 * LANES):
        with pytest.raises(RuntimeError, match="an error of the card"):
            card.forward(tiny.random_tokens([64] * 4))
        assert free_lanes(card) == LANES
        calls[0] = 0


def test_a_lane_is_given_back_only_when_the_card_is_done(
    cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = opened(cross_encoder_folder)
    events: list[str] = []

    def broken(shape: Any) -> None:
        raise RuntimeError("an error after the copy began")

    class Stream:
        def synchronize(self) -> None:
            assert card._turn.locked(), "another thread may capture on this stream, and waiting would end its capture"
            events.append("card is done")
            raise RuntimeError("the card says that once more")

    Runner(card, broken)
    monkeypatch.setattr(card, "_stream", Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(card._lanes, "give", lambda lane: events.append("given back"))
    with pytest.raises(RuntimeError, match="after the copy"):
        card.forward(tiny.random_tokens([5]))
    assert events == ["card is done", "given back"]


def test_memory_that_ran_out_stays_the_reason_when_waiting_fails_too(
    cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = opened(cross_encoder_folder)

    def limited(shape: Any) -> None:
        if shape.tokens > 512:
            raise torch.OutOfMemoryError("CUDA out of memory")

    class Stream:
        def synchronize(self) -> None:
            raise RuntimeError("an error of waiting")

    Runner(card, limited)
    monkeypatch.setattr(card, "_stream", Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    assert card.forward(tiny.random_tokens([60] * 20)).shape == (20,)
    assert card.room <= 1200
    assert free_lanes(card) == LANES


def test_pinned_memory_is_neither_taken_nor_freed_during_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    plain = torch.empty

    def empty(*sizes: int, dtype: Any, pin_memory: bool = False) -> Any:
        taken.append(capturing.locked())
        return plain(*sizes, dtype=dtype)

    lane = Lane(False, 100)
    monkeypatch.setattr(torch, "empty", empty)
    lane.numbers(100)
    assert not taken, "it had that much from the beginning"
    lane.numbers(101)
    lane.receive(torch.ones(3))
    assert taken == [True, True]


def test_loading_waits_for_no_more_than_its_own_copies(
    cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []

    class Pretended(Place):
        def tensor(self, array: Any) -> Any:
            return torch.tensor(array)

        def exact(self) -> Place:
            return self

    class Stream:
        def synchronize(self) -> None:
            waited.append("stream")

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append("card"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(fusing, "best", lambda device, dtype: fusing.Plain())
    model.Model(read(cross_encoder_folder), Pretended(torch.device("cuda", 0), torch.float32))
    assert waited == ["stream"]


def test_engines_that_share_a_stream_take_turns() -> None:
    stream = lambda handle: SimpleNamespace(device=torch.device("cuda", 0), cuda_stream=handle)  # noqa: E731
    assert engine._turn(stream(7)) is engine._turn(stream(7))
    assert engine._turn(stream(7)) is not engine._turn(stream(8))


@pytest.mark.parametrize("padded", [True, False], ids=["padded", "packed"])
def test_where_attention_pads_no_more_is_computed_than_was_planned(
    tmp_path: Path, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card(read(tiny.cross_encoder(tmp_path, max_position_embeddings=512)), CPU, torch.float32)
    card._fitted = card._direct  # as on a card with graphs
    monkeypatch.setattr(card._model, "padded", lambda partly: padded)
    computed: list[int] = []
    plain = Padded._spread

    def spread(packed: Any, batch: Any) -> Any:
        found = plain(packed, batch)
        computed.append(found.shape[0] * found.shape[3])
        return found

    monkeypatch.setattr(Padded, "_spread", staticmethod(spread))
    card.forward(tiny.random_tokens([130] * 130))
    # The sizes of the ladder are eight times as many, which cost nothing where attention ends with each sequence.
    assert set(computed) == {130 * 130 if padded else 256 * 512}


# --- graphs ------------------------------------------------------------------------------------------------------


class Recorded(TorchDispatchMode):
    """Stands for a CUDA graph: a replay computes again what was captured, from and into the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.steps.append((func, args, kwargs or {}, made))
        return made

    def replay(self) -> None:
        for func, args, kwargs, made in self.steps:
            again = func(*args, **kwargs)
            given = {place(one) for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)}
            for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and place(old) not in given:  # else a view, or written in place
                    old.copy_(new)


def place(tensor: Any) -> int:
    """Where the memory of a tensor lies."""
    return tensor.untyped_storage().data_ptr()


def with_graphs(card: Card, monkeypatch: pytest.MonkeyPatch) -> Graphs:
    """Let the card replay recordings on the CPU."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **settings: graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    stream: Any = SimpleNamespace(synchronize=lambda: None)
    found = Graphs(card._model, CPU, stream, card._ladder)
    card._fitted = found
    return found


def test_a_shape_is_captured_when_it_comes_again(cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = opened(cross_encoder_folder)
    graphs = with_graphs(card, monkeypatch)
    want = backends.open(read(cross_encoder_folder), "reference")
    computed: list[int] = []
    plain = card._model.compute
    monkeypatch.setattr(card._model, "compute", lambda *some: (computed.append(1), plain(*some))[1])
    for captured, passes, lengths in ((0, 1, [60, 3]), (1, 3, [7, 64, 9]), (1, 3, [33, 33]), (1, 3, [1])):
        tokens = tiny.random_tokens(lengths, seed=captured)
        assert np.abs(card.forward(tokens) - want.forward(tokens)).max() < 1e-5
        assert (len(graphs._held), len(computed)) == (captured, passes)


def test_the_graph_replayed_longest_ago_goes(cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = opened(cross_encoder_folder)
    held = with_graphs(card, monkeypatch)._held
    monkeypatch.setattr(graph_module, "MOST_GRAPHS", 2)
    sizes: list[list[int]] = []
    for count in (2, 2, 6, 6, 2, 20, 20):
        card.forward(tiny.random_tokens([60] * count))
        sizes.append([shape.tokens for shape, *_ in held])
    assert sizes == [[], [256], [256], [256, 384], [384, 256], [384, 256], [256, 1280]]


def test_graphs_keep_no_results_of_their_own(cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = opened(cross_encoder_folder)
    graphs = with_graphs(card, monkeypatch)
    want = backends.open(read(cross_encoder_folder), "reference")
    calls = [tiny.random_tokens([60] * count, seed=count) for count in (5, 20, 9, 20, 2, 5, 9, 2)]
    for tokens in 3 * calls:
        assert np.abs(card.states(tokens) - want.states(tokens)).max() < 1e-5
        assert np.abs(card.pool(tokens, "mean") - want.pool(tokens, "mean")).max() < 1e-5
    results = [result for _, result in graphs._held.values()]
    assert len(results) == 8
    kept = {place(result): result.untyped_storage().nbytes() for result in results}
    assert sum(kept.values()) <= 4 * max(result.nbytes for result in results), "one, and smaller ones before it"
    graphs._stream = SimpleNamespace(synchronize=lambda: None)  # type: ignore[assignment]
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    graphs.forget()
    assert not graphs._held
    assert not graphs._results.numel()
    assert np.abs(card.states(calls[0]) - want.states(calls[0])).max() < 1e-5


def test_the_graphs_buffer_is_filled_on_the_stream_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[Any] = []

    @contextmanager
    def stream(one: Any) -> Iterator[None]:
        current.append(one)
        yield
        current.pop()

    filled: list[Any] = []
    plain = torch.zeros
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    monkeypatch.setattr(torch, "zeros", lambda *sizes, **more: (filled.append(list(current)), plain(*sizes, **more))[1])
    Graphs(None, CPU, "its own", Ladder(256, 8))  # type: ignore[arg-type]
    assert filled == [["its own"]]


# --- memory ------------------------------------------------------------------------------------------------------


def test_which_errors_mean_that_memory_ran_out() -> None:
    for error in OUT_OF_MEMORY:
        on_top = ValueError("the capture was invalidated")
        on_top.__context__ = RuntimeError("of a wait")
        assert not ran_out(on_top)
        on_top.__context__.__context__ = error
        assert ran_out(error)
        assert ran_out(on_top), "under two others"
    assert ran_out(torch.OutOfMemoryError("")), "whatever it says"
    for other in (RuntimeError("device-side assert"), ValueError("out of memory"), MemoryError("out of memory")):
        assert not ran_out(other), "of the host, or of a message"


@pytest.mark.parametrize("output", ["forward", "mean", "states"])
@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[-30:])
def test_out_of_memory_halves_the_batch_and_goes_on(
    cross_encoder_folder: Path, output: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = opened(cross_encoder_folder, rounded=False)
    # Batches of states are smaller to begin with.
    monkeypatch.setattr(engine, "STATES", engine.BATCH)
    monkeypatch.setattr(engine, "LEAST", 1)
    tokens = tiny.random_tokens(LENGTHS * 5)
    answers: dict[str, Callable[[Any], Any]] = {
        "forward": lambda one: one.forward(tokens),
        "mean": lambda one: one.pool(tokens, "mean"),
        "states": lambda one: one.states(tokens),
    }
    want = answers[output](backends.open(read(cross_encoder_folder), "reference"))
    failures = 0

    def limited(shape: Any) -> None:
        nonlocal failures
        if shape.tokens > 200:
            failures += 1
            raise error

    runner = Runner(card, limited)
    assert np.abs(answers[output](card) - want).max() < 1e-5
    assert failures >= 2
    assert runner.forgotten == failures
    assert 100 <= card.room <= 400
    assert free_lanes(card) == LANES
    # Batches of later calls are cut anew: one of them may be between what failed and what fitted, and is tried twice.
    before = failures
    answers[output](card)
    assert failures <= before + 2
    before = failures
    answers[output](card)
    assert failures == before, "a card that was found to be small must not be tried again and again"


def test_memory_that_is_short_for_a_moment_costs_one_more_try(
    cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = opened(cross_encoder_folder)
    launches = [0]

    def once(shape: Any) -> None:
        launches[0] += 1
        if launches[0] == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    runner = Runner(card, once)
    assert card.forward(tiny.random_tokens([5, 4])).shape == (2,)
    assert (launches[0], runner.forgotten) == (2, 1)
    assert card.room == engine.BATCH


def test_the_room_has_a_floor_and_grows_again(cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = opened(cross_encoder_folder)
    full = [True]

    def held_by_others(shape: Any) -> None:
        if full[0] and shape.sequences > 1 and shape.tokens > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    card._fitted = None  # shapes as they come
    Runner(card, held_by_others)
    assert card.forward(tiny.random_tokens([5, 4, 3])).shape == (3,)
    assert card.room == engine.LEAST
    full[0] = False
    monkeypatch.setattr(engine, "RAISED", 2)
    for _ in range(20):
        card.forward(tiny.random_tokens([5, 4, 3]))
    assert card.room == engine.BATCH


def test_memory_that_ends_while_a_graph_is_captured_is_memory_all_the_same(cross_encoder_folder: Path) -> None:
    card = opened(cross_encoder_folder)

    def capturing(shape: Any) -> None:
        if shape.tokens > 512:
            try:
                raise torch.OutOfMemoryError("CUDA out of memory")
            except torch.OutOfMemoryError:
                raise RuntimeError("the capture was invalidated")  # noqa: B904

    Runner(card, capturing)
    assert card.forward(tiny.random_tokens([60] * 20)).shape == (20,)
    assert card.room <= 1200


def test_a_sequence_that_does_not_fit_alone_is_an_error_with_a_cure(cross_encoder_folder: Path) -> None:
    card = opened(cross_encoder_folder)

    def never(shape: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    Runner(card, never)
    with pytest.raises(MemoryError, match=r"not enough memory for one sequence of 64 tokens.*nvidia-smi"):
        card.forward(tiny.random_tokens([64, 3, 3]))
    assert free_lanes(card) == LANES


def test_weights_are_on_the_card_once_a_process(tmp_path: Path) -> None:
    folder = tiny.cross_encoder(tmp_path / "one")
    one, other = opened(folder), opened(folder)
    assert one._model is other._model
    assert opened(folder, torch.bfloat16)._model is not one._model
    tensors = tiny.weights(tiny.CONFIG, 1, seed=5)
    tiny.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert opened(folder)._model is not one._model
    held = len(model._shared)
    del one, other
    assert len(model._shared) < held, "weights must go with the last engine that uses them"


def test_a_forked_child_is_told_to_load_its_own(cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = opened(cross_encoder_folder)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(InputError, match=r"does not survive a fork.*'spawn'"):
        card.forward(tiny.random_tokens([4]))


# --- fused kernels -----------------------------------------------------------------------------------------------


@pytest.fixture
def triton_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing.extras, "available", lambda name: True)
    monkeypatch.setitem(sys.modules, "crossrank.backends.cuda.kernels", SimpleNamespace(Fused=lambda: FUSED))
    fusing._tried.cache_clear()


FUSED = SimpleNamespace(name="Triton kernels")
GPU = torch.device("cuda", 0)


def test_memory_that_was_short_once_does_not_cost_the_fused_kernels(
    triton_is_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(OUT_OF_MEMORY)

    def agree(*given: Any) -> bool:
        for error in answers:
            raise error
        return True

    monkeypatch.setattr(fusing, "agree", agree)
    for _ in OUT_OF_MEMORY:
        with pytest.warns(RuntimeWarning, match="cuda:0 is short of memory now; the next load tries them again"):
            assert isinstance(fusing.best(GPU, torch.bfloat16), fusing.Plain)
    assert fusing.best(GPU, torch.bfloat16) is FUSED
    fusing._tried.cache_clear()


def test_why_there_are_no_fused_kernels_is_said(triton_is_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def agree(*given: Any) -> bool:
        tried.append(1)
        raise RuntimeError("Failed to find C compiler.\nSet the CC environment variable")

    monkeypatch.setattr(fusing, "agree", agree)
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match=r"not used: RuntimeError: Failed to find C compiler\.$"):
            assert isinstance(fusing.best(GPU, torch.bfloat16), fusing.Plain)
    assert len(tried) == 1
    monkeypatch.setattr(fusing, "agree", lambda *given: False)
    with pytest.warns(RuntimeWarning, match="not used: they give other numbers here"):
        fusing.best(GPU, torch.float16)
    fusing._tried.cache_clear()


# --- cards -------------------------------------------------------------------------------------------------------


def test_several_cards_give_the_answers_of_one(cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "WORTH", 50)
    one, three = opened(cross_encoder_folder), Cards([opened(cross_encoder_folder) for _ in range(3)])
    tokens = tiny.random_tokens(LENGTHS)
    seen = (tokens.lengths + 1) // 2
    tally = [Runner(card, lambda shape: None) for card in three._cards]
    for runner in tally:
        runner.before = lambda shape, runner=runner: setattr(runner, "used", True)
    assert np.abs(three.forward(tokens) - one.forward(tokens)).max() < 1e-5
    assert all(getattr(runner, "used", False) for runner in tally)
    assert np.abs(three.pool(tokens, "mean") - one.pool(tokens, "mean")).max() < 1e-5
    assert np.abs(three.pool(tokens, "cls") - one.pool(tokens, "cls")).max() < 1e-5
    assert np.abs(three.states(tokens, seen) - one.states(tokens, seen)).max() < 1e-5
    assert three.forward(Tokens.of([])).shape == (0,)
    assert three._busy == [0, 0, 0]
    assert three.budget == 3 * one.budget
    assert three.name == f"{one.name} and 2 more"


def test_a_small_call_goes_to_the_least_busy_card(cross_encoder_folder: Path) -> None:
    both = Cards([opened(cross_encoder_folder) for _ in range(2)])
    used: list[int] = []
    for i, card in enumerate(both._cards):
        Runner(card, lambda shape, i=i: used.append(i))
    both._busy[0] = 1
    both.forward(tiny.random_tokens([5, 6]))
    assert used == [1]


def test_shares_are_even() -> None:
    lengths = np.random.default_rng(0).integers(5, 512, 1000)
    parts = cards.shares(lengths, 3)
    assert sorted(np.concatenate(parts).tolist()) == list(range(1000))
    costs = [int(lengths[part].sum()) for part in parts]
    assert max(costs) - min(costs) <= 512


# --- which card and format ---------------------------------------------------------------------------------------


def test_without_a_gpu_the_reason_is_said(cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = read(cross_encoder_folder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    for settings in ({"name": "cuda"}, {"device": "cuda"}, {"device": "cuda:all"}):
        with pytest.raises(InputError, match=r"is a build without CUDA.*use backend='cpu'"):
            backends.open(checkpoint, **settings)  # type: ignore[arg-type]
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(InputError, match="torch sees no GPU: does `nvidia-smi` list it"):
        backends.open(checkpoint, "cuda")


def test_cards_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    for name, numbers in {"auto": [1], "cuda": [1], "cuda:2": [2], "cuda:all": [0, 1, 2], "cuda:2,0": [2, 0]}.items():
        assert [found.index for found in devices.named(name)] == numbers
    for wrong in ("cuda:3", "cuda:0,0", "cuda:-1", "cuda:x", "cuda:1,", "cuda:²"):
        with pytest.raises(InputError, match=r"cards that differ out of 0\.\.2"):
            devices.named(wrong)


def test_the_format_is_one_that_the_card_multiplies_in() -> None:
    found = [devices.format_of("auto", capability) for capability in ((9, 0), (8, 0), (7, 5), (7, 0), (6, 1))]
    assert found == [torch.bfloat16, torch.bfloat16, torch.float16, torch.float16, torch.float32]
    assert devices.format_of("float32", (9, 0)) == torch.float32
    with pytest.raises(InputError, match=r"compute capability 8.0 and this card has 7.5; use dtype='float16'"):
        devices.format_of("bfloat16", (7, 5))


def test_models_of_other_architectures_are_sent_to_torch(tmp_path: Path) -> None:
    from crossrank.errors import CheckpointError

    with pytest.raises(CheckpointError, match=r"cannot run .*'mish'.*Use backend='torch'"):
        backends.open(read(tiny.cross_encoder(tmp_path, hidden_act="mish")), "cuda")


def test_the_torch_backend_has_one_device(cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="the extra torch is not installed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InputError, match="one device, not on cuda:all"):
        backends.open(read(cross_encoder_folder), "torch", "cuda:all")


# --- fused kernels -----------------------------------------------------------------------------------------------


def test_every_activation_has_its_twin_and_its_code() -> None:
    x = torch.linspace(-4, 4, 101)
    for ours, theirs in ACTIVATIONS.items():
        values = x.numpy().copy()[None]
        ours(values, np.empty_like(values), np.empty_like(values))
        assert np.abs(theirs(x).numpy() - values[0]).max() < 2e-6


@pytest.mark.parametrize("step", ["add_norm", "add_and_norm", "gate", "turn"])
def test_a_kernel_that_is_wrong_is_not_taken(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = fusing.Plain()
    assert fusing.agree(plain, plain, CPU, torch.bfloat16)
    wrong = fusing.Plain()
    right = getattr(plain, step)

    def off(*arguments: Any) -> Any:
        result = right(*arguments)
        if step == "turn":
            arguments[0][3, 1, 0, 2] += 0.25
        elif step == "add_and_norm":
            result[0][5, 7] += 0.25
        else:
            result[5, 7] += 0.25
        return result

    monkeypatch.setattr(wrong, step, off)
    assert not fusing.agree(wrong, plain, CPU, torch.bfloat16)
