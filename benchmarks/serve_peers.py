"""Servers of others for serve.py, on the same weights: each is a program of its own.

    python benchmarks/serve_peers.py {st,fifo} --model FOLDER --port N --threads N [--dtype bfloat16]

st     sentence-transformers' CrossEncoder behind FastAPI, as its users write it: one request after another
fifo   transformers with batches as text-embeddings-inference makes them: whoever came first, padded to the longest, at
       most 16,384 tokens with padding
"""

from __future__ import annotations

import argparse
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any

# text-embeddings-inference's own default, `--max-batch-tokens`.
BUDGET = 16_384
LONGEST = 512


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["st", "fifo"])
    parser.add_argument("--model", required=True, help="a folder")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    return parser.parse_args()


def main() -> None:
    import uvicorn

    options = arguments()
    score = {"st": sentence_transformers, "fifo": fifo}[options.name](options)
    uvicorn.run(app(score), host="127.0.0.1", port=options.port, log_level="warning")


Score = Callable[[str, list[str]], Sequence[float]]


def app(score: Score) -> Any:
    """Cohere's path over a function that scores documents; FastAPI calls it in threads."""
    from fastapi import Body, FastAPI

    made = FastAPI()

    @made.post("/v2/rerank")
    def rerank(body: dict[str, Any] = Body()) -> dict[str, Any]:  # noqa: B008, FastAPI asks for it
        scores = score(body["query"], body["documents"])
        order = sorted(range(len(scores)), key=lambda position: -scores[position])
        return {"results": [{"index": position, "relevance_score": scores[position]} for position in order]}

    return made


def sentence_transformers(options: argparse.Namespace) -> Score:
    """`CrossEncoder.predict` with its defaults."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(options.threads)
    settings = {} if options.dtype == "float32" else {"torch_dtype": options.dtype}
    model = CrossEncoder(options.model, device="cpu", model_kwargs=settings, local_files_only=True)
    # Its tokenizer is not made for threads.
    turn = threading.Lock()

    def score(query: str, documents: list[str]) -> Sequence[float]:
        with turn:
            found = model.predict([(query, document) for document in documents], show_progress_bar=False)
        return found.tolist()

    return score


def fifo(options: argparse.Namespace) -> Score:
    """Tokenizing in the threads of requests, one thread that computes batches in the order of arrival."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(options.threads)
    tokenizer = AutoTokenizer.from_pretrained(options.model, local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(
        options.model, local_files_only=True, dtype=getattr(torch, options.dtype)
    ).eval()
    turn = threading.Lock()

    def compute(rows: list[dict[str, Any]]) -> list[float]:
        with torch.inference_mode():
            padded = tokenizer.pad(rows, return_tensors="pt")
            return model(**padded).logits[:, 0].float().sigmoid().tolist()

    queue = Queue(compute)

    def score(query: str, documents: list[str]) -> Sequence[float]:
        with turn:
            made = tokenizer([query] * len(documents), documents, truncation=True, max_length=LONGEST)
        rows = [{name: made[name][row] for name in made} for row in range(len(documents))]
        return [future.result() for future in queue.put(rows)]

    return score


class Queue:
    """Sequences in the order of arrival, and the thread that computes them."""

    def __init__(self, compute: Callable[[list[dict[str, Any]]], list[float]]) -> None:
        self._compute = compute
        self._waiting: deque[tuple[dict[str, Any], Future[float]]] = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._own, daemon=True).start()

    def put(self, rows: list[dict[str, Any]]) -> list[Future[float]]:
        """A future for each sequence."""
        futures = [Future[float]() for _ in rows]
        with self._changed:
            self._waiting.extend(zip(rows, futures, strict=True))
            self._changed.notify()
        return futures

    def _own(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                count = first_batch((len(row["input_ids"]) for row, _ in self._waiting), BUDGET)
                batch = [self._waiting.popleft() for _ in range(count)]
            try:
                for (_, future), value in zip(batch, self._compute([row for row, _ in batch]), strict=True):
                    future.set_result(value)
            except Exception as error:
                for _, future in batch:
                    future.set_exception(error)


def first_batch(lengths: Iterable[int], budget: int) -> int:
    """How many of the first sequences fit into a batch that is padded to its longest; at least one."""
    longest = count = 0
    for length in lengths:
        longest = max(longest, length)
        if count and longest * (count + 1) > budget:
            break
        count += 1
    return count


if __name__ == "__main__":
    main()
