"""Would int8 products give the same answers? Simulated, so that a kernel is only written for a scheme that does.

    python benchmarks/int8.py DATA_FOLDER --cache FOLDER [--schemes all up ...] [--queries 10] [--out FILE.json]

Weights have one scale for each output, inputs one for each token, found when they arrive, both symmetric over -127 to
127: what VNNI and AMX multiply exactly. The products named by the scheme see rounded numbers, the rest is float32. The
gate is same_answers.py's: nDCG@10 within 0.001 of float32's and Kendall's tau over 0.99 on every set. Needs the extras
search, eval and torch. A cache that same_answers.py or quality.py filled is shared.

all            every product of the layers
smooth         the same after SmoothQuant (Xiao et al. 2022, alpha 0.5), with ranges from 200 pairs of the first set
groups         the same as `all` with a scale for each 64 inputs of a token and of a weight
qkv, out, up, down     that product alone: queries, keys and values; after attention; into and out of the wide layer
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import machine

SCHEMES = ("all", "smooth", "groups", "qkv", "out", "up", "down")
# By the end of a layer's name in transformers' BERT.
PRODUCTS = {
    "qkv": ("self.query", "self.key", "self.value"),
    "out": ("attention.output.dense",),
    "up": ("intermediate.dense",),
    "down": ("output.dense",),
}
GROUP = 64
CALIBRATION = 200
BATCH = 32


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    machine.judged_options(parser, queries=10)
    parser.add_argument("--schemes", nargs="+", default=list(SCHEMES), choices=SCHEMES)
    parser.add_argument("--model", default="small")
    parser.add_argument("--depth", type=int, default=50)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    machine.limit_threads(options.threads)
    import crossrank
    import first_stage
    import sets
    from crossrank import checkpoint
    from crossrank.models import named
    from same_answers import compared, line

    embedder = crossrank.load_embedder(threads=options.threads)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.export(named.read(options.model, default="small"), Path(folder) / "model")
        scorer = Simulated(str(Path(folder) / "model"), options.threads)
    for name in sets.names(options.data, options.sets):
        judged = sets.read(options.data, name).sample(options.queries, options.seed)
        found = first_stage.search(judged, embedder, options.cache, options.depth, None, lambda _: None)
        run = {q: one.cut(options.depth) for q, one in found.runs["fused"].items()}
        passages = {i: p for one in run.values() for i, p in zip(one.ids, found.texts(one.ids), strict=True)}
        pairs = [(judged.queries[q], passages[i].scored_text) for q, one in run.items() for i in one.ids]
        if not scorer.largest:
            scorer.calibrate(pairs[:: max(1, len(pairs) // CALIBRATION)])
        exact = Kept(pairs, scorer.score(pairs))
        for scheme in options.schemes:
            with scorer.rounding(scheme):
                other = Kept(pairs, scorer.score(pairs))
            row = {"kind": scheme, "set": name, "over": "fusion", **compared(judged, run, passages, exact, other)}
            rows.append(row)
            print(line(row), flush=True)
    for scheme in options.schemes:
        own = [row for row in rows if row["kind"] == scheme]
        apart = max(abs(row[key]) for row in own for key in ("difference", "difference_mixed"))
        print(f"{scheme:<8} tau {min(row['tau'] for row in own):.4f} at least, nDCG@10 within {apart:.4f}, "
              f"{sum(row['passed'] for row in own)} of {len(own)} sets pass")  # fmt: skip
    if options.out:
        about = {"benchmark": "int8", **machine.describe(options.threads)}
        summary = {**about, "queries": options.queries, "depth": options.depth, "rows": rows}
        options.out.write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n", encoding="utf-8")


class Kept:
    """Scores that were computed, by pair."""

    def __init__(self, pairs: Sequence[tuple[str, str]], scores: Any) -> None:
        self._scores = dict(zip(pairs, scores, strict=True))

    def score(self, pairs: Sequence[tuple[str, str]]) -> Any:
        """Logits, (pairs,)."""
        import numpy as np

        return np.array([self._scores[pair] for pair in pairs])


class Simulated:
    """transformers' model in float32, whose products can be made to see rounded numbers."""

    def __init__(self, folder: str, threads: int) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        torch.set_num_threads(threads)
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
        self._model = model.eval()
        self._linear = {
            name: part
            for name, part in model.named_modules()
            if ".layer." in name and isinstance(part, torch.nn.Linear)
        }
        self.largest: dict[str, Any] = {}

    def score(self, pairs: Sequence[tuple[str, str]]) -> Any:
        """Logits, (pairs,)."""
        import numpy as np
        import torch

        order = sorted(range(len(pairs)), key=lambda at: len(pairs[at][0]) + len(pairs[at][1]))
        logits = np.empty(len(pairs))
        with torch.inference_mode():
            for begin in range(0, len(order), BATCH):
                part = order[begin : begin + BATCH]
                texts = [pairs[at][0] for at in part], [pairs[at][1] for at in part]
                rows = self._tokenizer(*texts, truncation=True, max_length=512, padding=True, return_tensors="pt")
                logits[part] = self._model(**rows).logits[:, 0].numpy()
        return logits

    def calibrate(self, pairs: Sequence[tuple[str, str]]) -> None:
        """The largest absolute input of every product, by column."""
        import torch

        def seen(name: str) -> Callable[..., None]:
            def hook(_: Any, given: tuple[Any, ...]) -> None:
                high = given[0].flatten(0, -2).abs().amax(0)
                self.largest[name] = torch.maximum(self.largest.get(name, high), high)

            return hook

        hooks = [part.register_forward_pre_hook(seen(name)) for name, part in self._linear.items()]
        self.score(pairs)
        for hook in hooks:
            hook.remove()

    @contextmanager
    def rounding(self, scheme: str) -> Iterator[None]:
        """While it is open, the products of the scheme see rounded numbers."""
        kept, hooks = {}, []
        for name, part in self._linear.items():
            if scheme in PRODUCTS and product(name) != scheme:
                continue
            weight = kept[name] = part.weight.data
            factors = None
            if scheme == "smooth":
                high, own = self.largest[name].clamp(min=1e-5), weight.abs().amax(0).clamp(min=1e-5)
                factors = (high / own).sqrt()
            group = GROUP if scheme == "groups" else weight.shape[1]
            # What is divided before rounding is multiplied into the weights, and both cancel in the product.
            part.weight.data = rounded(weight if factors is None else weight * factors, group)
            hooks.append(part.register_forward_pre_hook(inputs(factors, group)))
        yield
        for hook in hooks:
            hook.remove()
        for name, weight in kept.items():
            self._linear[name].weight.data = weight


def product(name: str) -> str:
    """Which of PRODUCTS a layer's name is: the longest end that fits."""
    fits = [(end, kind) for kind, ends in PRODUCTS.items() for end in ends if name.endswith(end)]
    return max(fits, key=lambda fit: len(fit[0]))[1]


def inputs(factors: Any, group: int) -> Callable[..., tuple[Any, ...]]:
    """A hook that rounds what a product is given."""

    def hook(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (rounded(given[0] if factors is None else given[0] / factors, group), *given[1:])

    return hook


def rounded(values: Any, group: int) -> Any:
    """Rounded to 255 steps between plus and minus the largest of each `group` numbers of the last axis."""
    parts = values.unflatten(-1, (-1, group))
    scale = parts.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
    return ((parts / scale).round() * scale).flatten(-2)


if __name__ == "__main__":
    main()
