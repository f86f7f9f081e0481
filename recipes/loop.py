"""The training loop of the cross-encoders: AdamW, a linear schedule, checkpoints from which it goes on."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

import start
from crossrank.writing import whole

WARMUP = 0.05
# Steps between two checkpoints, and between two lines of the log.
SAVED, TOLD = 200, 25
# The file of a checkpoint's state.
STATE = "state.pt"
# Options that change nothing of what is trained.
FREE = ("work", "to", "threads", "keep")


def steps_of(parser: argparse.ArgumentParser, groups: int, each: int) -> int:
    """How many steps of `each` groups there are; ends the program when there is none."""
    if groups < each:
        parser.error(f"a step takes {each} groups and there are {groups}: make more, or leave fewer out")
    return groups // each


def digest(args: argparse.Namespace, *parts: Iterable[object]) -> str:
    """Of all that decides a training: its options, and the rows that it learns from."""
    options = {name: value for name, value in sorted(vars(args).items()) if name not in FREE}
    known = sha256(json.dumps(options, default=str).encode())
    for part in parts:
        for row in part:
            known.update(json.dumps(row).encode() + b"\n")
        known.update(b"\n")
    return known.hexdigest()


def write(model: torch.nn.Module, folder: Path) -> None:
    """The model and its tokenizer, so that `crossrank.load` reads the folder."""
    model.save_pretrained(folder)
    start.tokenizer().save(str(folder / "tokenizer.json"))


def begun(to: Path, state_file: Path, of: str) -> dict[str, Any] | None:
    """The last checkpoint in `to`, if there is one; ends the program where it is of another training."""
    if not state_file.exists():
        return None
    state = torch.load(state_file, weights_only=True)
    if state.get("of") != of:
        raise SystemExit(f"{to} is of a training with other settings or data: delete it, or name another --to")
    return state


def train(
    model: torch.nn.Module,
    to: Path,
    steps: int,
    step_loss: Callable[[int], tuple[torch.Tensor, int]],
    rate: float,
    keep: int = 0,
    of: str = "",
) -> None:
    """Train `model`, and leave it in `to`; the same call goes on from the last checkpoint there.

    Args:
        model: a transformers model; what needs no gradient stays as it is.
        to: for the model and `state.pt`.
        steps: in all.
        step_loss: the loss of step n with its gradients, and the tokens it took. It must draw from n alone.
        rate: the highest; up over WARMUP of the steps, then down to 0 on a line.
        keep: leave a model of its own every so many steps, to choose from or to average; 0 for none.
        of: the `digest` of this training; a checkpoint of another one is refused.
    """
    first, state_file = 0, to / STATE
    state = begun(to, state_file, of)
    if state is not None and state["step"] == steps:
        print(f"already finished: {to}")
        return
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min(1.0, (n + 1) / (WARMUP * steps)) * max(0.0, 1 - n / steps)
    )
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["step"]
    to.mkdir(parents=True, exist_ok=True)

    def save(step: int) -> None:
        write(model, to)
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "of": of,
            "schedule": schedule.state_dict(),
        }
        with whole(state_file) as part:
            torch.save(state, part)

    began, tokens, losses = time.monotonic(), 0, []
    for step in range(first, steps):
        loss, used = step_loss(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += used
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise SystemExit(f"the loss is {losses[-1]} at step {step}; lower the rate ({rate:g}) and start again")
        if (step + 1) % TOLD == 0:
            seconds = time.monotonic() - began
            left = seconds / (step + 1 - first) * (steps - step - 1)
            print(
                f"step {step + 1}/{steps} loss {sum(losses[-100:]) / len(losses[-100:]):.4f} "
                f"{tokens / seconds:.0f} tokens/s, {left / 60:.0f} min left",
                flush=True,
            )
        if (step + 1) % SAVED == 0:
            save(step + 1)
        if keep and (step + 1) % keep == 0:
            write(model, to / f"step-{step + 1:05d}")
    save(steps)
