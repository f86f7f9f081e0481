"""A whole query over a real index: which models it opens and how, and what its steps say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import crossrank
import spies
import tiny
from crossrank import opening, pipeline, scorers
from crossrank.cascade import Stage
from crossrank.errors import IndexFileError, InputError
from crossrank.fusion import RRF, SHARES, LengthPrior, Scores
from crossrank.pipeline import MIX
from crossrank.relevance import last_read
from crossrank.stopping import Stopping
from crossrank.types import Passage, Ranking

pytest.importorskip("lance", reason="needs the search extra")

from crossrank.index import Document, Index
from crossrank.retrieval.dense import DenseRetriever, by_vector
from crossrank.retrieval.first import first_stage
from crossrank.retrieval.remote.function import FunctionRetriever
from crossrank.retrieval.where import mistake, why_nothing

TEXTS = {
    "paris": "Paris is the capital of France.",
    "bread": "Bread needs yeast.",
    "cat": "The cat is a planet, or not.",
}


@pytest.fixture
def folder(tmp_path: Path, bi_encoder_folder: Path) -> Path:
    """An index of three documents, made with the tiny bi-encoder."""
    embedder = crossrank.load_embedder(bi_encoder_folder)
    index = Index.create(tmp_path / "index", embedder, embedder.tokenizer, model=str(bi_encoder_folder), size=40)
    index.add([Document(id_, text) for id_, text in TEXTS.items()], embedder, embedder.tokenizer)
    return tmp_path / "index"


def test_the_first_stage_has_the_names_that_fusion_has_shares_for(folder: Path) -> None:
    """They are given in one place, and read in another: fusion by scores refuses a name without a share."""
    made = crossrank.open_pipeline(folder, rerank=False)
    assert list(made.retrievers) == list(SHARES)
    assert isinstance(made.fusion, Scores)
    assert made.fusion.weights == SHARES
    conditions = (f"{name}=acme" for name in ("tenant",))
    filtered = first_stage(Index.open(folder), made.retrievers["dense"].embedder, conditions)  # type: ignore[attr-defined]
    assert all("where=('tenant=acme',)" in repr(retriever) for retriever in filtered.values())


def test_a_model_that_was_tuned_in_a_search_brings_its_share(folder: Path, tmp_path: Path) -> None:
    tuned, plain = tiny.cross_encoder(tmp_path / "tuned"), tiny.cross_encoder(tmp_path / "plain")
    tiny.write_json(tuned / "crossrank.json", {"mix": 0.7})

    def weights(model: object, **how: Any) -> list[float]:
        return [stage.weight for stage in crossrank.open_pipeline(folder, model, **how).stages]  # type: ignore[arg-type]

    assert weights(tuned) == weights(crossrank.load(tuned)) == weights(tuned, cache=tmp_path / "scores") == [0.7]
    assert weights(tuned, coarse=[plain]) == [MIX, 0.7]
    assert weights(tuned, coarse=[plain], mix=0.5) == [0.5, 0.5]
    assert weights(plain) == [MIX]
    # A scorer of the user's own may mean something else by that name.
    lengths = SimpleNamespace(score=lambda pairs: np.zeros(len(pairs), np.float32), mix="all")
    assert weights(lengths) == [MIX]


def test_an_index_keeps_its_prompts_and_queries_have_theirs(tmp_path: Path, bi_encoder_folder: Path) -> None:
    """An E5 that reads queries without its "query: " finds worse, and nothing says so."""
    prompts = {"query_prompt": "what is ", "document_prompt": "the "}
    embedder = crossrank.load_embedder(bi_encoder_folder, **prompts)
    index = Index.create(tmp_path / "index", embedder, embedder.tokenizer, model=str(bi_encoder_folder), size=40)
    index.add([Document(id_, text) for id_, text in TEXTS.items()], embedder, embedder.tokenizer)
    assert index.settings.prompts == prompts
    plain = crossrank.load_embedder(bi_encoder_folder)
    vectors = plain.embed([f"the {text}" for text in TEXTS.values()])
    asked = plain.embed(["what is yeast"])[0]
    # Opened again by name alone.
    made = crossrank.open_pipeline(tmp_path / "index", rerank=False)
    found = next(trace.ranking for trace in made.search("yeast").traces if trace.name == "dense")
    wanted = dict(zip(TEXTS, (vectors @ asked).tolist(), strict=True))
    assert dict(zip(found.ids, found.scores.tolist(), strict=True)) == pytest.approx(wanted, abs=1e-5)
    other = crossrank.load_embedder(bi_encoder_folder, document_prompt="bread ")
    with pytest.raises(IndexFileError, match=r"made with another embedder .* reads 'bread ' before documents"):
        crossrank.open_pipeline(tmp_path / "index", embedder=other, rerank=False)
    # One that is given as an object gets the prompt for queries of the index, too, unless it has one itself.
    half = Index.create(
        tmp_path / "half", crossrank.load_embedder(bi_encoder_folder, query_prompt="what is "), embedder.tokenizer
    )
    half.add([Document("a", "bread")], crossrank.load_embedder(bi_encoder_folder), embedder.tokenizer)
    for given, before in (
        (plain, "what is "),
        (crossrank.load_embedder(bi_encoder_folder, query_prompt="the "), "the "),
    ):
        opened = crossrank.open_pipeline(tmp_path / "half", embedder=given, rerank=False)
        score = next(trace.ranking.scores[0] for trace in opened.search("yeast").traces if trace.name == "dense")
        assert score == pytest.approx(float(plain.embed(["bread"])[0] @ plain.embed([f"{before}yeast"])[0]), abs=1e-5)


def test_filters_of_a_generator_hold_for_every_step_and_query(folder: Path, bi_encoder_folder: Path) -> None:
    """They were read by the first retriever of the first query, and the others found what they forbid."""
    embedder = crossrank.load_embedder(bi_encoder_folder)
    index = Index.create(folder.parent / "tenants", embedder, embedder.tokenizer, model=str(bi_encoder_folder), size=40)
    documents = [Document(name, "Failed uploads.", metadata={"tenant": name}) for name in ("acme", "globex")]
    index.add(documents, embedder, embedder.tokenizer)
    where = {"tenant": "acme"}
    conditions = (f"{name}={value}" for name, value in where.items())
    made = crossrank.open_pipeline(folder.parent / "tenants", rerank=False, where=conditions)  # type: ignore[arg-type]
    for _ in range(2):
        assert [trace.ranking.ids for trace in made.search("failed uploads").traces] == [("acme",)] * 3
    retriever = DenseRetriever(index, embedder, iter(["tenant=acme"]))  # type: ignore[arg-type]
    assert [found.ids for found in retriever.retrieve(["uploads", "failed"], 5)] == [("acme",)] * 2


def test_a_filter_of_each_query_joins_that_of_the_pipeline(tmp_path: Path, bi_encoder_folder: Path) -> None:
    """It was a TypeError: a server of many tenants needed a pipeline for each."""
    embedder = crossrank.load_embedder(bi_encoder_folder)
    index = Index.create(tmp_path / "tenants", embedder, embedder.tokenizer, model=str(bi_encoder_folder), size=40)
    documents = [
        Document(f"{name}-{year}", "Failed uploads.", metadata={"tenant": name, "year": year})
        for name in ("acme", "globex")
        for year in (2019, 2024)
    ]
    index.add(documents, embedder, embedder.tokenizer)
    made = crossrank.open_pipeline(tmp_path / "tenants", rerank=False, where="year>=2020")
    for name in ("acme", "globex", "acme"):
        answer = made.search("failed uploads", where=f"tenant={name}")
        assert [trace.ranking.ids for trace in answer.traces] == [(f"{name}-2024",)] * 3
    assert made.search("failed uploads", where=iter(["tenant=acme", "year<2024"])).ranking.ids == ()
    assert len(made.search("failed uploads", where=()).ranking) == 2
    # An empty answer said nothing, and a filter's field may be mistyped.
    assert made.search("failed uploads", where=["tenant=acme", "yeer=2020"]).notes == (
        "no passage has a value in the field 'yeer'",
    )
    assert replace(made, retrievers=first_stage(index, embedder, "yaer=1")).search("failed uploads").nothing
    assert made.search("failed uploads", where="year<2024").notes == ()
    hurried = made.within(5000)
    assert hurried.search("failed uploads", where=["tenant=acme"]).ranking.ids == ("acme-2024",)
    context = made.context("failed uploads", 100, count=len, where="tenant=globex")
    assert [source.document for source in context.sources] == ["globex-2024"]
    with pytest.raises(InputError, match=r"search\(query, where=...\)"):
        made.context(answer, 100, count=len, where="tenant=acme")
    for where in ("", "tenant"):
        with pytest.raises(InputError, match="write FIELD=VALUE"):
            made.search("failed uploads", where=where)
    mixed = replace(made, retrievers={**made.retrievers, "own": FunctionRetriever(lambda query, depth: [])})
    with pytest.raises(InputError, match="the retriever 'own' cannot filter: FunctionRetriever has no filtered"):
        mixed.search("failed uploads", where="tenant=acme")
    mixed = replace(mixed, fusion=RRF())
    assert len(mixed.search("failed uploads", where=()).ranking) == 2, "no condition needs no filter"


def test_why_nothing_was_found_is_told_by_any_retriever_that_knows() -> None:
    class Told(FunctionRetriever):
        def __init__(self, why: str | None) -> None:
            super().__init__(lambda query, depth: [])
            self.why = why

        def mistake(self) -> str | None:
            return self.why

    silent = FunctionRetriever(lambda query, depth: [])
    assert why_nothing([silent, Told(None), Told("no such field"), Told("another")]) == "no such field"
    assert why_nothing([silent, Told(None)]) == ""
    assert mistake(object(), "year=2020") is None, "what knows no fields says nothing of them"


def test_each_query_is_searched_by_its_own_vector_and_a_blank_one_by_none() -> None:
    class Lengths:
        width = 1

        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            assert all(text.strip() for text in texts)
            return np.float32([[len(text)] for text in texts])  # type: ignore[return-value]

    found = by_vector(["ab", " ", "c"], Lengths(), lambda vector: Ranking.sorted([f"of {vector[0]:g}"], [1.0]))  # type: ignore[arg-type]
    assert [one.ranking.ids for one in found] == [("of 2",), (), ("of 1",)]


def test_a_function_is_no_retriever_yet() -> None:
    """It was an AttributeError of the first search."""
    with pytest.raises(InputError, match=r"the retriever 'own' \(function\) has no retrieve.*FunctionRetriever"):
        crossrank.Pipeline({"own": lambda query, depth: []}, list)  # type: ignore[dict-item, return-value]


def test_no_filter_and_what_is_none(folder: Path) -> None:
    assert crossrank.open_pipeline(folder, rerank=False, where=None).search("paris").passages
    wrong: list[Any] = [3, b"x=1", [None], {"lang": "en"}]
    for where in wrong:
        with pytest.raises(InputError, match="a filter is a condition"):
            crossrank.open_pipeline(folder, where=where)


def test_home_is_written_as_in_a_shell(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert len(crossrank.open_pipeline(f"~/{folder.name}", rerank=False).search("what is bread?").passages)


class Finds:
    """A retriever that gives what it was made with."""

    def __init__(self, found: object) -> None:
        self.found = found

    def retrieve(self, queries: object, depth: int) -> object:
        return self.found


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        ({"retrievers": [Finds([])]}, r'retrievers have names, as in \{"bm25": retriever\}; this is a list'),
        ({"budget": "5"}, "a budget in seconds must be a number"),
        ({"fusion": "rff"}, "unknown fusion 'rff'; use 'scores', 'rrf', or a function"),
        ({"fusion": 3}, "unknown fusion 3"),
    ],
)
def test_what_makes_no_pipeline_is_refused(options: dict[str, Any], cure: str) -> None:
    with pytest.raises(InputError, match=cure):
        crossrank.Pipeline(**{"retrievers": {"own": Finds([])}, "texts": list, **options})


def test_a_pipeline_takes_a_name_of_a_fusion_and_stages_of_a_generator() -> None:
    stage = crossrank.Stage(crossrank.load("tiny"))
    made = crossrank.Pipeline({"own": Finds([])}, list, (one for one in [stage, stage]), fusion="rrf")  # type: ignore[arg-type]
    assert [one.name for one in made.stages] == [stage.name, f"{stage.name} (2)"]
    assert made.fusion == RRF()


@pytest.mark.parametrize("found", [[], None, ["a"], [Ranking.sorted([], [])] * 2])
def test_a_retriever_gives_one_ranking_a_query(found: object) -> None:
    with pytest.raises(InputError, match=r"Finds.retrieve\(queries, depth\) must give a list with a Ranking for each"):
        crossrank.Pipeline({"own": Finds(found)}, list).search("tea?")  # type: ignore[dict-item]


def test_coarse_models_are_a_list(folder: Path) -> None:
    for coarse in ("tiny", None, crossrank.load("tiny")):
        with pytest.raises(InputError, match=r"coarse is a list of models, so one is coarse=\[.*none is coarse=\[\]"):
            crossrank.open_pipeline(folder, coarse=coarse)  # type: ignore[arg-type]


def test_stages_that_are_none_are_refused(cross_encoder_folder: Path) -> None:
    """One stage was a bare TypeError, a scorer an AttributeError; `rerank` had sentences for both."""
    scorer = crossrank.load(cross_encoder_folder, backend="fake")
    retrievers = {"own": FunctionRetriever(lambda query, depth: [])}
    for stages, said in [(crossrank.Stage(scorer), "not one stage"), ((scorer,), "make one with Stage")]:
        with pytest.raises(InputError, match=said):
            crossrank.Pipeline(retrievers, list, stages)  # type: ignore[arg-type]


def test_a_depth_of_nothing_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="depth must be at least 1"):
        crossrank.open_pipeline(folder, depth=0)
    with pytest.raises(InputError, match=r"^mix must be a number, not 'x'$"):
        crossrank.open_pipeline(folder, mix="x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^a budget in milliseconds must be a number, not '100'$"):
        crossrank.open_pipeline(folder, rerank=False).within("100")  # type: ignore[arg-type]


def test_both_models_are_opened_as_asked(
    folder: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, dict[str, Any]]] = []
    for module, name in ((scorers, "load_scorer"), (opening, "load_embedder")):
        real = getattr(module, name)

        def spied(model: Any, real: Any = real, name: str = name, **how: Any) -> Any:
            opened.append((name, how))
            return real(model)

        monkeypatch.setattr(module, name, spied)
    how = {"backend": "torch", "device": "cuda", "dtype": "bfloat16", "threads": 3}
    made = crossrank.open_pipeline(folder, cross_encoder_folder, **how)
    assert opened == [("load_embedder", how), ("load_scorer", how)]
    assert [stage.name for stage in made.stages] == [str(cross_encoder_folder)]


def test_a_late_interaction_model_is_a_stage_like_another(folder: Path, tmp_path: Path) -> None:
    made = crossrank.open_pipeline(folder, tiny.late(tmp_path / "late"), dtype="float32")
    [stage] = made.stages
    assert isinstance(stage.scorer, crossrank.LateInteraction)
    trace = made.search("what is the capital of france?").traces[-1]
    assert trace.name == str(tmp_path / "late")
    pairs = [("what is the capital of france?", TEXTS[id_]) for id_ in trace.scores]
    assert list(trace.scores.values()) == pytest.approx(stage.scorer.score(pairs).tolist(), abs=1e-6)
    hurried = made.within(200).search("what is the capital of france?")
    assert hurried.ranking.ids
    context = made.context("what is the capital of france?", 200)
    assert context.counted_by == f"the tokenizer of {tmp_path / 'late'}"
    assert context.tokens == stage.scorer.count(context.text) > 0
    with pytest.raises(InputError, match="leave the cache out"):
        crossrank.open_pipeline(folder, tmp_path / "late", cache=tmp_path / "scores")


def test_a_scorer_is_a_stage_as_it_is(folder: Path, cross_encoder_folder: Path, tmp_path: Path) -> None:
    """`open_pipeline(folder, crossrank.load(...))` was a bare TypeError, though `hybrid` and `Stage` take objects."""

    class Lengths:
        def score(self, pairs: Any) -> Any:
            return np.float32([len(text) for _, text in pairs])

    scorer, lengths = crossrank.load(cross_encoder_folder), Lengths()
    made = crossrank.open_pipeline(folder, lengths, coarse=[scorer], mix=1.0)
    assert [(stage.scorer, stage.name) for stage in made.stages] == [
        (scorer, str(cross_encoder_folder)),
        (lengths, "Lengths"),
    ]
    assert made.search("what is the capital of France?", k=1).passages[0].text == TEXTS["paris"]
    (cached,) = crossrank.open_pipeline(folder, scorer, cache=tmp_path / "scores").stages
    assert isinstance(cached.scorer, crossrank.CachedScorer)
    with pytest.raises(InputError, match="leave the cache out"):
        crossrank.open_pipeline(folder, lengths, cache=tmp_path / "scores")
    with pytest.raises(InputError, match=r"a name, a folder or an object with score\(pairs\), not int"):
        crossrank.open_pipeline(folder, 3)  # type: ignore[arg-type]


def test_what_a_backend_cannot_do_is_refused(folder: Path, cross_encoder_folder: Path) -> None:
    with pytest.raises(crossrank.CrossrankError, match="use backend='cpu' or 'torch'"):
        crossrank.open_pipeline(folder, cross_encoder_folder, backend="reference", dtype="bfloat16")


def test_a_query_goes_through_every_step(folder: Path, cross_encoder_folder: Path) -> None:
    answer = crossrank.open_pipeline(folder, cross_encoder_folder).search("what is the capital of France?", k=2)
    assert [trace.name for trace in answer.traces] == ["bm25", "dense", "fused", str(cross_encoder_folder)]
    assert len(answer.ranking) == len(answer.passages) == 2
    assert [passage.text for passage in answer.passages] == [TEXTS[id_] for id_ in answer.ranking.ids]
    with pytest.raises(crossrank.CrossrankError, match="the query is empty"):
        crossrank.open_pipeline(folder, cross_encoder_folder).search("  ")


def test_an_answer_holds_the_passages_of_its_ids(folder: Path) -> None:
    made = crossrank.open_pipeline(folder, rerank=False)
    whole = made.search("what is the capital of France?")
    assert [passage.id for passage in whole] == list(whole.ranking.ids)
    with pytest.raises(InputError, match=r"search takes one query: \[pipeline.search"):
        made.search(["what is paris?", "what is bread?"])  # type: ignore[arg-type]
    turned = replace(made, texts=lambda ids: list(made.texts(ids))[::-1]).search("what is the capital of France?")
    assert turned.passages == whole.passages
    with pytest.raises(InputError, match=f"first of which is '{whole.ranking.ids[0]}'"):
        replace(made, texts=lambda ids: list(made.texts(ids))[1:]).search("what is the capital of France?")


def test_fusion_by_scores_or_by_ranks(folder: Path, cross_encoder_folder: Path) -> None:
    def fused(how: object) -> Ranking:
        made = crossrank.open_pipeline(folder, cross_encoder_folder, fusion=how, rerank=False)  # type: ignore[arg-type]
        return next(t.ranking for t in made.search("what is the capital of France?").traces if t.name == "fused")

    index = Index.open(folder)
    assert fused("scores").scores.tolist() == fused(Scores(prior=LengthPrior(index.lengths))).scores.tolist()
    assert fused("scores").scores.tolist() != fused(Scores()).scores.tolist()
    assert fused("rrf").scores.max() <= 2 / 61
    assert sorted(fused("rrf").ids) == sorted(fused("scores").ids)
    with pytest.raises(InputError, match="unknown fusion"):
        fused("ranks")


def test_how_scores_were_joined_is_in_the_traces(folder: Path, cross_encoder_folder: Path) -> None:
    def how(**given: object) -> list[str]:
        made = crossrank.open_pipeline(folder, cross_encoder_folder, **given)  # type: ignore[arg-type]
        return [trace.how for trace in made.search("what is the capital of France?").traces]

    fused = "0.4 bm25 + 0.6 dense, standardized; less 0.3 ln(200 / tokens) standard deviations under 200 tokens"
    assert how() == ["", "", fused, "0.4 of its score, 0.6 of the one before"]
    assert how(mix=1.0, fusion="rrf") == ["", "", "the sum of 1 / (60 + rank)", ""]
    assert how(fusion=Scores({"bm25": 1.0, "dense": 0}), rerank=False)[2] == "1 bm25 + 0 dense, standardized"
    assert (
        how(fusion=Scores(prior=lambda ids: np.zeros(len(ids))))[2] == "0.4 bm25 + 0.6 dense, standardized; and a prior"
    )
    assert how(fusion=lambda rankings: rankings["dense"], rerank=False)[2] == ""


def test_stopping_early_is_a_rule_of_every_stage(tmp_path: Path, bi_encoder_folder: Path) -> None:
    class Agrees:
        """Scores as BM25 and the embedder do, so that the top is settled as soon as the rule may look."""

        def __init__(self) -> None:
            self.read = 0

        def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
            self.read += len(pairs)
            return np.array([float(text.count("cat")) for _, text in pairs], dtype=np.float32)

    embedder = crossrank.load_embedder(bi_encoder_folder)
    index = Index.create(tmp_path / "many", embedder, embedder.tokenizer, model=str(bi_encoder_folder), size=200)
    texts = {f"d{n:02}": "cat " * max(1, 60 - n) + "bread " * n for n in range(60)}
    index.add([Document(id_, text) for id_, text in texts.items()], embedder, embedder.tokenizer)
    scorer = Agrees()
    whole = crossrank.open_pipeline(tmp_path / "many", scorer).search("cat", k=5)
    assert (scorer.read, whole.traces[-1].stopped) == (60, "")
    made = crossrank.open_pipeline(tmp_path / "many", scorer, coarse=[Agrees()], stop_early=True)
    assert all(stage.stopping is not None for stage in made.stages)
    pipeline = crossrank.open_pipeline(tmp_path / "many", scorer, stop_early=True)
    early = pipeline.search("cat", k=5)
    assert 32 <= len(early.traces[-1].scores) < 60
    # The second query knows how fast the scorer was, and reads as far.
    assert [list(pipeline.search("cat", k=5).ranking) for _ in range(2)] == [list(early.ranking)] * 2
    assert (early.traces[-1].stopped, set(early.ranking.ids)) == ("settled", set(whole.ranking.ids))
    assert "no other was likely to reach the top" in early.traces[-1].note


GUIDE = {f"guide#{n}": f"The cat is a planet of {n}." for n in range(40)}
NOTES = {f"note{n}#0": f"Bread needs yeast of {n}." for n in range(20)}


class Cats:
    """Likes cats, and of these the first ones; tells how many it has read."""

    def __init__(self) -> None:
        self.read = 0

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        self.read += len(pairs)
        return np.float32([20.0 * ("cat" in text) - int(text[:-1].split()[-1]) for _, text in pairs])


def crowded(stage: Stage, **more: Any) -> pipeline.Pipeline:
    """A guide of 40 passages, which are the best, and 20 notes of one each."""
    passages = {id_: Passage(id_, text, document=id_[: id_.index("#")]) for id_, text in {**GUIDE, **NOTES}.items()}

    class Given:
        def retrieve(self, queries: Sequence[str], depth: int) -> list[Ranking]:
            return [Ranking.sorted(list(passages), -np.arange(60)).cut(depth) for _ in queries]

    return pipeline.Pipeline({"given": Given()}, lambda ids: [passages[i] for i in ids], (stage,), **more)


def test_of_each_document_only_the_best_passages_are_in_an_answer() -> None:
    """The guide took all places, and no note was ever seen."""
    made = crowded(Stage(Cats()))
    assert {passage.document for passage in made.search("cat?", 5)} == {"guide"}
    answer = made.search("cat?", 5, per_document=1)
    assert answer.ranking.ids == ("guide#0", "note0#0", "note1#0", "note2#0", "note3#0")
    assert [passage.id for passage in answer] == list(answer.ranking.ids)
    assert dict(answer.left_out) == {"guide": 23}
    assert answer.notes == answer.grouped == ("left out: 23 passages of documents that have 1 here: guide 23",)
    two = made.search("cat?", 5, per_document=2)
    assert two.ranking.ids[:3] == ("guide#0", "guide#1", "note0#0")
    assert len(made.search("cat?", 30, per_document=1)) == 21
    # One that nothing reaches is no limit.
    assert list(made.search("cat?", 60, per_document=60).ranking) == list(made.search("cat?", 60).ranking)
    with pytest.raises(InputError, match="per_document must be at least 1"):
        made.search("cat?", per_document=0)


@pytest.mark.parametrize("budget", [None, 60_000])
def test_reading_does_not_stop_before_the_places_of_documents_are_settled(budget: float | None) -> None:
    """Within the first 32, which are the guide's, the plain top is settled, and no note was read."""
    scorer = Cats()

    def made() -> pipeline.Pipeline:
        """One that does not know yet how fast the scorer is, and reads few at a time."""
        plain = crowded(Stage(scorer, weight=0.4, stopping=Stopping(error=1e-6)))
        return plain if budget is None else plain.within(budget)

    assert (made().search("cat?", 5).traces[-1].stopped, scorer.read < 40) == ("settled", True)
    answer = made().search("cat?", 5, per_document=1)
    whole = crowded(Stage(Cats(), weight=0.4)).search("cat?", 5, per_document=1)
    assert answer.ranking.ids == whole.ranking.ids
    assert answer.ranking.head == 5, "every one of them was read"
    assert len(answer.traces[-1].scores) > 40


