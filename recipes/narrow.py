"""Fewer units in the feed-forward parts of a BERT: those that the others can be told from, and weights to tell them.

A layer of 1,536 units spends two thirds of its operations on them. Which stay is chosen one after the other, each time
the unit that takes most from the squared error of the layer's output (column subset selection, greedy; Farahat et al.
2013), and the output weights of those that stay are the least-squares fit to what all of them gave (as the
reconstruction of He et al. 2017, "Channel pruning"). What is lost then is for training to mend; LOG.md tells how much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import BertForSequenceClassification

import start
from train_reranker import padded_pairs

# Pairs that are read together.
BATCH = 64
# Added to the diagonal of the units' covariance, relative to its mean.
RIDGE = 1e-4

Pair = tuple[list[int], int]


def units(model: BertForSequenceClassification, most: int, pairs: Sequence[Pair]) -> None:
    """Leave `most` units in each layer, chosen and fitted on some pairs; layers below are narrowed first.

    Args:
        model: changed in place.
        most: as many as there are, or fewer.
        pairs: token ids and the length of the query side, as train_reranker.pair_ids gives them. A few thousand.
    """
    layers = model.bert.encoder.layer
    for place, layer in enumerate(layers):
        # What is above has no say in this layer's units; to read it takes time.
        model.bert.encoder.layer = layers[: place + 1]
        # Of the last layer only what becomes of [CLS] is read.
        mean, covariance = moments(model, layer, pairs, first_only=place == len(layers) - 1)
        inner, outer = layer.intermediate.dense, layer.output.dense
        weight = outer.weight.detach().double()
        kept = chosen(weight, covariance, most)
        damped = covariance[kept][:, kept] + RIDGE * covariance.diagonal().mean() * torch.eye(len(kept)).double()
        fitted = torch.linalg.solve(damped, covariance[kept] @ weight.T).T
        bias = outer.bias.detach().double() + weight @ mean - fitted @ mean[kept]
        layer.intermediate.dense = linear(inner.weight[kept], inner.bias[kept])
        layer.output.dense = linear(fitted, bias)
    model.bert.encoder.layer = layers
    model.config.intermediate_size = min(most, model.config.intermediate_size)


def linear(weight: torch.Tensor, bias: torch.Tensor) -> torch.nn.Linear:
    """A layer with these weights, in float32."""
    made = torch.nn.Linear(weight.shape[1], weight.shape[0])
    made.weight.data.copy_(weight.detach())
    made.bias.data.copy_(bias.detach())
    return made


def chosen(weight: torch.Tensor, covariance: torch.Tensor, most: int) -> list[int]:
    """The units that stay, ascending, given output weights (hidden, inner) and the units' covariance."""
    left = covariance.clone()
    # What the output and each unit still have in common, (hidden, inner).
    common = weight @ covariance
    floor = 1e-9 * covariance.diagonal().max()
    kept: list[int] = []
    for _ in range(min(most, len(covariance))):
        own = left.diagonal()
        gain = common.square().sum(0) / own.clamp_min(floor)
        gain[own < floor] = 0.0
        gain[kept] = -1.0
        best = int(gain.argmax())
        kept.append(best)
        if own[best] < floor:
            continue
        row = left[best] / own[best]
        common -= common[:, best][:, None] * row
        left -= left[:, best][:, None].clone() * row
    return sorted(kept)


def moments(
    model: BertForSequenceClassification, layer: torch.nn.Module, pairs: Sequence[Pair], first_only: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of a layer's units over the tokens of some pairs, or over their first tokens."""
    size = layer.intermediate.dense.out_features
    total, square, count = torch.zeros(size).double(), torch.zeros(size, size).double(), 0
    for seen in activations(model, layer, pairs, first_only):
        total += seen.sum(0).double()
        square += (seen.T @ seen).double()
        count += len(seen)
    mean = total / count
    return mean, square / count - mean[:, None] * mean


def activations(
    model: BertForSequenceClassification, layer: torch.nn.Module, pairs: Sequence[Pair], first_only: bool
) -> Iterator[torch.Tensor]:
    """A layer's units for each batch of pairs, (tokens, inner), without padding."""
    seen: list[torch.Tensor] = []
    hook = layer.intermediate.register_forward_hook(lambda module, given, out: seen.append(out))
    try:
        for begin in range(0, len(pairs), BATCH):
            given = padded_pairs(pairs[begin : begin + BATCH])
            with torch.inference_mode(), start.autocast():
                model(**given)
            states = seen.pop().float()
            yield states[:, 0] if first_only else states[given["attention_mask"].bool()]
    finally:
        hook.remove()
