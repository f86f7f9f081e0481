"""`crossrank doctor`: what is installed, what would run and why, what is missing; with a model, whether it works."""

from __future__ import annotations

from typing import Any

import click

from crossrank.cli import machine, options, selftest, terminal
from crossrank.cli.exits import Exit
from crossrank.errors import CrossrankError


@click.command(
    "doctor",
    short_help="Report on this machine and install, and test a model.",
    epilog="""\b
Examples:
  crossrank doctor
  crossrank doctor small
  crossrank doctor cross-encoder/ms-marco-MiniLM-L-6-v2 --backend torch
  crossrank doctor --json > report.json
""",
)
@click.argument("model", required=False, type=options.ModelName(), envvar="CROSSRANK_MODEL")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@options.engine
@click.pass_context
def command(
    context: click.Context,
    model: str | None,
    as_json: bool,
    backend: str,
    device: str,
    dtype: str,
    threads: int | None,
) -> None:
    """Report on this machine and this install; with MODEL, load it and test it.

    MODEL may also come from CROSSRANK_MODEL, as for the other commands.

    The report names the processor and what runs on it, which extras are missing and how to get them, and the variables
    that keep the model hub off. It shows no tokens or passwords. The exit code is 1 when a test fails.
    """
    report: dict[str, Any] = dict(machine.facts())
    report["model"] = _model(model, (backend, device, dtype, threads))
    if as_json:
        terminal.json_line(report)
    else:
        _print(report)
    if report["model"]["problem"] is not None:
        context.exit(Exit.ERROR)


def _model(name: str | None, engine: options.Engine) -> dict[str, Any]:
    """What a model is and which backend runs it; with a name, also the outcome of its self test."""
    from crossrank import backends
    from crossrank.models import named

    found: dict[str, Any] = {"name": name or "small", "problem": None}
    try:
        read = named.read(name, default="small")
        found |= {
            "kind": read.kind,
            "architecture": read.architecture,
            "longest sequence": f"{read.max_length} tokens",
            "calibrated": read.calibration is not None,
        }
        found["why"] = backends.why(read, *engine[:3])
        if name is not None:
            found |= _tested(name, read.kind, engine)
    except CrossrankError as error:
        found["problem"] = str(error)
    return found


def _tested(name: str, kind: str, engine: options.Engine) -> dict[str, Any]:
    import crossrank
    from crossrank.scorers import load_scorer

    backend, device, dtype, threads = engine
    if kind != "bi-encoder":
        scorer = load_scorer(name, backend=backend, device=device, dtype=dtype, threads=threads)
        runs, checks = scorer.backend, selftest.of_scorer(scorer, dtype)
    else:
        embedder = crossrank.load_embedder(name, backend=backend, device=device, dtype=dtype, threads=threads)
        runs, checks = embedder.backend, selftest.of_embedder(embedder, dtype)
    failed = [check.name for check in checks if check.ok is False]
    size = getattr(runs, "weight_bytes", None)  # the native engine alone tells
    weights = {} if size is None else {"weights": f"{size / 2**20:.1f} MiB in memory"}
    return {
        "backend": runs.name,
        **weights,
        "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks],
        "problem": f"the self test failed: {', '.join(failed)}" if failed else None,
    }


def _print(report: dict[str, Any]) -> None:
    for section, entries in report.items():
        if section == "extras":
            _heading("extras")
            for name, extra in entries.items():
                _line(name, _state(extra), extra["installed"])
        elif entries:
            _heading(section)
            for name, value in entries.items():
                if name not in ("checks", "problem"):
                    _line(name, {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value)
    _print_outcome(report["model"])


def _state(extra: dict[str, Any]) -> str:
    return f"installed ({extra['for']})" if extra["installed"] else f"missing ({extra['for']}): {extra['cure']}"


def _print_outcome(model: dict[str, Any]) -> None:
    if "checks" in model:
        _heading("self test")
        for check in model["checks"]:
            _line(check["name"], check["detail"], check["ok"])
    if model["problem"] is not None:
        terminal.out("")
        _line("problem", model["problem"], False)


def _heading(name: str) -> None:
    terminal.out(terminal.styled(name, bold=True))


def _line(name: str, value: object, ok: bool | None = None) -> None:
    colour = {True: "green", False: "red", None: None}[ok]
    terminal.out(f"  {name:<26}{terminal.styled(str(value), fg=colour)}")
