"""Model folders: what is read from them, and what is refused with which cure."""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

import crossrank
import tiny
from crossrank import backends, extras
from crossrank.checkpoint import Checkpoint, check_target, export, growth, hub, read, reading, weights
from crossrank.checkpoint import settings as stating
from crossrank.errors import CheckpointError, InputError
from crossrank.scorers import load_scorer
from crossrank.unicode import valid_text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.cross_encoder(tmp_path / "model")


def change(folder: Path, name: str = "config.json", **changes: Any) -> Path:
    path = folder / name
    stated = json.loads(path.read_text()) if path.is_file() else {}
    stated.update(changes)
    tiny.write_json(path, {key: value for key, value in stated.items() if value is not None})
    return folder


def chained(folder: Path) -> Path:
    """A ModernBERT reranker whose head lies in module folders."""
    tiny.modern(folder, architectures=["ModernBertModel"])
    kinds = ("Transformer", "Pooling", "Dense", "LayerNorm", "Dense")
    places = ("", *(f"{i}_{kind}" for i, kind in enumerate(kinds) if i))
    listed = [{"type": f"sentence_transformers.{kind}", "path": path} for kind, path in zip(kinds, places, strict=True)]
    tiny.write_json(folder / "modules.json", listed)
    tiny.write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "cls"})
    tiny.write_json(folder / "2_Dense" / "config.json", {"activation_function": "torch.nn.modules.activation.GELU"})
    plain = {"activation_function": "torch.nn.modules.linear.Identity", "module_output_name": "scores"}
    tiny.write_json(folder / "4_Dense" / "config.json", plain)
    for place, name, shape in (
        ("2_Dense", "linear", (32, 32)),
        ("3_LayerNorm", "norm", (32,)),
        ("4_Dense", "linear", (1, 32)),
    ):
        (folder / place).mkdir(exist_ok=True)
        save_file({f"{name}.weight": np.ones(shape, np.float32)}, folder / place / "model.safetensors")
    return folder


