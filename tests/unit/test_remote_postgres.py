"""PostgreSQL as a first stage, on a server that the tests start: full-text search, pgvector, and what goes wrong."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

import pgserving
from crossrank.errors import InputError, RemoteError
from crossrank.hybrid import hybrid
from crossrank.types import Passage

pytest.importorskip("psycopg", reason="needs the postgres extra")

import psycopg

from crossrank.retrieval.remote import postgres
from crossrank.retrieval.remote.postgres import PostgresTable
from crossrank.retrieval.remote.store import Fields

ROWS, WIDTH = 300, 8
FEW = [
    ("1", "Uploads", "A failed upload is retried three times.", 2019),
    ("2", "Bread", "Bread needs yeast, and time.", 2021),
    ("10", "Uploads", "An upload of bread fails.", None),
]


@pytest.fixture(scope="module")
def uri() -> Iterator[str]:
    """A server with a table of many vectors, and one of few texts."""
    with pgserving.serving() as address:
        with psycopg.connect(address) as connection:
            fill(connection)
        yield address


def fill(connection: psycopg.Connection) -> None:
    connection.execute("CREATE TABLE notes (id bigint PRIMARY KEY, title text, body text, year int, words tsvector)")
    for row in FEW:
        connection.execute(
            "INSERT INTO notes VALUES (%s, %s, %s, %s, to_tsvector('english', %s))", (*row, f"{row[1]} {row[2]}")
        )
    connection.execute(f"CREATE TABLE points (id text PRIMARY KEY, text text, embedding vector({WIDTH}))")
    connection.cursor().executemany(
        "INSERT INTO points VALUES (%s, '', %s)",
        [(f"p{row:03}", str(vector.tolist())) for row, vector in enumerate(vectors())],
    )
    connection.execute("INSERT INTO points VALUES ('none', '', NULL), ('zero', '', %s)", (str([0.0] * WIDTH),))


def vectors() -> np.ndarray:
    """Random ones, and the first three equal."""
    made = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
    made[1] = made[2] = made[0]
    return made


def notes(uri: str, **options: Any) -> PostgresTable:
    fields = Fields("body", title="title", document="title", metadata=["year"])
    return PostgresTable(uri, **{"table": "notes", "fields": fields, "words": "words", **options})


def ids(found: Any) -> list[str]:
    return [id_ for id_, _ in found]


def test_nearest_is_the_order_of_the_cosine(uri: str) -> None:
    table = PostgresTable(uri, "points", vector="embedding")
    made, query = vectors(), np.random.default_rng(1).normal(size=WIDTH).astype(np.float32)
    cosines = made @ query / np.linalg.norm(made, axis=1) / np.linalg.norm(query)
    order = sorted(range(ROWS), key=lambda row: (-cosines[row], row))
    found = table.nearest(query, ROWS + 10)
    assert ids(found) == [f"p{row:03}" for row in order], "all but the one without a vector and the one of zeros"
    np.testing.assert_allclose([score for _, score in found], cosines[order], atol=1e-6)
    assert table.nearest(query, 7) == found[:7]
    for depth in (ROWS, ROWS + 1, ROWS + 2):
        assert table.nearest(query, depth) == found, "as many as there are rows, with those that have no cosine"
    assert ids(table.nearest(made[0], 3)) == ["p000", "p001", "p002"], "ties in the order of the ids"


def test_equal_ones_come_in_the_order_of_their_column(uri: str) -> None:
    with psycopg.connect(uri) as connection:
        connection.execute("CREATE TABLE tied (id bigint, text text, embedding vector(2))")
        connection.execute("INSERT INTO tied SELECT 13 - row, 'yeast', '[1, 2]' FROM generate_series(1, 12) row")
    table, order = PostgresTable(uri, "tied", vector="embedding"), [str(row) for row in range(1, 13)]
    for depth in (12, 5):
        assert ids(table.nearest(np.float32([1, 1]), depth)) == order[:depth], "numbers, not their text"
        assert ids(table.words("yeast", depth)) == order[:depth]


@pytest.fixture(scope="module")
def indexed(uri: str) -> str:
    """The address of a table with an HNSW index and of a view of every hundredth row, where any index is preferred."""
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE indexed (id bigint, embedding vector({WIDTH}))")
        connection.cursor().executemany(
            "INSERT INTO indexed VALUES (%s, %s)", [(row, str(made.tolist())) for row, made in enumerate(many())]
        )
        connection.execute("CREATE INDEX near ON indexed USING hnsw (embedding vector_cosine_ops)")
        connection.execute("CREATE VIEW hundredth AS SELECT * FROM indexed WHERE id % 100 = 0")
        connection.execute("SELECT pg_stat_force_next_flush()")
    return f"{uri}&options=-c%20enable_seqscan%3Doff"


def many() -> np.ndarray:
    return np.random.default_rng(2).normal(size=(1_200, WIDTH)).astype(np.float32)


def read(address: str, name: str, vector: np.ndarray, depth: int) -> tuple[list[str], int, int]:
    """The ids that are found, how often the index was read for them, and how often the whole table."""
    counts = (
        "SELECT i.idx_scan, t.seq_scan FROM pg_stat_user_indexes i JOIN pg_stat_user_tables t USING (relid) "
        "WHERE indexrelname = 'near'"
    )
    table = PostgresTable(address, name, vector="embedding")
    with psycopg.connect(address, autocommit=True) as connection:
        before = connection.execute(counts).fetchone()
        found = ids(table.nearest(vector, depth))
        assert table._connection is not None
        table._connection.execute("SELECT pg_stat_force_next_flush()")
        after = connection.execute(counts).fetchone()
    assert before is not None
    assert after is not None
    return found, after[0] - before[0], after[1] - before[1]


@pytest.mark.parametrize("depth", [10, 250, 1_000])
def test_an_index_gives_as_many_as_are_asked_for(indexed: str, depth: int) -> None:
    found, by_index, by_table = read(indexed, "indexed", many()[5], depth)
    assert (by_index, by_table) == (1, 0), "by the index alone"
    assert len(found) == depth, "pgvector gives 40 unless it is told otherwise"
    assert found[0] == "5"
    assert len(set(found) & set(nearest(range(1_200))[:depth])) >= 0.8 * depth


def nearest(rows: Sequence[int]) -> list[str]:
    """These rows by their cosine with the fifth, best first."""
    made = many()
    cosines = made @ made[5] / np.linalg.norm(made, axis=1)
    return [str(row) for row in sorted(rows, key=lambda row: -cosines[row])]


def test_what_an_index_leaves_out_is_found_by_comparing_all(indexed: str) -> None:
    found = read(indexed, "hundredth", many()[5], 10)
    assert found == (nearest(range(0, 1_200, 100))[:10], 1, 1), "the index gave 40, most of them not in the view"
    found = read(indexed, "indexed", many()[5], 1_100)
    assert found == (nearest(range(1_200))[:1_100], 1, 1), "pgvector gives 1,000"
    assert read(indexed, "hundredth", many()[5], 100)[0] == nearest(range(0, 1_200, 100)), "there are no more"


@pytest.mark.parametrize(
    ("options", "depth", "want"),
    [("", 10, "40"), ("", 500, "500"), ("", 1_001, "1000"), ("-c hnsw.ef_search=200", 10, "200")],
)
def test_an_index_looks_at_no_fewer_than_the_server_is_set_to(uri: str, options: str, depth: int, want: str) -> None:
    with psycopg.connect(uri) as connection:
        connection.execute(
            "CREATE OR REPLACE VIEW looked AS SELECT current_setting('hnsw.ef_search') AS id, '[1]'::vector AS v"
        )
    table = PostgresTable(f"{uri}&options={quote(options)}", "looked", vector="v")
    assert ids(table.nearest(np.float32([1]), depth)) == [want]


def test_nothing_is_left_set_where_connections_are_shared(uri: str) -> None:
    table = PostgresTable(uri, "points", vector="embedding", timeout=7)
    asked = "SELECT current_setting('statement_timeout'), current_setting('hnsw.ef_search', true)"
    with psycopg.connect(uri) as connection:
        connection.execute("SELECT '[1]'::vector")  # Whose code makes its settings known.
        before = connection.execute(asked).fetchone()
    for _ in range(10):
        table.nearest(vectors()[0], 200)
    assert table._connection is not None
    assert table._connection.execute(asked).fetchone() == before
    assert table._connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert table._connection.execute("SELECT name FROM pg_prepared_statements").fetchall() == []


def test_texts_are_whole_whatever_encoding_the_environment_has(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    assert ids(notes(uri).words("\u4e2d\u6587 yeast", 10)) == ["2"]


def test_words_any_and_all(uri: str) -> None:
    table = notes(uri)
    assert ids(table.words("how do I retry a failed upload?", 10)) == ["1", "10"]
    assert ids(table.words("how do I retry a failed upload?", 1)) == ["1"]
    assert ids(table.words("bread", 10)) == ["2", "10"]
    assert table.words("what is the", 10) == []
    web = notes(uri, match="web")
    assert ids(web.words("upload retry", 10)) == ["1"]
    assert web.words("how do I retry a failed upload of bread?", 10) == []
    assert ids(web.words("upload -retry", 10)) == ["10"]
    assert ids(web.words('yeast or "failed upload"', 10)) == ["1", "2"]
    assert ids(notes(uri, words="").words("Uploads", 10)) == ["1", "10"], "of the text alone: equal, so by id"
    assert ids(notes(uri, words="", language="simple").words("uploads", 10)) == []


def test_scores_are_those_of_ts_rank(uri: str) -> None:
    with psycopg.connect(uri) as connection:
        rank = "SELECT id::text, ts_rank(words, to_tsquery('fail | upload | bread')) FROM notes ORDER BY 2 DESC"
        want = connection.execute(rank).fetchall()
    found = notes(uri).words("failed uploads, bread?", 10)
    assert ids(found) == [id_ for id_, _ in want]
    assert [score for _, score in found] == pytest.approx([score for _, score in want])
    assert len({score for _, score in found}) == 3


@pytest.mark.parametrize(
    "query",
    [
        "'; DROP TABLE notes; --",
        "a' | b",
        "& | ! <-> ( \\",
        "%s %(query)s {id}",
        "nul \0 byte",
        "half \ud800",
        "x" * 10_000,
    ],
)
def test_no_character_of_a_query_has_a_meaning(uri: str, query: str) -> None:
    for match in ("any", "web"):
        assert ids(notes(uri, match=match).words(f"{query} or yeast", 10)) in (["2"], [])
    assert len(notes(uri).passages(["1", "2", "10"])) == 3


def test_what_no_text_of_the_server_holds_ends_a_word(uri: str) -> None:
    assert ids(notes(uri).words("yeast\0retried", 10)) == ["1", "2"]


@pytest.mark.parametrize("match", ["any", "web"])
def test_a_query_of_more_words_than_the_server_takes(uri: str, match: str) -> None:
    table, words = notes(uri, match=match, timeout=60), [f"w{number}" for number in range(25_000)]
    assert ids(table.words(" ".join([*words[:9_000], "or yeast"]), 10)) == ["2"]
    for query in (" ".join(words), " ".join(word + "x" * 1_900 for word in words[:700])):
        with pytest.raises(InputError, match=r"10,000 words: ask with fewer"):
            table.words(query, 10)


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"table": 'notes"; DROP TABLE notes; --'}, "name the table"),
        ({"schema": "public.notes; --"}, "name the table|name the schema"),
        ({"fields": Fields('body" FROM notes; DROP TABLE notes; --')}, "name the columns"),
        ({"id": "id; DROP TABLE notes"}, "name the columns"),
        ({"language": "english'); DROP TABLE notes; --"}, "no such language|syntax"),
        ({"language": "english\0"}, "was not asked: .*NUL"),
        ({"words": "body"}, "type tsvector"),
    ],
)
def test_no_name_of_a_table_or_column_is_sql(uri: str, options: dict[str, Any], cure: str) -> None:
    table = notes(uri, **options)
    with pytest.raises((InputError, RemoteError), match=cure):
        table.passages(ids(table.words("yeast", 10)))
    assert len(notes(uri).passages(["1", "2", "10"])) == 3


def test_texts_come_in_the_order_of_the_ids(uri: str) -> None:
    table = notes(uri)
    assert table.passages(["10", "1", "10"]) == [
        Passage("10", "An upload of bread fails.", "Uploads", "Uploads", {"year": None}),
        Passage("1", "A failed upload is retried three times.", "Uploads", "Uploads", {"year": 2019}),
        Passage("10", "An upload of bread fails.", "Uploads", "Uploads", {"year": None}),
    ]
    assert table.passages([]) == []
    with pytest.raises(InputError, match="no passage '3' and 1 more: it may have been deleted"):
        table.passages(["1", "3", "4"])
    for wrong in ("one", "1\0", "1\ud800", "9" * 30):
        with pytest.raises(InputError, match="ids must be those that the table gave"):
            table.passages(["1", wrong])
    for wrong in ("p000\0", "\ud800"):
        with pytest.raises(InputError, match=r"no passage .*: it may have been deleted"):
            PostgresTable(uri, "points").passages(["p000", wrong])
    with pytest.raises(InputError, match="passage 1 holds int"):
        PostgresTable(uri, "notes", Fields("year")).passages(["1"])


def test_dots_in_a_name_lead_into_objects_unless_a_column_has_them(uri: str) -> None:
    with psycopg.connect(uri) as connection:
        connection.execute('CREATE TABLE "nested rows" (id text, body text, meta jsonb, more json, "meta.year" int)')
        connection.execute(
            """INSERT INTO "nested rows" VALUES
            ('cats', 'Cats purr.', '{"title": "Cats", "year": 1, "by.whom": {"name": "Ann"}}', '{"text": "Miaow."}', 3),
            ('bees', 'Bees hum.', NULL, '{}', NULL)"""
        )
    metadata = ["meta.year", "meta.by.whom.name"]
    table = PostgresTable(uri, "nested rows", Fields("body", title="meta.title", metadata=metadata), schema="public")
    assert table.passages(["cats", "bees"]) == [
        Passage("cats", "Cats purr.", "Cats", "", {"meta.year": 3, "meta.by.whom.name": "Ann"}),
        Passage("bees", "Bees hum.", "", "", {"meta.year": None}),
    ]
    with psycopg.connect(uri) as connection:
        connection.execute('CREATE VIEW "object first" AS SELECT meta, id FROM "nested rows"')
    assert PostgresTable(uri, "object first", Fields("meta.title")).passages(["cats"]) == [Passage("cats", "Cats")]
    table = PostgresTable(uri, "nested rows", Fields("more.text", title="meta.title"))
    assert table.passages(["cats"]) == [Passage("cats", "Miaow.", "Cats")]
    with pytest.raises(InputError, match=r"passage bees has no field 'more.text'"):
        table.passages(["bees"])
    for options, cure in (({"fields": Fields("body", title="none.title")}, "columns"), ({"table": "none"}, "table")):
        table = PostgresTable(uri, **{"table": "nested rows", "fields": Fields("more.text"), **options})
        with pytest.raises(InputError, match=f"does not exist; name the {cure}"):
            table.passages(["cats"])


def test_what_cannot_be_asked(uri: str) -> None:
    table = PostgresTable(uri, "points", vector="embedding")
    for depth in (0, 10_001, True):
        with pytest.raises(InputError, match=r"must be|at most 10,000"):
            table.nearest(vectors()[0], depth)
        with pytest.raises(InputError, match=r"must be|at most 10,000"):
            table.words("yeast", depth)
    with pytest.raises(InputError, match="embedder that made the vectors"):
        table.nearest(np.ones(3, np.float32), 5)
    with pytest.raises(InputError, match="finite"):
        table.nearest(np.full(WIDTH, np.nan, np.float32), 5)
    with pytest.raises(InputError, match="has no vectors"):
        notes(uri).nearest(vectors()[0], 5)
    with pytest.raises(InputError, match="column of pgvector"):
        notes(uri, vector="body").nearest(vectors()[0], 5)
    for wrong in ({"timeout": 0.0}, {"timeout": float("inf")}, {"match": "all"}):
        with pytest.raises(InputError):
            notes(uri, **wrong)


def test_it_only_reads(uri: str) -> None:
    with psycopg.connect(uri) as connection:
        connection.execute(
            "CREATE FUNCTION sly() RETURNS text LANGUAGE sql AS $$ INSERT INTO notes (id) VALUES (99) RETURNING 'x' $$"
        )
        connection.execute("CREATE VIEW trap AS SELECT id, sly() AS text FROM notes")
    with pytest.raises(RemoteError, match="read-only transaction"):
        PostgresTable(uri, "trap").passages(["1"])


@pytest.mark.parametrize("timeout", [0.3, 0.0004])
def test_a_slow_answer_is_ended(uri: str, timeout: float) -> None:
    """Also in less than the server's least limit of a thousandth of a second."""
    with psycopg.connect(uri) as connection:
        connection.execute("CREATE OR REPLACE VIEW slow AS SELECT id, body || pg_sleep(20)::text AS text FROM notes")
    table, began, connections = PostgresTable(uri, "slow", timeout=timeout), time.monotonic(), set()
    for _ in range(2):
        with pytest.raises(RemoteError, match=rf"did not answer in {timeout:g} s: give it an index"):
            table.passages(["1"])
        connections.add(table._connection)
    assert len(connections) == 1, "it is not asked again, on another connection"
    assert time.monotonic() - began < 5


