"""`crossrank eval` and `crossrank frontier` from the command line, on twelve documents and tiny models."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from commandline import RUNNER, run
from crossrank.cli import judged, root
from crossrank.cli.exits import Exit

pytest.importorskip("ir_measures", reason="needs the extra eval")
pytest.importorskip("matplotlib", reason="needs the extra eval")
pytest.importorskip("lance", reason="needs the extra search")

from crossrank.evaluation import read_qrels, read_run
from crossrank.evaluation.measures import per_query

pytestmark = pytest.mark.usefixtures("command_line")

WORDS = ["paris", "france", "bread", "yeast", "cat", "planet"]
HOSTILE = "<script>alert('the cat')</script>"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, bi_encoder_folder: Path) -> dict[str, str]:
    """Two cross-encoders, one with a calibration, and a bi-encoder."""
    folder = tmp_path_factory.mktemp("models")
    raw = {"activation_fn": "torch.nn.modules.linear.Identity"}
    first = tiny.cross_encoder(folder / "first")
    second = tiny.cross_encoder(folder / "second", num_hidden_layers=1, sentence_transformers=raw)
    tiny.write_json(first / "crossrank.json", {"calibration": {"slope": 1.0, "intercept": 0.0}})
    return {"first": str(first), "second": str(second), "embedder": str(bi_encoder_folder)}


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def judged_set(folder: Path) -> Path:
    texts = [f"the {word} is {word}" for word in WORDS]
    texts += [f"{HOSTILE} the {word} " + "of the capital " * 20 for word in WORDS]
    write_lines(folder / "corpus.jsonl", [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(texts)])
    queries = [{"_id": f"q{i}", "text": f"what is {word}? {HOSTILE}"} for i, word in enumerate(WORDS)]
    write_lines(folder / "queries.jsonl", [*queries, {"_id": "unjudged", "text": "x"}])
    grades = ["query-id\tcorpus-id\tscore"]
    grades += [f"q{i}\td{i}\t2\nq{i}\td{i + 6}\t1\nq{i}\td{(i + 1) % 6}\t0" for i in range(6)]
    write_lines(folder / "qrels" / "test.tsv", grades)
    return folder


def found(*args: object) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(run(*args, "--json").stdout)
    return made


# --- eval --------------------------------------------------------------------------------------------------------


def test_no_two_runs_are_one_file() -> None:
    """The third of these took the first one's name, and its file."""
    from crossrank.cli.runfiles import _stems

    assert _stems(["a-2", "a", "a!", "A", "?", "!"]) == ["a-2", "a", "a-3", "A-4", "system", "system-2"]


