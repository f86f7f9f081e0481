"""What the demo reads and how it counts. The demo itself needs minutes and a package index: `make demo`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "demo.py"

SOURCE = '''
"""A module that is documented well enough for the demo."""

def public(a):
    """A function that is documented well enough for the demo."""
    def inner():
        """A function within a function, which nobody can call."""

def _private():
    """A private function, documented well enough but not for people."""

def short():
    """See above."""

class Thing:
    """A class that is documented well enough for the demo."""

    async def method(self):
        """A method that is documented well enough for the demo."""

if True:
    def public(b):
        """The same name for another platform: only the first one counts."""
'''


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder, **sources):
    for name, source in sources.items():
        path = folder / (name.replace("__in__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.encode() if isinstance(source, str) else source)


def test_public_docstrings_become_documents(demo, tmp_path):
    write(tmp_path, thing=SOURCE, package__in____init__=SOURCE, package__in__part=SOURCE)
    rows = list(demo.docstrings(tmp_path))
    names = ["", ".public", ".Thing", ".Thing.method"]
    assert [row["id"] for row in rows] == [f"{m}{n}" for m in ("package", "package.part", "thing") for n in names]
    assert rows[1] == {
        "id": "package.public",
        "title": "package.public",
        "text": "A function that is documented well enough for the demo.",
        "module": "package",
    }


def test_what_is_no_documentation_is_left_out(demo, tmp_path):
    write(
        tmp_path,
        _hidden=SOURCE,
        test__in__thing=SOURCE,
        old='print "Python 2"',
        latin=b"# \xe9\n'''" + b"x" * 99 + b"'''",
    )
    assert list(demo.docstrings(tmp_path)) == []


def test_every_answer_is_in_this_pythons_documentation(demo):
    import sysconfig

    known = {row["id"] for row in demo.docstrings(Path(sysconfig.get_path("stdlib")))}
    assert 2000 < len(known) < 8000
    for question, answers in demo.QUESTIONS.items():
        assert answers & known, f"nothing answers {question!r}"


def test_ranks_count_from_one(demo):
    assert demo.best_rank(["a", "b", "c"], frozenset("cb")) == 2
    assert demo.best_rank(["a"], frozenset("z")) is None
