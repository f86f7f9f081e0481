"""How a backend is chosen."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from crossrank import backends, extras
from crossrank.backends.cpu import library
from crossrank.backends.reference.modernbert import theta_of
from crossrank.backends.reference.parameters import sensible
from crossrank.checkpoint import read
from crossrank.errors import CheckpointError, InputError, MissingExtraError

needs_native = pytest.mark.skipif(library.obstacle() is not None, reason=f"no native library: {library.obstacle()}")


@needs_native
def test_auto_is_the_native_engine_where_it_can(cross_encoder_folder: Path) -> None:
    checkpoint = read(cross_encoder_folder)
    assert backends.open(checkpoint).name.startswith("cpu (")
    assert backends.why(checkpoint).startswith("auto picks cpu: the native engine computes bert here with ")
    assert "float32" in backends.open(checkpoint, dtype="float32").name


def test_without_the_library_auto_is_the_reference_backend_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.handle.cache_clear()
    monkeypatch.setattr(library, "NAMES", ("no such file",))
    # A model of its own: one of other tests may be open still, held by what no collection has freed yet.
    checkpoint = read(tiny.cross_encoder(tmp_path))
    assert backends.open(checkpoint).name.startswith("reference")
    why = backends.why(checkpoint)
    assert why.startswith("auto picks reference: it computes bert with NumPy; the native engine cannot: ")
    assert "without a C++ compiler" in why
    with pytest.raises(CheckpointError, match="without a C"):
        backends.open(checkpoint, "cpu")
    monkeypatch.undo()
    library.handle.cache_clear()


def test_a_library_of_another_version_is_known_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was asked for all functions first, and one without `crossrank_maxsim` was an AttributeError."""
    for old in (SimpleNamespace(crossrank_abi=lambda: 1), SimpleNamespace()):
        monkeypatch.setattr(library.ctypes, "CDLL", lambda path, old=old: old)
        monkeypatch.setattr(library, "NAMES", ("__init__.py",))
        with pytest.raises(library.UnavailableError, match="of another version"):
            library.handle.__wrapped__()


def test_where_there_is_a_compiler_there_is_the_library() -> None:
    """So that no test of the native engine is ever skipped unseen."""
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler, so no native engine")
    assert library.obstacle() is None


@pytest.mark.parametrize("name", ["auto", "cpu", "reference", "fake"])
def test_the_cpu_may_be_written_as_torch_writes_it(cross_encoder_folder: Path, name: str) -> None:
    checkpoint = read(cross_encoder_folder)
    assert backends.open(checkpoint, name, "cpu:0").name == backends.open(checkpoint, name, "cpu").name
    assert backends.why(checkpoint, name, "cpu:0") == backends.why(checkpoint, name, "cpu")
    with pytest.raises(InputError, match="device must be one of"):
        backends.open(checkpoint, name, "cpu:1")


@pytest.mark.parametrize("name", ["auto", "cpu", "reference", "fake"])
@pytest.mark.parametrize("threads", [-5, 0, 1025, 2.0])
def test_threads_are_checked_for_every_backend(cross_encoder_folder: Path, name: str, threads: Any) -> None:
    with pytest.raises(InputError, match="threads must be"):
        backends.open(read(cross_encoder_folder), name, threads=threads)


@needs_native
def test_a_tier_can_be_forced(cross_encoder_folder: Path) -> None:
    checkpoint = read(cross_encoder_folder)
    assert library.tiers()[0] == "portable"
    for tier in library.tiers():
        assert f"({tier}, float32)" in backends.open(checkpoint, f"cpu:{tier}", dtype="float32").name
    with pytest.raises(InputError, match="has no tier"):
        backends.open(checkpoint, "cpu:avx1024")
    with pytest.raises(InputError, match="bfloat16 needs"):
        backends.open(checkpoint, "cpu:portable", dtype="bfloat16")
    wanted = "int16 needs the tier avx2, or AMX, which portable has not; use dtype='float32'$"
    with pytest.raises(InputError, match=wanted):
        backends.open(checkpoint, "cpu:portable", dtype="int16")
    with pytest.raises(InputError, match="threads must be"):
        backends.open(checkpoint, "cpu", threads=0)


