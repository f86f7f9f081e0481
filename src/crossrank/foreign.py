"""Does a model's vocabulary have words in a query's script? Scores of one that has none say little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from unicodedata import category, name, normalize

from tokenizers import Tokenizer, decoders

# Characters that are looked at: few queries are longer.
_MOST = 1_000
# Letters of another script that are worth a word; fewer in scripts that write words in one or two.
_LEAST = 3
_SHORT = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL"})
# Of a script that a vocabulary has, it has pieces of several letters: thousands, or hundreds where it has many scripts.
# The uncased English one of BERT has 8 of Cyrillic, 4 of Greek, 2 of Arabic. Chinese has words of one character, and
# so has Korean: that vocabulary has 244 Chinese characters and no syllable of Hangul, Chinese ones have over 5,000.
_PIECES, _CHARACTERS = 100, 1_000
# What is written with the Chinese characters, so that a vocabulary of single characters knows both.
_KANA = frozenset({"HIRAGANA", "KATAKANA"})


def scripts(tokenizer: Tokenizer) -> frozenset[str]:
    """The scripts besides Latin that a vocabulary has words in, by the first words of their letters' Unicode names.

    >>> import crossrank
    >>> scripts(crossrank.load().checkpoint.tokenizer())
    frozenset()
    """
    pieces: Counter[str] = Counter()
    characters: set[str] = set()
    for piece in _written(tokenizer):
        found = list(filter(None, map(_script, piece)))
        pieces.update({script for script in found if found.count(script) > 1})
        characters.update(piece)
    counts = Counter(map(_script, characters))
    known = {script for script, count in pieces.items() if count >= _PIECES}
    known |= {script for script in ("CJK", "HANGUL") if counts[script] >= _CHARACTERS}
    return frozenset(known | (_KANA if "CJK" in known and counts.keys() >= _KANA else set()))


def caution(known: Callable[[], frozenset[str]], query: str) -> str:
    """What is to be said of scores for a query most of whose letters are of scripts besides Latin and `known`; else "".

    Letters that stand alone, as in formulas, do not count. Other languages in Latin script are not told, nor is a
    script that the vocabulary has and the training had not. What is no text is left to those who refuse it.

    >>> caution(frozenset, "где находится музей?")
    "the model has no words in the query's script (Cyrillic), so its scores say little: load one of that language"
    >>> caution(lambda: frozenset({"CYRILLIC"}), "где находится музей?")
    ''
    >>> caution(frozenset, "wo ist das Café in Österreich?"), caution(frozenset, "is β > α?")
    ('', '')
    """
    if not isinstance(query, str) or query.isascii():
        return ""
    text = normalize("NFKC", query[:_MOST])
    found = ["", *map(_script, text), ""]
    beyond = [
        (letter, script)
        for letter, before, script, after in zip(text, found, found[1:], found[2:], strict=False)
        if script and (script in _SHORT or script in (before, after))
    ]
    # Asked only now: to know what a large vocabulary has takes a second, once.
    has = known() if beyond else frozenset()
    # Vowel signs are no letters, and a word of Hindi may have more of them.
    told = Counter(script for _, script in beyond if script not in has)
    letters = sum(letter.isalpha() for letter, script in beyond if script in told)
    if not told or 2 * letters < sum(letter.isalpha() for letter in text):
        return ""
    script, count = told.most_common(1)[0]
    if count < _LEAST - (script in _SHORT):
        return ""
    called = "Japanese" if _KANA & told.keys() else "Chinese" if script == "CJK" else script.title()
    return (
        f"the model has no words in the query's script ({called}), so its scores say little: load one of that language"
    )


@lru_cache(maxsize=0x10000)
def _script(letter: str) -> str:
    """The script of a letter or vowel sign besides Latin, or "" of anything else."""
    if letter.isascii() or (kind := category(letter))[0] not in "LM" or kind == "Lm":
        return ""
    script = name(letter, "").partition(" ")[0]
    return "" if script in ("LATIN", "COMBINING", "") else script


def _written(tokenizer: Tokenizer) -> list[str]:
    """The pieces of a vocabulary beyond ASCII, as they are read in a text."""
    pieces = [piece for piece in tokenizer.get_vocab() if not piece.isascii()]
    parts = (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder)
    if any("ByteLevel" in repr(part) for part in parts):
        # Letters there stand for bytes.
        decoder = decoders.ByteLevel()
        pieces = [decoder.decode([piece]) for piece in pieces]
    return [normalize("NFKC", piece) for piece in pieces]
