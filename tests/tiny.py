"""Tiny random checkpoints, made with NumPy alone, for tests that must run without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from crossrank.types import Tokens

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MARKS = ["[unused0]", "[unused1]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!-"
WORDS = ["the", "what", "is", "a", "of", "in", "capital", "france", "paris", "bread", "yeast", "cat", "planet", "##s"]
VOCABULARY = list(dict.fromkeys([*SPECIALS, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS]))

CONFIG: dict[str, Any] = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "vocab_size": len(VOCABULARY),
    "pad_token_id": 0,
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
}


MODERN: dict[str, Any] = {
    "architectures": ["ModernBertForSequenceClassification"],
    "model_type": "modernbert",
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "global_attn_every_n_layers": 2,
    "local_attention": 128,
    "max_position_embeddings": 8192,
    "vocab_size": len(VOCABULARY),
    "pad_token_id": 0,
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
}


def weights(
    config: dict[str, Any], labels: int, prefix: str = "bert.", seed: int = 0
) -> dict[str, NDArray[np.float32]]:
    """BERT weights of the shapes that `config` asks for, large enough for scores to differ."""
    rng = np.random.default_rng(seed)
    h, inner = config["hidden_size"], config["intermediate_size"]
    made: dict[str, NDArray[np.float32]] = {}

    def table(name: str, *shape: int) -> None:
        made[name] = (rng.standard_normal(shape) * 0.3).astype(np.float32)

    def linear(name: str, rows: int, columns: int) -> None:
        table(f"{name}.weight", rows, columns)
        table(f"{name}.bias", rows)

    def norm(name: str) -> None:
        made[f"{name}.weight"] = (1 + 0.1 * rng.standard_normal(h)).astype(np.float32)
        table(f"{name}.bias", h)

    table(f"{prefix}embeddings.word_embeddings.weight", config["vocab_size"], h)
    table(f"{prefix}embeddings.position_embeddings.weight", config["max_position_embeddings"], h)
    table(f"{prefix}embeddings.token_type_embeddings.weight", config["type_vocab_size"], h)
    norm(f"{prefix}embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        at = f"{prefix}encoder.layer.{i}"
        for part in ("query", "key", "value"):
            linear(f"{at}.attention.self.{part}", h, h)
        linear(f"{at}.attention.output.dense", h, h)
        norm(f"{at}.attention.output.LayerNorm")
        linear(f"{at}.intermediate.dense", inner, h)
        linear(f"{at}.output.dense", h, inner)
        norm(f"{at}.output.LayerNorm")
    if labels:
        linear(f"{prefix}pooler.dense", h, h)
        linear("classifier", labels, h)
    return made


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def cross_encoder(folder: Path, labels: int = 1, **changes: Any) -> Path:
    """A BERT cross-encoder; `changes` go into config.json. Returns the folder."""
    names = {str(i): f"LABEL_{i}" for i in range(labels)}
    config = {**CONFIG, "id2label": names, "label2id": {name: int(i) for i, name in names.items()}, **changes}
    write_json(folder / "config.json", config)
    tokenizer(folder)
    save_file(weights({**CONFIG, **changes}, labels), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def bi_encoder(folder: Path, pooling: str = "mean", normalize: bool = True, prefix: str = "") -> Path:
    """A BERT bi-encoder in sentence-transformers layout. Returns the folder."""
    config = {key: value for key, value in CONFIG.items() if key not in ("id2label", "label2id")}
    write_json(folder / "config.json", {**config, "architectures": ["BertModel"]})
    tokenizer(folder)
    save_file(weights(CONFIG, 0, prefix), folder / "model.safetensors", metadata={"format": "pt"})
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), *([("Normalize", "2_Normalize")] if normalize else [])]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", listed)
    ways = {f"pooling_mode_{way}": way.startswith(pooling) for way in ("cls_token", "mean_tokens", "max_tokens")}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": CONFIG["hidden_size"], **ways})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": False})
    return folder


def modern(folder: Path, **changes: Any) -> Path:
    """A ModernBERT cross-encoder with local attention in every second layer. Returns the folder."""
    config = {**MODERN, **changes}
    write_json(folder / "config.json", config)
    tokenizer(folder)
    rng = np.random.default_rng(0)
    h, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {"model.embeddings.tok_embeddings": (config["vocab_size"], h), "model.embeddings.norm": (h,)}
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        shapes |= {f"{at}.attn_norm": (h,)} if i else {}
        shapes |= {f"{at}.attn.Wqkv": (3 * h, h), f"{at}.attn.Wo": (h, h), f"{at}.mlp_norm": (h,)}
        shapes |= {f"{at}.mlp.Wi": (2 * inner, h), f"{at}.mlp.Wo": (h, inner)}
    shapes |= {"model.final_norm": (h,), "head.dense": (h, h), "head.norm": (h,), "classifier": (1, h)}
    made = {f"{name}.weight": (rng.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in shapes.items()}
    save_file(
        {**made, "classifier.bias": np.zeros(1, np.float32)}, folder / "model.safetensors", metadata={"format": "pt"}
    )
    return folder


def late(folder: Path, layout: str = "pylate", width: int = 8, bias: bool = False, **stated: Any) -> Path:
    """A late-interaction model over BERT in the layout of "pylate" or "colbert"; `stated` goes into its settings."""
    config = {key: value for key, value in CONFIG.items() if key not in ("id2label", "label2id")}
    config["vocab_size"] += len(MARKS)
    tokenizer(folder, MARKS)
    rng = np.random.default_rng(1)
    parts = {"linear.weight": rng.standard_normal((width, CONFIG["hidden_size"])).astype(np.float32)}
    if bias:
        parts["linear.bias"] = rng.standard_normal(width).astype(np.float32)
    if layout == "colbert":
        write_json(folder / "config.json", {**config, "architectures": ["HF_ColBERT"]})
        save_file({**weights(config, 0), **parts}, folder / "model.safetensors", metadata={"format": "pt"})
        marks = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]"}
        write_json(folder / "artifact.metadata", {**marks, "query_maxlen": 12, "doc_maxlen": 24, **stated})
        return folder
    write_json(folder / "config.json", {**config, "architectures": ["BertModel"]})
    save_file(weights(config, 0, ""), folder / "model.safetensors", metadata={"format": "pt"})
    listed = [("", "sentence_transformers.models.Transformer"), ("1_Dense", "pylate.models.Dense.Dense")]
    modules = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(listed)]
    write_json(folder / "modules.json", modules)
    dense = {"in_features": CONFIG["hidden_size"], "out_features": width, "bias": bias}
    write_json(folder / "1_Dense" / "config.json", {**dense, "activation_function": "torch.nn.modules.linear.Identity"})
    save_file(parts, folder / "1_Dense" / "model.safetensors", metadata={"format": "pt"})
    marks = {"query_prefix": "[unused0]", "document_prefix": "[unused1]"}
    settings = {"model_type": "ColBERT", **marks, "query_length": 12, "document_length": 24, **stated}
    write_json(folder / "config_sentence_transformers.json", settings)
    # What PyLate leaves here is the length of whatever was encoded last; it means nothing.
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 11, "do_lower_case": False})
    return folder


def tokenizer(folder: Path, more: Sequence[str] = ()) -> None:
    """A lower-casing WordPiece vocabulary of letters and a few words, and `more`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*VOCABULARY, *more]) + "\n", encoding="utf-8")
    stated = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 60}
    write_json(folder / "tokenizer_config.json", stated)


def random_tokens(lengths: list[int], vocabulary: int = len(VOCABULARY), seed: int = 0, types: int = 2) -> Tokens:
    """Sequences of the given lengths of random ids, the second half of each with the last token type."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(5, vocabulary, length).tolist() for length in lengths]
    kinds = [[0] * (length - length // 2) + [types - 1] * (length // 2) for length in lengths]
    return Tokens.of(rows, kinds)
