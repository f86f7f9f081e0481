"""`crossrank mcp`: tools for agents over stdin and stdout."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import click

from crossrank.cli import options, terminal
from crossrank.cli.exits import Exit


@click.command(
    "mcp",
    short_help="Serve search and rerank as tools to agents, over stdin and stdout (Model Context Protocol).",
    epilog="""\b
Example, in the configuration of an agent:
  {"mcpServers": {"docs": {"command": "crossrank", "args": ["mcp", "/home/me/docs.index"]}}}
""",
)
@click.argument("folder", metavar="[INDEX]", required=False, type=click.Path(file_okay=False, path_type=Path))
@options.model
@options.embedder
@options.engine
def command(
    folder: Path | None,
    model: str | None,
    embedder: str | None,
    backend: str,
    device: str,
    dtype: str,
    threads: int | None,
) -> None:
    """Offer the tool `rerank` to an agent that starts this program. With INDEX, also `search` over it.

    The agent speaks the Model Context Protocol over stdin and stdout; notes for people go to stderr.
    """
    from crossrank.integrations.mcp import build
    from crossrank.pipeline import open_pipeline
    from crossrank.scorers import load_scorer

    if folder is None:
        if embedder is not None:
            raise click.UsageError(
                "--embedder is for searches, and without INDEX there is nothing to search: leave it out"
            )
        server = build(load_scorer(model, backend=backend, device=device, dtype=dtype, threads=threads))
    else:
        from crossrank.index import Index

        asked = options.remote_embedder(embedder) or embedder
        pipeline = open_pipeline(
            folder, model, embedder=asked, backend=backend, device=device, dtype=dtype, threads=threads
        )
        assert isinstance(pipeline.store, Index)
        server = build(pipeline.stages[-1].scorer, pipeline, pipeline.store.refresh)
    _end_at_ctrl_c()
    terminal.note("Ready for an agent on stdin and stdout. Ctrl-C ends it.")
    server.run()


def _end_at_ctrl_c() -> None:
    """End at SIGINT: the SDK reads stdin in a thread that nothing can wake, and there is nothing to lose."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(Exit.INTERRUPTED))
    if os.name != "posix":
        return
    # That handler waits for the main thread, and a signal that comes just before it sleeps would wait for the agent's
    # next line. The signal itself writes into this pipe, whatever the main thread does.
    told, end = os.pipe()
    os.set_blocking(end, False)
    signal.set_wakeup_fd(end)

    def wait() -> None:
        while signal.SIGINT not in os.read(told, 64):
            pass
        os._exit(Exit.INTERRUPTED)

    threading.Thread(target=wait, daemon=True).start()
