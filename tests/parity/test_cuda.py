"""The GPU engine against the reference backend, every architecture: on the CPU, and on a card where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")
import architectures
import torch

import tiny
from crossrank import backends, extras
from crossrank.backends.cuda import attention, card, fusing
from crossrank.backends.cuda.attention import Padded, Varlen
from crossrank.backends.cuda.card import Card
from crossrank.checkpoint import Checkpoint, read
from crossrank.types import Tokens

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
LENGTHS = [3, 40, 40, 96, 17, 1, 40, 8]
# As parts of the largest logit or state: bfloat16 keeps 8 bits and float16 11, and three layers add up.
CLOSE = {torch.float32: 1e-5, torch.float16: 0.01, torch.bfloat16: 0.04}

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
needs_triton = pytest.mark.skipif(not extras.available("triton"), reason="Triton is not installed")
GPU = [needs_gpu, pytest.mark.gpu]
DEVICES = ["cpu", pytest.param("cuda", marks=GPU), pytest.param("cuda without graphs", marks=GPU)]


@pytest.fixture(scope="module", params=architectures.NAMES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return architectures.make(request.param, tmp_path_factory.mktemp(request.param))


def some_tokens(checkpoint: Checkpoint, lengths: list[int] = LENGTHS, seed: int = 0) -> Tokens:
    return tiny.random_tokens(lengths, checkpoint.config["vocab_size"], seed, types=1 + checkpoint.token_types)


def opened(checkpoint: Checkpoint, where: str, dtype: Any, rounded: bool = True) -> Card:
    device = torch.device("cuda", 0) if where.startswith("cuda") else CPU
    return Card(checkpoint, device, dtype, graphs=where == "cuda", rounded=rounded and where != "cuda")


def check(got: np.ndarray, want: np.ndarray, dtype: Any) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() < CLOSE[dtype] * max(1.0, float(np.abs(want).max()))


@pytest.mark.parametrize("rounded", [True, False], ids=["rounded", "exact"])
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("where", DEVICES)
def test_scores_vectors_and_states(made: Path, where: str, dtype: Any, rounded: bool) -> None:
    checkpoint = read(made)
    tokens = some_tokens(checkpoint)
    want = backends.open(checkpoint, "reference")
    got = opened(checkpoint, where, dtype, rounded)
    for _ in range(4 if where == "cuda" else 2):  # from the second time on, where attention does not pad, a graph
        check(got.forward(tokens), want.forward(tokens), dtype)
        check(got.pool(tokens, "mean"), want.pool(tokens, "mean"), dtype)
        check(got.pool(tokens, "cls"), want.pool(tokens, "cls"), dtype)
        check(got.states(tokens), want.states(tokens), dtype)
        tokens = some_tokens(checkpoint, LENGTHS[::-1], seed=1)


@pytest.mark.parametrize("where", DEVICES)
def test_a_score_is_the_same_alone_and_in_a_batch(made: Path, where: str) -> None:
    checkpoint = read(made)
    tokens = some_tokens(checkpoint, LENGTHS * 30)
    got = opened(checkpoint, where, torch.float32)
    together = got.forward(tokens)
    for i in (0, 3, 5, 100, 239):
        assert abs(together[i] - got.forward(tokens.take([i]))[0]) < 1e-5


@pytest.mark.parametrize("where", DEVICES)
def test_tokens_that_attention_does_not_see(made: Path, where: str) -> None:
    checkpoint = read(made)
    tokens = some_tokens(checkpoint)
    for seen in (np.maximum(1, tokens.lengths - 5), np.ones_like(tokens.lengths)):
        want = backends.open(checkpoint, "reference").states(tokens, seen)
        for dtype in (torch.float32, torch.bfloat16):
            check(opened(checkpoint, where, dtype).states(tokens, seen), want, dtype)


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("name", architectures.NAMES)
def test_two_labels_give_log_odds(name: str, where: str, tmp_path: Path) -> None:
    checkpoint = read(architectures.make(name, tmp_path, labels=2))
    tokens = some_tokens(checkpoint)
    check(
        opened(checkpoint, where, torch.float32).forward(tokens),
        backends.open(checkpoint, "reference").forward(tokens),
        torch.float32,
    )


MODERN: list[dict[str, Any]] = [
    {"classifier_pooling": "mean"},
    {"classifier_bias": True, "norm_bias": True, "attention_bias": True, "mlp_bias": True},
    {"classifier_activation": "silu", "hidden_activation": "gelu_pytorch_tanh"},
    {"num_hidden_layers": 2},  # the last layer is local: its [CLS] row sees only its window
    {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
]


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("change", MODERN, ids=lambda change: "-".join(change))
def test_what_modernbert_can_be(change: dict[str, Any], where: str, tmp_path: Path) -> None:
    checkpoint = read(architectures.make("modernbert", tmp_path, **change))
    tokens = some_tokens(checkpoint)
    want = backends.open(checkpoint, "reference").forward(tokens)
    for dtype in (torch.float32, torch.bfloat16):
        check(opened(checkpoint, where, dtype).forward(tokens), want, dtype)


@pytest.mark.parametrize("where", DEVICES)
def test_padding_tokens_inside_a_roberta_sequence_keep_the_padding_position(where: str, tmp_path: Path) -> None:
    checkpoint = read(architectures.make("roberta", tmp_path))
    tokens = Tokens.of([[0, 9, 1, 10, 2], [0, 1, 1, 2], [1, 5, 2]])
    check(
        opened(checkpoint, where, torch.float32).forward(tokens),
        backends.open(checkpoint, "reference").forward(tokens),
        torch.float32,
    )


# --- flash attention ---------------------------------------------------------------------------------------------


def flash_as_documented(
    query: Any, key: Any, value: Any, cu_q: Any, cu_k: Any, max_q: int, max_k: int, *,
    scale: float, window_size: tuple[int, int], seqused_k: Any,
) -> Any:  # fmt: skip
    """What torch's kernel for sequences of different lengths computes, slowly: a window is aligned with the last key
    that is seen, and rows that belong to no sequence are not written."""
    out = torch.full_like(query, float("nan"))
    for i in range(len(cu_q) - 1):
        rows, start = slice(int(cu_q[i]), int(cu_q[i + 1])), int(cu_k[i])
        used = int(cu_k[i + 1]) - start if seqused_k is None else int(seqused_k[i])
        count = rows.stop - rows.start
        assert count <= max_q
        assert used <= max_k
        k, v = key[start : start + used].float(), value[start : start + used].float()
        weights = torch.einsum("qhd,khd->hqk", query[rows].float(), k) * scale
        apart = torch.arange(used) - (torch.arange(count)[:, None] + used - count)
        for side, far in zip(window_size, (-apart, apart), strict=True):
            if side >= 0:
                weights = weights.masked_fill(far > side, float("-inf"))
        out[rows] = torch.einsum("hqk,khd->qhd", weights.softmax(-1), v).to(out.dtype)
    return out


def with_flash(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> Card:
    """The engine on the CPU, with what stands for the kernel, its batches rounded up."""
    monkeypatch.setattr(attention, "best", lambda device, dtype, size: Varlen(flash_as_documented))
    from crossrank.backends import sharing
    from crossrank.backends.cuda import model

    # Of its own, so that no other test gets a model with this kernel.
    monkeypatch.setattr(model, "_shared", sharing.Table())
    found = Card(checkpoint, CPU, torch.float32, rounded=True)
    assert not found._model.attention.padded
    return found


@pytest.mark.parametrize("change", [{}, *({"modernbert": one} for one in MODERN)], ids=str)
def test_the_kernel_is_asked_for_the_right_thing(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, Any] = change or {name: {} for name in architectures.NAMES}
    for name, settings in names.items():
        checkpoint = read(architectures.make(name, tmp_path / name, **settings))
        tokens = some_tokens(checkpoint)
        seen = np.maximum(1, tokens.lengths - 5)
        want = backends.open(checkpoint, "reference")
        got = with_flash(checkpoint, monkeypatch)
        check(got.forward(tokens), want.forward(tokens), torch.float32)
        check(got.pool(tokens, "mean"), want.pool(tokens, "mean"), torch.float32)
        check(got.states(tokens), want.states(tokens), torch.float32)
        check(got.states(tokens, seen), want.states(tokens, seen), torch.float32)


def test_the_kernel_of_this_torch_takes_what_it_is_given() -> None:
    kernel = attention.flash()
    if kernel is None:
        pytest.skip(f"torch {torch.__version__} has no attention for sequences of different lengths")
    # On tensors without numbers: names and kinds of the arguments are checked, and nothing is computed.
    meta: Callable[..., Any] = lambda *shape, **kind: torch.empty(*shape, device="meta", **kind)  # noqa: E731
    qkv = meta(256, 3, 4, 8, dtype=torch.bfloat16)
    offsets = meta(9, dtype=torch.int32)
    query, key, value = qkv.unbind(1)
    for reach in (None, meta(8, dtype=torch.int32)):
        for window in ((-1, -1), (8, 8)):
            settings: dict[str, Any] = {"scale": 1.0, "window_size": window, "seqused_k": reach}
            assert kernel(query, key, value, offsets, offsets, 128, 128, **settings).shape == (256, 4, 8)


def test_flash_attention_is_for_cards_and_formats_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, half = torch.device("cuda", 0), torch.bfloat16
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(attention, "flash", lambda: flash_as_documented)
    assert isinstance(attention.best(cuda, half, 32), Varlen)
    for other in ((CPU, half, 32), (cuda, torch.float32, 32), (cuda, half, 20), (cuda, half, 264)):
        assert isinstance(attention.best(*other), Padded)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert isinstance(attention.best(cuda, torch.float16, 32), Padded)


def test_sequences_that_are_padded_are_planned_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window over part of a sequence pads: one long sequence among short ones would take its length for each."""
    checkpoint = read(architectures.make("modernbert", tmp_path))
    got = with_flash(checkpoint, monkeypatch)
    got._rounded = False  # as on a card
    monkeypatch.setattr(card, "STATES", 200)
    costs: list[int] = []
    plain = Padded.every

    def every(self: Padded, qkv: Any, batch: Any, window: int | None) -> Any:
        costs.append(batch.shape.longest * batch.shape.sequences)
        return plain(self, qkv, batch, window)

    monkeypatch.setattr(Padded, "every", every)
    tokens = some_tokens(checkpoint, [96] + [4] * 20)
    got.states(tokens, np.maximum(1, tokens.lengths - 1))
    assert costs
    assert max(costs) <= 200


