"""What is wrong with judgments, with counts and examples, before an hour is spent on them.

A finding that is `fatal` means that no training on this data could be trusted: the base model is kept without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from crossrank.errors import InputError
from crossrank.training.gate import FEWEST_HELD_OUT
from crossrank.training.judgments import Group, Judged, Judgments, document_key, query_key, threshold
from crossrank.unicode import is_blank

# Below this many queries with an answer no held-out difference of a useful size is significant: with a spread of 0.3
# in the differences, 20 queries give an interval of about 0.13 to each side.
FEWEST_QUERIES = 20
# More contradicting pairs than this are no slips: people did not agree on what relevant means.
MOST_CONTRADICTIONS = 0.05
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        name: one word for programs, such as "contradictions".
        count: rows, pairs or queries concerned.
        message: what is wrong, what is done about it, or what cures it.
        examples: at most three.
        fatal: whether the base model is kept for it.
    """

    name: str
    count: int
    message: str
    examples: tuple[str, ...] = ()
    fatal: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """Judgments that can be trained on, and what was found in them.

    Attributes:
        groups: one a query that has a relevant document, in the order of the file.
        findings: fatal ones first.
        dropped: documents of contradictory pairs, by `query_key`: nobody knows whether they are relevant.
    """

    groups: tuple[Group, ...]
    findings: tuple[Finding, ...]
    dropped: Mapping[str, tuple[str, ...]]

    @property
    def fatal(self) -> tuple[Finding, ...]:
        """Findings for which the base model is kept."""
        return tuple(finding for finding in self.findings if finding.fatal)


def check(judgments: Judgments, fewest: int = FEWEST_QUERIES) -> Checked:
    """Group rows by query, leave out what cannot be used, and say so.

    Rows with equal query and document (see `query_key`, `document_key`) are one pair: equal labels count once,
    different labels are a contradiction, and the pair is left out. Who judged a pair twice, by the name in the rows,
    does not contradict himself: his last word counts. Queries that differ in case, white space or final
    punctuation are one query, so that no fold can hold the answer to another.

    >>> from crossrank.training.judgments import Judged
    >>> rows = (Judged("a", "x", 1), Judged("A?", "y", 0), Judged("a", "x", 0))
    >>> [(finding.name, finding.count) for finding in check(Judgments(rows, "labels")).findings]
    [('contradictions', 1), ('one class', 1), ('few queries', 0), ('spelling', 1)]
    """
    findings: list[Finding] = [_unread(judgments)] if judgments.unread else []
    by_query = pairs(judgments, findings)
    groups = tuple(
        Group(query, tuple(text for text, _ in kept), tuple(label for _, label in kept))
        for query, pairs in by_query.values()
        if (kept := [(text, next(iter(labels))) for text, labels in pairs.values() if len(labels) == 1])
    )
    limit = threshold(groups, judgments.scale)
    _check_classes(judgments, groups, limit, findings)
    if judgments.scale == "scores":
        usable = tuple(group for group in groups if max(group.labels) > min(group.labels))
    else:
        usable = tuple(group for group in groups if max(group.labels) > limit)
    if len(usable) < fewest:
        needed = "documents of different scores" if judgments.scale == "scores" else "a relevant document"
        findings.append(
            Finding(
                "few queries", len(usable),
                f"queries with {needed}: {len(usable)}; under {fewest} no gain could be told from chance. "
                "Judge more queries: more of them help more than more documents of each",
                fatal=True,
            )
        )  # fmt: skip
    dropped = {
        key: against
        for key, (_, pairs) in by_query.items()
        if (against := tuple(text for text, labels in pairs.values() if len(labels) > 1))
    }
    return Checked(usable, tuple(sorted(findings, key=lambda finding: not finding.fatal)), dropped)


def together(
    judgments: Judgments, held_out: Judgments | None
) -> tuple[tuple[Group, ...], tuple[Group, ...], tuple[Finding, ...], Mapping[str, Sequence[str]]]:
    """What is trained on, what is held out besides, what is wrong with both, and what was dropped by query.

    Raises:
        InputError: the two have labels of different kinds.
    """
    ours = check(judgments)
    if held_out is None:
        return ours.groups, (), ours.findings, ours.dropped
    if held_out.scale != judgments.scale:
        raise InputError(f"the held-out part has {held_out.scale} and the rest {judgments.scale}; give both alike")
    theirs = check(held_out, fewest=FEWEST_HELD_OUT)
    groups, leaks = overlap(ours.groups, theirs.groups)
    named = (replace(one, name=f"held-out: {one.name}") for one in theirs.findings)
    dropped = {
        key: (*ours.dropped.get(key, ()), *theirs.dropped.get(key, ())) for key in (*ours.dropped, *theirs.dropped)
    }
    return groups, theirs.groups, (*ours.findings, *named, *leaks), dropped


