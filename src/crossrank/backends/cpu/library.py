"""The native library: finding it, and its C interface (native/crossrank.h) in ctypes.

ctypes releases the interpreter lock during a call, and one library serves every Python 3.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, Structure, c_char_p, c_double, c_float, c_int32, c_int64, c_uint8, c_uint32, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

from crossrank.packed import offsets_of

ABI = 7
TIERS = ("portable", "avx2", "avx512", "amx_bf16")
DTYPES = ("float32", "bfloat16", "int16")
LOGITS, MEAN, FIRST, STATES = range(4)
OUTSIDE = -2  # of crossrank_forward: a table of the model has no row for what it was given
NAMES = ("libcrossrank.so", "libcrossrank.dylib", "crossrank.dll")

Floats = POINTER(c_float)


class Linear(Structure):
    """`crossrank_linear`."""

    _fields_ = (("weight", Floats), ("bias", Floats))


class Norm(Structure):
    """`crossrank_norm`."""

    _fields_ = (("weight", Floats), ("bias", Floats))


class Layer(Structure):
    """`crossrank_layer`."""

    _fields_ = (
        ("before_attention", Norm),
        ("qkv", Linear),
        ("out", Linear),
        ("after_attention", Norm),
        ("before_inner", Norm),
        ("up", Linear),
        ("down", Linear),
        ("after_inner", Norm),
        ("window", c_int32),
        ("rotary", c_int32),
    )


class Model(Structure):
    """`crossrank_model`."""

    _fields_ = (
        *((name, c_int32) for name in ("hidden", "heads", "inner", "layers", "labels")),
        *((name, c_int32) for name in ("vocabulary", "width", "positions", "kinds", "padding")),
        ("eps", c_float),
        ("activation", c_int32),
        ("gated", c_int32),
        ("words", Floats),
        ("places", Floats),
        ("types", Floats),
        ("embedding_norm", Norm),
        ("project", Linear),
        ("layer", POINTER(Layer)),
        ("final_norm", Norm),
        ("frequencies", Floats * 2),
        ("head_dense", Linear),
        ("head_activation", c_int32),
        ("head_by_mean", c_int32),
        ("head_norm", Norm),
        ("classifier", Linear),
    )


class Strings(Structure):
    """`crossrank_strings`."""

    _fields_ = (("bytes", c_char_p), ("offsets", POINTER(c_int64)), ("n", c_int64))
    kept: Any

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Strings:
        """Strings end to end, which the structure keeps alive."""
        offsets = offsets_of(list(map(len, texts)))
        made = cls(b"".join(texts), offsets.ctypes.data_as(POINTER(c_int64)), len(texts))
        made.kept = offsets
        return made


class UnavailableError(Exception):
    """There is no native library to use; the text says why, as half a sentence."""


@lru_cache(maxsize=1)
def handle() -> Any:
    """The library, with its functions typed.

    Raises:
        UnavailableError: it was not built, is not for this machine, or belongs to another version.
    """
    folder = Path(__file__).parent
    file = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if file is None:
        raise UnavailableError("crossrank was installed without a C++ compiler, so its native library was not built")
    try:
        found = ctypes.CDLL(str(file))
    except OSError as error:
        raise UnavailableError(f"the native library does not load ({error})") from error
    # Before anything else of it is looked up: another version may lack functions of this one.
    if not hasattr(found, "crossrank_abi") or found.crossrank_abi() != ABI:
        raise UnavailableError(f"the native library {file.name} is of another version; install crossrank again")
    _declare(found)
    return found


def _declare(library: Any) -> None:
    def function(name: str, result: Any, *arguments: Any) -> None:
        found: Callable[..., Any] = getattr(library, name)
        found.restype, found.argtypes = result, arguments  # type: ignore[attr-defined]

    function("crossrank_abi", c_int32)
    function("crossrank_compiler", c_char_p)
    function("crossrank_tiers", c_uint32)
    function("crossrank_computes", c_int32, c_int32, c_int32)
    function("crossrank_create", c_void_p, POINTER(Model), c_int32, c_int32, c_char_p, c_int64)
    function("crossrank_destroy", None, c_void_p)
    function("crossrank_bytes", c_int64, c_void_p)
    integers, longs = POINTER(c_int32), POINTER(c_int64)
    rows = (c_void_p, integers, integers, longs, longs, c_int64)
    function("crossrank_forward", c_int32, *rows, c_int32, c_int32, Floats)
    documents = (c_void_p, c_int32, longs, c_int64)
    function("crossrank_maxsim", c_int32, c_int32, Floats, c_int64, c_int64, *documents, c_int32, Floats)
    function("crossrank_peak", c_double, c_int32, c_int32, c_double)
    strings, bytes_ = POINTER(Strings), POINTER(c_uint8)
    function("crossrank_characters_create", c_void_p)
    function("crossrank_characters_destroy", None, c_void_p)
    function("crossrank_characters_tell", c_int32, c_void_p, strings, integers, bytes_)
    function("crossrank_wordpiece_create", c_void_p, strings, integers, strings, c_int32, c_int32)
    function("crossrank_wordpiece_destroy", None, c_void_p)
    function("crossrank_wordpiece_encode", c_int64, c_void_p, c_void_p, strings, c_int32, integers, integers, longs)


def obstacle() -> str | None:
    """Why there is no native library, as half a sentence; None when there is one."""
    try:
        handle()
    except UnavailableError as error:
        return str(error)
    return None


def tiers() -> tuple[str, ...]:
    """Instruction sets that this machine and this library have, weakest first; none without the library."""
    if obstacle() is not None:
        return ()
    bits = handle().crossrank_tiers()
    return tuple(name for number, name in enumerate(TIERS) if bits >> number & 1)


def dtypes(tier: str) -> tuple[str, ...]:
    """What a tier's products may read on this machine, float32 first."""
    return tuple(name for name in DTYPES if _computes(tier, name))


def faster(tier: str) -> tuple[str, ...]:
    """Those of `dtypes` in which products are faster than in float32.

    bfloat16 is with AMX, and with AVX-512 not on Intel's processors; int16 is with AMX, and with AVX2 on Intel's and on
    AMD's from Zen 3 on. The fastest first.
    """
    return tuple(name for name in DTYPES if _computes(tier, name) == 2)


def _computes(tier: str, dtype: str) -> int:
    return int(handle().crossrank_computes(TIERS.index(tier), DTYPES.index(dtype)))


def peak(tier: str, dtype: str, seconds: float = 0.5) -> float:
    """Billions of floating-point operations a second that one thread reaches in the tier's matrix product.

    Measured on random numbers that fit in the core's cache, the best of many repeats: what is attainable.
    """
    return float(handle().crossrank_peak(TIERS.index(tier), DTYPES.index(dtype), seconds))
