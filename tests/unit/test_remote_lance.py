"""A dataset of Lance by its address: words, vectors, texts, and what goes wrong."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import numpy as np
import pytest

from crossrank.errors import InputError, RemoteError
from crossrank.retrieval.remote.store import Fields
from crossrank.types import Passage

pytest.importorskip("lance", reason="needs the search extra")

import lance
import pyarrow as pa

from crossrank.retrieval.remote.lance import LanceTable

TEXTS = ["A failed upload is retried.", "Bread needs yeast.", "An upload of bread fails.", "Bread needs yeast."]
VECTORS = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset as LanceDB would lay it out, as an address."""
    folder = tmp_path_factory.mktemp("data") / "notes.lance"
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.ravel()), 8)
    columns = {"id": [1, 2, 3, 10], "body": TEXTS, "lang": ["en", "en", "de", "en"], "embedding": vectors}
    made = lance.write_dataset(pa.table(columns), str(folder))
    made.create_scalar_index("body", "INVERTED")
    return f"file://{folder}"


def table(uri: str, **options: object) -> LanceTable:
    return LanceTable(uri, Fields("body", metadata=["lang"]), **{"vector": "embedding", **options})  # type: ignore[arg-type]


def test_words(uri: str) -> None:
    found = table(uri).words("is an upload retried?", 10)
    assert [id_ for id_, _ in found] == ["1", "3"]
    assert found[0][1] > found[1][1] > 0
    assert [id_ for id_, _ in table(uri).words("yeast", 10)] == ["2", "10"], "equal ones by id, a number"
    assert [id_ for id_, _ in table(uri).words("yeast", 1)] == ["2"], "and not by chance"
    assert table(uri, where="lang = 'de'").words("yeast", 10) == []
    assert table(uri).words('zebra " OR ( body:*', 10) == []
    assert table(uri).words("yeast \ud800", 1) == table(uri).words("yeast", 1), "half a surrogate pair is no word"


def test_nearest_is_the_order_of_the_cosine(uri: str) -> None:
    query = np.random.default_rng(1).normal(size=8).astype(np.float32)
    cosines = VECTORS @ query / np.linalg.norm(VECTORS, axis=1) / np.linalg.norm(query)
    order = np.argsort(-cosines)
    found = table(uri).nearest(query, 10)
    assert [id_ for id_, _ in found] == [("1", "2", "3", "10")[row] for row in order]
    np.testing.assert_allclose([score for _, score in found], cosines[order], atol=1e-5)
    assert table(uri).nearest(query, 2) == found[:2]
    assert [id_ for id_, _ in table(uri, where="lang = 'de'").nearest(query, 2)] == ["3"]


@pytest.mark.parametrize(
    ("given", "order"),
    [([10, 9, None, -3, 1], ["-3", "1", "9", "10", "None"]), (["10", "9", "b", "a"], ["10", "9", "a", "b"])],
)
def test_equal_ones_come_in_the_order_of_the_column(tmp_path: Path, given: list[object], order: list[str]) -> None:
    vectors = pa.array([[1.0, 2.0]] * len(given), pa.list_(pa.float32(), 2))
    columns = {"id": given, "text": ["yeast"] * len(given), "embedding": vectors}
    lance.write_dataset(pa.table(columns), str(tmp_path / "tied.lance"))
    tied = LanceTable(str(tmp_path / "tied.lance"), vector="embedding")
    for depth in (len(given), 2):
        for found in (tied.nearest(np.float32([1, 1]), depth), tied.words("yeast", depth)):
            assert [id_ for id_, _ in found] == order[:depth]


def test_texts(uri: str) -> None:
    bread = Passage("3", TEXTS[2], metadata={"lang": "de"})
    assert table(uri).passages(["3", "1", "3"]) == [bread, Passage("1", TEXTS[0], metadata={"lang": "en"}), bread]
    assert table(uri).passages([]) == []
    with pytest.raises(InputError, match="no passage '7' and 1 more"):
        table(uri).passages(["1", "7", "8"])


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint32(), pa.string()])
def test_ids_of_every_kind_and_many_of_them(tmp_path: Path, kind: pa.DataType) -> None:
    columns = {"my id": pa.array(range(2005), pa.int64()).cast(kind), "text": [f"text {n}" for n in range(2005)]}
    lance.write_dataset(pa.table(columns), str(tmp_path / "t.lance"))
    opened = LanceTable(str(tmp_path / "t.lance"), id="my id")
    asked = [f"{number}" for number in reversed(range(2005))]
    assert [passage.text for passage in opened.passages(asked)] == [f"text {number}" for number in asked]


