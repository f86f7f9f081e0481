"""Files and folders to documents. A file is one document; a row of a .jsonl, .csv, .tsv or .parquet file is one too."""

from __future__ import annotations

import codecs
import errno
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crossrank.errors import InputError, ReadError
from crossrank.index import sevenbit
from crossrank.index.documents import Document, Failure, Limits, Markup
from crossrank.index.folders import LOCK, TABLE
from crossrank.index.html import declared_encoding, decoded
from crossrank.index.html import to_text as html_to_text
from crossrank.index.rows import Report, Rows, count_lines, has_texts, read_jsonl
from crossrank.unicode import valid_text

ROW_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".csv", ".tsv", ".parquet")
MARKUP: dict[str, Markup] = {
    ".txt": "plain",
    **dict.fromkeys((".md", ".markdown"), "markdown"),
    ".rst": "rst",
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
}
SUFFIXES = (*MARKUP, ".pdf", *ROW_SUFFIXES)
_BYTES_AT_ONCE = 2**20
TSV_WITHOUT_TEXT = ".tsv without a text column"
"""What a walk passes over and why: judgments, runs and tables of numbers are kept in .tsv files, too."""
LEFT_OUT = ("node_modules", "__pycache__")
"""Folders that programs fill: their README files and licences would be found before what people wrote."""
AN_INDEX = "index or Lance table"
_LANCE = Path(TABLE).suffix


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read.

    Attributes:
        path: absolute; links on the way are kept.
        name: the id of its document, or what the ids of its rows begin with when they have none of their own: the path
            from the given folder on, the folder's own name included, with `/` between the parts, as `written`.
    """

    path: Path
    name: str

    @property
    def has_rows(self) -> bool:
        """Whether each row of the file is a document."""
        return has_rows(self.path)


@dataclass(frozen=True, slots=True)
class Found:
    """Files below the given paths, in the order of the paths and by name, none twice.

    Attributes:
        sources: what can be read.
        failures: what could not be reached.
        passed_over: how many files there are of kinds that are not read, by suffix ("" for names without one), the most
            frequent first; `TSV_WITHOUT_TEXT` is a kind. Before them folders that are not walked: `AN_INDEX`, and those
            of `LEFT_OUT` as in "node_modules folder". Hidden ones and those below hidden folders are not counted.
    """

    sources: tuple[Source, ...]
    failures: tuple[Failure, ...]
    passed_over: Mapping[str, int] = field(default_factory=dict)


def suffix_of(path: str | Path) -> str:
    """The suffix in lower case; `.jsonl.gz` counts as one."""
    # As text: a search asks for each of its passages, and a Path costs five times as much.
    name = os.path.basename(path).lower()
    return ".jsonl.gz" if name.endswith(".jsonl.gz") else os.path.splitext(name)[1]


def has_rows(path: str | Path) -> bool:
    """Whether each row of such a file is a document."""
    return suffix_of(path) in ROW_SUFFIXES


def written(path: str | Path) -> str:
    """A path as text that can be stored: bytes of a name that are not UTF-8 are escaped, as in `caf\\udce9.txt`."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def is_absent(error: OSError) -> bool:
    """Whether the error says that nothing is there: no such name, or a loop of links. Any other may pass."""
    return isinstance(error, (FileNotFoundError, NotADirectoryError)) or error.errno == errno.ELOOP


def unreachable(path: str | Path) -> Failure | None:
    """Why nobody can tell whether something is there, as without permission; None when it is there, or is not."""
    try:
        os.stat(path)
    except OSError as error:
        if not is_absent(error):
            return Failure(written(path), f"cannot be reached: {error.strerror}")
    except ValueError:  # No file has such a name.
        pass
    return None


def is_gone(path: str | Path) -> bool:
    """Whether surely nothing is there, not even a link to nothing."""
    try:
        os.lstat(path)
    except OSError as error:
        return is_absent(error)
    except ValueError:  # No file has such a name.
        return True
    return False


def has_gone(source: str) -> bool:
    """Whether surely nothing is at this path of an earlier run, in which bytes that are not UTF-8 were escaped."""
    return source != "" and "\\udc" not in source and is_gone(source)


def identity(path: str | Path) -> tuple[int, int] | None:
    """What all paths that lead to one file have in common; None when none can be told."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if found.st_ino else None


def failure(source: Source, error: Exception) -> Failure:
    """A file that could not be read, and why."""
    reason = "went away while this ran: run this again" if is_gone(source.path) else written(str(error))
    return Failure(written(source.path), reason)


def within(path: str, folder: str) -> bool:
    """Whether a path is this folder's, or of something below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def check(paths: Sequence[str | Path]) -> None:
    """Refuse paths that cannot be indexed, without walking folders: before anything is made or replaced for them.

    Raises:
        InputError: a path does not exist, is a pipe or device, or is a file of a kind that cannot be read.
    """
    for given in paths:
        if given == "":
            raise InputError("an empty path names no file or folder: leave it out, or name this folder as .")
        path = Path(os.path.abspath(given))
        if unreachable(path):  # A failure of its own, and no mistake.
            continue
        if is_gone(given) or not path.exists():
            raise InputError(f"no such file or folder: {given}")
        if path.is_dir():
            continue
        if not path.is_file():  # Nothing can be looked at twice there, and a walk passes over it.
            raise InputError(f"{given} is a pipe or device; write it to a file first")
        if suffix_of(path) not in SUFFIXES:
            raise InputError(f"{given} is of a kind that cannot be indexed; these can: {', '.join(SUFFIXES)}")


