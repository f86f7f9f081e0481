"""The mean of several checkpoints of one training (a "model soup", Wortsman et al. 2022).

python recipes/average.py CHECKPOINT... --to FOLDER
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "checkpoints", nargs="+", type=Path, help="folders; the first gives config.json and the tokenizer"
    )
    parser.add_argument("--to", type=Path, required=True)
    args = parser.parse_args()
    parts = [load_file(folder / "model.safetensors") for folder in args.checkpoints]
    if any(part.keys() != parts[0].keys() for part in parts):
        raise SystemExit("these are not checkpoints of one training: their tensors have other names")
    mean = {name: torch.stack([part[name].float() for part in parts]).mean(0) for name in parts[0]}
    args.to.mkdir(parents=True, exist_ok=True)
    save_file(mean, args.to / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(args.checkpoints[0] / name, args.to / name)


if __name__ == "__main__":
    main()
