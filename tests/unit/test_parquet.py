"""Parquet files that would take more memory than their size tells."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crossrank.errors import ReadError
from crossrank.index.documents import Document, Failure, Limits
from crossrank.index.readers import read

pa = pytest.importorskip("pyarrow", reason="needs the search extra")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the search extra")

from crossrank.distributed import parquet as bulk  # noqa: E402
from crossrank.index import pages, parquet  # noqa: E402

LONG = "word " * 80_000


def collect(path: Path, limits: Limits | None = None) -> tuple[list[Document], list[Failure]]:
    failures: list[Failure] = []
    return list(read(path, limits, failures.append)), failures


def written(path: Path, columns: dict[str, Any], **how: Any) -> Path:
    pq.write_table(pa.table(columns), path, compression="zstd", **how)
    return path


@contextmanager
def counted() -> Iterator[Any]:
    """Where Arrow takes its memory meanwhile, with a mark of the most."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        yield pool
    finally:
        pa.set_memory_pool(before)


def test_bulk_work_reads_as_few_rows_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 67 KB took 300 MB: 10,000 rows were read at once."""
    monkeypatch.setattr(parquet, "_BYTES_AT_ONCE", (4_000_000, 4_000_000))
    columns = {name: ["1"] * 400 for name in ("query_id", "document_id", "query")}
    path = written(tmp_path / "a.parquet", {**columns, "text": [LONG] * 400, "title": ["t"] * 400, "more": [0] * 400})
    with counted() as pool:
        found = [(number, row["title"], len(row["text"])) for number, row in bulk.rows(path, [*columns, "text"])]
    assert found == [(number, "t", len(LONG)) for number in range(1, 401)]
    assert pool.max_memory() < 20_000_000
    monkeypatch.setattr(bulk, "LINE_BYTES", 1_000)
    with pytest.raises(ReadError, match="row 1: it is larger than 1,000 bytes: split the document"):
        list(bulk.rows(path, [*columns, "text"]))


@pytest.mark.parametrize("dictionary", [True, False])
def test_rows_that_are_too_large_are_refused_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dictionary: bool
) -> None:
    """A file of 564 bytes took 1.6 GB, and `Limits` said nothing of Parquet."""
    monkeypatch.setattr(parquet, "_BYTES_AT_ONCE", (4_000_000, 4_000_000))
    texts = ["tea", *[LONG] * 200, "bread"]
    path = written(tmp_path / "a.parquet", {"text": texts}, use_dictionary=dictionary, write_batch_size=1)
    assert path.stat().st_size < 30_000
    with counted() as pool:
        documents, failures = collect(path, Limits(row_bytes=1_000, bad_rows=1))
    assert [(one.id, one.text) for one in documents] == [("a.parquet#1", "tea"), ("a.parquet#202", "bread")]
    assert failures[0].reason == "the row is larger than 1,000 bytes: split the document, or raise Limits.row_bytes"
    assert failures[0].source.endswith("a.parquet, row 2")
    assert failures[1].reason == "199 more rows could not be read"
    assert pool.max_memory() < 16_000_000, "all of it takes 80 MB"
    assert [len(one.text) for one in collect(path)[0]] == [len(text) for text in texts]


def test_texts_in_lists_are_measured_before_they_are_made(tmp_path: Path) -> None:
    lists = [["a", "b"], [LONG] * 100, None, ["b"]]
    keyed = pa.array([[("k", LONG)] * 100, [("k", "v")], [], None], pa.map_(pa.string(), pa.string()))
    path = written(tmp_path / "a.parquet", {"text": ["1", "2", "3", "4"], "tags": lists, "keyed": keyed})
    with counted() as pool:
        documents, failures = collect(path)
    assert [(one.text, dict(one.metadata)) for one in documents] == [
        ("3", {"tags": None, "keyed": []}),
        ("4", {"tags": ["b"], "keyed": None}),
    ]
    assert [failure.source[-5:] for failure in failures] == ["row 1", "row 2"]
    assert pool.max_memory() < 8_000_000, "a list takes 40 MB"


def test_columns_of_bytes_are_not_read_but_told(tmp_path: Path) -> None:
    columns = {"text": ["tea", "bread"], "image": [b"x" * 30_000_000, None], "n": [1, 2]}
    path = written(tmp_path / "a.parquet", columns)
    with counted() as pool:
        documents, failures = collect(path)
    assert [(dict(one.metadata), one.omitted) for one in documents] == [({"n": 1}, ["image"]), ({"n": 2}, ["image"])]
    assert failures == []
    assert pool.max_memory() < 10_000_000
    told = collect(written(tmp_path / "b.parquet", {"text": [b"tea"]}))[1][0].reason
    assert told == "its 'text' is a bytes, not a string"


def test_pages_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.parquet", {"text": [LONG, "tea"]})
    monkeypatch.setattr(parquet, "_BYTES_OF_ONE", (300_000, 500_000))
    with pytest.raises(ReadError, match=r"one row might take 400,0\d\d bytes: write it again with smaller pages"):
        collect(path)
    monkeypatch.setattr(parquet, "_RATIO", 1_000)  # A long document, and no trap.
    assert [one.text for one in collect(path)[0]] == [LONG, "tea"]
    monkeypatch.setattr(parquet, "_BYTES_OF_ONE", (0, 300_000))
    with pytest.raises(ReadError, match="might take"):
        collect(path)
    # Where nobody can tell, each row is read for itself.
    monkeypatch.setattr(pages, "largest", lambda *_: int("none"))
    assert parquet._rows_at_once(path, pq.read_metadata(path), []) == 1
    assert [one.text for one in collect(path)[0]] == [LONG, "tea"]


@pytest.mark.parametrize("how", [{}, {"data_page_version": "2.0"}, {"compression": "none"}, {"use_dictionary": False}])
def test_the_largest_page_is_that_of_the_longest_value(how: dict[str, Any]) -> None:
    file = io.BytesIO()
    texts = [str(number) * 40 for number in range(30_000)]
    texts[20_000] = LONG * 5
    pq.write_table(pa.table({"text": texts}), file, **{"compression": "snappy", "write_page_checksum": True, **how})
    chunk = pq.read_metadata(file).row_group(0).column(0)
    start = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
    # A writer begins a new page when one has more than a megabyte.
    assert 2_000_000 < pages.largest(file, start, chunk.total_compressed_size) < 3_500_000


@pytest.mark.parametrize("header", [b"", b"\x15", b"\x00", b"\x15\x04\x19", b"\x1c" * 99, b"\x15" + b"\xff" * 20])
def test_what_is_no_header_of_a_page_is_an_error(header: bytes) -> None:
    with pytest.raises(ValueError, match=r"header of a page"):
        pages.largest(io.BytesIO(header), 0, 100)


def test_values_are_measured_however_they_lie_in_memory() -> None:
    texts = ["a", None, "ééé"]
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())):
        assert parquet.sizes(pa.array(texts, kind)).tolist() == [1, 0, 6]
        assert parquet.sizes(pa.array(texts, kind).slice(1)).tolist() == [0, 6]
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
        assert parquet.sizes(pa.array([b"a", None], kind)).tolist() == [1, 0]
    lists = pa.array([["a", "bc"], None, [], ["def"]], pa.list_(pa.dictionary(pa.int32(), pa.string())))
    assert parquet.sizes(lists).tolist() == [3, 0, 0, 3]
    assert parquet.sizes(lists.slice(3)).tolist() == [3]
    fixed = pa.array([[1, 2], [3, 4], None], pa.list_(pa.int16(), 2))
    assert parquet.sizes(fixed.slice(1)).tolist() == [4, 4]
    maps = pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64()))
    assert parquet.sizes(maps).tolist() == [9, 0]
    structs = pa.array([{"a": "xyz", "b": [True]}, None])
    assert parquet.sizes(structs).tolist() == [4, 0]
    assert parquet.sizes(pa.nulls(2)).tolist() == [0, 0]
    assert parquet.sizes(pa.array(["{}"], pa.json_(pa.string()))).tolist() == [2]
    assert parquet.sizes(pa.array([], pa.dictionary(pa.int8(), pa.string()))).tolist() == []
