"""Step 3: train the bi-encoder on the groups of step 1.

    python recipes/train_embedder.py WORK_FOLDER --to CHECKPOINT_FOLDER

The start model is already a good general embedder, so it is moved little: in-batch softmax with one mined negative a
query (Henderson et al. 2017), a small rate, a pull towards the start model's own similarities, and at the end the
average of start and tuned weights (Wortsman et al. 2022, "WiSE-FT"), which keeps what the short training would forget.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from pathlib import Path

import torch
from torch.nn import functional

import loop
import start

QUERIES_A_STEP = 32
MAX_TOKENS = 128
LEARNING_RATE = 2e-5
SCALE = 20.0
PULL = 0.5
KEPT = 0.5
SEED = 20261123


def step_loss(
    model: torch.nn.Module, teacher: torch.nn.Module, tokenizer: object, rows: list[dict], rng: random.Random
) -> torch.Tensor:
    """In-batch softmax over all passages of the step, and cross entropy with the start model's own softmax."""
    texts = [row["query"] for row in rows]
    texts += [row["passages"][0] for row in rows]
    texts += [row["passages"][rng.randrange(1, len(row["passages"]))] for row in rows]
    ids = [e.ids[: MAX_TOKENS - 1] + e.ids[-1:] for e in tokenizer.encode_batch(texts)]
    n = len(rows)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    halves = [order[: len(order) // 2], order[len(order) // 2 :]]
    back = torch.argsort(torch.tensor(order))

    def similarities(network: torch.nn.Module) -> torch.Tensor:
        vectors = torch.cat([start.pooled(network, [ids[i] for i in part]) for part in halves])[back]
        return SCALE * vectors[:n] @ vectors[n:].T

    mine = similarities(model)
    with torch.no_grad():
        theirs = functional.softmax(similarities(teacher), dim=1)
    judged = functional.cross_entropy(mine, torch.arange(n))
    kept = -(theirs * functional.log_softmax(mine, dim=1)).sum(1).mean()
    return (1 - PULL) * judged + PULL * kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=1280)
    args = parser.parse_args()
    groups = [json.loads(line) for line in (args.work / "groups.jsonl").read_text(encoding="utf-8").splitlines()]
    random.Random(SEED + 1).shuffle(groups)
    groups = groups[: args.queries]
    steps = loop.steps_of(parser, len(groups), QUERIES_A_STEP)
    torch.manual_seed(SEED)
    model, tokenizer = start.encoder(), start.tokenizer()
    teacher = copy.deepcopy(model).eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 20) * (1 - s / steps))
    began, losses = time.monotonic(), []
    for step in range(steps):
        rows = groups[step * QUERIES_A_STEP : (step + 1) * QUERIES_A_STEP]
        loss = step_loss(model, teacher, tokenizer, rows, random.Random(SEED + step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        if (step + 1) % 25 == 0:
            left = (time.monotonic() - began) / (step + 1) * (steps - step - 1)
            print(f"step {step + 1}/{steps} loss {sum(losses[-25:]) / 25:.4f}, {left / 60:.0f} min left", flush=True)
    model.save_pretrained(args.to / "tuned")
    with torch.no_grad():
        for mine, first in zip(model.parameters(), teacher.parameters(), strict=True):
            mine.copy_((1 - KEPT) * mine + KEPT * first)
    model.save_pretrained(args.to / "averaged")


if __name__ == "__main__":
    main()
