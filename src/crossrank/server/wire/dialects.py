"""Which dialect a request speaks: by a product's name in the path, or by the fields that only that product has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any

from crossrank.server.refusals import RefusedError
from crossrank.server.wire import cohere, infinity, jina, tei, vllm, voyage, weaviate
from crossrank.server.wire.shapes import Dialect, error_body

# A client whose base address ends in one of these names gets exactly that product's shape: `http://host/jina/v1`.
BY_NAME: dict[str, Dialect] = {
    "jina": jina.JINA,
    "voyage": voyage.VOYAGE,
    "vllm": vllm.RERANK,
    "infinity": infinity.INFINITY,
    "tei": tei.TEI,
    "weaviate": weaviate.WEAVIATE,
}
# What TEI's model is for is answered here: a rerank, or vectors.
TEI_ROOT = ("/", "/invocations", "/tei", "/tei/invocations")
# llama.cpp's other names of /rerank and /v1/rerank. Its clients read of a reply what Cohere's holds.
LLAMA = ("/reranking", "/v1/reranking")
# The paths that are answered, each tuple in its own way.
RERANK = ("/rerank", "/v1/rerank", "/v2/rerank", *LLAMA, "/cohere/v1/rerank", "/cohere/v2/rerank", *TEI_ROOT,
          *(f"/{name}{version}/rerank" for name in BY_NAME for version in ("", "/v1", "/v2")))  # fmt: skip
SCORE = ("/score", "/v1/score", "/vllm/score", "/vllm/v1/score")
EMBED = ("/embeddings", "/v1/embeddings", "/infinity/embeddings", "/jina/v1/embeddings", "/voyage/v1/embeddings")
TEI_EMBED = ("/embed", "/tei/embed")
HEALTH = ("/health", "/tei/health", "/infinity/health")
# Weaviate waits for its own at start, and shows what the other tells.
READY = ("/ready", "/weaviate/.well-known/ready")
INFO = ("/info", "/tei/info", "/weaviate/meta")
MODELS = ("/models", "/v1/models", "/infinity/models", "/vllm/v1/models", "/jina/v1/models")


def of(path: str, body: Mapping[str, Any]) -> Dialect:
    """The dialect of a request to a rerank path.

    First a product's name in the path decides. Then fields that are not null: `texts` is TEI's, `raw_scores`
    infinity's, vLLM's own fields vLLM's, and `top_k` or `truncation` Voyage's, last because others read `top_k`, too,
    and it knows no logits. What is left is Cohere's: the version that the path names, and else version 1 where only it
    has the fields, or version 2. At `/v2/rerank`, which of the others vLLM alone has, only its fields are looked for.

    >>> of("/rerank", {"query": "x", "texts": []}).name, of("/jina/v1/rerank", {}).name, of("/v2/rerank", {}).name
    ('tei', 'jina', 'cohere')
    """
    named = by_path(path)
    if named is not None:
        return named
    # Null asks for nothing: some clients send every field that they know.
    asked = {name for name, value in body.items() if value is not None}
    return _cohere(path, asked) if path.startswith("/cohere/") else _by_fields(path, asked)


def embeds(path: str, body: Mapping[str, Any]) -> bool:
    """Whether a request to a rerank path asks for vectors instead, as clients of TEI do where no path says which.

    >>> embeds("/", {"inputs": "tea"}), embeds("/rerank", {"inputs": "tea"}), embeds("/", {"query": "x", "texts": []})
    (True, False, False)
    """
    return path in TEI_ROOT and body.get("inputs") is not None


def _by_fields(path: str, asked: Set[str]) -> Dialect:
    others: tuple[tuple[Set[str], Dialect], ...] = (
        ({"texts"}, tei.TEI),
        ({"raw_scores"}, infinity.INFINITY),
        (set(vllm.OWN), vllm.RERANK),
        ({"top_k", "truncation"}, voyage.VOYAGE),
    )
    if path == "/v2/rerank":
        others = others[2:3]
    return next((dialect for names, dialect in others if asked & names), _cohere(path, asked))


def _cohere(path: str, asked: Set[str]) -> Dialect:
    if path.endswith("/v2/rerank"):
        return cohere.V2
    v1 = path.endswith(("/v1/rerank", "/v1/reranking")) or bool(asked & {"rank_fields", "max_chunks_per_doc"})
    return cohere.V1 if v1 else cohere.V2


def by_path(path: str) -> Dialect | None:
    """The dialect that a path names, if it names one."""
    if path in (*TEI_ROOT, *TEI_EMBED):
        return tei.TEI
    return BY_NAME.get(path.split("/")[1]) if path.count("/") > 1 else None


def refuse_of(path: str) -> Callable[[RefusedError, str], tuple[int, Any]]:
    """How a path tells an error, as long as no body has said more: in the shape of the product that it names.

    >>> refuse_of("/tei/rerank")(RefusedError("no", 405, "MethodNotAllowedError"), "1")[1]["error"]
    'no'
    """
    named = by_path(path)
    return error_body if named is None else named.refuse