def find(paths: Sequence[str | Path], known: Collection[str] = ()) -> Found:
    """The files below `paths` that can be read.

    Folders are walked to the bottom. Hidden files and folders (whose names begin with a dot) are passed over, and files
    of other kinds, which are counted; a link is followed, and a file or folder reached a second time is not read again.
    A folder in the BEIR layout (`corpus.jsonl` beside `queries.jsonl`, also `.gz` or `.tsv`) gives its corpus, not its
    queries; and its judgments, as every .tsv file whose first line names no column of texts, are counted as of another
    kind. Given by its own path, such a file is a failure.

    What lies in a folder of `LEFT_OUT`, or in the table of an index, is nobody's document: these folders are passed
    over and counted. Given by its own path, a folder of `LEFT_OUT` is walked.

    Args:
        paths: files and folders.
        known: files that were read before, as `written`: such a .tsv file without a column of texts is a source, so
            that reading it fails and its documents stay; and a path that is gone, where they lay, gives nothing.

    Raises:
        InputError: as `check`.
    """
    paths = [path for path in paths if not _was(path, known)]
    check(paths)
    sources: list[Source] = []
    failures: list[Failure] = []
    others: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    bare: set[tuple[int, int] | None] = set()
    for given in paths:
        path = Path(os.path.abspath(given))
        if failure := unreachable(path):
            failures.append(failure)
        elif path.is_dir():
            # A folder that was walked as a part of another has nothing new.
            if _is_new(path, seen, failures):
                _walk(path, seen, sources, failures, others, known, bare)
        # What a walk passed over and a path names is to be read, and fails.
        elif _is_new(path, seen, failures) or identity(path) in bare:
            bare.discard(identity(path))
            sources.append(Source(path, written(path.name)))
    # A folder is one thing and much that is left out, so it comes before suffixes.
    order = sorted(others.items(), key=lambda kind: (kind[0][:1] in ("", "."), -kind[1], kind[0]))
    return Found(tuple(sources), tuple(failures), dict(order))


def _was(path: str | Path, known: Collection[str]) -> bool:
    place = os.path.abspath(path)
    # nosuch/../docs is not there, and docs, which it would be read as, may be.
    return is_gone(path) and is_gone(place) and any(within(source, written(place)) for source in known)


def _walk(
    root: Path,
    seen: set[tuple[int, int]],
    sources: list[Source],
    failures: list[Failure],
    others: Counter[str],
    known: Collection[str],
    bare: set[tuple[int, int] | None],
) -> None:
    def report(error: OSError) -> None:
        failures.append(Failure(written(error.filename), f"cannot be entered: {error.strerror}"))

    base = root.name or root.anchor
    for folder, subfolders, files in os.walk(root, onerror=report, followlinks=True):
        files, kinds = _without_foreign(subfolders, files)
        others.update(kinds)
        subfolders[:] = sorted(
            name for name in subfolders if not name.startswith(".") and _is_new(Path(folder, name), seen, failures)
        )
        queries = _of_beir("queries") if _of_beir("corpus") & set(files) else set()
        for name in sorted(files):
            path = Path(folder, name)
            if name.startswith(".") or name in queries:
                continue
            if suffix_of(path) not in SUFFIXES:
                others[written(suffix_of(path))] += 1
            # Only what is new and an ordinary file may be opened: a pipe would never answer.
            elif _is_new(path, seen, failures):
                if suffix_of(path) == ".tsv" and written(path) not in known and not has_texts(path):
                    others[TSV_WITHOUT_TEXT] += 1
                    bare.add(identity(path))
                else:
                    sources.append(Source(path, written((Path(base) / path.relative_to(root)).as_posix())))


def _without_foreign(subfolders: list[str], files: list[str]) -> tuple[list[str], list[str]]:
    """Take out the subfolders that are not walked; the files without those of an index, and the kinds of what went."""
    indexes = [name for name in subfolders if name.endswith(_LANCE)]
    kinds = [AN_INDEX for _ in indexes] + [f"{name} folder" for name in subfolders if name in LEFT_OUT]
    subfolders[:] = [name for name in subfolders if name not in LEFT_OUT and not name.endswith(_LANCE)]
    return [name for name in files if name != LOCK or TABLE not in indexes], kinds


def _of_beir(name: str) -> set[str]:
    return {f"{name}{suffix}" for suffix in (".jsonl", ".jsonl.gz", ".tsv")}


