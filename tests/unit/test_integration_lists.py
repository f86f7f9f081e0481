"""What all hosts' rerankers share: how many of a list come back, which, and how their scores are told. No host."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

import crossrank
import tiny
from crossrank.cascade import mixed
from crossrank.errors import CheckpointError, InputError
from crossrank.integrations import lists
from crossrank.integrations.best import Asked, Scores, best
from crossrank.types import Passage, Ranking

QUERY = "capital of France?"


def test_a_text_that_was_not_counted_whole_is_told_as_more_than_its_bound() -> None:
    # "19300 of 122880 tokens": the second number was how far the count went, and the text was longer.
    scorer = crossrank.load("fast", max_windows=1)
    (found,) = best(scorer, QUERY, ["bread " * 200_000], 1)
    (cut,) = scorer.scored([(QUERY, "bread " * 200_000)]).truncations
    assert not cut.exact
    assert found.notes == {"rerank_read": f"{cut.read:,} of more than {cut.tokens:,} tokens"}


TEXTS = ["Bread needs yeast.", "Paris is the capital of France.", "", "London is a city."]


@pytest.fixture(scope="module")
def small() -> crossrank.CrossEncoder:
    return crossrank.load("small")


def test_scores_are_probabilities_where_they_are_asked_for(small: crossrank.CrossEncoder) -> None:
    raw, told = best(small, QUERY, TEXTS, None), best(small, QUERY, TEXTS, None, Asked("probability"))
    assert [one.position for one in told] == [one.position for one in raw]
    want = small.probability(np.array([one.score for one in raw], np.float32)).tolist()
    assert [one.score for one in told] == want
    assert (want[0] > 0.5, want[-1], raw[-1].score) == (True, 0.0, -np.inf)


def test_a_threshold_is_a_probability_whatever_the_scores_are(small: crossrank.CrossEncoder) -> None:
    chances = [one.score for one in best(small, QUERY, TEXTS, None, Asked("probability"))]
    for scores in get_args(Scores):
        for least in (chances[1], chances[0], 0.0, 1.0):
            found = best(small, QUERY, TEXTS, None, Asked(scores, least))
            assert len(found) == sum(chance >= least for chance in chances)
    assert small.threshold is not None
    own = best(small, QUERY, TEXTS, None, Asked(threshold="model"))
    assert own == best(small, QUERY, TEXTS, None, Asked(threshold=small.threshold))
    assert len(best(small, QUERY, TEXTS, 1, Asked(threshold=0.0))) == 1


def test_a_threshold_is_held_against_as_in_rank(small: crossrank.CrossEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The float32 nearest to 0.7 is under 0.7; here it was compared as a float32, and reached it."""
    monkeypatch.setattr(small, "probability", lambda scores: np.full(len(scores), 0.7, np.float32))
    assert [len(best(small, QUERY, TEXTS, None, Asked(threshold=least))) for least in (0.7, 0.69)] == [0, 4]
    assert [len(small.rank(QUERY, TEXTS, threshold=least)) for least in (0.7, 0.69)] == [0, 4]


def test_a_model_without_probabilities_is_refused_before_it_reads(tmp_path: Path) -> None:
    # A threshold that was passed over would let everything through.
    identity = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}
    plain = crossrank.load(tiny.cross_encoder(tmp_path / "plain", **identity), backend="fake")
    for scorer, cure in ((plain, "Platt"), (Unread(), 'such as "small"')):
        for options in ({"scores": "probability"}, {"threshold": 0.5}, {"threshold": "model"}):
            with pytest.raises(InputError, match=cure):
                best(scorer, QUERY, TEXTS, None, Asked(**options))
    # It told whoever asked for probabilities to leave out a threshold that was not given.
    for options, named in (
        ({"scores": "probability"}, "scores"),
        ({"threshold": 0.5}, "threshold"),
        ({"scores": "probability", "threshold": 0.5}, "scores and threshold"),
    ):
        with pytest.raises(InputError, match=f"no probabilities: leave out {named}, or take a cross-encoder"):
            best(Unread(), QUERY, TEXTS, None, Asked(**options))
    with pytest.raises(InputError, match="give a probability"):
        best(crossrank.load(calibration={"slope": 1, "intercept": 0}), QUERY, TEXTS, None, Asked(threshold="model"))


class Unread:
    """A scorer that must not be asked."""

    def score(self, pairs: Any) -> Any:
        raise AssertionError


