"""What all tests share: no network, and tiny checkpoints."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import tiny
from turns import turn

# A machine that does other work as well takes longer than hypothesis' 200 ms for an example now and then.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
# Before any library that would read it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes `-n auto` starts: one a core, at most 4, because each loads torch; none where one would do."""
    from crossrank import cores

    count = min(4, cores.available())
    return count if count > 1 else 0


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Where several processes run tests, the others wait for one that is `alone`. No test's timeout counts the wait."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    with turn(item.get_closest_marker("alone") is not None, Path(__file__), Path(tiny.__file__)):
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def no_gpu() -> Iterator[None]:
    """`auto` means the same backend on every machine. Tests of the GPU engine name it."""
    from crossrank.backends.cuda import driver

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "installed", lambda: False)
        yield


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stdout is a pipe whose reader has left."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stdout, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stdout)
        yield


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None of the caller's variables, and a folder of the test's own to work in."""
    for name in [name for name in os.environ if name.startswith(("CROSSRANK_", "_CROSSRANK_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def cross_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random one-label BERT cross-encoder; do not change it."""
    return tiny.cross_encoder(tmp_path_factory.mktemp("tiny-cross-encoder"))


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like `cross_encoder_folder`, but trained without a sigmoid: it gives logits and no probabilities."""
    identity = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
    return tiny.cross_encoder(tmp_path_factory.mktemp("tiny-plain"), **identity)


@pytest.fixture(scope="session")
def bi_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT bi-encoder with mean pooling; do not change it."""
    return tiny.bi_encoder(tmp_path_factory.mktemp("tiny-bi-encoder"))
