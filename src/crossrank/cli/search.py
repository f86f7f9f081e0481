"""`crossrank search`: one query over an index, or many, and on request what each step of the search did."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from crossrank.cli import budget as time_budget
from crossrank.cli import many, options, prompt, steps, terminal
from crossrank.cli.counted import asked_api, asked_model, exit_code
from crossrank.cli.exits import Exit

if TYPE_CHECKING:
    from crossrank.cascade import OnError
    from crossrank.cli.relevance import Chances
    from crossrank.evidence import Evidence
    from crossrank.pipeline import Answer, Pipeline

# Columns that a passage's text needs at least, beside which a probability is shown.
_TEXT = 48
# And columns of rank, score and a little text, beside which the steps of --explain are.
_LEAST = 20
# Options of what --no-rerank leaves out.
_READERS = ("model", "rerank_api", "coarse", "mix", "stop_early", "cache", "threshold")


@click.command(
    "search",
    short_help="Search an index for passages that answer a query.",
    epilog="""\b
Examples:
  crossrank search docs.index "how do I retry a failed upload?"
  crossrank search docs.index "retry policy" --filter "year>=2020" --filter "lang=en"
  crossrank search docs.index "retry policy" --per-document 1
  crossrank search docs.index "retry policy" --explain
  crossrank search docs.index "retry policy" --budget-ms 100
  crossrank search docs.index "retry policy" --coarse tiny --depth 500 --budget-ms 50
  crossrank search docs.index "retry policy" -k 3 --json | jq -r .text
  crossrank search docs.index "retry policy" --threshold model
  crossrank search docs.index "retry policy" --llm "http://localhost:8000/v1#qwen3" --llm-depth 5
  crossrank search docs.index "retry policy" --rerank-api "https://api.cohere.com/v2#rerank-v4.0-pro"
  crossrank search docs.index "retry policy" --context 2000 --threshold 0.05 > prompt.txt
  crossrank search docs.index --queries topics.tsv --to run.trec
