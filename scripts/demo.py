"""Search the documentation that every Python carries, and see what reranking changes.

    python scripts/demo.py

Makes .venv-demo, installs crossrank with its search extra, writes the docstrings of the standard library as one .jsonl
file, indexes it, asks some questions and prints the ranking before and after the cross-encoder, with the time of each
stage. Everything it makes lies in .venv-demo. The package index is the only network it uses.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import subprocess
import sys
import sysconfig
import textwrap
import time
import tokenize
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crossrank.cascade import Trace

PROJECT = Path(__file__).resolve().parent.parent
ENVIRONMENT = PROJECT / ".venv-demo"
DOCUMENTS = ENVIRONMENT / "docstrings.jsonl"
INDEX = ENVIRONMENT / "index"

# Each question with the names that answer it: written down before it was first asked, and none dropped since.
QUESTIONS: dict[str, frozenset[str]] = {
    "How can I keep only the three largest items of a long list?": frozenset({"heapq.nlargest"}),
    "copy a whole folder with all the files in it": frozenset({"shutil.copytree"}),
    "remember the results of an expensive function so that it is not computed twice": frozenset(
        {"functools.lru_cache", "functools.cache"}
    ),
    "How similar are two strings, as a number between 0 and 1?": frozenset(
        {"difflib.SequenceMatcher.ratio", "difflib.SequenceMatcher"}
    ),
    "run a program and read what it printed": frozenset(
        {"subprocess.check_output", "subprocess.getoutput", "subprocess.run"}
    ),
    "make a random token that is safe for a password reset link": frozenset(
        {"secrets", "secrets.token_urlsafe", "secrets.token_hex", "secrets.token_bytes"}
    ),
    "wait until all threads have reached the same point": frozenset({"threading.Barrier", "threading.Barrier.wait"}),
    "How do I call a function later, in another thread, after some seconds?": frozenset({"threading.Timer"}),
    "Which elements of a collection are the most common?": frozenset({"collections.Counter.most_common"}),
    "How do I get a temporary folder that is deleted when I am done with it?": frozenset(
        {"tempfile.TemporaryDirectory"}
    ),
}
SHOWN = 5

# Not documentation for people who use Python: its own tests, its editor, other people's packages, tables of encodings.
# And two graphical libraries, an eighth of all text, so that two slow cores index the rest in time.
SKIPPED = frozenset(
    {"test", "tests", "idlelib", "idle_test", "lib2to3", "site-packages", "dist-packages", "ensurepip", "distutils"}
    | {"encodings", "turtledemo", "pydoc_data", "tkinter", "turtle"}
)
# Shorter docstrings ("See base class.") answer nothing.
SHORTEST = 40


def docstrings(library: Path) -> Iterator[dict[str, str]]:
    """The docstrings of public modules, classes and functions under `library`, as documents: id, title, text, module.

    Reads the source and imports nothing. Sorted by path, so that two runs write the same file. A file that is not
    Python of this version is skipped.
    """
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if any(part in SKIPPED or (part.startswith("_") and part != "__init__") for part in parts):
            continue
        module = ".".join(part for part in parts if part != "__init__")
        try:
            with tokenize.open(path) as source:
                tree = ast.parse(source.read())
        except (SyntaxError, UnicodeDecodeError):
            continue
        seen: set[str] = set()
        for name, text in _documented(tree, module):
            # A name can be defined twice, for two platforms: the first one counts.
            if name not in seen and len(text) >= SHORTEST:
                seen.add(name)
                yield {"id": name, "title": name, "text": text, "module": module}


def _documented(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> Iterator[tuple]:
    text = ast.get_docstring(node)
    if text:
        yield name, text
    # What is defined inside a function cannot be called by anyone else.
    for child in [] if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not child.name.startswith("_"):
            yield from _documented(child, f"{name}.{child.name}")


def install() -> Path:
    """Make the environment and install the project into it. Returns its Python."""
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
    # --no-compile: most of what is installed is never imported, and Python compiles the rest as it is.
    options = ["--quiet", "--disable-pip-version-check", "--no-compile"]
    subprocess.run([python, "-m", "pip", "install", *options, f"{PROJECT}[search]"], check=True)
    return python


def write_documents() -> int:
    """Write the docstrings as .jsonl. Returns how many."""
    library = Path(sysconfig.get_path("stdlib"))
    rows = list(docstrings(library))
    with DOCUMENTS.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return len(rows)


def build_index() -> None:
    """Run the command a user would run, progress bar and all."""
    print(f"\n$ crossrank index {DOCUMENTS.relative_to(PROJECT)} --to {INDEX.relative_to(PROJECT)}", flush=True)
    subprocess.run([sys.executable, "-m", "crossrank.cli", "index", DOCUMENTS, "--to", INDEX], check=True)


def ask() -> None:
    """Ask every question; print both rankings, the stages' times and, at the end, what reranking changed."""
    from crossrank.pipeline import open_pipeline

    pipeline = open_pipeline(INDEX)
    moved = []
    for question, answers in QUESTIONS.items():
        answer = pipeline.search(question, k=1)
        before = names(next(trace for trace in answer.traces if trace.name == "fused"))
        after = names(answer.traces[-1])
        show(question, answers, before, after, answer.traces[-1].name)
        print(f"  {after[0]}: {textwrap.shorten(answer.passages[0].text, 90)}")
        times = ", ".join(f"{trace.name} {trace.seconds * 1000:,.0f} ms" for trace in answer.traces)
        print(f"  {times}; in all {answer.seconds * 1000:,.0f} ms", flush=True)
        moved.append((question, best_rank(before, answers), best_rank(after, answers)))
    print(f"\n  {'rank of the first right answer (marked * above)':72} before  after")
    for question, old, new in moved:
        print(f"  {question[:72]:72} {old or '-':>6}  {new or '-':>5}")
    print("  A few questions prove nothing: `make quality DATA=FOLDER` measures on judged sets.\n")


