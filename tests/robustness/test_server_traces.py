"""Spans of requests, as a collector of OpenTelemetry gets them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from crossrank.errors import InputError
from serving import serving

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="spans need the telemetry extra")
pytest.importorskip("opentelemetry.sdk", reason="spans need the telemetry extra")
# OpenTelemetry's own code warns of what it will change.
pytestmark = pytest.mark.filterwarnings("default")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """An address that takes spans, and the spans that it took."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    taken: list[Any] = []

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            content = self.rfile.read(int(self.headers["content-length"]))
            if self.headers["content-encoding"] == "gzip":
                import gzip

                content = gzip.decompress(content)
            for resource in ExportTraceServiceRequest.FromString(content).resource_spans:
                taken.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Taking)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", taken
    server.shutdown()
    thread.join()
    server.server_close()


def test_each_request_is_a_span_without_texts(cross_encoder_folder: Path, collector: tuple[str, list[Any]]) -> None:
    from crossrank.server.traces import Traces

    address, taken = collector
    with serving(cross_encoder_folder, traces=Traces(address)) as server:
        assert server.rerank(["secret-text"], traceparent=f"00-{TRACE}-{PARENT}-01").status_code == 200
        assert server.client.post("/v2/rerank", content=b'{"secret').status_code == 400
        assert server.client.get("/secret-path").status_code == 404
    spans = {(span.name, status_of(span)): span for span in taken}
    assert set(spans) >= {("POST /v2/rerank", 200), ("POST /v2/rerank", 400), ("GET other", 404)}
    mine = spans["POST /v2/rerank", 200]
    assert (mine.trace_id.hex(), mine.parent_span_id.hex()) == (TRACE, PARENT)
    assert 0 < mine.end_time_unix_nano - mine.start_time_unix_nano < 60e9
    told = attributes(mine)
    assert (told["crossrank.dialect"], told["crossrank.documents"], told["http.route"]) == ("cohere", 1, "/v2/rerank")
    assert told["crossrank.model"] == server.service.reranker.name
    assert told["crossrank.tokens"] > 0
    assert "secret" not in str(taken)


def test_a_collector_that_is_gone_harms_nobody(cross_encoder_folder: Path) -> None:
    from crossrank.server.traces import Traces

    with serving(cross_encoder_folder, traces=Traces("http://127.0.0.1:9/v1/traces")) as server:
        assert server.rerank(["paris"]).status_code == 200
        began = time.monotonic()
    assert time.monotonic() - began < 15


def test_an_address_must_be_one() -> None:
    from crossrank.server.traces import Traces

    with pytest.raises(InputError, match="4318"):
        Traces("localhost:4318")


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def status_of(span: Any) -> Any:
    return attributes(span)["http.response.status_code"]