def test_a_beir_folder_is_indexed_once_and_every_stage_measured(models: dict[str, str]) -> None:
    source = judged_set(Path("set"))
    common = ["eval", source, "--cache", "cache", "--embedder", models["embedder"], "--backend", "fake"]
    common += ["--models", f"{models['first']},{models['second']}", "--passage-tokens", 20, "--depth", 30]
    made = found(*common, "--write-runs", "runs", "--html", "page.html", "-m", "nDCG@5", "-m", "RR", "-m", "P@1")
    names = ["BM25", "dense", "fusion", "first", "first (mix 0.4)", "second", "second (mix 0.4)"]
    assert [system["name"] for system in made["systems"]] == names
    assert made["baseline"] == "fusion"
    assert made["measures"] == ["nDCG@5", "RR", "P@1"]
    assert made["about"]["set"] == "set"
    assert [one["model"] for one in made["calibration"]] == ["first"]
    # Documents were split, and the judgments are about documents.
    assert any("each document stands where its best passage stands" in note for note in made["notes"])
    for system in made["systems"]:
        assert system["latency_ms"]["query"]["queries"] == 6
        assert set(system["values"]) == {"nDCG@5", "RR", "P@1"}
        assert bool(system["difference"]) == (system["name"] != "fusion")
    mine = made["systems"][3]
    assert mine["candidates"]["recall"] > 0
    assert mine["candidates"]["ceiling"]["nDCG@5"] >= mine["values"]["nDCG@5"]["mean"]
    assert mine["cuts"]["pairs"] > 0
    assert mine["latency_ms"]["query"]["median"] > mine["latency_ms"]["step"]["median"]
    # What was written measures the same when it is read again.
    again = read_run("runs/first.trec")
    assert set(again["q0"].ids) <= {f"d{i}" for i in range(12)}
    values = per_query(read_qrels(source / "qrels" / "test.tsv"), again, ["nDCG@5", "RR"])
    for name, each in values.items():
        assert np.mean([*each.values()]) == pytest.approx(mine["values"][name]["mean"], abs=1e-6)
    assert sorted(path.name for path in Path("runs").iterdir()) == sorted(
        [f"{name.replace(' (', '-').replace(' ', '-').rstrip(')')}.trec" for name in names]
    )
    page = Path("page.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert('the cat')&lt;/script&gt;" in page
    # The second time takes the index from the cache, and gives the same figures.
    before = {path: path.stat().st_mtime_ns for path in Path("cache").rglob("*.lance") if path.is_file()}
    second = found(*common)
    assert {path: path.stat().st_mtime_ns for path in Path("cache").rglob("*.lance") if path.is_file()} == before
    assert len(list(Path("cache").iterdir())) == 1
    assert second["measures"] == ["nDCG@10", "RR@10", "R@100"]
    assert [s["values"].get("RR@10") for s in second["systems"]] == [s["values"]["RR"] for s in made["systems"]]


def test_an_index_with_judged_queries(models: dict[str, str]) -> None:
    source = judged_set(Path("set"))
    run("index", source / "corpus.jsonl", "--to", "my.index", "-m", models["embedder"], "--backend", "fake")
    judged = ["--queries", source / "queries.jsonl", "--qrels", source / "qrels" / "test.tsv"]
    made = found("eval", "my.index", *judged, "--models", models["first"], "--backend", "fake", "--sample", 4)
    assert made["about"]["queries"] == len(made["queries"]) == 4
    assert made["notes"][0] == "4 of 6 judged queries were drawn (seed 0)."
    assert made["notes"][1] == "1 queries of queries.jsonl have no judgments and are left out."
    lines = run("eval", "my.index", *judged, "--models", models["first"], "--backend", "fake", "--mix", "1").stdout
    fields = [line.split("\t") for line in lines.splitlines()]
    assert [row[0] for row in fields] == [name for name in ("BM25", "dense", "fusion", "first") for _ in range(3)]
    assert all(len(row) == 13 for row in fields)
    plain = found("eval", "my.index", *judged, "--no-rerank", "--backend", "fake")
    assert [system["name"] for system in plain["systems"]] == ["BM25", "dense", "fusion"]
    assert plain["verdict"]["question"] == "Is one of them better than fusion?"
    bad = write_lines(Path("other.tsv"), ["q0\tMED-10\t1"])
    error = run("eval", "my.index", *judged[:2], "--qrels", bad, "--no-rerank", "--backend", "fake", code=1).stderr
    assert "'MED-10'" in error
    assert "judgments of this collection" in error


def test_runs_alone(models: dict[str, str]) -> None:
    qrels = judged_set(Path("set")) / "qrels" / "test.tsv"
    write_lines(Path("good.trec"), [f"q{i} Q0 d{i} 1 2.5 t\nq{i} Q0 d{i + 6} 2 1.5 t" for i in range(6)])
    write_lines(Path("bad.trec"), [f"q{i} Q0 d{(i + 2) % 6} 1 1 t\nq{i} Q0 d{i} 2 1 t" for i in range(5)])
    made = found("eval", "--qrels", qrels, "--run", "good=good.trec", "--run", "bad=bad.trec")
    assert made["baseline"] == "good"
    good, bad = made["systems"]
    assert good["values"]["nDCG@10"]["mean"] == 1.0
    assert good["latency_ms"] == {"step": None, "query": None}
    assert len(bad["difference"]["nDCG@10"]["worse"]) == 6
    assert made["notes"] == [
        "bad ranks nothing for 1 of 6 judged queries; these count as 0.",
        "bad has 5 equal scores; they stand by document id, as trec_eval has them.",
    ]
    other = found("eval", "--qrels", qrels, "--run", "a=good.trec", "--run", "b=bad.trec", "--baseline", "b")
    assert other["baseline"] == "b"
    assert other["verdict"]["system"] == "a"


def test_queries_that_nothing_answers_are_counted_and_without_relevant_documents_there_is_no_verdict() -> None:
    write_lines(Path("one.tsv"), ["q0\td0\t1", "q1\td1\t0", "q2\td2\t-1"])
    write_lines(Path("none.tsv"), ["q0\td0\t0", "q1\td1\t0"])
    write_lines(Path("a.trec"), [f"q{i} Q0 d{i} 1 2 t" for i in range(3)])
    said = "2 of 3 judged queries have no relevant document; these count as 0 for every system."
    assert found("eval", "--qrels", "one.tsv", "--run", "a=a.trec")["notes"] == [said]
    error = run("eval", "--qrels", "none.tsv", "--run", "a=a.trec", code=1).stderr
    assert "no document is judged relevant" in error
    queries = write_lines(Path("q.jsonl"), [{"_id": f"q{i}", "text": "x"} for i in range(3)])
    drawn = ("eval", "--qrels", "one.tsv", "--queries", queries, "--run", "a=a.trec", "--sample", 1)
    errors = [RUNNER.invoke(root, [str(word) for word in (*drawn, "--seed", seed)]).stderr for seed in range(6)]
    assert any("none of the 1 queries drawn has a relevant document" in error for error in errors)
    assert not any("no document is judged relevant" in error for error in errors)


@pytest.fixture
def compared() -> list[object]:
    """`eval` of two runs, in a folder `runs`; one has a query that nobody judged."""
    qrels = judged_set(Path("set")) / "qrels" / "test.tsv"
    write_lines(Path("runs/good.trec"), [*(f"q{i} Q0 d{i} 1 2.5 t" for i in range(6)), "other Q0 d0 1 7.5 t"])
    write_lines(Path("runs/bad.trec"), [f"q{i} Q0 d{(i + 1) % 6} 1 1 t" for i in range(6)])
    return ["eval", "--qrels", qrels, "--run", "good=runs/good.trec", "--run", "bad=runs/bad.trec"]


def test_a_pipe_hears_all_of_the_verdict(compared: list[object]) -> None:
    """It said that six queries cannot tell, and not that one more would."""
    result = run(*compared)
    headline, *details = result.stderr.splitlines()
    assert "told with 6 queries" in headline or headline.startswith(("Yes", "No"))
    assert any("got better" in line for line in details)


@pytest.mark.parametrize("link", [False, True])
def test_runs_that_are_read_are_never_written_over(compared: list[object], link: bool) -> None:
    """Queries without judgments and all scores were gone."""
    before = Path("runs/good.trec").read_bytes()
    to = "runs"
    if link:
        Path("made").mkdir()
        os.link("runs/good.trec", "made/good.trec")
        to = "made"
    for how in ([], ["--force"]):
        error = run(*compared, "--write-runs", to, *how, code=2).stderr
        assert "which is read" in " ".join(error.replace("│", " ").split())
    assert Path("runs/good.trec").read_bytes() == before


def test_other_files_are_written_over_when_that_is_said(compared: list[object]) -> None:
    write_lines(Path("made/good.trec"), ["mine"])
    error = run(*compared, "--write-runs", "made", code=2).stderr
    assert "say so with --force" in " ".join(error.replace("│", " ").split())
    assert Path("made/good.trec").read_text(encoding="utf-8") == "mine"
    run(*compared, "--write-runs", "made", "--force")
    assert set(read_run("made/good.trec")) == {f"q{i}" for i in range(6)}
    write_lines(Path("file"), ["mine"])
    for where in ("file", "file/runs"):
        run(*compared, "--write-runs", where, code=2)
    assert run(*compared, "--write-runs", "new/runs").stderr.endswith("Wrote 2 runs to new/runs.\n")


@pytest.mark.usefixtures("unread")
def test_runs_and_the_page_are_written_whoever_reads(compared: list[object]) -> None:
    """`eval ... --write-runs made | true` wrote none."""
    with pytest.raises(SystemExit) as left:
        root.main([str(arg) for arg in (*compared, "--write-runs", "made", "--html", "page.html")])
    assert left.value.code == 0
    assert sorted(path.name for path in Path("made").iterdir()) == ["bad.trec", "good.trec"]
    assert Path("page.html").exists()


def test_a_given_run_is_reranked_without_an_index(models: dict[str, str]) -> None:
    source = judged_set(Path("set"))
    rows = [f"q{i} Q0 d{j} {j + 1} {12 - j} t" for i in range(6) for j in range(12)]
    write_lines(Path("first.trec"), rows)
    common = ["eval", source, "--run", "BM25=first.trec", "--over", "BM25", "--models", models["first"]]
    made = found(*common, "--backend", "fake", "--depth", 12)
    assert [system["name"] for system in made["systems"]] == ["BM25", "first", "first (mix 0.4)"]
    assert made["systems"][1]["candidates"]["recall"] == 1.0
    assert made["systems"][0]["latency_ms"]["query"] is None


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["eval"], "name an index or a BEIR folder"),
        (["eval", "--qrels", "set/qrels/test.tsv"], "name an index or a BEIR folder"),
        (["eval", "set"], "--cache DIR"),
        (["eval", "set", "--queries", "20"], "use --sample 20"),
        (["eval", "set", "--over", "x", "--no-rerank"], "--over x names no run"),
        (["eval", "set", "--mix", "2"], "a share is over 0"),
        (["eval", "set", "--mix", "x"], "--mix takes shares"),
        (["eval", "set", "--run", "file.trec"], "NAME=FILE"),
        (["eval", "set", "--models", ","], "--models names none"),
        (["eval", "set", "--html", "nowhere/page.html"], "there is no folder nowhere"),
        (["eval", "set", "--html", f"{'x' * 251}.html"], "cannot be written: File name too long"),
        (["frontier", "set", "--html", f"{'x' * 251}.html"], "cannot be written: File name too long"),
        (["eval", "set", "--no-rerank", "--baseline", "RRF"], "there are: BM25, dense, fusion"),
        (["eval", "empty"], "is no BEIR folder"),
        (["eval", "set", "--split", "test", "--qrels", "set/qrels/test.tsv"], "--split and --qrels both name"),
        (["eval", "empty", "--queries", "q", "--qrels", "r", "--cache", "c"], "--cache is for a BEIR folder"),
        (["frontier", "empty", "--queries", "q", "--qrels", "r", "--split", "dev"], "--split is for a BEIR folder"),
        (["eval", "--qrels", "r", "--run", "a=a.trec", "--passage-tokens", "9"], "--passage-tokens is for a BEIR"),
        (["eval", "set", "--over", "x", "--cache", "c", "--split", "test"], "--cache is of no use beside --over"),
        (["frontier", "set", "--run", "a=a.trec", "--cache", "c"], "--run a would be ignored"),
        (["frontier", "set", "--run", "a=a.trec", "--run", "b=a.trec", "--over", "a"], "--run b would be ignored"),
        (["frontier", "set", "--depths", "0,5"], "--depths takes whole numbers"),
        (["frontier", "set", "--depths", "5,x"], "--depths takes whole numbers"),
        (["frontier", "set", "--depths", "5,2147483648"], "2147483648 is more than 2,147,483,647"),
        (["frontier", "set", "--cache", "c", "--mix", "0.30000001,0.30000002"], "two systems would be called 'small"),
        (["frontier", "set", "--cascade", "a"], "--cascade takes two models"),
        (["frontier", "set", "--cascade", "a>small"], "names 'a', which --models does not"),
        (["eval", "set", "--cascade", "small>a>b"], "--cascade takes two models"),
        (["eval", "set", "--cascade", "a>small", "--no-rerank"], "the reranking that --cascade is for"),
    ],
)
def test_wrong_command_lines_name_their_cure(args: list[str], said: str) -> None:
    judged_set(Path("set"))
    write_lines(Path("a.trec"), ["q0 Q0 d0 1 2 t"])
    Path("empty").mkdir()
    result = run(*args, code=2)
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_a_model_in_the_working_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine")
    assert judged.labels("., small, owner/other/") == {"mine": ".", "small": "small", "other": "owner/other/"}
    assert judged.cascades(["small > ."], "small,.") == [("small", "mine")]
    assert judged.labels("inner/..") == {"mine": "inner/.."}


