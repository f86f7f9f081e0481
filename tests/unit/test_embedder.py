"""Vectors, and an honest word on the texts whose ends they do not tell of."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from tokenizers import processors

import crossrank
import tiny
from crossrank import backends, checkpoint
from crossrank.embedder import TextEmbedder
from crossrank.errors import CheckpointError, InputError
from crossrank.types import ReportingEmbedder, Truncation

# The tiny bi-encoder reads 48 tokens, [CLS] and [SEP] among them.
ROOM = 46


@pytest.fixture
def embedder(bi_encoder_folder: Path) -> TextEmbedder:
    return crossrank.load_embedder(bi_encoder_folder)


def test_what_was_cut_is_reported_by_position(embedder: TextEmbedder) -> None:
    texts = ["a cat", "cat " * 60, "", "the " * ROOM, "cat " * 60, "the " * (ROOM + 1)]
    made = embedder.embedded(texts)
    assert made.truncations == (
        Truncation(1, 60, ROOM, 1), Truncation(4, 60, ROOM, 1), Truncation(5, ROOM + 1, ROOM, 1),
    )  # fmt: skip
    assert all(cut.lost for cut in made.truncations)
    np.testing.assert_array_equal(embedder.embed(texts), made.vectors)
    np.testing.assert_array_equal(made.vectors[1], made.vectors[4])
    assert embedder.embedded([]).truncations == ()


def test_the_beginning_is_what_was_read(embedder: TextEmbedder) -> None:
    long, read = embedder.embed(["cat " * 60, "cat " * ROOM])
    np.testing.assert_allclose(long, read, atol=1e-6)


def test_a_line_that_is_not_even_tokenized_whole_is_reported(embedder: TextEmbedder) -> None:
    (cut,) = embedder.embedded(["cat " * 1_000_000]).truncations
    assert (cut.read, cut.exact, cut.lost) == (ROOM, False, True)
    # One unknown word: few tokens, and yet its end was not read.
    (cut,) = embedder.embedded(["x" * 1_000_000]).truncations
    assert (cut.read, cut.tokens, cut.exact, cut.lost) == (1, 1, False, True)


def test_white_space_around_a_text_hides_nothing(embedder: TextEmbedder) -> None:
    made = embedder.embedded(["\n" * 6300 + "a cat", "a cat" + " " * 6300, "a" + "\t" * 6300 + "cat", "a cat"])
    np.testing.assert_allclose(made.vectors, made.vectors[[3] * 4], atol=1e-6)
    assert made.truncations == ()


@pytest.mark.parametrize("template", ["[CLS] $A [SEP]", "[CLS] $A", "$A", "$A [SEP] [SEP]"])
def test_special_tokens_stay_where_the_template_has_them(
    bi_encoder_folder: Path, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = checkpoint.read(bi_encoder_folder)
    tokenizer = read.tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    )
    monkeypatch.setattr(type(read), "tokenizer", lambda self: tokenizer)
    made = TextEmbedder(read, backends.open(read))
    assert made.room == 48 - template.count("[")
    tokens, _ = made._encode(["cat " * 100, "cat"])
    words = template.replace("$A", "cat " * made.room).split()
    assert [tokenizer.id_to_token(i) for i in tokens.row(0)] == words
    assert [tokenizer.id_to_token(i) for i in tokens.row(1)] == template.replace("$A", "cat").split()


def test_it_says_what_it_is(embedder: TextEmbedder) -> None:
    assert isinstance(embedder, ReportingEmbedder)
    assert embedder.room == ROOM


def test_any_iterable_is_a_list(embedder: TextEmbedder) -> None:
    texts = ["a cat", "bread", "a cat"]
    np.testing.assert_array_equal(embedder.embed(text for text in texts), embedder.embed(texts))


def test_a_model_that_states_no_pooling_says_so(tmp_path: Path) -> None:
    """It was called "a bi-encoder model, not a bi-encoder"."""
    folder = tiny.bi_encoder(tmp_path / "bare")
    (folder / "modules.json").unlink()
    with pytest.raises(CheckpointError, match="does not say how the vectors of tokens become one"):
        crossrank.load_embedder(folder)


# A default prompt.


def prompted(tmp_path: Path, **stated: object) -> Path:
    folder = tiny.bi_encoder(tmp_path / "prompted")
    tiny.write_json(folder / "config_sentence_transformers.json", stated)
    return folder


PROMPTS = {"query": "what is: ", "document": "the cat: "}


def test_a_default_prompt_stands_before_every_text(embedder: TextEmbedder, tmp_path: Path) -> None:
    made = crossrank.load_embedder(prompted(tmp_path, prompts=PROMPTS, default_prompt_name="document"))
    texts = ["paris", "bread, yeast", ""]
    np.testing.assert_array_equal(made.embed(texts), embedder.embed([f"the cat: {text}" for text in texts]))
    # The prompt takes three tokens of the room.
    assert made.room == ROOM - 3
    assert made.embedded(["bread " * 43]).truncations == ()
    assert made.embedded(["bread " * 44]).truncations == (Truncation(0, 44, 43, 1),)
    assert made.fingerprint != embedder.fingerprint


@pytest.mark.parametrize(
    ("stated", "query", "document"),
    [
        ({"prompts": PROMPTS}, "what is: ", "the cat: "),
        ({"prompts": PROMPTS, "default_prompt_name": None}, "what is: ", "the cat: "),
        ({"prompts": PROMPTS, "default_prompt_name": "query"}, "what is: ", "the cat: "),
        ({"prompts": {"query": "what is: "}}, "what is: ", ""),
        ({"prompts": {"passage": "the cat: ", "corpus": "bread "}}, "", "the cat: "),
        ({"prompts": {"corpus": "bread ", "query": None}}, "", "bread "),
        ({"prompts": {"query": "what is: ", "document": ""}, "default_prompt_name": "document"}, "what is: ", ""),
        ({"prompts": {"cluster": "bread "}, "default_prompt_name": "cluster"}, "bread ", "bread "),
        ({"prompts": {"cluster": "bread "}}, "", ""),
        ({"prompts": {}, "default_prompt_name": "query"}, "", ""),
        ({"default_prompt_name": "document"}, "", ""),
        ({"prompts": {"query": None}, "default_prompt_name": "query"}, "", ""),
    ],
)
def test_queries_and_documents_have_the_prompts_of_their_model(
    embedder: TextEmbedder, tmp_path: Path, stated: dict[str, object], query: str, document: str
) -> None:
    made = crossrank.load_embedder(prompted(tmp_path, **stated))
    np.testing.assert_array_equal(made.embed(["paris"]), embedder.embed([f"{document}paris"]))
    np.testing.assert_array_equal(made.queries.embed(["paris"]), embedder.embed([f"{query}paris"]))
    # Only what stands before documents decides whether an index fits.
    assert (made.fingerprint == embedder.fingerprint) == (document == "")
    assert made.prompts == {}


def test_prompts_that_are_given_win(embedder: TextEmbedder, tmp_path: Path) -> None:
    made = crossrank.load_embedder(prompted(tmp_path, prompts=PROMPTS), query_prompt="bread ", document_prompt="")
    np.testing.assert_array_equal(made.embed(["paris"]), embedder.embed(["paris"]))
    np.testing.assert_array_equal(made.queries.embed(["paris"]), embedder.embed(["bread paris"]))
    assert made.prompts == {"query_prompt": "bread ", "document_prompt": ""}
    # Each side counts its own prompt.
    assert (made.room, made.queries.room) == (ROOM, ROOM - 1)
    assert made.queries.embedded(["bread " * ROOM]).truncations == (Truncation(0, ROOM, ROOM - 1, 1),)
    half = crossrank.load_embedder(prompted(tmp_path, prompts=PROMPTS), query_prompt="bread ")
    assert half.prompts == {"query_prompt": "bread ", "document_prompt": "the cat: "}
    checkpoint.export(made.checkpoint, tmp_path / "exported")
    again = crossrank.load_embedder(tmp_path / "exported")
    assert (again.checkpoint.query_prompt, again.checkpoint.prompt, again.prompts) == ("bread ", "", {})


@pytest.mark.parametrize("stated", [{}, {"prompts": PROMPTS}])
def test_queries_are_computed_where_a_copy_computes(tmp_path: Path, stated: dict[str, object]) -> None:
    """A server gives its copy the backend that its queue has; queries went by it, unmeasured and unlimited."""
    made = copy.copy(crossrank.load_embedder(prompted(tmp_path, **stated)))
    made.backend = backends.open(made.checkpoint, "fake")
    assert made.queries.backend is made.backend


def test_an_embedder_with_prompts_comes_back_from_a_pickle(tmp_path: Path) -> None:
    made = crossrank.load_embedder(prompted(tmp_path, prompts=PROMPTS))
    again = pickle.loads(pickle.dumps(made))
    np.testing.assert_array_equal(again.queries.embed(["paris"]), made.queries.embed(["paris"]))


def test_prompts_that_are_no_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="query_prompt is a text, not 3"):
        crossrank.load_embedder("embed", query_prompt=3)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"a prompt is a text, not \['x'\]"):
        checkpoint.read(prompted(tmp_path, prompts={"query": ["x"]}))
    folder = prompted(tmp_path, prompts={})
    pooling = folder / "1_Pooling" / "config.json"
    tiny.write_json(pooling, {**json.loads(pooling.read_text()), "include_prompt": False})
    for how in ({"query_prompt": "a "}, {"document_prompt": "a "}):
        with pytest.raises(CheckpointError, match="include_prompt"):
            crossrank.load_embedder(folder, **how)
    assert crossrank.load_embedder(folder, query_prompt="").prompts == {}


@pytest.mark.parametrize("name", ["passage", 3, ""])
def test_a_default_that_is_no_prompt_is_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(CheckpointError, match=r"is none of its prompts, query, document.*Correct the name"):
        checkpoint.read(prompted(tmp_path, prompts=PROMPTS, default_prompt_name=name))


def test_prompts_that_are_no_object_have_no_names(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'passage' is none of its prompts, query, document\."):
        checkpoint.read(prompted(tmp_path, prompts=["passage"], default_prompt_name="passage"))


def test_a_default_prompt_of_no_text_may_be_left_out_of_the_pooling(tmp_path: Path) -> None:
    folder = prompted(tmp_path, prompts={"query": ""}, default_prompt_name="query")
    pooling = folder / "1_Pooling" / "config.json"
    tiny.write_json(pooling, {**json.loads(pooling.read_text()), "include_prompt": False})
    assert checkpoint.read(folder).prompt == ""


def test_a_prompt_that_is_not_pooled_or_leaves_no_room_is_refused(tmp_path: Path) -> None:
    folder = prompted(tmp_path, prompts={"query": "cat " * 60}, default_prompt_name="query")
    with pytest.raises(CheckpointError, match="a prompt of 60 tokens, which leaves no room"):
        crossrank.load_embedder(folder)
    pooling = folder / "1_Pooling" / "config.json"
    tiny.write_json(pooling, {**json.loads(pooling.read_text()), "include_prompt": False})
    with pytest.raises(CheckpointError, match="include_prompt"):
        checkpoint.read(folder)


def test_an_exported_embedder_keeps_its_prompts(tmp_path: Path) -> None:
    read = checkpoint.read(prompted(tmp_path, prompts=PROMPTS, default_prompt_name="query"))
    checkpoint.export(read, tmp_path / "exported")
    again = checkpoint.read(tmp_path / "exported")
    assert (again.query_prompt, again.prompt) == (read.query_prompt, read.prompt) == ("what is: ", "the cat: ")
    written = json.loads((tmp_path / "exported" / "config_sentence_transformers.json").read_text())
    assert written == {"prompts": PROMPTS, "default_prompt_name": "query"}


@pytest.mark.parametrize("bad", ["one string", [1], ["a", None], None])
def test_only_lists_of_texts(embedder: TextEmbedder, bad: object) -> None:
    with pytest.raises(InputError, match=r"string|list of texts"):
        embedder.embedded(bad)  # type: ignore[arg-type]


def test_the_model_of_the_wheel_reads_what_it_states() -> None:
    from crossrank.models import catalog

    folder = Path(catalog.locate("embed", default="embed").source)
    if not folder.is_dir():
        pytest.skip("no model in this tree")
    stated = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    assert crossrank.load_embedder("embed").room == stated - 2
