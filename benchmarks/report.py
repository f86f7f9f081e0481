"""Results for people (Markdown) and for programs (one object)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crossrank.evaluation import Interval, difference, difference_over_sets, mean, mean_over_sets
from crossrank.evaluation.significance import holm, randomization
from experiment import Result

_FUSED = ("bm25", "dense", "rrf", "fused", "cross-encoder", "mix")
_COMPARED = ("fused", "cross-encoder", "mix")


def summary(about: Mapping[str, Any], machine: Mapping[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    """Everything that was measured, as JSON holds it."""
    own = [result for result in results if not result.over]
    chance = _chance(own)
    found: dict[str, Any] = {
        "benchmark": "quality",
        **about,
        "machine": dict(machine),
        "sets": [_one(result, chance.get(result.set, {})) for result in results],
    }
    if own:
        found["mean"] = {
            "sets": len(own),
            "systems": {name: _numbers(mean_over_sets([_values(r, name) for r in own])) for name in _FUSED},
            "difference": {
                name: _numbers(difference_over_sets([(r.values[name], r.values["rrf"]) for r in own]))
                for name in _COMPARED
            },
            "sweep": {str(w): round(sum(_average(r.sweep[w]) for r in own) / len(own), 5) for w in own[0].sweep},
        }
    return found


def markdown(found: Mapping[str, Any], results: Sequence[Result], machine: str) -> str:
    """The tables of the README."""
    own = [result for result in results if not result.over]
    parts = [_fused_table(found, own)] if own else []
    if given := [result for result in results if result.over]:
        parts.append(_given_table(given))
    if any(result.sweep for result in results):
        parts.append(_sweep_table(found, results))
    parts.append(_latency_table(results))
    sampled = {r.set: r for r in results if len(r.values[r.base]) < r.judged}
    foot = (
        f"{found['measure']}, mean and 95 % confidence interval (bootstrap over queries, 10,000 resamples; Student's "
        "where under 30 changed). Differences are paired by query; bold ones exclude 0. p: paired randomization test, "
        f"corrected for these sets. Model {found['model']}, embedder {found['embedder']}, "
        f"depth {found['depth']}, mix weight {found['mix']}, pairs of {found['max_length']} tokens at most, backend "
        f"{found['backend']}. "
    )
    if found["passage_tokens"]:
        foot += f"Documents were split into passages of {found['passage_tokens']} tokens; their best passage counts."
    else:
        foot += "Each document is one passage."
    if sampled:
        names = ", ".join(f"{name} {len(r.values[r.base])} of {r.judged}" for name, r in sampled.items())
        foot += f" Queries were sampled (seed {found['seed']}): {names}."
    return "\n\n".join([*parts, foot, machine])


def row(result: Result) -> str:
    """One result in one line."""
    systems = ", ".join(f"{name} {_average(values):.4f}" for name, values in result.values.items())
    return f"{result.set}{' over ' + result.over if result.over else ''}: {systems}"


def _chance(own: Sequence[Result]) -> dict[str, dict[str, dict[str, float]]]:
    """By set and system: p of the difference to RRF, and corrected for the sets of this run (Holm)."""
    found: dict[str, dict[str, dict[str, float]]] = {result.set: {} for result in own}
    for name in _COMPARED:
        p = {result.set: randomization(result.values[name], result.values["rrf"]) for result in own}
        for set_, corrected in holm(p).items():
            found[set_][name] = {"p": round(p[set_], 5), "p_of_these_sets": round(corrected, 5)}
    return found


def _one(result: Result, chance: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Of a list that came with the set the differences are to the list itself, and have no p."""
    base = result.values[result.reference]
    return {
        "set": result.set,
        "over": result.over or result.base,
        "split": result.split,
        "queries": len(base),
        "judged_queries": result.judged,
        "documents": result.documents,
        "systems": {name: _numbers(mean(list(values.values()))) for name, values in result.values.items()},
        "difference": {
            name: _numbers(difference(result.values[name], base))
            | _movement(result.values[name], base)
            | ({} if result.over else dict(chance[name]))
            for name in _COMPARED
            if name in result.values
        },
        "recall_of_candidates": round(result.recall, 5),
        "latency": result.latency,
        "passages_cut_or_windowed": {"count": result.truncated[0], "of": result.truncated[1]},
        "sweep": {str(weight): round(_average(values), 5) for weight, values in result.sweep.items()},
    }


