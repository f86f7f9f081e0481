"""One OpenTelemetry span for each request, sent to the collector that the operator names and to nobody else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from crossrank import __version__, extras
from crossrank.addresses import is_address
from crossrank.errors import InputError
from crossrank.server.answering import Call

extras.require("opentelemetry.exporter.otlp.proto.http", extra="telemetry")

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: E402
from opentelemetry.sdk.resources import Resource  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: E402
from opentelemetry.trace import SpanKind, StatusCode, Tracer  # noqa: E402
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: E402

# Of one export, attempts after a failure included: a collector that is gone must not hold up the end of the server.
_EXPORT_SECONDS = 2.0
# Names of the access log's facts in OpenTelemetry's vocabulary; the others get our name in front.
_NAMES = {
    "method": "http.request.method",
    "path": "http.route",
    "status": "http.response.status_code",
    "client": "client.address",
    "error": "error.type",
}
_PARENTS = ("traceparent", "tracestate")


class Traces:
    """Sends spans. What a span holds is what the access log holds: no texts. Makes no thread until `start`.

    A request that comes with a `traceparent` header becomes a part of that trace (W3C Trace Context). A thread of their
    own sends spans in batches; when the collector cannot be reached they are dropped, and requests go on.

    Args:
        address: of a collector that takes OTLP over HTTP. Headers and certificates for it come from OpenTelemetry's own
            environment variables.

    Raises:
        InputError: the address is not one of HTTP.

    >>> Traces("http://localhost:4318/v1/traces").address
    'http://localhost:4318/v1/traces'
    """

    def __init__(self, address: str) -> None:
        if not is_address(address):
            raise InputError(f"traces go to an address such as http://localhost:4318/v1/traces, not to {address!r}")
        self.address = address
        self._parents = TraceContextTextMapPropagator()
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None

    def start(self) -> None:
        """Begin to send."""
        about = Resource.create({"service.name": "crossrank", "service.version": __version__})
        self._provider = TracerProvider(resource=about, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(self.address, timeout=_EXPORT_SECONDS)))
        self._tracer = self._provider.get_tracer("crossrank.server", __version__)

    def answered(self, call: Call, facts: Mapping[str, Any]) -> None:
        """A request got its answer.

        Args:
            call: the request.
            facts: its line in the access log; `ms` says how long ago it began.
        """
        if self._tracer is None:
            return
        end = time.time_ns()
        headers = {name: value for name in _PARENTS if (value := call.header(name)) is not None}
        span = self._tracer.start_span(
            f"{facts['method']} {facts['path']}",
            context=self._parents.extract(headers),
            kind=SpanKind.SERVER,
            attributes={_NAMES.get(name, f"crossrank.{name}"): value for name, value in facts.items()},
            start_time=end - int(1e6 * facts["ms"]),
        )
        if facts["status"] >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(end)

    def stop(self) -> None:
        """Send what is left and end the thread."""
        if self._provider is not None:
            self._provider.shutdown()
