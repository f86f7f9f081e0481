"""Everything that one evaluation found, and the same as JSON holds it. Needs the extra `eval`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from crossrank.evaluation.bootstrap import FEW_CHANGED, Interval
from crossrank.evaluation.candidates import Reading, Texts
from crossrank.evaluation.comparison import MEASURES, Comparison, Contrast, Latency, Standing, compare
from crossrank.evaluation.moves import Moves, moves
from crossrank.evaluation.reliability import Reliability, reliability
from crossrank.evaluation.systems import Cuts, Owners, System
from crossrank.evaluation.verdict import Verdict, contenders, verdict
from crossrank.evidence import Scores
from crossrank.types import Qrels


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What an evaluation found.

    Attributes:
        about: what the figures depend on, for people and programs: set, models, depth, backend.
        comparison: all systems on all queries.
        verdict: in plain words.
        moves: of the headline's system first, then of every other reranker.
        calibration: of the models that give probabilities.
        queries: text by id; may be empty.
        notes: what a reader has to know besides, a sentence each.
    """

    about: Mapping[str, Any]
    comparison: Comparison
    verdict: Verdict
    moves: tuple[Moves, ...]
    calibration: tuple[Reliability, ...]
    queries: Mapping[str, str]
    notes: tuple[str, ...]


def assess(
    systems: Sequence[System],
    qrels: Qrels,
    queries: Mapping[str, str],
    about: Mapping[str, Any],
    *,
    measures: Sequence[str] = MEASURES,
    baseline: str = "",
    readings: Sequence[Reading] = (),
    scorers: Mapping[str, Scores] | None = None,
    owners: Owners | None = None,
    texts: Texts | None = None,
    least: int = 1,
    most: int = 5,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> Outcome:
    """Compare the systems and say what that means.

    Args:
        systems: with rankings of judged ids.
        qrels: grades by query and judged id.
        queries: text by id; may be empty where only runs are known.
        about: see `Outcome`.
        measures: ir-measures names, the main one first.
        baseline: name of a system; the first when empty.
        readings: what cross-encoders scored, for calibration.
        scorers: what scores, by `System.model`, to mark the sentence of a passage that answers; none is marked without.
        owners: judged ids of passages.
        texts: passages by id; None where none are known.
        least: least grade that counts as relevant in calibration.
        most: losses and gains to show of each system.
        seed: of the bootstrap and of the randomization test.
        notes: see `Outcome`.

    Raises:
        InputError: as `compare`.
    """
    comparison = compare(qrels, systems, measures, baseline, seed)
    said = verdict(comparison)
    tried = sorted(contenders(comparison), key=lambda standing: standing.system.name != said.system)
    known = (reliability(reading, qrels, owners or Owners(), least) for reading in readings)
    return Outcome(
        about,
        comparison,
        said,
        tuple(
            moves(comparison, standing, queries, qrels, texts, most, (scorers or {}).get(standing.system.model))
            for standing in tried
        ),
        tuple(found for found in known if found is not None),
        queries,
        tuple(notes),
    )


def record(outcome: Outcome) -> dict[str, Any]:
    """The outcome as one JSON object."""
    compared, said = outcome.comparison, outcome.verdict
    values = {s.system.name: s.values[compared.main] for s in compared.standings}
    return {
        "about": dict(outcome.about),
        "verdict": asdict(said),
        "measures": list(compared.measures),
        "baseline": compared.baseline,
        "systems": [_standing(standing) for standing in compared.standings],
        "calibration": [asdict(found) for found in outcome.calibration],
        "moves": [asdict(moved) for moved in outcome.moves],
        "queries": [
            {
                "id": query,
                "text": outcome.queries.get(query),
                compared.main: {name: round(found[query], 6) for name, found in values.items()},
            }
            for query in compared.standings[0].values[compared.main]
        ],
        "notes": list(outcome.notes),
    }


def evaluation_foot(compared: Comparison) -> str:
    """How the figures of an evaluation were made."""
    count = len(compared.standings) - 1
    return (
        f"Means over {compared.queries} queries with 95 % bootstrap intervals (10,000 resamples); differences are "
        f"paired by query, with Student's intervals where under {FEW_CHANGED} queries changed. p: two-sided paired "
        f"randomization test, Holm's correction for {count} {'comparison' if count == 1 else 'comparisons'} a measure. "
        "The measures are trec_eval's; a query without an answer counts as 0."
    )


def cut_lines(standings: Iterable[Standing]) -> list[str]:
    """What was not read in one piece, a sentence for each model or retriever that cut something."""
    seen: dict[str, Cuts] = {s.system.model or s.system.name: s.system.cuts for s in standings}
    said = []
    for name, cuts in seen.items():
        found = [
            f"{cuts.windowed:,} of {cuts.pairs:,} passages in windows" if cuts.windowed else "",
            f"{cuts.lost:,} of {cuts.pairs:,} passages not to their end" if cuts.lost else "",
            f"{cuts.queries:,} {'query' if cuts.queries == 1 else 'queries'} not to the end" if cuts.queries else "",
        ]
        if any(found):
            said.append(f"{name} read {', '.join(filter(None, found))}.")
        elif cuts.pairs and cuts.known:
            said.append(f"{name} read all of {cuts.pairs:,} passages in one piece.")
    return said


def interval_fields(interval: Interval) -> dict[str, float]:
    """Mean and ends, rounded as far as they mean anything."""
    return {"mean": round(interval.mean, 6), "low": round(interval.low, 6), "high": round(interval.high, 6)}


def latency_fields(latency: Latency | None) -> dict[str, float] | None:
    """Milliseconds; None when nothing was timed."""
    if latency is None:
        return None
    ms = {"median": round(latency.median * 1e3, 3), "p95": round(latency.p95 * 1e3, 3)}
    return {**ms, "queries": latency.queries}


def _standing(standing: Standing) -> dict[str, Any]:
    system = standing.system
    return {
        "name": system.name,
        "kind": system.kind,
        "model": system.model or None,
        "weight": system.weight or None,
        "values": {measure: interval_fields(found) for measure, found in standing.means.items()},
        "difference": {measure: _contrast(found) for measure, found in standing.contrasts.items()},
        "candidates": {"recall": round(standing.recall, 6), "ceiling": dict(standing.ceiling)}
        if standing.recall is not None
        else None,
        "latency_ms": {"step": latency_fields(standing.step), "query": latency_fields(standing.whole)},
        "cuts": asdict(system.cuts),
        "notes": list(system.notes),
    }


def _contrast(contrast: Contrast) -> dict[str, Any]:
    return {
        **interval_fields(contrast.difference),
        "p": contrast.p,
        "p_corrected": contrast.corrected,
        "better": list(contrast.better),
        "worse": list(contrast.worse),
        "same": contrast.same,
    }
