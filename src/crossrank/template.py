"""What a model reads around the two texts of a pair: special tokens, or the prompt of a language model.

The special tokens (`[CLS] query [SEP] passage [SEP]` for BERT, `<s> query </s></s> passage </s>` for RoBERTa) are read
off the checkpoint's own tokenizer by encoding a probe pair, so no table of model families is needed here. A prompt is
cut where its tokenizer never joins it with a text, so that pieces that are tokenized apart give the ids of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from crossrank.checkpoint import PairPrompt
from crossrank.errors import CheckpointError, InputError


@dataclass(frozen=True, slots=True)
class Template:
    """Special tokens around a pair, with their token types: `before query between passage after`."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    types: tuple[int, int, int, int, int]

    @property
    def specials(self) -> int:
        """Special tokens in one sequence."""
        return len(self.before) + len(self.between) + len(self.after)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Template:
        """Read the template off a tokenizer.

        Raises:
            CheckpointError: the tokenizer does not put special tokens around a pair.
        """
        probe = tokenizer.encode("a", "b")
        sides = list(probe.sequence_ids)
        if 0 not in sides or 1 not in sides or None not in sides or sides.index(1) < sides.index(0):
            raise CheckpointError(
                "the tokenizer does not mark pairs with special tokens, the first text first (it has no post-processor "
                "for pairs, or another), so query and passage cannot be told apart. Save the tokenizer again with "
                "sentence-transformers or transformers."
            )
        q0, q1 = sides.index(0), len(sides) - sides[::-1].index(0)
        p0, p1 = sides.index(1), len(sides) - sides[::-1].index(1)
        ids, types = probe.ids, probe.type_ids
        # The last special token of each part has the type of the part (BERT's [SEP] belongs to what it ends).
        return cls(
            tuple(ids[:q0]),
            tuple(ids[q1:p0]),
            tuple(ids[p1:]),
            (types[0], types[q0], types[q1] if p0 > q1 else types[q0], types[p0], types[-1]),
        )


