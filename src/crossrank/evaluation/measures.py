"""Measures by their ir-measures names: `nDCG@10`, `RR@10`, `AP`, `R@100`, `P(rel=2)@5`. Needs the extra `eval`.

Names of trec_eval, pytrec_eval and ranx that mean one of these are read, too: `ndcg_cut.10`, `mrr@10`, `recall_100`.
"""

from __future__ import annotations

import difflib
import re
import subprocess
from collections.abc import Iterable, Sequence

from crossrank.errors import InputError
from crossrank.evaluation.trec import HIGHEST_GRADE, AnyRun, ranking_of
from crossrank.extras import require
from crossrank.types import Qrels, Ranking

require("ir_measures", extra="eval")
import ir_measures  # noqa: E402

# What providers raise for parameters, ids or grades that they cannot take; one of them is a program.
_FAILURES = (ValueError, TypeError, AssertionError, ArithmeticError, LookupError, OSError, subprocess.SubprocessError)
# What others call the measures, in lower case, without a cutoff.
_ALIASES = {
    **{"ndcg": "nDCG", "ndcg_cut": "nDCG", "map": "AP", "map_cut": "AP", "ap": "AP"},
    **{"mrr": "RR", "recip_rank": "RR", "rr": "RR", "recall": "R", "r": "R"},
    **{"precision": "P", "p": "P", "success": "Success", "hit_rate": "Success"},
}
_ALIAS = re.compile(r"([a-z][a-z_]*?)(?:[@_.]([0-9]+))?", re.I)


def per_query(qrels: Qrels, run: AnyRun, names: Sequence[str] = ("nDCG@10",)) -> dict[str, dict[str, float]]:
    """The value of each measure for each judged query: `values[name][query]`.

    Names in the order given, queries in the order of `qrels`. A judged query without a ranking, or with an empty one,
    counts as 0 (trec_eval's `-c`), so that a system which answers fewer queries cannot look better; a ranking without
    judgments is left out; a query whose judgments are all 0 or under counts as 0. Positions in the ranking are what is
    measured: its scores play no part, ties included. Computed by pytrec_eval, the code of trec_eval.

    Args:
        qrels: grades by query and document.
        run: by query, rankings, or scores by document: equal ones stand as they come, and not by id as in trec_eval.
        names: of the measures.

    Raises:
        InputError: a measure's name is unknown, it needs a provider that is not installed or cannot take these ids and
            grades, there are no judgments, a grade is beyond `HIGHEST_GRADE`, or an id holds a NUL or half of a
            surrogate pair.

    >>> import numpy as np
    >>> run = {"q": Ranking.sorted(["a", "b"], np.array([2.0, 1.0]))}
    >>> per_query({"q": {"b": 1}, "unanswered": {"a": 1}}, run, ["RR@10"])
    {'RR@10': {'q': 0.5, 'unanswered': 0.0}}
    """
    if not qrels:
        raise InputError("there are no judgments, so nothing can be measured")
    if not names:
        return {}
    parsed = {name: _parse(name) for name in names}
    # trec_eval's nDCG never ends on a query whose grades are all under 0, as junk has them; such a query counts as 0.
    judged = {query: dict(grades) for query, grades in qrels.items() if any(grade >= 0 for grade in grades.values())}
    if not judged:
        return {name: dict.fromkeys(qrels, 0.0) for name in names}
    if high := next((g for grades in qrels.values() for g in grades.values() if abs(g) > HIGHEST_GRADE), None):
        raise InputError(f"the grade {high} is over {HIGHEST_GRADE:,}; timestamps or counts are no grades")
    _check_ids(query for query in qrels)
    _check_ids(query for query in run)
    _check_ids(document for grades in qrels.values() for document in grades)
    rankings = {query: ranking_of(query, run[query]) for query in qrels if query in run}
    _check_ids(document for ranking in rankings.values() for document in ranking.ids)
    # Ranks as scores: strictly falling, exact, and blind to stages whose scores do not compare.
    ranked = {query: _falling(rankings[query]) for query in judged if query in rankings and len(rankings[query])}
    values: dict[str, dict[str, float]] = {name: dict.fromkeys(qrels, 0.0) for name in names}
    by_measure: dict[ir_measures.Measure, list[str]] = {}
    for name, measure in parsed.items():
        by_measure.setdefault(measure, []).append(name)
    try:
        for metric in ir_measures.iter_calc(list(by_measure), judged, ranked):
            for name in by_measure[metric.measure]:
                if metric.query_id not in judged:
                    raise ValueError(f"its program takes another query, {metric.query_id!r}, out of the ids")
                values[name][metric.query_id] = float(metric.value)
    except _FAILURES as error:
        why = "its program takes only numbers as query ids, and grades up to 4"
        why = why if isinstance(error, subprocess.SubprocessError) else str(error)
        raise InputError(f"cannot compute {', '.join(names)}: {why}") from error
    return values


