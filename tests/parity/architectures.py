"""Tiny random checkpoints of every architecture, made by transformers itself, with real tokenizers. Needs torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

import tiny

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
transformers = pytest.importorskip("transformers", reason="the extra torch is not installed")

# transformers knows GTE from 5.20 on.
GTE = "gte" in transformers.CONFIG_MAPPING
NAMES = ("bert", "electra", "roberta", "xlm-roberta", "modernbert", *(["gte"] if GTE else []))
TEXTS = [
    "Paris is the capital of France.",
    "Bread needs yeast, water and time to rise.",
    "Jupiter is the largest planet of the solar system, Mercury the smallest.",
    "What is the capital of France?",
]
POSITIONS = 96
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "max_position_embeddings": POSITIONS,
}


def make(name: str, folder: Path, labels: int = 1, **changes: Any) -> Path:
    """A cross-encoder of architecture `name`, or its bare encoder when `labels` is 0. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    size = (_wordpiece if name in ("bert", "electra") else _subwords)(name, folder)
    config = _config(name, {**SMALL, "vocab_size": size, **({"num_labels": labels} if labels else {}), **changes})
    auto = transformers.AutoModelForSequenceClassification if labels else transformers.AutoModel
    torch.manual_seed(7)
    model = auto.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():  # the library's own start gives scores that hardly differ
            weight.add_(torch.randn_like(weight) * 0.15)
    model.save_pretrained(folder)
    return folder


def _config(name: str, settings: dict[str, Any]) -> Any:
    if name in ("bert", "electra"):
        wide = {"embedding_size": 24} if name == "electra" else {}
        return transformers.AutoConfig.for_model(name, pad_token_id=0, **wide, **settings)
    if name == "modernbert":
        # Windows of 16 tokens and a full layer every second one, so that local attention matters in short sequences.
        extra = {"local_attention": 16, "global_attn_every_n_layers": 2}
        ids = {"pad_token_id": 1, "cls_token_id": 0, "sep_token_id": 2, "bos_token_id": 0, "eos_token_id": 2}
        return transformers.AutoConfig.for_model(name, **ids, **{**extra, **settings})
    if name == "gte":
        return transformers.AutoConfig.for_model(name, pad_token_id=1, **settings)
    settings = {**settings, "max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1}
    return transformers.AutoConfig.for_model(name, pad_token_id=1, bos_token_id=0, eos_token_id=2, **settings)


def _wordpiece(name: str, folder: Path) -> int:
    tiny.tokenizer(folder)
    words = {word: i for i, word in enumerate(tiny.VOCABULARY)}
    made = tokenizers.Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])],
    )
    made.add_special_tokens(tiny.SPECIALS)
    made.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": f"{name.title()}Tokenizer", "do_lower_case": True, "model_max_length": POSITIONS}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(words)


def _subwords(name: str, folder: Path) -> int:
    """Byte pairs for RoBERTa and ModernBERT, unigrams for XLM-R and GTE, with RoBERTa's special tokens."""
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if name in ("xlm-roberta", "gte"):
        made = tokenizers.Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer: Any = trainers.UnigramTrainer(
            vocab_size=120, special_tokens=specials, unk_token="<unk>", show_progress=False
        )
    else:
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=320, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
        )
    made.train_from_iterator(TEXTS, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    made.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": POSITIONS,
        "model_input_names": ["input_ids", "attention_mask"],
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return int(made.get_vocab_size())