@dataclass(frozen=True, slots=True)
class Around:
    """What of a prompt is tokenized with a text, since the tokenizer may join the two: " word" is one token for many.

    Attributes:
        lead: in front of the text.
        tail: behind it.
        bare: whether white space around the text is left out.
        lead_ids: tokens of `lead` by itself, for a part of a text that is not its beginning.
        tail_ids: tokens of `tail` by itself, for a part that is not the end.
    """

    lead: str = ""
    tail: str = ""
    bare: bool = False
    lead_ids: tuple[int, ...] = ()
    tail_ids: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens that it adds to a text, at the most."""
        return len(self.lead_ids) + len(self.tail_ids)

    def of(self, text: str) -> str:
        """The text with what belongs to it; a blank one stays without, so that it has no token.

        >>> Around(" ", bare=True).of("word ")
        ' word'
        """
        if self == PLAIN:
            return text
        bare = text.strip()
        return f"{self.lead}{bare if self.bare else text}{self.tail}" if bare else ""


PLAIN = Around()
# Beginnings and ends of texts, by which tokenizers tell where a word ends.
PROBES = (
    *("word", "Word two", "7", "12 a", "?", "a?", "a.", "a:", "a;", "a,", "(a)", '"a"', "'s", "-", "--", "<a>", "$5"),
    *("_a", "a_", "#", "*", "a\nb", "…", "ing", "A", "`a`", "/a/b", "5%", "é", "ab\u0301", "中文", "あ", "ا", "\ue000"),
    "\U0001f642",
)
# Where white space stays.
LOOSE = (" a", "a ", "\na", "a\n", "a.\n", "  a", "a  ", "\ta", "a\t", "a\n\n", "\n\na", "\r\na", "a\r\n")
# Characters of a prompt that are tokenized with a text, at the most.
FARTHEST = 64


def of_prompt(tokenizer: Tokenizer, prompt: PairPrompt) -> tuple[Template, Around, Around]:
    """The tokens around a pair, and what is tokenized with the query and with the passage.

    Args:
        tokenizer: of the checkpoint. Special tokens written in a prompt are special tokens; written in a text they are
            not, as elsewhere.
        prompt: the text around a pair.

    Raises:
        CheckpointError: no cut of the prompt gives the tokens of the whole.

    Source: transformers tokenizes the whole string that a chat template gives. Here passages are tokenized once for
    all queries, and cut into windows.
    """

    def ids(text: str, special: bool = True) -> list[int]:
        tokenizer.encode_special_tokens = not special
        found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return found

    before, between, after = prompt.before, prompt.between, prompt.after
    queries, passages = ((*PROBES, *(() if bare else LOOSE)) for bare in (prompt.bare_query, prompt.bare_document))

    def around(lead: str, tail: str, bare: bool) -> Around:
        return Around(lead, tail, bare, tuple(ids(lead, False)), tuple(ids(tail, False)))

    try:
        one, tail = _cut_end(before, queries, ids), _cut_start(between, queries, ids)
        lead, two = _cut_end(between[tail:], passages, ids), _cut_start(after, passages, ids)
        query = around(before[len(before) - one :], between[:tail], prompt.bare_query)
        passage = around(between[len(between) - lead :], after[:two], prompt.bare_document)
        middle = between[tail : len(between) - lead]
        made = Template(tuple(ids(before[: len(before) - one])), tuple(ids(middle)), tuple(ids(after[two:])), (0,) * 5)
        # Each probe beside some others: whatever was taken for granted shows here.
        pairs = [(a, passages[(5 * i + j) % len(passages)]) for i, a in enumerate(queries) for j in range(5)]
        for a, b in pairs:
            parts = [*made.before, *ids(query.of(a), False), *made.between, *ids(passage.of(b), False), *made.after]
            if ids(prompt.of(a, b)) != parts:
                raise CheckpointError(_uncut(f"{a!r} and {b!r}"))
    finally:
        tokenizer.encode_special_tokens = True
    return made, query, passage


def crowded(tokenizer: Tokenizer, most: int, least: int, instruction: str | None) -> CheckpointError | InputError:
    """The error of sequences of `most` tokens where `least` are needed; an instruction that is at fault is named."""
    tokens = len(tokenizer.encode(instruction or "", add_special_tokens=False).ids)
    if tokens > least - most:
        return InputError(
            f"the instruction {instruction!r:.60} has {tokens:,} tokens, at least {least - most:,} more than sequences "
            f"of {most:,} have room for beside a query and a passage: shorten it"
        )
    return CheckpointError(f"a maximum length of {most} leaves no room for a query and a passage; the least is {least}")


def _cut_end(text: str, probes: Sequence[str], ids: Callable[[str], list[int]]) -> int:
    """How many characters of a text's end have to be tokenized with what follows."""
    wholes = [ids(text + probe) for probe in probes]
    for size in range(min(len(text), FARTHEST) + 1):
        first, rest = ids(text[: len(text) - size]), text[len(text) - size :]
        if all(first + ids(rest + probe) == whole for probe, whole in zip(probes, wholes, strict=True)):
            return size
    raise CheckpointError(_uncut(repr(text[-FARTHEST:])))


def _cut_start(text: str, probes: Sequence[str], ids: Callable[[str], list[int]]) -> int:
    """How many characters of a text's beginning have to be tokenized with what stands before."""
    wholes = [ids(probe + text) for probe in probes]
    for size in range(min(len(text), FARTHEST) + 1):
        first, rest = text[:size], ids(text[size:])
        if all(ids(probe + first) + rest == whole for probe, whole in zip(probes, wholes, strict=True)):
            return size
    raise CheckpointError(_uncut(repr(text[:FARTHEST])))


def _uncut(what: str) -> str:
    return (
        f"the tokenizer joins the model's prompt with the texts in it near {what}, so that crossrank cannot tokenize "
        "them apart. Use the model through sentence-transformers, or choose another."
    )
