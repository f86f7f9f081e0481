"""The native engine against the reference backend: shapes, extremes, forks, threads and memory."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from crossrank import backends
from crossrank.backends.cpu import Native, choose, library
from crossrank.backends.limits import Limits
from crossrank.checkpoint import read
from crossrank.errors import InputError
from crossrank.types import Tokens

pytestmark = pytest.mark.skipif(library.obstacle() is not None, reason=f"no native library: {library.obstacle()}")

# scripts/sanitize.sh loads them first.
without_sanitizers = pytest.mark.skipif(
    "san.so" in os.environ.get("LD_PRELOAD", ""), reason="sanitizers need memory of their own"
)

SOURCES = Path(__file__).parents[2] / "native"
TIERS = library.tiers()
# (tier, dtype) -> how far a logit may be from the reference backend's, in units of the logits' spread.
FORMATS = {"float32": 1e-4, "bfloat16": 0.1, "int16": 0.01}
TOLERANCE = {(tier, dtype): FORMATS[dtype] for tier in TIERS for dtype in library.dtypes(tier)}


def scorer(folder: Path, tier: str, dtype: str, threads: int = 2) -> Native:
    return Native(read(folder), dtype, tier, threads)


@settings(max_examples=40, derandomize=True)
@given(
    st.integers(1, 5),  # heads
    st.sampled_from([2, 4, 6, 8, 16, 20, 32, 34]),  # head size
    st.integers(1, 70),  # inner size
    st.lists(st.integers(1, 64), min_size=1, max_size=40),  # lengths
    st.sampled_from(sorted(TOLERANCE)),
)
def test_any_shape_is_what_the_reference_computes(
    tmp_path_factory: pytest.TempPathFactory,
    heads: int,
    size: int,
    inner: int,
    lengths: list[int],
    kind: tuple[str, str],
) -> None:
    shape = {"hidden_size": heads * size, "num_attention_heads": heads, "intermediate_size": inner}
    folder = tiny.cross_encoder(tmp_path_factory.mktemp("shape"), **shape)
    # Random attention is all or nothing, so that a rounding can pick another token; halved twice it weighs, as trained
    # attention does.
    tensors = tiny.weights({**tiny.CONFIG, **shape}, 1)
    for name, tensor in tensors.items():
        if ".query." in name or ".key." in name:
            tensor *= 0.25
    tiny.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokens = tiny.random_tokens(lengths)
    want = backends.open(read(folder), "reference")
    got = scorer(folder, *kind)
    # A logit is a sum of `hidden` numbers of up to 0.3: what it would spread over if the one sequence had company.
    spread = max(1.0, 0.3 * (heads * size) ** 0.5, float(np.abs(want.forward(tokens)).max()))
    assert np.abs(got.forward(tokens) - want.forward(tokens)).max() < TOLERANCE[kind] * spread
    near = TOLERANCE[kind] * max(1.0, float(np.abs(want.pool(tokens, "mean")).max()))
    assert np.abs(got.pool(tokens, "mean") - want.pool(tokens, "mean")).max() < near
    assert np.abs(got.pool(tokens, "cls") - want.pool(tokens, "cls")).max() < near


@pytest.mark.parametrize("kind", sorted(TOLERANCE))
def test_states_are_what_pooling_pools(bi_encoder_folder: Path, kind: tuple[str, str]) -> None:
    native = scorer(bi_encoder_folder, *kind)
    tokens = tiny.random_tokens([5, 1, 33, 64])
    states = native.states(tokens)
    assert states.shape == (len(tokens.ids), tiny.CONFIG["hidden_size"])
    for i, vector in enumerate(native.pool(tokens, "mean")):
        mine = states[tokens.offsets[i] : tokens.offsets[i + 1]]
        np.testing.assert_allclose(mine.mean(axis=0), vector, atol=1e-5)
        np.testing.assert_array_equal(mine[0], native.pool(tokens.take([i]), "cls")[0])


@pytest.mark.parametrize("kind", sorted(TOLERANCE))
def test_huge_attention_logits_do_not_overflow_the_softmax(tmp_path: Path, kind: tuple[str, str]) -> None:
    folder = tiny.cross_encoder(tmp_path)
    tensors = tiny.weights(tiny.CONFIG, 1)
    for name, tensor in tensors.items():
        if ".query.weight" in name or ".key.weight" in name:
            tensor *= 1e8
    tiny.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert np.isfinite(scorer(folder, *kind).forward(tiny.random_tokens([1, 9, 64]))).all()


@pytest.mark.parametrize("kind", sorted(TOLERANCE))
@pytest.mark.parametrize("where", ["attention.self.key.bias", "attention.self.value.bias", "output.dense.bias"])
def test_a_damaged_layer_is_not_hidden(tmp_path: Path, kind: tuple[str, str], where: str) -> None:
    folder = tiny.cross_encoder(tmp_path)
    tensors = tiny.weights(tiny.CONFIG, 1)
    tensors[f"bert.encoder.layer.0.{where}"][3] = np.nan
    tiny.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert np.isnan(scorer(folder, *kind).forward(tiny.random_tokens([1, 9, 64]))).all()


def test_offsets_that_reach_beyond_the_ids_are_refused(cross_encoder_folder: Path) -> None:
    native, tokens = scorer(cross_encoder_folder, TIERS[-1], "float32"), tiny.random_tokens([4, 9])
    for offsets in ([0, 4, 14], [1, 4, 13], [0, 4]):
        with pytest.raises(InputError, match="offsets of tokens"):
            native.forward(Tokens(tokens.ids, tokens.types, np.array(offsets, dtype=np.int64)))
    with pytest.raises(InputError, match="offsets of tokens"):
        native.forward(Tokens(tokens.ids, tokens.types[:5], tokens.offsets))


@pytest.mark.parametrize(
    "wrong",
    [Tokens.of([[2, 1 << 30]]), Tokens.of([[2, -1]]), Tokens.of([[2]], [[1 << 30]]), tiny.random_tokens([2, 65])],
    ids=["id", "negative id", "type", "length"],
)
def test_the_library_itself_reads_no_row_that_is_not_there(
    cross_encoder_folder: Path, wrong: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Limits, "admit", lambda limits, tokens: tokens)
    with pytest.raises(InputError, match="has no row for"):
        scorer(cross_encoder_folder, "portable", "float32").forward(wrong)


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_threads_do_not_change_a_bit(cross_encoder_folder: Path, threads: int) -> None:
    tokens = tiny.random_tokens((np.arange(200) % 64 + 1).tolist())
    one = scorer(cross_encoder_folder, TIERS[-1], "float32", 1).forward(tokens)
    np.testing.assert_array_equal(scorer(cross_encoder_folder, TIERS[-1], "float32", threads).forward(tokens), one)


@pytest.mark.parametrize("kind", sorted(TOLERANCE))
def test_units_that_share_the_last_layer_are_the_same_to_the_bit(
    cross_encoder_folder: Path, kind: tuple[str, str]
) -> None:
    """More units than go together, of all lengths, against each sequence alone."""
    lengths = (np.arange(400) * 29 % 64 + 1).tolist()
    tokens = tiny.random_tokens(lengths)
    one = scorer(cross_encoder_folder, *kind, threads=1)
    alone = [
        Tokens(tokens.ids[a:b], tokens.types[a:b], np.array([0, b - a]))
        for a, b in itertools.pairwise(tokens.offsets.tolist())
    ]
    logits, vectors = one.forward(tokens), one.pool(tokens, "cls")
    np.testing.assert_array_equal(logits, np.concatenate([one.forward(each) for each in alone]))
    np.testing.assert_array_equal(vectors, np.concatenate([one.pool(each, "cls") for each in alone]))
    two = scorer(cross_encoder_folder, *kind, threads=2)
    np.testing.assert_array_equal(two.forward(tokens), logits)
    np.testing.assert_array_equal(two.pool(tokens, "cls"), vectors)


@pytest.mark.parametrize("kind", sorted(TOLERANCE))
@pytest.mark.parametrize("lengths", [[64], [1], [5], [63, 2], [7, 64, 3], [64] * 3])
def test_a_request_divided_by_rows_is_the_same_to_the_bit(
    cross_encoder_folder: Path, lengths: list[int], kind: tuple[str, str]
) -> None:
    """Fewer sequences than threads, or one that outweighs the rest: threads share the rows of each layer."""
    tokens = tiny.random_tokens(lengths)
    one = scorer(cross_encoder_folder, *kind, threads=1)
    for threads in (2, 3, 16):
        many = scorer(cross_encoder_folder, *kind, threads=threads)
        np.testing.assert_array_equal(many.forward(tokens), one.forward(tokens))
        np.testing.assert_array_equal(many.pool(tokens, "mean"), one.pool(tokens, "mean"))
        np.testing.assert_array_equal(many.pool(tokens, "cls"), one.pool(tokens, "cls"))
        np.testing.assert_array_equal(many.states(tokens), one.states(tokens))


def test_many_callers_at_once_divide_their_requests(cross_encoder_folder: Path) -> None:
    native = scorer(cross_encoder_folder, TIERS[-1], "float32", 4)
    requests = [tiny.random_tokens([length]) for length in range(20, 60)]
    want = [native.forward(tokens) for tokens in requests]
    with ThreadPoolExecutor(8) as callers:
        for _ in range(5):
            for got, expected in zip(callers.map(native.forward, requests), want, strict=True):
                np.testing.assert_array_equal(got, expected)


FORKS = """
import multiprocessing, sys
import numpy as np
sys.path.insert(0, sys.argv[2])
import tiny
from crossrank.backends.cpu import Native
from crossrank.checkpoint import read

