"""What the GPU engine decides without torch: sizes of batches, their layout, which backend `auto` means."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from crossrank import backends, extras
from crossrank.backends import cuda
from crossrank.backends.cuda import driver, ladder
from crossrank.backends.cuda.ladder import Ladder, Shape
from crossrank.backends.fake import Fake
from crossrank.batching import plan
from crossrank.checkpoint import Checkpoint, read
from crossrank.errors import MissingExtraError
from crossrank.types import Tokens

LADDER = Ladder(tokens=32768, sequences=4096, positions=512)
LENGTHS = st.lists(st.integers(1, 512), min_size=1, max_size=63)


@given(LENGTHS)
def test_a_size_holds_its_batch_and_little_more(lengths: list[int]) -> None:
    shape = LADDER.fit(tiny.random_tokens(lengths))
    total = sum(lengths)
    assert shape is not None
    assert shape.tokens >= total
    assert shape.sequences >= len(lengths)
    assert 512 >= shape.longest >= max(lengths)
    assert shape.tokens <= max(ladder.SMALLEST, 1.25 * total)


def test_there_are_few_sizes() -> None:
    found = [LADDER.fit(Tokens.of([[1] * 64] * count)) for count in range(1, 513)]
    assert None not in found
    sizes = {shape.tokens for shape in found if shape is not None}
    assert len(sizes) == 1 + 4 * 7
    assert max(sizes) == 32768


@pytest.mark.parametrize(("positions", "room", "most"), [(512, 32768, 120), (8192, 32768, 180), (8192, 8192, 120)])
def test_mixed_calls_come_in_few_shapes(positions: int, room: int, most: int) -> None:
    """Whole shapes, and fewer than the 256 graphs that an engine keeps: 111, 170 and 114."""
    dice = np.random.default_rng(0)
    sizes = Ladder(tokens=32768, sequences=4096, positions=positions)
    found = set()
    for _ in range(3000):
        count = int(np.exp(dice.uniform(0, np.log(500))))
        usual = np.exp(dice.uniform(np.log(20), np.log(0.6 * positions)))
        lengths = np.clip(dice.lognormal(np.log(usual), 0.4, count), 4, positions).astype(np.int64)
        for part in plan(lengths, room, padded=False):
            offsets = np.concatenate([[0], np.cumsum(lengths[part])])
            ids = np.zeros(offsets[-1], dtype=np.int32)
            found.add(sizes.fit(Tokens(ids, ids, offsets)))
    assert None not in found
    assert len(found) <= most


def test_what_is_larger_than_the_ladder_has_no_size_there() -> None:
    assert LADDER.fit(Tokens.of([[1] * 64] * 513)) is None
    assert Ladder(32768, 4096).fit(Tokens.of([[1]] * 4097)) is None
    assert Ladder(32768, 4096).fit(Tokens.of([[1] * 5000])) == Shape(5120, 16, 8192)


def test_what_fits_just_takes_no_larger_size() -> None:
    assert Ladder(512, 4, 2048).fit(Tokens.of([[1] * 128] * 4)) == Shape(512, 16, 128)
    assert Ladder(512, 4, 2048).fit(Tokens.of([[1] * 100] * 5)) is None, "more sequences than it takes"
    # It would be filled up to 320, which is more than there is room for.
    assert Ladder(300, 4, 2048).fit(Tokens.of([[1] * 290])) is None


def test_no_sequence_is_longer_than_the_model_reads() -> None:
    assert Ladder(512, 4, positions=300).fit(Tokens.of([[1] * 200])) == Shape(256, 16, 300)


@given(LENGTHS, st.booleans())
def test_a_filled_batch_can_be_read_back(lengths: list[int], partly: bool) -> None:
    tokens = tiny.random_tokens(lengths)
    seen = (tokens.lengths + 1) // 2 if partly else None
    for shape in (LADDER.fit(tokens), ladder.exact(tokens)):
        assert shape is not None
        numbers = np.full(shape.numbers, -7, dtype=np.int32)
        ladder.fill(numbers, tokens, seen, shape)
        ids, types, offsets, reach = ladder.parts(numbers, shape)
        total, count = sum(lengths), len(lengths)
        np.testing.assert_array_equal(ids[:total], tokens.ids)
        np.testing.assert_array_equal(types[:total], tokens.types)
        np.testing.assert_array_equal(offsets[: count + 1], tokens.offsets)
        np.testing.assert_array_equal(reach[:count], tokens.lengths if seen is None else seen)
        assert not ids[total:].any()
        assert not types[total:].any()
        assert (offsets[count + 1 :] == total).all()
        assert not reach[count:].any()


# --- which backend -----------------------------------------------------------------------------------------------


def test_without_a_driver_torch_is_never_imported(cross_encoder_folder: Path) -> None:
    program = (
        "import sys; from crossrank import backends; from crossrank.backends.cuda import driver\n"
        "from crossrank.checkpoint import read; driver.LIBRARY = 'no-such-library'\n"
        f"checkpoint = read({str(cross_encoder_folder)!r}); backends.open(checkpoint)\n"
        "print(backends.cuda.unseen(), 'torch' in sys.modules)"
    )
    out = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert out.strip() == "this machine has no NVIDIA driver False"


def test_a_driver_without_torch_is_told_about(cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "installed", lambda: True)
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    checkpoint = read(cross_encoder_folder)
    why = backends.why(checkpoint)
    assert not why.startswith("auto picks cuda")
    assert why.endswith("An NVIDIA driver is here: device='cuda' computes on its GPU.")
    with pytest.raises(MissingExtraError, match=r"pip install 'crossrank\[gpu\]'"):
        backends.open(checkpoint, "cuda")


def test_auto_takes_the_gpu_engine_only_for_a_gpu_that_was_asked_for(
    cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, str]] = []

    def fake(checkpoint: Checkpoint, places: tuple[str, str]) -> Fake:
        opened.append(places)
        return Fake(checkpoint)

    monkeypatch.setattr(cuda, "unseen", lambda: None)
    monkeypatch.setattr(cuda, "places", lambda checkpoint, device, dtype: (device, dtype))
    monkeypatch.setattr(cuda, "open", fake)
    checkpoint = read(cross_encoder_folder)
    kept = backends.open(checkpoint, device="cuda", dtype="float16"), backends.open(checkpoint, device="cuda:all")
    assert opened == [("cuda", "float16"), ("cuda:all", "auto")]
    assert kept[0] is not kept[1]
    assert not backends.open(checkpoint).name.startswith("cuda")


def test_a_cuda_device_means_the_gpu_engine_or_torch(cross_encoder_folder: Path, tmp_path: Path) -> None:
    choose = backends._choose
    assert choose(read(cross_encoder_folder), "cuda:1", "auto")[0] == "cuda"
    assert choose(read(tiny.cross_encoder(tmp_path, hidden_act="mish")), "cuda:1", "auto")[0] == "torch"


@pytest.mark.skipif(sys.platform != "linux", reason="the C library has another name there")
def test_the_driver_is_looked_for_by_its_library() -> None:
    assert driver.loads("libc.so.6")
    assert not driver.loads("libc.so.no-such-version")
