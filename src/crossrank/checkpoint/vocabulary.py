"""Tokenizers from a model folder: tokenizer.json, else the vocabulary files of BERT and RoBERTa."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from crossrank.checkpoint import growth
from crossrank.checkpoint.settings import bounded, load_json, optional_json
from crossrank.errors import CheckpointError

# Bytes of a tokenizer.json, of which real ones have up to 35 million; bytes and lines of a file of words or merges.
MAX_FILE, MAX_LIST, MAX_LINES = 64_000_000, 16_000_000, 1_000_000
WORDPIECE = frozenset({"bert", "electra", "distilbert", "mobilebert"})
BYTE_PAIRS = frozenset({"roberta"})
# Of the tokenizers whose vocabulary files are read here; others, such as that of Japanese BERTs, cut words otherwise.
SLOW = frozenset({"bert", "electra", "distilbert", "mobilebert", "roberta", "pretrained", "tokenizersbackend"})
# Special tokens of folders without tokenizer.json whose settings name no others.
BRACKETED = {"cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]"}
ANGLED = {"cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
# transformers takes everything from tokenizer.json for these; other classes follow their settings.
GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
FOLLOWED = ("add_prefix_space", "do_lower_case", "strip_accents", "tokenize_chinese_chars")


def files(folder: Path) -> list[Path]:
    """The tokenizer's files, in name order."""
    if (folder / "tokenizer.json").is_file():
        return [folder / "tokenizer.json"]
    names = ("added_tokens.json", "merges.txt", "vocab.json", "vocab.txt")
    return [folder / name for name in names if (folder / name).is_file()]


def traits(folder: Path, place: Path, architecture: str) -> list[Any]:
    """The settings outside the tokenizer's files that change what it gives. What most leave out is not in the list."""
    settings = optional_json(place / "tokenizer_config.json")
    stated = [settings.get(key) for key in FOLLOWED]
    found = [*stated, optional_json(folder / "sentence_bert_config.json").get("do_lower_case")]
    if (place / "tokenizer.json").is_file():
        unread = settings.get("tokenizer_class") in GENERIC and stated.count(None) < len(stated)
        return [*found, *(["generic"] if unread else [])]
    names, added = _names(settings, architecture), settings.get("added_tokens_decoder")
    others = names if names != _names({}, architecture) else None
    return [*found, *([added] if added else []), *([others] if others else [])]


def tokenizer(folder: Path, architecture: str) -> Tokenizer:
    """A fresh tokenizer without truncation and padding, changed as the folder's settings say.

    Where `encode_special_tokens` is set, no text gives a special token; see `plain`.

    Raises:
        CheckpointError: no tokenizer that can be read, a damaged one, or one that could make texts many times as long.
    """
    settings = optional_json(folder / "tokenizer_config.json")
    present = {path.name: path for path in files(folder)}
    for path in present.values():
        _check_list(path)
    try:
        with guarded(f"the tokenizer of {folder}"):
            made = _made(folder, present, settings, architecture)
            _lower_case(made, folder)
            _unforgeable(made)
            # A hieroglyph: without a token for what is unknown, this fails, and not some text later.
            made.encode("\U00013000")
    except CheckpointError:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception for a damaged file
        raise CheckpointError(f"the tokenizer in {folder} is damaged ({error}). Download or copy it again.") from error
    return made


@contextmanager
def guarded(what: str = "the tokenizer") -> Iterator[None]:
    """For whatever a tokenizer runs in: where the library's own code stops, it raises what no `except Exception` sees.

    Args:
        what: cannot read a text, for the message.

    Raises:
        CheckpointError: in the place of such a panic.
    """
    try:
        yield
    except BaseException as error:
        # The library does not export its class.
        if type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(f"{what} cannot read a text ({error!s:.200}). {growth.CURE}") from error


def _made(folder: Path, present: dict[str, Path], settings: dict[str, Any], architecture: str) -> Tokenizer:
    """A tokenizer of the files that are there, without truncation and padding."""
    if "tokenizer.json" in present:
        made = _whole(present["tokenizer.json"])
        _follow(made, settings)
    elif "vocab.txt" in present and architecture in WORDPIECE:
        made = _wordpiece(present["vocab.txt"], settings)
        _add(made, folder, settings)
    elif {"vocab.json", "merges.txt"} <= present.keys() and architecture in BYTE_PAIRS:
        made = _byte_pairs(present["vocab.json"], present["merges.txt"], settings)
        _add(made, folder, settings)
    else:
        raise CheckpointError(f"{folder} has no tokenizer.json. {_cure(folder)}")
    if "tokenizer.json" not in present:
        _check_usual(folder, settings)
    made.no_truncation()
    made.no_padding()
    return made


