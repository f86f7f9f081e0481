"""What `crossrank doctor` reports about this machine and this Python: plain facts, gathered without loading a model."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from crossrank import __version__, cores, extras
from crossrank.errors import MissingExtraError

# Instructions that decide how fast a CPU multiplies matrices, under the names Linux gives them (x86, then ARM).
_INSTRUCTIONS = (
    "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8",
    "asimd", "asimddp", "bf16", "i8mm", "sve", "sve2",
)  # fmt: skip
_LIBRARIES = (
    "numpy", "tokenizers", "safetensors", "huggingface-hub", "torch", "triton", "transformers", "pylance", "pyarrow",
)  # fmt: skip
# What an extra is for. Which extras there are, and what each brings, is the package's own metadata.
_USES = {
    "search": "crossrank index and search",
    "torch": "other architectures",
    "gpu": "the GPU engine",
    "server": "crossrank serve",
    "telemetry": "spans of crossrank serve for OpenTelemetry",
    "eval": "crossrank eval and frontier",
    "llama-index": "the LlamaIndex integration",
    "langchain": "the LangChain integration",
    "llm": "models behind an address, as reranker, embedder or grader",
    "mcp": "crossrank mcp",
    "haystack": "the Haystack integration",
    "pyterrier": "the PyTerrier integration",
    "postgres": "passages in PostgreSQL",
    "qdrant": "passages in Qdrant",
    "opensearch": "passages in OpenSearch",
    "elasticsearch": "passages in Elasticsearch",
    "train": "crossrank tune",
    "ray": "crossrank bulk on a cluster",
}
# For work on crossrank itself.
_INTERNAL = frozenset({"test", "server-test", "lint", "recipes"})
_REQUIREMENT = re.compile(r"""([\w.-]+)[^;]*;.*extra\s*==\s*["']([\w.-]+)["']""")
_VARIABLES = (
    "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HTTPS_PROXY",
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
    "CROSSRANK_MODEL", "CROSSRANK_EMBEDDER", "CROSSRANK_BACKEND", "CROSSRANK_DEVICE", "CROSSRANK_DTYPE",
    "CROSSRANK_THREADS", "CROSSRANK_BUDGET_MS", "CROSSRANK_CACHE", "CROSSRANK_COSTS",
)  # fmt: skip
# Their values are secrets or may hold one (a proxy's password).
_SECRET = frozenset({"HF_TOKEN", "HTTPS_PROXY"})


def facts() -> dict[str, dict[str, Any]]:
    """Sections of named facts, all of them JSON values."""
    return {
        "crossrank": {"version": __version__, "location": str(Path(__file__).parents[1])},
        "machine": _machine(),
        "python": _python(),
        "extras": {name: _extra(name, libraries) for name, libraries in _extras().items()},
        "environment": {name: _variable(name) for name in _VARIABLES if name in os.environ},
        "hub": _hub(),
    }


def _machine() -> dict[str, Any]:
    name, flags = _cpu()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpu": name,
        "cores": cores.available(),
        "isa": " ".join([platform.machine(), *(flag for flag in _INSTRUCTIONS if flag in flags)]),
        "memory": _memory(),
        "gpu": _gpu(),
        "gpu engine": _gpu_engine(),
    }


def _python() -> dict[str, Any]:
    found = {"version": platform.python_version(), "executable": sys.executable}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return {**found, "blas": _blas()}


def _cpu() -> tuple[str, frozenset[str]]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or "unknown", frozenset()
    fields: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or "unknown"
    return name, frozenset((fields.get("flags") or fields.get("Features") or "").split())


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    except (AttributeError, ValueError, OSError):
        return "unknown"


def _gpu() -> str:
    found = _output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
    return "; ".join(found.splitlines()) if found else "none found"


def _gpu_engine() -> str:
    """Whether the GPU engine could run here; where there is a driver, torch is asked, which takes seconds."""
    from crossrank.backends import cuda

    reason = cuda.unseen()
    return "ready" if reason is None else f"not used: {reason}"


def _output(program: str, *arguments: str) -> str:
    path = shutil.which(program)
    if path is None:
        return ""
    try:
        ran = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ran.stdout.strip()


def _blas() -> str:
    import numpy as np

    config = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {}) if isinstance(config, dict) else {}
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _extras() -> dict[str, list[str]]:
    """The libraries of each extra, as the package states them; nothing where it runs without being installed."""
    try:
        stated = requires("crossrank") or []
    except PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for library, extra in filter(None, map(_of_extra, stated)):
        if extra not in _INTERNAL:
            found.setdefault(extra, []).append(library)
    return found


def _of_extra(requirement: str) -> tuple[str, str] | None:
    """The library and the extra of `psycopg[binary]>=3.2; extra == "postgres"`; None for what is always required."""
    found = _REQUIREMENT.match(requirement)
    return None if found is None else (found[1], found[2])


def _extra(name: str, libraries: list[str]) -> dict[str, Any]:
    missing = [library for library in libraries if not _installed(library)]
    cure = None
    try:
        for library in missing:
            extras.require(library, extra=name)
    except MissingExtraError as error:
        cure = str(error)
    return {"for": _USES.get(name, "see the README"), "installed": not missing, "missing": missing, "cure": cure}


def _installed(library: str) -> bool:
    """Whether a library is there under its name in the package index, or as a module, as some builds of torch are."""
    try:
        version(library)
    except PackageNotFoundError:
        return extras.available(library)
    return True


def _variable(name: str) -> str:
    return "(set, not shown)" if name in _SECRET else os.environ[name]


def _hub() -> dict[str, Any]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    models = sorted(folder.name.removeprefix("models--").replace("--", "/") for folder in cache.glob("models--*"))
    return {
        "offline": bool(constants.HF_HUB_OFFLINE),
        "cache": str(cache),
        "cached models": len(models),
    }
