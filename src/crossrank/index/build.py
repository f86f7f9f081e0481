"""Bringing an index up to date: find what changed, embed only that, commit it piece by piece.

Every commit is atomic and holds whole documents, so a process that dies leaves the index as of its last commit, and the
next run sees what is still to do from the rows themselves. There is no other state.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossrank.errors import InputError, ReadError
from crossrank.index import readers
from crossrank.index.changes import Callback, Changes, Progress
from crossrank.index.claims import Claims
from crossrank.index.commits import Commits
from crossrank.index.documents import Document, Failure, Limits
from crossrank.index.filters import crowded
from crossrank.index.passages import Cut
from crossrank.index.records import Row
from crossrank.index.rows import Report, document_of
from crossrank.index.table import Table
from crossrank.tokenvectors import TokenEmbedder
from crossrank.types import Embedder, Passage

_UNINDEXED = 50_000
"""Rows that BM25 may have to scan while a long update runs, a third of a second on one core."""
_DELETE_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a document comes from, as its rows say."""

    path: str = ""
    size: int = 0
    modified: int = 0


class _Refused(NamedTuple):
    """A document whose id another file of this run has, or had."""

    where: str
    digest: str
    origin: _Origin


class _Made(NamedTuple):
    """A document and its passages, with their token ids."""

    document: Document
    passages: Sequence[tuple[Passage, NDArray[np.int32]]]
    where: str
    digest: str
    origin: _Origin

    @property
    def ids(self) -> list[str]:
        return [passage.id for passage, _ in self.passages]


