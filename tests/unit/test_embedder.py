"""Vectors, and an honest word on the texts whose ends they do not tell of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import processors

import crossrank
from crossrank import backends, checkpoint
from crossrank.embedder import TextEmbedder
from crossrank.errors import InputError
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


@pytest.mark.parametrize("bad", ["one string", [1], ["a", None]])
def test_only_lists_of_texts(embedder: TextEmbedder, bad: object) -> None:
    with pytest.raises(InputError, match="string"):
        embedder.embedded(bad)  # type: ignore[arg-type]


def test_the_model_of_the_wheel_reads_what_it_states() -> None:
    from crossrank.models import catalog

    folder = Path(catalog.locate("embed", default="embed").source)
    if not folder.is_dir():
        pytest.skip("no model in this tree")
    stated = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    assert crossrank.load_embedder("embed").room == stated - 2
