"""The training loop of the cross-encoders: AdamW, a linear schedule, checkpoints from which it goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

import start

WARMUP = 0.05
# Steps between two checkpoints, and between two lines of the log.
SAVED, TOLD = 200, 25


def write(model: torch.nn.Module, folder: Path) -> None:
    """The model and its tokenizer, so that `crossrank.load` reads the folder."""
    model.save_pretrained(folder)
    start.tokenizer().save(str(folder / "tokenizer.json"))


def train(
    model: torch.nn.Module,
    to: Path,
    steps: int,
    step_loss: Callable[[int], tuple[torch.Tensor, int]],
    rate: float,
    keep: int = 0,
) -> None:
    """Train `model`, and leave it in `to`; the same call goes on from the last checkpoint there.

    Args:
        model: a transformers model; what needs no gradient stays as it is.
        to: for the model and `state.pt`.
        steps: in all.
        step_loss: the loss of step n with its gradients, and the tokens it took. It must draw from n alone.
        rate: the highest; up over WARMUP of the steps, then down to 0 on a line.
        keep: leave a model of its own every so many steps, to choose from or to average; 0 for none.
    """
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min(1.0, (n + 1) / (WARMUP * steps)) * max(0.0, 1 - n / steps)
    )
    first, state_file = 0, to / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
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
            "schedule": schedule.state_dict(),
        }
        torch.save(state, state_file.with_suffix(".tmp"))
        state_file.with_suffix(".tmp").replace(state_file)

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
