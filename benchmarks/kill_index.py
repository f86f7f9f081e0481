"""Kill `Index.update` with SIGKILL at random moments, and count what was lost. It must be nothing.

    python benchmarks/kill_index.py --kills 200 --corpus FOLDER_IN_BEIR_LAYOUT

A worker process brings an index up to date with a corpus and says on its standard output when a commit has succeeded.
At a random moment it is killed, and the index is opened and checked:

- every document whose commit was reported is there, in its new version;
- every other document of the version before is there, in that version or the new one;
- BM25, vectors, texts and token ids of some committed documents can be read and agree.

When a worker gets to its end, the corpus changes (every text, and one in twenty documents goes or comes back), so that
kills hit the filling, the replacing, the deleting and the tidying of an index. The embedder is a fake, so that the time
goes to the index.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

import machine
from crossrank.errors import CrossrankError
from crossrank.index import Index, commits
from crossrank.index.changes import Progress

WIDTH = 32


class HashEmbedder:
    """Words hashed into a few numbers: fast, and equal texts have equal vectors."""

    width = WIDTH
    fingerprint = "hash-32"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (n, 32)."""
        out = np.full((len(texts), WIDTH), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            np.add.at(out[row], [crc32(word.encode()) % WIDTH for word in text.split()], 1)
        return out / np.linalg.norm(out, axis=1, keepdims=True)


def tokenizer() -> Tokenizer:
    """Letters are tokens: no vocabulary to load."""
    letters = {"[UNK]": 0} | {chr(code): code for code in range(33, 127)}
    letters |= {"##" + chr(code): code + 100 for code in range(33, 127)}
    made = Tokenizer(models.WordPiece(letters, unk_token="[UNK]", max_input_chars_per_word=200))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def work(folder: Path, corpus: Path, commit: int) -> None:
    """What the killed process does."""
    commits.COMMIT_PASSAGES = commit

    def tell(progress: Progress) -> None:
        if progress.stage in ("committed", "tidying", "done"):
            print(progress.stage, progress.documents, flush=True)

    print("start 0", flush=True)
    index = Index.open_or_create(folder, HashEmbedder(), tokenizer(), size=100_000)
    index.update([corpus], HashEmbedder(), tokenizer(), tell)


@dataclass
class Corpus:
    """What the index is to hold, version after version. The version is a word of each text."""

    texts: list[tuple[str, str]]
    file: Path
    version: int = 0
    ids: list[str] = field(default_factory=list)
    before: set[str] = field(default_factory=set)

    def change(self) -> None:
        """Write the next version."""
        self.before = set(self.ids)
        self.version += 1
        kept = [row for number, row in enumerate(self.texts) if (number + self.version) % 20]
        self.ids = [id_ for id_, _ in kept]
        with self.file.open("w", encoding="utf-8") as out:
            for id_, text in kept:
                out.write(json.dumps({"_id": id_, "text": f"{text} uniq{id_} version{self.version}"}) + "\n")


@dataclass
class Tally:
    """What was found after the kills."""

    kills: int = 0
    finished: int = 0
    unopened: int = 0
    lost: int = 0
    wrong: int = 0
    stages: dict[str, int] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


def read_corpus(folder: Path | None, passages: int) -> list[tuple[str, str]]:
    """Documents of a BEIR folder, or made-up ones."""
    if folder is None:
        words = random.Random(0)
        return [
            (f"d{n}", " ".join(f"word{int(words.paretovariate(0.5)) % 5000}" for _ in range(60)))
            for n in range(passages)
        ]
    file = next(path for name in ("corpus.jsonl", "corpus.jsonl.gz") if (path := folder / name).exists())
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [(row["_id"], f"{row.get('title', '')} {row['text']}".strip()) for row in rows][:passages]


def run_and_kill(folder: Path, corpus: Corpus, commit: int, after: float | None) -> tuple[str, int, float]:
    """One worker: what it said last, the documents whose commit it reported, and how long it ran."""
    command = [sys.executable, __file__, "--worker", str(folder), str(corpus.file), "--commit", str(commit)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if worker.stdout is None or not worker.stdout.readline().startswith("start"):
        raise SystemExit("the worker did not start")
    began = time.monotonic()
    if after is not None:
        try:
            worker.wait(after)
        except subprocess.TimeoutExpired:
            worker.send_signal(signal.SIGKILL)
    said = [line.split() for line in worker.stdout.read().splitlines()]
    worker.wait()
    if worker.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"the worker failed by itself ({worker.returncode}): run it without kills")
    reported = max((int(documents) for stage, documents in said if stage == "committed"), default=0)
    return (said[-1][0] if said else "start"), reported, time.monotonic() - began


def check(folder: Path, corpus: Corpus, reported: int, done: bool, tally: Tally) -> None:
    """Open the index and compare it with what was reported."""
    if not (folder / "passages.lance" / "_versions").exists() and reported == 0 and not corpus.before:
        return  # Killed before there was an index: nothing was committed.
    try:
        index = Index.open(folder)
        ids = index.ids()
        texts = {passage.id: passage.text for passage in index.passages(ids)}
        lengths = dict(zip(ids, index.tokens(ids).lengths.tolist(), strict=True))
    except CrossrankError as error:
        # Before the first commit a missing table is told as such, which is no failure.
        if reported or corpus.before:
            tally.unopened += 1
            tally.messages.append(str(error))
        return
    new, old = f"version{corpus.version}", f"version{corpus.version - 1}"
    safe = corpus.ids if done else corpus.ids[:reported]
    for id_ in safe:
        tally.lost += not texts.get(id_, "").endswith(new)
    for id_ in set(corpus.ids[len(safe) :]) & corpus.before:
        tally.lost += not texts.get(id_, "").endswith((new, old))
    tally.wrong += len(ids) != len(set(ids)) or (done and set(ids) != set(corpus.ids))
    for id_ in random.sample(safe, min(5, len(safe))):
        found = index.bm25(f"uniq{id_}", 3).ids
        nearest = index.dense(HashEmbedder().embed([texts[id_]])[0], 3)
        whole = lengths[id_] == sum(map(len, texts[id_].split())) or not texts[id_].isascii()
        if found[:1] != (id_,) or abs(float(nearest.scores[0]) - 1) > 1e-3 or not whole:
            tally.wrong += 1
            tally.messages.append(f"{id_}: BM25 {found}, nearest {nearest.ids}, {lengths[id_]} tokens")


def main() -> int:
    """Kill, check, and print the tally as a line for people and a line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--corpus", type=Path, help="a folder in the BEIR layout; made-up texts when absent")
    parser.add_argument("--passages", type=int, default=100_000, help="of the corpus, at most")
    parser.add_argument("--commit", type=int, default=256, help="passages of one commit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", nargs=2, type=Path, metavar=("INDEX", "CORPUS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(*options.worker, options.commit)
        return 0
    random.seed(options.seed)
    tally = Tally()
    began = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="kill-index-"))
    try:
        corpus = Corpus(read_corpus(options.corpus, options.passages), place / "corpus.jsonl")
        torture(place, corpus, options.kills, options.commit, tally)
    finally:
        shutil.rmtree(place)
    figures = {
        "kills": tally.kills,
        "documents": len(corpus.texts),
        "finished_runs": tally.finished,
        "failed_opens": tally.unopened,
        "lost_passages": tally.lost,
        "wrong_answers": tally.wrong,
        "last_words": tally.stages,
        "seconds": round(time.monotonic() - began),
    }
    about = machine.describe(machine.cores())
    for message in tally.messages[:10]:
        print(message)
    print(", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in figures.items()))
    print(json.dumps({**figures, "machine": about}))
    return 1 if tally.unopened or tally.lost or tally.wrong else 0


def torture(place: Path, corpus: Corpus, kills: int, commit: int, tally: Tally) -> None:
    """Kill until there were enough kills. The moment is uniform over the time that an uninterrupted run would take."""
    folder = place / "index"
    corpus.change()
    _, _, whole = run_and_kill(place / "rehearsal", corpus, commit, None)
    shutil.rmtree(place / "rehearsal")
    rounds = 0
    while tally.kills < kills:
        last, reported, _ = run_and_kill(folder, corpus, commit, random.uniform(0, whole))
        done = last == "done"
        tally.finished += done
        tally.kills += not done
        tally.stages[last] = tally.stages.get(last, 0) + 1
        check(folder, corpus, reported, done, tally)
        if done:
            rounds += 1
            corpus.change()
            if rounds % 4 == 0:  # From nothing again, now and then.
                shutil.rmtree(folder)
                corpus.before = set()


if __name__ == "__main__":
    raise SystemExit(main())
