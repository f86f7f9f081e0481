"""Who is compared in gpu.py: each class scores pairs on one card with the same weights, in a process of its own.

    python benchmarks/gpu_contenders.py NAME --model FOLDER --work FILE.json --device cuda

gpu.py starts it; by hand it answers the lines of JSON that you type, such as {"time": "short/text"}. Names:

    crossrank/bfloat16              the GPU engine; also float16, float32
    crossrank/bfloat16/direct       without CUDA graphs
    crossrank/bfloat16/plain        without Triton's kernels
    crossrank/bfloat16/padded       without flash attention
    st/sdpa/bfloat16/128            sentence-transformers, attention, dtype, batch size; also st/flash_attention_2/...
    transformers/sdpa/bfloat16/128  from token ids: the model alone over batches sorted by length
    peak                            no contender: the card's attainable rate of bfloat16 products
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
import processes

Pairs = Sequence[tuple[str, str]]
PACKAGES = ("numpy", "tokenizers", "torch", "triton", "transformers", "sentence-transformers", "flash-attn")
PEAK_SIDE, PEAK_ROUNDS = 8192, 20  # of a square product; its operands take 128 MB each, more than any cache


class Contender:
    """What gpu.py times. `kinds` are the inputs it takes: text, ids (passages tokenized before), tokens (all of it)."""

    about = ""
    kinds: tuple[str, ...] = ()

    def prepared(self, kind: str, pairs: Pairs) -> Any:
        """The pairs in the form that `score` takes, made outside of what is timed."""
        raise NotImplementedError

    def score(self, kind: str, prepared: Any) -> Sequence[float]:
        """A number for each pair; a larger one for a better passage. They are on the host when it returns."""
        raise NotImplementedError


class Crossrank(Contender):
    """The GPU engine, whole or without one of its parts."""

    kinds = ("text", "ids", "tokens")

    def __init__(self, folder: Path, device: str, dtype: str = "bfloat16", without: str = "") -> None:
        import torch

        from crossrank import CrossEncoder, checkpoint
        from crossrank.backends.cuda import attention, card, devices, fusing

        if without not in ("", "direct", "plain", "padded"):
            raise LookupError(f"no part {without!r}")
        if without == "plain":
            fusing.best = lambda device, dtype: fusing.Plain()
        if without == "padded":
            attention.best = lambda device, dtype, size: attention.Padded()
        read = checkpoint.read(folder)
        where = torch.device(device, 0) if device == "cuda" else torch.device(device)
        backend = card.Card(read, where, devices.DTYPES[dtype], graphs=without != "direct")
        self._scorer = CrossEncoder(read, backend)
        self.about = f"crossrank, {backend.name}{', without graphs' if without == 'direct' else ''}"

    def prepared(self, kind: str, pairs: Pairs) -> Any:
        """See `Contender.prepared`."""
        from crossrank.encoder import PairEncoder
        from crossrank.types import Tokens

        if kind == "text":
            return pairs
        read = self._scorer.checkpoint
        if kind == "tokens":
            return PairEncoder(read.tokenizer(), read.max_length).encode(pairs, self._scorer.windows).tokens
        rows = read.tokenizer().encode_batch([passage for _, passage in pairs], add_special_tokens=False)
        return [query for query, _ in pairs], Tokens.of([row.ids for row in rows])

    def score(self, kind: str, prepared: Any) -> Sequence[float]:
        """See `Contender.score`."""
        if kind == "text":
            return self._scorer.score(prepared).tolist()
        if kind == "ids":
            return self._scorer.scored_tokens(*prepared).scores.tolist()
        return self._scorer.backend.forward(prepared).tolist()


class SentenceTransformers(Contender):
    """Its CrossEncoder."""

    kinds = ("text",)

    def __init__(self, folder: Path, device: str, attention: str, dtype: str, batch: str) -> None:
        import torch
        from sentence_transformers import CrossEncoder

        settings: dict[str, Any] = {"attn_implementation": attention, "torch_dtype": dtype}
        self._model = CrossEncoder(str(folder), device=device, model_kwargs=settings, local_files_only=True)
        self._nothing, self._batch = torch.nn.Identity(), int(batch)
        self.about = f"sentence-transformers, {attention}, {dtype}, batches of {batch}"

    def prepared(self, kind: str, pairs: Pairs) -> Any:
        """See `Contender.prepared`."""
        return list(pairs)

    def score(self, kind: str, prepared: Any) -> Sequence[float]:
        """See `Contender.score`."""
        return self._model.predict(
            prepared, batch_size=self._batch, show_progress_bar=False, activation_fn=self._nothing
        ).tolist()


class Transformers(Contender):
    """What sentence-transformers computes on the card, without its tokenization."""

    kinds = ("tokens",)

    def __init__(self, folder: Path, device: str, attention: str, dtype: str, batch: str) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._torch, self._device, self._batch = torch, device, int(batch)
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, attn_implementation=attention, dtype=getattr(torch, dtype), local_files_only=True
        )
        self._model = model.to(device).eval()
        self.about = f"transformers, {attention}, {dtype}, sorted batches of {batch}"

    def prepared(self, kind: str, pairs: Pairs) -> Any:
        """See `Contender.prepared`: padded batches in host memory, longest first, and whose they are."""
        encoded = self._tokenizer([q for q, _ in pairs], [p for _, p in pairs], truncation=True)
        order = sorted(range(len(pairs)), key=lambda i: -len(encoded["input_ids"][i]))
        batches = []
        for begin in range(0, len(order), self._batch):
            rows = order[begin : begin + self._batch]
            some = {name: [values[i] for i in rows] for name, values in encoded.items()}
            batches.append((rows, dict(self._tokenizer.pad(some, return_tensors="pt"))))
        return batches

    def score(self, kind: str, prepared: Any) -> Sequence[float]:
        """See `Contender.score`."""
        with self._torch.inference_mode():
            outputs = [
                self._model(**{k: v.to(self._device, non_blocking=True) for k, v in batch.items()}).logits[:, 0]
                for _, batch in prepared
            ]
            found = self._torch.cat(outputs).float().tolist()
        order = [row for rows, _ in prepared for row in rows]
        return [score for _, score in sorted(zip(order, found, strict=True))]


def peak(device: str, side: int = PEAK_SIDE) -> float:
    """Operations a second of a large bfloat16 product of random numbers: what the card attains, not what is printed."""
    import torch

    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(PEAK_ROUNDS):
        began = time.perf_counter()
        a @ b
        waited(device)
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / sorted(seconds)[len(seconds) // 2]


def waited(device: str) -> None:
    """Wait until the card is done."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