@pytest.mark.alone
def test_a_silent_server_is_not_waited_for(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "GRACE", 0.2)
    line = pgserving.Line(uri)
    table = notes(line.address, timeout=0.3)
    try:
        assert ids(table.words("yeast", 10)) == ["2"]
        line.still.set()
        began = time.monotonic()
        with pytest.raises(RemoteError, match=r"did not answer in 0.5 s"):
            table.words("yeast", 10)
        with pytest.raises(RemoteError, match="cannot be reached"):  # A new connection, and no answer to that.
            table.words("yeast", 10)
        assert time.monotonic() - began < 8
        line.still.clear()
        assert ids(table.words("yeast", 10)) == ["2"]
    finally:
        table.close()
        line.close()


def test_a_connection_that_the_server_closed_is_made_anew(uri: str) -> None:
    table = notes(uri)
    assert ids(table.words("yeast", 10)) == ["2"]
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert ids(table.words("yeast", 10)) == ["2"]
    table.close()
    assert ids(table.words("yeast", 10)) == ["2"]


def test_nobody_is_connected_before_the_first_question() -> None:
    table = PostgresTable("postgresql://user:secret@127.0.0.1:1/none", "notes", timeout=1)
    assert repr(table) == "PostgresTable('notes')"
    assert repr(PostgresTable("", "notes", schema="old")) == "PostgresTable('old.notes')"
    with pytest.raises(RemoteError, match="cannot be reached") as caught:
        table.words("yeast", 10)
    assert "secret" not in str(caught.value)


