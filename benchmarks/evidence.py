"""Is the marked sentence the one that answers? Against the sentence of the same passage that BM25 prefers.

    python benchmarks/evidence.py DATA_FOLDER [--sets selqa:test wikiqa:test] [--leave-one-out] [--out FILE.json]

SelQA and WikiQA judge sentences: each question has one stretch of Wikipedia, and people said which of its sentences
contain the answer. The stretch becomes one passage, which is split again without that knowledge. A marked span counts
when it covers half of an answering sentence, or half of it is one. Intervals are 95 %, bootstrap over questions;
differences are paired. Sentences are drawn from passages with two or more, of which one answers and one does not.

BM25 (bm25s, Lucene's formula, k1 1.2, b 0.75, English stop words, Snowball stems) counts all sentences of the set as
its documents. `--leave-one-out` adds the two rankings that were tried and not taken: the drop of the passage's score
without the sentence, and its sum with the sentence's own score, both standardized within the passage. `--cache FILE`
remembers scores. Needs the extra eval and `pip install bm25s snowballstemmer`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine


@dataclass(frozen=True)
class Case:
    """One question, its passage, and where the answers lie in it."""

    id: str
    query: str
    title: str
    text: str
    answers: list[tuple[int, int]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of judged sets, one folder each")
    parser.add_argument("--sets", nargs="+", default=["selqa:test", "wikiqa:test"], metavar="SET:SPLIT")
    parser.add_argument("--model", default="small")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--questions", type=int, default=400, help="at most this many of a set, drawn by --seed")
    parser.add_argument("--leave-one-out", action="store_true", help="also what was tried and not taken; takes long")
    parser.add_argument("--cache", type=Path, default=None, help="remember scores in this file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=machine.cores())
    machine.out_option(parser)
    return parser.parse_args()


def read_cases(folder: Path, split: str, most: int, seed: int) -> list[Case]:
    import numpy as np

    from crossrank.evaluation import read_set

    judged = read_set(folder, split)
    cases = {}
    for query, grades in judged.qrels.items():
        text, answers = "", []
        for id_, grade in grades.items():
            sentence = judged.corpus[id_].text.strip()
            # WikiQA is in lower case throughout, which hides where sentences begin; the models do not see case.
            sentence = sentence[:1].upper() + sentence[1:]
            text += " " if text else ""
            if grade > 0:
                answers.append((len(text), len(text) + len(sentence)))
            text += sentence
        if 0 < len(answers) < len(grades):
            title = judged.corpus[next(iter(grades))].title
            cases[query] = Case(query, judged.queries[query], title, text, answers)
    ids = sorted(cases)
    if most < len(ids):
        ids = [ids[i] for i in sorted(np.random.default_rng(seed).choice(len(ids), most, replace=False).tolist())]
    return [cases[id_] for id_ in ids]


def hit(span: tuple[int, int], answers: Sequence[tuple[int, int]]) -> float:
    """1 when the span covers half of an answer, or half of the span is one; else 0."""
    shared = [(max(0, min(span[1], b) - max(span[0], a)), b - a) for a, b in answers]
    return float(any(2 * common >= min(span[1] - span[0], whole) for common, whole in shared))


def bm25_choices(cases: Sequence[Case], spans: Sequence[Sequence[tuple[int, int]]]) -> list[int]:
    """The sentence of each passage with the highest BM25 score; the first when no word is shared."""
    import bm25s
    import numpy as np
    import snowballstemmer

    words: dict[str, Any] = {"stopwords": "en", "show_progress": False, "stemmer": snowballstemmer.stemmer("english")}
    sentences = [case.text[a:b] for case, own in zip(cases, spans, strict=True) for a, b in own]
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    index.index(bm25s.tokenize(sentences, **words), show_progress=False)
    chosen, begin = [], 0
    for case, own in zip(cases, spans, strict=True):
        asked = [
            word for word in bm25s.tokenize([case.query], return_ids=False, **words)[0] if word in index.vocab_dict
        ]
        scores = index.get_scores(asked)[begin : begin + len(own)] if asked else np.zeros(len(own))
        chosen.append(int(np.argmax(scores)))
        begin += len(own)
    return chosen


def left_out(scorer: Any, case: Case, own: Sequence[tuple[int, int]]) -> dict[str, int]:
    """The choices of leave-one-out, and of its sum with the sentences' own scores."""
    import numpy as np

    title = f"{case.title}. " if case.title else ""
    texts = [title + case.text, *(title + case.text[:a] + case.text[b:] for a, b in own)]
    texts += [title + case.text[a:b] for a, b in own]
    scores = scorer.score([(case.query, text) for text in texts]).astype(np.float64)
    drops, alone = scores[0] - scores[1 : 1 + len(own)], scores[1 + len(own) :]
    both = sum((values - values.mean()) / max(values.std(), 1e-9) for values in (drops, alone))
    return {"leave-one-out": int(np.argmax(drops)), "leave-one-out + alone": int(np.argmax(both))}


