"""An OpenAI-compatible server on this machine whose every answer a test decides."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any, Mapping[str, str]]


class Api:
    """A running server: `requests` are the bodies it got, `headers` what came with them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.paths: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0


@contextmanager
def serving(answer: Callable[[str, dict[str, Any]], Any]) -> Iterator[Api]:
    """Answer requests until the block ends.

    Args:
        answer: from the path and the body to a status, a body (bytes go as they are, all else as JSON) and headers; or
            to a body alone.
    """
    lock, under_way = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                api.paths.append(self.path)
                api.requests.append(body)
                api.headers.append({name.lower(): value for name, value in self.headers.items()})
                under_way[0] += 1
                api.most_at_once = max(api.most_at_once, under_way[0])
            try:
                made = answer(self.path, body)
                status, content, headers = made if isinstance(made, tuple) else (200, made, {})
                raw = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(raw)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # The client had waited long enough.
            finally:
                with lock:
                    under_way[0] -= 1

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api = Api(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def completion(text: Any, **more: Any) -> dict[str, Any]:
    """A chat completion with this text, which cost 100 + 5 tokens."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 5}, **more}