def test_a_filter_a_threshold_and_a_context_go_by_what_is_left_of_each_document(
    tmp_path: Path, bi_encoder_folder: Path, cross_encoder_folder: Path
) -> None:
    embedder = crossrank.load_embedder(bi_encoder_folder)
    index = Index.create(tmp_path / "i", embedder, embedder.tokenizer, model=str(bi_encoder_folder), size=16)
    guide = " ".join(f"The cat is a planet of {n}." for n in range(6))
    documents = [Document(id_, text, metadata={"kind": id_[:4]}) for id_, text in {**TEXTS, "guide": guide}.items()]
    index.add(documents, embedder, embedder.tokenizer)
    scorer = crossrank.load(cross_encoder_folder, calibration={"slope": 1.0, "intercept": 0.0})
    made = crossrank.open_pipeline(tmp_path / "i", scorer, mix=1.0)
    best = made.search("cat", 20)
    assert len(best) > 4
    answer = made.search("cat", 20, per_document=1)
    assert sorted(passage.document for passage in answer) == ["bread", "cat", "guide", "paris"]
    assert sum(answer.left_out.values()) == len(best) - 4
    (alone,) = made.search("cat", 20, where="kind=guid", per_document=1)
    assert alone.document == "guide"
    chances = made.relevance(answer).probabilities
    limit = sorted(chance for chance in chances if chance is not None)[2]
    kept = made.search("cat", 20, threshold=limit, per_document=1)
    assert (len(kept), kept.ranking.ids) == (2, answer.ranking.ids[:2])
    assert [note.split()[0:3] for note in kept.notes[:1]] == [["left", "out:", str(len(best) - 4)]]
    assert "under the threshold" in kept.notes[-1]
    context = made.context("cat", 1000, 20, per_document=1)
    assert sorted(source.document for source in context.sources) == ["bread", "cat", "guide", "paris"]
    assert context.notes[0] == answer.notes[0]
    assert made.context(answer, 1000).text == context.text
    with pytest.raises(InputError, match="per_document is of a search"):
        made.context(answer, 1000, per_document=1)


