"""`crossrank serve`: HTTP for every dialect, and a page."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crossrank.cli import options, terminal

if TYPE_CHECKING:
    from crossrank.crossencoder import CrossEncoder
    from crossrank.server.keys import Keys
    from crossrank.server.limits import Limits
    from crossrank.server.service import Service
    from crossrank.server.traces import Traces

# Seconds that a search waits for an embedder behind an address, once: meanwhile it holds a thread, and clients that get
# 503 ask again themselves.
_PATIENCE = 10.0
# A name that a model is served under: one of the hub, of a hosted API, or of an own taste, and no path of this machine.
_SERVED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._:@+-]{0,127})?")


class Served(options.ModelName):
    """A model, perhaps with a name to serve it under. The variable holds one, whose folder may have spaces."""

    def split_envvar_value(self, rv: str) -> list[str]:
        """The value as it is."""
        return [rv]


@click.command(
    "serve",
    short_help="Answer over HTTP as Cohere, Jina, Voyage, vLLM, TEI and OpenAI do, with a page to try it.",
    epilog="""\b
Examples:
  crossrank serve
  crossrank serve docs.index --port 8080
  crossrank serve --host 0.0.0.0 --keys keys.txt
  crossrank serve --model small --model fast --model rerank-english-v3.0=./my-model
  curl -s localhost:7997/v1/rerank -d '{"query": "tea", "documents": ["Bread.", "Tea is hot."]}'
