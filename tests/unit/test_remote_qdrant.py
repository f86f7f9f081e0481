"""Qdrant as a first stage: the client's own local mode, and a server that misbehaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import apiserver
import crossrank
from crossrank.errors import InputError, RemoteError
from crossrank.hybrid import hybrid
from crossrank.types import Passage

pytest.importorskip("qdrant_client", reason="needs the qdrant extra")

from grpc import RpcError
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException

from crossrank.retrieval.remote import qdrant
from crossrank.retrieval.remote.qdrant import QdrantCollection
from crossrank.retrieval.remote.store import Fields

UUID = "5c56c793-69f3-4fbf-87e6-c4bf54c28c26"
TEXTS = {"1": "Failed uploads are retried.", "20": "Bread needs yeast.", UUID: "An upload of bread fails."}
WIDTH = 8


def terms(text: str) -> dict[int, float]:
    """Words by their hash, counted."""
    words = text.lower().replace(".", "").split()
    return {sum(map(ord, word)): float(count) for word, count in Counter(words).items()}


def points(vectors: np.ndarray) -> list[models.PointStruct]:
    made = []
    for (id_, text), vector in zip(TEXTS.items(), vectors.tolist(), strict=True):
        sparse = models.SparseVector(indices=list(terms(text)), values=list(terms(text).values()))
        payload = {"body": text, "year": 2019 if id_ == "1" else 2021}
        place = int(id_) if id_.isdecimal() else id_
        made.append(models.PointStruct(id=place, vector={"dense": vector, "words": sparse}, payload=payload))
    return made


def client(vectors: np.ndarray, distance: models.Distance = models.Distance.COSINE) -> QdrantClient:
    made = QdrantClient(":memory:")
    made.create_collection(
        "notes",
        vectors_config={"dense": models.VectorParams(size=vectors.shape[1], distance=distance)},
        sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    made.upsert("notes", points(vectors))
    return made


def collection(made: QdrantClient, **options: Any) -> QdrantCollection:
    fields = Fields("body", metadata=["year"])
    return QdrantCollection(made, "notes", **{"fields": fields, "vector": "dense", "sparse": "words", **options})


def random(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("distance", list(models.Distance))
def test_nearest_is_the_order_of_the_distance(distance: models.Distance) -> None:
    vectors, query = random(3, 0), random(1, 1)[0]
    want: Mapping[models.Distance, Callable[[], np.ndarray]] = {
        models.Distance.COSINE: lambda: vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query),
        models.Distance.DOT: lambda: vectors @ query,
        models.Distance.EUCLID: lambda: -np.linalg.norm(vectors - query, axis=1),
        models.Distance.MANHATTAN: lambda: -np.abs(vectors - query).sum(axis=1),
    }
    scores = want[distance]()
    found = collection(client(vectors, distance)).nearest(query, 10)
    order = np.argsort(-scores)
    assert [id_ for id_, _ in found] == [list(TEXTS)[row] for row in order]
    np.testing.assert_allclose([score for _, score in found], scores[order], atol=1e-5)
    assert collection(client(vectors, distance)).nearest(query, 2) == found[:2]


def test_words_are_sparse_vectors() -> None:
    made = collection(client(random(3, 0)), terms=terms)
    assert [id_ for id_, _ in made.words("upload of bread", 10)] == [UUID, "20"]
    assert [id_ for id_, _ in made.words("upload of bread", 1)] == [UUID]
    assert made.words("", 10) == []
    for incomplete in ({"terms": None}, {"terms": terms, "sparse": ""}):
        with pytest.raises(InputError, match="say sparse="):
            collection(client(random(3, 0)), **incomplete).words("bread", 10)


def test_texts_and_filters() -> None:
    year = models.Filter(must=[models.FieldCondition(key="year", range=models.Range(gte=2020))])
    made = collection(client(random(3, 0)), terms=terms, where=year)
    assert {id_ for id_, _ in made.nearest(random(1, 1)[0], 10)} == {"20", UUID}
    assert made.words("uploads", 10) == []
    found = made.passages([UUID, "1", UUID])
    assert [passage.text for passage in found] == [TEXTS[UUID], TEXTS["1"], TEXTS[UUID]]
    assert [passage.metadata for passage in found] == [{"year": 2021}, {"year": 2019}, {"year": 2021}]
    assert made.passages([]) == []
    with pytest.raises(InputError, match="no passage '7'"):
        made.passages(["1", "7"])
    with pytest.raises(InputError, match="no field 'text'"):
        collection(client(random(3, 0)), fields=Fields()).passages(["1"])


def test_dots_in_a_name_lead_into_objects_unless_a_key_has_them() -> None:
    made = client(random(3, 0))
    nested = {"doc": {"body": "Cats purr."}, "meta": {"title": "Cats", "year": 3}}
    literal = {"doc.body": "Dogs bark.", "meta.title": "Dogs", "meta": {"title": "no", "year": None}}
    for id_, payload in ((1, nested), (20, literal), (UUID, {"doc": {"body": "Bees hum."}, "meta": "none"})):
        made.overwrite_payload("notes", payload, [id_])
    fields = Fields("doc.body", title="meta.title", metadata=["meta.year"])
    assert collection(made, fields=fields).passages(["1", "20", UUID]) == [
        Passage("1", "Cats purr.", "Cats", "", {"meta.year": 3}),
        Passage("20", "Dogs bark.", "Dogs", "", {"meta.year": None}),
        Passage(UUID, "Bees hum."),
    ]
    with pytest.raises(InputError, match=r"no field 'doc\.text'"):
        collection(made, fields=Fields("doc.text")).passages(["1"])


def test_keys_of_several_words() -> None:
    # "Invalid path", for the whole request.
    made = client(random(3, 0))
    payload = {"Review Text": "Cats purr.", "dc:title": "Cats", "meta": {"Page No": 7}, "数据": 1, "pages": [{"n": 2}]}
    made.overwrite_payload("notes", payload, [1])
    fields = Fields("Review Text", title="dc:title", metadata=["meta.Page No", "数据", "none here"])
    want = Passage("1", "Cats purr.", "Cats", "", {"meta.Page No": 7, "数据": 1})
    assert collection(made, fields=fields).passages(["1"]) == [want]
    with pytest.raises(InputError, match="the payload key 'a\"b' cannot be asked for"):
        collection(made, fields=Fields('a"b'))


def test_what_cannot_be_asked() -> None:
    made = client(random(3, 0))
    with pytest.raises(InputError, match="no dense vector 'other'"):
        collection(made, vector="other").nearest(random(1, 1)[0], 5)
    with pytest.raises(InputError, match="no dense vector ''"):
        collection(made, vector="").nearest(random(1, 1)[0], 5)
    with pytest.raises(RemoteError, match="refused by its client"):
        collection(made).nearest(np.ones(3, np.float32), 5)
    with pytest.raises(RemoteError, match="refused by its client"):
        QdrantCollection(made, "none").nearest(random(1, 1)[0], 5)
    with pytest.raises(InputError, match="at most 10,000"):
        collection(made).nearest(random(1, 1)[0], 10_001)
    with pytest.raises(InputError, match="finite"):
        collection(made).nearest(np.full(WIDTH, np.inf, np.float32), 5)
    with pytest.raises(InputError, match="timeout"):
        collection(made, timeout=0)


def test_a_collection_of_one_vector_without_a_name() -> None:
    made = QdrantClient(":memory:")
    euclid = models.VectorParams(size=2, distance=models.Distance.EUCLID)
    made.create_collection("notes", vectors_config=euclid)
    made.upsert("notes", [models.PointStruct(id=7, vector=[1.0, 0.0], payload={"text": "Cats purr."})])
    assert QdrantCollection(made, "notes").nearest(np.float32([1, 2]), 5) == [("7", -2.0)]
    with pytest.raises(InputError, match="no dense vector 'other'"):
        QdrantCollection(made, "notes", vector="other").nearest(np.float32([1, 2]), 5)


def test_what_a_client_is_asked() -> None:
    """Texts in parts and of the fields alone; the distance once; time in whole seconds, which is all that it takes."""

    class Client:
        def __init__(self, made: QdrantClient) -> None:
            self.made = made
            self.asked: list[tuple[str, dict[str, Any]]] = []

        def __getattr__(self, name: str) -> Any:
            def call(*values: Any, **named: Any) -> Any:
                self.asked.append((name, {**named, "values": values}))
                return getattr(self.made, name)(*values, **named)

            return call

    spy = Client(client(random(3, 0)))
    made = collection(spy, timeout=0.2)  # type: ignore[arg-type]
    for _ in range(2):
        made.nearest(random(1, 1)[0], 2)
    with pytest.raises(InputError, match="no passage '2'"):
        made.passages([f"{number}" for number in range(1, 2002)])
    assert [name for name, _ in spy.asked] == ["get_collection", *["query_points"] * 2, *["retrieve"] * 3]
    assert {named["timeout"] for _, named in spy.asked[1:]} == {1}
    assert [named["with_payload"] for _, named in spy.asked[1:3]] == [False, False]
    assert [len(named["values"][1]) for _, named in spy.asked[3:]] == [1000, 1000, 1]
    assert {tuple(named["values"][2]) for _, named in spy.asked[3:]} == {("body", "year")}


@pytest.mark.parametrize(
    "error",
    [RpcError("gone"), ResourceExhaustedResponse("busy", 1), ResponseHandlingException(OSError("no")), OSError()],
)
def test_every_failure_of_a_client_has_a_cure(error: Exception) -> None:
    class Failing:
        def query_points(self, *values: Any, **named: Any) -> Any:
            raise error

    made = collection(Failing(), terms=terms)  # type: ignore[arg-type]
    with pytest.raises(RemoteError, match="did not answer") as caught:
        made.words("bread", 10)
    assert ("(OSError: no)" in str(caught.value)) == isinstance(error, ResponseHandlingException)


def test_a_long_refusal_is_told_by_its_beginning() -> None:
    with apiserver.serving(lambda path, body: (400, {"status": {"error": "why " * 500}}, {})) as api:
        made = collection(QdrantClient(api.url.removesuffix("/v1"), check_compatibility=False), terms=terms)
        with pytest.raises(RemoteError, match="why why") as caught:
            made.words("bread", 10)
    assert len(str(caught.value)) < 400


def test_paths_of_keys() -> None:
    written = {"a": ["a"], "a.b": ["a.b", '"a.b"'], "a[0].b": ["a[0].b", '"a[0].b"'], "a..b": ['"a..b"']}
    written |= {".a": ['".a"'], "a b.c": ['"a b".c', '"a b.c"'], "a[x]": ['"a[x]"']}
    assert {name: qdrant._paths(name) for name in written} == written


def test_hybrid_and_reranked() -> None:
    embedder = crossrank.load_embedder()
    made = collection(client(embedder.embed(list(TEXTS.values()))), terms=terms)
    answer = hybrid(made, embedder, mix=1.0).search("how do I retry a failed upload?", k=2)
    assert answer.passages[0].text == TEXTS["1"]
    assert [trace.name for trace in answer.traces] == ["words", "vectors", "fused", "small"]


def test_a_server_that_refuses_or_is_silent() -> None:
    with apiserver.serving(lambda path, body: (404, {"status": {"error": "Not found: Collection `notes`"}}, {})) as api:
        made = collection(QdrantClient(api.url.removesuffix("/v1"), check_compatibility=False), terms=terms)
        with pytest.raises(RemoteError, match=r"Collection `notes`.*check the name") as caught:
            made.words("bread", 10)
    assert caught.value.status == 404
    with pytest.raises(RemoteError, match="did not answer"):
        made.words("bread", 10)
