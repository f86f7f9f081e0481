"""What stands around the two texts of a pair: special tokens, and prompts that are cut where no token joins them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from crossrank import template
from crossrank.checkpoint import PairPrompt
from crossrank.errors import CheckpointError
from crossrank.template import PLAIN, Around, Template, of_prompt

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
SPECIAL = "<|end|>"
# Pairs that the tokenizer joins over the borders of texts: words behind a space or another word, marks, ends of lines.
JOINED = ["Ġ w", "Ġ a", "? Ċ", ". Ċ", "Ċ Ċ", "w o", "r d", "wo rd", "i n", "in g", "word ing", "Ġ b", ": Ġ"]


def tokenizer(split: bool = True) -> Tokenizer:
    """Bytes and some pairs of them; joined within words, or wherever they stand side by side."""
    words = [*BYTES, *(pair.replace(" ", "") for pair in JOINED)]
    merges = [(one, two) for one, two in map(str.split, JOINED)]
    made = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split)
    made.add_special_tokens([SPECIAL])
    made.encode_special_tokens = True
    return made


def whole(made: Tokenizer, text: str) -> list[int]:
    """The ids of a prompt with its texts, special tokens of the prompt among them."""
    made.encode_special_tokens = False
    ids: list[int] = made.encode(text, add_special_tokens=False).ids
    made.encode_special_tokens = True
    return ids


def parts(made: Tokenizer, prompt: PairPrompt, query: str, document: str) -> list[int]:
    """The ids as crossrank puts them together."""
    frame, one, two = of_prompt(made, prompt)

    def ids(text: str) -> list[int]:
        found: list[int] = made.encode(text, add_special_tokens=False).ids
        return found

    return [*frame.before, *ids(one.of(query)), *frame.between, *ids(two.of(document)), *frame.after]


PROMPTS = [
    PairPrompt(f"{SPECIAL}q: ", "\nd: ", f"\n{SPECIAL}"),
    PairPrompt(f"{SPECIAL}q:", f"{SPECIAL}d:", SPECIAL),
    PairPrompt("Is it? q:\n\n", "\n\nd:\n\n", "\n\nSay yes or no."),
    PairPrompt("q: ", "\nd: ", f" {SPECIAL}", True, False),
    PairPrompt("q: ", "\n\nd: ", "\nyes?", False, True),
    PairPrompt(f"{SPECIAL} ", " | ", f" {SPECIAL}", True, True),
    PairPrompt("", SPECIAL, ""),
]
TEXTS = st.text(st.sampled_from("word ab?.:\n7é\u4e2d"), min_size=1).filter(str.strip)


@given(st.sampled_from(PROMPTS), TEXTS, TEXTS)
def test_pieces_give_the_ids_of_the_whole(prompt: PairPrompt, query: str, document: str) -> None:
    made = tokenizer()
    assert parts(made, prompt, query, document) == whole(made, prompt.of(query, document))


def test_a_prompt_has_one_type_of_token_and_says_how_much_it_takes() -> None:
    made = tokenizer(split=False)
    frame, one, two = of_prompt(made, PairPrompt(f"{SPECIAL}q: ", "\nd:", f".\n{SPECIAL}"))
    assert frame.types == (0,) * 5
    assert frame.specials == len(frame.before) + len(frame.between) + len(frame.after)
    for around in (one, two):
        assert around.lead_ids == tuple(made.encode(around.lead, add_special_tokens=False).ids)
        assert around.tail_ids == tuple(made.encode(around.tail, add_special_tokens=False).ids)
        assert around.tokens == len(around.lead_ids) + len(around.tail_ids)
    assert (one.lead, one.tail) == (": ", "\n"), "a word may take the space from the mark, and a mark the end of line"


def test_a_special_token_in_a_prompt_is_one_and_in_a_text_is_none() -> None:
    made = tokenizer()
    special = made.token_to_id(SPECIAL)
    ids = parts(made, PROMPTS[0], f"a {SPECIAL}", f"b {SPECIAL}")
    assert ids.count(special) == 2
    assert made.encode_special_tokens, "as it was"


def test_a_text_keeps_its_white_space_unless_the_prompt_leaves_it_out() -> None:
    for text in (" word\n", "  ", ""):
        assert PLAIN.of(text) == text
    assert Around(" ", "?").of(" word\n") == "  word\n?"
    assert Around(" ", "?", bare=True).of(" word\n") == " word?"
    for bare in (True, False):
        assert Around(" ", "?", bare).of(" \n") == "", "a blank text has no token"


def test_a_tokenizer_that_puts_the_passage_first_is_refused() -> None:
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "[SEP]": 1, "a": 2, "b": 3}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    for pair, fine in (("$A [SEP] $B", True), ("$B [SEP] $A", False), ("$A $B", False)):
        made.post_processor = processors.TemplateProcessing("$A", pair, [("[SEP]", 1)])
        if fine:
            assert Template.of(made) == Template((), (1,), (), (0, 0, 0, 0, 0))
            continue
        with pytest.raises(CheckpointError, match="does not mark pairs with special tokens, the first text first"):
            Template.of(made)


def test_texts_that_a_tokenizer_joins_with_each_other_are_refused() -> None:
    made = tokenizer(split=False)
    with pytest.raises(CheckpointError, match=r"joins the model's prompt with the texts in it near '.*' and '"):
        of_prompt(made, PairPrompt(SPECIAL, "", SPECIAL))
    assert made.encode_special_tokens, "as it was"


@pytest.mark.parametrize(
    ("prompt", "farthest"),
    [
        (PairPrompt(f"{SPECIAL}word", SPECIAL, SPECIAL), 4),
        (PairPrompt(SPECIAL, f"{SPECIAL}word", SPECIAL), 4),
        (PairPrompt(SPECIAL, f"\n\n\n\n\n{SPECIAL}", SPECIAL), 5),
        (PairPrompt(SPECIAL, SPECIAL, f"\n\n\n\n\n{SPECIAL}"), 5),
    ],
)
def test_a_prompt_is_looked_at_so_far_and_no_farther(
    prompt: PairPrompt, farthest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The word is one with a text "ing", and line ends are joined in twos from the first, which may be a text's."""
    made = tokenizer(split=False)
    monkeypatch.setattr(template, "FARTHEST", farthest)
    for query, document in (("ing", "ing"), ("\na\n", "\nb\n")):
        assert parts(made, prompt, query, document) == whole(made, prompt.of(query, document))
    monkeypatch.setattr(template, "FARTHEST", farthest - 1)
    with pytest.raises(CheckpointError, match=rf"near '(\w{{{farthest - 1}}}|(\\n){{4}})', so that crossrank cannot"):
        of_prompt(made, prompt)


def test_64_characters_of_a_prompt_may_hang_together_with_a_text() -> None:
    made = tokenizer(split=False)
    for size in (64, 65):
        prompt = PairPrompt(SPECIAL, "\n" * size + SPECIAL, SPECIAL)
        if size == 64:
            assert parts(made, prompt, "a\n", "b") == whole(made, prompt.of("a\n", "b"))
            continue
        with pytest.raises(CheckpointError, match=r"near '(\\n){64}', so"):
            of_prompt(made, prompt)


@pytest.mark.parametrize("bare", [(False, False), (True, False), (False, True), (True, True)])
def test_what_only_white_space_joins_is_apart_where_there_is_none(bare: tuple[bool, bool]) -> None:
    made = tokenizer(split=False)
    prompt = PairPrompt(SPECIAL, f"w{SPECIAL}", f"w{SPECIAL}", *bare)
    assert parts(made, prompt, "a ", "b ") == whole(made, prompt.of("a ", "b "))
    _, one, two = of_prompt(made, prompt)
    assert (one.tail, two.tail) == tuple("" if each else "w" for each in bare)
