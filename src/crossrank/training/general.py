"""Questions that have nothing to do with the user's, to notice what a tuned model forgets, and to help it remember.

They come from the documentation strings of Python's own library, which every install has: the first sentence is the
query, the rest the document, other documents of the same and of other modules its rivals. That is one kind of English;
`--general FOLDER` adds judged sets of the user's choice.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from crossrank.evaluation import JudgedSet
from crossrank.training.judgments import Group
from crossrank.training.negatives import Nearest
from crossrank.training.searched import text_of

MODULES = (
    "argparse", "ast", "asyncio/streams", "base64", "calendar", "collections/__init__", "concurrent/futures/_base",
    "configparser", "contextlib", "copy", "csv", "datetime", "_pydatetime", "decimal", "_pydecimal", "difflib", "dis",
    "doctest", "email/message", "enum", "fileinput", "filecmp", "fractions", "ftplib", "functools", "getopt", "gettext",
    "glob", "gzip", "heapq", "hmac", "html/parser", "http/client", "http/cookiejar", "imaplib", "inspect", "io",
    "_pyio", "ipaddress", "json/__init__", "linecache", "locale", "logging/__init__", "logging/handlers", "mailbox",
    "mimetypes", "multiprocessing/pool", "optparse", "os", "pathlib", "pdb", "pickle", "pkgutil", "platform",
    "plistlib", "poplib", "pprint", "profile", "random", "sched", "selectors", "shelve", "shlex", "shutil", "smtplib",
    "socket", "socketserver", "ssl", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap",
    "threading", "timeit", "tokenize", "traceback", "typing", "unittest/case", "unittest/mock", "urllib/parse",
    "urllib/request", "uuid", "warnings", "weakref", "xml/etree/ElementTree", "zipfile", "zipfile/__init__",
)  # fmt: skip
RIVALS = 8
# In words. A shorter query asks nothing, a longer document would cost more than it tells.
SHORTEST_QUERY, SHORTEST, LONGEST = 5, 15, 90


def questions(count: int, part: int, parts: int = 2, seed: int = 0, library: Path | None = None) -> list[Group]:
    """At most `count` groups of one relevant document among `RIVALS` others; empty where the library has no sources.

    Args:
        count: groups, at most.
        part: which part of all questions, 0 to `parts - 1`; parts share neither queries nor relevant documents.
        parts: how many parts there are.
        seed: of the draw.
        library: where the sources are; Python's own library when absent.

    >>> found = questions(3, part=0)
    >>> [sum(group.labels) for group in found] == [1.0] * len(found)
    True
    """
    root = library or Path(sysconfig.get_paths()["stdlib"])
    found = _all(root)
    queries = sorted(found)
    rng = np.random.default_rng(seed)
    mine = [queries[i] for i in rng.permutation(len(queries))[part::parts].tolist()]
    by_module: dict[str, list[str]] = {}
    for query in mine:
        by_module.setdefault(found[query][1], []).append(found[query][0])
    everything = [found[query][0] for query in mine]
    made = []
    for query in mine[:count]:
        document, module = found[query]
        near = [text for text in by_module[module] if text != document]
        near = [near[i] for i in rng.permutation(len(near))[: RIVALS // 2].tolist()]
        far = [everything[i] for i in rng.permutation(len(everything))[: 2 * RIVALS].tolist()]
        rivals = [text for text in dict.fromkeys((*near, *far)) if text != document][:RIVALS]
        made.append(Group(query, (document, *rivals), (1.0, *[0.0] * len(rivals))))
    return made


@lru_cache(maxsize=2)
def _all(root: Path) -> dict[str, tuple[str, str]]:
    """Document and module by query. Kept, because parsing ninety modules takes a second and is done for each part."""
    return {query: (document, module) for module in MODULES for query, document in _strings(root, module)}


def _strings(root: Path, module: str) -> Iterator[tuple[str, str]]:
    """(first sentence, the rest) of the documentation strings of one module."""
    try:
        tree = ast.parse((root / f"{module}.py").read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return  # this Python has no such module, or no sources
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)):
            continue
        text = ast.get_docstring(node) or ""
        head, _, rest = text.partition("\n\n")
        query, words = " ".join(head.split()).rstrip("."), rest.split()
        plain = ">>>" not in rest and len(words) >= SHORTEST
        if plain and SHORTEST_QUERY <= len(query.split()) <= 25:
            yield query, " ".join(words[:LONGEST])


def of_set(judged: JudgedSet, nearest: Nearest, count: int, seed: int = 0) -> list[Group]:
    """At most `count` queries of a judged set, each with its judged documents and those that `nearest` finds.

    Unjudged documents count as not relevant, as everywhere.
    """
    sample = judged.sample(count, seed)
    found = nearest(list(sample.queries.values()), 2 * RIVALS)
    made = []
    for (query, text), near in zip(sample.queries.items(), found, strict=True):
        labels: dict[str, float] = {}
        for document, grade in sample.qrels[query].items():
            if document in judged.corpus:
                # Of documents with one text the best grade counts.
                one = judged.corpus[document].scored_text
                labels[one] = max(labels.get(one, float(grade)), float(grade))
        for other in near:
            labels.setdefault(text_of(other), 0.0)
        if max(labels.values(), default=0.0) > 0 >= min(labels.values()):
            made.append(Group(text, tuple(labels), tuple(labels.values())))
    return made


def texts(groups: Sequence[Group]) -> list[str]:
    """All documents of all groups, each once."""
    return list(dict.fromkeys(text for group in groups for text in group.documents))
