"""Read a model folder once: config, weights, tokenizer, head, maximum length, score space.

`read` takes a folder, a `.safetensors` file or a hub name and gives a `Checkpoint`; `export` writes one back as an
ordinary folder that transformers and sentence-transformers load.
"""

from __future__ import annotations

from crossrank.checkpoint.exporting import check_target, export
from crossrank.checkpoint.generative import Answer, PairPrompt
from crossrank.checkpoint.reading import read
from crossrank.checkpoint.record import Checkpoint, check_read

__all__ = ["Answer", "Checkpoint", "PairPrompt", "check_read", "check_target", "export", "read"]
