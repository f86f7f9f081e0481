"""What a benchmark ran on: without it a time means nothing."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("numpy", "tokenizers", "safetensors", "torch", "transformers", "pylance", "ir-measures")
_TIERS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve")


def describe(threads: int) -> dict[str, Any]:
    """Versions, commit, processor, cores, and the threads that the run was told to use."""
    import crossrank

    return {
        "crossrank": crossrank.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": versions(_PACKAGES),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "instructions": _instructions(),
        "cores": cores(),
        "threads": threads,
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def backend(model: str | None, asked: str = "auto") -> str:
    """The name of the backend that crossrank chooses here for a model, where a script leaves the choice to others."""
    import crossrank

    return crossrank.load(model, backend=asked).backend.name


def note(text: str) -> None:
    """How far a long run is, on stderr: stdout is for what it found."""
    print(text, file=sys.stderr, flush=True)


def judged_options(parser: argparse.ArgumentParser, queries: int) -> None:
    """What every script takes that measures on judged sets; `queries` is the default of that option.

    Here and not in sets.py, because options are read before NumPy may be imported.
    """
    parser.add_argument("data", type=Path, help="folder of judged sets, one folder each")
    parser.add_argument("--cache", type=Path, required=True, help="folder for indexes and pair scores")
    parser.add_argument("--sets", nargs="+", default=None, help="default: all known sets that DATA_FOLDER holds")
    parser.add_argument("--queries", type=int, default=queries, help="at most this many of a set, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=cores())
    out_option(parser)


def out_option(parser: argparse.ArgumentParser) -> None:
    """`--out`, whose folder is there before the work begins: a long run must not end without a place for its result."""
    parser.add_argument("--out", type=_new_file, default=None, metavar="FILE", help="write the JSON here")


def _new_file(text: str) -> Path:
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"the folder of {path} cannot be made: {error.strerror}") from error
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; name a file")
    return path


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> str:
    """The short commit, with `+` when the tree has changes that it does not hold; empty outside git."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True)
        if found.returncode:
            return ""
        changed = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True).stdout
    except OSError:
        return ""
    return found.stdout.strip() + ("+" if changed.strip() else "")


def limit_threads(threads: int) -> None:
    """Tell the numeric libraries, which read this once, when they are imported: call it before importing any."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(threads)


def hold_to(threads: int) -> None:
    """Let this process, and the threads it starts from now on, run on so many of its cores only, where that can be."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    return {name: version for name in packages if (version := _version(name))}


def line(about: dict[str, Any]) -> str:
    """One sentence for the foot of a table."""
    tiers = ", ".join(about["instructions"]) or "unknown instructions"
    return (
        f"{about['processor']} ({tiers}), {about['threads']} of {about['cores']} cores, Python {about['python']}, "
        f"crossrank {about['crossrank']} at {about['commit'] or 'no commit'}"
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpuinfo(*keys: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() in keys), "")


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _instructions() -> list[str]:
    flags = set(_cpuinfo("flags", "Features").split())
    return [tier for tier in _TIERS if tier in flags]
