"""A judged set's index, made once and kept, and the search of an index for every judged query. Needs `search`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from crossrank.embedder import TextEmbedder
from crossrank.errors import IndexFileError
from crossrank.evaluation.beir import JudgedSet
from crossrank.evaluation.candidates import Candidates, Progress, found
from crossrank.evaluation.folding import Identity
from crossrank.evaluation.setting import Setting
from crossrank.evaluation.systems import Owners
from crossrank.index import Document, Index
from crossrank.models import named
from crossrank.pipeline import Pipeline
from crossrank.retrieval.first import first_stage, usual_fusion
from crossrank.types import Embedder

# No document is longer: each stays one passage.
WHOLE = 10_000_000


def kept(
    judged: JudgedSet,
    home: Path,
    embedder: Embedder,
    cache: Path,
    size: int | None = None,
    model: str | None = None,
    progress: Progress | None = None,
) -> Index:
    """The index of a set's corpus in `cache`: made now, gone on with where it was interrupted, or taken as it is.

    Blank documents are left out: there is nothing to find in them.

    Args:
        judged: whose corpus.
        home: the folder the set was read from; sets of one name in two places do not meet.
        embedder: makes the vectors. Passages are cut by its tokens, or by those of "embed" where it tells none.
        cache: folder for such indexes; made when it is missing.
        size: tokens of a passage; None is the usual of `crossrank index`, `WHOLE` keeps documents in one piece.
        model: the name to load the embedder by.
        progress: called with what is done, how many and of how many.

    Raises:
        IndexFileError: a document cannot be indexed, or the cache cannot be written.
    """
    # The backends' vectors agree closely but not to the bit, and an index must not hold those of two.
    if isinstance(embedder, TextEmbedder):
        runs_on, tokenizer = embedder.backend.name, embedder.tokenizer
    else:
        runs_on, tokenizer = "", named.read(None, default="embed").tokenizer()
    how = f"{home.resolve()}|{embedder.fingerprint}|{runs_on}|{size}"
    folder = cache / f"{judged.name}-{hashlib.sha256(how.encode()).hexdigest()[:16]}.index"
    index = Index.open_or_create(folder, embedder, tokenizer, model=model, size=size)
    written = {id_: passage for id_, passage in judged.corpus.items() if (passage.title + passage.text).strip()}
    documents = (Document(passage.id, passage.text, passage.title) for passage in written.values())

    def report(step: object) -> None:
        if progress:
            progress("indexing", int(getattr(step, "documents", 0)), len(written))

    changes = index.add(documents, embedder, tokenizer, report)
    if changes.failed:
        first = changes.failed[0]
        raise IndexFileError(f"{len(changes.failed)} documents cannot be indexed, first {first.source}: {first.reason}")
    # A corpus may have shrunk since.
    if stale := [document for document in index.documents() if document not in written]:
        index.remove(stale)
    return index


def over_index(index: Index, judged: JudgedSet, embedder: Embedder, depth: int, progress: Progress | None) -> Setting:
    """Search the index for every judged query. A corpus that the set brings must be in it, but for blank documents.

    All of the evaluation is of the version that the index is at, also what is read later, such as texts. An update more
    than ten minutes after that version was replaced removes it.

    Raises:
        InputError: the judgments are of another collection.
        IndexFileError: the index was made with another embedder; or its version was removed, now or later.
    """
    index = index.staying()
    passages, documents = index.ids(), index.documents()
    identity = Identity.of(judged.qrels, documents, passages)
    blank = len(judged.corpus.keys() - set(documents))
    notes = (f"{blank:,} of {len(judged.corpus):,} documents are blank and left out.",) if blank else ()
    pipeline = Pipeline(first_stage(index, embedder), index.passages, (), depth, usual_fusion(index), store=index)
    candidates = found(judged.queries, pipeline, progress)
    owners = Owners(_owners(index, candidates) if identity.split else {})
    return Setting(candidates, owners, pipeline, (*notes, *identity.notes()))


def _owners(index: Index, candidates: Candidates) -> dict[str, str]:
    """The document of every passage that some step found."""
    ids: Sequence[str] = list(
        dict.fromkeys(id_ for steps in candidates.traces.values() for step in steps for id_ in step.ranking.ids)
    )
    return {passage.id: passage.document for passage in index.passages(ids)} if ids else {}
