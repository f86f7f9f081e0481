"""`crossrank rerank`: a query and some passages in, the best first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from crossrank.addresses import is_address
from crossrank.cli import budget, options, terminal
from crossrank.cli.exits import Exit
from crossrank.credentials import without_secrets
from crossrank.errors import InputError

if TYPE_CHECKING:
    from crossrank.calibration import Threshold
    from crossrank.cli.counted import Counted
    from crossrank.cli.rows import Layout, Row
    from crossrank.evidence import Evidence
    from crossrank.ranked import Ranked
    from crossrank.scorers import PairScorer
    from crossrank.types import Passage, Truncation
    from crossrank.windows import Fold

Found = Sequence["Evidence | None"]
FOLDS = ("max", "mean", "first")
# How a cross-encoder reads what is too long for it.
READS = ("max_length", "window", "overlap", "fold")
# What a line of JSON may hold, each with one meaning: a row's own "read" must not stand where there was no budget.
FIELDS = {"rank", "id", "position", "score", "probability", "text", "title", "truncation"} | {
    "query_truncation",
    "read",
    "evidence",
}


@click.command(
    "rerank",
    short_help="Put passages in the order in which they answer a query.",
    epilog="""\b
Examples:
  crossrank rerank "capital of France" passages.txt
  grep -rih retry docs/ | crossrank rerank "how do I retry a failed upload?" -k 5
  crossrank rerank "refund policy" notes/*.md --input paragraphs -k 3
  crossrank rerank "refund policy" faq.jsonl --json | jq -r 'select(.rank <= 3).id'
  crossrank search docs.index "refund" -k 50 --json | crossrank rerank "refund policy" --input jsonl
  crossrank rerank "refund policy" all-lines.txt --coarse tiny -k 10
  crossrank rerank "refund policy" faq.txt --probability
  crossrank rerank "refund policy" faq.txt --threshold 0.3
  crossrank rerank "refund policy" faq.txt -k 5 --explain
  crossrank rerank "refund policy" faq.txt --model "http://localhost:8000/v1#qwen3"
  crossrank rerank "refund policy" faq.txt --rerank-api "https://api.cohere.com/v2#rerank-v4.0-pro"
""",
)
@click.argument("query")
@click.argument("files", nargs=-1, type=click.Path(dir_okay=False, allow_dash=True))
@click.option("-k", cls=options.Top, type=options.Count(min=1), metavar="N", help="Passages to print.  [default: all]")
@options.model
@options.rerank_api
@click.option(
    "--coarse", type=options.ModelName(), multiple=True, metavar="MODEL",
    help="A cheaper model that reads before --model, which then reads the best half, at most 50 or as many as -k: for "
    "hundreds of passages. Repeat it, cheapest first.",
)  # fmt: skip
@options.as_json
@click.option("--probability", is_flag=True, help="Give the probability that a passage is relevant, not the raw score.")
@click.option(
    "--threshold", type=options.Threshold(), metavar="P",
    help='Leave out passages that are less probable to be relevant. "model" takes the model\'s own threshold.',
)  # fmt: skip
@click.option("--explain", is_flag=True, help="Mark the sentence of each passage that answers best.")
@options.cache
@click.option(
    "--input", "layout", type=click.Choice(["lines", "paragraphs", "jsonl", "csv"]),
    help="What the rows are; paragraphs are parted by blank lines.  [default: jsonl for *.jsonl, *.ndjson, csv for "
    "*.csv, *.tsv, lines for others, stdin]",
)  # fmt: skip
@click.option("--encoding", default="utf-8", show_default=True, help="Encoding of the passages.")
@click.option(
    "--max-length", type=options.Count(min=5), metavar="N",
    help="Tokens in one sequence; longer passages take more windows, at most 64.  [default: the model's]",
)  # fmt: skip
@click.option(
    "--window", type=options.Count(min=1), metavar="N", default=400, show_default=True,
    help="Tokens in one window of a passage that is too long for the model.",
)  # fmt: skip
@click.option(
    "--overlap", type=options.Count(min=0), metavar="N", default=100, show_default=True,
    help="Tokens that neighbour windows share.",
)  # fmt: skip
@click.option(
    "--fold", type=click.Choice(FOLDS), default="max", show_default=True,
    help="How the scores of a passage's windows become one; first reads the first window alone.",
)  # fmt: skip
@budget.budget_ms
@options.engine
def command(
    query: str,
    files: tuple[str, ...],
    k: int | None,
    model: str | None,
    rerank_api: str | None,
    coarse: tuple[str, ...],
    as_json: bool,
    probability: bool,
    threshold: Threshold | None,
    explain: bool,
    cache: str | None,
    layout: Layout | None,
    encoding: str,
    max_length: int | None,
    window: int,
    overlap: int,
    fold: Fold,
    budget_ms: float | None,
    backend: str,
    device: str,
    dtype: str,
    threads: int | None,
) -> Exit:
    """Print passages in the order in which they answer QUERY, the best first.

    FILES hold one passage a line, or with --input paragraphs one a paragraph; *.jsonl hold one object a row:
    {"text": ..., "title": ..., "id": ...}, of which only the text is needed; *.csv and *.tsv name these columns in
    their first line. The text may also be called content, contents, body or passage. Without FILES, or for -, passages
    are read from stdin. *.gz are decompressed.

    With --threshold nothing is printed when no passage is so probable, and stderr says so. It needs a model that gives
    probabilities.

    --model may also name a late-interaction model, which has neither windows nor probabilities, or, as URL#MODEL, a
    language model behind an OpenAI-compatible address. That one is asked about each passage, from 0 to 10; QUERY, all
    passages and OPENAI_API_KEY are sent there. With --rerank-api scores are what the API says.

    In a pipe the columns are rank, score and text. A passage without text comes last and has no score, and neither have
    those that --model did not read, with --coarse or --budget-ms: they follow in the order before it. With --explain
    the sentence that answers best is marked on a terminal, a fourth column in a pipe, and "evidence" in JSON.

    JSON gives the other fields of a row back as they were, "metadata" too; without those named rank, position, score,
    probability, truncation, query_truncation, read or evidence, which are this command's own, printed or not.
    """
    from crossrank.cli import relevance, rows

    _check_files(query, files)
    query = rows.query(query)
    given = rows.read(files or ("-",), rows.checked(encoding), layout, fields=as_json)
    passages = [row.passage for row in given]
    if not passages:
        terminal.note("No passages were given, so there is nothing to rank.")
    if rerank_api is not None or (model is not None and is_address(model)):
        asked = _elsewhere(model, rerank_api)
        return _ask(asked, without_secrets(rerank_api or model), query, given, k, as_json)
    import crossrank

    reads = {"max_length": max_length, "window": window, "overlap": _overlap(window, overlap), "fold": fold}
    from crossrank.calibration import without_probabilities
    from crossrank.relevance import threshold_of
    from crossrank.scorers import load_scorer

    engine: dict[str, Any] = {"backend": backend, "device": device, "dtype": dtype, "threads": threads}
    scorer = _scorer(model, engine, reads)
    if probability and not isinstance(scorer, crossrank.CrossEncoder):
        raise InputError(without_probabilities(scorer.checkpoint.name, "--probability"))
    least = None if threshold is None else threshold_of(scorer, threshold)
    scorer = options.remembering(scorer, cache)
    read = None
    if budget_ms is None and not coarse:
        ranked = _ranked(scorer, query, [passage.scored_text for passage in passages], k)
    else:
        first = [options.remembering(load_scorer(name, **engine), cache) for name in coarse]
        ranked, read = budget.ranked([*first, scorer], query, passages, k, budget_ms)
    _warn_of_cuts(ranked.truncations, passages, scorer)
    if ranked.note:
        terminal.warn(f"{ranked.note}.")
    if least is not None and isinstance(scorer, crossrank.CrossEncoder):
        whole = ranked
        ranked, said = whole.above(scorer.probability(whole.scores), least, read)
        relevance.tell([said], len(ranked) == len(whole))
    evidence = _evidence(query, ranked, passages, scorer) if explain else None
    chances = None
    if isinstance(scorer, crossrank.CrossEncoder) and (probability or (as_json and scorer.calibrated)):
        chances = scorer.probability(ranked.scores).tolist()
    _print(ranked, chances, given, evidence, read, as_json)
    if isinstance(scorer, crossrank.CachedScorer):
        terminal.uses(scorer.uses)
    return Exit.OK


def _check_files(query: str, files: Sequence[str]) -> None:
    """Refuse a file that is missing."""
    for file in files:
        if file != "-" and not os.path.exists(file):
            swapped = ", and QUERY is the name of one: QUERY comes first" if os.path.isfile(query) else ""
            raise InputError(f"there is no file {click.format_filename(file)!r}{swapped}")


def _elsewhere(model: str | None, rerank_api: str | None) -> Counted:
    """The rerank API or else the language model behind an address.

    Raises:
        click.UsageError: there is a budget, or there are both.
        InputError: an option is given that only models on this machine have.
    """
    from crossrank.cli.counted import Counted, asked_api, check_budget

    made, kind = asked_api(rerank_api), "rerank API"
    if made is None:
        assert model is not None
        check_budget("a language model")
        made, kind = Counted(options.language_model(model)), "language model"
    shown = without_secrets(rerank_api or model)
    local = ("coarse", "probability", "threshold", "explain", *READS, "backend", "device", "dtype", "threads")
    if options.typed("cache"):
        raise InputError(
            f"{shown} is a {kind} behind an address, which may answer otherwise next time, so no score is "
            "kept: leave --cache out. In crossrank search, --cache keeps the scores of the cross-encoder before --llm"
        )
    if unknown := options.given(local):
        raise InputError(f"{shown} is a {kind} behind an address, which knows no {unknown}: leave it out")
    return made


def _ask(asked: Counted, shown: object, query: str, given: Sequence[Row], k: int | None, as_json: bool) -> Exit:
    """Print the order of a model behind an address."""
    from crossrank.ranked import Ranked
    from crossrank.scored import Scored

    scores = asked.score([(query, row.passage.scored_text) for row in given])
    if given:
        terminal.note(f"{shown}: {asked.note}.")
    _print(Ranked.of(Scored(scores, (), 0), k), None, given, None, None, as_json)
    return Exit.SOME_FAILED if asked.failed else Exit.OK


def _overlap(window: int, overlap: int) -> int:
    """As typed, or else in proportion to the window, as a short --max-length has it: a window must be longer.

    Raises:
        click.UsageError: what was typed is not.
    """
    if not options.typed("overlap"):
        return min(overlap, window // 4)
    if overlap >= window:
        raise click.UsageError(f"--overlap {overlap} must be less than --window {window}")
    return overlap


def _scorer(model: str | None, engine: dict[str, Any], reads: dict[str, Any]) -> PairScorer:
    """The model, which reads passages as `reads` says if it is a cross-encoder.

    Raises:
        InputError: it is a late-interaction model, and an option is given that only cross-encoders have.
    """
    import crossrank
    from crossrank.models import named

    found = named.read(model, default="small")
    if found.late is None:
        return crossrank.load(model, **engine, **reads)
    if given := options.given(READS):
        raise InputError(
            f"{found.name} reads a passage up to its own document length, without windows: leave {given} out"
        )
    return crossrank.load_late(model, **engine)


def _ranked(scorer: PairScorer, query: str, texts: list[str], k: int | None) -> Ranked:
    """The order of all passages, with a bar on a terminal."""
    with terminal.progress() as report:
        return scorer.rank(query, texts, k, progress=lambda done, total: report("reading", done, total))


def _evidence(query: str, ranked: Ranked, passages: Sequence[Passage], scorer: PairScorer) -> Found:
    from crossrank import evidence

    shown = [passages[position] for position in ranked.positions]
    return evidence.find(query, shown, scorer.score, known=ranked.scores.tolist())


def _warn_of_cuts(truncations: Sequence[Truncation], passages: Sequence[Passage], scorer: PairScorer) -> None:
    cut = [t for t in truncations if t.lost]
    for query in (t for t in cut if t.position < 0):
        terminal.warn(f"the query was cut: the model read its first {query.told}.")
    names = [f"{passages[t.position].id} ({t.told})" for t in sorted(cut, key=_position) if t.position >= 0]
    if names:
        terminal.warn(
            f"{terminal.count(len(names), 'passage was', 'passages were')} not read whole by {scorer.checkpoint.name}: "
            f"{terminal.list_of(names, 3)}. Split such texts, or let `crossrank index` do it."
        )


def _position(truncation: Truncation) -> int:
    return truncation.position


def _print(
    ranked: Ranked,
    chances: list[float] | None,
    given: Sequence[Row],
    evidence: Found | None,
    read: int | None,
    as_json: bool,
) -> None:
    passages = [row.passage for row in given]
    if as_json:
        _print_json(ranked, chances, given, evidence, read)
    elif terminal.on_terminal():
        _print_table(ranked, chances, passages, evidence)
    else:
        _print_lines(ranked, chances, passages, evidence)


def _print_json(
    ranked: Ranked,
    chances: list[float] | None,
    given: Sequence[Row],
    evidence: Found | None,
    read: int | None,
) -> None:
    truncations = {t.position: terminal.truncation_fields(t) for t in ranked.truncations}
    for row, (position, score) in enumerate(ranked):
        passage, finite = given[position].passage, terminal.finite(score)
        line: dict[str, Any] = {
            "rank": row + 1,
            "id": given[position].id,
            "position": position,
            "score": finite,
            "probability": chances[row] if chances is not None and finite is not None else None,
            "text": passage.text,
            "title": passage.title,
            "truncation": truncations.get(position),
        }
        if read is not None:
            line["read"] = row < read
        if evidence is not None:
            line["evidence"] = terminal.evidence_fields(evidence[row], passage.text)
        if -1 in truncations:
            line["query_truncation"] = truncations[-1]
        others = {key: value for key, value in given[position].fields.items() if key not in FIELDS}
        terminal.json_line({**line, **others})


def _print_lines(
    ranked: Ranked, chances: list[float] | None, passages: Sequence[Passage], evidence: Found | None
) -> None:
    for row, (position, score) in enumerate(ranked):
        finite = terminal.finite(score)
        shown = chances[row] if chances is not None and finite is not None else finite
        more = [] if evidence is None else [_sentence(evidence[row], passages[position])]
        terminal.tab_line(row + 1, shown, passages[position].scored_text, *more)


def _sentence(evidence: Evidence | None, passage: Passage) -> str | None:
    return None if evidence is None else passage.text[evidence.start : evidence.stop]


def _print_table(
    ranked: Ranked, chances: list[float] | None, passages: Sequence[Passage], evidence: Found | None
) -> None:
    if not len(ranked):
        return
    console = terminal.console()
    table = terminal.table(
        ("", {"justify": "right", "style": "dim", "no_wrap": True, "min_width": len(str(len(ranked)))}),
        ("probability" if chances else "score", {"justify": "right", "style": "cyan"}),
        ("passage", {"ratio": 1, "min_width": 8}),
    )
    for row, (position, score) in enumerate(ranked):
        finite = terminal.finite(score)
        value = "-" if finite is None else f"{chances[row]:.1%}" if chances else f"{finite:.2f}"
        table.add_row(
            str(row + 1),
            value,
            terminal.passage(passages[position], console.width, evidence=evidence[row] if evidence else None),
        )
    console.print(table)