def measure(name: str, cases: Sequence[Case], scorer: Any, options: argparse.Namespace) -> dict[str, Any]:
    from crossrank import evidence
    from crossrank.evaluation import bootstrap
    from crossrank.sentences import spans
    from crossrank.types import Passage

    everywhere = [spans(case.text) for case in cases]
    some = [row for row, own in enumerate(everywhere) if len(own) > 1]
    cases, everywhere = [cases[row] for row in some], [everywhere[row] for row in some]
    words = bm25_choices(cases, everywhere)
    hits: dict[str, dict[str, float]] = {}
    seconds = 0.0
    for row, (case, own) in enumerate(zip(cases, everywhere, strict=True)):
        began = time.perf_counter()
        (found,) = evidence.find(case.query, [Passage(case.id, case.text, case.title)], scorer.score, drops=False)
        seconds += time.perf_counter() - began
        assert found is not None
        chosen = {"evidence": (found.start, found.stop), "BM25": own[words[row]], "first sentence": own[0]}
        if options.leave_one_out:
            chosen |= {way: own[place] for way, place in left_out(scorer, case, own).items()}
        for way, span in chosen.items():
            hits.setdefault(way, {})[case.id] = hit(span, case.answers)
        hits.setdefault("chance", {})[case.id] = sum(hit(span, case.answers) for span in own) / len(own)
        if row % 50 == 49:
            print(f"{name}: {row + 1} of {len(cases)}", file=sys.stderr, flush=True)
    return {
        "set": name,
        "questions": len(cases),
        "sentences": round(sum(map(len, everywhere)) / len(cases), 2),
        "contains_the_answer": {way: as_json(bootstrap.mean(list(values.values()))) for way, values in hits.items()},
        "minus_BM25": {
            way: as_json(bootstrap.difference(values, hits["BM25"]))
            for way, values in hits.items()
            if way not in ("BM25", "chance")
        },
        "seconds_for_all_evidence": round(seconds, 2),
    }


def as_json(interval: Any) -> dict[str, float]:
    return {"mean": round(interval.mean, 6), "low": round(interval.low, 6), "high": round(interval.high, 6)}


def shown(interval: Mapping[str, float], sign: str = "") -> str:
    return f"{interval['mean']:{sign}.3f} [{interval['low']:{sign}.3f}, {interval['high']:{sign}.3f}]"


def table(results: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        "| set | questions | sentence chosen by | contains the answer | minus BM25 |",
        "| --- | --: | --- | --: | --: |",
    ]
    for result in results:
        for way, value in result["contains_the_answer"].items():
            more = result["minus_BM25"].get(way)
            cells = (result["set"], str(result["questions"]), way, shown(value), shown(more, "+") if more else "")
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    options = arguments()
    machine.limit_threads(options.threads)
    import crossrank

    scorer: Any = crossrank.load(options.model, backend=options.backend, dtype=options.dtype, threads=options.threads)
    about = {**machine.describe(options.threads), "model": options.model, "backend": scorer.backend.name}
    if options.cache is not None:
        scorer = crossrank.CachedScorer(scorer, options.cache)
    results = []
    for one in options.sets:
        name, _, split = one.partition(":")
        cases = read_cases(options.data / name, split or "test", options.questions, options.seed)
        results.append(measure(one, cases, scorer, options))
    print(table(results))
    print(f"\n{machine.line(about)}, {about['backend']}")
    if options.out is not None:
        options.out.write_text(json.dumps({"machine": about, "results": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
