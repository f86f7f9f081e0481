"""Late-interaction models on disk, and the ids they are given."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import tiny
from crossrank import checkpoint
from crossrank.checkpoint.late import Late
from crossrank.errors import CheckpointError, InputError
from crossrank.lateencoder import LateEncoder
from crossrank.types import Tokens, Truncation


def encoder(tmp_path, **stated):
    read = checkpoint.read(tiny.late(tmp_path, **stated))
    return LateEncoder(read.tokenizer(), read.late)


def words(encoder, marked, row=0):
    return [encoder._tokenizer.id_to_token(number) for number in marked.tokens.row(row).tolist()]


@pytest.mark.parametrize("layout", ["pylate", "colbert"])
def test_both_layouts_say_the_same(tmp_path, layout):
    read = checkpoint.read(tiny.late(tmp_path, layout))
    assert (read.kind, read.labels, read.max_length, read.pooling) == ("late-interaction", 0, 24, None)
    assert read.late == Late("[unused0]", "[unused1]", 12, 24)
    assert read.tensors()["linear.weight"].shape == (8, 32)


def test_what_is_not_stated_is_what_the_authors_software_takes(tmp_path):
    folder = tiny.late(tmp_path / "p")
    (folder / "config_sentence_transformers.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    tiny.write_json(folder / "config.json", {**config, "max_position_embeddings": 512})
    assert checkpoint.read(folder).late == Late("[Q] ", "[D] ", 32, 180, tuple("""!"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"""))
    stanford = tiny.late(tmp_path / "c", "colbert", mask_punctuation=False, attend_to_mask_tokens=True)
    found = checkpoint.read(stanford).late
    assert (found.skipped, found.attend, found.expand) == ((), True, True)


def test_a_colbert_model_without_its_settings_is_refused(tmp_path):
    folder = tiny.late(tmp_path, "colbert")
    config = json.loads((folder / "config.json").read_text())
    tiny.write_json(folder / "config.json", {**config, "max_position_embeddings": 512})
    (folder / "artifact.metadata").unlink()
    with pytest.raises(CheckpointError, match=r"without artifact\.metadata.*Copy the whole folder.* write {} into one"):
        checkpoint.read(folder)
    tiny.write_json(folder / "artifact.metadata", {})
    assert checkpoint.read(folder).late == Late("[unused0]", "[unused1]", 32, 180)


@pytest.mark.parametrize("prompts", [("", ""), ("what is ", "the cat: ")])
def test_written_settings_are_read_as_they_were(tmp_path, prompts):
    late = Late("[unused1]", "", 9, 11, ("a", "?"), False, True, *prompts)
    # Fingerprints of models without prompts, which indexes keep, have none in them.
    assert ("prompts" in late.written()) == any(prompts)
    folder = tiny.late(tmp_path)
    tiny.write_json(folder / "config_sentence_transformers.json", late.written())
    assert checkpoint.read(folder).late == late


def test_a_query_has_its_marker_and_masks_that_nothing_sees(tmp_path):
    made = encoder(tmp_path)
    marked = made.queries(["what is france?"])
    assert words(made, marked) == ["[CLS]", "[unused0]", "what", "is", "france", "?", "[SEP]", *["[MASK]"] * 5]
    assert marked.seen.tolist() == [7]
    assert marked.kept.all()


def test_masks_that_are_attended_to_are_ordinary_tokens(tmp_path):
    marked = encoder(tmp_path, attend_to_expansion_tokens=True).queries(["what is france?"])
    assert len(marked.tokens.ids) == 12
    assert marked.seen is None


def test_without_expansion_a_query_is_as_long_as_it_is(tmp_path):
    marked = encoder(tmp_path, do_query_expansion=False).queries(["what is france?", "paris"])
    assert marked.tokens.lengths.tolist() == [7, 4]
    assert marked.seen is None


def test_punctuation_of_a_document_is_read_but_does_not_count(tmp_path):
    made = encoder(tmp_path)
    marked = made.documents(["paris, capital of france."])
    kept = [word for word, counts in zip(words(made, marked), marked.kept, strict=True) if counts]
    assert "," in words(made, marked)
    assert kept == ["[CLS]", "[unused1]", "paris", "capital", "of", "france", "[SEP]"]


