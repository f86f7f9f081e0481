"""Late interaction against transformers and sentence-transformers, on tiny random checkpoints of both layouts."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import crossrank
import tiny
from crossrank.backends import cpu

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

QUERIES = [
    "what is the capital of france?",
    "bread",
    "is the cat a planet - or a cat of paris, in the capital of france",
]
DOCUMENTS = [
    "Paris is the capital of France.",
    "the yeast (in bread): what is bread?!",
    "cat",
    "a planet, " * 30,
]
PAIRS = [(query, document) for query in QUERIES for document in DOCUMENTS]
BACKENDS = ["reference", "torch", *(f"cpu:{tier}" for tier in cpu.tiers())]
SETTINGS = {
    "expanded": {},
    "attended": {"attend_to_expansion_tokens": True},
    "plain": {"do_query_expansion": False},
    "unskipped": {"skiplist_words": []},
    "unmarked": {"query_prefix": "", "document_prefix": ""},
    # The query's has the marker in it, as sentence-transformers saves them.
    "prompted": {"prompts": {"query": "[unused0]what is a ", "document": "the bread: "}},
}


def transcribed(folder: Path, layout: str, settings: dict[str, object]) -> list[float]:
    """Scores by transformers' BERT and torch alone, a pair at a time, as the authors' code computes them."""
    expand, attend = settings.get("do_query_expansion", True), settings.get("attend_to_expansion_tokens", False)
    words, marks = settings.get("skiplist_words", list(string.punctuation)), ["[unused0]", "[unused1]"]
    marks = [settings.get(f"{side}_prefix", mark) for side, mark in zip(("query", "document"), marks, strict=True)]
    prompts = settings.get("prompts", {})
    prompts = [
        prompts.get(side, "").removeprefix(mark) for side, mark in zip(("query", "document"), marks, strict=True)
    ]
    bert = transformers.BertModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    number = tokenizer.convert_tokens_to_ids
    parts = load_file(folder / "1_Dense" / "model.safetensors" if layout == "pylate" else folder / "model.safetensors")
    weight, bias = torch.from_numpy(parts["linear.weight"]), torch.from_numpy(parts.get("linear.bias", np.zeros(8)))

    def vectors(text: str, mark: str, length: int, query: bool) -> torch.Tensor:
        ids = tokenizer(text, truncation=True, max_length=length - bool(mark))["input_ids"]
        ids = [ids[0], *([number(mark)] if mark else []), *ids[1:]]
        real = len(ids)
        if query and expand:
            ids += [number("[MASK]")] * (length - real)
        mask = [1] * real + [int(attend)] * (len(ids) - real)
        with torch.no_grad():
            states = bert(torch.tensor([ids]), attention_mask=torch.tensor([mask])).last_hidden_state[0]
        unit = torch.nn.functional.normalize(states @ weight.T + bias.float(), dim=1)
        skipped = set() if query else {number(word) for word in words} - {tokenizer.unk_token_id}
        return unit[[i for i, id_ in enumerate(ids) if id_ not in skipped]]

    asked = {text: vectors(prompts[0] + text, marks[0], 12, True) for text in QUERIES}
    read = {text: vectors(prompts[1] + text, marks[1], 24, False) for text in DOCUMENTS}
    return [float((asked[query] @ read[document].T).max(1).values.sum()) for query, document in PAIRS]


def made(folder: Path, layout: str, settings: dict[str, object]) -> Path:
    return tiny.late(folder, layout, bias=layout == "pylate", **settings)


@pytest.mark.parametrize(("layout", "name"), [("colbert", "expanded"), *(("pylate", name) for name in SETTINGS)])
def test_every_backend_scores_as_the_authors_code(tmp_path, layout, name):
    folder = made(tmp_path, layout, SETTINGS[name])
    expected = transcribed(folder, layout, SETTINGS[name])
    for backend in BACKENDS:
        scorer = crossrank.load_late(folder, backend=backend, dtype="float32")
        np.testing.assert_allclose(scorer.score(PAIRS), expected, atol=2e-4, err_msg=backend)


def test_attention_to_the_masks_and_prompts_matter(tmp_path):
    """Else the test above would hold for a backend that takes no notice of it."""
    scores = [
        crossrank.load_late(made(tmp_path / name, "pylate", SETTINGS[name]), dtype="float32").score(PAIRS)
        for name in ("expanded", "attended", "plain", "prompted")
    ]
    for one, other in ((0, 1), (0, 2), (1, 2), (0, 3)):
        assert np.abs(scores[one] - scores[other]).max() > 1e-2


@pytest.mark.parametrize(("layout", "name"), [("pylate", "expanded"), ("pylate", "prompted"), ("colbert", "expanded")])
def test_sentence_transformers_scores_alike(tmp_path, layout, name):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    if not hasattr(sentence_transformers, "MultiVectorEncoder"):
        pytest.skip("sentence-transformers before 6 has no late interaction")
    folder = made(tmp_path, layout, SETTINGS[name])
    theirs = sentence_transformers.MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)
    asked, read = theirs.encode_query(QUERIES), theirs.encode_document(DOCUMENTS)
    expected = [[float((q @ d.T).max(1).sum()) for d in map(np.asarray, read)] for q in map(np.asarray, asked)]
    scorer = crossrank.load_late(folder, dtype="float32")
    np.testing.assert_allclose(scorer.score(PAIRS), np.ravel(expected), atol=2e-4)