@pytest.mark.parametrize("name", ["fast", "fast (mix 0.4)", "fusion", "fast > fast"])
def test_a_name_of_two_systems_is_refused_before_the_work(name: str) -> None:
    source = judged_set(Path("set"))
    write_lines(Path("a.trec"), ["q0 Q0 d0 1 2 t"])
    args = ["eval", source, "--cache", "cache", "--models", "fast", "--backend", "fake"]
    args += ["--cascade", "fast>fast", "--cascade", "fast > fast"]
    error = run(*args, "--run", f"{name}=a.trec", code=2).stderr
    assert f"two systems would be called '{name}'" in " ".join(error.replace("│", " ").split())
    assert not Path("cache").exists()


@pytest.mark.parametrize("command", ["eval", "frontier"])
def test_a_pipe_gets_the_notes_and_a_full_disk_costs_only_the_page(
    command: str, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossrank import writing
    from crossrank.evaluation import page

    def full(path: Path, title: str, parts: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("crossrank.evaluation.report.write", full)
    source = judged_set(Path("set"))
    write_lines(Path("first.trec"), [f"q{i} Q0 d{j} 1 1 t" for i in range(5) for j in range(12)])
    args = [command, source, "--run", "BM25=first.trec", "--over", "BM25", "--models", models["first"]]
    result = run(*args, "--backend", "fake", "--html", "page.html", code=1)
    assert result.stdout.startswith("BM25\t")
    assert "BM25 has 55 equal scores" in result.stderr
    assert "BM25 ranks nothing for 1 of the judged queries" in result.stderr
    assert "No space left on device: page.html" in result.stderr
    assert not list(Path().glob("page.html*"))
    page.write(Path("page.html"), "kept", ["as it was"])
    writing.check(Path("page.html"))
    assert "as it was" in Path("page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["eval", "frontier"])
def test_a_measure_that_cannot_be_computed_is_refused_before_the_work(command: str) -> None:
    source = judged_set(Path("set"))
    error = run(command, source, "--cache", "cache", "-m", "nDGC@10", code=1).stderr
    assert "is not a measure" in error
    # Its program takes only numbers as query ids; or there is no perl.
    assert "cannot compute ERR@10" in run(command, source, "--cache", "cache", "-m", "ERR@10", code=1).stderr
    assert not Path("cache").exists()


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("qrels/test.tsv", "judgments"),
        ("queries.jsonl", "queries"),
        ("corpus.jsonl", "documents"),
        ("a.trec", "rankings"),
    ],
)
def test_an_empty_file_is_named(file: str, what: str) -> None:
    source = judged_set(Path("set"))
    write_lines(source / "a.trec", ["q0 Q0 d0 1 2 t"])
    given = ["--queries", source / "queries.jsonl", "--qrels", source / "qrels" / "test.tsv"]
    write_lines(source / file, ["query-id\tcorpus-id\tscore"] if file.startswith("qrels") else [""])
    for more in ([], given):
        args = ["eval", source, "--run", f"a={source / 'a.trec'}", "--over", "a", "--no-rerank", *more]
        assert f"{source / file} holds no {what}" in run(*args, code=1).stderr


def test_a_split_must_be_chosen_where_there_are_several() -> None:
    source = judged_set(Path("set"))
    (source / "qrels" / "test.tsv").rename(source / "qrels" / "dev.tsv")
    for name in (".DS_Store", "._dev.tsv", "README.md"):
        write_lines(source / "qrels" / name, ["not of judgments"])
    write_lines(Path("a.trec"), ["q0 Q0 d0 1 2 t"])
    run("eval", "set", "--no-rerank", "--run", "a=a.trec", "--over", "a")
    write_lines(source / "qrels" / "train.tsv", ["q0\td0\t1"])
    assert "holds dev, train; choose one with --split" in run("eval", "set", "--no-rerank", code=1).stderr


def test_the_share_that_a_tuned_model_brings_is_measured_too(models: dict[str, str]) -> None:
    source = judged_set(Path("set"))
    tuned = Path(shutil.copytree(models["first"], "tuned"))
    stated = json.loads((tuned / "crossrank.json").read_text()) | {"mix": 0.7}
    (tuned / "crossrank.json").write_text(json.dumps(stated))
    common = [source, "--cache", "cache", "--embedder", models["embedder"], "--backend", "fake"]
    common += ["--models", f"{tuned},{models['second']}"]
    made = found("eval", *common)
    more = [f"{name}{mix}" for name in ("tuned", "second") for mix in ("", " (mix 0.4)", " (mix 0.7)")]
    assert [system["name"] for system in made["systems"]] == ["BM25", "dense", "fusion", *more]
    made = found("frontier", *common, "--depths", "3", "--timed", 1)
    names = {one["name"] for one in made["configurations"]}
    assert {"tuned 3", "tuned 3 (mix 0.4)", "tuned 3 (mix 0.7)"} <= names
    assert len(names) == 3 + 6
    # Over a run of whatever name; rows have no first stage, and are told by that and not by a name.
    run("eval", *common[:-2], "--models", "tuned", "--write-runs", "runs")
    mine = ["--run", "BM25=runs/BM25.trec", "--over", "BM25", "--models", "tuned", "--backend", "fake"]
    over = found("eval", source, *mine)
    assert "tuned (mix 0.7)" in {system["name"] for system in over["systems"]}


# --- frontier ----------------------------------------------------------------------------------------------------


def test_a_frontier_of_two_models_and_a_cascade(models: dict[str, str]) -> None:
    source = judged_set(Path("set"))
    args = ["frontier", source, "--cache", "cache", "--embedder", models["embedder"], "--backend", "fake"]
    args += ["--models", f"{models['first']},{models['second']}", "--depths", "3,6", "--timed", 2, "--mix", "0.5,1"]
    made = found(*args, "--cascade", "second>first", "--html", "page.html")
    names = {one["name"] for one in made["configurations"]}
    assert {"BM25", "dense", "fusion", "first 3", "first 6 (mix 0.5)", "second 6 (mix 0.5) > first 3"} <= names
    assert len(names) == 3 + 2 * 2 * 2 + 2
    assert made["timed_queries"] == 2
    assert made["times_hold_the_first_stage"]
    listed = made["configurations"]
    times = [one["latency_ms"]["median"] for one in listed]
    assert times == sorted(times)
    for one in listed:
        better = [
            other for other in listed
            if other["latency_ms"]["median"] <= one["latency_ms"]["median"]
            and other["quality"]["mean"] > one["quality"]["mean"] + 1e-9
        ]  # fmt: skip
        assert not (one["pareto"] and better)
    assert [one["difference"] for one in listed if one["name"] == "fusion"] == [None]
    page = Path("page.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 1
    assert "In the time you have" in page
    assert set(made["within_ms"]) == {"30", "50", "100", "200", "500"}
    # The same quality as `eval` measures for the same depth and mix.
    same = found("eval", *args[1:8], "--models", models["first"], "--depth", 6, "--mix", "0.5")
    want = next(one["values"]["nDCG@10"] for one in same["systems"] if one["name"] == "first (mix 0.5)")
    assert next(one["quality"] for one in listed if one["name"] == "first 6 (mix 0.5)") == want
    both = ["--models", args[9], "--depth", 6, "--mix", "0.5,1", "--cascade", "second>first"]
    made = found("eval", *args[1:8], *both)
    assert [system["name"] for system in made["systems"]][-2:] == ["second > first (mix 0.5)", "second > first"]
    for system in made["systems"][-2:]:
        share = "" if system["name"].endswith("first") else " (mix 0.5)"
        want = next(one["quality"] for one in listed if one["name"] == f"second 6 (mix 0.5) > first 3{share}")
        assert system["values"]["nDCG@10"] == want
        # What the fine stage may choose from is what the coarse one leaves.
        assert system["candidates"]["ceiling"]["nDCG@10"] <= made["systems"][3]["candidates"]["ceiling"]["nDCG@10"]
        assert system["cuts"]["pairs"] == made["systems"][3]["cuts"]["pairs"] / 2
        assert system["latency_ms"]["query"]["median"] > system["latency_ms"]["step"]["median"] > 0
    assert {one["model"] for one in made["calibration"]} == {"first"}


def test_a_language_model_reads_last_and_its_cost_is_said(models: dict[str, str]) -> None:
    pytest.importorskip("httpx", reason="needs the extra llm")
    from apiserver import completion, serving

    refuses: list[str] = []

    def answer(path: str, body: dict[str, Any]) -> Any:
        query, document = body["messages"][1]["content"].split("<document")
        if any(word in query for word in refuses):
            return 400, {"error": "content_filter"}, {}
        return completion('{"score": 7}' if "bread" in document else "who knows?")

    args = ["eval", judged_set(Path("set")), "--cache", "cache", "--embedder", models["embedder"], "--backend", "fake"]
    args += ["--models", f"{models['first']},{models['second']}", "--mix", "1"]
    with serving(answer) as api:
        llm = ("--llm", f"{api.url}#big", "--llm-depth", 3)
        made = run(*args, *llm, "--json", "--html", "page.html", code=Exit.SOME_FAILED)
        assert len(api.requests) == 6 * 3, "the page marks sentences without it"
        assert "big is asked up to 18 questions." in made.stderr
        told = json.loads(made.stdout)
        (note,) = (note for note in told["notes"] if note.startswith("big: "))
        assert note.startswith("big: 18 questions, 1800 + 90 tokens, ")
        assert "documents keep their place" in note
        *_, system = told["systems"]
        assert system["name"] == "first > big"
        assert (system["cuts"]["pairs"], system["latency_ms"]["query"]["queries"]) == (18, 6)
        # A filter that refuses one query must not cost what was paid for the others.
        refuses.append("bread?")
        told = json.loads(run(*args, *llm, "--json", code=Exit.SOME_FAILED).stdout)
        (note,) = (note for note in told["notes"] if note.startswith("big: "))
        assert "15 questions" in note
        assert "1 query keeps its order" in note
        refuses[:] = ["bread?", "yeast?", "cat?"]
        asked = len(api.requests)
        told = json.loads(run(*args, *llm, "--json", code=Exit.SOME_FAILED).stdout)
        assert len(api.requests) == asked + 15, "after three queries without an answer nothing is asked"
        (note,) = (note for note in told["notes"] if note.startswith("big: "))
        assert "4 queries keep their order" in note
        assert "not asked any more" in note
        refuses[:] = ["is"]
        assert "content_filter" in run(*args, *llm, "--json", code=1).stderr
        assert "names no model" in run(*args, "--llm-depth", 3, code=2).stderr
        asked = len(api.requests)
        assert "names no system" in run(*args, *llm, "--baseline", "first > big (mix 0.5)", code=2).stderr
        assert len(api.requests) == asked, "before anything is asked"
        assert run(*args, "--llm", "big", code=1).stderr.startswith("Error: 'big' is no address")
        assert "the reranking that --llm" in run(*args, *llm, "--no-rerank", code=2).stderr