def test_why_follows_what_is_asked_for(cross_encoder_folder: Path) -> None:
    checkpoint = read(cross_encoder_folder)
    assert "float16 was asked for" in backends.why(checkpoint, dtype="float16")
    assert backends.why(checkpoint, dtype="int16").startswith("auto picks cpu: int16 was asked for")
    assert backends.why(checkpoint, device="cuda").startswith("auto picks cuda: cuda was asked for")
    assert backends.why(checkpoint, "cpu:portable") == "cpu was asked for."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "onnx"}, "backend must be one of"),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda, or cards as in cuda:1, cuda:0,1 or cuda:all"),
        ({"device": 3}, "device must be one of"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"name": "reference:avx2"}, "only cpu takes a tier"),
        ({"name": "cpu", "device": "cuda"}, "use backend='cuda' or 'torch'"),
        ({"name": "reference", "dtype": "bfloat16"}, "use backend='cpu' or 'torch'"),
        ({"name": "reference", "dtype": "int16"}, "use backend='cpu'$"),
        ({"name": "torch", "dtype": "int16"}, "int16 is a format of the native engine"),
        ({"device": "cuda", "dtype": "int16"}, "int16 is a format of the native engine"),
        ({"name": "reference", "device": "cuda"}, "use backend='cuda' or 'torch'"),
        ({"name": "cuda", "device": "cpu"}, "use backend='cpu'"),
    ],
)
def test_what_does_not_exist_is_refused(cross_encoder_folder: Path, arguments: dict[str, str], words: str) -> None:
    for asked in (backends.open, backends.why):
        with pytest.raises(InputError, match=words):
            asked(read(cross_encoder_folder), **arguments)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_act": "mish"}, "no activation 'mish'"),
        ({"position_embedding_type": "relative_key"}, "'relative_key' position embeddings.*'transformers<5'"),
        ({"is_decoder": True}, "decoder"),
    ],
)
def test_reference_refuses_what_it_does_not_compute(tmp_path: Path, change: dict[str, object], words: str) -> None:
    checkpoint = read(tiny.cross_encoder(tmp_path, **change))
    with pytest.raises(CheckpointError, match=words):
        backends.open(checkpoint, "reference")
    assert backends.why(checkpoint).startswith("auto picks torch: the native engine and the reference backend cannot")


def test_a_key_that_modernbert_does_not_read_is_no_obstacle(tmp_path: Path) -> None:
    """mmBERT says "sans_pos", and was refused by every backend."""
    tokens = tiny.random_tokens([9, 4])
    want = backends.open(read(tiny.modern(tmp_path / "plain")), "reference").forward(tokens)
    checkpoint = read(tiny.modern(tmp_path / "named", position_embedding_type="sans_pos"))
    for name in ("auto", "reference"):
        np.testing.assert_allclose(backends.open(checkpoint, name, "cpu", "float32").forward(tokens), want, atol=1e-5)


def test_a_window_beyond_32_bits_is_the_whole_sequence(tmp_path: Path) -> None:
    tokens = tiny.random_tokens([9, 40])
    widths = (2**13, 2**33)
    folders = [tiny.modern(tmp_path / str(width), local_attention=width) for width in widths]
    one, other = (backends.open(read(folder), "auto", "cpu", "float32").forward(tokens) for folder in folders)
    np.testing.assert_array_equal(one, other)


def test_without_torch_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "crossrank.backends.torch", raising=False)
    monkeypatch.delattr(backends, "torch", raising=False)
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    checkpoint = read(tiny.cross_encoder(tmp_path, hidden_act="mish"))
    assert "pip install 'crossrank[torch]'" in backends.why(checkpoint)
    with pytest.raises(MissingExtraError, match=r"pip install 'crossrank\[torch\]'"):
        backends.open(checkpoint)


@settings(max_examples=150)
@given(
    st.sampled_from(["bert", "modernbert", "roberta", "electra", "gte", "new"]),
    st.sampled_from(
        [
            *tiny.CONFIG,
            "layer_types",
            "rope_parameters",
            "local_attention",
            "norm_eps",
            "embedding_size",
            "rope_theta",
            "rope_scaling",
        ]
    ),
    st.sampled_from([None, -1, 0, 1, 3, 10**12, 1.5, float("inf"), "x", [], {}, ["a"], {"full_attention": 3}, True]),
)
def test_any_value_in_a_config_gives_a_backend_or_an_error_with_a_cure(
    tmp_path_factory: pytest.TempPathFactory, architecture: str, key: str, value: Any
) -> None:
    folder = tiny.cross_encoder(tmp_path_factory.mktemp("fuzz"))
    tiny.write_json(folder / "config.json", {**tiny.CONFIG, "model_type": architecture, key: value})
    with contextlib.suppress(CheckpointError):
        backends.open(read(folder), "reference")
    with contextlib.suppress(CheckpointError):
        backends.why(read(folder))


