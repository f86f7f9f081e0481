"""The mean of several checkpoints of one training (a "model soup", Wortsman et al. 2022).

python recipes/average.py CHECKPOINT... --to FOLDER
python recipes/average.py TRAINING --last 2 --to FOLDER      # its end, and the last two models that --keep has left
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def kept(training: Path, last: int) -> list[Path]:
    """The last so many models that a training has left beside its end; ends the program where there are fewer."""
    found = sorted(training.glob("step-*"))
    if len(found) < last:
        raise SystemExit(f"{training} has kept {len(found)} models, not {last}: train with --keep")
    return found[len(found) - last :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "checkpoints", nargs="+", type=Path, help="folders; the first gives config.json and the tokenizer"
    )
    parser.add_argument("--last", type=int, default=0, metavar="N", help="of each folder, the last N it has kept, too")
    parser.add_argument("--to", type=Path, required=True)
    args = parser.parse_args()
    folders = [folder for end in args.checkpoints for folder in (end, *kept(end, args.last))]
    parts = [load_file(folder / "model.safetensors") for folder in folders]
    if any(part.keys() != parts[0].keys() for part in parts):
        raise SystemExit("these are not checkpoints of one training: their tensors have other names")
    mean = {name: torch.stack([part[name].float() for part in parts]).mean(0) for name in parts[0]}
    args.to.mkdir(parents=True, exist_ok=True)
    save_file(mean, args.to / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(args.checkpoints[0] / name, args.to / name)


if __name__ == "__main__":
    main()