""",
)
@click.argument("folder", metavar="[INDEX]", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, envvar="CROSSRANK_HOST", show_envvar=True,
              help="Address to listen on. Others than this machine reach it on 0.0.0.0; use keys then.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=7997, show_default=True, envvar="CROSSRANK_PORT",
              show_envvar=True, help="Port to listen on; 0 takes a free one.")  # fmt: skip
@click.option("--keys", "key_file", type=options.Given(dir_okay=False, path_type=Path),
              help="File of API keys, one a line. CROSSRANK_API_KEYS may hold some too, with commas.")  # fmt: skip
@click.option("--cors", "origins", multiple=True, metavar="ORIGIN",
              help="Let this web origin call the server from a browser. Repeat it for several.")  # fmt: skip
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME",
              help="Answer only requests to this name (on loopback: also to it). Repeat it.")  # fmt: skip
@click.option(
    "--model", "-m", "models", type=Served(), multiple=True, envvar="CROSSRANK_MODEL", show_envvar=True,
    help="Cross-encoder: a name from `crossrank models`, a hub name, or a folder. Repeat it to serve several: the "
    "request's model says which one answers, the first where it says none. NAME=MODEL serves one under another name.  "
    "[default: small]",
)  # fmt: skip
@options.embedder
@options.engine
@options.cache
@click.option(
    "--no-embed",
    is_flag=True,
    help="Load no embedding model: no /v1/embeddings or /embed. Not with INDEX, which needs one.",
)
@click.option("--max-body", type=click.IntRange(min=1024), metavar="BYTES", default=32 * 1024 * 1024,
              show_default=True, help="Largest body that is read.")  # fmt: skip
@click.option("--max-documents", type=options.Count(min=1), metavar="N", default=10_000, show_default=True,
              help="Documents in one request.")  # fmt: skip
@click.option("--max-tokens", type=options.Count(min=1), metavar="N", default=8_000_000, show_default=True,
              help="Tokens that the model reads for one request.")  # fmt: skip
@click.option("--max-requests", type=options.Count(min=1), metavar="N", default=256, show_default=True,
              help="Requests under way at once; more get 429.")  # fmt: skip
@click.option("--deadline", type=options.Seconds(min=0.001), metavar="SECONDS", default=60.0, show_default=True,
              help="Deadline of a request that names none in X-Crossrank-Deadline-Ms.")  # fmt: skip
@click.option("--batch-tokens", type=options.Count(min=64), metavar="N",
              help="Tokens of one batch.  [default: what takes about 20 ms here]")  # fmt: skip
@click.option("--drain", type=options.Seconds(min=0.1), metavar="SECONDS", default=30.0, show_default=True,
              help="Time for requests under way to finish after SIGTERM.")  # fmt: skip
@click.option("--linger", type=options.Seconds(min=0), metavar="SECONDS", default=0.0, show_default=True,
              help="After SIGTERM, answer for so long with /ready at 503, while load balancers notice.")  # fmt: skip
@click.option("--traces", "collector", metavar="URL",
              help="Send a span of each request to this OpenTelemetry collector (OTLP over HTTP).")  # fmt: skip
@click.option("--quiet", is_flag=True, help="No access log.")
def command(
    folder: Path | None,
    host: str,
    port: int,
    key_file: Path | None,
    origins: tuple[str, ...],
    hosts: tuple[str, ...],
    models: tuple[str, ...],
    embedder: str | None,
    backend: str,
    device: str,
    dtype: str,
    threads: int | None,
    cache: str | None,
    no_embed: bool,
    max_body: int,
    max_documents: int,
    max_tokens: int,
    max_requests: int,
    deadline: float,
    batch_tokens: int | None,
    drain: float,
    linger: float,
    collector: str | None,
    quiet: bool,
) -> None:
    """Answer over HTTP. With INDEX, also search it.

    Programs written for Cohere, Jina, Voyage, vLLM, llama.cpp, infinity, TEI, Weaviate or OpenAI embeddings need only
    another base address; /docs lists the paths. The page at / shows a search step by step. Each request is one line of
    JSON on stderr, without its texts.
    """
    if no_embed and (folder is not None or embedder is not None):
        raise click.UsageError(
            "--no-embed does not go with INDEX, which is searched with the embedder it was made with, nor with "
            "--embedder: leave one out"
        )
    from crossrank.server.app import build
    from crossrank.server.descriptors import ask_for
    from crossrank.server.guard import Door, on_loopback
    from crossrank.server.limits import Limits
    from crossrank.server.listening import Listener
    from crossrank.server.places import bound

    limits = Limits(
        body=max_body, reply=max(max_body, Limits().reply), bytes=max(8 * max_body, Limits().bytes),
        documents=max_documents, tokens=max_tokens, requests=max_requests, seconds=deadline,
        most_seconds=max(deadline, Limits().most_seconds), drain_seconds=drain,
    )  # fmt: skip
    keys = _keys(key_file)
    ask_for(limits.connections)
    # Before the models are loaded, which takes seconds: a port that is taken is told at once.
    with closing(bound(host, port)) as place:
        engine = (backend, device, dtype, threads)
        service = _service(folder, models, embedder, engine, no_embed, limits, batch_tokens, cache)
        door = Door.at(host, keys, hosts, origins)
        built = build(service, door, _traces(collector), on_ready=lambda: terminal.note("Ready."))
        listener = Listener(built.app, host, port, limits, linger, built.leave, place)
        if not on_loopback(host) and not len(keys):
            terminal.warn(f"everyone who reaches {host} may use this server; give it --keys")
        _log_to_stderr(quiet)
        warming = terminal.list_of([f"{one.name} ({one.scorer.backend.name})" for one in service.loaded], 10)
        terminal.note(f"Listening on {listener.url}, warming up {warming}. Ctrl-C ends it.")
        listener.run()


def _service(
    folder: Path | None,
    models: Sequence[str],
    embedder: str | None,
    engine: options.Engine,
    no_embed: bool,
    limits: Limits,
    batch_tokens: int | None,
    cache: str | None = None,
) -> Service:
    import crossrank
    from crossrank.embedder import asked_as, own_name
    from crossrank.server.service import Service

    backend, device, dtype, threads = engine
    index, name, prompts = None, embedder, {}
    if folder is not None:
        from crossrank.index import Index

        index = Index.open(folder)
        name, prompts = embedder or own_name(index.settings.model, folder), dict(index.settings.prompts)
    remote = options.remote_embedder(embedder, timeout=min(_PATIENCE, limits.seconds), tries=1)
    if remote is not None and index is None:
        raise click.UsageError(
            "--embedder takes an address only for the searches of INDEX: name one, or a model's folder"
        )
    remote = asked_as(remote, prompts)
    scorers = _scorers(models or ("small",), engine, cache)
    local = None
    if remote is None and not no_embed:
        local = crossrank.load_embedder(name, backend=backend, device=device, dtype=dtype, threads=threads, **prompts)
    if index is not None and (made := remote or local) is not None:
        if remote is not None and remote.fingerprint == (about := index.settings).embedder:
            # Without a request: while the address is down all but the search of the index is answered.
            remote.expect(about.width)
        index.check_embedder(made)
    return Service(scorers, local, index, limits, batch_tokens, remote)


def _scorers(models: Sequence[str], engine: options.Engine, cache: str | None) -> dict[str, CrossEncoder]:
    """The cross-encoders by the names that requests choose them by. What is named twice is loaded once.

    Raises:
        click.UsageError: one name stands for two models.
    """
    import crossrank
    from crossrank.models.catalog import locate
    from crossrank.server.service import public

    backend, device, dtype, threads = engine
    made: dict[str, CrossEncoder] = {}
    loaded: dict[str, CrossEncoder] = {}
    for model in models:
        named, source = parted(model)
        found = locate(source, default="small")
        # Of a hub name there may be a folder here, too.
        place = os.path.realpath(found.source) if os.path.exists(found.source) else str(found.source)
        if place not in loaded:
            one = crossrank.load(source, backend=backend, device=device, dtype=dtype, threads=threads)
            loaded[place] = options.remembering(one, cache)
        name = named or public(found.name)
        if made.setdefault(name, loaded[place]) is not loaded[place]:
            raise click.UsageError(
                f"two of --model are called {name!r}: give one another name, as in --model {name}-2={source}"
            )
    return made


def parted(model: str) -> tuple[str, str]:
    """The name that `NAME=MODEL` gives a model, or nothing, and the model. A folder may have the sign in its name.

    >>> parted("rerank-v4.0=small"), parted("small"), parted("./a=b")
    (('rerank-v4.0', 'small'), ('', 'small'), ('', './a=b'))
    """
    name, sign, source = model.partition("=")
    if not sign or os.path.exists(model) or not _SERVED.fullmatch(name):
        return "", model
    return name, source


def _traces(collector: str | None) -> Traces | None:
    if collector is None:
        return None
    from crossrank.server.traces import Traces

    return Traces(collector)


def _keys(file: Path | None) -> Keys:
    """The keys of the file and of the environment."""
    from crossrank.server.keys import Keys, read_lines

    variable = os.environ.get("CROSSRANK_API_KEYS")
    given = [key for part in (variable or "").split(",") if (key := part.strip())]
    if variable is not None and not given:
        raise click.UsageError(
            "CROSSRANK_API_KEYS is set and holds no key: put one in, or unset it to let everyone use this server"
        )
    try:
        lines = read_lines(file.read_text(encoding="utf-8-sig")) if file is not None else []
    except UnicodeDecodeError:
        raise click.UsageError(f"--keys {file} is no text in UTF-8; save it so, one key a line") from None
    if file is not None and not lines:
        raise click.UsageError(f"{click.format_filename(file)} holds no key; one a line")
    return Keys([*lines, *given])


def _log_to_stderr(quiet: bool) -> None:
    from crossrank.server.lines import Line, Seldom

    # asyncio has its say where connections cannot be taken.
    libraries = ("asyncio", "uvicorn")
    levels = {"crossrank.server": logging.INFO, **dict.fromkeys((*libraries, "opentelemetry"), logging.WARNING)}
    for name, level in levels.items():
        logger = logging.getLogger(name)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(Line() if name in libraries else logging.Formatter("%(message)s"))
        if name in libraries:
            handler.addFilter(Seldom())
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
    if quiet:
        logging.getLogger("crossrank.server.access").setLevel(logging.WARNING)
