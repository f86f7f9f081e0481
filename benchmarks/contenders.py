"""Who is compared in speed.py: each class scores (query, passage) pairs with the same weights, in a process of its own.

    python benchmarks/contenders.py NAME --model FOLDER --work FILE.json --threads N

speed.py starts it; by hand it answers the lines of JSON that you type, such as {"time": "short"}. A contender needs its
own library and not crossrank, so this file may run on another Python than speed.py does.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import processes

Pairs = Sequence[tuple[str, str]]
# What sentence-transformers takes by default, and what OpenVINO was found fastest with.
BATCH = 32


@dataclass(frozen=True)
class Contender:
    """What speed.py times.

    Attributes:
        about: what it is, for the table.
        packages: whose versions matter.
        score: a number for each pair; a larger one for a better passage.
    """

    about: str
    packages: tuple[str, ...]
    score: Callable[[Pairs], Sequence[float]]


def crossrank(folder: Path, threads: int, backend: str = "auto", dtype: str = "auto") -> Contender:
    """crossrank, optionally with a backend and a dtype: crossrank/cpu:avx2/float32."""
    import crossrank

    scorer = crossrank.load(folder, backend=backend, dtype=dtype)
    about = f"crossrank, {scorer.backend.name}"
    return Contender(about, ("numpy", "tokenizers", "torch"), lambda pairs: scorer.score(pairs).tolist())


def sentence_transformers(folder: Path, threads: int, backend: str = "torch", dtype: str = "float32") -> Contender:
    """Its CrossEncoder with the defaults it documents: st/torch/float32, st/torch/bfloat16, st/onnx, st/openvino."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(threads)
    # The export for ONNX and OpenVINO is made here and not timed.
    settings: dict[str, Any] = {"export": True} if backend != "torch" else {}
    if dtype != "float32":
        settings["torch_dtype"] = dtype
    model = CrossEncoder(str(folder), device="cpu", backend=backend, model_kwargs=settings, local_files_only=True)
    nothing = torch.nn.Identity()

    def score(pairs: Pairs) -> Sequence[float]:
        found = model.predict(list(pairs), batch_size=BATCH, show_progress_bar=False, activation_fn=nothing)
        return found.tolist()

    packages = ("sentence-transformers", "transformers", "torch", "optimum-intel", "optimum-onnx", "onnxruntime")
    name = f"{backend} {dtype}" if backend == "torch" else backend
    return Contender(f"sentence-transformers, {name}", packages, score)


def openvino(folder: Path, threads: int, precision: str = "bf16", how: str = "") -> Contender:
    """OpenVINO as an expert would use it: openvino/bf16 or openvino/f32, batches of 32 sorted by length.

    With `streams` (openvino/bf16/streams) each core works on a batch of its own, instead of all on one.
    """
    streams = threads if how == "streams" else 1
    about = f"OpenVINO, {precision}, sorted batches of {BATCH}" + (", a stream a core" if streams > 1 else "")
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    scorer = OpenVino(folder, threads, precision, streams)
    return Contender(f"{about}, at most {limit}" if limit else about, ("openvino", "tokenizers"), scorer)


class OpenVino:
    """Pairs to scores with OpenVINO alone."""

    def __init__(self, folder: Path, threads: int, precision: str, streams: int) -> None:
        import numpy as np
        import openvino
        from tokenizers import Tokenizer

        self._numpy = np
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(512)
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
        }
        compiled = openvino.Core().compile_model(converted(folder, openvino), "CPU", settings)
        self._inputs = {port.get_any_name() for port in compiled.inputs}
        self._queue = openvino.AsyncInferQueue(compiled, streams)

    def __call__(self, pairs: Pairs) -> Sequence[float]:
        """The logits of the pairs, in their order."""
        encoded = self._tokenizer.encode_batch(list(pairs))
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]), reverse=True)
        found = self._numpy.empty(len(encoded), dtype="float32")

        def keep(request: Any, rows: list[int]) -> None:
            found[rows] = request.get_output_tensor().data[:, 0]

        self._queue.set_callback(keep)
        for begin in range(0, len(order), BATCH):
            rows = order[begin : begin + BATCH]
            self._queue.start_async(self._batch([encoded[i] for i in rows]), rows)
        self._queue.wait_all()
        return found.tolist()

    def _batch(self, rows: list[Any]) -> dict[str, Any]:
        # Sorted, so the first is the longest.
        shape = len(rows), len(rows[0])
        arrays = {
            name: self._numpy.zeros(shape, dtype="int64") for name in ("input_ids", "token_type_ids", "attention_mask")
        }
        for i, row in enumerate(rows):
            arrays["input_ids"][i, : len(row)] = row.ids
            arrays["token_type_ids"][i, : len(row)] = row.type_ids
            arrays["attention_mask"][i, : len(row)] = 1
        return {name: array for name, array in arrays.items() if name in self._inputs}


