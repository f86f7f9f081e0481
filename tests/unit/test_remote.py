"""An address of an API: how long it waits, what it is told of a server, and what it takes. No server."""

from __future__ import annotations

import threading
import time
from email.utils import formatdate
from typing import Any

import pytest

from crossrank.errors import InputError, RemoteError

pytest.importorskip("httpx", reason="needs the llm extra")

from crossrank import remote
from crossrank.remote import Address

URL = "http://127.0.0.1:9/v1"


class Impatient(threading.Event):
    """Waits for nothing, and notes how long it should have."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        return False


def waits(asked: float, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[float]:
    """Seconds between the tries at a server that asks for so many."""

    def busy(path: str, body: object) -> Any:
        raise remote._RetryError("busy", 503, asked)

    address, stop = Address(URL, **options), Impatient()
    monkeypatch.setattr(address, "_once", busy)
    with pytest.raises(RemoteError, match=r"^busy \(\d+ tries\)$") as told:
        address.post("/x", {}, stop)
    assert (told.value.status, told.value.tries) == (503, options.get("tries", 4))
    return stop.waits


def test_each_wait_is_twice_as_long_less_up_to_half(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [waits(0, monkeypatch, tries=10, pause=0.5) for _ in range(20)]
    for place, most in enumerate([0.5, 1, 2, 4, 8, 16, 32, 60, 60]):
        seconds = [one[place] for one in found]
        assert most / 2 <= min(seconds) < max(seconds) <= most


def test_a_server_may_ask_for_more_and_never_for_less_or_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waits(7, monkeypatch, pause=0.5) == [7, 7, 7]
    assert waits(1e9, monkeypatch) == [60, 60, 60]
    assert all(5 <= seconds <= 40 for seconds in waits(0.1, monkeypatch, pause=10))


def test_what_may_be_tried_again() -> None:
    assert {408, 409, 425, 429, 500, 502, 503, 504, 529} == remote.RETRIED


def test_a_retry_after_is_a_number_or_a_date() -> None:
    assert remote._asked_wait("7.5") == 7.5
    assert 20 < remote._asked_wait(formatdate(time.time() + 30, usegmt=True)) <= 30


@pytest.mark.parametrize("header", ["", "soon", "-5", "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 99 Jan 2099 00:00:00 GMT"])
def test_a_retry_after_that_says_nothing_of_use(header: str) -> None:
    assert remote._asked_wait(header) == 0


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"error": {"code": "503"}}, 503),
        ({"error": {"status": 429}}, 429),
        ({"error": {"code": "model_overloaded"}}, 0),
        ({"error": {"code": 200}}, 0),
        ({"error": "busy"}, 0),
        ({"error": {}}, 200),
        ({"error": {"code": 503}, "data": [1]}, 200),
        ({"error": {"code": 503}, "choices": [1]}, 200),
    ],
)
def test_the_status_within_an_answer(answer: dict[str, Any], status: int) -> None:
    assert remote._status_within(answer) == status


def test_an_answer_is_told_by_its_beginning_on_one_line() -> None:
    assert remote._told(b" a\n b\t") == "a b"
    assert remote._told(b"\xff" + b"x" * 5000) == "\ufffd" + "x" * 299
    assert remote._told(b" \n") == "nothing"


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"timeout": 2e6}, {"tries": 0}, {"pause": -0.1}, {"most_bytes": 0}])
def test_numbers_out_of_their_range(wrong: dict[str, Any]) -> None:
    Address(URL, timeout=1e6, tries=1, pause=0, most_bytes=1)
    with pytest.raises(InputError, match=r"must be positive|at most 1,000,000 seconds"):
        Address(URL, **wrong)


@pytest.mark.parametrize("wrong", [f"{URL}#part", "ftp://x", "http://", "http://x:99999/v1", "http://a..b/v1", None])
def test_what_is_no_address(wrong: object) -> None:
    assert not remote.can_be_asked(wrong)


def test_keys_and_headers_that_can_be_sent() -> None:
    sent = Address(URL, " key\n", headers={"X-One": " a b "})._headers
    assert (sent["authorization"], sent["x-one"]) == ("Bearer key", "a b")
    assert Address(URL, "key", headers={"authorization": "Basic x"})._headers["authorization"] == "Basic x"
    for key in ("k\u00e9y", "k\ney"):
        with pytest.raises(InputError, match="the API key holds"):
            Address(URL, key)
    for headers in ({"X One": "a"}, {"X-One": "\u00e9"}, {"X-One": "a\nb"}, {"X-One:": "a"}, {"": "a"}, {"X": 1}):
        with pytest.raises(InputError, match="cannot be sent"):
            Address(URL, headers=headers)  # type: ignore[arg-type]
