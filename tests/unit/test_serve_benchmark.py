"""What benchmarks/serve.py measures with: batches as others make them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="benchmarks/ is not in this distribution")


def test_first_come_first_served_pays_for_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import serve_peers

    try:
        assert serve_peers.first_batch([10] * 20, 100) == 10
        # One long sequence makes every other as long.
        assert serve_peers.first_batch([10, 50, 10, 10], 100) == 2
        assert serve_peers.first_batch([500, 1], 100) == 1
        assert serve_peers.first_batch([], 100) == 0
        queue = serve_peers.Queue(lambda rows: [float(len(row["input_ids"])) for row in rows])
        futures = queue.put([{"input_ids": [1] * length} for length in (3, 1, 2)])
        assert [future.result(20) for future in futures] == [3.0, 1.0, 2.0]
        failing = serve_peers.Queue(lambda rows: [1 / 0 for _ in rows])
        with pytest.raises(ZeroDivisionError):
            failing.put([{"input_ids": [1]}])[0].result(20)
    finally:
        del sys.modules["serve_peers"]