@pytest.mark.parametrize(("key", "value"), [("num_attention_heads", 0), ("hidden_size", "32"), ("hidden_size", None)])
def test_sizes_that_make_no_sense_are_named_by_every_backend(tmp_path: Path, key: str, value: Any) -> None:
    checkpoint = read(tiny.cross_encoder(tmp_path))
    checkpoint = replace(checkpoint, config={**checkpoint.config, key: value})
    for backend in ("auto", "cpu", "reference"):
        with pytest.raises(CheckpointError, match=f"config.json has {key} = {value!r}"):
            backends.open(checkpoint, backend)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"local_attention": -1}, "local_attention = -1. Copy"),
        ({"layer_types": ["full_attention"]}, "1 layer_types but num_hidden_layers = 2"),
        ({"layer_types": ["full_attention"] * 3}, "3 layer_types but num_hidden_layers = 2"),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0, not a whole number of 1 to 1000"),
        ({"num_hidden_layers": 1001}, "num_hidden_layers = 1001, not a whole number"),
    ],
)
def test_layers_of_modernbert_that_make_no_sense_are_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    checkpoint = read(tiny.cross_encoder(tmp_path))
    config = {**checkpoint.config, "model_type": "modernbert", **change}
    checkpoint = replace(checkpoint, architecture="modernbert", config=config)
    for backend in ("auto", "reference"):
        with pytest.raises(CheckpointError, match=words):
            backends.open(checkpoint, backend)


def test_rotary_positions_need_pairs(tmp_path: Path) -> None:
    """It loaded, and ended in an error of NumPy at the first score."""
    checkpoint = read(tiny.modern(tmp_path))
    checkpoint = replace(checkpoint, config={**checkpoint.config, "hidden_size": 9, "num_attention_heads": 3})
    with pytest.raises(CheckpointError, match="its heads have 3 numbers, and rotary positions turn pairs"):
        backends.open(checkpoint, "reference")


def test_memory_that_ran_out_does_not_blame_the_model() -> None:
    """The advice was to copy it again."""
    with pytest.raises(MemoryError, match="not enough memory for the weights of here"), sensible("here"):
        raise MemoryError("Unable to allocate 3.00 MiB")


def test_config_and_weights_of_two_models_are_told_apart(tmp_path: Path) -> None:
    folder = tiny.cross_encoder(tmp_path)
    tiny.write_json(folder / "config.json", {**tiny.CONFIG, "intermediate_size": 128})
    with pytest.raises(CheckpointError, match=r"has shape \[64, 32\] but config.json asks for \[128, 32\]"):
        backends.open(read(folder), "reference")


def test_a_missing_layer_is_an_error_not_a_random_one(tmp_path: Path) -> None:
    folder = tiny.cross_encoder(tmp_path)
    tensors = tiny.weights(tiny.CONFIG, 1)
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    tiny.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"no bert.encoder.layer.1.output.dense.weight; newly initialised"):
        backends.open(read(folder), "reference")


@pytest.mark.parametrize(
    ("config", "full", "sliding"),
    [
        ({}, 160_000.0, 10_000.0),
        ({"global_rope_theta": 700.0}, 700.0, 10_000.0),
        ({"global_rope_theta": 700.0, "local_rope_theta": 70.0}, 700.0, 70.0),
        ({"global_rope_theta": 700.0, "local_rope_theta": None}, 700.0, 700.0),
        ({"local_rope_theta": None}, 160_000.0, 160_000.0),
        ({"local_rope_theta": None, "rope_parameters": {"sliding_attention": {"rope_theta": 5}}}, 160_000.0, 5.0),
    ],
)
def test_the_rotary_bases_of_modernbert(config: dict[str, Any], full: float, sliding: float) -> None:
    assert (theta_of(config, "full_attention"), theta_of(config, "sliding_attention")) == (full, sliding)