class Length:
    """The score is the length of the text."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        return np.array([len(text) if text.strip() else -np.inf for _, text in pairs], np.float32)


class Failing:
    def score(self, pairs: Any) -> Any:
        raise RuntimeError("boom")


def positions(*args: Any) -> list[int]:
    return [one.position for one in best(*args)]


def test_a_mix_joins_the_scores_that_texts_came_with() -> None:
    """The bare title that a cross-encoder likes came before the page that the search had found for certain."""
    texts, came = ["the page", "the longest of all texts", "middle length"], [0.95, 0.10, 0.12]
    assert positions(Length(), QUERY, texts, None) == [1, 2, 0]
    assert positions(Length(), QUERY, texts, None, Asked(mix=0.4), came) == [0, 1, 2]
    found = best(Length(), QUERY, texts, None, Asked(mix=0.4), came)
    before = Ranking.sorted(["0", "1", "2"], came)
    want = mixed(before, np.array([len(texts[int(id_)]) for id_ in before.ids], np.float32), 0.4)
    assert [one.score for one in found] == pytest.approx(want.scores.tolist(), abs=1e-5)
    assert [one.told for one in found] == [one.score for one in found]
    # float32 cannot tell such scores apart, and holds no larger ones than 3e38.
    for scale, shift in ((1.0, 1.7e9), (1e300, 0.0)):
        other = [scale * score + shift for score in came]
        assert positions(Length(), QUERY, texts, None, Asked(mix=0.4), other) == [0, 1, 2]
    # Shuffled, they come out alike: it is their scores that count.
    order = [2, 0, 1]
    again = positions(Length(), QUERY, [texts[i] for i in order], None, Asked(mix=0.4), [came[i] for i in order])
    assert [order[place] for place in again] == [0, 1, 2]


@pytest.mark.parametrize("came", [None, [0.1, None, 0.9], [0.1, float("nan"), 0.9]])
def test_where_a_score_is_missing_the_order_counts(came: Any) -> None:
    texts = ["aaaa", "aaa", "aaaaa"]
    assert positions(Length(), QUERY, texts, None, Asked(mix=0.01), came) == [0, 1, 2]


def test_blank_texts_come_last_in_a_mix(small: crossrank.CrossEncoder) -> None:
    found = best(small, QUERY, TEXTS, None, Asked(mix=0.4), [0.1, 0.2, 0.9, 0.3])
    assert (found[-1].position, found[-1].score) == (2, -np.inf)
    assert found[-1].told == found[-2].told - 1
    # The probability is beside the mixed score, that of the model alone.
    chances = {one.position: one.score for one in best(small, QUERY, TEXTS, None, Asked("probability"))}
    assert {one.position: one.notes["probability"] for one in found} == pytest.approx(chances)
    assert "probability" not in best(small, QUERY, TEXTS, None)[0].notes


def test_a_threshold_is_held_against_the_models_own_probability_in_a_mix(small: crossrank.CrossEncoder) -> None:
    came = [0.9, 0.1, 0.2, 0.8]
    kept = best(small, QUERY, TEXTS, None, Asked(mix=0.1, threshold=0.5), came)
    chances = {one.position: one.score for one in best(small, QUERY, TEXTS, None, Asked("probability"))}
    assert {one.position for one in kept} == {place for place, chance in chances.items() if chance >= 0.5} != set()


def test_what_a_budget_leaves_unread_stays_behind_in_its_order() -> None:
    class Slow(Length):
        def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
            time.sleep(0.02 * len(pairs))
            return super().score(pairs)

    began = time.perf_counter()
    assert len(best(Slow(), QUERY, ["a"] * 8000, None, Asked(budget_ms=1))) == 8000
    assert time.perf_counter() - began < 5, "scores of the unread took as long as the square of their number"
    texts = ["a" * n for n in range(1, 400)]
    found = best(Slow(), QUERY, texts, None, Asked(budget_ms=150))
    assert sorted(one.position for one in found) == list(range(len(texts)))
    note = found[0].notes["rerank_note"]
    read = int(note.split()[5])
    assert note == f"the time was enough for {read} of 399 passages"
    assert 0 < read < len(texts)
    assert [one.position for one in found] == [*range(read - 1, -1, -1), *range(read, len(texts))]
    told = [one.told for one in found]
    assert told == sorted(told, reverse=True)


def test_a_model_that_fails_leaves_the_order_where_that_is_asked_for(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    came = [0.1, 0.3, 0.2, 0.4]
    with pytest.raises(RuntimeError, match="boom"):
        best(Failing(), QUERY, TEXTS, None)
    for mix in (1.0, 0.4):
        found = best(Failing(), QUERY, TEXTS, 3, Asked(on_error="keep", mix=mix), came)
        assert [one.position for one in found] == [0, 1, 2]
        assert [(one.score, one.told) for one in found] == [(0.1, 0.1), (0.3, 0.3), (0.2, 0.2)]
        # float32 has no such times, and no such numbers.
        for large in ([1767225660.0, 1767225630.0, 1767225600.0], [1e300, 2.0, -1e300]):
            found = best(Failing(), QUERY, TEXTS[:3], None, Asked(on_error="keep", mix=mix), large)
            assert [one.told for one in found] == large
    with pytest.raises(InputError, match="the query is empty"):
        best(Failing(), " ", TEXTS, 3, Asked(on_error="keep"))
    assert all("boom" in one.notes["rerank_note"] for one in found)
    assert "the order before is kept" in caplog.text
    assert positions(Failing(), QUERY, TEXTS, None, Asked(on_error="keep")) == [0, 1, 2, 3]
    gone = lists.Model(str(tmp_path / "gone"))
    with pytest.raises(CheckpointError):
        gone.ready_or("raise")
    # A threshold cannot be held against what nobody read: nothing is left out for it.
    asked = Asked(on_error="keep", threshold=0.5)
    assert len(best(gone.ready_or("keep"), QUERY, TEXTS, None, asked, came)) == 4


@pytest.mark.parametrize("other", [{"mix": 0.4}, {"budget_ms": 5}, {"on_error": "keep"}])
def test_probabilities_alone_are_of_lists_that_are_read_whole(other: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"leave {next(iter(other))} out"):
        Asked("probability", **other)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scores": "sigmoid"}, "probability"),
        ({"threshold": 1.5}, "from 0 to 1"),
        ({"threshold": "own"}, "model"),
        ({"mix": 0}, "over 0 and at most 1"),
        ({"mix": 1.1}, "over 0 and at most 1"),
        ({"mix": "most"}, "mix"),
        ({"budget_ms": 0}, "a time over 0"),
        ({"budget_ms": float("inf")}, "a time over 0"),
        ({"on_error": "ignore"}, "'raise' or 'keep'"),
    ],
)
def test_what_means_nothing_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        best(Unread(), QUERY, TEXTS, None, Asked(**options))


def hub_model(tmp_path: Path, make: Any) -> dict[str, Any]:
    """Options that find the model "someone/some-model" in a cache of the hub."""
    place = tmp_path / "models--someone--some-model"
    make(place / "snapshots" / "abc123")
    (place / "refs").mkdir()
    (place / "refs" / "v1").write_text("abc123")
    return {"revision": "v1", "cache_dir": tmp_path, "backend": "fake"}


def test_models_of_the_hub_are_found_as_load_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    options = hub_model(tmp_path / "one", tiny.cross_encoder)
    assert isinstance(lists.Model("someone/some-model", options).ready, crossrank.CrossEncoder)
    windows = {"window": 9, "overlap": 3}
    assert isinstance(lists.Model("someone/some-model", {**options, **windows}).ready, crossrank.CrossEncoder)
    late = hub_model(tmp_path / "two", tiny.late)
    assert isinstance(lists.Model("someone/some-model", late).ready, crossrank.LateInteraction)
    with pytest.raises(InputError, match="leave window out of load_options"):
        _ = lists.Model("someone/some-model", {**late, "window": 9}).ready


def test_passages_that_were_not_read_have_scores_under_the_others() -> None:
    # Those of the first stage stood there as they were, and hosts that sort by score put them first.
    class First:
        def retrieve(self, queries: Sequence[str], depth: int) -> list[Ranking]:
            return [Ranking.sorted(["a", "b", "c", "d"], [9.0, 8.0, 7.5, 6.0]) for _ in queries]

    class Lengths:
        def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
            return np.array([-len(text) for _, text in pairs], np.float32)

    texts = {"a": "bread", "b": "tea", "c": "yeast", "d": "city"}
    made = crossrank.Pipeline(
        {"first": First()}, lambda ids: [Passage(id_, texts[id_]) for id_ in ids], (crossrank.Stage(Lengths(), 2),)
    )
    told = [(passage.id, score) for passage, score, _ in lists.found(made, "q", 4)]
    assert told == [("b", -3.0), ("a", -5.0), ("c", -6.0), ("d", -7.5)]


def test_options_are_what_a_host_can_write() -> None:
    model = lists.Model("small", {"calibration": crossrank.Platt(2.0, -1.0), "cache_dir": Path("hub"), "token": True})
    assert json.loads(json.dumps(model.options)) == {
        "calibration": {"slope": 2.0, "intercept": -1.0},
        "cache_dir": "hub",
        "token": True,
    }
    assert model.given("small", {**model.options, "calibration": crossrank.Platt(2.0, -1.0)}) is model
    scorer = lists.Model("small", {"calibration": {"slope": 2.0, "intercept": -1.0}}).ready
    assert isinstance(scorer, crossrank.CrossEncoder)
    assert scorer.probability(np.float32([0.5])).tolist() == [0.5]


def test_no_token_comes_into_a_hosts_files() -> None:
    with pytest.raises(InputError, match=r"HF_TOKEN or run `hf auth login`") as said:
        lists.Model("small", {"token": "hf_SECRET"})
    assert "SECRET" not in str(said.value)


def test_a_blank_text_has_a_score_that_json_has(small: crossrank.CrossEncoder) -> None:
    # -inf is no JSON, and a host that writes its documents failed on them.
    # Of None hosts made 0, which stands above every negative logit.
    *found, blank = best(small, QUERY, [" ", "Bread needs yeast.", "Paris is a city."], None)
    assert (blank.position, blank.score, [one.told for one in found]) == (0, -math.inf, [one.score for one in found])
    assert blank.told == found[-1].score - 1 < 0
    json.dumps(blank.told, allow_nan=False)
    assert [one.told for one in best(small, QUERY, [" ", "Tea."], None, Asked("probability"))][-1] == 0
    assert [one.told for one in best(small, QUERY, [" "], None)] == [0]
