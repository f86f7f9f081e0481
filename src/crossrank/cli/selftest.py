"""The self test of `crossrank doctor MODEL`: does the model compute what it should, on this machine, right now?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crossrank.embedder import TextEmbedder
    from crossrank.scorers import PairScorer

QUERY = "What is the capital of France?"
# Lengths differ on purpose: a padding fault shows only in a batch of unequal rows.
PASSAGES = (
    "Paris is the capital of France.",
    "Bread.",
    "The Danube rises in the Black Forest and flows through ten countries before it reaches the Black Sea. " * 6,
    "Tea is made from the leaves of a shrub.",
)
# Float32 sums in another order differ by about 1e-5; bfloat16 keeps 8 bits.
CLOSE = 1e-3
CLOSE_HALF = 0.1


@dataclass(frozen=True, slots=True)
class Check:
    """One question of the self test.

    Attributes:
        name: what is asked.
        ok: the answer; None where a no is only a hint.
        detail: what was seen.
    """

    name: str
    ok: bool | None
    detail: str


def of_scorer(scorer: PairScorer, dtype: str) -> list[Check]:
    """Finite scores, alone equals batch, and an answer scored above what is no answer."""
    import numpy as np

    pairs = [(QUERY, passage) for passage in PASSAGES]
    together = scorer.score(pairs)
    began = time.perf_counter()
    alone = np.concatenate([scorer.score([pair]) for pair in pairs])
    seconds = (time.perf_counter() - began) / len(pairs)
    first = int(together.argmax())
    return [
        _finite("scores are finite", together),
        _equal(together, alone, dtype),
        Check(
            "the answer comes first",
            True if first == 0 else None,
            "yes" if first == 0 else f"no: {PASSAGES[first][:40]!r} does, so this model may not rank question answers",
        ),
        Check("speed", True, f"{seconds * 1000:.1f} ms a pair, one at a time"),
    ]


def of_embedder(embedder: TextEmbedder, dtype: str) -> list[Check]:
    """Finite unit vectors, alone equals batch, and an answer nearer than what is no answer."""
    import numpy as np

    together = embedder.embed([QUERY, *PASSAGES])
    alone = np.concatenate([embedder.embed([text]) for text in (QUERY, *PASSAGES)])
    norms = np.linalg.norm(together, axis=1)
    nearest = int((together[1:] @ together[0]).argmax())
    return [
        _finite("vectors are finite", together),
        Check(
            "vectors have length 1", bool(np.allclose(norms, 1, atol=1e-3)), f"{norms.min():.3f} to {norms.max():.3f}"
        ),
        _equal(together, alone, dtype),
        Check("the answer is nearest", True if nearest == 0 else None, "yes" if nearest == 0 else "no"),
    ]


def _finite(name: str, values: NDArray[np.float32]) -> Check:
    import numpy as np

    bad = int((~np.isfinite(values)).sum())
    return Check(name, bad == 0, "yes" if bad == 0 else f"{bad} of {values.size} are not: load it with --dtype float32")


def _equal(together: NDArray[np.float32], alone: NDArray[np.float32], dtype: str) -> Check:
    import numpy as np

    apart = float(np.abs(together - alone).max())
    limit = CLOSE if dtype in ("auto", "float32") else CLOSE_HALF
    # Written so that NaN fails.
    return Check("alone equals in a batch", bool(apart <= limit), f"largest difference {apart:.1e}, {limit:g} allowed")
