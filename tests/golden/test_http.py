"""Every dialect, byte for byte but for times: requests and replies in `http/`, one file a dialect.

The scores are those of the fake backend, a function of the token ids alone. `python tests/golden/test_http.py` writes
the replies anew; read the difference before you keep it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import crossrank
import tiny
from crossrank.server.app import build
from crossrank.server.service import Service

FOLDER = Path(__file__).with_name("http")
FILES = sorted(FOLDER.glob("*.json"))


def service(file: Path, cross_encoder: Path, bi_encoder: Path) -> Service:
    """What answers the requests of a file: one model, or in `several.json` two, which differ in what their
    probabilities rest on.
    """
    scorers = {"tiny-reranker": crossrank.load(cross_encoder, backend="fake")}
    if file.stem == "several":
        calibration = {"slope": 2.0, "intercept": -1.0}
        scorers["rerank-v4.0-pro"] = crossrank.load(cross_encoder, backend="fake", calibration=calibration)
    return Service(scorers, crossrank.load_embedder(bi_encoder, backend="fake"), batch_tokens=1024)


def replies(served: Service, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    async def ask() -> list[dict[str, Any]]:
        transport = httpx.ASGITransport(app=build(served).app)
        found = []
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for request in requests:
                reply = await client.request(
                    request.get("method", "POST"),
                    request["path"],
                    json=request.get("body"),
                    headers={"X-Request-Id": "golden"},
                )
                found.append({"status": reply.status_code, "body": _timeless(reply.json())})
        return found

    served.start()
    try:
        return asyncio.run(ask())
    finally:
        served.stop()


def _timeless(body: Any) -> Any:
    if isinstance(body, dict):
        fixed = {"created": 0, "seconds": 0.0, "timing": {}}
        return {key: fixed.get(key, _timeless(value)) for key, value in body.items()}
    return [_timeless(item) for item in body] if isinstance(body, list) else body


def _close(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(found, float):
        return found == pytest.approx(wanted, rel=1e-5, abs=1e-9)
    if isinstance(wanted, dict) and isinstance(found, dict):
        # Also the order of the fields: people compare replies by eye.
        return list(found) == list(wanted) and all(_close(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(map(_close, found, wanted))
    return type(found) is type(wanted) and found == wanted


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return made(tmp_path_factory.mktemp("models"))


def made(folder: Path) -> tuple[Path, Path]:
    return tiny.cross_encoder(folder / "tiny-reranker"), tiny.bi_encoder(folder / "tiny-embedder")


def test_every_dialect_has_a_file() -> None:
    from crossrank.server.wire import dialects

    named = {file.stem for file in FILES}
    assert named >= {"several", "cohere", "score", "embeddings", "embed", "search", *dialects.BY_NAME}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_replies_are_as_written(file: Path, models: tuple[Path, Path]) -> None:
    cases = json.loads(file.read_text(encoding="utf-8"))
    found = replies(service(file, *models), [case["request"] for case in cases])
    for case, reply in zip(cases, found, strict=True):
        assert _close(reply, case["reply"]), (case["request"], reply, case["reply"])


def main() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        models = made(Path(folder))
        for file in FILES:
            cases = json.loads(file.read_text(encoding="utf-8"))
            found = replies(service(file, *models), [case["request"] for case in cases])
            written = [{**case, "reply": reply} for case, reply in zip(cases, found, strict=True)]
            file.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
