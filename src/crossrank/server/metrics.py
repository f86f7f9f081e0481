"""What the server counts, in Prometheus' text format. Every server has a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from crossrank import __version__, extras
from crossrank.server.limits import Gate
from crossrank.server.scheduler import Batch, Scheduler
from crossrank.server.speeds import EMBED, Speed
from crossrank.server.wire.shapes import Timing

extras.require("prometheus_client", extra="server")

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics  # noqa: E402
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest  # noqa: E402

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_TOKENS = (64, 256, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server. A model is one that is served, and empty where a request was refused before it had one.

    >>> metrics = Metrics()
    >>> metrics.answered("/rerank", "cohere", "small", 200, Timing(total=0.01))
    >>> b'crossrank_requests_total{dialect="cohere",model="small",route="/rerank",status="200"} 1.0' in metrics.text()
    True
    """

    def __init__(self) -> None:
        # When each series began: as many lines again, which nobody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "crossrank_requests", "Requests answered.", ("route", "dialect", "model", "status"), registry=registry
        )
        self._seconds = Histogram(
            "crossrank_request_seconds", "From headers to answer.", ("route", "model"), buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._stages = Histogram(
            "crossrank_stage_seconds", "Of answered requests.", ("stage", "model"), buckets=_SECONDS, registry=registry
        )
        self._documents = Counter("crossrank_documents", "Documents scored or embedded.", ("model",), registry=registry)
        self._tokens = Counter("crossrank_tokens", "Tokens computed.", ("lane", "model"), registry=registry)
        self._batch_tokens = Histogram("crossrank_batch_tokens", "A batch.", buckets=_TOKENS, registry=registry)
        self._batch_requests = Histogram(
            "crossrank_batch_requests", "Requests that shared a batch.", buckets=_COUNTS, registry=registry
        )
        self._busy = Counter("crossrank_backend_seconds", "The backend was computing.", ("model",), registry=registry)
        self._refused = Counter("crossrank_refused", "Requests without an answer.", ("kind",), registry=registry)
        Gauge("crossrank_info", "Always 1.", ("version",), registry=registry).labels(__version__).set(1)

    def watch(self, gate: Gate, scheduler: Scheduler, speeds: Iterable[Speed]) -> None:
        """Report what is under way and how fast the models are, read when somebody asks."""
        gauges = {
            "crossrank_requests_under_way": (
                "Requests admitted whose thread has not ended.",
                lambda: len(gate.tickets),
            ),
            "crossrank_queued_tokens": ("Tokens that wait for the backend.", lambda: scheduler.queued_tokens),
        }
        for name, (about, read) in gauges.items():
            Gauge(name, about, registry=self._registry).set_function(read)
        reading, embedding = (
            Gauge(name, about, ("model",), registry=self._registry)
            for name, about in (
                ("crossrank_tokens_per_second", "How fast a cross-encoder reads lately."),
                ("crossrank_embedding_tokens_per_second", "The same of the embedder."),
            )
        )
        for speed in speeds:
            gauge = embedding if speed.lane == EMBED else reading
            gauge.labels(speed.model).set_function(partial(getattr, speed, "rate"))

    def watch_index(self, searchable: Callable[[], bool]) -> None:
        """Report whether searches can read the index. A server that reranks is of use without one: it stays ready."""
        about = "1 when the last search could read the index, else 0."
        Gauge("crossrank_index_readable", about, registry=self._registry).set_function(searchable)

    def answered(self, route: str, dialect: str, model: str, status: int, timing: Timing) -> None:
        """A request got its answer, whatever it was."""
        self._requests.labels(route, dialect, model, str(status)).inc()
        self._seconds.labels(route, model).observe(timing.total)
        if status == 200 and timing.compute:
            for stage in ("tokenize", "queue", "compute"):
                self._stages.labels(stage, model).observe(getattr(timing, stage))

    def refused(self, kind: str) -> None:
        """A request was refused or cancelled."""
        self._refused.labels(kind).inc()

    def scored(self, documents: int, model: str) -> None:
        """So many documents were scored or embedded, for a request to this model."""
        self._documents.labels(model).inc(documents)

    def computed(self, batch: Batch) -> None:
        """The backend computed a batch."""
        self._tokens.labels(batch.speed.lane, batch.speed.model).inc(batch.tokens)
        self._batch_tokens.observe(batch.tokens)
        self._batch_requests.observe(batch.requests)
        self._busy.labels(batch.speed.model).inc(batch.seconds)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
