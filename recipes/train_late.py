"""Step 3b: train the late-interaction model on the groups of step 1. Resumes from its last checkpoint when run again.

    python recipes/train_late.py WORK_FOLDER --teacher MODEL --to CHECKPOINT_FOLDER

Its lower layers are those of `embed`, the bi-encoder in the package, and stay as they are, so that the package holds
them once; the OWN last layers start as `embed`'s and are trained. Then a linear map to `--dim` numbers, which starts as
the main directions of `embed`'s own token vectors. Score of a query with a passage:

    s = QUERY_TOKENS * mean over query tokens of the largest cosine with a token of the passage

which is MaxSim (Khattab and Zaharia 2020) as if every query had as many tokens, so that the softmax is as sharp for
short queries as for long ones. As in ColBERTv2 (Santhanam et al. 2022) it learns from a cross-encoder; t is that one's
score plus SIMILARITY times the start model's cosine, as in distil.py. Loss for one query with candidates c (the judged
passage first) and the candidates o of the step's other queries:

    cross entropy((1 - T) * onehot + T * softmax(t over c), softmax(s over c))
      + OTHERS * cross entropy(onehot, softmax(s over the judged passage and o))

Texts are encoded by the class that encodes them for users (`crossrank.lateencoder`): same cuts, same tokens left out.
There are no markers: frozen layers have never seen any. Passages are cut to --tokens here and to LATE.document_length
there.
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
from crossrank.lateencoder import LateEncoder
from crossrank.models import named
from distil import QUERY_TOKENS, options, taught
from frozen import States
from train_reranker import MICROBATCH_TOKENS, QUERIES_A_STEP, SEED

BASE = "embed"
LATE = Late(query_mark="", document_mark="", query_length=128, document_length=256, expand=False)
OWN = 2
DIM = 96
TEACHER = 0.8
OTHERS = 0.2
LEARNING_RATE = 2e-4
# Texts whose token vectors give the map its start.
SAMPLE = 600


class Texts:
    """All queries and passages of a training: their frozen states, and which tokens count in a passage."""

    def __init__(self, texts: list[str], tokens: int, own: int, work: Path, threads: int) -> None:
        base = named.read(BASE, default=BASE)
        encoder = LateEncoder(start.tokenizer(), replace(LATE, query_length=tokens, document_length=tokens))
        read = encoder.documents(texts)
        rows = [read.tokens.row(i).tolist() for i in range(len(texts))]
        self.lengths = [len(row) for row in rows]
        self.kept = [torch.from_numpy(part) for part in np.split(read.kept, read.tokens.offsets[1:-1])]
        self.states = States(base, int(base.config["num_hidden_layers"]) - own, rows, work, threads)


class LateModel(torch.nn.Module):
    """The last layers of `embed`, then a linear map of every token's vector."""

    def __init__(self, own: int, dim: int, texts: Texts) -> None:
        super().__init__()
        self._texts = texts
        self.bert = start.encoder()
        tensors = named.read(BASE, default=BASE).tensors()
        self.bert.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, strict=False)
        self.bert.requires_grad_(False)
        self.layers = self.bert.encoder.layer[len(self.bert.encoder.layer) - own :]
        self.layers.requires_grad_(True)
        self.linear = torch.nn.Linear(self.bert.config.hidden_size, dim, bias=False)
        with torch.no_grad():
            some = np.random.default_rng(SEED).choice(len(texts.lengths), SAMPLE).tolist()
            vectors = torch.cat(self._unit(some, None))
            self.linear.weight.copy_(torch.linalg.eigh(vectors.T @ vectors).eigenvectors[:, -dim:].T)

    def vectors(self, rows: list[int], query: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors of the tokens that count, padded with zeros, (n, longest, dim), and which are real."""
        found = self._unit(rows, self.linear)
        if not query:
            found = [one[self._texts.kept[row]] for one, row in zip(found, rows, strict=True)]
        real = [torch.ones(len(one), dtype=torch.bool) for one in found]
        return pad_sequence(found, batch_first=True), pad_sequence(real, batch_first=True)

    def _unit(self, rows: list[int], linear: torch.nn.Linear | None) -> list[torch.Tensor]:
        lengths = [self._texts.lengths[row] for row in rows]
        order = sorted(range(len(rows)), key=lambda i: lengths[i])
        found: dict[int, torch.Tensor] = {}
        begin = 0
        while begin < len(order):
            end = begin + 1
            while end < len(order) and lengths[order[end]] * (end + 1 - begin) <= MICROBATCH_TOKENS:
                end += 1
            part = order[begin:end]
            states, real = self._texts.states.padded([rows[i] for i in part])
            hidden = (~real)[:, None, None] * torch.finfo(torch.float32).min
            with start.autocast():
                for layer in self.layers:
                    states = layer(states, hidden)
                states = states if linear is None else linear(states)
            unit = functional.normalize(states.float(), dim=-1)
            found |= {i: unit[place, : lengths[i]] for place, i in enumerate(part)}
            begin = end
        return [found[i] for i in range(len(rows))]

    def save_pretrained(self, folder: Path) -> None:
        """A whole folder in PyLate's layout; with a tokenizer, `crossrank.load_late` reads it."""
        self.bert.save_pretrained(folder)
        dense = folder / "1_Dense"
        dense.mkdir(exist_ok=True)
        save_file({"linear.weight": self.linear.weight.detach().contiguous()}, dense / "model.safetensors")
        dim, width = self.linear.weight.shape
        settings = {**late_files(LATE, width, dim), "tokenizer_config.json": start.TOKENIZER_SETTINGS}
        for name, value in settings.items():
            (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def scores(model: LateModel, queries: list[int], documents: list[int]) -> torch.Tensor:
    """`s` of every query with every document, (queries, documents)."""
    asked, asked_real = model.vectors(queries, query=True)
    read, read_real = model.vectors(documents, query=False)
    with start.autocast():
        near = torch.einsum("qid,njd->qnij", asked, read)
    largest = near.float().masked_fill(~read_real[None, :, None], -1.0).amax(3).masked_fill(~asked_real[:, None], 0.0)
    return QUERY_TOKENS * largest.sum(2) / asked_real.sum(1)[:, None]


def step_loss(model: LateModel, rows: list[tuple[int, list[int], list[float]]]) -> torch.Tensor:
    """Mean loss over the queries of a step: query, passages, what is told of them."""
    found = scores(model, [query for query, _, _ in rows], [text for _, texts, _ in rows for text in texts])
    losses, begin = [], 0
    for query, (_, _, told) in enumerate(rows):
        end = begin + len(told)
        own = found[query, begin:end]
        target = TEACHER * functional.softmax(torch.tensor(told), 0)
        target[0] += 1 - TEACHER
        loss = -(target * functional.log_softmax(own, 0)).sum()
        others = torch.cat([own[:1], found[query, :begin], found[query, end:]])
        losses.append(loss - OTHERS * functional.log_softmax(others, 0)[0])
        begin = end
    return torch.stack(losses).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    options(parser)
    parser.add_argument("--own", type=int, default=OWN, help="last layers that are trained")
    parser.add_argument("--dim", type=int, default=DIM, help="numbers in a token's vector")
    parser.add_argument("--rate", type=float, default=LEARNING_RATE, help="peak learning rate")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    groups = taught(args)
    steps = loop.steps_of(parser, len(groups), QUERIES_A_STEP)
    place: dict[str, int] = {}
    for row, _ in groups:
        for text in (row["query"], *row["passages"]):
            place.setdefault(text, len(place))
    rows = [(place[row["query"]], [place[text] for text in row["passages"]], told) for row, told in groups]
    texts = Texts(list(place), args.tokens, args.own, args.work, args.threads)
    model = LateModel(args.own, args.dim, texts)

    def loss_of(step: int) -> tuple[torch.Tensor, int]:
        part = rows[step * QUERIES_A_STEP : (step + 1) * QUERIES_A_STEP]
        used = sum(texts.lengths[i] for query, passages, _ in part for i in (query, *passages))
        return step_loss(model, part), used

    of = loop.digest(args, groups, [named.read(BASE, default=BASE).fingerprint])
    loop.train(model, args.to, steps, loss_of, args.rate, args.keep, of)


if __name__ == "__main__":
    main()
