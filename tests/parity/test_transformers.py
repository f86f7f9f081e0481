"""Every architecture against transformers in float32: logits, pooled vectors, heads of one and two labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra torch is not installed")
pytest.importorskip("transformers", reason="the extra torch is not installed")
import architectures
import torch
import transformers
from safetensors.numpy import save_file

import tiny
from crossrank import backends, load_embedder
from crossrank.backends.cpu import library
from crossrank.backends.torch import Torch
from crossrank.checkpoint import Checkpoint, export, read, settings
from crossrank.errors import CheckpointError
from crossrank.types import Tokens

pytestmark = pytest.mark.torch

TOLERANCE = 1e-4
LENGTHS = [3, 40, 40, 96, 17, 1, 40, 8]
# Every tier of the native engine that this machine has.
BACKENDS = ("reference", "torch", *(f"cpu:{tier}" for tier in library.tiers()))
OWN = tuple(name for name in BACKENDS if name != "torch")


@pytest.fixture(scope="module", params=architectures.NAMES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return architectures.make(request.param, tmp_path_factory.mktemp(request.param))


def some_tokens(checkpoint: Checkpoint, lengths: list[int] = LENGTHS) -> Tokens:
    return tiny.random_tokens(lengths, checkpoint.config["vocab_size"], types=1 + checkpoint.token_types)


def logits_of(folder: Path, tokens: Tokens) -> np.ndarray:
    """Transformers' own answer, one sequence at a time, so without padding; shape (n, labels)."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval().float()
    return np.concatenate([run(model, tokens, i).logits.numpy() for i in range(len(tokens))])


def states_of(folder: Path, tokens: Tokens) -> list[np.ndarray]:
    model = transformers.AutoModel.from_pretrained(folder).eval().float()
    return [run(model, tokens, i).last_hidden_state[0].numpy() for i in range(len(tokens))]


def run(model: Any, tokens: Tokens, i: int) -> Any:
    part = slice(int(tokens.offsets[i]), int(tokens.offsets[i + 1]))
    arguments = {"input_ids": torch.from_numpy(tokens.ids[part].astype(np.int64))[None]}
    if getattr(model.config, "type_vocab_size", 0) == 2:
        arguments["token_type_ids"] = torch.from_numpy(tokens.types[part].astype(np.int64))[None]
    with torch.inference_mode():
        return model(**arguments)


@pytest.mark.parametrize("backend", BACKENDS)
def test_logits(made: Path, backend: str) -> None:
    checkpoint = read(made)
    tokens = some_tokens(checkpoint)
    want = logits_of(made, tokens)[:, 0]
    assert want.std() > 0.01, "scores must differ for this test to mean much"
    got = backends.open(checkpoint, backend, "cpu", "float32").forward(tokens)
    assert np.abs(got - want).max() < TOLERANCE