def test_a_skipped_word_that_the_vocabulary_lacks_skips_nothing(tmp_path):
    assert encoder(tmp_path, skiplist_words=["@", "paris"]).documents(["@ bread"]).kept.all()


def test_what_does_not_fit_is_cut_and_told(tmp_path):
    made = encoder(tmp_path)
    assert (made.query_room, made.document_room) == (9, 21)
    documents = made.documents(["cat", "bread " * 30])
    assert documents.truncations == (Truncation(1, 30, 21, 1),)
    assert documents.tokens.lengths.tolist() == [4, 24]
    assert words(made, documents, 1)[-1] == "[SEP]"
    assert made.queries(["cat " * 10]).truncations == (Truncation(0, 10, 9, 1),)
    [cut] = made.documents(["bread " * 1000]).truncations
    assert not cut.exact


def test_white_space_around_a_text_hides_nothing(tmp_path):
    made = encoder(tmp_path)
    for read in (made.queries, made.documents):
        for blank in ("\n" * 6300 + "the cat", "the cat" + "\n" * 6300, "the" + " " * 2000 + "cat"):
            marked = read([blank])
            assert marked.tokens.ids.tolist() == read(["the cat"]).tokens.ids.tolist()
            assert marked.truncations == ()


def test_ids_of_an_index_give_the_same_sequences(tmp_path):
    made = encoder(tmp_path)
    texts = ["paris is the capital.", "", "bread " * 30]
    plain = checkpoint.read(tmp_path).tokenizer()
    ids = tiny.Tokens.of([plain.encode(text, add_special_tokens=False).ids for text in texts])
    known, read = made.document_tokens(ids), made.documents(texts)
    assert known.tokens.ids.tolist() == read.tokens.ids.tolist()
    assert known.truncations == read.truncations


def test_special_tokens_written_in_a_text_are_text(tmp_path):
    made = encoder(tmp_path)
    assert words(made, made.documents(["a [SEP] b"])).count("[SEP]") == 1


PROMPTS = {"query": "[unused0]what is ", "document": "the cat, ", "other": "bread"}


def test_prompts_stand_between_marker_and_text(tmp_path):
    # They were left out, and sentence-transformers puts them there.
    made = encoder(tmp_path, prompts=PROMPTS, default_prompt_name="other")
    marked = made.queries(["france"])
    assert words(made, marked) == ["[CLS]", "[unused0]", "what", "is", "france", "[SEP]", *["[MASK]"] * 6]
    assert marked.seen.tolist() == [6]
    marked = made.documents(["paris", "\u200b", "\u200bbread"])
    assert words(made, marked) == ["[CLS]", "[unused1]", "the", "cat", ",", "paris", "[SEP]"]
    assert [part.sum() for part in np.split(marked.kept, marked.tokens.offsets[1:-1])] == [6, 0, 6]
    with pytest.raises(InputError, match="the query is empty"):
        made.queries(["\u200b"])


def test_a_prompt_takes_its_room_and_is_not_told_as_text(tmp_path):
    made = encoder(tmp_path, prompts=PROMPTS)
    assert (made.query_room, made.document_room) == (7, 18)
    assert made.queries(["cat " * 10]).truncations == (Truncation(0, 10, 7, 1),)
    assert made.documents(["bread " * 18, "bread " * 19]).truncations == (Truncation(1, 19, 18, 1),)
    blank = "\n" * 6300 + "bread"
    assert made.documents([blank]).tokens.ids.tolist() == made.documents(["bread"]).tokens.ids.tolist()
    with pytest.raises(CheckpointError, match="no room for text beside special tokens and prompt"):
        encoder(tmp_path, prompts={"query": "cat " * 9})


def test_ids_of_an_index_do_not_stand_in_for_documents_behind_a_prompt(tmp_path):
    plain = encoder(tmp_path / "plain")
    asked = encoder(tmp_path / "asked", prompts={"query": "what is "})
    made = encoder(tmp_path / "made", prompts=PROMPTS)
    assert plain.fingerprint == asked.fingerprint != made.fingerprint
    ids = [
        made._tokenizer.encode(f"the cat, {text}", add_special_tokens=False).ids for text in ("bread " * 30, "paris")
    ]
    known, read = made.document_tokens(Tokens.of(ids)), made.documents(["bread " * 30, "paris"])
    assert known.tokens.ids.tolist() == read.tokens.ids.tolist()
    assert known.kept.tolist() == read.kept.tolist()
    assert [(one.read, one.tokens) for one in known.truncations] == [(18, 30)]