class Update:
    """One run. Not to be used twice; the caller holds the lock of the index."""

    def __init__(
        self,
        table: Table,
        embedder: Embedder,
        cut: Cut,
        progress: Callback | None,
        late: TokenEmbedder | None = None,
    ) -> None:
        self._table = table
        self._embedder = embedder
        self._cut = cut
        self._progress = progress
        self._known = table.known()
        self._by_source: dict[str, set[str]] = {}
        for id_, known in self._known.items():
            self._by_source.setdefault(known.source, set()).add(id_)
        self._claims = Claims(self._known)
        # Documents of this run and where each was.
        self._seen: dict[str, str] = {}
        self._doomed: set[str] = set()
        # Files of this run, by every path that is known; of those known by others, these; and the documents of one.
        self._here: set[str] = set()
        self._others: dict[str, list[str]] = {}
        self._mine: Set[str] = set()
        # Documents with ids of files of this run, by file and id: who has them is known when all files are read.
        self._refused: dict[readers.Source, dict[str, _Refused]] = {}
        # Documents that need ids of passages which others may still give up.
        self._waiting: dict[str, _Made] = {}
        self._failed: list[Failure] = []
        self._passed_over: Mapping[str, int] = {}
        self._omitted: Counter[str] = Counter()
        self._missing: list[str] = []
        self._added = self._changed = self._deleted = self._unchanged = 0
        self._documents = self._expected = 0
        self._passages = len(self._claims)
        self._source = ""
        self._unindexed = table.unindexed()
        self._stale = self._unindexed > 0
        self._commits = Commits(table, embedder, self._tell_embedded, self._count_committed, late=late)

    def files(self, paths: Sequence[str | Path], limits: Limits) -> Changes:
        """Make the index agree with the files below the paths; what lies elsewhere is left alone."""
        roots = [readers.written(os.path.abspath(path)) for path in paths]
        found = readers.find(paths, self._by_source.keys())
        self._failed += found.failures
        self._passed_over = found.passed_over
        there = self._meet(found.sources)
        elsewhere = self._departed(roots, [failure.source for failure in found.failures], there)
        counts = [readers.count(source) for source in found.sources]
        self._expected = sum(counts)
        done = 0
        for source, count in zip(found.sources, counts, strict=True):
            self._file(source, limits)
            done += count
            self._documents = done
            self._commits.advance()
        self._retry(limits)
        # Documents of a file that was moved have been found again where it is now.
        self._missing = [path for path in elsewhere if self._by_source[path] - self._seen.keys()]
        return self._finish()

    def _meet(self, sources: Sequence[readers.Source]) -> Set[str]:
        """Note by which paths files of this run are known, perhaps through a link; the other paths that are there."""
        self._here = {readers.written(source.path) for source in sources}
        known: dict[tuple[int, int], list[str]] = {}
        for path in self._by_source.keys() - self._here:
            if path and (key := readers.identity(path)):
                known.setdefault(key, []).append(path)
        for source in sources if known else ():
            if paths := known.get(readers.identity(source.path) or (0, 0)):
                self._others[readers.written(source.path)] = sorted(paths)
                self._here.update(paths)
        return {path for paths in known.values() for path in paths}

    def _departed(self, roots: Sequence[str], unseen: Sequence[str], there: Set[str]) -> list[str]:
        """Doom what is gone below the roots; the files elsewhere that are gone, so none of those that are `there`."""
        elsewhere = []
        for path in (path for path in self._by_source if path and path not in self._here):
            if not any(readers.within(path, root) for root in roots):
                if path not in there and readers.has_gone(path):
                    elsewhere.append(path)
            elif not any(readers.within(path, folder) for folder in unseen):
                # Behind a link that cannot be followed, say.
                if failure := readers.unreachable(path):
                    self._failed.append(failure)
                else:
                    self._doomed |= self._by_source[path]
        return sorted(elsewhere)

    def documents(self, documents: Iterable[Document | Mapping[str, Any]]) -> Changes:
        """Add documents, or replace those of the same id; the others are left alone."""
        if isinstance(documents, (str, Mapping)) or not isinstance(documents, Iterable):
            raise InputError(f"add takes a list of documents, not one {type(documents).__name__}: put it into a list")
        if hasattr(documents, "columns"):
            # Its items would be the names of columns.
            kind, rows = type(documents).__name__, "df.to_dict('records') of pandas and df.to_dicts() of polars"
            raise InputError(f"add takes a list of documents, not {kind}: pass its rows, {rows}")
        for position, document in enumerate(documents):
            clean = document_of(document, position)
            self._expected += 1
            self._document(clean, _Origin(), f"document {clean.id!r}")
            self._dealt_with()
        return self._finish()

    def _file(self, source: readers.Source, limits: Limits) -> None:
        path = readers.written(source.path)
        known_by = [known for known in (path, *self._others.get(path, ())) if known in self._by_source]
        mine = self._mine = set().union(*(self._by_source[known] for known in known_by))
        self._source = path
        self._tell("reading")
        lost: list[Failure] = []
        try:
            found = source.path.stat()
        except OSError as error:
            self._failed.append(readers.failure(source, error))
            return
        # The first path of several stays: documents that go are found by it.
        origin = _Origin(known_by[0] if known_by else path, found.st_size, found.st_mtime_ns)
        if not source.has_rows and len(mine) == 1:
            (id_,) = mine
            source = replace(source, name=id_)  # Given by another path before: the document keeps its id.
            known = self._known[id_]
            if (known.size, known.modified) == (origin.size, origin.modified) and id_ not in self._seen:
                self._seen[id_] = path
                self._unchanged += 1
                return

        def report(failure: Failure) -> None:
            self._failed.append(failure)
            lost.append(failure)

        for document in self._read(source, limits, report):
            self._document(document, origin, path, source)
            self._dealt_with()
        missing = mine - self._seen.keys()
        if not lost:
            self._doomed |= missing
        elif missing:
            # Rows that could not be read may be the ones that are missing.
            kept = f"{len(missing):,} of its documents stay" if len(missing) > 1 else "one of its documents stays"
            reason = f"{lost[0].reason}; until this is mended, {kept} in the index as before"
            self._failed[self._failed.index(lost[0])] = replace(lost[0], reason=reason)

    def _retry(self, limits: Limits) -> None:
        """Read again what was refused for ids that files of this run turned out to have given up."""
        self._mine = set()
        for source, refused in self._refused.items():
            free = set()
            for id_, (where, digest, origin) in refused.items():
                if taken := self._taken(id_, digest, origin):
                    self._failed.append(Failure(where, taken))
                else:
                    free.add(id_)
            # What cannot be read of it was told before.
            for document in self._read(source, limits, lambda failure: None) if free else ():
                if document.id in free:
                    self._document(document, refused[document.id].origin, readers.written(source.path))
                    self._commits.advance()

    def _read(self, source: readers.Source, limits: Limits, report: Report) -> Iterator[Document]:
        """The documents of a file; what could not be read is reported."""
        try:
            yield from readers.read(source, limits, report)
        except (ReadError, OSError) as error:
            report(readers.failure(source, error))
        except Exception:
            self._commits.commit()  # What was read before an error that nobody foresaw is not lost with it.
            raise

    def _document(self, document: Document, origin: _Origin, place: str, source: readers.Source | None = None) -> None:
        """Take one over; `source` is where it can be read again."""
        known = self._known.get(document.id)
        where = f"{place}, {document.row}" if document.row else place
        digest = digest_of(document)
        if taken := self._taken(document.id, digest, origin):
            if source and known and known.source in self._here and document.id not in self._seen:
                self._refused.setdefault(source, {})[document.id] = _Refused(where, digest, origin)
            else:
                self._failed.append(Failure(where, taken))
            return
        self._seen[document.id] = place
        self._doomed.discard(document.id)
        if known and known.digest == digest and (known.source == origin.path or document.id in self._mine):
            self._unchanged += 1
            return
        made = _Made(document, self._cut(document, origin.path), where, digest, origin)
        if (held := self._claims.taken(document.id, made.ids)) and self._may_go(held[1]):
            self._waiting[document.id] = made
        else:
            self._store(made)

    def _store(self, made: _Made) -> None:
        document, passages, where, digest, origin = made
        known = self._known.get(document.id)
        if unfit := self._unfit(document, made.ids):
            self._failed.append(Failure(where, unfit))
            if known and not passages:
                self._doomed.add(document.id)
            return
        self._claims.take(document.id, made.ids)
        self._omitted.update(document.omitted)
        if known:
            self._changed += 1
            self._passages -= len(known.passages)
        else:
            self._added += 1
        rows = [Row(passage, tokens, origin.path, digest, origin.size, origin.modified) for passage, tokens in passages]
        self._commits.add(rows, document.id if known else None)

    def _may_go(self, id_: str) -> bool:
        """Whether a document of before may still give up ids of its passages."""
        return id_ in self._known and (id_ not in self._seen or id_ in self._waiting or id_ in self._doomed)

    def _settle(self) -> None:
        """Store what waited, now that all else is dealt with and gone; what still lacks its ids fails."""
        while free := [made for id_, made in self._waiting.items() if not self._claims.taken(id_, made.ids)]:
            for made in free:
                del self._waiting[made.document.id]
                self._store(made)
                self._commits.advance()
        for made in self._waiting.values():
            self._store(made)
        self._commits.commit()

    def _unfit(self, document: Document, passages: Sequence[str]) -> str | None:
        """Why these passages of a document cannot be stored; None when they can."""
        if not passages:
            return f"document {document.id!r} is blank: nothing to index"
        if taken := self._claims.taken(document.id, passages):
            return "its passage {!r} has the id of a passage of {!r}: rename one".format(*taken)
        return crowded(document.metadata, len(passages))

    def _taken(self, id_: str, digest: str, origin: _Origin) -> str | None:
        """Why a document of this content may not have this id; None when it may."""
        if id_ in self._seen:
            if not origin.path:
                cure = "give each document its own, or join their texts into one document"
            elif readers.has_rows(origin.path):
                cure = (
                    "give each document its own, or rename or take out the field id (or _id) of these rows, which are "
                    "then called by their file and number"
                )
            else:
                cure = (
                    "a file is called by its path below what is given: index the folder that holds both, or rename one"
                )
            return f"the id {id_!r} comes twice, first in {self._seen[id_]}: {cure}"
        known = self._known.get(id_)
        # What a program adds has no path, and replaces what is there.
        if known is None or not origin.path or known.source == origin.path:
            return None
        if id_ in self._mine or id_ in self._doomed:
            return None
        cure = "index a folder that holds both, or rename one"
        if readers.has_gone(known.source):
            # It was moved. A file of another name and content is another, and the disk of that one may come back.
            if known.digest == digest or os.path.basename(known.source) == os.path.basename(origin.path):
                return None
            cure = "that file is gone; name it in PATHS, too, to remove what it held, or rename one"
        return f"the id {id_!r} belongs to {known.source or 'a document that a program added'}: {cure}"

    def _dealt_with(self) -> None:
        # Counted first: "committed" must never count a document that is not.
        self._documents += 1
        self._commits.advance()

    def _tell_embedded(self) -> None:
        self._tell("embedding")

    def _count_committed(self, passages: int) -> None:
        self._passages += passages
        self._unindexed += passages
        self._stale = True
        self._tell("committed")
        if self._unindexed >= _UNINDEXED:
            self._table.take_in()
            self._unindexed = 0

    def _finish(self) -> Changes:
        self._commits.commit()
        doomed = sorted(self._doomed)
        for some in _deleting(self._table, doomed):
            self._deleted += len(some)
            for id_ in some:
                self._claims.give_up(id_)
            self._passages -= sum(len(self._known[id_].passages) for id_ in some)
            self._stale = True
            self._tell("committed")
        self._settle()
        if self._stale:
            self._tell("tidying")
            self._table.tidy()
        self._tell("done")
        return Changes(
            added=self._added, changed=self._changed, deleted=self._deleted, unchanged=self._unchanged,
            failed=tuple(self._failed), unread=tuple(self._commits.unread), passed_over=self._passed_over,
            omitted=dict(self._omitted), missing=tuple(self._missing),
        )  # fmt: skip

    def _tell(self, stage: Literal["reading", "embedding", "committed", "tidying", "done"]) -> None:
        if self._progress is not None:
            expected = max(self._expected, self._documents)
            self._progress(Progress(stage, self._documents, expected, self._passages, self._source))


def taken_out(table: Table, ids: Sequence[str]) -> Changes:
    """Remove documents; an id that is not there is unchanged. The caller holds the lock of the index."""
    wanted, known = dict.fromkeys(ids), table.known()
    gone = sum(map(len, _deleting(table, sorted(wanted.keys() & known.keys()))))
    if gone or table.unindexed():
        table.tidy()
    return Changes(added=0, changed=0, deleted=gone, unchanged=len(wanted) - gone, failed=())


def _deleting(table: Table, ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Delete documents, some at once, and tell which are gone."""
    for at in range(0, len(ids), _DELETE_AT_ONCE):
        some = ids[at : at + _DELETE_AT_ONCE]
        table.delete(some)
        yield some


def digest_of(document: Document) -> str:
    """Hash of all that becomes passages and metadata, 32 hex digits."""
    content = [document.title, document.text, sorted(document.metadata.items()), document.markup]
    return sha256(json.dumps(content, ensure_ascii=False).encode("utf-8")).hexdigest()[:32]
