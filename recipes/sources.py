"""Which training sets may teach weights that ship, how much of each, and how a text is written for the model.

Every set is a BEIR-layout folder (`corpus.jsonl.gz`, `queries.jsonl.gz`, `qrels/train.tsv`) with a PROVENANCE.md
that states its licence. A set is left out when its licence does not allow weights to be published, or does not say.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

# Queries taken of each set. Questions people wrote come first; titles and headings teach topical and scientific
# text (the pilot's SciFact result came from them) but are easy and plentiful; templates only a little.
QUERIES: dict[str, int] = {
    "squad_dev": 5000,
    "boolq": 3500,
    "openstax": 4500,
    "scitldr": 2200,
    "arxiv_titles": 2600,
    "acl_titles": 900,
    "fairytaleqa": 900,
    "uscode": 700,
    "win32_docs": 600,
    "factbook": 400,
    "qa_wikidoc_patient": 3500,
    "qa_conditionalqa": 1500,
    "qa_strategyqa_facts": 900,
}
# Every other qa_* set is taken whole: small sets of real questions on documentation, law, health and software.
DEFAULT_QA = 900

# Left out, with the reason. squadshifts_*: no licence in the source. policyqa: the policies are for research only.
# pubmed_titles: abstracts under mixed publishers' terms. qmsum: candidates are only comparable within a meeting.
EXCLUDED = re.compile(r"squadshifts_.*|policyqa|pubmed_titles|qmsum")


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """One set: passages by id, and (query, ids of relevant passages) rows."""

    name: str
    passages: dict[str, str]
    queries: list[tuple[str, frozenset[str]]]


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


def load(folder: Path, seed: int) -> list[TrainingSet]:
    """All licensed sets under `folder`, sampled to QUERIES, in name order; the same seed gives the same sample."""
    sets = []
    for path in sorted(p for p in folder.iterdir() if p.is_dir()):
        name = path.name
        limit = QUERIES.get(name, DEFAULT_QA if name.startswith("qa_") else 0)
        if EXCLUDED.fullmatch(name) or not limit:
            continue
        rng = random.Random(f"{seed} {name}")
        passages = {
            str(row["_id"]): _passage_text(row, rng)
            for row in read_jsonl(path / "corpus.jsonl.gz")
            if _licensed(name, str(row["_id"]))
        }
        relevant: dict[str, set[str]] = {}
        for line in (path / "qrels" / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]:
            query_id, passage_id, grade = line.split("\t")
            if int(grade) > 0 and passage_id in passages:
                relevant.setdefault(query_id, set()).add(passage_id)
        rows = [row for row in read_jsonl(path / "queries.jsonl.gz") if str(row["_id"]) in relevant]
        rng.shuffle(rows)
        queries = [(_query_text(name, row, rng), frozenset(relevant[str(row["_id"])])) for row in rows[:limit]]
        sets.append(TrainingSet(name, passages, queries))
    return sets
