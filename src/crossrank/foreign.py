"""Does a model's vocabulary have words for a query's script? Scores of one that has none say little."""

from __future__ import annotations

from collections import Counter
from unicodedata import name as name_of

from tokenizers import Tokenizer

from crossrank.unicode import valid_text

# Characters that are looked at: a query is no longer, mostly.
_MOST = 1_000
# Letters of another script that are worth a word: a Greek letter or two in a formula are not.
_LEAST = 4
# A vocabulary without a script spells every letter, or knows none; one that has it spells about a third.
_SPELLED, _UNKNOWN = 0.8, 0.2
_NOTHING = frozenset({"[UNK]", "<unk>", "<UNK>"})


def caution(model: str, tokenizer: Tokenizer, query: str) -> str:
    """What is to be said of a model's scores for a query in a script that its vocabulary does not have; else "".

    Letters beyond Latin are looked at, where they are half of all. A vocabulary lacks their script when it spells four
    fifths of them one by one (Chinese characters, which any vocabulary does, and Hangul excepted, unless it takes the
    syllables apart) or does not know a fifth at all. Other languages in Latin script are not told, nor is a script that
    the vocabulary has and the training had not.

    >>> import crossrank
    >>> scorer = crossrank.load()
    >>> scorer.caution("где находится музей?")
    "small has no words in the query's script (Cyrillic), so its scores say little: load a model of that language"
    >>> scorer.caution("wo ist das Café in Österreich?"), scorer.caution("is β larger than α?")
    ('', '')
    """
    text = valid_text(query[:_MOST])
    if text.isascii():
        return ""
    scripts = {at: name_of(letter, "").partition(" ")[0] for at, letter in enumerate(text) if letter.isalpha()}
    foreign = {at: script for at, script in scripts.items() if script != "LATIN"}
    if len(foreign) < max(_LEAST, len(scripts) / 2):
        return ""
    found = tokenizer.encode(text, add_special_tokens=False)
    pieces = Counter(at for begin, end in found.offsets for at in range(begin, end))
    unknown: set[int] = set()
    spelled: set[int] = set()
    for token, (begin, end) in zip(found.tokens, found.offsets, strict=True):
        if token in _NOTHING:
            unknown.update(range(begin, end))
        elif end - begin == 1 and (foreign.get(begin) not in ("CJK", "HANGUL") or pieces[begin] > 1):
            spelled.add(begin)
    lost = len((unknown | spelled) & foreign.keys())
    if lost < _SPELLED * len(foreign) and len(unknown & foreign.keys()) < _UNKNOWN * len(foreign):
        return ""
    script = Counter(foreign.values()).most_common(1)[0][0]
    called = "Chinese" if script == "CJK" else script.title()
    said = f"{model} has no words in the query's script ({called}), so its scores say little"
    return f"{said}: load a model of that language"