def _check_ids(ids: Iterable[str]) -> None:
    """Refuse ids that C cannot hold: pytrec_eval ends the process on half a surrogate pair, and cuts at a NUL."""
    for id_ in ids:
        if not isinstance(id_, str):
            raise InputError(f"an id is a string, not {type(id_).__name__} ({id_!r}): turn it into one")
        if id_.isascii() and "\0" not in id_:
            continue
        try:
            id_.encode()
        except UnicodeEncodeError:
            raise InputError(f"the id {id_!r} holds half of a surrogate pair, so it is no text") from None
        if "\0" in id_:
            raise InputError(f"the id {id_!r} holds a NUL character, which no measure can be computed with")


def check(names: Sequence[str], qrels: Qrels | None = None) -> None:
    """Refuse measures that cannot be computed, before hours are spent on rankings.

    Args:
        names: of the measures; each is tried on two documents.
        qrels: the judgments, where they are known: some measures cannot take every query id or grade.

    Raises:
        InputError: as `per_query`.

    >>> check(["nDCG@10", "P(rel=2)@5"])
    """
    judged = qrels or {"1": {"d": 1}}
    tried = {query: {"d": max(grades.values(), default=0), "e": 0} for query, grades in judged.items()}
    for name in names:
        per_query(tried, dict.fromkeys(tried, Ranking.sorted(["d", "e"], [2.0, 1.0])), [name])


def _falling(ranking: Ranking) -> dict[str, float]:
    return {document: float(len(ranking) - position) for position, document in enumerate(ranking.ids)}


def _parse(name: str) -> ir_measures.Measure:
    try:
        measure = ir_measures.parse_measure(_known(name))
        known, given = measure.SUPPORTED_PARAMS, measure.params
        if missing := next((word for word, one in known.items() if one.required and word not in given), None):
            raise ValueError(f"it needs a {missing}")
        # trec_eval ends the process on a cutoff of 0, and on a level far beyond all grades.
        if "cutoff" in given and (type(given["cutoff"]) is not int or given["cutoff"] < 1):
            raise ValueError(f"the cutoff is a whole number of at least 1, not {given['cutoff']!r}")
        measure.validate_params()  # type: ignore[no-untyped-call]
        if any(level > HIGHEST_GRADE for level in (given.get("rel", 1), *given.get("gains", {}).values())):
            raise ValueError(f"no grade is over {HIGHEST_GRADE:,}")
        return measure
    except (NameError, ValueError, SyntaxError, TypeError, KeyError, AssertionError) as error:
        raise InputError(
            f"{name!r} is not a measure: {error}. {_meant(name)}Names look like nDCG@10, RR@10, AP, R@100, P(rel=2)@5"
        ) from None


def _known(name: str) -> str:
    """The ir-measures name of what others call `ndcg_cut_10` or `mrr@10`; any other name as it is."""
    found = _ALIAS.fullmatch(name)
    family = _ALIASES.get(found[1].lower()) if found else None
    if found is None or family is None:
        return name
    return f"{family}@{found[2]}" if found[2] else family


def _meant(name: str) -> str:
    """What a name with a slip of the pen may have meant, for people."""
    found = _ALIAS.fullmatch(name)
    close = difflib.get_close_matches(found[1].lower(), _ALIASES, 1, 0.75) if found else []
    if found is None or not close or found[1].lower() in _ALIASES:
        return ""
    return f"Did you mean {_ALIASES[close[0]]}{f'@{found[2]}' if found[2] else ''}? "
