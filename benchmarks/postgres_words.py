"""How well do PostgreSQL's words find what BM25 finds: any or all words of the query, ts_rank or ts_rank_cd?

    python benchmarks/postgres_words.py DATA [--sets scifact cacm clapnq npl wikiqa] [--queries 100] [--out FILE.json]

Needs the postgres and search extras and pgserver, which brings the server. BM25 is that of an index of crossrank over
the same texts. Nothing is reranked: the table says what a reranker would be given.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pgserver
import psycopg

import machine
import sets
from context import Constant
from crossrank.evaluation import JudgedSet, bootstrap
from crossrank.evaluation.measures import per_query
from crossrank.index import Document, Index
from crossrank.models import named
from crossrank.retrieval.remote.function import FunctionRetriever
from crossrank.retrieval.remote.postgres import PostgresTable

MEASURES = ("nDCG@10", "R@100")
COVER = """SELECT id, ts_rank_cd(words, asked) FROM passages,
    LATERAL (SELECT replace(plainto_tsquery('english', %s)::text, ' & ', ' | ')::tsquery AS asked) AS question
    WHERE words @@ asked ORDER BY 2 DESC, id LIMIT %s"""
Find = Callable[[str, int], list[tuple[str, float]]]


def main() -> None:
    options = arguments()
    values: dict[str, dict[str, list[list[float]]]] = {}
    for name in sets.names(options.data, options.sets):
        judged = sets.read(options.data, name).sample(options.queries)
        with systems(judged) as finders:
            for system, find in finders.items():
                found = FunctionRetriever(find).retrieve(list(judged.queries.values()), 100)
                scores = per_query(judged.qrels, dict(zip(judged.queries, found, strict=True)), MEASURES)
                for measure in MEASURES:
                    of_sets = values.setdefault(system, {}).setdefault(measure, [])
                    of_sets.append(list(scores[measure].values()))
    table = {
        system: {measure: str(bootstrap.mean_over_sets(of_sets)) for measure, of_sets in measures.items()}
        for system, measures in values.items()
    }
    print(f"| {', '.join(options.sets)} | {' | '.join(MEASURES)} |\n| --- | --- | --- |")
    for system, measures in table.items():
        print(f"| {system} | {' | '.join(measures.values())} |")
    if options.out:
        record = {"about": machine.describe(1), "sets": options.sets, "queries": options.queries, "means": table}
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of judged sets, one folder each")
    parser.add_argument("--sets", nargs="+", default=["scifact", "cacm", "clapnq", "npl", "wikiqa"])
    parser.add_argument("--queries", type=int, default=100, help="at most this many of a set, drawn with seed 0")
    machine.out_option(parser)
    return parser.parse_args()


@contextmanager
def systems(judged: JudgedSet) -> Iterator[dict[str, Find]]:
    """What is compared, over the passages of one set."""
    embedder, tokenizer = Constant(), named.read(None, default="embed").tokenizer()
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryDirectory() as folder:
        index = Index.create(folder, embedder, tokenizer, size=10_000_000)
        index.add([Document(id_, p.text, p.title) for id_, p in judged.corpus.items()], embedder, tokenizer)
        owners = {passage.id: passage.document for passage in index.passages(index.ids())}
        server = pgserver.get_server(data)
        try:
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                fill(connection, judged)
                yield {
                    "any word, ts_rank (the default)": PostgresTable(server.get_uri(), "passages", words="words").words,
                    "any word, ts_rank_cd": lambda query, depth: connection.execute(COVER, (query, depth)).fetchall(),
                    'match="web"': PostgresTable(server.get_uri(), "passages", words="words", match="web").words,
                    "BM25 of an index": lambda query, depth: bm25(index, owners, query, depth),
                }
        finally:
            server.cleanup()


def bm25(index: Index, owners: dict[str, str], query: str, depth: int) -> list[tuple[str, float]]:
    ranking = index.bm25(query, depth)
    return [(owners[id_], score) for id_, score in zip(ranking.ids, ranking.scores.tolist(), strict=True)]


def fill(connection: psycopg.Connection, judged: JudgedSet) -> None:
    connection.execute("CREATE TABLE passages (id text PRIMARY KEY, words tsvector)")
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO passages VALUES (%s, to_tsvector('english', %s))",
            [(id_, passage.scored_text.replace("\0", " ")) for id_, passage in judged.corpus.items()],
        )
    connection.execute("CREATE INDEX ON passages USING gin (words)")
    connection.execute("ANALYZE passages")


if __name__ == "__main__":
    main()