def _fused_table(found: Mapping[str, Any], results: Sequence[Result]) -> str:
    heads: tuple[str, ...] = ("queries", "BM25", "dense", "RRF", "fused scores", "cross-encoder", "mix")
    heads += ("fused scores − RRF", "cross-encoder − RRF", "mix − RRF", "p of the mix (Holm)", "recall of candidates")
    lines = [_cells("set", *heads), _cells("---", *["--:"] * len(heads))]
    for result in results:
        cells = [str(mean(list(result.values[name].values()))) for name in _FUSED]
        cells += [_signed(difference(result.values[name], result.values["rrf"])) for name in _COMPARED]
        p = next(one for one in found["sets"] if (one["set"], one["over"]) == (result.set, result.base))
        chance = f"{p['difference']['mix']['p_of_these_sets']:.4f}"
        lines.append(_cells(result.set, len(result.values["rrf"]), *cells, chance, f"{result.recall:.3f}"))
    total = found["mean"]
    cells = [str(_interval(total["systems"][name])) for name in _FUSED]
    cells += [_signed(_interval(total["difference"][name])) for name in _COMPARED]
    queries = total["systems"]["rrf"]["queries"]
    lines.append(
        _cells("**mean of sets**", queries, *cells, "", f"{sum(r.recall for r in results) / len(results):.3f}")
    )
    return "\n".join(lines)


def _given_table(results: Sequence[Result]) -> str:
    lines = [
        "| set | reranked | queries | as it came | cross-encoder | difference | mix |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        base = result.values["given"]
        before, after = (mean(list(result.values[name].values())) for name in ("given", "cross-encoder"))
        mixed = str(mean(list(result.values["mix"].values()))) if "mix" in result.values else "—"
        change = _signed(difference(result.values["cross-encoder"], base))
        lines.append(_cells(result.set, result.over, len(base), before, after, change, mixed))
    return "\n".join(lines)


def _sweep_table(found: Mapping[str, Any], results: Sequence[Result]) -> str:
    swept = [result for result in results if result.sweep]
    weights = list(swept[0].sweep)
    lines = [_cells("weight of the cross-encoder", *weights), _cells("---", *["--:"] * len(weights))]
    for result in swept:
        name = f"{result.set}, {result.over}" if result.over else result.set
        lines.append(_cells(name, *(f"{_average(result.sweep[weight]):.3f}" for weight in weights)))
    if "mean" in found:
        lines.append(_cells("**mean of sets** (own fusion)", *(f"{v:.4f}" for v in found["mean"]["sweep"].values())))
    return "\n".join(lines)


def _latency_table(results: Sequence[Result]) -> str:
    stages = list(dict.fromkeys(stage for result in results for stage in result.latency))
    lines = [_cells("ms a query: median (95th percentile)", *stages), _cells("---", *["--:"] * len(stages))]
    for result in (result for result in results if result.latency):
        name = f"{result.set}, {result.over}" if result.over else result.set
        times = (result.latency.get(stage) for stage in stages)
        # Lists whose pairs were known already have no time of their own; a few times are no figure.
        known = (t if t and t["lists"] >= 5 else None for t in times)
        lines.append(_cells(name, *(f"{t['median_ms']:.1f} ({t['p95_ms']:.1f})" if t else "—" for t in known)))
    return "\n".join(lines)


def _cells(*values: object) -> str:
    return "| " + " | ".join(map(str, values)) + " |"


def _signed(interval: Interval) -> str:
    text = f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
    return f"**{text}**" if interval.excludes_zero else text


def _movement(values: Mapping[str, float], base: Mapping[str, float]) -> dict[str, int]:
    better = sum(values[query] > base[query] + 1e-9 for query in base)
    worse = sum(values[query] < base[query] - 1e-9 for query in base)
    return {"better": better, "worse": worse, "same": len(base) - better - worse}


def _values(result: Result, name: str) -> list[float]:
    return list(result.values[name].values())


def _average(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def _numbers(interval: Interval) -> dict[str, float]:
    return {
        "mean": round(interval.mean, 5),
        "low": round(interval.low, 5),
        "high": round(interval.high, 5),
        "queries": interval.queries,
    }


def _interval(numbers: Mapping[str, float]) -> Interval:
    return Interval(numbers["mean"], numbers["low"], numbers["high"], int(numbers["queries"]))
