"""OpenSearch and Elasticsearch as first stages: their own clients against a server that answers with set exchanges."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apiserver
import searchserving
from crossrank.errors import InputError, RemoteError
from crossrank.hybrid import hybrid
from crossrank.retrieval.remote.store import Fields
from crossrank.types import Passage

EXCHANGES = Path(__file__).parents[1] / "golden" / "exchanges"
FIELDS = Fields("body", title="title", metadata=["year"])
ENGLISH = [{"term": {"lang": "en"}}]
VECTOR = np.float32([0.5, -0.25, 1.0])
HEADERS = {"opensearch": searchserving.OPEN, "elasticsearch": searchserving.ELASTIC}


def opensearch(url: str, **options: Any) -> Any:
    client = pytest.importorskip("opensearchpy", reason="needs the opensearch extra").OpenSearch(url)
    from crossrank.retrieval.remote.opensearch import OpenSearchIndex

    return OpenSearchIndex(client, "notes", FIELDS, **{"vector": "embedding", **options})


def elasticsearch(url: str, **options: Any) -> Any:
    client = pytest.importorskip("elasticsearch", reason="needs the elasticsearch extra").Elasticsearch(url)
    from crossrank.retrieval.remote.elasticsearch import ElasticsearchIndex

    return ElasticsearchIndex(client, "notes", FIELDS, **{"vector": "embedding", **options})


both = pytest.mark.parametrize("make", [opensearch, elasticsearch])
Make = Callable[..., Any]


@contextmanager
def served(make: Make, *names: str, **options: Any) -> Iterator[tuple[Any, apiserver.Api]]:
    """An index whose server gives the answers of these exchanges in turn; each question must be the exchange's own."""
    known = json.loads((EXCHANGES / f"{make.__name__}.json").read_text(encoding="utf-8"))["exchanges"]
    turns = iter([known[name] for name in names])

    def answer(path: str, body: dict[str, Any]) -> Any:
        turn = next(turns)
        if turn["asked"] is not None and (path.split("?")[0], body) != ("/notes/_search", turn["asked"]):
            return 500, {"error": f"unexpected: {path} {json.dumps(body)}"}, HEADERS[make.__name__]
        return turn["status"], turn["answer"], HEADERS[make.__name__]

    with apiserver.serving(answer) as api:
        yield make(api.url.removesuffix("/v1"), **options), api
    assert next(turns, None) is None, "all were asked"


@both
def test_words(make: Make) -> None:
    with served(make, "words") as (index, _):
        assert index.words("how do I retry a failed upload?", 3) == [("faq", 2.3671236), ("log", 0.8105311)]
    with served(make, "filtered words", where=ENGLISH) as (index, _):
        assert index.words("bread", 3) == []


@both
def test_nearest(make: Make) -> None:
    with served(make, "vectors") as (index, _):
        assert index.nearest(VECTOR, 3) == [("log", 0.9113207), ("faq", 0.8775), ("bread", 0.31)]
    with served(make, "filtered vectors", where=ENGLISH) as (index, _):
        assert index.nearest(VECTOR, 3) == [("faq", 0.8775)]


@both
def test_texts_come_in_the_order_of_the_ids(make: Make) -> None:
    faq = Passage("faq", "Failed uploads are retried three times.", "Uploads", "", {"year": 2019})
    log = Passage("log", "The log names each upload.", "", "", {"year": 2021})
    with served(make, "texts") as (index, _):
        assert index.passages(["log", "faq", "log"]) == [log, faq, log]
        assert index.passages([]) == []
    with served(make, "missing texts") as (index, _), pytest.raises(InputError, match="no passage 'gone'"):
        index.passages(["faq", "gone"])


def asked_of(index: Any, hits: Callable[[dict[str, Any]], list[dict[str, Any]]] = lambda body: []) -> list[Any]:
    """What an index asks from now on; no server is asked, and these are the hits."""
    asked: list[dict[str, Any]] = []

    def search(body: dict[str, Any]) -> dict[str, Any]:
        asked.append(body)
        return {"hits": {"hits": hits(body)}}

    index._search = search
    return asked


@both
def test_many_texts_are_asked_for_in_parts(make: Make) -> None:
    """A server answers with 10,000 hits at most, and takes requests up to some size."""
    index = make("http://127.0.0.1:1")
    asked = asked_of(index, lambda body: [{"_id": id_, "_source": {"body": f"text of {id_}"}}
                                          for id_ in body["query"]["ids"]["values"]])  # fmt: skip
    ids = [f"{number}" for number in range(2001)]
    assert [passage.text for passage in index.passages(ids)] == [f"text of {id_}" for id_ in ids]
    assert [body["size"] for body in asked] == [1000, 1000, 1]


@both
def test_words_are_looked_for_in_the_fields_there_are(make: Make) -> None:
    index = make("http://127.0.0.1:1")
    asked = asked_of(index)
    index._fields = Fields("body")
    index.words("bread \ud800", 3)
    match = asked[0]["query"]["bool"]["must"][0]["multi_match"]
    assert match == {"query": "bread \ufffd", "fields": ["body"]}


