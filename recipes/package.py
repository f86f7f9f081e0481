"""Step 4: calibrate the cross-encoders and write the models as package data.

    python recipes/package.py WORK_FOLDER [--rerankers small=FOLDER fast=FOLDER tiny=FOLDER --trained-on N]
        [--embedder FOLDER] [--late FOLDER]

Models that are not named stay as they are in the package. A threshold is the probability under which the best passage
of a list is no answer; benchmarks/family.py tells what each costs.

Weights are stored as float16 (exact for the frozen word embeddings, 2^-11 relative for the rest), the word embeddings
and the tokenizer once for all models, and of `late` only what is not as in `embed`. The calibration is fitted on
training groups that the cross-encoder has not seen: one judged passage among mined ones, so a probability means "as
likely as in such a pool".
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

import start
from crossrank.calibration import Platt, expected_calibration_error
from crossrank.models.catalog import LAYERS_OF
from train_reranker import SEED, logits_of, pair_ids

TARGET = Path(__file__).resolve().parent.parent / "src" / "crossrank" / "models" / "weights"
WORDS = "embeddings.word_embeddings.weight"
# Kept of config.json: what describes the network.
CONFIG = (
    "model_type", "architectures", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "hidden_act", "max_position_embeddings", "type_vocab_size", "vocab_size", "layer_norm_eps", "pad_token_id",
)  # fmt: skip


def write(folder: Path, checkpoint: Path, kind: str, base: Path | None = None) -> None:
    """Config and weights of one model, without its word embeddings and what is the same in the weights `base`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    kept: dict[str, object] = {key: config[key] for key in CONFIG if key in config}
    if kind == "cross-encoder":
        kept["architectures"] = ["BertForSequenceClassification"]
        kept["id2label"] = {"0": "LABEL_0"}
        kept["label2id"] = {"LABEL_0": 0}
        kept["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity"}
    else:
        kept["architectures"] = ["BertModel"]
    (folder / "config.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    halve(checkpoint / "model.safetensors", folder / "model.safetensors", base)


def halve(source: Path, target: Path, base: Path | None = None) -> None:
    """Weights as float16, without word embeddings and without what is the same in `base`."""
    tensors = {
        name: tensor.to(torch.float16).contiguous()
        for name, tensor in load_file(source).items()
        if not name.endswith((WORDS, "position_ids"))
    }
    if base is not None:
        stored = load_file(base)
        tensors = {name: tensor for name, tensor in tensors.items() if not torch.equal(tensor, stored[name])}
    save_file(tensors, target, metadata={"format": "pt"})


def shared(folder: Path) -> None:
    """Word embeddings and tokenizer of all models."""
    folder.mkdir(parents=True, exist_ok=True)
    words = start.encoder().embeddings.word_embeddings.weight.detach().to(torch.float16)
    save_file({WORDS: words}, folder / "word_embeddings.safetensors", metadata={"format": "pt"})
    start.tokenizer().save(str(folder / "tokenizer.json"))
    text = json.dumps(start.TOKENIZER_SETTINGS, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def calibrated(work: Path, reranker: Path, trained_on: int, groups_used: int) -> dict[str, object]:
    """Platt's parameters on groups that were not trained on, and the calibration error on others."""
    groups = [json.loads(line) for line in (work / "groups.jsonl").read_text(encoding="utf-8").splitlines()]
    random.Random(SEED).shuffle(groups)
    unseen = groups[trained_on:][:groups_used]
    if len(unseen) < 100:
        raise SystemExit("too few groups are left to calibrate on; train on fewer")
    model = BertForSequenceClassification.from_pretrained(reranker, attn_implementation="eager").eval()
    tokenizer = start.tokenizer()
    halves = []
    for part in (unseen[::2], unseen[1::2]):
        pairs = [pair for row in part for pair in pair_ids(tokenizer, row["query"], row["passages"])]
        relevant = np.array([n == 0 for row in part for n in range(len(row["passages"]))])
        with torch.inference_mode():
            halves.append((logits_of(model, pairs).numpy(), relevant))
    most = max(len(row["passages"]) for row in unseen) - 1
    fitted = Platt.fit(*halves[0])
    error = expected_calibration_error(fitted.probability(halves[1][0]), halves[1][1])
    print(f"calibration {fitted}, expected calibration error {error:.4f} on {len(halves[1][0])} unseen pairs")
    return {
        "calibration": {"slope": round(fitted.slope, 5), "intercept": round(fitted.intercept, 5)},
        "calibration_error": round(error, 4),
        "calibrated_on": f"{len(unseen[::2])} unseen training groups, 1 judged passage among up to {most} mined ones",
    }


def copy(source: Path, target: Path, *names: str) -> None:
    """Files of one folder to the same places of another."""
    for name in names:
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copy(source / name, target / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rerankers", nargs="+", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--embedder", type=Path, default=None)
    parser.add_argument("--late", type=Path, default=None)
    parser.add_argument("--thresholds", nargs="+", default=[], metavar="NAME=P", help="see benchmarks/family.py")
    parser.add_argument("--trained-on", type=int, default=None, help="groups the cross-encoders were trained on")
    parser.add_argument("--groups", type=int, default=800, help="unseen groups for the calibration")
    parser.add_argument("--to", type=Path, default=TARGET)
    args = parser.parse_args()
    if args.rerankers and args.trained_on is None:
        parser.error("cross-encoders are calibrated on groups that they have not seen: how many is --trained-on")
    shared(args.to / "shared")
    for name, _, folder in (text.partition("=") for text in args.rerankers):
        write(args.to / name, Path(folder), "cross-encoder")
        facts = calibrated(args.work, Path(folder), args.trained_on, args.groups)
        (args.to / name / "crossrank.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    for name, _, chance in (text.partition("=") for text in args.thresholds):
        file = args.to / name / "crossrank.json"
        facts = json.loads(file.read_text(encoding="utf-8")) | {"threshold": float(chance)}
        file.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    if args.embedder is not None:
        write(args.to / "embed", args.embedder, "bi-encoder")
        copy(start.FOLDER, args.to / "embed", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json")
    if args.late is not None:
        write(args.to / "late", args.late, "late-interaction", args.to / LAYERS_OF["late"] / "model.safetensors")
        settings = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json")
        copy(args.late, args.to / "late", *settings, "1_Dense/config.json")
        halve(args.late / "1_Dense" / "model.safetensors", args.to / "late" / "1_Dense" / "model.safetensors")


if __name__ == "__main__":
    main()
