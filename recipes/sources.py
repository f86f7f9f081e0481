"""Which training sets may teach weights that ship, how much of each, and how a text is written for the model.

Every set is a BEIR-layout folder (`corpus.jsonl.gz`, `queries.jsonl.gz`, `qrels/train.tsv`) with a PROVENANCE.md
that states its licence. A set is left out when its licence does not allow weights to be published, or does not say.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

# Queries taken of each set. Questions people wrote come first; titles and headings teach topical and scientific
# text (the pilot's SciFact result came from them) but are easy and plentiful; templates only a little.
QUERIES: dict[str, int] = {
    "squad_dev": 5500,
    "boolq": 3500,
    "openstax": 3500,
    "scitldr": 2200,
    "arxiv_titles": 1500,
    "acl_titles": 600,
    "fairytaleqa": 900,
    "uscode": 700,
    "factbook": 400,
    "qa_wikidoc_patient": 3500,
    "qa_conditionalqa": 1500,
    "qa_strategyqa_facts": 900,
}
# Every other qa_* set is taken whole: small sets of real questions on documentation, law, health and software.
DEFAULT_QA = 900

# Sets made of another one: sentences instead of passages, a sentence that asks for the rest of its abstract, or for
# its title. Without them the model is weak on short texts (cacm fell from 0.568 to 0.330, half of it bare titles).
SENTENCES, CLOZE, SHORT = 5000, 1800, 1800

# Left out, with the reason. squadshifts_*: no licence in the source. policyqa: the policies are for research only.
# pubmed_titles: abstracts under mixed publishers' terms. qmsum: candidates are only comparable within a meeting.
EXCLUDED = re.compile(r"squadshifts_.*|policyqa|pubmed_titles|qmsum")


# Dropped of keyword queries.
FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a an and are as at be been by can could did do does for from had has have how i if in into is it its may me
        my of on or our should so such than that the their them there these they this those to was we were what when
        where which who whom whose why will with would you your""",
    )
)


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """One set: passages by id, and (query, ids of relevant passages) rows."""

    name: str
    passages: dict[str, str]
    queries: list[tuple[str, frozenset[str]]]
    # Texts that answer a query wherever they stand: a passage that holds one is no negative. By query position.
    answers: dict[int, tuple[str, ...]] = field(default_factory=dict)
    # How much closer than the judged passage the start model may find a negative before it counts as unjudged.
    margin: float = 0.03


