"""Step 3b: train the late-interaction model on the groups of step 1. Resumes from its last checkpoint when run again.

    python recipes/train_late.py WORK_FOLDER --teacher MODEL --to CHECKPOINT_FOLDER

It starts as layers of the start model and a random orthogonal map to `--dim` numbers. Score of a query with a passage:

    s = QUERY_TOKENS * mean over query tokens of the largest cosine with a token of the passage

which is MaxSim (Khattab and Zaharia 2020) as if every query had as many tokens, so that the softmax is as sharp for
short queries as for long ones. As in ColBERTv2 (Santhanam et al. 2022) it learns from a cross-encoder; t is that one's
score plus SIMILARITY times the start model's cosine, as in distil.py. Loss for one query with candidates c (the judged
passage first) and the candidates o of the step's other queries:

    cross entropy((1 - T) * onehot + T * softmax(t over c), softmax(s over c))
      + OTHERS * cross entropy(onehot, softmax(s over the judged passage and o))

Texts are encoded by the class that encodes them for users (`crossrank.lateencoder`): same markers, same cuts, same
tokens left out. Passages are cut to --tokens here and to LATE.document_length there.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

import loop
import start
from crossrank.checkpoint.late import Late, late_files
from crossrank.lateencoder import LateEncoder, Marked
from distil import options, taught
from train_reranker import MICROBATCH_TOKENS, QUERIES_A_STEP, SEED

# Markers from the start model's own vocabulary, whose embeddings are frozen and shared: new words would need rows.
LATE = Late(query_mark="[unused0]", document_mark="[unused1]", query_length=32, document_length=256, expand=False)
LAYERS = [0, 1, 2, 3, 4, 5]
DIM = 96
QUERY_TOKENS = 32
TEACHER = 0.8
OTHERS = 0.2
LEARNING_RATE = 1e-4


class LateModel(torch.nn.Module):
    """Layers of the start model, then a linear map of every token's vector."""

    def __init__(self, layers: list[int], dim: int) -> None:
        super().__init__()
        torch.manual_seed(SEED)
        self.bert = start.encoder()
        self.bert.encoder.layer = torch.nn.ModuleList(self.bert.encoder.layer[i] for i in layers)
        self.bert.config.num_hidden_layers = len(layers)
        self.linear = torch.nn.Linear(self.bert.config.hidden_size, dim, bias=False)
        torch.nn.init.orthogonal_(self.linear.weight)

    def vectors(self, texts: Marked) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors of the tokens that count, padded with zeros, (n, longest, dim), and which are real."""
        rows = [texts.tokens.row(i).tolist() for i in range(len(texts.tokens))]
        kept = [torch.from_numpy(part) for part in np.split(texts.kept, texts.tokens.offsets[1:-1])]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found: dict[int, torch.Tensor] = {}
        begin = 0
        while begin < len(order):
            end = begin + 1
            while end < len(order) and len(rows[order[end]]) * (end + 1 - begin) <= MICROBATCH_TOKENS:
                end += 1
            part = order[begin:end]
            ids, mask = start.padded([rows[i] for i in part])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                mapped = self.linear(self.bert(input_ids=ids, attention_mask=mask).last_hidden_state)
            unit = functional.normalize(mapped.float(), dim=-1)
            found |= {i: unit[place, : len(rows[i])][kept[i]] for place, i in enumerate(part)}
            begin = end
        vectors = [found[i] for i in range(len(rows))]
        real = [torch.ones(len(one), dtype=torch.bool) for one in vectors]
        return pad_sequence(vectors, batch_first=True), pad_sequence(real, batch_first=True)

    def save_pretrained(self, folder: Path) -> None:
        """A folder in PyLate's layout; with a tokenizer, `crossrank.load_late` reads it."""
        self.bert.save_pretrained(folder)
        dense = folder / "1_Dense"
        dense.mkdir(exist_ok=True)
        save_file({"linear.weight": self.linear.weight.detach().contiguous()}, dense / "model.safetensors")
        dim, width = self.linear.weight.shape
        settings = {**late_files(LATE, width, dim), "tokenizer_config.json": start.TOKENIZER_SETTINGS}
        for name, value in settings.items():
            (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def scores(model: LateModel, queries: Marked, documents: Marked) -> torch.Tensor:
    """`s` of every query with every document, (queries, documents)."""
    asked, asked_real = model.vectors(queries)
    read, read_real = model.vectors(documents)
    near = torch.einsum("qid,njd->qnij", asked, read).masked_fill(~read_real[None, :, None], -1.0)
    largest = near.amax(3).masked_fill(~asked_real[:, None], 0.0)
    return QUERY_TOKENS * largest.sum(2) / asked_real.sum(1)[:, None]


def step_loss(model: LateModel, encoder: LateEncoder, rows: list[tuple[dict, list[float]]]) -> tuple[torch.Tensor, int]:
    """Mean loss over the queries of a step, and the tokens it took."""
    queries = encoder.queries([row["query"] for row, _ in rows])
    documents = encoder.documents([text for row, _ in rows for text in row["passages"]])
    found, losses, begin = scores(model, queries, documents), [], 0
    for query, (_, told) in enumerate(rows):
        end = begin + len(told)
        own = found[query, begin:end]
        target = TEACHER * functional.softmax(torch.tensor(told), 0)
        target[0] += 1 - TEACHER
        loss = -(target * functional.log_softmax(own, 0)).sum()
        others = torch.cat([own[:1], found[query, :begin], found[query, end:]])
        losses.append(loss - OTHERS * functional.log_softmax(others, 0)[0])
        begin = end
    return torch.stack(losses).mean(), len(queries.tokens.ids) + len(documents.tokens.ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    options(parser)
    parser.add_argument("--layers", type=int, nargs="+", default=LAYERS, help="of the start model, counted from 0")
    parser.add_argument("--dim", type=int, default=DIM, help="numbers in a token's vector")
    parser.add_argument("--rate", type=float, default=LEARNING_RATE, help="peak learning rate")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = taught(args)
    model = LateModel(args.layers, args.dim)
    encoder = LateEncoder(start.tokenizer(), replace(LATE, document_length=args.tokens))

    def loss_of(step: int) -> tuple[torch.Tensor, int]:
        part = rows[step * QUERIES_A_STEP : (step + 1) * QUERIES_A_STEP]
        return step_loss(model, encoder, part)

    loop.train(model, args.to, len(rows) // QUERIES_A_STEP, loss_of, args.rate, args.keep)


if __name__ == "__main__":
    main()
