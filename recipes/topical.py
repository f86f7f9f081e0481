"""Step 1b: groups of three grades from SQuAD's articles, for an order also among passages that do not answer.

    python recipes/topical.py TRAIN_FOLDER WORK_FOLDER

A question, the sentence that answers it (grade 2), two sentences of the same article without the answer (1), and three
of other articles that BM25 or the start model find near (0). The groups of step 1 say only what answers; nothing there
tells the model that a passage on the subject is worth more than one that shares a word with the question.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import bm25s

import crossrank
import start
from crossrank.writing import whole
from groups import READ, SEED, vectors
from sources import load, read_jsonl

SAME, OTHER = 2, 3
# How deep the two searches look, and how many of each kind are drawn from.
DEPTH, POOL = 300, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("work", type=Path)
    args = parser.parse_args()
    if not args.train.is_dir():
        parser.error(f"there is no folder {args.train}")
    rng = random.Random(SEED)
    sentences = next((s for s in load(args.train, SEED) if s.name == "squad_sentences"), None)
    if sentences is None or not sentences.queries:
        parser.error(f"groups.py leaves no questions of squad_dev in {args.train}, and these groups are made of them")
    titles = {str(row["_id"]): row.get("title") for row in read_jsonl(args.train / "squad_dev" / "corpus.jsonl.gz")}
    article = {i: titles[i.rpartition("-")[0]] for i in sentences.passages}
    ids, texts = list(sentences.passages), list(sentences.passages.values())
    asked = [query for query, _ in sentences.queries]
    embedder = crossrank.load_embedder(start.FOLDER)
    embedder.max_length = READ
    queries, passages = vectors(embedder, asked), vectors(embedder, texts)
    place = {i: n for n, i in enumerate(ids)}
    depth = min(DEPTH, len(ids))
    near = (queries @ passages.T).topk(depth).indices.tolist()
    retriever = bm25s.BM25(k1=0.9, b=0.4)
    retriever.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
    words, _ = retriever.retrieve(bm25s.tokenize(asked, show_progress=False), k=depth, show_progress=False)
    kept = 0
    args.work.mkdir(parents=True, exist_ok=True)
    with whole(args.work / "topical.jsonl") as part, part.open("w", encoding="utf-8") as out:
        for n, (query, relevant) in enumerate(sentences.queries):
            right = next(iter(relevant))
            answers = sentences.answers.get(n, ())

            def without(
                found: list[int], same: bool, right: str = right, answers: tuple[str, ...] = answers
            ) -> list[str]:
                """The nearest found sentences of this article, or of others, that do not hold the answer."""
                there = (ids[row] for row in found if (article[ids[row]] == article[right]) == same)
                wrong = [i for i in there if i != right]
                return [i for i in wrong if not any(a in sentences.passages[i].lower() for a in answers)][:POOL]

            same = without(near[n], True)
            other = list(dict.fromkeys([*without(near[n], False), *without(words[n].tolist(), False)]))
            if len(same) < SAME or len(other) < OTHER:
                continue
            chosen = [right, *rng.sample(same, SAME), *rng.sample(other, OTHER)]
            row = {
                "query": query,
                "passages": [sentences.passages[i] for i in chosen],
                "grades": [2, 1, 1, 0, 0, 0],
                "teacher": [round(float(queries[n] @ passages[place[i]]), 4) for i in chosen],
            }
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            kept += 1
        if not kept:
            raise SystemExit(f"no group was made of {len(asked)} questions: their articles have too few sentences")
    print(f"{kept} of {len(asked)} questions kept")


if __name__ == "__main__":
    main()
