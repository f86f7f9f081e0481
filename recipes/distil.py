"""Step 2b: a cross-encoder that has learned from another and from the start model, with all layers or with fewer.

    python recipes/distil.py WORK_FOLDER --teacher MODEL --layers 0 3 --to CHECKPOINT_FOLDER
    python recipes/distil.py WORK_FOLDER --teacher small --begin fast --units 384 --to CHECKPOINT_FOLDER

The student starts as those layers of the teacher, or of --begin (Sajjad et al. 2023, "On the effect of dropping
layers"), with --units in their feed-forward parts (narrow.py), and with scores stretched to what it learns from, which
a model from the package has not: its logits are log-odds. What it learns from is the teacher's score, plus
SIMILARITY times the start model's cosine, plus --late times the score of the package's late-interaction model: on the
dev sets that sum ranks better than any of the three (LOG.md), for the start model has seen a billion pairs, and the
late model compares its token vectors one by one. Loss for one query with candidates c (the judged passage first), s of
the student and t of that sum:

    cross entropy((1 - T) * onehot + T * softmax(t), softmax(s)) + 0.2 * BCE
      + MARGIN * mean over c of ((s - mean s) - (t - mean t))^2

The last term is MarginMSE (Hofstaetter et al. 2020) over all pairs of candidates: the student learns by how much one
passage is better, which says more than which is best. Teachers read each pair once, cut to the same tokens; their
scores are kept in WORK_FOLDER and belong to the teacher's weights. All parts go on where they were stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch.nn import functional
from transformers import BertForSequenceClassification

import crossrank
import loop
import narrow
import start
from crossrank import backends
from crossrank.encoder import Windows
from crossrank.lateencoder import LateEncoder
from crossrank.lateinteraction import LateInteraction
from crossrank.models import named
from train_reranker import CANDIDATES, MAX_TOKENS, QUERIES_A_STEP, SEED, fresh, logits_of, pair_ids

TEACHER = 0.7
# The next two go with a teacher whose logits are 2.3 times log-odds, as those of `small` were. package.py puts the
# calibration into the last layer, so of a model from the package --scale 2.3 gives what they were chosen for.
# Mean nDCG@10 of nine dev sets by this weight beside `small`: 0 0.741, 5 0.750, 10 0.756, 15 0.755, 20 0.751, alone
# 0.712. With 1 times `late`: 0 0.760, 5 0.761, 10 0.764; with 2 times: 0 0.759, 5 0.763, 10 0.763.
SIMILARITY = 10.0
LATE = 1.0
# Of every query, as if: MaxSim grows with a query's tokens, and a sum with other scores must not.
QUERY_TOKENS = 32
MARGIN = 0.05
# Shallow models forget little of what they never knew: they take, and need, a higher rate than the 6-layer one.
LEARNING_RATE = 2e-4
# A group, and what its teachers say of each passage.
Taught = tuple[dict, list[float]]
T = TypeVar("T")
# Groups that are scored between two writes.
SCORED = 200
# Groups whose pairs tell which units can be spared: 2,400 pairs, some 200,000 tokens, for 1,536 units.
NARROWED_BY = 400
# Groups that tell how far apart two models' scores are.
STRETCHED_BY = 100


def groups_of(work: Path, queries: int, topical: int, candidates: int) -> list[dict]:
    """Shuffled groups of step 1 and, of every so many, one of step 1b, each cut to `candidates`: only what is trained
    on has to be read by the teacher."""

    def rows(name: str) -> list[dict]:
        found = [json.loads(line) for line in (work / name).read_text(encoding="utf-8").splitlines()]
        random.Random(SEED).shuffle(found)
        return found

    groups = rows("groups.jsonl")[: queries or None]
    if topical:
        groups = mixed(groups, rows("topical.jsonl"), topical)
    for n, row in enumerate(groups):
        rest = range(1, len(row["passages"]))
        picked = [0, *sorted(random.Random(SEED + n).sample(rest, min(candidates - 1, len(rest))))]
        row["passages"], row["teacher"] = ([row[key][i] for i in picked] for key in ("passages", "teacher"))
    return groups


def mixed(groups: list[T], topical: list[T], every: int) -> list[T]:
    """The groups, with one of `topical` after every `every - 1` of them while there are any."""
    out, others = [], iter(topical)
    for row in groups:
        out.append(row)
        if len(out) % every == every - 1 and (other := next(others, None)):
            out.append(other)
    return out


def opinions(work: Path, teacher: str, groups: list[dict], tokens: int, threads: int) -> list[list[float]]:
    """The raw scores of all passages of each group, in order, by a cross-encoder or a late-interaction model; the
    latter's as if the query had QUERY_TOKENS tokens."""
    read = named.read(teacher, default="small")
    backend = backends.open(read, threads=threads or None)
    if read.late is None:
        model = crossrank.CrossEncoder(read, backend, Windows(most=1), tokens)
        scales = [1.0] * len(groups)
    else:
        cut = replace(read.late, document_length=tokens)
        model = LateInteraction(replace(read, late=cut), backend)
        asked = LateEncoder(start.tokenizer(), cut).queries([row["query"] for row in groups])
        scales = [QUERY_TOKENS / length for length in asked.tokens.lengths.tolist()]
    first = [tokens, *((row["query"], row["passages"]) for row in groups[:SCORED])]
    which = sha256(json.dumps(first).encode()).hexdigest()
    file = work / f"scores-{model.fingerprint[:16]}-{which[:8]}.jsonl"
    found = finished(file)
    with open(file, "a", encoding="utf-8") as out:
        for begin in range(len(found), len(groups), SCORED):
            part = groups[begin : begin + SCORED]
            scores = model.score([(row["query"], text) for row in part for text in row["passages"]]).tolist()
            rows = []
            for row, scale in zip(part, scales[begin:], strict=False):
                rows.append([round(scale * score, 4) for score in scores[: len(row["passages"])]])
                del scores[: len(row["passages"])]
            out.writelines(json.dumps(row) + "\n" for row in rows)
            out.flush()
            found += rows
            if begin % (SCORED * 10) == 0:
                print(f"{teacher} has read {len(found)} of {len(groups)} groups", flush=True)
    return found[: len(groups)]