def _check_usual(folder: Path, settings: dict[str, Any]) -> None:
    """Refuse vocabulary files of a tokenizer that cuts words otherwise than the files' own architecture does."""
    named = settings.get("tokenizer_class")
    kind = str(named).removesuffix("Fast").removesuffix("Tokenizer").lower()
    ways = [settings.get(f"{part}_tokenizer_type") not in (None, usual)
            for part, usual in (("word", "basic"), ("subword", "wordpiece"))]  # fmt: skip
    if (named is not None and kind not in SLOW) or any(ways) or settings.get("do_basic_tokenize") is False:
        raise CheckpointError(
            f"{folder} has vocabulary files of {named}, which cuts words as crossrank does not: scores would be wrong. "
            f"A tokenizer.json says how. {_cure(folder)}; or choose another model."
        )


def _check_list(path: Path) -> None:
    """Refuse a file of words or merges that is longer than such files are: each word takes a hundred bytes and more."""
    if path.suffix == ".txt" and (path.stat().st_size > MAX_LIST or path.read_bytes().count(b"\n") > MAX_LINES):
        raise CheckpointError(
            f"{path} has over {MAX_LIST // 1_000_000} MB or {MAX_LINES:,} lines, so it is not a tokenizer's"
        )


def _whole(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json, none of which has run before it was checked."""
    raw = bounded(path, MAX_FILE, "a tokenizer")
    growth.check(json.loads(raw), str(path))
    return Tokenizer.from_buffer(raw)


def mask(folder: Path) -> str:
    """The token that stands for a masked word, as the folder's settings say; "[MASK]" when they do not."""
    return _special(optional_json(folder / "tokenizer_config.json"), "mask_token", "[MASK]")


def plain(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that reads a text to its end, without padding, and a "[SEP]" written in it as those five characters.

    transformers reads special tokens written in a text as special tokens. Here a document must not be able to forge the
    border between query and passage.
    """
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.encode_special_tokens = True
    return copy


def _unforgeable(made: Tokenizer) -> None:
    """Keep the vocabulary from giving a special token for a text that spells it.

    `encode_special_tokens` keeps added tokens from being looked for in a text. But the vocabulary holds them too, and
    where words are looked up whole, as in XLM-R's Unigram model, "</s>" is found there. Such a spelling is split behind
    its first character, where no piece of the vocabulary reaches over. A special token that is an ordinary word keeps
    its id: it forges no border, and is a part of other words.
    """
    specials = _specials(made).items()
    forged = [word for number, word in specials if not word.isalnum() and len(word) > 1 and _spells(made, word, number)]
    if forged:
        first = "|".join(f"{re.escape(word[0])}(?={re.escape(word[1:])})" for word in forged)
        split = pre_tokenizers.Split(Regex(first), "merged_with_previous")
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [*([made.pre_tokenizer] if made.pre_tokenizer is not None else []), split]
        )


def _specials(made: Tokenizer) -> dict[int, str]:
    """Special tokens by id: those that were added, and those of the frame around texts."""
    added = {number: token.content for number, token in made.get_added_tokens_decoder().items() if token.special}
    frame = made.encode("", "")
    return {**dict(zip(frame.ids, frame.tokens, strict=True)), **added}


def _spells(made: Tokenizer, word: str, number: int) -> bool:
    """Whether the vocabulary reads `word` in a text as its token `number`."""
    text = made.normalizer.normalize_str(word) if made.normalizer is not None else word
    parts = made.pre_tokenizer.pre_tokenize_str(text) if made.pre_tokenizer is not None else [(text, (0, len(text)))]
    # Offsets count bytes, and a normalizer may put "▁" before the word. An unknown character has an id of its own, but
    # does not stretch over all of it.
    return any(
        token.id == number and part.encode()[slice(*token.offsets)] in (text.encode(), word.encode())
        for part, _ in parts
        for token in made.model.tokenize(part)
    )


def fingerprint(tokenizer: Tokenizer) -> str:
    """Equal exactly for tokenizers whose `plain` copies cut texts into equal ids. 64 hex digits."""
    # A copy costs 30 ms, more than the tokenizing that a search saves by comparing; 5 ms without.
    cuts = tokenizer.truncation is not None or tokenizer.padding is not None
    text = (plain(tokenizer) if cuts else tokenizer).to_str()
    # The flag for special tokens is not part of a tokenizer's own text.
    return sha256(b"special tokens are text\n" + text.encode("utf-8")).hexdigest()


def _follow(made: Tokenizer, settings: dict[str, Any]) -> None:
    """Change what tokenizer_config.json states otherwise than tokenizer.json, as the classes of transformers do."""
    if settings.get("tokenizer_class") in GENERIC:
        return
    current, before = made.normalizer, made.pre_tokenizer
    if isinstance(current, normalizers.BertNormalizer):
        for ours, theirs in (("lowercase", "do_lower_case"), ("handle_chinese_chars", "tokenize_chinese_chars")):
            if isinstance(settings.get(theirs), bool):
                setattr(current, ours, settings[theirs])
        # None, which means as it is lower-cased, can be said too.
        if isinstance(settings.get("strip_accents", ""), (bool, type(None))):
            current.strip_accents = settings["strip_accents"]
        made.normalizer = current
    if isinstance(before, pre_tokenizers.ByteLevel) and isinstance(settings.get("add_prefix_space"), bool):
        before.add_prefix_space = settings["add_prefix_space"]
        made.pre_tokenizer = before


def _lower_case(made: Tokenizer, folder: Path) -> None:
    """Lower-case where sentence-transformers is told to (sentence_bert_config.json) and the tokenizer does not."""
    current = made.normalizer
    if isinstance(current, normalizers.BertNormalizer):
        lowers = bool(current.lowercase)
    else:
        lowers = current is not None and "Lowercase" in repr(current)
    if optional_json(folder / "sentence_bert_config.json").get("do_lower_case") is True and not lowers:
        steps = [normalizers.Lowercase(), *([current] if current is not None else [])]
        made.normalizer = normalizers.Sequence(steps)


def _cure(folder: Path) -> str:
    return (
        "Make one where transformers is installed: "
        f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
    )


def _add(made: Tokenizer, folder: Path, settings: dict[str, Any]) -> None:
    """Add the tokens that the model learned beside its vocabulary files, each at the id that it was trained with."""
    stated = settings.get("added_tokens_decoder")
    if isinstance(stated, dict):
        flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
        tokens = {
            int(number): AddedToken(token["content"], **{flag: token[flag] for flag in flags if flag in token})
            for number, token in stated.items()
        }
    else:
        listed = optional_json(folder / "added_tokens.json")
        known = {token.content for token in made.get_added_tokens_decoder().values()}
        tokens = {int(number): AddedToken(content) for content, number in listed.items() if content not in known}
    for number, token in sorted(tokens.items()):
        made.add_tokens([token])
        if made.token_to_id(token.content) != number:
            raise CheckpointError(
                f"{folder} has no tokenizer.json, and its added token {token.content!r} has the number {number}, where "
                f"{made.token_to_id(token.content)} follows from its vocabulary: give vocab.txt a line for each number "
                "between, such as [unused10], or a tokenizer.json"
            )


def _names(settings: dict[str, Any], architecture: str) -> dict[str, str]:
    """Special tokens of a folder without tokenizer.json, by their kinds."""
    usual = ANGLED if architecture in BYTE_PAIRS else BRACKETED
    return {kind: _special(settings, f"{kind}_token", name) for kind, name in usual.items()}


def _special(settings: dict[str, Any], key: str, default: str) -> str:
    found = spelled(settings.get(key, default))
    return default if found is None else found


def spelled(value: Any) -> str | None:
    """A special token as settings state it, a text or an object with more about it; None for anything else."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _wordpiece(path: Path, settings: dict[str, Any]) -> Tokenizer:
    named = _names(settings, "bert")
    words = path.read_text(encoding="utf-8").split("\n")
    vocabulary = {word.rstrip("\r"): number for number, word in enumerate(words) if word or number + 1 < len(words)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token=named["unk"]))
    lower = settings.get("do_lower_case", True) is True
    made.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True) is True,
        strip_accents=settings.get("strip_accents"),
        lowercase=lower,
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    names = (named[kind] for kind in ("cls", "sep", "pad", "mask", "unk"))
    made.add_special_tokens([AddedToken(name, special=True) for name in names if name in vocabulary])
    begin, end = named["cls"], named["sep"]
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin}:0 $A:0 {end}:0",
        pair=f"{begin}:0 $A:0 {end}:0 $B:1 {end}:1",
        special_tokens=[(begin, vocabulary[begin]), (end, vocabulary[end])],
    )
    return made


def _byte_pairs(path: Path, merges: Path, settings: dict[str, Any]) -> Tokenizer:
    vocabulary = load_json(path)
    growth.check({"model": {"vocab": vocabulary}}, str(path))
    made = Tokenizer(models.BPE.from_file(str(path), str(merges)))
    space = settings.get("add_prefix_space", False) is True
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    made.decoder = decoders.ByteLevel()
    named = _names(settings, "roberta")
    begin, end, mask = named["cls"], named["sep"], named["mask"]
    usual = (begin, end, named["pad"], named["unk"])
    made.add_special_tokens([AddedToken(name, special=True) for name in usual if name in vocabulary])
    made.add_special_tokens([AddedToken(mask, lstrip=True, special=True)] if mask in vocabulary else [])
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} {end} $B {end}",
        special_tokens=[(begin, vocabulary[begin]), (end, vocabulary[end])],
    )
    return made