def test_a_model_without_markers_has_more_room(tmp_path):
    made = encoder(tmp_path, query_prefix="", document_prefix="")
    assert words(made, made.documents(["cat"])) == ["[CLS]", "cat", "[SEP]"]
    assert made.document_room == 22


@pytest.mark.parametrize(
    ("stated", "cure"),
    [
        ({"query_prefix": "[nowhere]"}, "no token '\\[nowhere\\]'.*trained with"),
        ({"query_length": 2}, "query length of 2"),
        ({"document_length": 65}, "65 tokens but has positions for 64"),
        ({"do_query_expansion": "yes"}, "must be true or false"),
        ({"query_prefix": 3}, "must be a text"),
        ({"skiplist_words": "abc"}, "must be a list of texts"),
        ({"prompts": ["abc"]}, "prompts must be an object of names and texts"),
        ({"prompts": {"document": 3}}, "prompts: document must be a text"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, stated, cure):
    with pytest.raises(CheckpointError, match=cure):
        encoder(tmp_path, **stated)


def test_masks_out_of_reach_of_the_query_are_refused(tmp_path):
    folder = tiny.late(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    tiny.write_json(folder / "config.json", {**config, "model_type": "modernbert", "local_attention": 20})
    with pytest.raises(CheckpointError, match="12 tokens, and its layers see 10"):
        checkpoint.read(folder)


def test_a_map_with_an_activation_is_refused(tmp_path):
    folder = tiny.late(tmp_path)
    tiny.write_json(folder / "1_Dense" / "config.json", {"activation_function": "torch.nn.modules.activation.Tanh"})
    with pytest.raises(CheckpointError, match=r"activation .*Tanh"):
        checkpoint.read(folder)


def test_other_modules_are_refused_by_name(tmp_path):
    folder = tiny.late(tmp_path)
    listed = json.loads((folder / "modules.json").read_text())
    tiny.write_json(folder / "modules.json", [*listed, {**listed[1], "idx": 2, "name": "2"}])
    with pytest.raises(CheckpointError, match="modules Transformer, Dense, Dense"):
        checkpoint.read(folder)


def test_colbert_without_its_map_is_refused(tmp_path):
    folder = tiny.late(tmp_path, "colbert")
    tiny.save_file(tiny.weights(tiny.CONFIG, 0), folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no linear\.weight"):
        checkpoint.read(folder)


def test_settings_and_map_are_part_of_the_fingerprint(tmp_path):
    one = checkpoint.read(tiny.late(tmp_path / "a"))
    other = replace(one, late=replace(one.late, expand=False))
    prompted = replace(one, late=replace(one.late, query_prompt="what is "))
    assert prompted.fingerprint != one.fingerprint
    assert checkpoint.read(tiny.late(tmp_path / "b")).fingerprint == one.fingerprint
    assert (
        len({one.fingerprint, other.fingerprint, checkpoint.read(tiny.late(tmp_path / "c", width=4)).fingerprint}) == 3
    )


@pytest.mark.parametrize("layout", ["pylate", "colbert"])
def test_a_written_folder_is_the_same_model(tmp_path, layout):
    read = checkpoint.read(tiny.late(tmp_path / "a", layout, bias=layout == "pylate"))
    checkpoint.export(read, tmp_path / "b")
    again = checkpoint.read(tmp_path / "b")
    assert (again.kind, again.late, again.max_length) == (read.kind, read.late, read.max_length)
    mine, theirs = read.tensors(), again.tensors()
    assert {name: tensor.tolist() for name, tensor in mine.items()} == {n: t.tolist() for n, t in theirs.items()}
    pair = LateEncoder(read.tokenizer(), read.late), LateEncoder(again.tokenizer(), again.late)
    first, second = (one.documents(["paris, the [SEP] cat"]).tokens.ids.tolist() for one in pair)
    assert first == second