def test_names_with_a_percent_sign(uri: str) -> None:
    # "cannot be reached: only '%s', '%b', '%t' are allowed as placeholders"
    with psycopg.connect(uri) as connection:
        connection.execute('CREATE TABLE "50% off" ("id %%" text, "text %s" text, "v%" vector(2), m jsonb)')
        connection.execute("""INSERT INTO "50% off" VALUES ('a', 'Bread.', '[1, 0]', '{"x": 1}')""")
    fields = Fields("text %s", metadata=["m.x"])
    table = PostgresTable(uri, "50% off", fields, id="id %%", vector="v%")
    assert ids(table.words("bread", 5)) == ids(table.nearest(np.float32([1, 0]), 5)) == ["a"]
    assert table.passages(["a"]) == [Passage("a", "Bread.", "", "", {"m.x": 1})]


FORK = """
import gc, os, sys, threading
from crossrank.retrieval.remote.postgres import PostgresTable
from crossrank.retrieval.remote.store import Fields
table = PostgresTable(sys.argv[1], "notes", Fields("body"))
assert [id_ for id_, _ in table.words("yeast", 10)] == ["2"]
theirs, children = table._connection.info.backend_pid, []
# The lock is held at the fork, as it would be by another thread.
with table._lock:
    for query, want in (("yeast", ["2"]), ("retried", ["1"]), ("bread", ["2", "10"])):
        child = os.fork()
        if child == 0:
            threading.Timer(60, lambda: os._exit(2)).start()
            same = all([id_ for id_, _ in table.words(query, 10)] == want for _ in range(20))
            os._exit(0 if same and table._connection.info.backend_pid != theirs else 1)
        children.append(child)
# What goes with a child's table is the child's.
child = os.fork()
if child == 0:
    del table
    gc.collect()
    os._exit(0)
children.append(child)
assert all([id_ for id_, _ in table.words("of", 10)] == [] for _ in range(20))
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0, 0]
assert [id_ for id_, _ in table.words("yeast", 10)] == ["2"]
assert table._connection.info.backend_pid == theirs
"""


