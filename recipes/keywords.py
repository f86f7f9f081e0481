"""Step 1c: groups of queries that are a word or two, as people type them into a search box.

    python recipes/keywords.py WORK_FOLDER

The query is one or two words that tell a passage of step 1 from the others of its set (by tf-idf); its candidates are
that passage, others with such a word, passages that were near the same question but lack it, and a fragment: a text of
one to three words, as tables and menus hold them. Every fourth query is the question itself. Questions alone teach
little about either: a model that had met none put "True" above a sentence with the word that was asked for (LOG.md).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import crossrank
import start
from crossrank.writing import whole
from groups import READ, SEED, vectors
from sources import FUNCTION_WORDS

# Of each group, besides the passage and the fragment: with the word, and without it.
WITH, WITHOUT = 2, 2
# Shares of queries that are one word, and that are the question.
ONE_WORD, QUESTION = 0.6, 0.25
# A word says something where at least two and at most this share of a set's passages hold it.
COMMON = 0.02
# Of a passage's words, by tf-idf, one of so many is asked for.
SALIENT = 3
# Draws until a group is whole, for a set of few passages.
TRIES = 200
FRAGMENTS = (
    "True", "False", "Yes", "No", "None", "N/A", "OK", "Unknown", "Other", "Next", "See also", "Introduction",
    "Overview", "Contents", "Table of contents", "Notes", "References", "Note:", "1", "2.", "2019", "100 %", "-",
)  # fmt: skip


def words(text: str) -> list[str]:
    """Words of four letters and more, in lower case, that say something."""
    return [word for word in re.findall(r"[a-z][a-z'-]{2,}[a-z]", text.lower()) if word not in FUNCTION_WORDS]


class Words:
    """The words of one set's passages: which hold one, and which tell a passage from others."""

    def __init__(self, passages: Sequence[str]) -> None:
        self.passages = passages
        self.holding: dict[str, list[int]] = {}
        for n, text in enumerate(passages):
            for word in dict.fromkeys(words(text)):
                self.holding.setdefault(word, []).append(n)

    def salient(self, text: str) -> list[str]:
        """The passage's best words by tf-idf, ties in the order of the text."""
        most = max(3, COMMON * len(self.passages))
        weights = {
            word: count * math.log(len(self.passages) / len(self.holding[word]))
            for word, count in Counter(words(text)).items()
            if 2 <= len(self.holding[word]) <= most
        }
        return sorted(weights, key=lambda word: -weights[word])[:SALIENT]


def fragment(texts: Sequence[str], rng: random.Random) -> str:
    """A usual one, or one to three words from the middle of some text."""
    if rng.random() < 0.5:
        return rng.choice(FRAGMENTS)
    found = rng.choice(texts).split()
    begin = rng.randrange(len(found))
    return " ".join(found[begin : begin + rng.randint(1, 3)])


def group(row: dict, known: Words, rng: random.Random) -> dict | None:
    """A query and its candidates, the passage first and the fragment last; None where no word tells the passage."""
    if rng.random() < QUESTION:
        passages = row["passages"][: WITH + WITHOUT + 1]
        return {"query": row["query"], "passages": [*passages, fragment(known.passages, rng)]}
    passage = rng.choice(row["passages"])
    salient = known.salient(passage)
    if len(salient) < SALIENT:
        return None
    asked = rng.sample(salient, 1 if rng.random() < ONE_WORD else 2)

    def has(text: str) -> bool:
        return any(word in text.lower() for word in asked)

    others = [known.passages[n] for word in asked for n in known.holding[word]]
    others = [text for text in dict.fromkeys(others) if text != passage]
    near = [text for text in row["passages"] if not has(text)]
    chosen = [
        *rng.sample(others, min(WITH, len(others))),
        *rng.sample(near, min(WITHOUT, len(near))),
    ]
    short = fragment(known.passages, rng)
    for _ in range(TRIES):
        if len(chosen) == WITH + WITHOUT and not has(short):
            break
        # One in a set's thousands of passages is hardly about the words.
        text = rng.choice(known.passages)
        if not has(text) and text not in chosen and len(chosen) < WITH + WITHOUT:
            chosen.append(text)
        short = fragment(known.passages, rng)
    else:
        return None
    query = " ".join(asked)
    return {"query": query if rng.random() < 0.7 else query.title(), "passages": [passage, *chosen, short]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--queries", type=int, default=2000)
    args = parser.parse_args()
    rng = random.Random(SEED)
    rows = [json.loads(line) for line in (args.work / "groups.jsonl").read_text(encoding="utf-8").splitlines()]
    by_set: dict[str, dict[str, None]] = {}
    for row in rows:
        by_set.setdefault(row["set"], {}).update(dict.fromkeys(row["passages"]))
    known = {name: Words(list(passages)) for name, passages in by_set.items()}
    rng.shuffle(rows)
    made: list[dict] = []
    for row in rows:
        if len(made) < args.queries and (found := group(row, known[row["set"]], rng)):
            made.append(found)
    if not made:
        parser.error(f"no passage of {args.work / 'groups.jsonl'} has {SALIENT} words that tell it from others")
    embedder = crossrank.load_embedder(start.FOLDER)
    embedder.max_length = READ
    queries = vectors(embedder, [row["query"] for row in made])
    passages = vectors(embedder, [text for row in made for text in row["passages"]])
    with whole(args.work / "keywords.jsonl") as part, part.open("w", encoding="utf-8") as out:
        begin = 0
        for query, row in zip(queries, made, strict=True):
            near = passages[begin : begin + len(row["passages"])] @ query
            begin += len(near)
            # `least`: no teacher may find the fragment better than the worst passage.
            told = {"teacher": [round(value, 4) for value in near.tolist()], "least": len(near) - 1}
            out.write(json.dumps({**row, **told}, ensure_ascii=False) + "\n")
    print(f"{len(made)} queries")


if __name__ == "__main__":
    main()