def finished(file: Path) -> list[list[float]]:
    """The rows of a file that was being written; an unfinished last one is cut off there."""
    if not file.exists():
        return []
    text = file.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    os.truncate(file, len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def student(begin: Path, layers: list[int]) -> BertForSequenceClassification:
    """A model with these of its layers only."""
    model = fresh(begin)
    model.bert.encoder.layer = torch.nn.ModuleList(model.bert.encoder.layer[i] for i in layers)
    model.config.num_hidden_layers = len(layers)
    return model


def stretch(begin: str, rows: list[Taught]) -> float:
    """How many times as far apart within a group the scores are that are learned as those of the model at the start."""
    groups = [row for row, _ in rows[:STRETCHED_BY]]
    scores = iter(crossrank.load(begin).score([(row["query"], text) for row in groups for text in row["passages"]]))
    spreads = [(np.std([next(scores) for _ in told]), np.std(told)) for _, told in rows[:STRETCHED_BY]]
    own, learned = np.mean(spreads, axis=0)
    return float(learned / own)


def some_pairs(tokenizer: object, groups: list[dict], tokens: int) -> list[tuple[list[int], int]]:
    """Pairs of the first groups, to narrow a model by."""
    return [pair for row in groups[:NARROWED_BY] for pair in pair_ids(tokenizer, row["query"], row["passages"], tokens)]


def step_loss(
    model: BertForSequenceClassification, tokenizer: object, rows: list[Taught], tokens: int
) -> tuple[torch.Tensor, int]:
    """Mean loss over the queries of a step, and the tokens it took."""
    pairs = [pair for row, _ in rows for pair in pair_ids(tokenizer, row["query"], row["passages"], tokens)]
    losses = []
    for scores, (_, told) in zip(logits_of(model, pairs).split([len(told) for _, told in rows]), rows, strict=True):
        theirs = torch.tensor(told)
        judged = torch.zeros(len(scores))
        judged[0] = 1.0
        target = (1 - TEACHER) * judged + TEACHER * functional.softmax(theirs, 0)
        loss = -(target * functional.log_softmax(scores, 0)).sum()
        loss = loss + 0.2 * functional.binary_cross_entropy_with_logits(scores, judged)
        losses.append(loss + MARGIN * (scores - scores.mean() - theirs + theirs.mean()).square().mean())
    return torch.stack(losses).mean(), sum(len(ids) for ids, _ in pairs)


def repeated(rows: list[Taught], epochs: int) -> list[Taught]:
    """The rows as they are, then again in other orders: a student reads a group faster than its teacher does."""
    return [row for n in range(epochs) for row in (random.Random(SEED + n).sample(rows, len(rows)) if n else rows)]


def options(parser: argparse.ArgumentParser) -> None:
    """What every training takes that learns from `taught`."""
    parser.add_argument("--teacher", default="small", help="a cross-encoder's name, or its folder")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="times the teacher's score: 2.3 of one from the package"
    )
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=0, help="train on the first N shuffled groups (default: all)")
    parser.add_argument("--topical", type=int, default=0, help="every so-manieth group is one of topical.py")
    parser.add_argument("--keywords", type=int, default=0, help="every so-manieth group is one of keywords.py")
    parser.add_argument("--similarity", type=float, default=SIMILARITY, help="weight of the start model's cosine")
    parser.add_argument("--candidates", type=int, default=CANDIDATES, help="passages of a group, the judged one too")
    parser.add_argument("--tokens", type=int, default=MAX_TOKENS, help="of a pair; the rest is cut")
    parser.add_argument("--threads", type=int, default=0, help="cores to use (default: all)")
    parser.add_argument("--keep", type=int, default=0, help="keep the model of every N steps, to choose or average")