def score(native, tokens, queue):
    queue.put(native.forward(tokens))

native = Native(read(sys.argv[1]), "float32", None, 4)
tokens = tiny.random_tokens([64] * 100)
want = native.forward(tokens)  # the pool's threads exist from here on, and do not in a child
context = multiprocessing.get_context("fork")
queue = context.Queue()
children = [context.Process(target=score, args=(native, tokens, queue)) for _ in range(3)]
for child in children:
    child.start()
for _ in children:
    np.testing.assert_array_equal(queue.get(timeout=60), want)
for child in children:
    child.join(timeout=60)
    assert child.exitcode == 0
np.testing.assert_array_equal(native.forward(tokens), want)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_scores_with_the_parents_model(cross_encoder_folder: Path) -> None:
    """In a process of its own: other libraries of this one (lance) do not survive a fork."""
    tests = Path(tiny.__file__).parent
    command = [sys.executable, "-c", FORKS, str(cross_encoder_folder), str(tests)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts in kilobytes on Linux only")
def test_the_steady_state_takes_no_more_memory(cross_encoder_folder: Path) -> None:
    native = scorer(cross_encoder_folder, TIERS[-1], "float32")
    tokens = tiny.random_tokens((np.arange(2000) % 64 + 1).tolist())
    for _ in range(5):
        native.forward(tokens)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(60):
        native.forward(tokens)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2000


LONG = """
import sys
import numpy as np
from pathlib import Path
from crossrank.backends.cpu import Native, tiers
from crossrank.checkpoint import read
from crossrank.types import Tokens

def resident(key):
    status = Path("/proc/self/status").read_text()
    return int(status.split(key + ":")[1].split()[0]) // 1024

native = Native(read(Path(sys.argv[1])), "float32", tiers()[-1], 16)
before = resident("VmRSS")
native.pool(Tokens.of([[3] * 4096] * 4), "cls")
print(resident("VmHWM") - before, resident("VmRSS") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@without_sanitizers
def test_long_documents_take_memory_by_threads_and_give_it_back(tmp_path: Path) -> None:
    shape = {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 1, "max_position_embeddings": 4096}
    folder = tiny.modern(tmp_path / "model", **shape)
    done = subprocess.run(
        [sys.executable, "-c", LONG, str(folder)], capture_output=True, text=True, check=True, timeout=120
    )
    most, kept = (int(number) for number in done.stdout.split())
    assert most < 150  # 25 here, and 300 with buffers for each of 128 parts
    assert kept < 40


def test_many_models_come_and_go(cross_encoder_folder: Path) -> None:
    checkpoint, tokens = read(cross_encoder_folder), tiny.random_tokens([7, 30])
    scores = {Native(checkpoint, "float32").forward(tokens).tobytes() for _ in range(40)}
    assert len(scores) == 1


@pytest.mark.alone
@pytest.mark.skipif("san.so" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer's own work would be measured")
@pytest.mark.skipif("avx512" not in TIERS or "bfloat16" not in library.dtypes("avx512"), reason="no AVX512-BF16 here")
def test_bfloat16_is_taken_where_it_is_faster(cross_encoder_folder: Path) -> None:
    checkpoint = read(cross_encoder_folder)
    faster = library.peak("avx512", "bfloat16", 0.1) > library.peak("avx512", "float32", 0.1)
    assert choose("avx512", "auto", checkpoint) == ("avx512", "bfloat16" if faster else "float32")
    assert choose("avx512", "bfloat16", checkpoint) == ("avx512", "bfloat16")
    if "amx_bf16" in TIERS:
        assert choose(None, "auto", checkpoint) == choose(None, "bfloat16", checkpoint) == ("amx_bf16", "bfloat16")


@pytest.mark.alone
@pytest.mark.skipif("san.so" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer's own work would be measured")
@pytest.mark.skipif("avx2" not in TIERS, reason="no AVX2 here")
def test_int16_is_taken_where_it_is_faster(cross_encoder_folder: Path) -> None:
    checkpoint = read(cross_encoder_folder)
    assert choose("avx2", "int16", checkpoint) == ("avx2", "int16")
    best = "amx_bf16" if "amx_bf16" in TIERS and "int16" in library.dtypes("amx_bf16") else "avx2"
    assert choose(None, "int16", checkpoint) == (best, "int16")
    taken = choose("avx2", "auto", checkpoint)[1]
    assert taken == ("int16" if "int16" in library.faster("avx2") else "float32")
    # Half again as fast in short products, so that a neighbour does not hide it.
    assert taken == "float32" or library.peak("avx2", "int16", 0.2) > library.peak("avx2", "float32", 0.2)
    if "avx512" not in TIERS:
        assert choose(None, "auto", checkpoint) == ("avx2", taken)


def test_the_peak_is_a_rate() -> None:
    assert library.peak(TIERS[0], "float32", 0.02) > 0.1


@pytest.mark.skipif(not SOURCES.is_dir(), reason="the native sources are not here")
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_what_is_outside_a_window_weighs_nothing(tmp_path: Path) -> None:
    program, source = tmp_path / "attention", Path(__file__).with_name("attention.cpp")
    command = ["c++", "-std=c++17", "-O2", "-ffp-contract=fast", f"-I{SOURCES}", str(source), "-o", program]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    done = subprocess.run([program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout


AT_EXIT = """
import sys, threading, time
import crossrank
from crossrank.types import Tokens

backend = crossrank.load(sys.argv[1], backend="cpu", threads=1).backend
rows = Tokens.of([[2] + [5] * 60 + [3]] * 20_000)
threading.Thread(target=backend.forward, args=(rows,), daemon=True).start()
time.sleep(0.05)
"""


def test_a_process_may_end_while_a_daemon_thread_computes(cross_encoder_folder: Path) -> None:
    """The engine was freed under it: a segmentation fault."""
    subprocess.run([sys.executable, "-c", AT_EXIT, str(cross_encoder_folder)], check=True, timeout=60)


WITHOUT_MEMORY = """
import resource, sys
from crossrank.backends.cpu import library

library.tiers()
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1])
resource.setrlimit(resource.RLIMIT_AS, (used * 1024 + 300_000,) * 2)
held = []
try:
    while True:
        held.append(bytearray(60_000))
except MemoryError:
    del held[-2:]  # enough for Python, too little for the matrices
sys.exit(int(library.peak("portable", "float32", 0.01)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and limits the address space")
@without_sanitizers
def test_no_exception_leaves_the_library() -> None:
    """One of C++ ends the process, whoever waits for it."""
    subprocess.run([sys.executable, "-c", WITHOUT_MEMORY], check=True, timeout=60)