@pytest.mark.skipif(not library.tiers(), reason=f"no native library: {library.obstacle()}")
def test_threads_that_divide_the_rows_of_a_layer_change_no_bit(made: Path) -> None:
    checkpoint = read(made)
    one, three = (backends.open(checkpoint, "cpu", "cpu", "float32", threads) for threads in (1, 3))
    for lengths in ([96], [95, 2], LENGTHS):
        tokens = some_tokens(checkpoint, lengths)
        np.testing.assert_array_equal(three.forward(tokens), one.forward(tokens))
        np.testing.assert_array_equal(three.pool(tokens, "mean"), one.pool(tokens, "mean"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_pooled_vectors_of_the_encoder_inside(made: Path, backend: str) -> None:
    checkpoint = read(made)
    tokens = some_tokens(checkpoint)
    states = states_of(made, tokens)
    opened = backends.open(checkpoint, backend, "cpu", "float32")
    mean, first = opened.pool(tokens, "mean"), opened.pool(tokens, "cls")
    assert np.abs(mean - np.stack([state.mean(axis=0) for state in states])).max() < TOLERANCE
    assert np.abs(first - np.stack([state[0] for state in states])).max() < TOLERANCE


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "torch"])
def test_states_of_tokens_that_attention_does_not_see(made: Path, backend: str) -> None:
    """The torch backend hides them with transformers' own mask. With local attention some then see nothing at all."""
    checkpoint = read(made)
    tokens = some_tokens(checkpoint)
    want = backends.open(checkpoint, "torch", "cpu", "float32")
    got = backends.open(checkpoint, backend, "cpu", "float32")
    for seen in (np.maximum(1, tokens.lengths - 5), np.maximum(1, tokens.lengths // 3), np.ones_like(tokens.lengths)):
        assert np.abs(got.states(tokens, seen) - want.states(tokens, seen)).max() < TOLERANCE


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", architectures.NAMES)
def test_two_labels_give_log_odds(name: str, backend: str, tmp_path: Path) -> None:
    folder = architectures.make(name, tmp_path, labels=2)
    checkpoint = read(folder)
    assert (checkpoint.kind, checkpoint.labels) == ("cross-encoder", 2)
    tokens = some_tokens(checkpoint)
    want = logits_of(folder, tokens)
    got = backends.open(checkpoint, backend, "cpu", "float32").forward(tokens)
    assert np.abs(got - (want[:, 1] - want[:, 0])).max() < TOLERANCE


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", architectures.NAMES)
def test_bare_encoders(name: str, backend: str, tmp_path: Path) -> None:
    folder = architectures.make(name, tmp_path, labels=0)
    checkpoint = read(folder)
    assert (checkpoint.kind, checkpoint.labels) == ("bi-encoder", 0)
    tokens = some_tokens(checkpoint)
    want = np.stack([state.mean(axis=0) for state in states_of(folder, tokens)])
    assert np.abs(backends.open(checkpoint, backend, "cpu", "float32").pool(tokens, "mean") - want).max() < TOLERANCE


MODERN = [
    {"classifier_pooling": "mean"},
    {"classifier_bias": True, "norm_bias": True, "attention_bias": True, "mlp_bias": True},
    {"classifier_activation": "silu", "hidden_activation": "gelu_pytorch_tanh"},
    {"position_embedding_type": "sans_pos"},  # as mmBERT says, and nothing reads
    {"local_attention": 2**33},
    {"num_hidden_layers": 2},  # the last layer is local: its [CLS] row sees only its window
    {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 500.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        }
    },
]


@pytest.mark.parametrize("backend", OWN)
@pytest.mark.parametrize("change", MODERN, ids=lambda change: "-".join(change))
def test_what_modernbert_can_be(change: dict[str, Any], backend: str, tmp_path: Path) -> None:
    folder = architectures.make("modernbert", tmp_path, **change)
    checkpoint = read(folder)
    tokens = some_tokens(checkpoint)
    got = backends.open(checkpoint, backend, "cpu", "float32").forward(tokens)
    assert np.abs(got - logits_of(folder, tokens)[:, 0]).max() < TOLERANCE


@pytest.mark.parametrize("backend", OWN)
def test_modernbert_reads_the_settings_of_older_configs(backend: str, tmp_path: Path) -> None:
    """Configs on the hub have global_rope_theta and local_rope_theta, and no rope_parameters or layer_types."""
    folder = architectures.make("modernbert", tmp_path)
    config = {key: value for key, value in read(folder).config.items() if key not in ("rope_parameters", "layer_types")}
    older = {"global_rope_theta": 700.0, "local_rope_theta": 70.0, "global_attn_every_n_layers": 2}
    tiny.write_json(folder / "config.json", {**config, **older})
    checkpoint = read(folder)
    tokens = some_tokens(checkpoint)
    got = backends.open(checkpoint, backend, "cpu", "float32").forward(tokens)
    assert np.abs(got - logits_of(folder, tokens)[:, 0]).max() < TOLERANCE


@pytest.mark.parametrize("backend", OWN)
@pytest.mark.parametrize("act", ["gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "tanh"])
def test_hidden_activations(act: str, backend: str, tmp_path: Path) -> None:
    folder = architectures.make("bert", tmp_path, hidden_act=act)
    checkpoint = read(folder)
    tokens = some_tokens(checkpoint)
    got = backends.open(checkpoint, backend, "cpu", "float32").forward(tokens)
    assert np.abs(got - logits_of(folder, tokens)[:, 0]).max() < TOLERANCE


@pytest.mark.parametrize("backend", OWN)
def test_padding_tokens_inside_a_roberta_sequence_keep_the_padding_position(backend: str, tmp_path: Path) -> None:
    folder = architectures.make("roberta", tmp_path)
    tokens = Tokens.of([[0, 9, 1, 10, 2], [0, 1, 1, 2], [1, 5, 2]])
    got = backends.open(read(folder), backend, "cpu", "float32").forward(tokens)
    assert np.abs(got - logits_of(folder, tokens)[:, 0]).max() < TOLERANCE


def test_distilbert_runs_on_torch(tmp_path: Path) -> None:
    config = transformers.DistilBertConfig(
        vocab_size=tiny.CONFIG["vocab_size"], dim=32, n_heads=4, n_layers=2, hidden_dim=64, max_position_embeddings=64,
        num_labels=1,
    )  # fmt: skip
    transformers.DistilBertForSequenceClassification(config).save_pretrained(tmp_path)
    tiny.tokenizer(tmp_path)
    checkpoint = read(tmp_path)
    assert backends.why(checkpoint).startswith("auto picks torch: the native engine and the reference backend cannot")
    tokens = tiny.random_tokens([4, 60, 9])
    got = backends.open(checkpoint).forward(tokens)
    assert np.abs(got - logits_of(tmp_path, tokens)[:, 0]).max() < TOLERANCE


def test_a_distilbert_embeds_on_torch(tmp_path: Path) -> None:
    folder = tiny.bi_encoder(tmp_path / "distilbert", normalize=False)
    (folder / "model.safetensors").unlink()
    config = transformers.DistilBertConfig(
        vocab_size=tiny.CONFIG["vocab_size"], dim=32, n_heads=4, n_layers=2, hidden_dim=64, max_position_embeddings=64
    )
    transformers.DistilBertModel(config).save_pretrained(folder)
    embedder = load_embedder(folder)
    assert (embedder.backend.name.partition(" ")[0], embedder.width) == ("torch", 32)
    tokens = Tokens.of([embedder.tokenizer.encode("the cat").ids])
    want = states_of(folder, tokens)[0].mean(axis=0)
    np.testing.assert_allclose(embedder.embed(["the cat"])[0], want / np.linalg.norm(want), atol=TOLERANCE)
    export(read(folder), tmp_path / "out")
    np.testing.assert_allclose(
        load_embedder(tmp_path / "out").embed(["the cat"]), embedder.embed(["the cat"]), atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "how", "changes"),
    [
        ("fnet", "equal", {}),
        ("convbert", "equal", {"num_attention_heads": 4, "embedding_size": 32}),
        ("nystromformer", "equal", {"num_attention_heads": 4}),
        ("albert", "any", {"num_attention_heads": 4, "embedding_size": 16}),
    ],
)
def test_scores_do_not_depend_on_the_list(name: str, how: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """Some architectures read the padding behind a text: beside longer ones it had another score."""
    rows = architectures._wordpiece("bert", tmp_path)
    sizes = {**architectures.SMALL, "vocab_size": rows, "pad_token_id": 0, "num_labels": 1}
    del sizes["num_attention_heads"]  # FNet has none
    torch.manual_seed(7)
    config = transformers.AutoConfig.for_model(name, **sizes, **changes)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.15)
    model.save_pretrained(tmp_path)
    for found in (read(tmp_path), read(_bare(tmp_path))):
        backend = backends.open(found, "torch", "cpu", "float32")
        assert isinstance(backend, Torch)
        assert backend._together == how
        tokens = some_tokens(found, [40, 7, 23, 7, 60])
        asked = [lambda some: backend.pool(some, "mean"), backend.states]  # noqa: B023
        for ask in [backend.forward] if found.labels else asked:
            whole = ask(tokens)
            alone = [ask(tokens.take(np.array([row]))) for row in range(len(tokens))]
            np.testing.assert_allclose(whole, np.concatenate(alone), atol=1e-5)
            assert whole.std() > 0.01


def _bare(folder: Path) -> Path:
    """A cross-encoder's folder, stated to be the encoder alone."""
    stated = json.loads((folder / "config.json").read_text())
    classes = [stated["architectures"][0].replace("ForSequenceClassification", "Model")]
    (folder / "config.json").write_text(json.dumps({**stated, "architectures": classes}))
    return folder


def test_relative_positions_are_refused_where_transformers_leaves_them_out(tmp_path: Path) -> None:
    folder = architectures.make("bert", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    tiny.write_json(folder / "config.json", {**config, "position_embedding_type": "relative_key"})
    tensors = read(folder).tensors()
    for i in range(config["num_hidden_layers"]):
        name = f"bert.encoder.layer.{i}.attention.self.distance_embedding.weight"
        tensors[name] = np.ones((2 * config["max_position_embeddings"] - 1, 8), dtype=np.float32)
    tiny.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if int(transformers.__version__.partition(".")[0]) < 5:
        backends.open(read(folder))
        return
    for backend in ("auto", "torch"):
        with pytest.raises(CheckpointError, match=r"'relative_key' position embeddings.*scores would be wrong"):
            backends.open(read(folder), backend, "cpu")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_is_near(made: Path, dtype: str) -> None:
    checkpoint = read(made)
    tokens = some_tokens(checkpoint)
    want = backends.open(checkpoint, "reference", "cpu", "float32").forward(tokens)
    got = backends.open(checkpoint, "torch", "cpu", dtype).forward(tokens)
    assert np.abs(got - want).max() < 0.15


@pytest.mark.parametrize("labels", [0, 1])
def test_an_export_loads_in_transformers_with_the_same_results(made: Path, labels: int, tmp_path: Path) -> None:
    name = read(made).architecture
    source = architectures.make(name, tmp_path / "source", labels=labels)
    export(read(source), tmp_path / "out")
    again = read(tmp_path / "out")
    tokens = some_tokens(again)
    answer = logits_of if labels else states_of
    for before, after in zip(answer(source, tokens), answer(tmp_path / "out", tokens), strict=True):
        np.testing.assert_allclose(before, after, atol=1e-6)
    reloaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in architectures.TEXTS:
        assert reloaded(text, "a pair")["input_ids"] == again.tokenizer().encode(text, "a pair").ids


@pytest.mark.parametrize("name", architectures.NAMES)
def test_tokenizers_agree(name: str, tmp_path: Path) -> None:
    folder = architectures.make(name, tmp_path)
    theirs, mine = transformers.AutoTokenizer.from_pretrained(folder), read(folder).tokenizer()
    for text in [*architectures.TEXTS, "ÉCOLE Straße 東京 café", "", "  two  spaces "]:
        assert theirs(text, "Paris")["input_ids"] == mine.encode(text, "Paris").ids


def test_weights_in_a_pickle_are_read_by_the_safe_loader(tmp_path: Path) -> None:
    folder = architectures.make("bert", tmp_path)
    tokens = some_tokens(read(folder))
    want = backends.open(read(folder), "reference", "cpu", "float32").forward(tokens)
    state = transformers.AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    for backend in BACKENDS:
        got = backends.open(read(folder), backend, "cpu", "float32").forward(tokens)
        np.testing.assert_allclose(got, want, atol=TOLERANCE)


def test_sharded_and_half_precision_weights(tmp_path: Path) -> None:
    folder = architectures.make("bert", tmp_path / "source")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    architectures._wordpiece("bert", tmp_path / "sharded")
    checkpoint = read(tmp_path / "sharded")
    assert len(checkpoint.weights) > 1
    tokens = some_tokens(checkpoint)
    want = logits_of(tmp_path / "sharded", tokens)[:, 0]
    for backend in BACKENDS:
        assert np.abs(backends.open(checkpoint, backend, "cpu", "float32").forward(tokens) - want).max() < TOLERANCE


def test_the_weights_are_those_of_the_file_that_is_named(tmp_path: Path) -> None:
    """Torch scored with model.safetensors whichever file of the folder was named, and tuning began there."""
    folder = tiny.cross_encoder(tmp_path)
    save_file(tiny.weights(tiny.CONFIG, 1, seed=7), folder / "model-tuned.safetensors", metadata={"format": "pt"})
    tokens = some_tokens(read(folder), [3, 40, 17])
    found = []
    for named in ("model.safetensors", "model-tuned.safetensors"):
        checkpoint = read(folder / named)
        want = backends.open(checkpoint, "reference", "cpu", "float32").forward(tokens)
        for backend in BACKENDS:
            got = backends.open(checkpoint, backend, "cpu", "float32").forward(tokens)
            np.testing.assert_allclose(got, want, atol=TOLERANCE, err_msg=backend)
        found.append(want)
    assert np.abs(found[0] - found[1]).max() > 0.1
    # transformers reads the file that this key names, and the other backends do not.
    config = json.loads((folder / "config.json").read_text())
    tiny.write_json(folder / "config.json", {**config, "transformers_weights": "model-tuned.safetensors"})
    got = backends.open(read(folder), "torch", "cpu", "float32").forward(tokens)
    np.testing.assert_allclose(got, found[0], atol=TOLERANCE)


def test_vocabulary_files_without_tokenizer_json(tmp_path: Path) -> None:
    """BERT's vocab.txt, cased and not, and RoBERTa's vocab.json with merges.txt."""
    texts = [*architectures.TEXTS, "ÉCOLE café 東京", "the cats; don't!", "  two  spaces ", "a<mask>b [MASK] c", ""]
    bert = architectures.make("bert", tmp_path / "bert")
    for lower in (True, False):
        (bert / "tokenizer.json").unlink(missing_ok=True)
        settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower, "model_max_length": 96}
        tiny.write_json(bert / "tokenizer_config.json", settings)
        mine = read(bert).tokenizer()
        theirs = transformers.BertTokenizer.from_pretrained(bert)
        for text in texts:
            assert mine.encode(text, "Paris").ids == theirs(text, "Paris")["input_ids"]

    roberta = architectures.make("roberta", tmp_path / "roberta")
    model = json.loads((roberta / "tokenizer.json").read_text())["model"]
    tiny.write_json(roberta / "vocab.json", model["vocab"])
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (roberta / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    (roberta / "tokenizer.json").unlink()
    tiny.write_json(roberta / "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer", "model_max_length": 96})
    mine = read(roberta).tokenizer()
    theirs = transformers.RobertaTokenizer.from_pretrained(roberta)
    for text in texts:
        assert mine.encode(text, "Paris").ids == theirs(text, "Paris")["input_ids"]


@pytest.mark.parametrize("place", ["tokenizer_config.json", "added_tokens.json"])
@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_tokens_added_to_vocabulary_files(name: str, place: str, tmp_path: Path) -> None:
    folder = architectures.make(name, tmp_path)
    settings: dict[str, Any] = {"tokenizer_class": f"{'Bert' if name == 'bert' else 'Roberta'}Tokenizer"}
    if name == "roberta":
        model = json.loads((folder / "tokenizer.json").read_text())["model"]
        tiny.write_json(folder / "vocab.json", model["vocab"])
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    tiny.write_json(folder / "tokenizer_config.json", settings)
    size = read(folder).tokenizer().get_vocab_size()
    added = {"covid19": size, "[NUM]": size + 1}
    config = json.loads((folder / "config.json").read_text())
    # As a model has rows for them.
    tiny.write_json(folder / "config.json", {**config, "vocab_size": size + len(added)})
    if place == "added_tokens.json":
        tiny.write_json(folder / place, added)
    else:
        flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": True, "special": False}
        decoder = {str(number): {"content": word, **flags} for word, number in added.items()}
        tiny.write_json(folder / place, {**settings, "added_tokens_decoder": decoder})
    mine, theirs = read(folder).tokenizer(), transformers.AutoTokenizer.from_pretrained(folder)
    for text in ("the covid19 a", "Covid19 [NUM]", "covid192 paris"):
        assert mine.encode(text, "covid19").ids == theirs(text, "covid19")["input_ids"]


@pytest.mark.parametrize(
    "stated",
    [
        {"do_lower_case": True},
        {"do_lower_case": False},
        {"strip_accents": False},
        {"strip_accents": None},
        {"tokenize_chinese_chars": False},
        {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False, "strip_accents": False},
    ],
    ids=str,
)
def test_what_is_stated_beside_a_tokenizer_json_of_bert(stated: dict[str, Any], tmp_path: Path) -> None:
    folder = architectures.make("bert", tmp_path)
    settings = {"tokenizer_class": "BertTokenizer", "model_max_length": 96, **stated}
    tiny.write_json(folder / "tokenizer_config.json", settings)
    theirs, mine = transformers.AutoTokenizer.from_pretrained(folder), read(folder).tokenizer()
    for text in ("Paris PARIS paris", "p\u00e0ris PAR\u00cdS", "a\u4e2da"):
        assert mine.encode(text).ids == theirs(text)["input_ids"]


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("named", ["RobertaTokenizer", "RobertaTokenizerFast", "PreTrainedTokenizerFast"])
def test_a_space_before_texts_that_is_stated_beside_a_tokenizer_json(named: str, stated: bool, tmp_path: Path) -> None:
    folder = architectures.make("roberta", tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    changes = {"tokenizer_class": named, "add_prefix_space": stated}
    tiny.write_json(folder / "tokenizer_config.json", {**settings, **changes})
    theirs, mine = transformers.AutoTokenizer.from_pretrained(folder), read(folder).tokenizer()
    assert mine.encode("paris", "the").ids == theirs("paris", "the")["input_ids"]


def test_a_decoder_that_could_score_no_list_is_refused(tmp_path: Path) -> None:
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=len(tiny.VOCABULARY), num_labels=1, max_position_embeddings=64, **size)
    transformers.LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    tiny.tokenizer(tmp_path)
    with pytest.raises(CheckpointError, match=r"names no padding token.*Add pad_token_id to its config.json"):
        backends.open(read(tmp_path), "torch", "cpu")
    stated = json.loads((tmp_path / "config.json").read_text())
    tiny.write_json(tmp_path / "config.json", {**stated, "pad_token_id": 0})
    tokens = tiny.random_tokens([3, 9, 9])
    got = backends.open(read(tmp_path), "torch", "cpu", "float32").forward(tokens)
    assert np.abs(got - logits_of(tmp_path, tokens)[:, 0]).max() < TOLERANCE


def stating(folder: Path, **changes: Any) -> Path:
    stated = json.loads((folder / "config.json").read_text())
    tiny.write_json(folder / "config.json", {**stated, **changes})
    return folder


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta"])
def test_a_config_without_a_padding_token_means_the_usual_one(name: str, tmp_path: Path) -> None:
    folder = architectures.make(name, tmp_path)
    tokens = some_tokens(read(folder))
    want = logits_of(folder, tokens)[:, 0]
    stating(folder, pad_token_id=None)
    for backend in BACKENDS:
        got = backends.open(read(folder), backend, "cpu", "float32").forward(tokens)
        assert np.abs(got - want).max() < TOLERANCE, backend
    for wrong in (-1, 10**6):
        stating(folder, pad_token_id=wrong)
        with pytest.raises(CheckpointError, match="which is no word of the model"):
            read(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pad_token_id": -1}, "pad_token_id = -1, which is no word of the model"),
        ({"pad_token_id": "x"}, "pad_token_id must be a whole number, not 'x'"),
        ({"num_attention_heads": -1}, "-1 attention heads"),
        ({"vocab_size": 400_000_000}, r"of two models .*word_embeddings.weight has \[\d+, 32\] numbers"),
        ({"num_hidden_layers": 30_000_000}, r"of two models \(30000000 layers are stated"),
    ],
)
def test_what_would_fail_at_the_first_text_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = stating(architectures.make("bert", tmp_path), **changes)
    with pytest.raises(CheckpointError, match=said):
        backends.open(read(folder), "torch", "cpu")


def test_bfloat16_rounds_weights_and_no_angles(tmp_path: Path) -> None:
    """`model.to(bfloat16)` rounded the angles of rotary positions, so that long texts got other scores."""
    folder = architectures.make("modernbert", tmp_path, max_position_embeddings=1024)
    backend = backends.open(read(folder), "torch", "cpu", "bfloat16")
    assert isinstance(backend, Torch)
    model = backend._model
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    angles = [buffer.dtype for name, buffer in model.named_buffers() if "inv_freq" in name]
    assert angles
    assert set(angles) == {torch.float32}


def test_a_config_without_a_padding_token_means_that_of_the_class(tmp_path: Path) -> None:
    """OPT's is 1; with 0 a text in a batch had another score than alone."""
    size = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.OPTConfig(vocab_size=len(tiny.VOCABULARY), num_labels=1, max_position_embeddings=64, **size)
    transformers.OPTForSequenceClassification(config).save_pretrained(tmp_path)
    tiny.tokenizer(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text())
    stated.pop("pad_token_id", None)
    tiny.write_json(tmp_path / "config.json", {**stated, "word_embed_proj_dim": 32})
    tokens = tiny.random_tokens([3, 9, 12])
    got = backends.open(read(tmp_path), "torch", "cpu", "float32").forward(tokens)
    assert np.abs(got - logits_of(tmp_path, tokens)[:, 0]).max() < TOLERANCE


@pytest.mark.parametrize("name", ["longformer", "ibert", "luke"])
def test_positions_counted_from_the_padding_token(name: str) -> None:
    """Their tables have rows that no sequence reaches."""
    assert settings.positions({"max_position_embeddings": 66, "pad_token_id": 1}, name, "here") == 64


@pytest.mark.parametrize(
    "stated",
    [
        {"tokenizer_class": "BertJapaneseTokenizer", "subword_tokenizer_type": "character"},
        {"word_tokenizer_type": "mecab"},
        {"tokenizer_class": "MPNetTokenizer"},
        {"do_basic_tokenize": False},
    ],
    ids=str,
)
def test_vocabulary_files_of_another_tokenizer_are_refused(stated: dict[str, Any], tmp_path: Path) -> None:
    """Words were cut as BERT's, and scores wrong without a word."""
    folder = architectures.make("bert", tmp_path)
    (folder / "tokenizer.json").unlink()
    tiny.write_json(folder / "tokenizer_config.json", {"model_max_length": 96, **stated})
    with pytest.raises(CheckpointError, match=r"scores would be wrong.*save_pretrained"):
        read(folder).tokenizer()
