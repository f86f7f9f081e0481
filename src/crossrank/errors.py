"""Every error crossrank raises on purpose. Each message names what was wrong and what to do about it.

CrossrankError
├── InputError        (also ValueError)    what the caller passed: an empty query, k of 0, ids that repeat
├── ScoreError        (also ValueError)    a model gave NaN
├── CheckpointError   (also ValueError)    a model folder is missing, damaged, or not one this version reads
├── IndexFileError    (also ValueError)    an index is missing, damaged, or was made with another model
├── ReadError         (also ValueError)    a document cannot be read: encoding, a PDF without text, too large
├── RemoteError       (also ConnectionError)  a model or store behind an address refuses, or does not answer
└── MissingExtraError (also ImportError)   an optional library is not installed
"""

from __future__ import annotations


class CrossrankError(Exception):
    """Base of all errors that crossrank raises on purpose.

    >>> import crossrank
    >>> try:
    ...     crossrank.load().rank(" ", ["Tea is hot."])
    ... except CrossrankError as error:
    ...     print(error)
    the query is empty; ask something
    """


class InputError(CrossrankError, ValueError):
    """An argument is wrong."""


class ScoreError(CrossrankError, ValueError):
    """A model's scores cannot be ordered."""


class CheckpointError(CrossrankError, ValueError):
    """A model cannot be loaded."""


class IndexFileError(CrossrankError, ValueError):
    """An index cannot be used."""


class ReadError(CrossrankError, ValueError):
    """A document cannot be read."""


class RemoteError(CrossrankError, ConnectionError):
    """A model or store behind an address refuses, or does not answer.

    Attributes:
        status: of HTTP; 0 when no answer came.
        tries: requests that were made.
    """

    def __init__(self, message: str, status: int = 0, tries: int = 1) -> None:
        super().__init__(message)
        self.status = status
        self.tries = tries


class MissingExtraError(CrossrankError, ImportError):
    """An optional library is needed and absent."""