def test_an_id_below_zero(tmp_path: Path) -> None:
    lance.write_dataset(pa.table({"id": [-5, 5], "text": ["minus", "plus"]}), str(tmp_path / "t.lance"))
    assert [passage.text for passage in LanceTable(str(tmp_path / "t.lance")).passages(["-5", "5"])] == [
        "minus",
        "plus",
    ]


def test_a_condition_leaves_as_many_as_are_asked_for(uri: str) -> None:
    """It is applied before the nearest are taken: the best of all may be none that it leaves."""
    bread = table(uri, where="lang = 'de'")
    assert [[id_ for id_, _ in bread.nearest(vector, 1)] for vector in VECTORS] == [["3"]] * 4


def test_rows_without_a_vector_are_not_near(tmp_path: Path) -> None:
    vectors = pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))
    columns = {"id": ["a", "none"], "text": ["x", "y"], "embedding": vectors}
    lance.write_dataset(pa.table(columns), str(tmp_path / "t.lance"))
    found = LanceTable(str(tmp_path / "t.lance"), vector="embedding").nearest(np.float32([1, 1]), 5)
    assert [id_ for id_, _ in found] == ["a"]


def test_options_of_the_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lance would wait for minutes; whoever says so has it wait as long as they like."""
    given: list[dict[str, str]] = []

    def dataset(uri: str, storage_options: dict[str, str]) -> None:
        given.append(storage_options)
        raise OSError("first line\nsecond line")

    monkeypatch.setattr("lance.dataset", dataset)
    for options in ({"timeout": 0.2}, {"timeout": 7, "storage_options": {"timeout": "90s", "region": "x"}}):
        with pytest.raises(RemoteError, match="cannot be searched: first line; check"):
            LanceTable("s3://bucket/notes.lance", **options).words("bread", 5)  # type: ignore[arg-type]
    assert given == [
        {"timeout": "1s", "client_retry_timeout": "1"},
        {"timeout": "90s", "client_retry_timeout": "7", "region": "x"},
    ]


def test_newer_versions_wait_for_refresh(tmp_path: Path) -> None:
    made = lance.write_dataset(pa.table({"id": ["a"], "text": ["Cats purr."]}), str(tmp_path / "t.lance"))
    opened = LanceTable(str(tmp_path / "t.lance"))
    assert [passage.text for passage in opened.passages(["a"])] == ["Cats purr."]
    made.delete("id = 'a'")
    assert len(opened.passages(["a"])) == 1
    opened.refresh()
    with pytest.raises(InputError, match="no passage 'a'"):
        opened.passages(["a"])
    with pytest.raises(InputError, match="no passage"):
        opened.passages(["x') OR ('' = '"])
    assert LanceTable(str(tmp_path / "t.lance")).words("cats", 5) == [], "also without a full-text index"


def test_what_cannot_be_asked(uri: str, tmp_path: Path) -> None:
    for wrong, message in (({"vector": ""}, "has no vectors"), ({"timeout": 0}, "timeout")):
        with pytest.raises(InputError, match=message):
            table(uri, **wrong).nearest(VECTORS[0], 5)
    with pytest.raises(InputError, match="at most 10,000"):
        table(uri).words("bread", 10_001)
    for wrong in ({"vector": "other"}, {"id": "other"}, {"where": "other = 1"}, {"vector": "body"}):
        with pytest.raises(RemoteError, match="cannot be searched"):
            table(uri, **wrong).nearest(VECTORS[0], 5)
    with pytest.raises(RemoteError, match="cannot be searched"):
        table(uri).nearest(VECTORS[0, :3], 5)
    with pytest.raises(RemoteError, match=r"cannot be searched.*storage_options"):
        LanceTable(str(tmp_path / "none.lance")).words("bread", 5)


def test_a_silent_storage_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = {
            **{"aws_endpoint": f"http://127.0.0.1:{silent.getsockname()[1]}", "allow_http": "true", "region": "x"},
            **{"aws_access_key_id": "a", "aws_secret_access_key": "b"},
        }
        began = time.monotonic()
        with pytest.raises(RemoteError, match="cannot be searched"):
            LanceTable("s3://bucket/notes.lance", storage_options=options, timeout=1).words("bread", 5)
        assert time.monotonic() - began < 60, "Lance alone waits for minutes"