@both
def test_a_server_is_told_how_long_it_may_take(make: Make) -> None:
    for seconds, told in ((0.25, "250ms"), (0.0001, "1ms"), (10, "10000ms")):
        index = make("http://127.0.0.1:1", timeout=seconds)
        asked = asked_of(index)
        index.words("bread", 3)
        assert asked[0]["timeout"] == told


@both
def test_a_client_waits_longer_than_its_server_may_take(make: Make) -> None:
    """Else it gives up as the server tells what it has found until then."""
    index = make("http://127.0.0.1:1", timeout=5)
    waited: list[float] = []

    class Client:
        def options(self, request_timeout: float) -> Client:
            waited.append(request_timeout)
            return self

        def search(self, request_timeout: float | None = None, **asked: Any) -> Any:
            waited.extend([] if request_timeout is None else [request_timeout])
            return {}

    if make is opensearch:
        index._client = Client()
        index._search({})
    else:
        type(index)(Client(), "notes", timeout=5)
    assert waited == [7]


def test_candidates_of_elasticsearch() -> None:
    """Twice as many as are asked for on each shard, at least 100, and no more than a server takes."""
    index = elasticsearch("http://127.0.0.1:1")
    asked = asked_of(index)
    for depth in (3, 80, 6000):
        index.nearest(VECTOR, depth)
    assert [body["knn"]["num_candidates"] for body in asked] == [100, 160, 10_000]


@both
@pytest.mark.parametrize(
    ("status", "cure"), [(403, "; the client's key does not allow this"), (418, ""), (404, "; check the name")]
)
def test_a_refusal_is_told_by_its_beginning(make: Make, status: int, cure: str) -> None:
    said = {"error": "why " * 500, "status": status}
    with apiserver.serving(lambda path, body: (status, said, HEADERS[make.__name__])) as api:
        index = make(api.url.removesuffix("/v1"))
        with pytest.raises(RemoteError, match=rf"was refused \({status}\)") as caught:
            index.words("bread", 3)
    assert caught.value.status == status
    assert len(str(caught.value)) < 420
    assert cure in str(caught.value).replace("why ", "")


@both
def test_dots_in_a_name_lead_into_objects_unless_a_key_has_them(make: Make) -> None:
    sources = {
        "cats": {"body": "Cats purr.", "meta": {"title": "Cats", "year": 3, "by.whom": {"name": "Ann"}}},
        "dogs": {"body": "Dogs bark.", "meta.title": "Dogs", "meta": {"title": "no"}, "meta.by": {"whom.name": "Bo"}},
        "bees": {"body": "Bees hum.", "meta": None},
    }
    hits = [{"_id": id_, "_source": source} for id_, source in sources.items()]
    answer = {"timed_out": False, "_shards": {"failed": 0}, "hits": {"hits": hits}}
    with apiserver.serving(lambda path, body: (200, answer, HEADERS[make.__name__])) as api:
        index = make(api.url.removesuffix("/v1"))
        index._fields = Fields("body", title="meta.title", metadata=["meta.year", "meta.by.whom.name"])
        assert index.passages(list(sources)) == [
            Passage("cats", "Cats purr.", "Cats", "", {"meta.year": 3, "meta.by.whom.name": "Ann"}),
            Passage("dogs", "Dogs bark.", "Dogs", "", {"meta.by.whom.name": "Bo"}),
            Passage("bees", "Bees hum."),
        ]


@both
@pytest.mark.parametrize(
    ("exchange", "message"),
    [
        ("no such index", r"was refused \(404\).*no such index.*check the name of the index"),
        ("another width", r"was refused \(400\).*dimension.*the width of the embedder"),
        ("no key", r"was refused \(401\).*key or password is missing or wrong"),
        ("a shard failed", "answered in part: 1 of its shards failed"),
        ("timed out", "answered in part: its server gave up after 10 s"),
    ],
)
def test_what_is_no_whole_answer_is_an_error(make: Make, exchange: str, message: str) -> None:
    with served(make, exchange) as (index, _), pytest.raises(RemoteError, match=message) as caught:
        index.nearest(VECTOR, 3)
    assert caught.value.status == {"no such index": 404, "another width": 400, "no key": 401}.get(exchange, 200)


@both
def test_an_answer_of_something_else_is_an_error(make: Make) -> None:
    with apiserver.serving(lambda path, body: (200, {"hello": 1}, HEADERS[make.__name__])) as api:
        index = make(api.url.removesuffix("/v1"))
        with pytest.raises(RemoteError, match="no hits that can be read"):
            index.words("bread", 3)
    with pytest.raises(RemoteError, match="did not answer"):
        make("http://127.0.0.1:1").words("bread", 3)
    with apiserver.serving(lambda path, body: (200, b"<html>", HEADERS[make.__name__])) as api:
        index = make(api.url.removesuffix("/v1"))
        with pytest.raises(RemoteError, match=r"did not answer \(SerializationError"):
            index.words("bread", 3)


