"""Step 4: calibrate the cross-encoders and write the models as package data.

    python recipes/package.py WORK_FOLDER [--rerankers small=FOLDER fast=FOLDER tiny=FOLDER --trained-on N]
        [--embedder FOLDER] [--late FOLDER]

Models that are not named stay as they are in the package, and all of it stays as it is until everything new is made. A
threshold is the probability under which the best passage of a list is no answer; benchmarks/family.py tells what each
costs. A model that has one in the package is not replaced without: the old one may not fit the new calibration.

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
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

import start
from crossrank.calibration import Platt, expected_calibration_error
from crossrank.models.catalog import LAYERS_OF
from crossrank.writing import whole
from train_reranker import SEED, logits_of, pair_ids

TARGET = Path(__file__).resolve().parent.parent / "src" / "crossrank" / "models" / "weights"
WORDS = "embeddings.word_embeddings.weight"
# Kept of config.json: what describes the network.
CONFIG = (
    "model_type", "architectures", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "hidden_act", "max_position_embeddings", "type_vocab_size", "vocab_size", "layer_norm_eps", "pad_token_id",
)  # fmt: skip

FACTS = "crossrank.json"
# What a folder must hold to be packaged, and what is copied of it as it is.
MODEL = ("config.json", "model.safetensors")
EMBED_SETTINGS = ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json")
LATE_SETTINGS = (
    "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "1_Dense/config.json",
)  # fmt: skip


def write(folder: Path, checkpoint: Path, kind: str, base: Path | None = None, platt: Platt | None = None) -> None:
    """Config and weights of one model, without its word embeddings and what is the same in the weights `base`; of a
    cross-encoder with `platt` in the last layer, so that its logits are log-odds wherever the folder is read."""
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
    halve(checkpoint / "model.safetensors", folder / "model.safetensors", base, platt)


def halve(source: Path, target: Path, base: Path | None = None, platt: Platt | None = None) -> None:
    """Weights as float16, without word embeddings and without what is the same in `base`; see `write`."""
    read = load_file(source)
    if platt is not None:
        read["classifier.weight"] = platt.slope * read["classifier.weight"]
        read["classifier.bias"] = platt.slope * read["classifier.bias"] + platt.intercept
    tensors = {
        name: tensor.to(torch.float16).contiguous()
        for name, tensor in read.items()
        if not name.endswith((WORDS, "position_ids"))
    }
    if base is not None:
        stored = load_file(base)
        tensors = {name: tensor for name, tensor in tensors.items() if not torch.equal(tensor, stored[name])}
    with whole(target, usual=True) as part:
        save_file(tensors, part, metadata={"format": "pt"})


def shared(folder: Path) -> None:
    """Word embeddings and tokenizer of all models."""
    folder.mkdir(parents=True, exist_ok=True)
    words = start.encoder().embeddings.word_embeddings.weight.detach().to(torch.float16)
    with whole(folder / "word_embeddings.safetensors", usual=True) as part:
        save_file({WORDS: words}, part, metadata={"format": "pt"})
    start.tokenizer().save(str(folder / "tokenizer.json"))
    text = json.dumps(start.TOKENIZER_SETTINGS, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def calibrated(work: Path, reranker: Path, trained_on: int, groups_used: int) -> tuple[Platt, dict[str, object]]:
    """Platt's parameters on groups that were not trained on, and what is stated of a model that has them in its last
    layer, with the calibration error on others."""
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
    return fitted, {
        "calibration": {"slope": 1.0, "intercept": 0.0},
        "calibration_error": round(error, 4),
        "calibrated_on": f"{len(unseen[::2])} unseen training groups, 1 judged passage among up to {most} mined ones",
    }


def copy(source: Path, target: Path, names: tuple[str, ...]) -> None:
    """Files of one folder to the same places of another."""
    for name in names:
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copy(source / name, target / name)


def named_values(parser: argparse.ArgumentParser, option: str, texts: list[str]) -> dict[str, str]:
    """Name and value of each `NAME=VALUE`."""
    if wrong := [text for text in texts if not all(text.partition("="))]:
        parser.error(f"{option} takes a name, = and a value, not {', '.join(wrong)}")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def refuse(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program when something that is asked for cannot be made; calibrating takes minutes, so it comes later."""
    if args.rerankers and args.trained_on is None:
        parser.error("cross-encoders are calibrated on groups that they have not seen: how many is --trained-on")
    needed = [(Path(folder), MODEL) for folder in args.rerankers.values()]
    needed += [(args.embedder, MODEL)] if args.embedder else []
    needed += [(args.late, (*MODEL, *LATE_SETTINGS, "1_Dense/model.safetensors"))] if args.late else []
    needed += [(args.work, ("groups.jsonl",))] if args.rerankers else []
    if missing := [str(folder / name) for folder, names in needed for name in names if not (folder / name).is_file()]:
        parser.error(f"there is no {', no '.join(missing)}")
    for name, chance in args.thresholds.items():
        if not 0 < chance < 1:
            parser.error(f"a threshold is a probability over 0 and under 1, not {name}={chance:g}")
        if name not in args.rerankers and not (args.to / name / FACTS).is_file():
            parser.error(f"a threshold for {name}, which is neither in {args.to} nor one of --rerankers")
    for name in args.rerankers:
        old = facts_of(args.to / name).get("threshold")
        if old is not None and name not in args.thresholds:
            parser.error(f"{name} has the threshold {old} in {args.to}: say --thresholds {name}={old}, or another")


def facts_of(folder: Path) -> dict[str, object]:
    """What is stated of a model in the package; nothing of one that is not there."""
    file = folder / FACTS
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def made(args: argparse.Namespace, folder: Path) -> None:
    """Everything that is asked for, in an empty folder that is laid out as the package."""
    shared(folder / "shared")
    stated = {}
    for name, checkpoint in args.rerankers.items():
        fitted, stated[name] = calibrated(args.work, Path(checkpoint), args.trained_on, args.groups)
        write(folder / name, Path(checkpoint), "cross-encoder", platt=fitted)
    for name, chance in args.thresholds.items():
        stated[name] = stated.get(name, facts_of(args.to / name)) | {"threshold": chance}
    for name, facts in stated.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    if args.embedder is not None:
        write(folder / "embed", args.embedder, "bi-encoder")
        copy(start.FOLDER, folder / "embed", EMBED_SETTINGS)
    if args.late is not None:
        base = Path(LAYERS_OF["late"]) / "model.safetensors"
        base = folder / base if (folder / base).exists() else args.to / base
        write(folder / "late", args.late, "late-interaction", base)
        copy(args.late, folder / "late", LATE_SETTINGS)
        halve(args.late / "1_Dense" / "model.safetensors", folder / "late" / "1_Dense" / "model.safetensors")


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
    args.rerankers = named_values(parser, "--rerankers", args.rerankers)
    try:
        thresholds = named_values(parser, "--thresholds", args.thresholds)
        args.thresholds = {name: float(chance) for name, chance in thresholds.items()}
    except ValueError as error:
        parser.error(f"a threshold is a number: {error}")
    refuse(parser, args)
    args.to.mkdir(parents=True, exist_ok=True)
    # Beside the package, so that a file is renamed into its place and never half there.
    with tempfile.TemporaryDirectory(dir=args.to.parent, prefix=".package-") as folder:
        made(args, Path(folder))
        for file in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            place = args.to / file.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)


if __name__ == "__main__":
    main()
