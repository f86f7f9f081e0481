"""How much arithmetic a forward pass is: what `crossrank bench` divides by time and compares with the peak."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossrank.backends.reference.modernbert import layer_kinds

GATED = ("modernbert", "gte")


def operations(config: Mapping[str, Any], architecture: str, labels: int, lengths: NDArray[np.int64]) -> int:
    """Floating-point operations in the matrix products of one forward pass to logits; a multiply-add counts two.

    With hidden size h, inner size i and a sequence of n tokens, a layer takes

        8 h^2 n       query, key, value and output of every token
        4 h i n       up and down (6 h i n where the inner layer is gated)
        4 h s         attention, s the pairs of tokens that see each other: n^2, or fewer with a window

    The last layer is counted as it must be computed and not as it usually is: keys and values of every token, the rest
    of one row only, unless the head averages all tokens. The head adds 2 h^2 + 2 h labels. Embeddings, norms, softmax
    and activations are no matrix products and are not counted, so the share of the peak is on the low side.

    Args:
        config: the checkpoint's config.json.
        architecture: of the checkpoint; "modernbert" and "gte" are gated, and the first may attend in a window.
        labels: outputs of the head.
        lengths: tokens of each sequence, shape (n,).

    >>> config = {"hidden_size": 2, "intermediate_size": 8, "num_hidden_layers": 1}
    >>> operations(config, "bert", 1, np.array([3]))
    164
    """
    h, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    kinds = (
        layer_kinds(config) if architecture == "modernbert" else ["full_attention"] * int(config["num_hidden_layers"])
    )
    products = (6 if architecture in GATED else 4) * h * inner
    n = np.asarray(lengths, dtype=np.int64)
    total, count = int(n.sum()), len(n)
    window = int(config.get("local_attention", 128)) // 2
    last_row_only = config.get("classifier_pooling", "cls") != "mean"
    found = 0
    for number, kind in enumerate(kinds):
        near = window if kind == "sliding_attention" else None
        if number < len(kinds) - 1 or not last_row_only:
            found += (8 * h * h + products) * total + 4 * h * _pairs(n, near)
        else:
            seen = n if near is None else np.minimum(n, near + 1)
            found += 4 * h * h * total + (4 * h * h + products) * count + 4 * h * int(seen.sum())
    return found + (2 * h * h + 2 * h * labels) * count


def _pairs(n: NDArray[np.int64], window: int | None) -> int:
    """Pairs of tokens that see each other, the token itself included."""
    if window is None:
        return int((n * n).sum())
    # Tokens before each token, at most `window` of them; as many come after.
    reach = np.minimum(n - 1, window)
    before = reach * (reach + 1) // 2 + (n - 1 - reach) * window
    return int((2 * before + n).sum())