# --- fused kernels -----------------------------------------------------------------------------------------------


@needs_triton
def test_fused_kernels_agree_with_torch_in_tritons_interpreter() -> None:
    program = (
        "import torch; from crossrank.backends.cuda import fusing, kernels\n"
        "cpu = torch.device('cpu')\n"
        "print([fusing.agree(kernels.Fused(), fusing.Plain(), cpu, dtype) for dtype in fusing.CLOSE])"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    out = subprocess.check_output([sys.executable, "-c", program], text=True, env=environment)
    assert out.strip() == "[True, True, True]"


@needs_triton
def test_no_fused_activation_hides_a_damaged_number() -> None:
    program = (
        "import torch; from crossrank.backends.cuda import kernels\n"
        "wide = torch.tensor([[float('nan')] * 4 + [1.0] * 4])\n"
        "print([bool(kernels.Fused().gate(wide, one).isnan().all()) for one in kernels.CODES])"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    out = subprocess.check_output([sys.executable, "-c", program], text=True, env=environment)
    assert out.strip() == "[True, True, True, True, True, True]"


@needs_triton
def test_fused_kernels_compile_for_a_card_and_fit_into_it(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    script = Path(__file__).resolve().parents[1] / "ahead.py"
    out = subprocess.check_output([sys.executable, str(script)], text=True, env=environment)
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["name"] for one in found] == ["_add_norm"] * 4 + ["_gate"] * 6 + ["_turn"]
    assert max(one["shared"] for one in found) <= 227 << 10  # what a block may take on an H100 or H200
    assert not any(one["spilled"] for one in found)


# --- on a card ---------------------------------------------------------------------------------------------------


@needs_gpu
@pytest.mark.gpu
def test_the_card_has_flash_attention_and_fused_kernels(made: Path) -> None:
    if torch.cuda.get_device_capability(0) < attention.FLASH_SINCE:
        pytest.skip("this card is older than flash attention")
    found = opened(read(made), "cuda", torch.bfloat16)
    assert isinstance(found._model.attention, Varlen)
    assert fusing.best(torch.device("cuda", 0), torch.bfloat16).name == "Triton kernels"


@needs_gpu
@pytest.mark.gpu
def test_threads_share_a_card(made: Path) -> None:
    checkpoint = read(made)
    shared = opened(checkpoint, "cuda", torch.bfloat16)
    calls = [some_tokens(checkpoint, LENGTHS[: 1 + i % 8] * (1 + i % 5), seed=i) for i in range(64)]
    want = [shared.forward(call) for call in calls]
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(shared.forward, calls))
    for one, other in zip(want, got, strict=True):
        np.testing.assert_array_equal(one, other)


@needs_gpu
@pytest.mark.gpu
def test_engines_may_capture_at_the_same_time(made: Path) -> None:
    checkpoint = read(made)
    engines = [opened(checkpoint, "cuda", torch.bfloat16) for _ in range(4)]
    calls = 3 * [some_tokens(checkpoint, [64] * count) for count in (4, 8, 16, 32, 64)]  # the second time captures
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda engine: [engine.forward(call) for call in calls], engines))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@needs_gpu
@pytest.mark.gpu
def test_a_card_whose_memory_is_nearly_full_still_answers(tmp_path: Path) -> None:
    # A batch of 32,768 tokens takes 64 MiB for an inner layer and as much for its activation: too much. 4,096 fit.
    checkpoint = read(architectures.make("bert", tmp_path, hidden_size=256, intermediate_size=1024))
    tokens = some_tokens(checkpoint, [96] * 1000)
    full = opened(checkpoint, "cuda", torch.bfloat16)
    want = full.forward(tokens.take(np.arange(40)))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    held = torch.cuda.memory_reserved(0)
    # cuBLAS takes a workspace for the engine's stream, 32 MiB where the compute capability is 9; torch takes memory in
    # pieces of 20 MiB.
    torch.cuda.set_per_process_memory_fraction((held + (32 + 80 << 20)) / total, 0)
    try:
        tight = opened(checkpoint, "cuda", torch.bfloat16)
        got = tight.forward(tokens)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)
    assert tight.room < card.BATCH
    assert np.abs(got[:40] - want).max() < 0.1


@needs_gpu
@pytest.mark.gpu
def test_a_forked_child_cannot_use_the_card_and_is_told_why(made: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    checkpoint = read(made)
    found = opened(checkpoint, "cuda", torch.bfloat16)
    child = os.fork()
    if not child:
        try:
            found.forward(some_tokens(checkpoint))
        except ValueError as error:
            os._exit(0 if "does not survive a fork" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
