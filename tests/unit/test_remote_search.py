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
    with served(make, exchange) as (index, _), pytest.raises(RemoteError, match=message):
        index.nearest(VECTOR, 3)


@both
def test_an_answer_of_something_else_is_an_error(make: Make) -> None:
    with apiserver.serving(lambda path, body: (200, {"hello": 1}, HEADERS[make.__name__])) as api:
        index = make(api.url.removesuffix("/v1"))
        with pytest.raises(RemoteError, match="no hits that can be read"):
            index.words("bread", 3)
    with pytest.raises(RemoteError, match="did not answer"):
        make("http://127.0.0.1:1").words("bread", 3)


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
    hits = [{"_index": name, "_id": "1", "_score": 1.0, "_source": {"body": name}} for name in ("old", "new")]
    answer = {"timed_out": False, "_shards": {"failed": 0}, "hits": {"hits": hits}}
    with apiserver.serving(lambda path, body: (200, answer, HEADERS[make.__name__])) as api:
        store = make(api.url)
        for ask in (lambda: store.words("tea", 5), lambda: store.nearest(VECTOR, 5), lambda: store.passages(["1"])):
            with pytest.raises(InputError, match=r"several indices.*_id '1': name one index"):
                ask()
