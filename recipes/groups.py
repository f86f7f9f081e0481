"""Step 1: training groups. Each is a query, one relevant passage, mined negatives, and the start model's opinion.

    python recipes/groups.py TRAIN_FOLDER WORK_FOLDER

Negatives come from BM25 over the set's own passages (ranks 1-40, sampled towards the top) and at random. The start
model, all-MiniLM-L6-v2, was trained on a billion pairs; its similarity is kept as a soft label, and a mined passage
that it finds clearly closer to the query than the judged one is dropped as a likely false negative.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import bm25s
import torch

import start
from sources import TrainingSet, load

HARD, RANDOM = 5, 1
# A mined passage this much closer than the judged one is more often an unjudged answer than a mistake.
FALSE_NEGATIVE_MARGIN = 0.03
SEED = 20261123


def mine(training: TrainingSet, rng: random.Random) -> list[tuple[str, str, list[str]]]:
    """(query, relevant passage id, negative ids) for every query of one set."""
    ids = list(training.passages)
    retriever = bm25s.BM25(k1=0.9, b=0.4)
    retriever.index(bm25s.tokenize([training.passages[i] for i in ids], show_progress=False), show_progress=False)
    words = bm25s.tokenize([query for query, _ in training.queries], show_progress=False)
    found, _ = retriever.retrieve(words, k=min(40, len(ids)), show_progress=False)
    groups = []
    for (query, relevant), row in zip(training.queries, found, strict=True):
        candidates = [ids[i] for i in row if ids[i] not in relevant]
        # Ranks drawn without replacement, likelier near the top: hard negatives, but not only the very hardest.
        weighted = sorted(range(len(candidates)), key=lambda i: rng.expovariate(1.0) * (i + 6))
        hard = [candidates[i] for i in weighted[:HARD]]
        easy = [i for i in rng.sample(ids, min(RANDOM + 4, len(ids))) if i not in relevant and i not in hard]
        groups.append((query, rng.choice(sorted(relevant)), hard + easy[:RANDOM]))
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("work", type=Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    torch.manual_seed(SEED)
    tokenizer, model = start.tokenizer(), start.encoder().eval()

    def rows(texts: list[str]) -> list[list[int]]:
        return [e.ids[:111] + e.ids[-1:] if len(e.ids) > 112 else e.ids for e in tokenizer.encode_batch(texts)]

    with open(args.work / "groups.jsonl", "w", encoding="utf-8") as out:
        for training in load(args.train, SEED):
            mined = mine(training, rng)
            needed = sorted({i for _, positive, negatives in mined for i in [positive, *negatives]})
            place = {passage_id: n for n, passage_id in enumerate(needed)}
            with torch.inference_mode():
                passages = start.mean_pool(model, rows([training.passages[i] for i in needed]))
                queries = start.mean_pool(model, rows([query for query, _, _ in mined]))
            kept = 0
            for n, (query, positive, negatives) in enumerate(mined):
                similarity = {i: float(queries[n] @ passages[place[i]]) for i in [positive, *negatives]}
                negatives = [i for i in negatives if similarity[i] < similarity[positive] + FALSE_NEGATIVE_MARGIN]
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
            print(
                f"{training.name}: {len(training.passages)} passages, {kept} of {len(mined)} queries kept", flush=True
            )


if __name__ == "__main__":
    main()