def taught(args: argparse.Namespace, late: float = 0.0) -> list[Taught]:
    """Groups, and what the teachers together say of their passages: `late` is the weight of the package's `late`."""
    rows = summed(args, groups_of(args.work, args.queries, args.topical, args.candidates), late)
    if args.keywords:
        text = (args.work / "keywords.jsonl").read_text(encoding="utf-8")
        rows = mixed(rows, summed(args, [json.loads(line) for line in text.splitlines()], late), args.keywords)
    return rows


def summed(args: argparse.Namespace, groups: list[dict], late: float) -> list[Taught]:
    """What the teachers together say; a fragment of keywords.py is worth no more than the worst passage."""
    told = [[args.similarity * near for near in row["teacher"]] for row in groups]
    for name, weight in ((args.teacher, args.scale), ("late", late)):
        if weight:
            read = opinions(args.work, name, groups, args.tokens, args.threads)
            told = [[t + weight * s for t, s in zip(*rows, strict=True)] for rows in zip(told, read, strict=True)]
    for row, theirs in zip(groups, told, strict=True):
        if "least" in row:
            theirs[row["least"]] = min(theirs)
    return list(zip(groups, told, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    options(parser)
    parser.add_argument("--late", type=float, default=LATE, help="weight of the late-interaction model in the package")
    parser.add_argument("--begin", default=None, help="whose layers the student starts with (default: the teacher's)")
    parser.add_argument("--layers", type=int, nargs="+", default=None, help="counted from 0 (default: all)")
    parser.add_argument("--units", type=int, default=0, help="of each feed-forward part; 0 for all")
    parser.add_argument("--rate", type=float, default=LEARNING_RATE, help="peak learning rate")
    parser.add_argument("--epochs", type=int, default=1, help="how often each group is read by the student")
    args = parser.parse_args()
    args.begin = args.begin or args.teacher
    depth = int(named.read(args.begin, default="small").config["num_hidden_layers"])
    args.layers = args.layers or list(range(depth))
    if not all(0 <= layer < depth for layer in args.layers):
        parser.error(f"--layers are 0 to {depth - 1} for {args.begin}")
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = repeated(taught(args, args.late), args.epochs)
    steps = loop.steps_of(parser, len(rows), QUERIES_A_STEP)
    tokenizer = start.tokenizer()
    # One folder a student: trainings may run side by side. One that goes on has it from the first time.
    begun = args.to / "begin"
    if not (args.to / loop.STATE).exists():
        crossrank.checkpoint.export(crossrank.load(args.begin).checkpoint, begun, overwrite=True)
        model = student(begun, args.layers)
        if args.units:
            narrow.units(model, args.units, some_pairs(tokenizer, [row for row, _ in rows], args.tokens))
        times = stretch(args.begin, rows)
        with torch.no_grad():
            for weights in model.classifier.parameters():
                weights.mul_(times)
        loop.write(model, begun)
    model = fresh(begun)

    def loss_of(step: int) -> tuple[torch.Tensor, int]:
        part = rows[step * QUERIES_A_STEP : (step + 1) * QUERIES_A_STEP]
        return step_loss(model, tokenizer, part, args.tokens)

    loop.train(model, args.to, steps, loss_of, args.rate, args.keep, loop.digest(args, rows))


if __name__ == "__main__":
    main()
