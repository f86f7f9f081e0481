"""README.md and crossrank.json of a tuned folder: what it was made from, how, and what it was worth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crossrank.checkpoint import Checkpoint
from crossrank.training.outcome import Outcome
from crossrank.training.settings import Settings
from crossrank.unicode import valid_text


def facts(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON: for `--json` and for crossrank.json."""
    verdict = outcome.verdict
    intervals = {
        name: asdict(value) for name in ("gain", "base", "tuned", "expected") if (value := getattr(verdict, name))
    }
    return {
        "kept": verdict.kept,
        "reasons": list(verdict.reasons),
        "folder": None if outcome.folder is None else str(outcome.folder),
        "refused": None if outcome.refused is None else str(outcome.refused),
        "held_out": intervals,
        "general": [{**asdict(found), "loss": found.loss} for found in verdict.general],
        "findings": [asdict(finding) for finding in outcome.findings],
        "counts": dict(outcome.counts or {}),
        "plan": None if outcome.plan is None else asdict(outcome.plan),
        "epoch": None if outcome.point is None else outcome.point[0],
        "share": None if outcome.point is None else outcome.point[1],
        "in_search": None if outcome.in_search is None else asdict(outcome.in_search),
        "calibration": None if outcome.calibration is None else asdict(outcome.calibration),
        "uncalibrated": outcome.uncalibrated,
        "resumed": outcome.resumed,
        "seconds": round(outcome.seconds, 1),
    }


def write(folder: Path, base: Checkpoint, source: str, settings: Settings, outcome: Outcome, length: int) -> None:
    """Write both files into the tuned folder; a calibration of the base model is removed.

    Names of files and what was found in rows may hold halves of surrogate pairs; they are written as U+FFFD.
    """
    told = facts(outcome)
    stated: dict[str, Any] = {"tuned_from": base.name, "base_fingerprint": base.fingerprint, "tuning": told}
    told.pop("folder")
    told.pop("refused")
    told.pop("seconds")
    if outcome.calibration is not None:
        stated["calibration"] = asdict(outcome.calibration)
        how = _ranked(outcome.counts or {})
        stated["calibrated_on"] = f"held-out queries of {source}, {how}, by models that never saw them"
    if outcome.in_search is not None:
        stated["mix"] = outcome.in_search.mix
    text = json.dumps(stated, indent=2, ensure_ascii=False) + "\n"
    card = _card(base, source, settings, outcome, length)
    for name, content in (("crossrank.json", text), ("README.md", card)):
        (folder / name).write_text(valid_text(content), encoding="utf-8")


def _card(base: Checkpoint, source: str, settings: Settings, outcome: Outcome, length: int) -> str:
    verdict, plan, counts = outcome.verdict, outcome.plan, outcome.counts or {}
    assert plan is not None
    assert outcome.point is not None
    epoch, share = outcome.point
    general = "\n".join(
        f"| {one.name} | {one.queries} | {one.base:.3f} | {one.tuned:.3f} | {-one.loss:+.3f} | {one.agreement:.2f} |"
        for one in verdict.general
    )
    findings = "\n".join(f"- {finding.message}" for finding in outcome.findings) or "- nothing"
    calibration = (
        f"probability = sigmoid({outcome.calibration.slope:.4f} x logit {outcome.calibration.intercept:+.4f}), fitted "
        f"on held-out queries {_ranked(counts)}: as likely as in such a list"
        if outcome.calibration
        else f"none ({outcome.uncalibrated}); `crossrank.calibration.Platt.fit` makes one from judged pairs"
    )
    measured = (
        "The model in this folder is the mean of those trainings: it is what was measured."
        if counts.get("folds") == 1
        else "The model in this folder is the mean of those trainings, so it was not itself measured on them."
    )
    refused = "" if verdict.kept == "tuned" else f"**Refused by the gate**: {'; '.join(verdict.reasons)}.\n\n"
    return f"""# A cross-encoder tuned by crossrank

{refused}Reads query and passage together and gives one logit; larger is more relevant. An ordinary checkpoint:
crossrank, transformers and sentence-transformers load this folder. Tuned from `{base.name}`, whose licence and limits
hold here.

## What it is worth

nDCG@10 on held-out queries, with the interval of the gate (paired bootstrap over queries, confidence
{settings.confidence:g} to each side). Each query was ranked by trainings that never saw it; epoch and share were chosen
on the others. {measured} Whether
a difference may be chance is decided on expected nDCG@10, where each score carries noise: {verdict.expected}.

| | queries | base | tuned | difference |
| --- | --: | --: | --: | --: |
| {source} | {counts.get("measured", 0)} | {verdict.base} | {verdict.tuned} | {verdict.gain} |

General questions; at most {settings.most_loss:g} may be lost:

| | queries | base | tuned | difference | agreement of orders (Kendall) |
| --- | --: | --: | --: | --: | --: |
{general}

{_in_search(outcome)}
- **Probabilities**: {calibration}.

## How it was made

- **Data**: {source}: {counts.get("queries", 0)} queries, {counts.get("pairs", 0)} judged pairs,
  {counts.get("mined", 0)} mined documents, {counts.get("doubtful", 0)} of them likely relevant and not trained on.
  Held-out queries are ranked {_ranked(counts)}.
- **Training**: loss {plan.loss}; {plan.repeats} x {counts.get("folds", 1)} trainings of {plan.epochs} epochs, at most
  {plan.queries} queries an epoch, {settings.candidates} documents a query, {settings.queries_a_step} queries a step;
  AdamW, rate {plan.rate:g}; the upper {plan.layers} layers and the head; {length} tokens; weight
  {settings.remember:g} on staying near the base model's scores; seed {settings.seed}.
- **Weights**: mean of all trainings after epoch {epoch}; share {share:g}, the rest is the base model's.

## What was found in the data

{findings}
"""


def _ranked(counts: Mapping[str, int]) -> str:
    """With what held-out queries were ranked."""
    if depth := counts.get("candidates", 0):
        return f"with what the index finds for them, {depth} candidates at most"
    return f"with their judged and mined documents and {counts.get('distractors', 0)} more"


def _in_search(outcome: Outcome) -> str:
    """What a reader must know of the model in a search."""
    found = outcome.in_search
    if found is None:
        return (
            "- **In a search** its score is mixed with that of the first stage, which this table leaves out: it may "
            "deserve another\n  share than an untuned model. With `--index` it is chosen; "
            "`crossrank eval --mix 0.4,0.8,1` tells."
        )
    rows = "\n".join(
        f"| {mix:g} | {base:.3f} | {tuned:.3f} |"
        for mix, base, tuned in zip(found.mixes, found.base, found.tuned, strict=True)
    )
    return f"""- **In a search** its score is mixed with that of the first stage. The table above is of held-out queries
  as the index answers them, and of the mean over the shares below. A share of {found.mix:g} suits the model: it is
  in crossrank.json as `mix`, and searches take it. By share, of the epoch that was chosen on these queries:

| share | base | tuned |
| --- | --: | --: |
{rows}
"""
