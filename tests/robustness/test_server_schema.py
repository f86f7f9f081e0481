"""Does the server do what its own OpenAPI description says? schemathesis asks: examples, edges, and random bodies.

`FUZZ=60 FUZZ_SEED=1 pytest tests/robustness/test_server_schema.py` asks more often, and other things; the usual number
keeps the suite quick.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import crossrank
import tiny
from crossrank.server.guard import Door
from crossrank.server.keys import Keys
from serving import Serving, serving

pytestmark = pytest.mark.skipif(
    find_spec("schemathesis") is None, reason="the description is tested with: pip install schemathesis"
)
pytest.importorskip("lance", reason="the served index needs the search extra")

EXAMPLES, SEED = os.environ.get("FUZZ", "10"), os.environ.get("FUZZ_SEED", "0")
KEY = "a-secret-of-tests"
# Failures of the server are all 5xx but 503. What fits the schema may still be more than a short deadline or this
# server's limits allow: 408, 413. The two lists of a score must have one length, and an object of Cohere's version 1
# needs a text or one of the rank_fields, which a schema cannot say.
SETTINGS = """
hooks = "hooks.py"
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503]
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "408", "413", "429", "503"]
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "405", "406", "408", "413", "415", "422", "429", "503"]
[[operations]]
include-path = ["/v1/score", "/v1/rerank"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "408", "413", "429", "503"]
[[operations]]
include-path = ["/search"]
checks.negative_data_rejection.expected-statuses = [
  "400", "401", "404", "405", "406", "408", "413", "415", "422", "429", "503"
]
[[operations]]
include-path = ["/v1/models/{name}"]
checks.negative_data_rejection.expected-statuses = ["401", "404", "405"]
"""
# A search may name a model that is not served; where there are several, every request may.
SEVERAL = ('expected-statuses = ["400", "401", "405"', 'expected-statuses = ["400", "401", "404", "405"')
# Any request may bring headers that nobody has heard of, and a server passes them over (RFC 9110, section 5.1). Such
# requests also name a deadline of 1 ms, so that they were refused on slow machines and failed the test on fast ones.
HOOKS = """
import schemathesis

@schemathesis.hook
def filter_case(context, case):
    return "x-schemathesis-unknown-property" not in (case.headers or {})
"""


@pytest.fixture(scope="module", params=["one", "several"])
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Serving]:
    from crossrank.index import Document, Index

    folder = tmp_path_factory.mktemp("schema")
    embedder = crossrank.load_embedder(tiny.bi_encoder(folder / "embedder"), backend="fake")
    index = Index.create(folder / "index", embedder, embedder.tokenizer)
    index.add([Document("1.txt", "Paris is the capital."), Document("2.txt", "Bread.")], embedder, embedder.tokenizer)
    door = Door.at("127.0.0.1", Keys([KEY]))
    one = tiny.cross_encoder(folder / "reranker")
    # With a logit alone it takes no threshold, and the other takes probabilities.
    plain = tiny.cross_encoder(folder / "plain", sentence_transformers={"activation_fn": "torch.nn.Identity"})
    several = {"plain": crossrank.load(plain, backend="fake"), "org/trained": crossrank.load(one, backend="fake")}
    models = one if request.param == "one" else several
    with serving(models, embedder=embedder, index=index, door=door) as made:
        yield made


def test_it_does_what_its_description_says(server: Serving, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(
        SETTINGS if len(server.service.rerankers) == 1 else SETTINGS.replace(*SEVERAL), encoding="utf-8"
    )
    (tmp_path / "hooks.py").write_text(HOOKS, encoding="utf-8")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "run",
               server.listener.url + "/openapi.json", "--checks", "all", "--max-examples", EXAMPLES, "--seed", SEED,
               "--header", f"Authorization: Bearer {KEY}", "--request-timeout", "20", "--no-color",
               "--suppress-health-check", "all", "--exclude-tag", "alias"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "Tested: 19" in done.stdout
