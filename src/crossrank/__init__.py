"""crossrank decides which of the retrieved texts answer the question.

    >>> import crossrank
    >>> scorer = crossrank.load()
    >>> scorer.rank("capital of France?", ["Bread needs yeast.", "Paris is the capital of France."]).positions
    (1, 0)

Names resolve on first use, so that importing crossrank loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossrank.answer import Answer
    from crossrank.calibration import Platt
    from crossrank.cascade import Stage, rerank
    from crossrank.context import Context
    from crossrank.crossencoder import CrossEncoder
    from crossrank.embedder import TextEmbedder, load_embedder
    from crossrank.errors import CrossrankError
    from crossrank.fusion import rrf
    from crossrank.lateinteraction import LateInteraction, load_late
    from crossrank.pipeline import Pipeline, open_pipeline
    from crossrank.ranked import Ranked
    from crossrank.scorecache import CachedScorer
    from crossrank.scorers import load
    from crossrank.types import Passage, Place, Ranking, Tokens

__version__ = "0.1.0"

_HOME = {
    "Answer": "answer",
    "CachedScorer": "scorecache",
    "Context": "context",
    "CrossEncoder": "crossencoder",
    "CrossrankError": "errors",
    "LateInteraction": "lateinteraction",
    "Passage": "types",
    "Place": "types",
    "Pipeline": "pipeline",
    "Platt": "calibration",
    "Ranked": "ranked",
    "Ranking": "types",
    "Stage": "cascade",
    "TextEmbedder": "embedder",
    "Tokens": "types",
    "load": "scorers",
    "load_embedder": "embedder",
    "load_late": "lateinteraction",
    "open_pipeline": "pipeline",
    "rerank": "cascade",
    "rrf": "fusion",
}

__all__ = [
    "Answer",
    "CachedScorer",
    "Context",
    "CrossEncoder",
    "CrossrankError",
    "LateInteraction",
    "Passage",
    "Pipeline",
    "Place",
    "Platt",
    "Ranked",
    "Ranking",
    "Stage",
    "TextEmbedder",
    "Tokens",
    "__version__",
    "load",
    "load_embedder",
    "load_late",
    "open_pipeline",
    "rerank",
    "rrf",
]


if not TYPE_CHECKING:  # a type checker would take any name for one that is there

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'crossrank' has no attribute {name!r}")
        value = getattr(import_module(f"crossrank.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
