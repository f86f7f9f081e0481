"""First stages: text in, rankings of passages out. `bm25` finds words, `dense` finds meanings."""

from crossrank.types import ReportingRetriever, Retrieved, Retriever


def retrieved(retriever: Retriever, query: str, depth: int) -> Retrieved:
    """What a retriever finds for one query, with what it says of it where it says anything."""
    if isinstance(retriever, ReportingRetriever):
        return retriever.retrieved([query], depth)[0]
    return Retrieved(retriever.retrieve([query], depth)[0], ())