def test_a_forked_process_has_a_connection_of_its_own(uri: str) -> None:
    """It got rows of another process's query, without an error."""
    subprocess.run([sys.executable, "-W", "error", "-c", FORK, uri], check=True, timeout=120)


def test_many_threads_get_their_own_answers(uri: str) -> None:
    table, wrong = notes(uri), []

    def ask(query: str, want: list[str]) -> None:
        wrong.extend(found for _ in range(20) if (found := ids(table.words(query, 10))) != want)

    asked = [("yeast", ["2"]), ("retried", ["1"]), ("bread", ["2", "10"]), ("of", [])]
    threads = [threading.Thread(target=ask, args=pair) for pair in asked * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_who_waits_for_other_threads_waits_no_longer_than_for_an_answer() -> None:
    table = PostgresTable("postgresql://127.0.0.1:1/none", "notes", timeout=0.05)
    with table._lock, pytest.raises(RemoteError, match="by too many threads at once: make one for each"):
        table.words("yeast", 10)
    assert table._lock.acquire(blocking=False), "it was not freed by who did not have it, and is free now"


def test_what_is_closed_is_closed(uri: str) -> None:
    table = notes(uri)
    table.words("yeast", 10)
    connection = table._connection
    table.close()
    assert connection is not None
    assert connection.closed
    assert table._connection is None


def test_it_is_closed_when_it_goes(uri: str) -> None:
    table = notes(uri)
    table.words("yeast", 10)
    connection = table._connection
    del table
    assert connection is not None
    assert connection.closed


# --- a hundred thousand ------------------------------------------------------------------------------------------


MANY, LENGTH, BUCKETS = 100_000, 20, 64
QUESTION = "how do I retry a failed upload?"
ANSWER = "To retry a failed upload, open the list of uploads and choose retry: it begins where it stopped."


@cache
def bucket(word: str) -> int:
    return sum(map(ord, word)) % BUCKETS


class Counting:
    """Embeds a text as how many of its words fall in each bucket: the same for passages and queries."""

    width, fingerprint = BUCKETS, "counting"

    def counts(self, text: str) -> np.ndarray:
        return np.bincount([bucket(word) for word in text.lower().split()], minlength=BUCKETS)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        made = np.array([self.counts(text) for text in texts], dtype=np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)


def passages() -> list[str]:
    """Words by Zipf's law, some of the question's among them; one passage is its answer."""
    random = np.random.default_rng(0)
    syllables = [a + b for a in "bcdfglmnprst" for b in "aeiou"]
    made = ["".join(random.choice(syllables, size=size)) for size in random.integers(2, 4, size=4_000)]
    vocabulary = np.array(["retry", "failed", "upload", *made], dtype=object)
    shares = 1 / np.arange(20, 20 + len(vocabulary))
    rows = random.choice(vocabulary, size=(MANY, LENGTH), p=shares / shares.sum())
    texts = [" ".join(row) for row in rows.tolist()]
    texts[54_321] = ANSWER
    return texts


@pytest.mark.slow
def test_a_hundred_thousand_passages_hybrid_and_reranked(uri: str) -> None:
    texts, embedder = passages(), Counting()
    counts = np.array([embedder.counts(text) for text in texts])
    with psycopg.connect(uri) as connection:
        connection.execute(
            f"CREATE TABLE many (id int, body text, embedding vector({BUCKETS}), "
            "words tsvector GENERATED ALWAYS AS (to_tsvector('english', body)) STORED)"
        )
        with connection.cursor().copy("COPY many (id, body, embedding) FROM STDIN") as copy:
            for row, text in enumerate(texts):
                copy.write_row((row, text, str(counts[row].tolist())))
        connection.execute("ALTER TABLE many ADD PRIMARY KEY (id)")
        connection.execute("CREATE INDEX ON many USING gin (words)")
        connection.execute("ANALYZE many")
    table = PostgresTable(uri, "many", Fields("body"), vector="embedding", words="words", timeout=30)
    answer = hybrid(table, embedder, "small", depth=50, mix=1.0).search(QUESTION, k=5)
    assert [trace.name for trace in answer.traces] == ["words", "vectors", "fused", "small"]
    assert [len(trace.ranking) for trace in answer.traces[:2]] == [50, 50]
    cosines = (counts / np.linalg.norm(counts, axis=1, keepdims=True)) @ embedder.embed([QUESTION])[0]
    nearest = cosines[[int(id_) for id_ in answer.traces[1].ranking.ids]]
    np.testing.assert_allclose(nearest, np.sort(cosines)[::-1][:50], atol=1e-6, err_msg="all 100,000 are compared")
    assert answer.ranking.ids[0] == "54321"
    assert answer.passages[0].text == ANSWER
    assert answer.ranking.head == 5