CONTENDERS: dict[str, Callable[..., Contender]] = {
    "crossrank": Crossrank,
    "st": SentenceTransformers,
    "transformers": Transformers,
}


def start() -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """Load the contender that the command line names; see `processes.serve`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--model", type=Path, required=True, help="an exported model folder")
    parser.add_argument("--work", type=Path, required=True, help="the pairs, as gpu.py writes them")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options = parser.parse_args()
    device = options.device
    if options.name == "peak":
        return {"about": "peak"}, lambda request: {"rate": peak(device, request.get("side", PEAK_SIDE))}
    kind, *rest = options.name.split("/")
    try:
        began = time.perf_counter()
        contender = CONTENDERS[kind](options.model, device, *rest)
        loaded = time.perf_counter() - began
    # A library that is not there, or one that says so in its own way.
    except Exception as error:
        return {"missing": f"{type(error).__name__}: {error}".partition("\n")[0]}, lambda request: {}
    work = Work(contender, json.loads(options.work.read_text(encoding="utf-8")), device)
    about = {"about": contender.about, "kinds": contender.kinds, "load_seconds": loaded}
    return about | {"versions": machine.versions(PACKAGES)}, work.answer


class Work:
    """Answers requests; pairs are brought into a contender's form once."""

    def __init__(self, contender: Contender, lists: dict[str, list[Any]], device: str) -> None:
        self._contender, self._lists, self._device = contender, lists, device
        self._ready: dict[tuple[str, str], Any] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """{"time": "short/text"} gives seconds, {"scores": "check"} scores, {"memory": ""} MiB; see gpu.py."""
        if "memory" in request:
            return {"mib": self._memory()}
        name, _, kind = request.get("time", request.get("scores", "")).partition("/")
        kind = kind or self._contender.kinds[0]
        if (name, kind) not in self._ready:
            pairs = [(query, passage) for query, passage in self._lists[name]]
            self._ready[name, kind] = self._contender.prepared(kind, pairs)
        prepared = self._ready[name, kind]
        began = time.perf_counter()
        scores = self._contender.score(kind, prepared)
        seconds = time.perf_counter() - began
        return {"scores": [float(score) for score in scores]} if "scores" in request else {"seconds": seconds}

    def _memory(self) -> float:
        """The most that torch has held on the card, kernels and the driver's own left out; 0 without a card."""
        if self._device != "cuda":
            return 0.0
        import torch

        return torch.cuda.max_memory_reserved() / 2**20


if __name__ == "__main__":
    processes.serve(start)