""",
)
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.argument("query", required=False)
@click.option("--queries", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help='Search for all of these instead: lines of {"_id", "text"}, or of id, tab and text.  '
              "- is stdin.")  # fmt: skip
@click.option("--to", type=click.Path(dir_okay=False, path_type=Path), metavar="RUN",
              help="Where their rankings go: a TREC run of documents, each at its best passage. Its scores only state "
              "the order: those of what a stage read and of what it left do not compare.  - is stdout; pipes are "
              "written to.")  # fmt: skip
@click.option("-k", cls=options.Top, type=options.Count(min=1), metavar="N",
              help="Passages to print, or documents of a run.  [default: 10; 100 with --queries]")  # fmt: skip
@options.per_document
@click.option(
    "--depth", type=options.Count(min=1), metavar="N", default=100, show_default=True,
    help="Passages that BM25 and dense search each return, and that the (first) cross-encoder reads.",
)  # fmt: skip
@click.option(
    "--filter", "where", multiple=True, metavar="FIELD=VALUE",
    help="Only passages whose metadata hold this; =, !=, <, <=, > and >= compare, numbers with numbers, and text with "
    "text in its own order: date>=\"2024\". Also \"lang in (en, de)\", and \"tags has new\". Repeat it: all must hold.",
)  # fmt: skip
@options.model
@options.rerank_api
@click.option(
    "--coarse", type=options.ModelName(), multiple=True, metavar="MODEL",
    help="A cheaper cross-encoder that reads before --model, which then reads the best half of them, at most 50. "
    "Repeat it, cheapest first. With --budget-ms the plan chooses among all.",
)  # fmt: skip
@options.embedder
@click.option("--no-rerank", is_flag=True, help="Leave the order of the first stage: BM25 and dense search, fused.")
@click.option(
    "--fusion", type=click.Choice(["scores", "rrf"]), default="scores", show_default=True,
    help="How BM25 and dense search are joined: by their scores, less for short passages, or by ranks (reciprocal rank "
    "fusion).",
)  # fmt: skip
@click.option(
    "--mix", type=options.Number(0, 1, min_open=True), metavar="SHARE",
    help="Share of the cross-encoder in the final score; the rest is the first stage's. 1 trusts it alone.  "
    "[default: 0.4, or what a tuned model brings]",
)  # fmt: skip
@click.option(
    "--stop-early", is_flag=True,
    help="End the cross-encoder's reading when no passage that it has not read is likely to reach the first k. At the "
    "usual --mix and -k it reads about a third of the passages; with a -k near --depth it reads them all.",
)  # fmt: skip
@options.llm
@options.llm_depth
@options.llm_window
@time_budget.budget_ms
@time_budget.on_error
@click.option(
    "--context", "budget", type=options.Count(min=1), metavar="TOKENS",
    help="Print one text for a language model instead: the passages that fit so many tokens, as the model's own "
    "tokenizer counts, under numbered sources. -k passages are considered.",
)  # fmt: skip
@click.option(
    "--threshold", type=options.Threshold(), metavar="P",
    help="Leave out passages that are less probable to be relevant; with --context, print nothing when no passage "
    'has this probability. "model" takes the model\'s own threshold.',
)  # fmt: skip
@options.as_json
@click.option("--explain", is_flag=True, help="Show what each step gave and took, and the sentence that answers.")
@options.cache
@options.engine
def command(
    folder: Path,
    query: str | None,
    queries: Path | None,
    to: Path | None,
    k: int | None,
    per_document: int | None,
    depth: int,
    where: tuple[str, ...],
    model: str | None,
    rerank_api: str | None,
    coarse: tuple[str, ...],
    embedder: str | None,
    no_rerank: bool,
    fusion: Literal["scores", "rrf"],
    mix: float | None,
    stop_early: bool,
    llm: str | None,
    llm_depth: int,
    llm_window: int | None,
    budget_ms: float | None,
    on_error: OnError | None,
    budget: int | None,
    threshold: float | Literal["model"] | None,
    as_json: bool,
    explain: bool,
    cache: str | None,
    backend: str,
    device: str,
    dtype: str,
    threads: int | None,
) -> Exit:
    """Search the index in DIR for passages that answer QUERY, or for all queries of a file.

    BM25 and dense search each find candidates, their scores are fused, and a cross-encoder reads and reorders
    them. --model may also name a late-interaction model, whose token vectors an index can keep (crossrank index
    --late). In a pipe the columns are rank, score, document and text. With --json a passage also has "read", whether
    a reranker has read it, and "probability", null where the model is not calibrated. What was left out, such as
    for want of time, is said on stderr.

    A score is a mix of standardized scores of the steps (--mix), whose 0 is the mean of what was read, and no logit
    (but with --mix 1): it compares among the passages of one answer that were read. Those below keep the score of
    the first stage. For what is relevant use the probability, and --threshold.

    With --context the text goes to stdout, and what was left out of it to stderr; --json prints both as one object.

    With --explain, the ranks and scores of each step, what was cut, the times, and the sentence of each passage that
    the cross-encoder finds the best answer: marked on a terminal, in the last column in a pipe, "evidence" in JSON,
    where the last line is an object of its own, {"explain": ...}, with the times of the steps.
    """
    from crossrank.cascade import Stage
    from crossrank.cli import relevance, rows
    from crossrank.pipeline import open_pipeline
    from crossrank.relevance import check_stages

    if budget is not None and (no_rerank or explain):
        raise click.UsageError("--context goes with neither --no-rerank (whose tokens?) nor --explain")
    if no_rerank and (unused := options.given((*_READERS, *(() if llm else ("on_error",))))):
        raise click.UsageError(f"--no-rerank leaves out the cross-encoder that {unused} is for: leave out one of them")
    api, asked = asked_api(rerank_api, on_error), asked_model(llm, llm_window, on_error)
    alone = {"--context": budget, "--threshold": threshold is not None, "--json": as_json, "--explain": explain}
    # A run of many queries has all documents that were found: there is no top that could be settled.
    alone["--stop-early"] = stop_early
    many.check(query, queries, to, alone)
    many.check_per_document(queries, per_document)
    texts = {"": rows.query(query or "")} if queries is None else many.read(queries)
    typed = cache if options.typed("cache") else None
    began = time.perf_counter()
    pipeline = open_pipeline(
        folder,
        model if api is None else api,
        coarse=coarse,
        embedder=options.remote_embedder(embedder) or embedder,
        depth=depth,
        where=where,
        mix=mix,
        fusion=fusion,
        rerank=not no_rerank,
        backend=backend,
        device=device,
        dtype=dtype,
        threads=threads,
        on_error=on_error or "raise",
        cache=typed,
        stop_early=stop_early,
    )
    pipeline = _remembering(pipeline, None if typed else cache)
    check_stages(pipeline.stages, threshold, any_last=budget_ms is not None)
    if budget_ms is not None:
        pipeline = pipeline.within(budget_ms, memory=time_budget.memory(), on_error=on_error or "keep")
    opened = time.perf_counter() - began
    # Probabilities, evidence and tokens are those of models on this machine: a question a sentence would cost much.
    last = () if asked is None else (Stage(asked, llm_depth, name=asked.name),)
    whole = replace(pipeline, stages=(*pipeline.stages, *last))
    _warn_of_depth(k, depth * len(pipeline.retrievers))
    if to is not None:
        many.check_documents(folder, where)
        failed = many.write(whole, texts, to, k or 100)
        _tell_of_cache(pipeline)
        return exit_code(failed, api, asked)
    answer = whole.search(texts[""], k or 10, per_document=per_document, read_few=threshold is not None)
    if not answer.passages:
        terminal.note(f"Nothing was found{_why_nothing(answer, where)}.")
    relevance.tell(map(terminal.shown, answer.grouped), whole=False)
    code = exit_code(time_budget.warn_of(answer, explain), api, asked)
    if budget is not None:
        prompt.show(pipeline.context(answer, budget, threshold=threshold), as_json)
        _tell_of_cache(pipeline)
        return code
    answer, chances = relevance.kept(pipeline, answer, threshold)
    reasons = _reasons(pipeline, answer, api is not None) if explain else None
    if as_json:
        _print_json(answer, chances, reasons, opened)
    elif terminal.on_terminal():
        _print_table(answer, chances, reasons)
    else:
        _print_lines(answer, reasons)
    if reasons is not None and not as_json:
        _print_steps(answer, opened, reasons)
    _tell_of_cache(pipeline)
    return code


def _remembering(pipeline: Pipeline, cache: str | None) -> Pipeline:
    """The pipeline, with the file of the environment where a stage can use it."""
    kept = [replace(stage, scorer=options.remembering(stage.scorer, cache)) for stage in pipeline.stages]
    return replace(pipeline, stages=tuple(kept))


def _warn_of_depth(k: int | None, most: int) -> None:
    if k is not None and k > most:
        terminal.warn(f"-k {k:,} is more than the {most:,} passages that are found at most: raise --depth.")


def _why_nothing(answer: Answer, where: Sequence[str]) -> str:
    """What a filter has to do with it."""
    if answer.nothing:
        return f": {terminal.shown(answer.nothing, 200)}"
    return "; try without --filter" if where else ""


@dataclass(frozen=True)
class _Reasons:
    """Of each answer the sentence that answers best, and how long it took to find them."""

    evidence: Sequence[Evidence | None]
    seconds: float


def _reasons(pipeline: Pipeline, answer: Answer, remote: bool) -> _Reasons:
    began = time.perf_counter()
    if remote:
        terminal.note("No sentence is marked, because each would be sent to the rerank API.")
    none = remote or not pipeline.stages or answer.failed
    found = [None] * len(answer.passages) if none else pipeline.evidence(answer)
    return _Reasons(found, time.perf_counter() - began)


def _tell_of_cache(pipeline: Pipeline) -> None:
    from crossrank.scorecache import CachedScorer

    for stage in pipeline.stages:
        if isinstance(stage.scorer, CachedScorer):
            terminal.uses(stage.scorer.uses)


def _print_json(answer: Answer, chances: Chances, reasons: _Reasons | None, opened: float) -> None:
    for row, (passage, score) in enumerate(zip(answer.passages, answer.ranking.scores.tolist(), strict=True)):
        line: dict[str, Any] = {
            "rank": row + 1,
            "id": passage.id,
            "document": passage.document,
            "score": terminal.finite(score),
            "probability": None if terminal.finite(score) is None else chances[row],
            "read": any(passage.id in trace.scores for trace in answer.traces),
            "step": steps.source(answer, passage.id),
            "title": passage.title,
            "text": passage.text,
            "metadata": dict(passage.metadata),
        }
        if reasons is not None:
            line["steps"] = steps.of(answer, passage.id)
            line["evidence"] = terminal.evidence_fields(reasons.evidence[row], passage.text)
        terminal.json_line(line)
    if reasons is not None:
        told = [
            {
                "name": name,
                "seconds": trace.seconds,
                "passages": len(trace.scores) or len(trace.ranking),
                "truncations": [terminal.truncation_fields(t) for t in trace.truncations],
                "note": trace.note,
                "how": trace.how or None,
                "stopped": trace.stopped or None,
            }
            for name, trace in zip(steps.names(answer), answer.traces, strict=True)
        ]
        took = {"opening_seconds": opened, "seconds": answer.seconds, "evidence_seconds": reasons.seconds}
        left = {"left_out": dict(answer.left_out)} if answer.left_out else {}
        terminal.json_line({"explain": {**took, "budget_seconds": answer.budget, "steps": told, **left}})


def _print_lines(answer: Answer, reasons: _Reasons | None) -> None:
    for row, (passage, score) in enumerate(zip(answer.passages, answer.ranking.scores.tolist(), strict=True)):
        more: list[str | None] = []
        if reasons is not None:
            verdicts = zip(steps.names(answer), steps.verdicts(answer, passage.id), strict=True)
            more = [f"{name} {verdict}" for name, verdict in verdicts]
            found = reasons.evidence[row]
            more.append(None if found is None else passage.text[found.start : found.stop])
        terminal.tab_line(row + 1, terminal.finite(score), passage.document, passage.scored_text, *more)


def _print_table(answer: Answer, chances: Chances, reasons: _Reasons | None) -> None:
    if not answer.passages:
        return
    console = terminal.console()
    names = [] if reasons is None else steps.names(answer)
    if console.width < _LEAST + sum(3 + max(len("#100 -9.9"), len(Path(name).name)) for name in names):
        terminal.note("There is no room here for what each step gave; --json has it.")
        names = []
    # Beside the steps of --explain there is no room for it on a narrow terminal.
    told = any(chance is not None for chance in chances) and console.width >= _TEXT + 12 * (len(names) + 1)
    table = terminal.table(
        ("", {"justify": "right", "style": "dim", "no_wrap": True, "min_width": len(str(len(answer.passages)))}),
        ("score", {"justify": "right", "style": "cyan"}),
        *([("probability", {"justify": "right", "style": "cyan"})] if told else []),
        *((Path(name).name, {"justify": "right", "style": "dim", "no_wrap": True}) for name in names),
        ("passage", {"ratio": 1, "min_width": 8}),
    )
    for row, (passage, score) in enumerate(zip(answer.passages, answer.ranking.scores.tolist(), strict=True)):
        cells = [] if not names else steps.verdicts(answer, passage.id)
        if told:
            chance = chances[row]
            cells = ["-" if chance is None else f"{chance:.1%}", *cells]
        mark = None if reasons is None else reasons.evidence[row]
        finite = terminal.finite(score)
        table.add_row(
            str(row + 1), "-" if finite is None else f"{finite:.2f}", *cells,
            terminal.passage(passage, console.width - 12 * (len(names) + told), source=passage.document, evidence=mark),
        )  # fmt: skip
    console.print(table)


def _print_steps(answer: Answer, opened: float, reasons: _Reasons) -> None:
    texts = {passage.id: passage for passage in answer.passages}
    terminal.note("")
    terminal.note(f"{'opening':<12}{terminal.duration(opened):>9}  index and models, once")
    for number, (name, trace) in enumerate(zip(steps.names(answer), answer.traces, strict=True)):
        passages = terminal.count(len(trace.scores) or len(trace.ranking), "passage")
        joined = f": {terminal.shown(trace.how, 100)}" if trace.how else ""
        terminal.note(f"{Path(name).name:<12}{terminal.duration(trace.seconds):>9}  {passages}{joined}")
        for line in [*filter(None, [trace.note]), *steps.cuts(answer.traces, number, texts)]:
            terminal.note(f"{'':<23}{line}")
    due = "" if answer.budget is None else f", of {terminal.duration(answer.budget)}"
    terminal.note(f"{'query':<12}{terminal.duration(answer.seconds):>9}  all steps{due}")
    if any(reasons.evidence):
        passages = terminal.count(len(reasons.evidence), "passage")
        terminal.note(f"{'evidence':<12}{terminal.duration(reasons.seconds):>9}  {passages}, after the query")
