"""Step 1: training groups. Each is a query, one relevant passage, mined negatives, and the start model's opinion.

    python recipes/groups.py TRAIN_FOLDER WORK_FOLDER

Negatives come from BM25 and from the start model over the set's own passages (ranks 1-40, sampled towards the top) and
at random. The start model, all-MiniLM-L6-v2, was trained on a billion pairs; its similarity is kept as a soft label,
and a mined passage that it finds clearly closer to the query than the judged one is dropped as a likely false
negative, as is one that holds the answer where the answer is known.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import replace
from pathlib import Path

import bm25s
import numpy as np
import torch

import crossrank
import start
from crossrank import writing
from sources import TrainingSet, load

# Of each group: from BM25, from the start model, at random. A reranker over a fusion of both meets both kinds.
LEXICAL, DENSE, RANDOM = 4, 3, 1
DEPTH = 40
SEED = 20261123
# Of a passage, the start model reads this many tokens here; more would double the time and change few negatives.
READ = 112
# Texts that are tokenized together.
SLICE = 4096


def sampled(candidates: list[str], n: int, rng: random.Random) -> list[str]:
    """`n` of ranked candidates without replacement, likelier near the top: hard, but not only the very hardest."""
    order = sorted(range(len(candidates)), key=lambda i: rng.expovariate(1.0) * (i + 6))
    return [candidates[i] for i in order[:n]]


def fewer(training: TrainingSet, most: int, rng: random.Random) -> TrainingSet:
    """The set with `most` of its passages: the judged ones, then others drawn at random. Mining embeds them all."""
    judged = {i for _, relevant in training.queries for i in relevant}
    others = [i for i in training.passages if i not in judged]
    kept = judged | set(rng.sample(others, min(len(others), max(0, most - len(judged)))))
    return replace(training, passages={i: text for i, text in training.passages.items() if i in kept})


def vectors(embedder: crossrank.TextEmbedder, texts: list[str]) -> torch.Tensor:
    """Unit vectors of the start model, (n, hidden)."""
    parts = [embedder.embed(texts[begin : begin + SLICE]) for begin in range(0, len(texts), SLICE)]
    return torch.from_numpy(np.concatenate(parts))


def mine(
    training: TrainingSet, queries: torch.Tensor, passages: torch.Tensor, rng: random.Random
) -> list[tuple[str, str, list[str]]]:
    """(query, relevant passage id, negative ids) for every query of one set, given the start model's unit vectors."""
    ids = list(training.passages)
    depth = min(DEPTH, len(ids))
    retriever = bm25s.BM25(k1=0.9, b=0.4)
    retriever.index(bm25s.tokenize([training.passages[i] for i in ids], show_progress=False), show_progress=False)
    words = bm25s.tokenize([query for query, _ in training.queries], show_progress=False)
    lexical, _ = retriever.retrieve(words, k=depth, show_progress=False)
    # In slices: 5,000 queries by 60,000 sentences at once would be 1.2 GB.
    near = torch.cat([(part @ passages.T).topk(depth).indices for part in queries.split(500)])
    groups = []
    for n, (query, relevant) in enumerate(training.queries):
        answers = training.answers.get(n, ())
        taken = set(relevant)

        def fresh(found: list[str], answers: tuple[str, ...] = answers, taken: set[str] = taken) -> list[str]:
            return [i for i in found if i not in taken and not any(a in training.passages[i].lower() for a in answers)]

        chosen = []
        for found, count in (
            ([ids[i] for i in lexical[n]], LEXICAL),
            ([ids[i] for i in near[n].tolist()], DENSE),
            (rng.sample(ids, min(RANDOM + 4, len(ids))), RANDOM),
        ):
            picked = sampled(fresh(found), count, rng)
            chosen += picked
            taken.update(picked)
        groups.append((query, rng.choice(sorted(relevant)), chosen))
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--passages", type=int, default=0, help="mine in at most so many of a set (default: all)")
    parser.add_argument("--sets", nargs="+", default=None, metavar="SET", help="folders of TRAIN to use (default: all)")
    args = parser.parse_args()
    if not args.train.is_dir():
        parser.error(f"there is no folder {args.train}")
    if missing := [name for name in args.sets or [] if not (args.train / name).is_dir()]:
        parser.error(f"there is no {', no '.join(missing)} in {args.train}")
    args.work.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    # The native engine packs what torch pads: mining is mostly the embedding of 200,000 passages.
    embedder = crossrank.load_embedder(start.FOLDER)
    embedder.max_length = READ

    written = 0
    with writing.whole(args.work / "groups.jsonl") as part, part.open("w", encoding="utf-8") as out:
        for whole in load(args.train, SEED, args.sets):
            if not whole.queries:
                print(f"{whole.name}: no queries, left out", flush=True)
                continue
            training = fewer(whole, args.passages, rng) if args.passages else whole
            place = {passage_id: n for n, passage_id in enumerate(training.passages)}
            passages = vectors(embedder, list(training.passages.values()))
            queries = vectors(embedder, [query for query, _ in training.queries])
            mined = mine(training, queries, passages, rng)
            kept = 0
            for n, (query, positive, negatives) in enumerate(mined):
                similarity = {i: float(queries[n] @ passages[place[i]]) for i in [positive, *negatives]}
                negatives = [i for i in negatives if similarity[i] < similarity[positive] + training.margin]
                if not negatives:
                    continue
                kept += 1
                ids = [positive, *negatives]
                row = {
                    "set": training.name,
                    "query": query,
                    "passages": [training.passages[i] for i in ids],
                    "teacher": [round(similarity[i], 4) for i in ids],
                }
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += kept
            print(
                f"{training.name}: {len(training.passages)} passages, {kept} of {len(mined)} queries kept", flush=True
            )
        if not written:
            raise SystemExit(f"no group was made: {args.train} holds no set of sources.py with judged queries to keep")


if __name__ == "__main__":
    main()
