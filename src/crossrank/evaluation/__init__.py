"""Judged sets, runs, measures and confidence intervals: does a ranking answer, and is the difference real?

    files       lines of plain or gzip files, bounded
    trec        qrels and runs: read, write
    beir        a folder of corpus, queries and qrels: `JudgedSet`
    words       BM25 over texts in memory (extra `eval` or `train`)
    measures    nDCG@10 and the other ir-measures names (extra `eval`)
    bootstrap   confidence intervals for a mean, and for a paired difference
    significance  a paired randomization test, Holm's correction
    folding     which judged id a passage stands for
    setting     the ways into an evaluation; `indexing` is the one through an index (extra `search`), `lists` the one
                of queries that bring their own documents (extra `eval`)
    candidates  what a first stage finds, and what cross-encoders make of it: each pair scored once
    systems     the rankings that are compared, derived from that
    comparison  means, differences, ceilings, times (extra `eval`)
    reliability calibration; `abstention` what thresholds lose and let through
    moves       the queries that changed most; `verdict` the plain words
    outcome     all of it, and as JSON; `frontier` quality against latency
    report      both as a page: `plots` (extra `eval`), `page`, `style`

What is not below comes from its own module, because most needs an extra:

>>> from crossrank.evaluation import difference, mean
>>> print(mean([0.5, 0.5, 0.5]))
0.500 [0.500, 0.500]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crossrank.evaluation.beir import JudgedSet, read_corpus, read_queries, read_set
from crossrank.evaluation.bootstrap import Interval, difference, difference_over_sets, mean, mean_over_sets
from crossrank.evaluation.trec import read_qrels, read_run, write_run

if TYPE_CHECKING:
    from crossrank.evaluation.measures import per_query

__all__ = [
    "Interval",
    "JudgedSet",
    "difference",
    "difference_over_sets",
    "mean",
    "mean_over_sets",
    "per_query",
    "read_corpus",
    "read_qrels",
    "read_queries",
    "read_run",
    "read_set",
    "write_run",
]


if not TYPE_CHECKING:  # as in the package above; measures need an extra

    def __getattr__(name: str) -> Any:
        if name != "per_query":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from crossrank.evaluation.measures import per_query

        return per_query
