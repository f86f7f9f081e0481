"""What every request for vectors becomes, and what its reply is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.server.refusals import RefusedError, invalid
from crossrank.server.wire.schemas import Schema
from crossrank.server.wire.shapes import Timing, error_body

# Bytes that one number of a vector takes in a reply.
_FLOAT_BYTES, _BASE64_BYTES = 21, 16 / 3


@dataclass(frozen=True, slots=True)
class Embed:
    """A request for vectors.

    Attributes:
        texts: in order.
        queries: are the texts queries? Some embedders read these otherwise than documents.
        base64: vectors as base64 of little-endian float32 instead of lists of numbers.
        widths: by the field that says it: the width that the client expects, if it said one.
        whole: the field that asks to refuse the request when something of a text would not be read; empty: nobody does.
        unread: fields that the dialect knows and that are not followed here.
        smaller: how the same vectors come in fewer bytes.
    """

    texts: tuple[str, ...]
    queries: bool = False
    base64: bool = False
    widths: Mapping[str, int | None] = field(default_factory=dict)
    whole: str = ""
    unread: tuple[str, ...] = ()
    smaller: str = "send fewer texts"

    def check_width(self, width: int) -> None:
        """Refuse to give vectors of another width than the client expects."""
        for name, asked in self.widths.items():
            if asked not in (None, width):
                raise invalid(f"this model's vectors have {width} dimensions, not {asked}", name)

    def size(self, width: int) -> int:
        """About how many bytes the reply will have.

        >>> Embed(("tea",) * 1000).size(384)
        8124000
        """
        numbers = width * _BASE64_BYTES if self.base64 else width * _FLOAT_BYTES
        return len(self.texts) * int(numbers + 60)


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """The answer to an `Embed`.

    Attributes:
        model: what embedded, whatever model the request named.
        vectors: shape (n, width), float32, of length 1, in the order of the texts.
        tokens: tokens that the model read.
        timing: of this request.
    """

    model: str
    vectors: NDArray[np.float32]
    tokens: int
    timing: Timing = field(default_factory=Timing)


def no_headers(request: Embed, made: Embedded) -> dict[str, str]:
    """No headers of the dialect's own."""
    return {}


@dataclass(frozen=True, slots=True)
class Embedding:
    """How one product spells a request for vectors.

    Attributes:
        name: of the product.
        read: a body to a request; raises RefusedError.
        reply: a request and its answer to a body.
        example: a body, for the documentation and its tests.
        about: one sentence.
        fields: what is read of a body, as JSON schemas; `example` has no others.
        field: the one that holds the texts.
        widths: those that name a width.
        replied: a reply, as a JSON schema.
        refuse: an error to status and body.
        headers: of a reply.
    """

    name: str
    read: Callable[[Mapping[str, Any]], Embed]
    reply: Callable[[Embed, Embedded], Any]
    example: Mapping[str, Any]
    about: str
    fields: Mapping[str, Schema]
    field: str
    widths: tuple[str, ...]
    replied: Schema
    refuse: Callable[[RefusedError, str], tuple[int, Any]] = error_body
    headers: Callable[[Embed, Embedded], dict[str, str]] = no_headers