def overlap(
    groups: Sequence[Group], held_out: Sequence[Group], fewest: int = FEWEST_QUERIES
) -> tuple[tuple[Group, ...], tuple[Finding, ...]]:
    """`groups` without the queries that are also held out, and the leak as a finding; with what it leaves if few."""
    theirs = {query_key(group.query) for group in held_out}
    leaked = [group for group in groups if query_key(group.query) in theirs]
    if not leaked:
        return tuple(groups), ()
    message = f"queries that are in the held-out part too: {len(leaked)}; they are not trained on"
    finding = Finding("leaks", len(leaked), message, _shown(group.query for group in leaked))
    kept = tuple(group for group in groups if query_key(group.query) not in theirs)
    if len(kept) < fewest <= len(groups):
        said = (
            f"queries that are left to train on without those of the held-out part: {len(kept)}; under {fewest} there "
            "is too little to learn from. Hold out other queries, or none: folds of the data decide then"
        )
        return kept, (Finding("few queries", len(kept), said, fatal=True), finding)
    return kept, (finding,)


def _last_words(rows: Sequence[Judged], findings: list[Finding]) -> list[Judged]:
    """The rows without those that the same judge, where a row names one, took back in a later one."""
    keys = [(query_key(row.query), document_key(row.document), row.by) if row.by else None for row in rows]
    last = {key: row.label for key, row in zip(keys, rows, strict=True) if key}
    kept, again = [], dict[tuple[str, str, str], str]()
    for key, row in zip(keys, rows, strict=True):
        if key is None or row.label == last[key]:
            kept.append(row)
        else:
            again[key] = row.query
    said = f"pairs that one judge gave another label later: {len(again)}; the last one counts"
    _add(findings, "judged again", list(again.values()), said)
    return kept


Pairs = dict[str, tuple[str, set[float]]]


def pairs(judgments: Judgments, findings: list[Finding]) -> dict[str, tuple[str, Pairs]]:
    """By query: its first spelling, and by document its text and labels; what is wrong with them goes to `findings`."""
    if judgments.fractions:
        findings.append(_fractions(judgments))
    missing = f"judged documents that are not in corpus.jsonl: {len(judgments.missing)}; their judgments are left out"
    _add(findings, "missing documents", judgments.missing, missing)
    by_query: dict[str, tuple[str, Pairs]] = {}
    blank: list[str] = []
    repeated: list[str] = []
    other: dict[str, None] = {}
    graders: dict[tuple[str, str], set[str]] = {}
    for row in _last_words(judgments.rows, findings):
        if not query_key(row.query) or is_blank(row.query) or is_blank(row.document):
            blank.append(row.document if is_blank(row.query) else row.query)
            continue
        query, pairs = by_query.setdefault(query_key(row.query), (row.query, {}))
        if query != row.query:
            other[row.query] = None
        _, labels = pairs.setdefault(document_key(row.document), (row.document, set()))
        if row.label in labels:
            repeated.append(row.query)
        labels.add(row.label)
        if row.by:
            graders.setdefault((query_key(row.query), document_key(row.document)), set()).add(row.by)
    total = sum(len(pairs) for _, pairs in by_query.values())
    against = [
        f"{query!r:.60} and {text!r:.60}: labels {', '.join(f'{v:g}' for v in sorted(labels))}"
        for query, pairs in by_query.values()
        for text, labels in pairs.values()
        if len(labels) > 1
    ]
    if against:
        share = len(against) / max(1, total)
        disagree = [
            names
            for (query, document), names in graders.items()
            if len(names) > 1 and len(by_query[query][1][document][1]) > 1
        ]
        said = (
            f"; {len(disagree)} of them by several: {', '.join(sorted(set().union(*disagree)))}. Keep the rows of one"
        )
        _add(findings, "contradictions", against, fatal=share > MOST_CONTRADICTIONS, message=(
            f"{len(against)} of {total} pairs with different labels in different rows ({share:.0%}): left out"
            + (said if disagree else "")
            + (f". Over {MOST_CONTRADICTIONS:.0%} the labels cannot be trusted: agree on what is relevant, and judge "
               "again" if share > MOST_CONTRADICTIONS else "")))  # fmt: skip
    _add(
        findings,
        "duplicates",
        repeated,
        f"rows that repeat a pair with the same label: {len(repeated)}; each pair counts once",
    )
    _add(findings, "blank", blank, f"rows with a blank query or document: {len(blank)}, left out")
    spelled = f"queries that differ from others in case, space or punctuation only: {len(other)}; they stay in one fold"
    _add(findings, "spelling", list(other), spelled)
    return by_query


