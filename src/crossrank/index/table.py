"""An index on disk: one Lance table that holds text, metadata, token ids, vectors and the BM25 index over them.

The one file here that calls Lance; `layout` knows its columns. Everything that changes the table is one commit of
Lance's, so an index is always in the state of its last commit, whatever happened to the process that wrote it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank import extras
from crossrank.asking import LARGEST
from crossrank.errors import IndexFileError, InputError
from crossrank.index import layout
from crossrank.index.documents import Kind, ids_in
from crossrank.index.failing import told
from crossrank.index.filters import has_value, one_of, parse, to_sql
from crossrank.index.folders import TABLE, Mark, bytes_in, has_table, has_version, place_of
from crossrank.index.recent import Recent
from crossrank.index.records import ANY_LANGUAGE, FORMAT, Info, Known, Row, Settings, Where
from crossrank.index.ties import ranking_of, through_ties
from crossrank.packed import offsets_of
from crossrank.tokenvectors import TokenVectors
from crossrank.types import Passage, Ranking, Tokens, check_k
from crossrank.unicode import valid_text

extras.require("lance", extra="search")
extras.require("pyarrow", extra="search")

import lance  # noqa: E402
import lance.query  # noqa: E402
import pyarrow as pa  # noqa: E402

_BM25 = "bm25"
_IDS = "ids"
_MODELS = ("embedder", "width", "tokenizer", "late")
"""The settings that a reader may have gone by."""
_AT_ONCE = 1_000  # Ids in one predicate.
_READ_FOR = 600.0
"""Seconds that a version is kept after another has replaced it: whoever began a query on it can end it."""
_LONGEST_WORD = 128
"""Bytes of a word that BM25 reads: a SHA-512 in hexadecimal is found, longer blobs would be words of one place each."""
_TRIES = 3
"""How often a folder is opened that is replaced each time meanwhile, or that has no lasting place on its disk."""


class Table:
    """The rows of one index at one version; reading is safe from many threads."""

    def __init__(self, folder: Path, dataset: Any, settings: Settings, mark: Mark | None = None) -> None:
        self.folder = folder
        self.settings = settings
        self._data = dataset
        self._mark = mark or Mark(folder, self.version)
        self._recent = Recent()

    @classmethod
    def open(cls, folder: Path) -> Table:
        """The last committed version, in a folder as `placed`.

        Raises:
            IndexFileError: no index there, or it is damaged, of another format, or cannot be reached.
        """
        if not has_table(folder):
            raise IndexFileError(f"no index in {folder}: make one with `crossrank index PATHS --to {folder}`")
        if not has_version(folder):
            raise IndexFileError(
                f"the index {folder} holds nothing yet: making it was cut short, or its files are damaged. Run "
                f"`crossrank index PATHS --to {folder}`"
            )
        with told(folder, "opening"):
            dataset, mark = _opened(folder)
            stored = (dataset.schema.metadata or {}).get(layout.KEY)
        if stored is None:
            raise IndexFileError(f"{folder} holds a Lance table that crossrank did not make: use another folder")
        fields = json.loads(stored)
        if fields.get("format") != FORMAT:
            raise IndexFileError(
                f"the index {folder} has format {fields.get('format')}, and this version of crossrank reads {FORMAT}: "
                "make it anew with `crossrank index PATHS --to DIR --rebuild`"
            )
        return cls(folder, dataset, Settings(**fields), mark)

    @classmethod
    def create(cls, folder: Path, settings: Settings, replace: bool) -> Table:
        """An empty table; with `replace`, in place of the one that is there, in one commit."""
        doing, mode = ("replacing", "overwrite") if replace else ("making", "create")
        with told(folder, doing):
            schema = layout.schema(settings)
            dataset = lance.write_dataset(schema.empty_table(), str(folder / TABLE), schema, mode=mode)
            table = cls(folder, dataset, settings)
        table.complete()
        return table

    def complete(self) -> None:
        """Make the indexes that are missing, as after a kill in the middle of `create`.

        They are made while the table is empty: rows that come later are found by a scan until the index takes them in.
        """
        with self._writing("making"):
            names = {index.name for index in self._data.describe_indices()}
            if _BM25 not in names:
                self._index_text()
            if _IDS not in names:
                self._data.create_scalar_index("id", "BTREE", name=_IDS)

    def __len__(self) -> int:
        with told(self.folder, "reading"):
            return int(self._data.count_rows())

    @property
    def version(self) -> int:
        """Grows with every commit."""
        return int(self._data.version)

    @property
    def behind(self) -> bool:
        """Whether somebody has committed since, or put another index in this one's place."""
        if self.gone:
            return True
        with told(self.folder, "reading"):  # 0.01 ms: the newest manifest is looked for, nothing is read.
            return bool(self._data.latest_version != self._data.version)

    @property
    def gone(self) -> bool:
        """Whether this version is no longer in the folder, so that its files may be missing: see `Mark.there`."""
        return not self._mark.there()

    def outdated(self) -> bool:
        """As `behind`, told from contents: for whoever could not read what he expects in the folder."""
        return not self._mark.there(surely=True) or self.behind

    def now(self) -> Table:
        """The last committed version, for whoever goes on reading there instead of here.

        Raises:
            IndexFileError: the index was made anew with other models, so that queries must be embedded otherwise.
        """
        table = Table.open(self.folder)
        if any(getattr(table.settings, name) != getattr(self.settings, name) for name in _MODELS):
            raise IndexFileError(f"the index {self.folder} was made anew with other models: open it again")
        return table

    # Reading.

    def bm25(self, query: str, depth: int, where: Where) -> Ranking:
        """See `Index.bm25`."""
        check_k(depth, "depth")
        depth = min(depth, LARGEST)
        condition = to_sql(parse(where))
        if not isinstance(query, str):
            raise InputError(f"a query is a string, not {type(query).__name__}")
        text = valid_text(query)
        if layout.SHOWN in self._data.schema.names:
            text = layout.as_words(text, self.settings.language, self.settings.spelling)
        if not text.strip():
            return ranking_of([], [], depth)

        def fetch(limit: int) -> pa.Table:
            return self._data.to_table(
                columns=["id", "_score"],
                full_text_query=lance.query.MatchQuery(text, "content"),
                filter=condition,
                prefilter=True,
                limit=limit,
            )

        with told(self.folder, "searching"):
            found = through_ties(fetch, depth, "_score")
        return ranking_of(found["id"].to_pylist(), found["_score"].to_numpy(), depth)

    def dense(self, vector: NDArray[np.float32], depth: int, where: Where) -> Ranking:
        """See `Index.dense`."""
        check_k(depth, "depth")
        depth = min(depth, LARGEST)
        condition = to_sql(parse(where))
        query = np.asarray(vector, dtype=np.float32)
        if query.shape != (self.settings.width,) or not np.isfinite(query).all():
            raise InputError(
                f"a query vector must have {self.settings.width} finite numbers, not the shape {query.shape}: embed it "
                "with the embedder of the index"
            )

        def fetch(limit: int) -> pa.Table:
            return self._data.to_table(
                columns=["id", "_distance"],
                nearest={"column": "vector", "q": query, "k": limit, "metric": "dot", "use_index": False},
                filter=condition,
                prefilter=True,
            )

        with told(self.folder, "searching"):
            found = through_ties(fetch, depth, "_distance")
        return ranking_of(found["id"].to_pylist(), 1 - found["_distance"].to_numpy(), depth)

    def has_field(self, name: str, kinds: Iterable[Kind]) -> bool:
        """See `Index.has_field`."""
        with told(self.folder, "reading"):
            return bool(self._data.to_table(columns=["id"], filter=has_value(name, kinds), limit=1).num_rows)

    def rows(self, ids: Sequence[str], columns: Sequence[str]) -> tuple[pa.Table, NDArray[np.int64]]:
        """Rows of the given ids in some order, and the position in them of each id.

        Raises:
            InputError: an id is not in the index.
        """
        asked = ids_in(ids)
        wanted = list(dict.fromkeys(asked))
        with told(self.folder, "reading"):
            parts = [
                self._data.to_table(columns=["id", *columns], filter=one_of("id", wanted[at : at + _AT_ONCE]))
                for at in range(0, len(wanted), _AT_ONCE)
            ]
        found = pa.concat_tables(parts or [layout.schema(self.settings).empty_table().select(["id", *columns])])
        place = {id_: row for row, id_ in enumerate(found["id"].to_pylist())}
        try:
            return found, np.asarray([place[id_] for id_ in asked], dtype=np.int64)
        except KeyError as error:
            raise InputError(
                f"the index {self.folder} has no passage {error.args[0]!r}; it may have been updated since"
            ) from error

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        """See `Index.passages`."""
        found, order = self.rows(ids, layout.columns_of(self._data.schema))
        made = [layout.passage_of(row) for row in found.to_pylist()]
        return [made[place] for place in order.tolist()]

    def tokens(self, ids: Sequence[str]) -> Tokens:
        """See `Index.tokens`."""
        if (known := self._recent.of(self.version, asked := ids_in(ids))) is not None:
            return known
        found, order = self.rows(asked, ["tokens"])
        lists = found["tokens"].combine_chunks()
        flat = np.asarray(lists.flatten(), dtype=np.int32)
        tokens = Tokens(flat, np.ones_like(flat), offsets_of(np.asarray(lists.value_lengths()))).take(order)
        # A copy, as arrays can be written to.
        return self._recent.keep(self.version, asked, tokens).of(self.version, asked) or tokens

    def token_vectors(self, ids: Sequence[str]) -> TokenVectors:
        """See `Index.token_vectors`."""
        if not self.settings.late:
            raise InputError(f"the index {self.folder} holds no token vectors: make it anew with --rebuild --late")
        found, order = self.rows(ids, [layout.LATE])
        return layout.vectors_of(found[layout.LATE].combine_chunks(), self.settings.late_width).take(order)

    def ids(self) -> list[str]:
        """Every passage, in the order of the table."""
        with told(self.folder, "reading"):
            return [str(id_) for id_ in self._data.to_table(columns=["id"])["id"].to_pylist()]

    def known(self) -> dict[str, Known]:
        """Every document, in the order of the table."""
        columns = ["id", "document", "source", "digest", "size", "modified"]
        with told(self.folder, "reading"):
            found = self._data.to_table(columns=columns)
        passages: dict[str, list[str]] = {}
        origins: dict[str, tuple[str, str, int, int]] = {}
        rows = zip(*(found[name].to_pylist() for name in columns), strict=True)
        for id_, document, source, digest, size, modified in rows:
            passages.setdefault(document, []).append(id_)
            origins[document] = source, digest, size, modified
        return {document: Known(*origins[document], tuple(ids)) for document, ids in passages.items()}

    def documents(self) -> list[str]:
        """Every document that has passages here, once, in the order of the table."""
        with told(self.folder, "reading"):
            return list(dict.fromkeys(self._data.to_table(columns=["document"])["document"].to_pylist()))

    def info(self) -> Info:
        """See `Index.info`."""
        return Info.of(self.settings, len(self), len(self.documents()), bytes_in(self.folder), self.version)

    # Writing: one commit each. The caller holds the lock.

    @contextmanager
    def _writing(self, doing: str = "writing to") -> Iterator[None]:
        """Change the index, and go on to what was committed."""
        if self.gone:  # In another index the rows of this one are not there.
            raise IndexFileError(f"the index {self.folder} was replaced while it was updated: run this again")
        with told(self.folder, doing):
            yield
            self._data.checkout_latest()
        self._mark = Mark(self.folder, self.version)

    def put(
        self,
        rows: Sequence[Row],
        vectors: NDArray[np.float32],
        replaced: Iterable[str],
        late: TokenVectors | None = None,
    ) -> None:
        """Add rows; all other rows of the documents `replaced` go in the same commit.

        `late` are their token vectors, where the table holds some.
        """
        gone = list(replaced)
        # Outside of what calls an error damage.
        table = layout.table_of(rows, vectors, self.settings, self._data.schema, late)
        with self._writing():
            if not gone:
                lance.write_dataset(table, self._data, mode="append")
            else:
                (
                    self._data.merge_insert("id")
                    .when_matched_update_all()
                    .when_not_matched_insert_all()
                    .when_not_matched_by_source_delete(one_of("document", gone))
                    .execute(table)
                )

    def delete(self, documents: Sequence[str]) -> None:
        """Remove all rows of the given documents."""
        with self._writing():
            self._data.delete(one_of("document", documents))

    def unindexed(self) -> int:
        """Rows that BM25 still finds by scanning."""
        with told(self.folder, "reading"):
            return int(self._data.stats.index_stats(_BM25)["num_unindexed_rows"])

    def take_in(self) -> None:
        """Bring the indexes up to date with the rows."""
        with self._writing():
            self._data.optimize.optimize_indices()

    def tidy(self) -> None:
        """After an update: join small files, bring the indexes up to date, and drop what old versions left behind.

        Deleted rows stay in the statistics of BM25 until its index is made again, which is cheap up to 20,000 rows;
        above that it waits until a tenth of the rows were deleted.
        """
        with self._writing():
            fragments = self._data.get_fragments()
            rows = sum(fragment.count_rows() for fragment in fragments)
            deleted = sum(fragment.num_deletions for fragment in fragments)
            if len(fragments) > 32 or deleted > rows // 10:
                self._data.optimize.compact_files(target_rows_per_fragment=131_072)
                self._data.checkout_latest()
            if rows <= 20_000 or deleted > rows // 10:
                self._index_text()
            self._data.optimize.optimize_indices()
            self._data.checkout_latest()
            # The lock says that nobody else writes, so files of no version are left-overs of a killed writer. A version
            # that was replaced in the last minutes may still be read.
            least = time.time() - _READ_FOR
            replaced = sum(version["timestamp"].timestamp() > least for version in self._data.versions()[1:])
            self._data.cleanup_old_versions(retain_versions=1 + replaced, delete_unverified=True)

    def _index_text(self) -> None:
        language = self.settings.language
        words: dict[str, Any] = {"base_tokenizer": "simple", "language": language}
        if language == ANY_LANGUAGE:
            # Words by the rules and dictionaries of Unicode, so that text without spaces has words too.
            words = {"base_tokenizer": "icu/split"}
        words |= dict.fromkeys(("stem", "remove_stop_words"), language != ANY_LANGUAGE)
        words |= {"with_position": False, "ascii_folding": True, "max_token_length": _LONGEST_WORD + 1}
        self._data.create_scalar_index("content", "INVERTED", name=_BM25, replace=True, **words)


def _opened(folder: Path) -> tuple[Any, Mark]:
    """The newest version and its mark: of one index, though another may be put in its place meanwhile."""
    for _ in range(_TRIES):
        place = place_of(folder)
        dataset = lance.dataset(str(folder / TABLE))
        mark = Mark(folder, int(dataset.version))
        if place_of(folder) == place:
            break
    return dataset, mark