def _is_new(path: Path, seen: set[tuple[int, int]], failures: list[Failure]) -> bool:
    """Whether this is an ordinary file or a folder that was not met before, by whatever path."""
    try:
        found = os.stat(path)
    except OSError as error:
        if not is_absent(error):  # Else a link to nothing, or into a loop.
            failures.append(Failure(written(path), f"cannot be reached: {error.strerror}"))
        return False
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        return False
    key = (found.st_dev, found.st_ino)
    if key in seen and found.st_ino != 0:
        return False
    seen.add(key)
    return True


def count(source: Source) -> int:
    """Documents to expect from a file, about: what a progress bar counts towards."""
    suffix = suffix_of(source.path)
    if suffix == ".parquet":
        from crossrank.index.parquet import count_parquet

        return count_parquet(source.path)
    return count_lines(source.path) if source.has_rows else 1


def read(source: Source | str | Path, limits: Limits | None = None, report: Report | None = None) -> Iterator[Document]:
    """The documents of one file.

    Args:
        source: from `find`, or a path.
        limits: what may be spent.
        report: called with each row that could not be read; without it the first bad row raises.

    Raises:
        ReadError: the file as a whole cannot be read: encoding, a PDF without text, too large, not what its name says.
    """
    if not isinstance(source, Source):
        source = Source(Path(os.path.abspath(source)), written(Path(source).name))
    limits = limits or Limits()
    suffix = suffix_of(source.path)
    if source.has_rows:
        rows = Rows(source.name, written(source.path), limits, report or _raise)
        if suffix in (".csv", ".tsv"):
            from crossrank.index.arrow import read_csv, read_tsv

            _check_table(source.path)
            yield from (read_tsv if suffix == ".tsv" else read_csv)(source.path, rows)
        elif suffix == ".parquet":
            from crossrank.index.parquet import read_parquet

            yield from read_parquet(source.path, rows)
        else:
            yield from read_jsonl(source.path, rows)
    elif suffix == ".pdf" or suffix in MARKUP:
        yield _read_file(source, suffix, limits)
    else:
        raise ReadError(f"{source.path} is of a kind that cannot be read; these can: {', '.join(SUFFIXES)}")


def _raise(failure: Failure) -> None:
    raise ReadError(f"{failure.source}: {failure.reason}")


def _read_file(source: Source, suffix: str, limits: Limits) -> Document:
    raw = _bytes(source.path, limits.file_bytes)
    metadata = {"path": source.name, "type": suffix.lstrip(".")}
    if suffix == ".pdf":
        from crossrank.index.pdf import to_text as pdf_to_text

        title, text = pdf_to_text(raw, str(source.path), limits)
        return Document(source.name, valid_text(text), valid_text(title), metadata)
    text = _decode(raw, source.path, (markup := MARKUP[suffix]) == "html")
    if markup == "markdown":
        from crossrank.index.frontmatter import parted

        return parted(Document(source.name, valid_text(text), "", metadata, markup))
    title, text = html_to_text(text) if markup == "html" else ("", text)
    return Document(source.name, valid_text(text), valid_text(title), metadata, markup)


def _bytes(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > limit:
        cure = "take out its text with `pdftotext`" if suffix_of(path) == ".pdf" else "split it"
        raise ReadError(f"{path} is larger than {limit:,} bytes: {cure}, or in Python raise Limits.file_bytes")
    return raw


def _decode(raw: bytes, path: Path, page: bool) -> str:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ReadError(f"{path} is UTF-16: save it as UTF-8 (`iconv -f UTF-16 -t UTF-8`)")
    if b"\0" in raw:
        raise ReadError(f"{path} is binary (it holds zero bytes), whatever its name says: leave it out")
    text = _seven_bit(raw, path, page)
    if text is None:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            text = decoded(raw) if page else None
            if text is None:
                raise ReadError(
                    f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8 (`iconv -f ENCODING -t UTF-8`)"
                ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _check_table(path: Path) -> None:
    """Refuse a table whose bytes are UTF-8 by chance alone: its parser reads nothing else."""
    try:
        with path.open("rb") as file:
            if sevenbit.proven(iter(lambda: file.read(_BYTES_AT_ONCE), b"")):
                raise ReadError(_seven_bit_cure(path, "with rows that"))
    except OSError as error:
        raise ReadError(f"{path} cannot be read: {error.strerror}") from error


def _seven_bit(raw: bytes, path: Path, page: bool) -> str | None:
    """The text of bytes that are UTF-8 by chance alone; None when they are not."""
    proven = sevenbit.proven([raw])
    text = sevenbit.decoded(raw, declared_encoding(raw) if page else None)
    if proven and text is None:
        raise ReadError(_seven_bit_cure(path, "with letters that"))
    return text


def _seven_bit_cure(path: Path, what: str) -> str:
    return (
        f"{path} is written in ISO-2022, as its escape sequences say, {what} are not read here: save it as UTF-8 "
        "(`iconv -f ENCODING -t UTF-8`)"
    )