def names(trace: Trace) -> list[str]:
    """Documents in the order of a step; one whose docstring was split keeps the place of its best passage."""
    return list(dict.fromkeys(passage_id.split("#")[0] for passage_id in trace.ranking.ids))


def best_rank(ranked: list[str], answers: frozenset[str]) -> int | None:
    """Rank, from 1, of the first name that answers the question; None when none is there."""
    return next((rank for rank, name in enumerate(ranked, 1) if name in answers), None)


def show(question: str, answers: frozenset[str], before: list[str], after: list[str], model: str) -> None:
    """Both rankings side by side; * marks a right answer, and each name on the right says where it came from."""
    print(f"\n? {question}")
    print(f"  {'before: BM25 and vectors, fused':44}  after: reranked by {model!r}")
    for rank, (old, new) in enumerate(zip(before[:SHOWN], after[:SHOWN], strict=False), 1):
        left, right = (f"{'*' if name in answers else ' '} {name}" for name in (old, new))
        was = before.index(new) + 1 if new in before else None
        came = "" if was == rank else f"  (was {was})" if was else "  (was not there)"
        print(f"  {rank}. {left[:41]:41}  {right}{came}")


def timed(step: str, seconds: float) -> None:
    """One line when a step is done."""
    print(f"[{seconds:6.1f} s] {step}", flush=True)


def main() -> None:
    """Outside the environment: make it, then run this file again inside it."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # inherited by every step: no model may come from a hub
    start = time.perf_counter()
    if "--inside" not in sys.argv[1:]:
        python = install()
        timed(f"made {ENVIRONMENT.name} and installed crossrank[search]", time.perf_counter() - start)
        inside = subprocess.run([python, __file__, "--inside"], check=False)
        if inside.returncode:
            sys.exit(inside.returncode)  # it has said why
        timed("everything", time.perf_counter() - start)
        return
    count = write_documents()
    timed(f"read {count:,} docstrings of Python {platform.python_version()}", time.perf_counter() - start)
    start = time.perf_counter()
    build_index()
    timed("indexed them", time.perf_counter() - start)
    ask()


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as failed:
        # The command has said what was wrong; a traceback of this file would bury it.
        sys.exit(f"demo: this command failed: {' '.join(map(str, failed.cmd))}")
