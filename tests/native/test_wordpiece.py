"""WordPiece in the native library gives the ids of the tokenizers library, or says that it does not know the text."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ctypes import POINTER, c_int32, c_int64
from itertools import product
from unicodedata import category, combining

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from crossrank import cores, wordpiece
from crossrank.backends import cpu
from crossrank.backends.cpu import library
from crossrank.models import named

pytestmark = pytest.mark.skipif(not cpu.tiers(), reason="the native library is not built")

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# Latin, Greek, Cyrillic, Hebrew, Arabic; Indic scripts; Hangul as parts and syllables; Latin and Greek with marks;
# punctuation, currencies, mathematics, shapes; kana; some ideographs; presentation and fullwidth forms; the byte order
# mark; U+FFFD; musical notes, emoji, and ideographs beyond 16 bits.
RANGES = ((0, 0x6FF), (0x900, 0xDFF), (0x1100, 0x11FF), (0x1E00, 0x214F), (0x2190, 0x22FF), (0x25A0, 0x25FF),
          (0x3000, 0x30FF), (0x4E00, 0x4FFF), (0x9F00, 0xA01F), (0xAC00, 0xAC7F), (0xF900, 0xFA6F), (0xFE20, 0xFFFD),
          (0x1D100, 0x1D1FF), (0x1F300, 0x1F64F), (0x20000, 0x2007F), (0x2F800, 0x2FA1F))  # fmt: skip
# Some are missing, so that words are unknown.
LETTERS = [
    chr(code) for first, last in RANGES for code in range(first, last + 1)
    if category(chr(code)) not in ("Cs", "Zs") and code % 29 != 7
]  # fmt: skip
WORDS = [
    "the",
    "##the",
    "capital",
    "##ital",
    "cap",
    "straße",
    "élan",
    "##élan",
    "мир",
    "##мир",
    "[",
    "]",
    "sep",
    "a" * 100,
]
VOCABULARY = list(dict.fromkeys([*SPECIALS, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS]))
IN_RANGE = "".join(chr(code) for first, last in RANGES for code in range(first, last + 1))


def bert(
    vocabulary: list[str], lower: bool = True, accents: bool | None = None, clean: bool = True, most: int = 100
) -> Tokenizer:
    words = {word: number for number, word in enumerate(vocabulary)}
    made = Tokenizer(models.WordPiece(words, unk_token="[UNK]", max_input_chars_per_word=most))
    made.normalizer = normalizers.BertNormalizer(clean, True, accents, lower)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens([AddedToken(word, special=True) for word in SPECIALS])
    made.encode_special_tokens = True
    return made


UNCASED = bert(VOCABULARY)
TOKENIZERS = {
    "uncased": UNCASED,
    "cased": bert(VOCABULARY, lower=False),
    "lower case with marks": bert(VOCABULARY, accents=False),
    "upper case without marks": bert(VOCABULARY, lower=False, accents=True),
    "not cleaned": bert(VOCABULARY, clean=False),
    "hardly any words": bert([*SPECIALS, "a", "##b", "capital"], most=5),
}
ENCODERS = {name: wordpiece.WordPiece(tokenizer) for name, tokenizer in TOKENIZERS.items() if cpu.tiers()}


def assert_equal(name: str, texts: list[str]) -> np.ndarray:
    """What is not left to the tokenizers library is what it gives. Which texts are left, True."""
    ids, counts = ENCODERS[name].encode(texts)
    spans, again = ENCODERS[name].spans(texts)
    kept = [text for text, count in zip(texts, counts.tolist(), strict=True) if count >= 0]
    wanted = TOKENIZERS[name].encode_batch(kept, add_special_tokens=False)
    assert counts[counts >= 0].tolist() == [len(row) for row in wanted]
    assert again.tolist() == counts.tolist()
    assert ids.tolist() == [number for row in wanted for number in row.ids]
    assert spans.tolist() == [list(span) for row in wanted for span in row.offsets]
    return counts < 0


# All that Python knows of, and some that it does not.
EVERY = [
    chr(code) for code in range(0x110000)
    if not 0xD800 <= code < 0xE000
    and (code < 0x10000 or code % 97 == 0 or 0x2F800 <= code < 0x2FA20 or category(chr(code))[0] in "LMNPSZ")
    and (code < 0x20000 or code % 31 == 0 or 0x2F800 <= code < 0x2FA20)
]  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_character_alone_and_among_letters(name):
    left = assert_equal(name, EVERY)
    assert (assert_equal(name, [f"a{character}b" for character in EVERY]) == left).all()
    foreign = [character for character, gone in zip(EVERY, left.tolist(), strict=True) if gone]
    beyond = [character for character in EVERY if ord(character) >= wordpiece.END]
    # Where accents are stripped, some marks are not: what becomes of these depends on the marks beside them.
    marks = set(foreign) - set(beyond)
    assert set(beyond) <= set(foreign)
    assert len(marks) < 200
    assert not marks or TOKENIZERS[name].normalizer.strip_accents is not False
    assert all(category(mark)[0] == "M" or category(mark) == "So" for mark in marks)


@given(st.sampled_from(sorted(TOKENIZERS)), st.lists(st.text(st.characters(max_codepoint=127)), max_size=5))
def test_ascii_is_never_left_to_others(name, texts):
    assert not assert_equal(name, texts).any()


@given(st.sampled_from(sorted(TOKENIZERS)), st.lists(st.text(st.sampled_from(IN_RANGE)), max_size=5))
def test_characters_of_the_table_in_any_order(name, texts):
    assert_equal(name, texts)


# Marks that are stripped and marks that are not, in order and out of it, and what is made of letters and marks.
MARKS = "".join(c for c in EVERY if category(c)[0] == "M" and (category(c) == "Mc" or combining(c)))
MARKED = "aéİǖ \u1eadЙᄀ가각\u0dd9\u0ddd\u0344\u1fb7豈\U0001d157\U0001d15e\U0002f800"


@given(st.sampled_from(sorted(TOKENIZERS)), st.text(st.sampled_from(MARKS) | st.sampled_from(MARKED)))
def test_marks_in_any_order(name, text):
    assert_equal(name, [text])


@given(st.sampled_from(sorted(TOKENIZERS)), st.lists(st.text(st.characters(exclude_categories=("Cs",)))))
def test_any_text(name, texts):
    assert_equal(name, texts)


@given(
    st.lists(st.text("aαb", min_size=1, max_size=4).flatmap(lambda word: st.sampled_from([word, f"##{word}"]))),
    st.lists(st.text("aαb ", max_size=30)),
    st.integers(1, 8),
)
def test_any_vocabulary(words, texts, most):
    tokenizer = bert(list(dict.fromkeys([*SPECIALS, *words])), most=most)
    ids, counts = wordpiece.WordPiece(tokenizer).encode(texts)
    wanted = [one.ids for one in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    assert (ids.tolist(), counts.tolist()) == ([i for row in wanted for i in row], [len(row) for row in wanted])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_long_words_and_texts_with_nothing_in_them(name):
    letters = ["a", "é", "Ж", "\u1ea4", "İ"]
    words = [letter * size for letter, size in product(letters, (4, 5, 6, 99, 100, 101, 255, 256, 257, 300, 5000))]
    blank = ["", " ", "\t\r\n", "\0", "\u200b\ufeff\xad", "\ufffd", " " * 50]
    texts = [*words, *blank, *(f"the {word}. {word}s" for word in words), "[SEP]", "[CLS]the[SEP]", "capital [MASK]"]
    assert not assert_equal(name, texts).any()


def test_a_character_that_is_not_known_leaves_its_text_alone():
    texts = ["the", "the \U00030000", "", "the e\u302e", "\U000e0041", "\ud800 the"]
    ids, counts = ENCODERS["uncased"].encode(texts)
    assert counts.tolist() == [1, -1, 0, -1, -1, 1], "half of a surrogate pair is U+FFFD, which is cleaned away"
    assert ids.tolist() == [UNCASED.token_to_id("the")] * 2
    assert ENCODERS["uncased"].encode([])[1].tolist() == []


def rows_of(encoder, texts):
    ids, counts = encoder.encode(texts)
    parts = iter(np.split(ids, np.cumsum(np.maximum(counts, 0))[:-1]))
    return [part.tolist() if count >= 0 else None for part, count in zip(parts, counts.tolist(), strict=True)]


def test_many_threads_learn_and_read_at_once():
    wordpiece._characters.cache_clear()
    encoder = wordpiece.WordPiece(UNCASED)
    some = EVERY[::20]
    texts = ["".join(some[i : i + 20]) for i in range(0, len(some), 20)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: rows_of(encoder, texts), range(8)))
    wanted = rows_of(ENCODERS["uncased"], texts)
    assert rows_of(encoder, texts) == wanted
    # What another thread is about to tell of may be left to the tokenizers library; nothing else may differ.
    assert all(row in (None, right) for rows in found for row, right in zip(rows, wanted, strict=True))


def test_added_tokens_that_are_sought_are_left_to_others():
    tokenizer = bert(VOCABULARY)
    tokenizer.encode_special_tokens = False
    encoder = wordpiece.WordPiece(tokenizer)
    assert encoder.encode(["the [SEP] cap", "the [ SEP ] cap", "[sep]", "the[PAD]", "a"])[1].tolist() == [
        -1,
        5,
        3,
        -1,
        1,
    ]
    tokenizer.encode_special_tokens = True
    tokenizer.add_tokens([AddedToken("capital the", normalized=False)])
    encoder = wordpiece.WordPiece(tokenizer)
    assert encoder.encode(["[SEP]", "capital the end", "capital  the"])[1].tolist() == [3, -1, 2]


def test_threads_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    words = ["the", "capitals", "Élan", "мир", "x" * 120, "\U00030000", "!", "\u200b", "unknown\u0147"]
    texts = [" ".join(rng.choice(words, size=rng.integers(0, 60)).tolist()) for _ in range(500)]
    alone = ENCODERS["uncased"].encode(texts)
    assert assert_equal("uncased", texts).any()
    monkeypatch.setattr(wordpiece, "_BYTES_A_THREAD", 100)
    for threads in (2, 3, 7):
        monkeypatch.setattr(cores, "available", lambda threads=threads: threads)
        for found, wanted in zip(ENCODERS["uncased"].encode(texts), alone, strict=True):
            np.testing.assert_array_equal(found, wanted)
        assert_equal("uncased", texts)
        assert_equal("uncased", ["the", "\U00030000"])


@pytest.mark.parametrize("threads", [1, 2])
def test_bytes_that_are_no_text_are_refused_and_not_read_past(threads):
    """The library checks for itself: no byte behind a text is read, whatever its last byte announces."""
    encoder = ENCODERS["uncased"]
    encoder.encode(["the"])
    parts = [b"\xff", b"\x80", b"\xc3", b"\xe2\x82", b"a\xe2", b"\xf0\x9f\x98", b"\xf7\xbf\xbf\xbf", b"\xf8", b"the"]
    strings = library.Strings.of(parts)
    ids, counts = np.empty(64, np.int32), np.empty(len(parts), np.int64)
    places = ids.ctypes.data_as(POINTER(c_int32)), None, counts.ctypes.data_as(POINTER(c_int64))
    assert encoder._encode(encoder._pointer, encoder._characters.pointer, strings, threads, *places) == 1
    assert counts.tolist() == [-1] * 8 + [1]


def test_tokenizers_of_other_kinds_are_not_for_this():
    assert wordpiece.settings(UNCASED) == wordpiece.settings(bert(VOCABULARY)) is not None
    assert wordpiece.settings(UNCASED) != wordpiece.settings(TOKENIZERS["cased"])

    def changed(**parts):
        made = bert(VOCABULARY)
        for name, part in parts.items():
            setattr(made, name, part)
        return wordpiece.settings(made)

    words = {word: number for number, word in enumerate(VOCABULARY)}
    assert changed(pre_tokenizer=pre_tokenizers.Whitespace()) is None
    assert changed(normalizer=normalizers.Lowercase()) is None
    assert changed(normalizer=normalizers.Sequence([normalizers.BertNormalizer()])) is None
    assert changed(model=models.WordLevel(words, unk_token="[UNK]")) is None
    assert changed(model=models.WordPiece(words, unk_token="nothing")) is None
    assert changed(model=models.WordPiece(words, unk_token="[UNK]", max_input_chars_per_word=257)) is None
    cut, padded, sought = bert(VOCABULARY), bert(VOCABULARY), bert(VOCABULARY)
    cut.enable_truncation(8)
    padded.enable_padding()
    sought.add_tokens([AddedToken("capital the", normalized=True)])
    assert [wordpiece.settings(made) for made in (cut, padded, sought)] == [None] * 3


def test_another_prefix_and_ids_that_are_no_count():
    words = {"[UNK]": 7, "a": 2**31 - 1, "_b": 5, "##b": 9, "": 3, "_": 4}
    made = Tokenizer(models.WordPiece(words, unk_token="[UNK]", continuing_subword_prefix="_"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    assert wordpiece.settings(made) is not None
    ids, counts = wordpiece.WordPiece(made).encode(["ab a_b abb c"])
    assert ids.tolist() == made.encode("ab a_b abb c", add_special_tokens=False).ids
    assert counts.tolist() == [len(ids)]


def meeting(places):
    return np.flatnonzero(places < 8)


def scattered(places):
    return np.arange(0, len(places), len(places) // len(meeting(places)))


def in_a_row(begin, step):
    return lambda places: np.unique(places, return_index=True)[1][(begin + step * np.arange(1100)) % 4096]


@pytest.mark.parametrize(
    ("chosen", "taken"),
    [(meeting, False), (scattered, True), (in_a_row(0, 1), False), (in_a_row(3600, 1), False), (in_a_row(0, 3), True)],
)
def test_a_vocabulary_whose_hashes_lie_together_is_refused(chosen, taken):
    """A table that had to be walked through for every word would take hours for a million of them.

    In a row without gaps each word lies at its own place, but what is none of them is looked for through all of it.
    """
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz0123", np.uint8)
    spelled = np.stack(np.meshgrid(*[letters] * 4), axis=-1).reshape(-1, 4)
    hashes = np.full(len(spelled), 0x811C9DC5, np.uint32)
    for byte in spelled.T:
        hashes = (hashes ^ byte) * np.uint32(0x01000193)
    words = spelled[chosen((hashes ^ hashes >> 15) & 4095)]
    tokenizer = bert([*SPECIALS, *(bytes(word).decode() for word in words)])
    assert 1024 < tokenizer.get_vocab_size() < 2048
    assert (wordpiece.opened(tokenizer) is not None) == taken


def test_a_template_that_leaves_texts_out_is_seen_beside_any_added_token():
    tokenizer = bert([*SPECIALS, "a", "b"])
    tokenizer.encode_special_tokens = False
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS]", special_tokens=[("[CLS]", 2)])
    tokenizer.add_tokens([AddedToken("b", normalized=False)])
    assert tokenizer.encode("a", add_special_tokens=False).ids == []
    assert wordpiece.opened(tokenizer) is None


def test_many_added_tokens_are_left_to_the_library():
    """It looks for all of them at once; one after another they take minutes for a megabyte."""
    few, many = bert(VOCABULARY), bert(VOCABULARY)
    few.add_tokens([AddedToken(f"added{i}", normalized=False) for i in range(50)])
    many.add_tokens([AddedToken(f"added{i}", normalized=False) for i in range(1000)])
    assert wordpiece.settings(few) is not None
    assert wordpiece.settings(many) is None


@pytest.mark.parametrize("name", ["small", "embed"])
def test_the_models_in_the_wheel(name):
    tokenizer = named.read(name, default="small").tokenizer()
    tokenizer.encode_special_tokens = True
    encoder = wordpiece.WordPiece(tokenizer)
    characters = [f"x{chr(code)}y" for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    words = sorted(tokenizer.get_vocab())
    texts = [*characters, *words, *(" ".join(words[i : i + 40]) for i in range(0, len(words), 40)),
             *("".join(words[i : i + 4]) for i in range(0, len(words), 4))]  # fmt: skip
    ids, counts = encoder.encode(texts)
    kept = [text for text, count in zip(texts, counts.tolist(), strict=True) if count >= 0]
    wanted = [one.ids for one in tokenizer.encode_batch_fast(kept, add_special_tokens=False)]
    assert ids.tolist() == [number for row in wanted for number in row]
    assert counts[counts >= 0].tolist() == [len(row) for row in wanted]
    assert sum(counts[len(characters) :] < 0) < len(words) // 4
