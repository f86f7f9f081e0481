"""The index: a folder that holds passages and answers BM25 and vector queries over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from crossrank.checkpoint import vocabulary
from crossrank.errors import CrossrankError, IndexFileError
from crossrank.index import fitting
from crossrank.index.build import Update, taken_out
from crossrank.index.changes import Callback, Changes
from crossrank.index.documents import KINDS, Document, Kind, Limits, ids_in, paths_in
from crossrank.index.folders import LOCK, has_version, make_folder, placed
from crossrank.index.lock import exclusive
from crossrank.index.oneversion import held, kept, lost, removed
from crossrank.index.passages import Cut, check_sizes, cut_by, usual_size
from crossrank.index.records import SPELLING, Info, Known, Settings, Where, language_named
from crossrank.index.table import Table
from crossrank.tokenvectors import TokenEmbedder, TokenVectors
from crossrank.types import Embedder, Passage, Ranking, Tokens

T = TypeVar("T")


class Index:
    """Passages on disk, at the version that was last committed when the index was opened, updated or refreshed.

    Reading is safe from many threads and processes, also while another process updates the index; one process at a time
    may write. An update removes versions that were replaced more than ten minutes before; who still reads one goes on
    at the newest. Reads that belong together, such as ids and then their passages, are of one version within
    `one_version`; a pipeline's searches are. Ids in a ranking are those of passages; equal scores are ordered by id.
    Damage: IndexFileError.

    >>> import tempfile
    >>> import crossrank
    >>> embedder = crossrank.load_embedder()
    >>> folder = tempfile.TemporaryDirectory()
    >>> index = Index.create(folder.name, embedder)
    >>> index.add([Document("a", "Cats purr."), {"id": "b", "text": "Dogs bark.", "year": 2019}], embedder).added
    2
    >>> index.bm25("barking dogs", 10).ids, index.bm25("dog", 10, where="year>=2020").ids
    (('b',), ())
    >>> index.dense(embedder.embed(["kitten"])[0], 10).ids
    ('a', 'b')
    >>> folder.cleanup()
    """

    def __init__(self, table: Table, stays: bool = False) -> None:
        self._table = table
        self._stays = stays

    def __repr__(self) -> str:
        return f"Index({str(self._table.folder)!r}, passages={len(self)})"

    @classmethod
    def open(cls, folder: str | Path) -> Index:
        """The index in a folder.

        Raises:
            IndexFileError: there is none, or it is damaged, of another format, or cannot be reached.
        """
        return cls(Table.open(placed(folder)))

    @classmethod
    def create(
        cls,
        folder: str | Path,
        embedder: Embedder,
        tokenizer: Tokenizer | None = None,
        *,
        model: str | None = None,
        size: int | None = None,
        overlap: int = 0,
        language: str = "English",
        rebuild: bool = False,
        late: TokenEmbedder | None = None,
        late_model: str | None = None,
    ) -> Index:
        """An empty index.

        Args:
            folder: new or empty; it is made with its parents.
            embedder: makes the vectors, such as `crossrank.load_embedder()`; updates and queries need the same one. The
                index keeps the prompts that it was loaded with.
            tokenizer: cuts passages, and its token ids are stored; the embedder's own when absent.
            model: the name by which `crossrank.open_pipeline` and the commands load the embedder; when absent the one
                that it was loaded by, a folder as its whole path, and of one behind an address `embedder.name`.
            size: tokens of a passage, at most; when absent 200, or what the embedder reads where that is less. A size
                beyond what it reads is obeyed (documents may be wanted whole), and every update reports the passages
                whose vectors do not tell of their ends.
            overlap: tokens a passage repeats from the one before it.
            language: of stemming and stop words in BM25: one of `records.LANGUAGES`, in any case; "any" has neither
                and finds words also where there are no spaces between them, as in Chinese.
            rebuild: replace the index that is there. Its passages are gone with that one commit.
            late: a late-interaction model whose token vectors are stored, in float16; every later update needs one of
                the same fingerprint. They take 2 * width bytes a token, some 30 kB a passage.
            late_model: the name by which later runs of `crossrank index` load it; that it was loaded by when absent.

        Raises:
            IndexFileError: the folder holds an index already (without `rebuild`), or something else.
            InputError: a size or overlap that cannot be kept, an unknown language, or no tokenizer.
        """
        size, overlap = check_sizes(usual_size(embedder) if size is None else size, overlap)
        path = placed(folder)
        settings = Settings(
            embedder=embedder.fingerprint, width=embedder.width,
            tokenizer=vocabulary.fingerprint(fitting.tokenizer_of(embedder, tokenizer)),
            model=model or fitting.name_of(embedder), size=size, overlap=overlap,
            language=language_named(language), spelling=SPELLING,
            late="" if late is None else late.fingerprint, late_width=0 if late is None else late.width,
            late_model=None if late is None else late_model or fitting.name_of(late),
            prompts=dict(getattr(embedder, "prompts", {})),
        )  # fmt: skip
        make_folder(path)
        with exclusive(path / LOCK):
            exists = has_version(path)
            if exists and not rebuild:
                raise IndexFileError(f"{path} holds an index already: open it, or replace it with rebuild=True")
            return cls(Table.create(path, settings, replace=exists))

    @classmethod
    def open_or_create(
        cls,
        folder: str | Path,
        embedder: Embedder,
        tokenizer: Tokenizer | None = None,
        *,
        model: str | None = None,
        size: int | None = None,
        overlap: int | None = None,
        language: str | None = None,
        rebuild: bool = False,
        late: TokenEmbedder | None = None,
        late_model: str | None = None,
    ) -> Index:
        """The index in a folder, made now if there is none; a setting of None is taken as it is, or as its default.

        Raises:
            IndexFileError: as `open` and `create`; also when the index was made with other settings.
        """
        if rebuild or not has_version(placed(folder)):
            return cls.create(
                folder, embedder, tokenizer, model=model, size=size, overlap=0 if overlap is None else overlap,
                language="English" if language is None else language, rebuild=rebuild, late=late, late_model=late_model,
            )  # fmt: skip
        index = cls.open(folder)
        made = index._table.settings
        fitting.check_settings(index._table.folder, made, size, overlap, language)
        # Not by the index, which a running query would hold to the version of this first look.
        fitting.check_embedder(index._table.folder, made, embedder)
        fitting.check_late(index._table.folder, made, late)
        return index

    def _read(self, read: Callable[[Table], T]) -> T:
        """What `read` gives; from the newest version when an update has removed the one that this index is at."""
        while True:
            table = self._at
            try:
                if not table.gone:
                    made = read(table)
                    if kept(self, table):
                        return made
                    continue
            except IndexFileError:
                if not table.outdated():  # A version goes file by file, but at the newest an error is damage.
                    raise
            if self._stays:
                raise removed(table.folder)
            self._table = now = table.now()
            lost(self, table, now, table.folder)  # What a query has found at one version it must not read at another.

    @property
    def _at(self) -> Table:
        """What is read: the version that the running query began with, or else the last that was seen."""
        return held(self, self._table)

    def __len__(self) -> int:
        """Passages."""
        return self._read(len)

    def info(self) -> Info:
        """How it was made and how large it is: its files and documents are counted."""
        return self._read(Table.info)

    @property
    def settings(self) -> Settings:
        """How it was made, models and sizes: nothing is read for it."""
        return self._at.settings

    def ids(self) -> list[str]:
        """The ids of all passages; those of one document are in its order."""
        return self._read(Table.ids)

    def documents(self) -> list[str]:
        """The ids of all documents that have passages, each once."""
        return self._read(Table.documents)

    def known(self) -> Mapping[str, Known]:
        """What is known of each document: its file, the hash of its content (`build.digest_of`), its passages' ids."""
        return self._read(Table.known)

    def refresh(self) -> None:
        """Go on to the last commit; an `IndexFileError` says that somebody made the index anew with other models."""
        self._table = self._table.now() if self._table.behind else self._table

    def latest(self) -> Index:
        """The index at its last commit: this one, or another when somebody has committed since.

        Whoever holds this one goes on reading the version that it was opened at, as long as that is kept.
        """
        return Index(Table.open(self._table.folder)) if self._table.behind else self

    def staying(self) -> Index:
        """The index at the version that this one is at, for work of hours; an `IndexFileError` when that is removed."""
        return Index(self._table, stays=True)

    def check_embedder(self, embedder: Embedder) -> None:
        """Refuse an embedder whose vectors cannot be compared with those of the index.

        Raises:
            IndexFileError: its fingerprint or width is another.
        """
        fitting.check_embedder(self._at.folder, self._at.settings, embedder)

    def check_late(self, late: TokenEmbedder | None) -> None:
        """Refuse a late-interaction model other than the one whose token vectors are stored, or one too few or many.

        Raises:
            IndexFileError: its fingerprint is another.
        """
        fitting.check_late(self._at.folder, self._at.settings, late)

    def update(
        self,
        paths: Iterable[str | Path],
        embedder: Embedder,
        tokenizer: Tokenizer | None = None,
        progress: Callback | None = None,
        limits: Limits | None = None,
        cut: Cut | None = None,
        late: TokenEmbedder | None = None,
    ) -> Changes:
        """Make the index agree with the files below `paths`: new and changed documents are embedded, deleted ones go.

        What was indexed from elsewhere stays. A path that no longer exists but was indexed before is a deletion. Work
        is committed as it goes; interrupted, this leaves the last commit, and the next call does the rest. Threads that
        read this `Index` meanwhile see what was committed when the call ends.

        Args:
            paths: files and folders, see `readers.find`.
            embedder: of the same fingerprint as the one the index was made with.
            tokenizer: likewise.
            progress: called from this thread.
            limits: what reading one thing may cost.
            cut: gives the passages of a document as `passages.passages_of` would, for whoever has made them already.
            late: the late-interaction model whose token vectors are stored, of an index that was made with one.

        Returns:
            What changed, and what was not read: files and rows that could not be in `failed` (the rest is indexed),
            kinds of files in `passed_over`, passages of which the embedder read only the beginning in `unread`.

        Raises:
            InputError: a path does not exist, is of a kind that cannot be indexed, or is none; or no tokenizer.
            IndexFileError: another embedder or tokenizer; another process is writing; the disk is full.
        """
        paths = paths_in(paths, "update")
        with self._updating(embedder, tokenizer, progress, late, cut) as update:
            return update.files(paths, limits or Limits())

    def add(
        self,
        documents: Iterable[Document | Mapping[str, Any]],
        embedder: Embedder,
        tokenizer: Tokenizer | None = None,
        progress: Callback | None = None,
        late: TokenEmbedder | None = None,
    ) -> Changes:
        """Add documents, or replace those of the same id, like `update`; many at once, as each call makes BM25 anew.

        A mapping is read as a row of a .jsonl file is (`rows.Rows`), and needs an id: `{"id": 7, "text": "Tea."}`.

        Raises:
            InputError: one is no document, as without an id or a field of texts; else as `update`.
        """
        with self._updating(embedder, tokenizer, progress, late) as update:
            return update.documents(documents)

    def remove(self, ids: Iterable[str]) -> Changes:
        """Remove documents by their ids, without any model; an id that is not there is unchanged."""
        with self._writing(lambda _: ids_in(ids)) as (writing, asked):
            return taken_out(writing, asked)

    @contextmanager
    def _updating(
        self,
        embedder: Embedder,
        tokenizer: Tokenizer | None,
        progress: Callback | None,
        late: TokenEmbedder | None = None,
        cut: Cut | None = None,
    ) -> Iterator[Update]:
        with self._writing(lambda at: fitting.check_update(at, embedder, tokenizer, late)) as (at, own):
            cut = cut or cut_by(own, at.settings, getattr(embedder, "threads", None))
            yield Update(at, embedder, cut, progress, late)

    @contextmanager
    def _writing(self, fit: Callable[[Table], T]) -> Iterator[tuple[Table, T]]:
        """Hold the lock, see the latest version, check that what comes fits it, and follow it to its end."""
        with exclusive(self._table.folder / LOCK):
            # A table that is written to moves with every commit. Readers in other threads keep one that stands still.
            writing = Table.open(self._table.folder)
            writing.complete()
            fitted = fit(writing)
            # Only now: whoever searches here goes by the models of the version that was there before.
            self._table = writing.now()
            try:
                yield writing, fitted
            finally:
                # An error would take the place of the update's own, or of its `Changes`; who reads next meets it again.
                with suppress(CrossrankError):
                    self.refresh()

    def cutter(self, tokenizer: Tokenizer) -> Cut:
        """How documents of this index become passages."""
        return cut_by(tokenizer, self._at.settings)

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        """Passages by id, in the order of the ids. An id that is not in the index: InputError."""
        return self._read(lambda table: table.passages(ids))

    @property
    def tokenizer(self) -> str:
        """Fingerprint of the tokenizer whose ids `tokens` gives; see `checkpoint.vocabulary.fingerprint`."""
        return self._at.settings.tokenizer

    def tokens(self, ids: Sequence[str]) -> Tokens:
        """Token ids of the passages' scored texts in the order of the ids, all of the passage side.

        Special tokens are left out: an encoder puts them where its template has them. One that is written in a text is
        text. An id that is not in the index: InputError.
        """
        return self._read(lambda table: table.tokens(ids))

    def lengths(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """How many ids `tokens` gives of each passage, shape (n,). An id that is not in the index: InputError."""
        return self.tokens(ids).lengths

    @property
    def late(self) -> str:
        """Fingerprint of the late-interaction model whose vectors `token_vectors` gives; "" when there are none."""
        return self._at.settings.late

    def token_vectors(self, ids: Sequence[str]) -> TokenVectors:
        """Token vectors of the passages' scored texts in the order of the ids, float16.

        Raises:
            InputError: an id is not in the index, or the index holds no token vectors.
        """
        return self._read(lambda table: table.token_vectors(ids))

    def has_field(self, name: str, kinds: Iterable[Kind] = KINDS) -> bool:
        """Whether any passage has a value of one of these kinds in this field of its metadata."""
        return self._read(lambda table: table.has_field(name, kinds))

    def bm25(self, query: str, depth: int, where: Where = None) -> Ranking:
        """The best passages by BM25 (Lucene's form, k1 = 1.2, b = 0.75) over title and text together.

        Words are what stands between spaces and punctuation, in lower case, without accents, soft hyphens and letters
        that English lacks (ß is ss), stemmed (other languages before accents and letters go), but for stop words and
        words over 128 bytes; older indexes have older rules. No character of a query has a meaning of its own.

        Args:
            query: any text.
            depth: passages, at most.
            where: conditions on metadata, applied before the best are chosen; see `crossrank.index.filters`.

        Raises:
            InputError: a depth under 1, or a filter that cannot be understood.
        """
        return self._read(lambda table: table.bm25(query, depth, where))

    def dense(self, vector: NDArray[np.float32], depth: int, where: Where = None) -> Ranking:
        """The passages whose vectors have the largest dot product with `vector`, found by comparing all of them.

        Args:
            vector: shape (width,), a unit vector from the embedder of the index.
            depth: passages, at most.
            where: as in `bm25`.

        Raises:
            InputError: another shape, NaN, a depth under 1, or a filter that cannot be understood.
        """
        return self._read(lambda table: table.dense(vector, depth, where))