def test_a_query_that_the_embedder_cuts_is_in_the_trace(folder: Path, cross_encoder_folder: Path) -> None:
    answer = crossrank.open_pipeline(folder, cross_encoder_folder).search("the cat " * 40, k=1)
    cuts = {trace.name: [(cut.position, cut.tokens, cut.read) for cut in trace.truncations] for trace in answer.traces}
    # 60 tokens are the cross-encoder's, 3 of them special; half of the rest is for the query.
    own = cuts.pop(str(cross_encoder_folder))
    assert cuts == {"bm25": [], "dense": [(-1, 80, 46)], "fused": []}
    assert answer.notes[0] == "the query was cut: dense read its first 46 of 80 tokens"
    assert own[0] == (-1, 80, 28)


def test_passages_of_an_index_are_not_tokenized(
    folder: Path, cross_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = crossrank.open_pipeline(folder, cross_encoder_folder, backend="fake")
    scorer = made.stages[0].scorer
    assert isinstance(scorer, crossrank.CrossEncoder)
    spy = spies.Counting(scorer._encoder._ids)
    assert made.store is not None
    assert made.store.tokenizer == scorer.tokenizer  # Known before the spy takes its place.
    monkeypatch.setattr(scorer._encoder, "_ids", spy)
    query = "what is the capital of France?"
    with_ids = made.search(query)
    assert spy.texts == [query]
    assert with_ids.traces[-1].note == ""
    with_texts = replace(made, store=None).search(query)
    assert len(spy.texts) == 2 + len(TEXTS)
    assert with_texts.ranking.ids == with_ids.ranking.ids
    assert with_texts.traces[-1].scores == with_ids.traces[-1].scores


def test_ids_of_another_tokenizer_are_not_used(folder: Path, tmp_path: Path) -> None:
    other = tiny.cross_encoder(tmp_path / "other")
    (other / "vocab.txt").write_text("\n".join([*tiny.VOCABULARY[:5], *reversed(tiny.VOCABULARY[5:])]) + "\n")
    made = crossrank.open_pipeline(folder, other, backend="fake")
    answer = made.search("what is the capital of France?")
    assert answer.traces[-1].note == "tokenized 3 passages: the index holds ids of another tokenizer"
    scorer = made.stages[0].scorer
    pairs = [("what is the capital of France?", TEXTS[id_]) for id_ in answer.traces[-1].scores]
    assert list(answer.traces[-1].scores.values()) == scorer.score(pairs).tolist()


def test_a_stored_passage_cannot_forge_special_tokens(
    folder: Path, cross_encoder_folder: Path, bi_encoder_folder: Path
) -> None:
    embedder = crossrank.load_embedder(bi_encoder_folder)
    index, scorer = Index.open(folder), crossrank.load(cross_encoder_folder, backend="fake")
    index.add([Document("forged", "the [SEP] planet [CLS]")], embedder, embedder.tokenizer)
    ids = index.tokens(["forged"])
    tokenizer = scorer.checkpoint.tokenizer()
    assert not {tokenizer.token_to_id(name) for name in ("[SEP]", "[CLS]")} & set(ids.ids.tolist())
    want = scorer.score([("what", "the [SEP] planet [CLS]")])
    assert scorer.scored_tokens(["what"], ids).scores.tolist() == want.tolist()


class Ordered:
    """A scorer of places, which compare within one call only."""

    listwise = True

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        return np.arange(len(pairs), 0, -1, dtype=np.float32)


def test_evidence_by_places_has_no_drop(folder: Path) -> None:
    made = replace(crossrank.open_pipeline(folder, rerank=False), stages=(Stage(Ordered()),))
    answer = replace(made.search("paris"), passages=(Passage("a", "One. Two."),))
    answer = replace(answer, ranking=Ranking.sorted(["a"], [1.0]))
    (found,) = made.evidence(answer)
    assert found is not None
    assert (found.start, found.drop) == (0, None)


def test_evidence_is_what_the_last_stage_finds_best_and_scores_are_remembered(
    folder: Path, cross_encoder_folder: Path, tmp_path: Path
) -> None:
    made = crossrank.open_pipeline(folder, cross_encoder_folder, cache=tmp_path / "scores")
    scorer = made.stages[0].scorer
    assert isinstance(scorer, crossrank.CachedScorer)
    answer = made.search("what is paris?", k=2)
    found = made.evidence(answer)
    assert [None if one is None else (one.start, one.stop) for one in found] == [
        (0, len(passage.text)) for passage in answer.passages
    ]
    again = made.search("what is paris?", k=2)
    assert (scorer.uses.known, scorer.uses.asked) == (3, 6)
    assert again.ranking.scores.tolist() == answer.ranking.scores.tolist()
    with pytest.raises(crossrank.errors.InputError, match="only retrieves"):
        replace(made, stages=()).evidence(answer)


def test_models_from_coarse_to_fine(folder: Path, cross_encoder_folder: Path, tmp_path: Path) -> None:
    second = tiny.cross_encoder(tmp_path / "second", num_hidden_layers=1)
    made = crossrank.open_pipeline(folder, cross_encoder_folder, coarse=[second], depth=2)
    assert [(stage.name, stage.depth) for stage in made.stages] == [(str(second), 2), (str(cross_encoder_folder), 1)]
    assert [len(trace.scores) for trace in made.search("what is paris?").traces] == [0, 0, 0, 2, 1]
    with pytest.raises(InputError, match="on_error must be"):
        crossrank.open_pipeline(folder, coarse=["./nowhere"], on_error="ignore")
    kept = crossrank.open_pipeline(folder, cross_encoder_folder, coarse=["./nowhere"], on_error="keep")
    assert kept.search("what is paris?").failed == ("./nowhere",)
    with pytest.raises(InputError, match=r"coarse=\['tiny'\]"):
        crossrank.open_pipeline(folder, coarse="tiny")


def test_evidence_and_context_are_of_the_model_that_read(
    folder: Path, cross_encoder_folder: Path, tmp_path: Path
) -> None:
    """A budget may leave the last stage out: its model has said nothing of the passages."""
    calibrated = tiny.cross_encoder(tmp_path / "calibrated", num_hidden_layers=1)
    tiny.write_json(calibrated / "crossrank.json", {"calibration": {"slope": 1.0, "intercept": 0.0}})
    made = crossrank.open_pipeline(folder, cross_encoder_folder, coarse=[calibrated], mix=1.0)
    answer = replace(made, stages=made.stages[:1]).search("what is paris?")
    stage, scores = last_read(made.stages, answer.traces)
    assert stage is made.stages[0]
    assert scores == answer.traces[-1].scores
    assert made.relevance(answer).best == max(made.stages[0].scorer.probability(list(scores.values())))  # type: ignore[attr-defined]
    long = replace(answer, passages=(crossrank.Passage("paris", "One. Paris is the capital."), *answer.passages[1:]))
    (found, *_) = made.evidence(long)
    assert found is not None
    alone = made.stages[0].scorer.score([("what is paris?", long.passages[0].text[found.start : found.stop])])
    assert found.score == alone[0]