def sharded(folder: Path) -> Path:
    """A cross-encoder in two files."""
    whole = dict(weights.load(tiny.cross_encoder(folder) / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    names = sorted(whole)
    table = {name: f"model-{1 + i % 2:05}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(table.values()):
        save_file({name: whole[name] for name in names if table[name] == file}, folder / file)
    tiny.write_json(folder / "model.safetensors.index.json", {"weight_map": table})
    return folder


# What is read


def test_a_cross_encoder(folder: Path) -> None:
    read_ = read(folder)
    assert (read_.kind, read_.labels, read_.architecture, read_.activation) == ("cross-encoder", 1, "bert", "sigmoid")
    assert (read_.pooling, read_.normalize, read_.calibration, read_.token_types) == (None, False, None, True)
    assert read_.max_length == 60  # the tokenizer says 60, the positions 64
    assert read_.tokenizer().encode("What is Paris?", "zzz").tokens == [
        *["[CLS]", "what", "is", "paris", "?", "[SEP]", "z", "##z", "##z", "[SEP]"]
    ]
    assert all(tensor.dtype == np.float32 for tensor in read_.tensors().values())


def test_a_bi_encoder(tmp_path: Path) -> None:
    read_ = read(tiny.bi_encoder(tmp_path, "cls", normalize=False))
    assert (read_.kind, read_.labels, read_.pooling, read_.normalize) == ("bi-encoder", 0, "cls", False)
    assert read_.max_length == 48  # sentence-transformers says 48
    assert read(tiny.bi_encoder(tmp_path)).normalize


@pytest.mark.parametrize("way", ["mean", "cls"])
def test_a_pooling_as_sentence_transformers_names_it_since_5_5(tmp_path: Path, way: str) -> None:
    folder = tiny.bi_encoder(tmp_path)
    tiny.write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": way})
    assert read(folder).pooling == way


def test_an_encoder_without_pooling_says_so(folder: Path) -> None:
    read_ = read(change(folder, architectures=["BertModel"]))
    assert (read_.kind, read_.pooling) == ("bi-encoder", None)


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_bi_encoders_with_and_without_the_prefix(tmp_path: Path, prefix: str) -> None:
    plain = tiny.bi_encoder(tmp_path / "plain", prefix="")
    other = tiny.bi_encoder(tmp_path / "other", prefix=prefix)
    tokens = tiny.random_tokens([3, 9])
    want = backends.open(read(plain), "reference").pool(tokens, "mean")
    np.testing.assert_array_equal(backends.open(read(other), "reference").pool(tokens, "mean"), want)


def test_the_weights_decide_when_the_config_names_no_class(folder: Path) -> None:
    assert read(change(folder, architectures=None)).kind == "cross-encoder"


def test_a_safetensors_file_beside_its_config(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "step-7.safetensors")
    assert read(folder / "step-7.safetensors").weights == (folder / "step-7.safetensors",)
    backends.open(read(folder / "step-7.safetensors"), "reference")


@pytest.mark.parametrize(
    ("labels", "stated", "want"),
    [
        (1, {}, "sigmoid"),
        (2, {}, "identity"),
        (1, {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, "identity"),
        (1, {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "identity"),
        (2, {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Softmax"}}, "softmax"),
    ],
)
def test_the_activation_is_what_sentence_transformers_would_apply(
    tmp_path: Path, labels: int, stated: dict[str, Any], want: str
) -> None:
    assert read(tiny.cross_encoder(tmp_path, labels, **stated)).activation == want


@pytest.mark.parametrize("nested", [[], "torch.nn.modules.linear.Identity", None])
def test_settings_for_sentence_transformers_that_are_no_object_state_no_activation(folder: Path, nested: Any) -> None:
    assert read(change(folder, sentence_transformers=nested)).activation == "sigmoid"


def test_the_newest_place_for_the_activation_wins(folder: Path) -> None:
    change(folder, sbert_ce_default_activation_function="torch.nn.modules.activation.Sigmoid")
    change(folder, "config_sentence_transformers.json", activation_fn="torch.nn.modules.linear.Identity")
    assert read(folder).activation == "identity"


@pytest.mark.parametrize("make", [tiny.cross_encoder, tiny.modern, tiny.bi_encoder])
def test_weights_of_more_layers_than_the_config_are_refused(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """The last layers were left out without a word, and scores were wrong."""
    folder = make(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    count = config["num_hidden_layers"]
    change(folder, "config.json", num_hidden_layers=count - 1)
    with pytest.raises(CheckpointError, match=f"has {count - 1} layers .* the weights have {count}"):
        read(folder)


def test_a_layer_of_a_number_that_none_has_is_no_layer(folder: Path) -> None:
    # Its 5,000 digits were more than Python makes a number of.
    whole = dict(weights.load(folder / "model.safetensors"))
    odd = {f"encoder.layer.{'9' * 5_000}.weight": np.zeros(1, np.float32)}
    save_file({**whole, **odd}, folder / "model.safetensors")
    assert read(folder).labels == 1


@pytest.mark.parametrize(
    ("name", "words"), [("a" * 300, "no file has a name"), (b"small", "not by b'small'"), (3, "by 3")]
)
def test_what_names_no_model_is_said(name: Any, words: str) -> None:
    for load in (read, crossrank.load):
        with pytest.raises(CheckpointError, match=words):
            load(name)


def test_a_name_may_be_as_long_as_a_files() -> None:
    with pytest.raises(CheckpointError, match="there is no model folder"):
        read(Path("a" * 255))


def test_a_tokenizer_with_a_word_beyond_the_models_table_is_refused(folder: Path) -> None:
    """It loaded, and one document that spells the word failed a whole list."""
    file = folder / "tokenizer.json"
    made = read(folder).tokenizer()
    made.add_special_tokens(["[EXTRA]"])  # of a text this is read as text
    made.save(str(file))
    assert crossrank.load(folder).score([("cat", "[EXTRA] bread")]).shape == (1,)
    made.add_tokens(["qzxv"])
    made.save(str(file))
    with pytest.raises(CheckpointError, match="has 'qzxv', for which"):
        crossrank.load(folder)


def test_calibration_comes_from_crossrank_json(folder: Path) -> None:
    change(folder, "crossrank.json", calibration={"slope": 1.5, "intercept": -0.25})
    assert read(folder).calibration == {"slope": 1.5, "intercept": -0.25}
    change(folder, "crossrank.json", calibration={"slope": 1.5})
    with pytest.raises(CheckpointError, match="calibration must be"):
        read(folder)
    change(folder, "crossrank.json", calibration={"slope": 1.5, "intercept": -0.25}, threshold=0.1)
    assert read(folder).threshold == 0.1
    for threshold in (0, 1, True, "0.5"):
        change(folder, "crossrank.json", threshold=threshold)
        with pytest.raises(CheckpointError, match="threshold must be a probability over 0 and under 1"):
            read(folder)
    for slope in (-1, 0, "1", "nan", True, float("nan"), float("inf"), None):
        change(folder, "crossrank.json", calibration={"slope": slope, "intercept": 0.0})
        with pytest.raises(CheckpointError, match=r"crossrank.json: .*calibration"):
            read(folder)
    change(folder, "crossrank.json", calibration=[1, 2])
    with pytest.raises(CheckpointError, match="calibration must be"):
        read(folder)
    change(folder, "crossrank.json", calibration=None, threshold=0.1)
    with pytest.raises(CheckpointError, match="needs a calibration"):
        read(folder)
    change(folder, "crossrank.json", threshold=1.5)
    with pytest.raises(CheckpointError, match="threshold must be"):
        read(folder)


def test_the_share_of_a_search_comes_from_crossrank_json(folder: Path, tmp_path: Path) -> None:
    assert read(folder).mix is None
    change(folder, "crossrank.json", mix=0.6)
    assert read(folder).mix == 0.6
    assert crossrank.load(folder).mix == 0.6
    export(read(folder), tmp_path / "copy")
    assert read(tmp_path / "copy").mix == 0.6
    for mix in (0, 1.5, True, "0.5", float("nan")):
        change(folder, "crossrank.json", mix=mix)
        with pytest.raises(CheckpointError, match="mix must be a share over 0 and at most 1"):
            read(folder)


@pytest.mark.parametrize(
    ("architecture", "config", "tokenizer", "want"),
    [
        ("bert", {}, {"model_max_length": 10**30}, 64),
        ("bert", {}, {"model_max_length": None}, 64),
        ("bert", {}, {"model_max_length": 32}, 32),
        # RoBERTa counts positions from pad_token_id + 1, so 514 rows hold 512 tokens.
        ("camembert", {"max_position_embeddings": 514, "pad_token_id": 1}, {"model_max_length": None}, 512),
        ("camembert", {"max_position_embeddings": 514, "pad_token_id": 0}, {"model_max_length": None}, 513),
    ],
)
def test_maximum_length(
    folder: Path, architecture: str, config: dict[str, Any], tokenizer: dict[str, Any], want: int
) -> None:
    change(folder, model_type=architecture, **config)
    change(folder, "tokenizer_config.json", **tokenizer)
    assert read(folder).max_length == want


@pytest.mark.torch
@pytest.mark.parametrize(
    "architecture",
    [
        *("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm", "data2vec-text", "mpnet"),
        *("xmod", "longformer", "ibert", "luke", "bert", "electra", "albert"),
    ],
)
def test_a_sequence_is_as_long_as_transformers_finds_positions_for(architecture: str) -> None:
    torch = pytest.importorskip("torch", reason="the extra torch is not installed")
    transformers = pytest.importorskip("transformers", reason="the extra torch is not installed")
    config: dict[str, Any] = {"vocab_size": 9, "max_position_embeddings": 20, "pad_token_id": 1}
    config |= {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    only = {"longformer": {"attention_window": [4]}, "xmod": {"languages": ["en"], "default_language": "en"}}
    made = transformers.AutoConfig.for_model(architecture, **config, **only.get(architecture, {}))
    model = transformers.AutoModel.from_config(made)
    longest = stating.positions(config, architecture, "here")
    assert longest is not None
    model(input_ids=torch.full((1, longest), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, longest + 1), 7))
    # What tells where they count from, when the config leaves it out.
    assert stating.positions({"max_position_embeddings": 20}, architecture, "here") == longest


def test_a_limit_of_no_tokens_is_none(folder: Path) -> None:
    for count in (0, -1):
        assert read(change(folder, max_position_embeddings=count)).max_length == 60, "the tokenizer's"


def test_the_least_maximum_length_has_room_for_text(folder: Path) -> None:
    assert read(change(folder, "tokenizer_config.json", model_max_length=4)).max_length == 4
    with pytest.raises(CheckpointError, match="a maximum length of 3 tokens, which leaves no room"):
        read(change(folder, "tokenizer_config.json", model_max_length=3))


@pytest.mark.parametrize("number", [-1, len(tiny.VOCABULARY)])
def test_a_padding_that_is_no_word_is_refused(folder: Path, number: int) -> None:
    config = {"pad_token_id": number, "vocab_size": len(tiny.VOCABULARY)}
    with pytest.raises(CheckpointError, match=rf"pad_token_id = {number}, which is no word of the model"):
        stating.padding(config, "bert", "here")
    assert stating.padding({**config, "pad_token_id": len(tiny.VOCABULARY) - 1}, "bert", "here") > 0


@pytest.mark.parametrize(("stated", "want"), [(None, 7), (512, 512), (512.0, 512), (0, 0), (-1, -1)])
def test_a_whole_number_may_be_written_as_another(stated: Any, want: int) -> None:
    assert stating.whole({"a": stated}, "a", "here", 7) == want


@pytest.mark.parametrize("stated", [512.5, True, "512", [512], math.inf, math.nan])
def test_what_is_no_whole_number_is_said(stated: Any) -> None:
    with pytest.raises(CheckpointError, match=r"here: a must be a whole number, not"):
        stating.whole({"a": stated}, "a", "here")


@pytest.mark.parametrize(
    ("config", "want"),
    [({}, 2), ({"id2label": {}}, 2), ({"id2label": {}, "num_labels": 1}, 1), ({"id2label": {"0": "x"}}, 1)],
)
def test_labels_are_counted_as_in_transformers(config: dict[str, Any], want: int) -> None:
    assert stating.label_count(config, "here") == want


@pytest.mark.parametrize(
    ("config", "want"),
    [({"num_hidden_layers": 3}, 3), ({"n_layers": 6}, 6), ({}, None), ({"num_hidden_layers": True, "n_layers": 6}, 6)],
)
def test_layers_as_bert_or_distilbert_calls_them(config: dict[str, Any], want: int | None) -> None:
    assert stating.depth(config) == want


def test_token_types_are_left_out_when_the_tokenizer_leaves_them_out(folder: Path) -> None:
    change(folder, "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    checkpoint = read(folder)
    assert not checkpoint.token_types
    opened = backends.open(checkpoint, "reference")
    with_types, without = tiny.random_tokens([9, 9]), tiny.random_tokens([9, 9], types=1)
    np.testing.assert_array_equal(opened.forward(with_types), opened.forward(without))


@pytest.mark.parametrize(
    ("stated", "want"),
    [
        ({"tokenizer_class": "TokenizersBackend"}, False),
        ({"tokenizer_class": "TokenizersBackend", "model_input_names": ["input_ids", "token_type_ids"]}, True),
        ({"tokenizer_class": "DistilBertTokenizer"}, False),
        ({"tokenizer_class": "DistilBertTokenizerFast"}, False),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, True),
        ({"tokenizer_class": None}, True),
        ({"model_input_names": []}, False),
    ],
)
def test_some_tokenizers_of_transformers_5_leave_token_types_out(
    folder: Path, stated: dict[str, Any], want: bool
) -> None:
    assert read(change(folder, "tokenizer_config.json", **stated)).token_types is want


@pytest.mark.parametrize(("rows", "want"), [(None, True), (2, True), (1, False), (4, True)])
def test_a_model_has_two_token_types_unless_it_states_another_number(
    rows: int | None, want: bool, folder: Path
) -> None:
    config = {} if rows is None else {"type_vocab_size": rows}
    assert stating.token_types(folder, config) is want


def test_a_bi_encoder_is_exported_with_its_pooling(tmp_path: Path) -> None:
    first = read(tiny.bi_encoder(tmp_path / "in", "cls", prefix="bert."))
    export(first, tmp_path / "out")
    again = read(tmp_path / "out")
    assert (again.kind, again.pooling, again.normalize, again.max_length) == ("bi-encoder", "cls", True, 48)
    with pytest.raises(CheckpointError, match="own folder"):
        export(again, tmp_path / "out")


def test_a_head_in_module_folders_is_exported_with_them(tmp_path: Path) -> None:
    """Calibrating it needed a copy by hand."""
    folder = chained(tmp_path / "model")
    (folder / "train.csv").write_text("not of the model")
    whole = read(folder)
    export(whole.calibrated_by(2, -1), tmp_path / "out")
    again = read(tmp_path / "out")
    assert (again.fingerprint, again.calibration) == (whole.fingerprint, {"slope": 2.0, "intercept": -1.0})
    assert not (tmp_path / "out" / "train.csv").exists()
    np.testing.assert_array_equal(again.tensors()["head.dense.weight"], whole.tensors()["head.dense.weight"])


@pytest.mark.skipif(sys.platform == "win32", reason="links of POSIX")
def test_what_cannot_be_copied_is_said_before_anything_is_read(tmp_path: Path) -> None:
    folder = chained(tmp_path / "model")
    (folder / "model.safetensors").rename(tmp_path / "elsewhere")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is a link out of the model's folder"):
        check_target(read(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_names_what_its_tokenizer_gives(folder: Path, tmp_path: Path) -> None:
    """transformers 5 reads the class that an export names without token types, unless these are named."""
    for number, types in enumerate(([], ["token_type_ids"])):
        (folder / "tokenizer_config.json").unlink(missing_ok=True)
        if not types:
            change(folder, "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
        target = tmp_path / f"exported-{number}"
        export(read(folder), target)
        stated = json.loads((target / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert stated["model_input_names"] == ["input_ids", *types, "attention_mask"]


def test_who_may_read_an_export_may_read_all_of_it(folder: Path, tmp_path: Path) -> None:
    # safetensors 0.8 leaves what it writes to its owner alone: a server of another user could not load it.
    export(read(folder), tmp_path / "to")
    assert len({path.stat().st_mode for path in (tmp_path / "to").iterdir()}) == 1


def test_an_export_overwrites_only_when_told(folder: Path, tmp_path: Path) -> None:
    bi, out = read(tiny.bi_encoder(tmp_path / "in")), tmp_path / "out"
    out.mkdir()
    export(bi, out)  # An empty folder is as good as none.
    (out / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with pytest.raises(CheckpointError, match=r"not empty.*--force"):
        export(read(folder), out)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    export(read(folder), out, overwrite=True)
    again = read(out)
    assert (again.kind, again.max_length) == ("cross-encoder", 60), "settings of the model before were left"
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.raises(CheckpointError, match="own folder"):
        export(again, out, overwrite=True)


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes of POSIX")
def test_settings_in_a_pipe_are_refused_and_not_waited_for(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json is no regular file"):
        read(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("there", [False, True])
def test_an_export_that_finds_no_room_leaves_what_was_there(folder: Path, tmp_path: Path, there: bool) -> None:
    import resource

    first, out = read(folder), tmp_path / "out"
    if there:
        export(read(tiny.bi_encoder(tmp_path / "in")), out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be written \(.*Make room on the disk"):
            export(first, out, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert out.exists() is there


def test_an_export_goes_on_where_another_was_killed(folder: Path, tmp_path: Path) -> None:
    left = tmp_path / "out" / ".crossrank-none-abcd.part"
    left.mkdir(parents=True)
    (left / "config.json").write_text("{}", encoding="utf-8")
    # It may be another's, at work now.
    with pytest.raises(CheckpointError, match="is not empty"):
        export(read(folder), tmp_path / "out")
    os.utime(left, (0, 0))
    export(read(folder), tmp_path / "out")
    assert not left.exists()
    assert read(tmp_path / "out").kind == "cross-encoder"


def test_old_layer_norm_names_and_position_buffers(folder: Path) -> None:
    tokens = tiny.random_tokens([7, 3])
    want = backends.open(read(folder), "reference").forward(tokens)
    old: dict[str, Any] = {"bert.embeddings.position_ids": np.arange(64)[None]}
    for name, tensor in tiny.weights(tiny.CONFIG, 1).items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        old[name] = tensor
    save_file(old, folder / "model.safetensors")
    np.testing.assert_array_equal(backends.open(read(folder), "reference").forward(tokens), want)


def test_half_precision_is_widened(folder: Path) -> None:
    tensors = tiny.weights(tiny.CONFIG, 1)
    save_file({name: tensor.astype(np.float16) for name, tensor in tensors.items()}, folder / "model.safetensors")
    for name, tensor in read(folder).tensors().items():
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, tensors[name].astype(np.float16).astype(np.float32))


def test_fingerprints_follow_the_contents(folder: Path, tmp_path: Path) -> None:
    first = read(folder).fingerprint
    assert len(first) == 64
    assert read(shutil.copytree(folder, tmp_path / "copy")).fingerprint == first
    change(tmp_path / "copy", hidden_act="relu")
    assert read(tmp_path / "copy").fingerprint != first
    save_file(tiny.weights(tiny.CONFIG, 1, seed=1), folder / "model.safetensors")
    assert read(folder).fingerprint != first


def test_a_model_in_the_place_of_another_has_its_own_fingerprint(tmp_path: Path) -> None:
    """Of equal size and time, as after `cp -p` or unpacking: remembered scores were those of the one before."""
    found = set()
    for seed in (1, 2):
        folder = tiny.cross_encoder(tmp_path / str(seed))
        save_file(tiny.weights(tiny.CONFIG, 1, seed=seed), folder / "model.safetensors")
        os.utime(folder / "model.safetensors", (1e9, 1e9))
        (tmp_path / "now").unlink(missing_ok=True)
        (tmp_path / "now").symlink_to(folder)
        found.add(read(tmp_path / "now").fingerprint)
    assert len(found) == 2


def test_special_tokens_of_a_vocabulary_file_are_in_the_fingerprint(folder: Path) -> None:
    before = read(folder).fingerprint
    same = read(change(folder, "tokenizer_config.json", sep_token="[SEP]", cls_token={"content": "[CLS]"}))
    assert same.fingerprint == before
    after = read(change(folder, "tokenizer_config.json", sep_token="[MASK]"))
    assert after.tokenizer().encode("a", "b").tokens.count("[MASK]") == 2
    assert after.fingerprint != before


# What is refused


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    for source in (tmp_path / "none", str(tmp_path / "none"), "./none", "a b", "owner/model/more", ""):
        with pytest.raises(CheckpointError):
            read(source)


def test_a_hub_name_offline_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"hf download someone/some-model.*give its path.*HF_HUB_OFFLINE"):
        read("someone/some-model")


def test_a_hub_name_in_the_cache_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "models--someone--some-model"
    tiny.cross_encoder(place / "snapshots" / "abc123")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    import huggingface_hub

    genuine = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **rest: genuine(name, cache_dir=tmp_path, **rest)
    )
    assert read("someone/some-model").labels == 1


def test_a_hub_model_may_be_of_a_revision_and_in_another_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "models--someone--some-model"
    tiny.cross_encoder(place / "snapshots" / "abc123")
    (place / "refs").mkdir()
    (place / "refs" / "v1").write_text("abc123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    scorer = crossrank.load("someone/some-model", revision="v1", cache_dir=tmp_path, token=False, backend="fake")
    assert scorer.checkpoint.folder.name == "abc123"
    with pytest.raises(CheckpointError, match=r"check the path.*hub's someone/some-model, give revision='v1'"):
        crossrank.load("someone/some-model@v1")
    for name in ("models@v2", "user@host/model"):
        with pytest.raises(CheckpointError, match=r"there is no model folder .*\. Check the path"):
            crossrank.load(name)
    with pytest.raises(CheckpointError, match=r"hf download someone/some-model --revision v9`.*name and revision"):
        crossrank.load("someone/some-model", revision="v9", cache_dir=tmp_path)


@pytest.mark.parametrize(
    "options",
    [{}, {"token": False}, {"token": "t"}, {"revision": "v1", "cache_dir": "here", "local_files_only": True}],
)
def test_the_hub_is_told_what_was_said_and_no_more(
    folder: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """token=False means none, also where one is stored: it is not as if nothing had been said."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(hub, "folder", lambda name, **given: told.append(given) or folder)
    read("someone/some-model", **options)
    assert told == [{"revision": None, **options}]


def stated(checkpoint: Checkpoint) -> dict[str, Any]:
    """All that a folder states, without its place."""
    places = ("name", "folder", "weights", "vocabulary", "modules")
    names = [name for name in checkpoint.__dataclass_fields__ if name not in places]
    return {name: getattr(checkpoint, name) for name in names}


@pytest.mark.parametrize(
    "make",
    [
        tiny.cross_encoder,
        tiny.bi_encoder,
        tiny.modern,
        tiny.late,
        lambda folder: tiny.late(folder, "colbert", query_maxlen=9, doc_maxlen=11, mask_punctuation=False),
        chained,
        sharded,
    ],
)
def test_a_model_of_the_hub_is_the_whole_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path]
) -> None:
    # A ColBERT model came without artifact.metadata, and was read with the lengths and the skip list of another.
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    whole, part = make(tmp_path / "whole"), tmp_path / "part"

    def snapshot(name: str, *, allow_patterns: list[str], **rest: Any) -> str:
        names = [str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()]
        for one in filter_repo_objects(names, allow_patterns=allow_patterns):
            (part / one).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(whole / one, part / one)
        return str(part)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    here, fetched = read(whole), read("someone/some-model")
    assert stated(fetched) == stated(here)
    assert fetched.fingerprint == here.fingerprint


def test_every_file_that_is_looked_for_is_fetched_from_the_hub() -> None:
    from huggingface_hub.utils import filter_repo_objects

    sources = "".join(path.read_text("utf-8") for path in Path(reading.__file__).parent.glob("*.py"))
    names = set(re.findall(r'/ "(\w[\w./]*\.\w+)"', sources))
    assert {"config.json", "artifact.metadata", "pytorch_model.bin", "model.safetensors.index.json"} <= names
    assert set(filter_repo_objects(sorted(names), allow_patterns=hub.SAFE + hub.PICKLE)) == names


def test_what_is_of_the_hub_alone_means_nothing_to_models_that_are_here(tmp_path: Path) -> None:
    """A revision says which model, and there is no other here; token and cache say how to fetch one, and none is."""
    folder = tiny.cross_encoder(tmp_path / "model")
    here = (
        (None, "'small' comes with crossrank"),
        ("fast", "'fast' comes with crossrank"),
        (folder, "is on this machine"),
    )
    for name, told in here:
        for load in (crossrank.load, load_scorer):
            with pytest.raises(InputError, match=f"{told} and has no revisions: leave revision='v1' out"):
                load(name, revision="v1")
    with pytest.raises(InputError, match="'embed' comes with crossrank and has no revisions"):
        crossrank.load_embedder(revision="v1")
    nowhere = tmp_path / "cache"
    for name in ("fast", folder):
        assert crossrank.load(name, token="t", cache_dir=nowhere).backend is crossrank.load(name).backend
    assert not nowhere.exists()


@pytest.mark.parametrize(
    ("name", "words"), [("config.json", "has no config.json"), ("model.safetensors", "has no model.safetensors")]
)
def test_a_missing_file(folder: Path, name: str, words: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=words):
        read(folder)


def test_a_missing_tokenizer(folder: Path) -> None:
    (folder / "vocab.txt").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer.json.*save_pretrained"):
        read(folder).tokenizer()


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt"])
def test_a_damaged_tokenizer(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\xff\xfe\x00 {")
    with pytest.raises(CheckpointError, match="is damaged"):
        read(folder).tokenizer()


@pytest.mark.parametrize("model", [models.WordPiece({"a": 0}, unk_token="[UNK]"), models.Unigram([("a", 0.0)])])
def test_a_tokenizer_without_a_token_for_the_unknown(folder: Path, model: models.Model) -> None:
    (folder / "vocab.txt").unlink()
    Tokenizer(model).save(str(folder / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"is damaged .*(?i:unk).*copy it again"):
        read(folder).tokenizer()


@pytest.mark.parametrize("name", ["added_tokens.json", "tokenizer_config.json"])
def test_tokens_added_to_a_vocabulary_file_are_read(folder: Path, name: str) -> None:
    number = len(tiny.VOCABULARY)
    change(folder, vocab_size=number + 1)  # whose table has a row for the word
    before = read(folder).fingerprint

    def stating(number: int, word: str) -> Path:
        stated = {"content": word, "special": False, "normalized": True}
        added = {word: number} if name == "added_tokens.json" else {"added_tokens_decoder": {str(number): stated}}
        return change(folder, name, **added)

    made = read(stating(number, "covid"))
    assert made.tokenizer().encode("a COVID cat", add_special_tokens=False).tokens == ["a", "covid", "cat"]
    assert made.tokenizer().token_to_id("covid") == number
    assert made.fingerprint != before
    (folder / "added_tokens.json").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"added token 'virus' has the number 99999.*such as \[unused10\]"):
        read(stating(99999, "virus")).tokenizer()


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000, '{"model_type": 7}', "\udcff"])
def test_a_damaged_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError):
        read(folder)


def test_a_pickle_without_torch_is_refused_with_the_cure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"pickle.*pip install 'crossrank\[torch\]'"):
        read(folder)


@pytest.mark.torch
def test_a_pickle_with_code_in_it_is_refused(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the extra torch is not installed")
    import pickle

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "it-ran",))

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Attack()}))
    with pytest.raises(CheckpointError, match="weights-only loader"):
        read(folder).tensors()
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("wrong", ["repeated", "repeated often", "shared", "sparse", "meta", "nested"])
def test_a_pickle_takes_no_more_memory_than_it_has_bytes(folder: Path, wrong: str) -> None:
    torch = pytest.importorskip("torch", reason="the extra torch is not installed")
    base = torch.ones(1_000)
    made = {
        "repeated": lambda: base[:1].expand(700_000_000),
        "repeated often": lambda: base[:1].expand(10**13),
        "shared": lambda: {f"extra{n}": base[:] for n in range(9)},
        "sparse": lambda: torch.eye(3).to_sparse(),
        "meta": lambda: torch.empty(3, device="meta"),
        "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    }[wrong]()
    state = {name: torch.from_numpy(array.copy()) for name, array in read(folder).tensors().items()}
    state["tied"] = state["classifier.weight"]
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert read(folder).tensors().keys() == state.keys()
    torch.save({**state, **(made if isinstance(made, dict) else {"extra": made})}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="Save the model again as model"):
        read(folder).tensors()


def test_a_missing_head_is_an_error_never_random(folder: Path) -> None:
    save_file(tiny.weights(tiny.CONFIG, 0), folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no classifier.weight: the head newly initialised"):
        read(folder)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("make", "file", "name"),
    [
        (tiny.cross_encoder, "model.safetensors", "classifier.weight"),
        (chained, "4_Dense/model.safetensors", "linear.weight"),
        (tiny.late, "1_Dense/model.safetensors", "linear.weight"),
        (lambda folder: tiny.late(folder, "colbert"), "model.safetensors", "linear.weight"),
    ],
)
def test_a_head_that_is_no_matrix_of_numbers_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], file: str, name: str
) -> None:
    path = make(tmp_path / "model") / file
    whole = dict(weights.load(path))
    save_file({**whole, name: np.zeros((), np.float32)}, path)
    with pytest.raises(CheckpointError, match=rf"{name} has shape \[\], and a matrix has two.*Download"):
        read(tmp_path / "model")
    save_file({**whole, name: np.zeros(whole[name].shape, np.int32)}, path)  # type: ignore[dict-item]
    with pytest.raises(
        CheckpointError, match=rf"{name} has dtype I32, which is no weight's|the weights have no {name}"
    ):
        read(tmp_path / "model")


def test_a_missing_head_of_an_architecture_only_torch_knows(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra torch is not installed")
    settings_ = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1}
    config = transformers.MPNetConfig(vocab_size=len(tiny.VOCABULARY), max_position_embeddings=66, **settings_)
    transformers.MPNetModel(config).save_pretrained(tmp_path)
    tiny.tokenizer(tmp_path)
    change(tmp_path, architectures=["MPNetForSequenceClassification"], id2label={"0": "x"}, label2id={"x": 0})
    with pytest.raises(CheckpointError, match=r"do not hold .*newly initialised"):
        backends.open(read(tmp_path), "auto", "cpu")


@pytest.mark.parametrize(
    ("labels", "stated", "words"),
    [
        (3, {}, "has 3 labels"),
        (1, {"id2label": {"0": "no", "1": "yes"}}, r"says 2 labels but classifier.weight has 1 rows"),
        (1, {"id2label": None}, "says 2 labels"),  # transformers counts 2 when nothing is stated
        (2, {"id2label": {"0": "x"}}, "says 1 labels but classifier.weight has 2 rows"),
        (1, {"id2label": {}, "num_labels": 0, "model_type": "mpnet"}, "has 0 labels"),
    ],
)
def test_wrong_label_counts(tmp_path: Path, labels: int, stated: dict[str, Any], words: str) -> None:
    folder = tiny.cross_encoder(tmp_path, labels)
    with pytest.raises(CheckpointError, match=words):
        read(change(folder, **stated))


def test_a_two_label_head_that_says_its_labels_are_swapped(tmp_path: Path) -> None:
    folder = tiny.cross_encoder(tmp_path, 2)
    assert read(change(folder, id2label={"0": "not_entailment", "1": "entailment"})).labels == 2
    with pytest.raises(CheckpointError, match="upside down"):
        read(change(folder, id2label={"0": "Entailment", "1": "not_entailment"}))


@pytest.mark.parametrize("word", ["entailment", "relevant", "positive", "true", "yes"])
def test_words_that_mean_relevant(tmp_path: Path, word: str) -> None:
    folder = tiny.cross_encoder(tmp_path, 2)
    assert read(change(folder, id2label={"0": "x", "1": word})).labels == 2
    with pytest.raises(CheckpointError, match=f"names label 0 '{word}'.*upside down"):
        read(change(folder, id2label={"0": word, "1": "x"}))


def test_the_only_label_of_a_head_may_be_called_relevant(folder: Path) -> None:
    assert read(change(folder, id2label={"0": "relevant"})).labels == 1


def test_a_file_has_no_revisions_either(folder: Path) -> None:
    for source in (folder, folder / "model.safetensors"):
        with pytest.raises(InputError, match="has no revisions: leave revision='main' out"):
            read(source, revision="main")


def test_a_model_is_found_again_from_another_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    for source in (folder.name, f"{folder.name}/model.safetensors"):
        found = read(source)
        assert found.folder.is_absolute()
        assert all(file.is_absolute() for file in found.weights)


@pytest.mark.parametrize("named", ["os.system", "torch.nn.modules.activation.Tanh", "mymodule.Sigmoid"])
def test_an_activation_of_their_own_is_refused(folder: Path, named: str) -> None:
    with pytest.raises(CheckpointError, match="runs no code"):
        read(change(folder, sentence_transformers={"activation_fn": named}))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("modules.json", [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}], "module Dense"),
        ("modules.json", [{"type": "sentence_transformers.models.Pooling", "path": "../x"}], "not in this folder"),
        ("modules.json", [{"type": "sentence_transformers.models.Pooling", "path": ".."}], "not in this folder"),
        ("modules.json", {"type": 1}, "is damaged"),
        ("modules.json", [1], "is damaged"),
        ("modules.json", [{"type": "sentence_transformers.models.Pooling"}], "is damaged"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "neither mean nor cls"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "neither"),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}, "neither mean nor cls"),
    ],
)
def test_modules_that_are_not_computed(tmp_path: Path, name: str, value: Any, words: str) -> None:
    folder = tiny.bi_encoder(tmp_path)
    tiny.write_json(folder / name, value)
    with pytest.raises(CheckpointError, match=words):
        read(folder)


def test_a_cross_encoder_with_a_default_prompt_is_refused_with_the_cure(folder: Path) -> None:
    name = "config_sentence_transformers.json"
    change(folder, name, prompts={"rank": "the capital: ", "none": ""}, default_prompt_name="rank")
    with pytest.raises(CheckpointError, match=r"'the capital: '.*Take default_prompt_name out .* before your queries"):
        read(folder)
    assert read(change(folder, name, default_prompt_name="none")).prompt == ""
    assert read(change(folder, name, default_prompt_name=None)).prompt == ""


def test_a_list_of_modules_is_as_bounded_as_every_settings_file(folder: Path) -> None:
    for name in ("modules.json", "sentence_bert_config.json"):
        with (folder / name).open("wb") as file:
            file.truncate(17_000_000)
        with pytest.raises(CheckpointError, match=rf"{name} has over 16 MB"):
            read(folder)
        (folder / name).unlink()


def test_a_settings_file_of_many_small_parts_costs_no_memory(folder: Path) -> None:
    (folder / "config.json").write_text('{"x": [' + "{}," * 1_000_000 + "{}]}")
    with pytest.raises(CheckpointError, match=r"config.json has over 1,000,000 objects, lists and names"):
        read(folder)


def test_a_file_may_be_as_large_as_its_kind_is(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    # One object, two lists and three names, in as many bytes as six of them may take.
    text = b'{"a":[],"b":[],"c":1}'.ljust(6 * stating.SPARSE)
    path.write_bytes(text)
    assert stating.bounded(path, len(text), "a test's") == text
    path.write_bytes(text + b" ")
    with pytest.raises(CheckpointError, match="so it is not a test's"):
        stating.bounded(path, len(text), "a test's")
    for more in (b"{}", b"[]", b":"):
        path.write_bytes(text.rstrip() + more)
        with pytest.raises(CheckpointError, match="has over 6 objects, lists and names"):
            stating.bounded(path, len(text), "a test's")


def test_a_vocabulary_file_is_as_long_as_vocabularies_are(folder: Path) -> None:
    with (folder / "vocab.txt").open("a") as file:
        file.writelines(f"{number:x}\n" for number in range(1_000_000))
    with pytest.raises(CheckpointError, match=r"vocab.txt has over 16 MB or 1,000,000 lines"):
        read(folder).tokenizer()


def test_settings_that_the_disk_does_not_give(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, *given: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", broken)
    with pytest.raises(CheckpointError, match=r"cannot read .*config\.json: Input/output error"):
        read(folder)


def test_xlnet_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is an XLNet.*Use it through transformers, or choose another model"):
        read(change(folder, model_type="xlnet"))


def replaced(content: str, **pattern: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def in_turn(*steps: dict[str, Any], kind: str = "normalizers") -> dict[str, Any]:
    return {"type": "Sequence", kind: list(steps)}


def charsmap(*texts: str) -> dict[str, Any]:
    """What SentencePiece makes of characters, with an empty trie."""
    raw = (4).to_bytes(4, "little") + bytes(4) + b"".join(text.encode() + b"\0" for text in texts)
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(raw).decode()}


def mapped(sign: str, text: str) -> dict[str, Any]:
    """Like `charsmap`, of one character in ASCII: its unit in the trie has itself, a leaf and the place of the leaf."""
    trie = np.zeros(256, dtype="<u4")
    trie[ord(sign)] = ord(sign) | 1 << 8 | 1 << 10
    raw = (1024).to_bytes(4, "little") + trie.tobytes() + text.encode() + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(raw).decode()}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
SPACED = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
PHRASE = "\u0635\u0644\u0649 \u0627\u0644\u0644\u0647 \u0639\u0644\u064a\u0647 \u0648\u0633\u0644\u0645"


@pytest.mark.parametrize(
    ("part", "step"),
    [
        ("normalizer", replaced("b" * 65, String="a")),
        ("normalizer", in_turn(replaced("b" * 50_000, String="a"), replaced("c" * 50_000, String="b"))),
        ("normalizer", in_turn(*[replaced("aa", String="a")] * 20)),
        ("normalizer", in_turn(in_turn(*[replaced("aa", Regex="a|b")] * 7))),
        ("normalizer", in_turn(*[replaced("a", String="")] * 7)),
        ("normalizer", in_turn(*[replaced("a", Regex="(?=a)")] * 7)),
        ("normalizer", in_turn(*[{"type": "Prepend", "prepend": "ab"}] * 4)),
        ("normalizer", {"normalizers": [{"pattern": {"String": "a"}, "content": "b" * 65}]}),  # without types
        ("normalizer", in_turn(*[replaced("\ufdfa", String=" "), {"type": "NFKC"}] * 2)),
        ("normalizer", in_turn(*[{"type": "ByteLevel"}] * 3)),
        ("normalizer", charsmap("a", "b" * 65)),
        ("normalizer", in_turn(*[{"type": "Lowercase"}] * 101)),
        ("pre_tokenizer", in_turn(*[BYTES] * 3, kind="pretokenizers")),
        ("pre_tokenizer", in_turn(*[SPACED] * 7, kind="pretokenizers")),
        ("decoder", in_turn(*[replaced("aa", String="a")] * 7, kind="decoders")),
    ],
)
def test_a_tokenizer_that_multiplies_text_is_refused_before_it_runs(part: str, step: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=rf"^the {part} of here could make a text over 64 times as long"):
        growth.check({part: step}, "here")


def test_a_frame_without_bounds_is_refused() -> None:
    def frame(names: str, many: int = 1) -> dict[str, Any]:
        pieces = [{"Sequence" if name in "AB" else "SpecialToken": {"id": name, "type_id": 0}} for name in names]
        special = {"id": "s", "ids": [0] * many, "tokens": ["s"] * many}
        made = {"type": "TemplateProcessing", "single": pieces[:2], "pair": pieces, "special_tokens": {"s": special}}
        return {"post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"}, made]}}

    growth.check(frame("sAsBs"), "here")
    for wrong in (frame("sAAB"), frame("sA" + "s" * 100)):
        with pytest.raises(CheckpointError, match="repeats a text, or has over 100 pieces"):
            growth.check(wrong, "here")
    with pytest.raises(CheckpointError, match="over 100 special tokens in one place"):
        growth.check(frame("sA", many=101), "here")
    with pytest.raises(CheckpointError, match="does not say which id 't' has"):
        growth.check(frame("sAtBs"), "here")


@pytest.mark.parametrize(
    "stated",
    [
        {"model": {"vocab": {"a": 0, "b": 2**31}}},
        {"added_tokens": [{"id": 2**31, "content": "a"}]},
        {"post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2**31], "cls": ["[CLS]", 1]}},
        {"post_processor": {"single": [{"Sequence": {"id": "A", "type_id": 2**31}}]}},
        {"post_processor": {"special_tokens": {"s": {"id": "s", "ids": [2**31], "tokens": ["s"]}}}},
    ],
)
def test_numbers_beyond_32_bits_are_refused(stated: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="here has an id or a token type over 2,147,483,647"):
        growth.check(stated, "here")


def test_where_the_code_of_a_tokenizer_stops_is_an_error_like_others(folder: Path) -> None:
    # Its library then raises what is no Exception, so that nothing caught it.
    read(folder).tokenizer().save(str(folder / "tokenizer.json"))
    endless = {"type": "Split", "pattern": {"Regex": "(a|aa)+$b|(a*)*c"}, "behavior": "Isolated", "invert": False}
    change(folder, "tokenizer.json", pre_tokenizer=endless)
    scorer = crossrank.load(folder, backend="fake")
    with pytest.raises(CheckpointError, match="the tokenizer cannot read a text"):
        scorer.score([("b", "a" * 60 + "!")])


@pytest.mark.parametrize("stated", [[], {"normalizer": ["Lowercase"]}, {"decoder": replaced("a", String=3)}])  # type: ignore[arg-type]
def test_steps_that_cannot_be_read_are_refused(stated: Any) -> None:
    with pytest.raises(CheckpointError, match="here is damaged"):
        growth.check(stated, "here")


@pytest.mark.parametrize(
    "stated",
    [
        {"normalizer": None},
        {"normalizer": {"type": "BertNormalizer", "handle_chinese_chars": True}, "decoder": {"type": "WordPiece"}},
        {"pre_tokenizer": BYTES, "decoder": BYTES},  # RoBERTa and ModernBERT
        {
            "normalizer": in_turn(
                replaced('"', String="``"), {"type": "NFKD"}, charsmap(PHRASE), replaced(" ", Regex=" {2,}")
            ),
            "pre_tokenizer": in_turn({"type": "WhitespaceSplit"}, SPACED, kind="pretokenizers"),
        },  # ALBERT, XLM-R and others of SentencePiece
        {
            "normalizer": in_turn({"type": "Prepend", "prepend": "\u2581"}, replaced("\u2581", String=" ")),
            "decoder": in_turn(
                replaced(" ", String="\u2581"),
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
                kind="decoders",
            ),
        },  # Llama
    ],
)
def test_the_steps_of_real_tokenizers_are_admitted(stated: dict[str, Any]) -> None:
    growth.check(stated, "here")


@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer"),
    [
        (None, None),
        (None, BYTES),
        (None, {**BYTES, "add_prefix_space": True}),
        ({"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": True}, None),
        ({"type": "NFKC"}, in_turn({"type": "WhitespaceSplit"}, SPACED, kind="pretokenizers")),
        (in_turn({"type": "NFKD"}, {"type": "Lowercase"}), BYTES),
        (in_turn({"type": "Prepend", "prepend": "\u2581"}, replaced("\u2581", String=" ")), None),
        (mapped("a", "abcd"), None),
        (mapped("a", "\ufdfa"), BYTES),
        (in_turn(mapped("a", "\ufdfa"), {"type": "NFKC"}), None),
    ],
)
@pytest.mark.parametrize("bytewise", [False, True])
@given(text=st.text(st.one_of(st.characters(), st.sampled_from("\ud55c\ufdfa\u0130\u6f22\U0001f984\r\n a"))))
@settings(max_examples=60, deadline=None)
def test_no_text_has_more_tokens_than_its_characters_allow(
    normalizer: Any, pre_tokenizer: Any, bytewise: bool, text: str
) -> None:
    """A token was taken to have a character at least, so that limits of tokens passed over texts that had far more."""
    words = {name: number for number, name in enumerate(["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))])}
    model = models.BPE(words, [], unk_token="<unk>", byte_fallback=bytewise)
    stated = json.loads(Tokenizer(model).to_str())
    made = Tokenizer.from_str(json.dumps({**stated, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer}))
    tokens = len(made.encode(valid_text(text)).ids)
    assert tokens <= len(text) * growth.tokens_a_character(made)
    assert not text.isascii() or tokens <= len(text) * growth.tokens_a_character(made, plain=True)


def test_ascii_is_not_taken_for_what_it_could_be() -> None:
    """It is most of what is read, and its tokens have a character at least: nothing is counted twice for a limit."""
    assert growth.tokens_a_character(crossrank.load("tiny").checkpoint.tokenizer(), plain=True) == 1


def test_a_tokenizer_that_multiplies_text_is_no_tokenizer(folder: Path) -> None:
    """It ended the process: nothing can catch what happens there."""
    read(folder).tokenizer().save(str(folder / "tokenizer.json"))
    assert read(folder).tokenizer().encode("a", "b").ids
    change(folder, "tokenizer.json", normalizer=in_turn(*[replaced("b" * 50_000, String="a")] * 2))
    with pytest.raises(CheckpointError, match=r"would take all memory. Use the tokenizer of the model's authors"):
        crossrank.load(folder, backend="fake")


# What transformers writes for a tokenizer without a limit overflowed in the first score.
@pytest.mark.parametrize("limit", [None, 1e30, int(1e30)])
def test_no_maximum_length_anywhere(folder: Path, limit: float | None) -> None:
    change(folder, "tokenizer_config.json", model_max_length=limit)
    with pytest.raises(CheckpointError, match="states no maximum length"):
        read(change(folder, max_position_embeddings=None))


# Damaged weights


def test_every_truncation_is_noticed(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 3, 8, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"Download the model again|not a whole"):
            read(folder)


def header_file(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize(
    "header",
    [
        {"x": {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 1 << 62]}},  # claims more than there is
        {"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}},
        {"x": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}},
        {"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"x": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}},
        {"x": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
        {"x": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}},
        {"x": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}},
        {"x": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}},
        {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in ("x", "y")},
        {
            "x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            "y": {"dtype": "I8", "shape": [1], "data_offsets": [3, 4]},
        },
        {"x": {"dtype": "F32", "shape": [1, 0, 10**30], "data_offsets": [0, 0]}},
        {"x": {"dtype": "F32", "shape": [0, 1 << 40, 1 << 40], "data_offsets": [0, 0]}},
        {"x": {"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}},
        {"x": {"dtype": "F32"}},
        {"x": 3},
        [],
        b"{" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_lying_header_costs_no_memory(tmp_path: Path, header: Any) -> None:
    path = header_file(tmp_path / "model.safetensors", header, b"\0" * 4)
    with pytest.raises(CheckpointError):
        dict(weights.load(path))


def test_empty_tensors_overlap_with_nothing(tmp_path: Path) -> None:
    empty = {
        name: {"dtype": "F32", "shape": [0], "data_offsets": [at, at]} for name, at in (("a", 0), ("c", 2), ("b", 4))
    }
    table = {**empty, "x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    assert set(weights.header(header_file(tmp_path / "model.safetensors", table, b"\0" * 4))) == {"a", "b", "c", "x"}


def test_a_huge_header_length(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((1 << 63).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        weights.header(path)


@pytest.mark.parametrize("most", ["MAX_HEADER", "MAX_PARTS"])
def test_a_header_of_too_many_tensors(tmp_path: Path, most: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {f"{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(200)}
    path = header_file(tmp_path / "model.safetensors", table)
    assert len(weights.header(path)) == 200
    monkeypatch.setattr(weights, most, 1000)
    with pytest.raises(CheckpointError, match="says too much of its tensors, or has over 100,000"):
        weights.header(path)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_checkpoint_error_or_tensors(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "model.safetensors"
    path.write_bytes(len(data).to_bytes(8, "little") + data)
    with contextlib.suppress(CheckpointError):
        dict(weights.load(path))


@pytest.mark.parametrize(
    "named", ["../model.safetensors", "a/b.safetensors", "/etc/passwd", "gone.safetensors", "x.bin"]
)
def test_a_shard_index_stays_in_its_folder(folder: Path, named: str) -> None:
    (folder / "model.safetensors").unlink()
    tiny.write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": named}})
    with pytest.raises(CheckpointError):
        read(folder)


def test_an_index_without_a_map(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    tiny.write_json(folder / "model.safetensors.index.json", {"weight_map": 1})
    with pytest.raises(CheckpointError, match="no weight_map"):
        read(folder)


# Bfloat16


@given(st.floats(width=16, allow_nan=False))
def test_bfloat16_is_the_upper_half_of_float32(value: float) -> None:
    raw = np.array([value], dtype=np.float32).view(np.uint32) >> 16
    assert weights.widen(raw.astype(np.uint16)).view(np.uint32)[0] == raw[0] << 16
