"""Why a request gets no answer: each a kind of error with an HTTP status, told in every dialect's own words."""

from __future__ import annotations

from dataclasses import dataclass

from crossrank.errors import CrossrankError

# Characters of a name in a request that an error or a header tells.
LONGEST_NAME = 64
# Of a message and of the field that it is about: a request of megabytes must not come back in each part of an error.
_LONGEST = 2_000


@dataclass
class RefusedError(CrossrankError):
    """A request that is not answered.

    Attributes:
        message: what was wrong and what to do about it; never holds a text of the request. The end is left out of one
            that is too long, as it is of `param`.
        status: of HTTP.
        kind: a word for programs, as OpenAI's and vLLM's `error.type`.
        param: the field that is wrong, when there is one.
        retry_after: seconds after which to ask again, when that would help.

    >>> str(RefusedError("send less", 413, "RequestTooLargeError"))
    'send less'
    """

    message: str
    status: int
    kind: str
    param: str | None = None
    retry_after: float | None = None

    def __post_init__(self) -> None:
        self.message = self.message[:_LONGEST]
        self.param = self.param and self.param[:_LONGEST]
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


def invalid(message: str, param: str | None = None) -> RefusedError:
    """A field is wrong: 400, which the dialects that say 422 turn into that.

    >>> invalid("top_n must be a number", "top_n").status
    400
    """
    return RefusedError(message, 400, "BadRequestError", param)


def too_large(message: str, param: str | None = None) -> RefusedError:
    """More than this server takes: 413."""
    return RefusedError(message, 413, "RequestTooLargeError", param)


def overloaded(message: str, retry_after: float) -> RefusedError:
    """No room now: 429 with Retry-After."""
    return RefusedError(message, 429, "OverloadedError", None, retry_after)


def late(message: str) -> RefusedError:
    """The deadline passed before the answer was ready: 503, because overload is what makes requests late."""
    return RefusedError(message, 503, "DeadlineError")


def leaving(message: str = "the server is shutting down; ask another replica") -> RefusedError:
    """Not ready yet, or not any more: 503."""
    return RefusedError(message, 503, "UnavailableError", None, 1.0)


class CancelledRequestError(CrossrankError):
    """The client left; nobody reads the answer."""
