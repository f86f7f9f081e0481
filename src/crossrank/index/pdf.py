"""Text of PDF files."""

from __future__ import annotations

import re
from io import BytesIO

from crossrank import extras
from crossrank.errors import ReadError
from crossrank.index.documents import Limits

extras.require("pypdf", extra="search")

import pypdf  # noqa: E402
import pypdf.errors  # noqa: E402

_DIVIDED = re.compile(r"(?<=[^\W\d_])-\n(?=[^\W\d_])")


def to_text(raw: bytes, path: str, limits: Limits) -> tuple[str, str]:
    """(title, text) of a PDF; pages are paragraphs, and words hyphenated over a line are joined.

    Raises:
        ReadError: damaged, locked with a password, without text (scanned), or with more text than the limit.
    """
    try:
        return _read(raw, path, limits)
    except ReadError:
        raise
    except RecursionError as error:
        raise ReadError(f"{path} is nested too deeply to be a sound PDF: print it to a new PDF") from error
    except pypdf.errors.DependencyError as error:
        raise ReadError(f"{path} is encrypted: save a copy without encryption ({error})") from error
    except Exception as error:  # pypdf lets errors of every kind out of damaged files.
        raise ReadError(f"{path} is damaged or not a PDF ({type(error).__name__}: {error}): export it again") from error


def _read(raw: bytes, path: str, limits: Limits) -> tuple[str, str]:
    reader = pypdf.PdfReader(BytesIO(raw), strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        raise ReadError(f"{path} is locked with a password: save a copy without one")
    pages: list[str] = []
    size = 0
    for page in reader.pages:
        text = page.extract_text()
        size += len(text)
        if size > limits.text_characters:
            raise ReadError(
                f"{path} holds more than {limits.text_characters:,} characters: split it, or raise "
                "Limits.text_characters"
            )
        pages.append(_joined(text).strip())
    body = "\n\n".join(page for page in pages if page)
    if not body:
        raise ReadError(
            f"{path} has no text in its {len(pages)} pages, so it is probably scanned: run OCR over it first "
            "(`ocrmypdf in.pdf out.pdf`)"
        )
    title = reader.metadata.title if reader.metadata else None
    return (title or "").strip(), body


def _joined(text: str) -> str:
    """Words that the end of a line divides, whole; a hyphen beside a capital or a number is the text's own.

    >>> _joined("attach-\\nment, Grö-\\nße, Saint-\\nMalo")
    'attachment, Größe, Saint-\\nMalo'
    """

    def kept(found: re.Match[str]) -> str:
        return "" if text[found.start() - 1].islower() and text[found.end()].islower() else found[0]

    return _DIVIDED.sub(kept, text)