def flashrank(folder: Path, threads: int) -> Contender:
    """FlashRank's Ranker over our weights: it has a list of models and reads each from a folder of that name."""
    from flashrank import Ranker, RerankRequest
    from flashrank.Config import model_file_map

    name = "ms-marco-MiniLM-L-12-v2"
    source = onnx_folder(folder)
    place = source / name
    if not place.is_dir():
        place.mkdir()
        for file in source.glob("*.json"):
            (place / file.name).symlink_to(file)
        (place / model_file_map[name]).symlink_to(source / "model.onnx")
    ranker = Ranker(model_name=name, cache_dir=str(source), max_length=512)

    def score(pairs: Pairs) -> Sequence[float]:
        found = [0.0] * len(pairs)
        for begin, end in lists(pairs):
            passages = [{"id": i, "text": pairs[i][1]} for i in range(begin, end)]
            for entry in ranker.rerank(RerankRequest(query=pairs[begin][0], passages=passages)):
                found[entry["id"]] = float(entry["score"])
        return found

    return Contender("FlashRank", ("flashrank", "onnxruntime", "tokenizers"), score)


def fastembed(folder: Path, threads: int) -> Contender:
    """fastembed's TextCrossEncoder over our weights, as a custom model."""
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    name = "crossrank/here"
    TextCrossEncoder.add_custom_model(name, sources=ModelSource(hf=name), model_file="model.onnx")
    model = TextCrossEncoder(name, specific_model_path=str(onnx_folder(folder)), threads=threads)
    packages = ("fastembed", "onnxruntime", "tokenizers")
    return Contender("fastembed", packages, lambda pairs: list(model.rerank_pairs(list(pairs))))


CONTENDERS: dict[str, Callable[..., Contender]] = {
    "crossrank": crossrank,
    "st": sentence_transformers,
    "openvino": openvino,
    "flashrank": flashrank,
    "fastembed": fastembed,
}


def lists(pairs: Pairs) -> list[tuple[int, int]]:
    """Begin and end of each run of pairs with the same query."""
    starts = [i for i in range(len(pairs)) if i == 0 or pairs[i][0] != pairs[i - 1][0]]
    return list(zip(starts, [*starts[1:], len(pairs)], strict=True))


def torch_model(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model in torch, and an example of its inputs."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    ones = torch.ones(2, 8, dtype=torch.int64)
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if model.config.model_type == "bert" else [])
    return model, dict.fromkeys(names, ones)


def converted(folder: Path, openvino: Any) -> Any:
    """The model as OpenVINO reads it, converted from torch on first use."""
    file = folder / "openvino" / "model.xml"
    if not file.exists():
        model, example = torch_model(folder)
        openvino.save_model(openvino.convert_model(model, example_input=example), file, compress_to_fp16=False)
    return openvino.Core().read_model(file)


def onnx_folder(folder: Path) -> Path:
    """A folder with model.onnx and what FlashRank and fastembed read beside it, made from torch on first use."""
    place = folder / "onnx"
    if (place / "model.onnx").exists():
        return place
    import torch

    model, example = torch_model(folder)
    place.mkdir(exist_ok=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (place / name).write_bytes((folder / name).read_bytes())
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    specials = {name: value for name, value in settings.items() if name.endswith("_token") and isinstance(value, str)}
    (place / "special_tokens_map.json").write_text(json.dumps(specials), encoding="utf-8")
    torch.onnx.export(
        model,
        kwargs=example,
        f=str(place / "unfinished.onnx"),
        input_names=list(example),
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in example} | {"logits": {0: "batch"}},
        dynamo=False,
    )
    return (place / "unfinished.onnx").rename(place / "model.onnx").parent


def start() -> tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]:
    """Load the contender that the command line names; see `processes.serve`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--model", type=Path, required=True, help="an exported model folder")
    parser.add_argument("--work", type=Path, required=True, help="the pairs, as speed.py writes them")
    parser.add_argument("--threads", type=int, default=machine.cores())
    options = parser.parse_args()
    machine.limit_threads(options.threads)
    machine.hold_to(options.threads)
    kind, *rest = options.name.split("/")
    try:
        began = time.perf_counter()
        contender = CONTENDERS[kind](options.model, options.threads, *(part for part in rest if "=" not in part))
        loaded = time.perf_counter() - began
    # A library that is not there, or one that says so in its own way (sentence-transformers raises bare Exception).
    except Exception as error:
        return {"missing": f"{type(error).__name__}: {error}".partition("\n")[0]}, lambda request: {}
    written = json.loads(options.work.read_text(encoding="utf-8"))
    work = {name: [tuple(pair) for pair in written[name]] for name in ("short", "long", "check")}
    work["query"] = [[tuple(pair) for pair in pairs] for pairs in written["query"]]
    about = {"about": contender.about, "load_seconds": loaded, "versions": machine.versions(contender.packages)}
    return about, lambda request: answer(contender, work, request)


def answer(contender: Contender, work: dict[str, list[Any]], request: dict[str, Any]) -> dict[str, Any]:
    """{"time": "short"} or {"time": "query", "turn": 3} gives seconds; {"scores": "check"} gives the scores."""
    if "scores" in request:
        return {"scores": [float(score) for score in contender.score(work[request["scores"]])]}
    pairs = work[request["time"]]
    if "turn" in request:
        pairs = pairs[request["turn"] % len(pairs)]
    began = time.perf_counter()
    contender.score(pairs)
    return {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    processes.serve(start)