@both
@pytest.mark.parametrize(
    "broken",
    [
        {"hits": {"hits": [{"_id": "a"}]}},
        {"hits": {"hits": [{"_id": "a", "_score": None}]}},
        {"hits": {"hits": [{"_id": "a", "_score": "high"}]}},
        {"hits": {"hits": [{"_score": 1.0}]}},
        {"hits": {"hits": [{"_id": None, "_score": 1.0}]}},
        {"hits": {"hits": [5]}},
        {"hits": {"hits": [None]}},
        {"hits": {"hits": "none"}},
        {"hits": [1]},
        {"_shards": 5, "hits": {"hits": []}},
    ],
)
def test_an_answer_with_a_broken_hit_is_an_error(make: Make, broken: dict[str, Any]) -> None:
    with apiserver.serving(lambda path, body: (200, broken, HEADERS[make.__name__])) as api:
        index = make(api.url.removesuffix("/v1"))
        with pytest.raises(RemoteError, match="no hits that can be read"):
            index.words("bread", 3)


@both
def test_a_document_that_keeps_no_source_has_no_text(make: Make) -> None:
    index = make("http://127.0.0.1:1")
    asked_of(index, lambda body: [{"_id": "a"}])
    with pytest.raises(InputError, match="passage a has no field 'body'"):
        index.passages(["a"])


@both
@pytest.mark.parametrize("hit", [{"_source": {"body": "x"}}, {"_id": "a", "_source": 5}, {"_id": "a", "_source": "x"}])
def test_a_text_that_cannot_be_read_is_an_error(make: Make, hit: dict[str, Any]) -> None:
    with apiserver.serving(lambda path, body: (200, {"hits": {"hits": [hit]}}, HEADERS[make.__name__])) as api:
        index = make(api.url.removesuffix("/v1"))
        with pytest.raises(RemoteError, match="no hits that can be read"):
            index.passages(["a"])


@both
def test_a_silent_server_is_not_waited_for(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = make(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
        began = time.monotonic()
        with pytest.raises(RemoteError, match="did not answer"):
            index.words("bread", 3)
        assert time.monotonic() - began < 5


@both
def test_a_name_of_an_index_stays_one_part_of_the_path(make: Make) -> None:
    with served(make, "no such index") as (index, api):
        index._index = "../_cluster/settings?x=1"
        with pytest.raises(RemoteError):
            index.words("bread", 3)
    assert api.paths[0].startswith("/..%2F_cluster%2Fsettings%3Fx")


@both
def test_what_cannot_be_asked(make: Make) -> None:
    index = make("http://127.0.0.1:1")
    with pytest.raises(InputError, match="at most 10,000"):
        index.words("bread", 10_001)
    with pytest.raises(InputError, match="at most 10,000"):
        index.nearest(VECTOR, 10_001)
    with pytest.raises(InputError, match="finite"):
        index.nearest(np.float32([[1, 2]]), 5)
    with pytest.raises(InputError, match="has no vectors"):
        make("http://127.0.0.1:1", vector="").nearest(VECTOR, 5)
    with pytest.raises(InputError, match="timeout"):
        make("http://127.0.0.1:1", timeout=-1)


@both
def test_hybrid_and_reranked(make: Make) -> None:
    class Fixed:
        width, fingerprint = 3, "fixed"

        def embed(self, texts: list[str]) -> np.ndarray:
            return VECTOR[None].repeat(len(texts), axis=0)

    texts = {"bread": "Bread needs yeast.", "faq": "A failed upload is retried three times."}
    with apiserver.serving(searchserving.answering(texts, "body", HEADERS[make.__name__])) as api:
        index = make(api.url.removesuffix("/v1"))
        answer = hybrid(index, Fixed(), mix=1.0).search("how do I retry a failed upload?", k=2)
    assert [len(trace.ranking) for trace in answer.traces] == [1, 2, 2, 2]
    assert [passage.text for passage in answer.passages] == [texts["faq"], texts["bread"]]


@both
def test_an_alias_of_indices_that_share_ids_is_told(make: Make) -> None:
    """A ranking refused the id that came twice, and named no cure."""
    places = [("old", "0"), ("old", "1"), ("new", "1")]
    hits = [{"_index": name, "_id": id_, "_score": 1.0, "_source": {"body": name}} for name, id_ in places]
    answer = {"timed_out": False, "_shards": {"failed": 0}, "hits": {"hits": hits}}
    with apiserver.serving(lambda path, body: (200, answer, HEADERS[make.__name__])) as api:
        store = make(api.url)
        for ask in (lambda: store.words("tea", 5), lambda: store.nearest(VECTOR, 5), lambda: store.passages(["1"])):
            with pytest.raises(InputError, match=r"several indices.*_id '1': name one index"):
                ask()
