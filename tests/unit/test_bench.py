"""`crossrank bench`: its made-up texts, its count of operations, and what it prints."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from crossrank import checkpoint
from crossrank.backends import cpu
from crossrank.cli import root, stopwatch, terminal, workload
from crossrank.cli.operations import operations
from crossrank.models import named


def shipped() -> checkpoint.Checkpoint:
    return named.read("small", default="small")


# the texts


@pytest.mark.parametrize("shape", [workload.SHORT, replace(workload.LONG, pairs=200)])
def test_pairs_have_the_lengths_that_are_promised(shape: workload.Shape) -> None:
    tokenizer = shipped().tokenizer()
    pairs = workload.pairs(tokenizer, shape, 512)
    found = [len(row.ids) for row in tokenizer.encode_batch(pairs)]
    assert len(found) == shape.pairs
    assert statistics.mean(found) == pytest.approx(shape.mean, rel=0.03)
    assert max(found) <= 512
    # The logarithms of lengths spread as asked; for the long ones the limit takes a little of it.
    assert statistics.stdev(np.log(found)) == pytest.approx(workload.SPREAD, rel=0.15)


def test_pairs_are_distinct_in_lists_of_one_query_and_the_same_every_time() -> None:
    tokenizer = shipped().tokenizer()
    shape = replace(workload.SHORT, pairs=120)
    pairs = workload.pairs(tokenizer, shape, 512)
    assert len({passage for _, passage in pairs}) == 120
    assert [len({query for query, _ in pairs[i : i + 50]}) for i in (0, 50, 100)] == [1, 1, 1]
    assert len({query for query, _ in pairs}) == 3
    assert pairs == workload.pairs(shipped().tokenizer(), shape, 512)
    assert pairs != workload.pairs(tokenizer, replace(shape, name="another"), 512)


def test_text_costs_the_tokenizer_what_english_costs() -> None:
    """Words of several tokens, sentences, numbers: 1.1 to 1.7 tokens a word, as BERT makes of English."""
    tokenizer = shipped().tokenizer()
    text = " ".join(passage for _, passage in workload.pairs(tokenizer, replace(workload.SHORT, pairs=100), 512))
    assert 1.1 < len(tokenizer.encode(text, add_special_tokens=False).ids) / len(text.split()) < 1.7


def test_a_model_that_reads_little_gets_pairs_that_fit(cross_encoder_folder: Path) -> None:
    read = checkpoint.read(cross_encoder_folder)
    tokenizer = read.tokenizer()
    found = [len(row.ids) for row in tokenizer.encode_batch(workload.pairs(tokenizer, workload.LONG, read.max_length))]
    assert max(found) <= read.max_length
    assert len(set(found)) > 10


# the count of operations


def counted(config: dict[str, Any], modern: bool, labels: int, n: int) -> int:
    """Multiply-adds of one sequence, one product after the other, by the shapes of the matrices."""
    h, inner = config["hidden_size"], config["intermediate_size"]
    kinds = config.get("layer_types") or ["full_attention"] * config["num_hidden_layers"]
    done = 0
    for number, kind in enumerate(kinds):
        last = number == len(kinds) - 1 and config.get("classifier_pooling") != "mean"
        rows = [0] if last else list(range(n))
        window = config.get("local_attention", 0) // 2 if kind == "sliding_attention" else n
        done += 2 * n * h * h  # keys and values
        done += 2 * len(rows) * h * h  # queries and output
        done += sum(2 * h for i in rows for j in range(n) if abs(i - j) <= window)  # weights, and what they weigh
        done += len(rows) * (3 if modern else 2) * h * inner
    return done + h * h + h * labels


@pytest.mark.parametrize("lengths", [[1], [7], [3, 9, 30]])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("modern", [False, True])
def test_operations_are_those_of_the_products(lengths: list[int], pooling: str, modern: bool) -> None:
    config: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3}
    config["classifier_pooling"] = pooling
    if modern:
        config |= {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"], "local_attention": 8}
    expected = 2 * sum(counted(config, modern, 2, n) for n in lengths)
    assert operations(config, "modernbert" if modern else "bert", 2, np.array(lengths)) == expected


def test_percentile_is_that_of_numpy() -> None:
    values = [5.0, 1.0, 9.0, 2.0, 2.0]
    for q in (0, 37, 50, 99, 100):
        assert stopwatch.percentile(values, q) == pytest.approx(np.percentile(values, q))


# the command


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "SHORT", replace(workload.SHORT, pairs=120))
    monkeypatch.setattr(workload, "LONG", replace(workload.LONG, pairs=50))
    monkeypatch.setattr(stopwatch, "_SECONDS", 0.05)
    monkeypatch.setattr(stopwatch, "_PEAK_SECONDS", 0.01)


def bench(*args: str, code: int = 0) -> Any:
    result = CliRunner().invoke(root, ["bench", *args], prog_name="crossrank")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.mark.usefixtures("quick")
def test_bench_measures_what_it_says(cross_encoder_folder: Path) -> None:
    found = json.loads(bench(str(cross_encoder_folder), "--backend", "reference", "--repeats", "2", "--json").stdout)
    assert found["backend"].startswith("reference")
    short = found["throughput"]["short"]
    assert short["pairs"] == 120
    assert len(short["runs"]) == 2
    assert short["pairs_a_second"] == pytest.approx(120 / short["seconds"], rel=0.01)
    assert short["tokens_a_second"] == pytest.approx(120 * short["tokens"]["mean"] / short["seconds"], rel=0.01)
    known = short["from_tokens"]
    assert known["pairs_a_second"] == pytest.approx(120 / known["seconds"], rel=0.01)
    assert found["quick"] is False
    assert set(found["latency_ms"]) == {"1", "10", "50", "100"}
    assert all(0 < row["median"] <= row["p99"] for row in found["latency_ms"].values())
    assert found["forward"] is None
    assert found["load_seconds"] > 0
    assert found["memory_mib"]["peak"] is None or found["memory_mib"]["peak"] >= found["memory_mib"]["loaded"] > 1


@pytest.mark.skipif(not cpu.tiers(), reason="the native library was not built")
@pytest.mark.usefixtures("quick")
def test_bench_compares_the_native_engine_with_the_peak(cross_encoder_folder: Path) -> None:
    found = json.loads(bench(str(cross_encoder_folder), "--backend", "cpu", "--repeats", "1", "--json").stdout)
    forward, read = found["forward"], checkpoint.read(cross_encoder_folder)
    assert forward["peak_gflops"] > 0
    for name in ("short", "long"):
        share = forward[name]["gflops"] / forward["peak_gflops"]
        assert forward[name]["share_of_peak"] == pytest.approx(share, abs=0.001 + 0.06 / forward["peak_gflops"])
        # Not beside the seconds that scoring took: one stall of the machine decides between two runs of milliseconds.
        throughput = found["throughput"][name]
        lengths = np.full(throughput["pairs"], round(throughput["tokens"]["mean"]))
        done = forward[name]["gflops"] * forward[name]["seconds"] * 1e9
        assert done == pytest.approx(operations(read.config, read.architecture, read.labels, lengths), rel=0.1)


@pytest.mark.usefixtures("quick")
def test_bench_prints_lines_for_programs_and_a_table_for_people(
    cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = bench(str(cross_encoder_folder), "--backend", "reference", "--repeats", "1").stdout.splitlines()
    fields = [line.split("\t") for line in lines]
    assert {len(row) for row in fields} == {3}
    assert [row[0] for row in fields][:4] == [
        "short pairs", "long pairs", "short pairs, from token ids", "long pairs, from token ids",
    ]  # fmt: skip
    assert [row[0] for row in fields][4:6] == ["one pair", "one query, 10 passages"]
    monkeypatch.setattr(terminal, "on_terminal", lambda **_: True)
    table = bench(str(cross_encoder_folder), "--backend", "reference", "--repeats", "1").stdout
    assert "pairs/s" in table
    assert "\t" not in table


def test_bench_holds_the_process_to_its_threads_and_lets_it_go() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system cannot hold a process to some cores")
    before = os.sched_getaffinity(0)
    with stopwatch.held_to(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before
    assert "not 1024" in bench("--threads", "1024", code=2).output


def test_a_quick_look_scores_fewer_pairs_and_says_so(
    cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopwatch, "_SECONDS", 0.5)
    found = json.loads(bench(str(cross_encoder_folder), "--backend", "fake", "--quick", "--json").stdout)
    assert found["quick"] is True
    assert found["repeats"] == 1
    assert {name: row["pairs"] for name, row in found["throughput"].items()} == {"short": 100, "long": 40}


def test_bench_refuses_a_bi_encoder(bi_encoder_folder: Path) -> None:
    assert "bi-encoder" in bench(str(bi_encoder_folder), code=1).output
