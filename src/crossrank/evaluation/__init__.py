"""Judged sets, runs, measures and confidence intervals: does a ranking answer, and is the difference real?

    files       lines of plain or gzip files, bounded
    trec        qrels and runs: read, write
    beir        a folder of corpus, queries and qrels: `JudgedSet`
    measures    nDCG@10 and the other ir-measures names (extra `eval`; the only file that needs it)
    bootstrap   confidence intervals for a mean, and for a paired difference

`measures` is imported by name, because it needs the extra:

>>> from crossrank.evaluation import difference, mean
>>> print(mean([0.5, 0.5, 0.5]))
0.500 [0.500, 0.500]
"""

from __future__ import annotations

from crossrank.evaluation.beir import JudgedSet, read_corpus, read_queries, read_set
from crossrank.evaluation.bootstrap import Interval, difference, difference_over_sets, mean, mean_over_sets
from crossrank.evaluation.trec import read_qrels, read_run, write_run

__all__ = [
    "Interval",
    "JudgedSet",
    "difference",
    "difference_over_sets",
    "mean",
    "mean_over_sets",
    "read_corpus",
    "read_qrels",
    "read_queries",
    "read_run",
    "read_set",
    "write_run",
]