def read_jsonl(path: Path) -> list[dict[str, object]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _licensed(name: str, passage_id: str) -> bool:
    """ACL Anthology is CC BY 4.0 from 2016 on, non-commercial before; ids carry the year (`N18-1001`)."""
    if name != "acl_titles":
        return True
    new, old = re.match(r"(\d{4})\.", passage_id), re.match(r"[A-Z](\d\d)-", passage_id)
    if new:
        return int(new[1]) >= 2016
    return bool(old) and 16 <= int(old[1]) <= 20


def _query_text(name: str, row: dict[str, object], rng: random.Random) -> str:
    text = " ".join(str(row["text"]).split())
    story = (row.get("metadata") or {}).get("story") if isinstance(row.get("metadata"), dict) else None
    if name == "fairytaleqa" and story:
        text = f"{str(story).replace('-', ' ')}: {text}"
    # People type questions with and without the mark; the model must not lean on it.
    return text.rstrip("?").rstrip() if rng.random() < 0.5 else text


def _passage_text(row: dict[str, object], rng: random.Random) -> str:
    title, text = " ".join(str(row.get("title") or "").split()), " ".join(str(row["text"]).split())
    # Titles help where there are any, and are missing in most of the world: 30 % are dropped.
    return f"{title}. {text}" if title and rng.random() < 0.7 else text


def _typed(text: str, rng: random.Random) -> str:
    """One query in eight as people type keywords: without question words and articles, in lower case."""
    if rng.random() >= 0.125:
        return text
    kept = [word for word in re.findall(r"[\w'.+#-]+", text.lower()) if word not in FUNCTION_WORDS]
    return " ".join(kept) if len(kept) >= 2 else text


def _sentences(text: str) -> list[str]:
    """Sentences of at least 20 characters; abbreviations are not looked after, a wrong cut is a shorter text."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])", text) if len(part.strip()) >= 20]


def answer_sentences(
    whole: TrainingSet, rows: list[dict[str, object]], titles: dict[str, str], seed: int
) -> TrainingSet:
    """Questions of SQuAD over single sentences: the judged one is the only sentence of its passage with the answer."""
    rng = random.Random(f"{seed} sentences")
    passages, of = {}, {}
    for passage_id, text in whole.passages.items():
        of[passage_id] = []
        for n, sentence in enumerate(_sentences(text)):
            title = titles.get(passage_id, "")
            passages[f"{passage_id}-{n}"] = f"{title}. {sentence}" if title and rng.random() < 0.4 else sentence
            of[passage_id].append(f"{passage_id}-{n}")
    queries, answers = [], {}
    for (query, relevant), row in zip(whole.queries, rows, strict=True):
        wanted = _answers(row)
        right = [i for p in relevant for i in of[p] if any(a in passages[i].lower() for a in wanted)]
        if wanted and len(right) == 1:
            answers[len(queries)] = wanted
            queries.append((query, frozenset(right)))
    return TrainingSet("squad_sentences", passages, queries, answers, margin=0.15)


def from_abstracts(whole: TrainingSet, titles: dict[str, str], seed: int) -> list[TrainingSet]:
    """Inverse cloze (Lee et al. 2019): a sentence asks for the rest of its abstract; and a sentence for its title."""
    rng = random.Random(f"{seed} {whole.name} derived")
    cut = {i: parts for i, text in sorted(whole.passages.items()) if len(parts := _sentences(text)) >= 4}
    asked = sorted(cut)
    rng.shuffle(asked)
    rest, cloze, short = dict(whole.passages), [], []
    for passage_id in asked[:CLOZE]:
        n = rng.randrange(len(cut[passage_id]))
        rest[passage_id] = " ".join(part for m, part in enumerate(cut[passage_id]) if m != n)
        cloze.append((_typed(cut[passage_id][n], rng), frozenset([passage_id])))
    for passage_id in [i for i in asked[CLOZE:] if i in titles][:SHORT]:
        short.append((_typed(rng.choice(cut[passage_id]), rng), frozenset([passage_id])))
    return [
        TrainingSet(f"{whole.name}_cloze", rest, cloze),
        TrainingSet(f"{whole.name}_short", titles, short, margin=0.1),
    ]


def _answers(row: dict[str, object]) -> tuple[str, ...]:
    found = row.get("metadata")
    return tuple(str(a).lower() for a in found.get("answers", ())) if isinstance(found, dict) else ()


def load(folder: Path, seed: int, only: Collection[str] | None = None) -> list[TrainingSet]:
    """Licensed sets under `folder`, sampled to QUERIES, in name order; the same seed gives the same sample.

    Args:
        folder: one set a subfolder.
        seed: of what is drawn.
        only: names of the subfolders to read; None for all.
    """
    sets = []
    for path in sorted(p for p in folder.iterdir() if p.is_dir()):
        name = path.name
        limit = QUERIES.get(name, DEFAULT_QA if name.startswith("qa_") else 0)
        if EXCLUDED.fullmatch(name) or not limit or (only is not None and name not in only):
            continue
        rng = random.Random(f"{seed} {name}")
        corpus = [row for row in read_jsonl(path / "corpus.jsonl.gz") if _licensed(name, str(row["_id"]))]
        passages = {str(row["_id"]): _passage_text(row, rng) for row in corpus}
        texts = {str(row["_id"]): " ".join(str(row["text"]).split()) for row in corpus}
        titles = {str(row["_id"]): " ".join(str(row.get("title") or "").split()) for row in corpus}
        relevant: dict[str, set[str]] = {}
        for line in (path / "qrels" / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]:
            query_id, passage_id, grade = line.split("\t")
            if int(grade) > 0 and passage_id in passages:
                relevant.setdefault(query_id, set()).add(passage_id)
        rows = [row for row in read_jsonl(path / "queries.jsonl.gz") if str(row["_id"]) in relevant]
        rng.shuffle(rows)

        def asked(
            part: list[dict[str, object]],
            name: str = name,
            relevant: dict[str, set[str]] = relevant,
            rng: random.Random = rng,
        ) -> list[tuple[str, frozenset[str]]]:
            return [(_typed(_query_text(name, row, rng), rng), frozenset(relevant[str(row["_id"])])) for row in part]

        whole = TrainingSet(name, passages, asked(rows[:limit]))
        if name == "squad_dev":
            answers = {n: found for n, row in enumerate(rows[:limit]) if (found := _answers(row))}
            sets.append(TrainingSet(name, passages, whole.queries, answers, margin=0.15))
            others = rows[limit : limit + SENTENCES]
            # Without the title that some passages were given: it would become part of their first sentence.
            bare = TrainingSet(name, texts, asked(others))
            sets.append(answer_sentences(bare, others, titles, seed))
            continue
        sets.append(whole)
        if name == "arxiv_titles":
            # Its titles are its queries.
            named = {p: str(row["text"]) for row in rows for p in relevant[str(row["_id"])]}
            sets += from_abstracts(TrainingSet(name, texts, []), named, seed)
    return sets
