"""Step 2: train the cross-encoder on the groups of step 1. Resumes from its last checkpoint when run again.

    python recipes/train_reranker.py WORK_FOLDER --to CHECKPOINT_FOLDER

Loss for one query with candidates c (the judged passage first):

    cross entropy(softmax(logits), (1 - T) * onehot + T * softmax(start model's similarity / 0.05)) + 0.2 * BCE

Groups of three grades (topical.py) add SAME_TOPIC times the mean of -log softmax of each passage of grade 1 among those
of grade 0: a passage on the subject is worth more than one that shares words with the question.

The list-wise part orders candidates (Cao et al. 2007, ListNet); the small BCE part keeps logits near log-odds, so that
they can be calibrated. T is 0 by default: soft labels forgive unjudged answers among the negatives, but they also teach
the start model's mistakes, and a second pass without them did not unteach those (LOG.md).
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import torch
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification

import loop
import start

CANDIDATES = 6
QUERIES_A_STEP = 16
MAX_TOKENS = 176
MAX_QUERY_TOKENS = 64
MICROBATCH_TOKENS = 4096
TEACHER = 0.0
SAME_TOPIC = 0.4
LEARNING_RATE = 7e-5
SEED = 20261123


def fresh(folder: Path | None = None) -> BertForSequenceClassification:
    """The start model with a one-logit head, or the model in `folder`; word embeddings frozen either way."""
    torch.manual_seed(SEED)
    begin = folder or start.FOLDER
    config = BertConfig.from_pretrained(begin, num_labels=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config.architectures = ["BertForSequenceClassification"]
    model = BertForSequenceClassification.from_pretrained(begin, config=config, attn_implementation="eager")
    model.bert.embeddings.word_embeddings.weight.data.copy_(start.encoder().embeddings.word_embeddings.weight)
    model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    return model


def pair_ids(tokenizer: object, query: str, passages: list[str], most: int = MAX_TOKENS) -> list[tuple[list[int], int]]:
    """(`[CLS] query [SEP] passage [SEP]` ids, length of the query side) a passage, cut to `most` at the end."""
    encoded = [e.ids for e in tokenizer.encode_batch([query, *passages], add_special_tokens=False)]
    head = [101, *encoded[0][:MAX_QUERY_TOKENS], 102]
    return [([*head, *ids[: most - len(head) - 1], 102], len(head)) for ids in encoded[1:]]


def padded_pairs(pairs: Sequence[tuple[list[int], int]]) -> dict[str, torch.Tensor]:
    """What the model is given of pairs as `pair_ids` makes them, by its arguments' names."""
    ids, mask = start.padded([row for row, _ in pairs])
    types = (torch.arange(ids.shape[1])[None] >= torch.tensor([[n] for _, n in pairs])).long() * mask
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def logits_of(model: BertForSequenceClassification, pairs: list[tuple[list[int], int]]) -> torch.Tensor:
    """Raw logits, (n,), computed in microbatches of like length so that little is padding."""
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]))
    parts, begin = [], 0
    while begin < len(order):
        end = begin + 1
        while end < len(order) and len(pairs[order[end]][0]) * (end + 1 - begin) <= MICROBATCH_TOKENS:
            end += 1
        given = padded_pairs([pairs[i] for i in order[begin:end]])
        with start.autocast():
            parts.append(model(**given).logits[:, 0].float())
        begin = end
    return torch.cat(parts)[torch.argsort(torch.tensor(order))]


def step_loss(
    model: BertForSequenceClassification, tokenizer: object, rows: list[dict], rng: random.Random, share: float
) -> tuple[torch.Tensor, int]:
    """Mean loss over the queries of a step, and the tokens it took."""
    pairs, sizes, choices = [], [], []
    for row in rows:
        negatives = rng.sample(range(1, len(row["passages"])), min(CANDIDATES - 1, len(row["passages"]) - 1))
        picked = [0, *sorted(negatives)]
        pairs += pair_ids(tokenizer, row["query"], [row["passages"][i] for i in picked])
        sizes.append(len(picked))
        choices.append(picked)
    losses = []
    for scores, row, picked in zip(logits_of(model, pairs).split(sizes), rows, choices, strict=True):
        judged = torch.zeros(len(scores))
        judged[0] = 1.0
        target = judged
        if share and "teacher" in row:
            opinion = functional.softmax(torch.tensor([row["teacher"][i] for i in picked]) / 0.05, 0)
            target = (1 - share) * judged + share * opinion
        loss = -(target * functional.log_softmax(scores, 0)).sum()
        if "grades" in row:
            grades = torch.tensor([row["grades"][i] for i in picked])
            off = scores[grades == 0]
            same = [-functional.log_softmax(torch.cat([one[None], off]), 0)[0] for one in scores[grades == 1]]
            loss = loss + SAME_TOPIC * torch.stack(same).mean()
        losses.append(loss + 0.2 * functional.binary_cross_entropy_with_logits(scores, judged))
    return torch.stack(losses).mean(), sum(len(ids) for ids, _ in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=0, help="train on the first N shuffled groups (default: all)")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first N shuffled groups")
    parser.add_argument("--begin", type=Path, default=None, help="go on from this model, not from the start model")
    parser.add_argument("--teacher", type=float, default=TEACHER, help="share T of the start model's opinion")
    parser.add_argument("--rate", type=float, default=LEARNING_RATE, help="peak learning rate")
    parser.add_argument("--topical", type=int, default=0, help="of each step's queries, so many are of topical.py")
    parser.add_argument("--threads", type=int, default=0, help="cores to use (default: all)")
    parser.add_argument("--keep", type=int, default=0, help="keep the model of every N steps, to choose or average")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    groups = [json.loads(line) for line in (args.work / "groups.jsonl").read_text(encoding="utf-8").splitlines()]
    random.Random(SEED).shuffle(groups)
    groups = groups[args.skip :][: args.queries or None]
    if not 0 <= args.topical < QUERIES_A_STEP:
        parser.error(f"--topical is of the {QUERIES_A_STEP} queries of a step: 0 to {QUERIES_A_STEP - 1}")
    mined = QUERIES_A_STEP - args.topical
    steps = loop.steps_of(parser, len(groups), mined)
    topical = []
    if args.topical:
        topical = [json.loads(line) for line in (args.work / "topical.jsonl").read_text(encoding="utf-8").splitlines()]
        random.Random(SEED).shuffle(topical)
        if not topical:
            parser.error(f"{args.work / 'topical.jsonl'} is empty; leave --topical out, or run topical.py again")

    model, tokenizer = fresh(args.begin), start.tokenizer()

    def loss_of(step: int) -> tuple[torch.Tensor, int]:
        rows = groups[step * mined : (step + 1) * mined]
        rows += [topical[i % len(topical)] for i in range(step * args.topical, (step + 1) * args.topical)]
        return step_loss(model, tokenizer, rows, random.Random(SEED + step), args.teacher)

    begin = [] if args.begin is None else [sha256((args.begin / "model.safetensors").read_bytes()).hexdigest()]
    loop.train(model, args.to, steps, loss_of, args.rate, args.keep, loop.digest(args, groups, topical, begin))


if __name__ == "__main__":
    main()