def _fractions(judgments: Judgments) -> Finding:
    count = judgments.fractions
    if judgments.scale == "scores":
        said = "they are no grades, so all labels are read as a teacher's scores. Grades are whole numbers"
    else:
        said = "from 0.5 on a document counts as relevant. If they are a teacher's scores, call the column score"
    return Finding("fractions", count, f"labels with a fraction: {count}; {said}")


def unlabelled(judgments: Judgments) -> str:
    """What rows hold in place of labels that say what is relevant and what is not, for an error; empty for labels.

    >>> unlabelled(Judgments((Judged("tea?", "Tea.", 3.5),), "scores", fractions=1))
    "labels with a fraction (1), so that all are read as a teacher's scores: grades are whole numbers"
    """
    if judgments.scale == "labels":
        return ""
    if judgments.scale == "scores":
        read = f"labels with a fraction ({judgments.fractions:,}), so that all are read as a teacher's scores"
        return f"{read}: grades are whole numbers" if judgments.fractions else "a teacher's scores"
    said = "relevant documents alone"
    if judgments.unread:
        said += f", unless one of these columns says what is relevant: {_names(judgments)}. Call that one label"
    return said


def _names(judgments: Judgments) -> str:
    return ", ".join(repr(name)[:40] for name in judgments.unread[:8])


def _unread(judgments: Judgments) -> Finding:
    shown = _names(judgments)
    said = (
        f"no row holds a label or a score, so that every row would count as relevant; but rows hold {shown}. If that "
        "says what is relevant, call it label (or negative, where it holds texts); if every row is relevant, say "
        "--clicks"
    )
    return Finding("unread columns", len(judgments.unread), said, fatal=True)


def _check_classes(judgments: Judgments, groups: Sequence[Group], limit: float, findings: list[Finding]) -> None:
    labels = [label for group in groups for label in group.labels]
    positive = sum(label > limit for label in labels)
    if judgments.scale != "clicks" and len(set(labels)) < 2:
        said = f"every label is {labels[0]:g}" if labels else "no pair is left"
        cure = (
            "If these rows are clicks or known answers, say --clicks: documents that are not in them then count as not "
            "relevant" if positive else "Add rows that are relevant"
        )  # fmt: skip
        findings.append(Finding("one class", len(labels), f"{said}, so there is nothing to learn from. {cure}",
                                fatal=True))  # fmt: skip
        return
    if judgments.scale == "scores":
        equal = [group.query for group in groups if max(group.labels) == min(group.labels)]
        said = f"queries whose documents all have one score: {len(equal)}, left out, because nothing can be ranked"
        _add(findings, "one-score queries", equal, said)
        return
    without = [group.query for group in groups if max(group.labels) <= limit]
    _add(findings, "nothing relevant", without,
         f"queries without a relevant document: {len(without)}, left out, because nothing can be ranked")  # fmt: skip
    if judgments.scale == "clicks":
        return
    alone = [group.query for group in groups if min(group.labels) > limit]
    _add(findings, "one-class queries", alone,
         f"queries with relevant documents only: {len(alone)}; negatives for them must be mined")  # fmt: skip
    if positive > len(labels) - positive:
        count = len(labels) - positive
        said = f"judged pairs that are not relevant: {count}, that are: {positive}; others are mined"
        findings.append(Finding("few negatives", count, said))


def _add(findings: list[Finding], name: str, concerned: Sequence[str], message: str, fatal: bool = False) -> None:
    if concerned:
        findings.append(Finding(name, len(concerned), message, _shown(concerned), fatal))


def _shown(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text[:140] for text in list(dict.fromkeys(texts))[:EXAMPLES])
