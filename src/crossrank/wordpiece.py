"""BERT's WordPiece in the native library: the ids that the tokenizers library gives, at a twentieth of its time.

That library stays the truth. What becomes of a character is asked of it once, and a text with a character outside the
table is left to it. So are tokenizers of any other kind, and all of them where there is no native library.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Sequence
from ctypes import POINTER, c_int32, c_int64, c_uint8
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from crossrank import cores
from crossrank.backends.cpu import library
from crossrank.unicode import valid_text

# `crossrank_character`.
NOTHING, SPACE, LETTERS, ALONE = range(1, 5)
# Ranges of characters: Latin, marks, Greek and Cyrillic; Latin with several marks, as Vietnamese has it; punctuation,
# small digits, currencies and letter-like signs; arrows and mathematics; shapes; byte order mark; U+FFFD.
RANGES = ((0, 0x45F), (0x1E00, 0x1EFF), (0x2000, 0x214F), (0x2190, 0x22FF), (0x25A0, 0x25FF), (0xFEFF, 0xFEFF),
          (0xFFFD, 0xFFFD))  # fmt: skip
# Of the longest word, in characters, that the library can be told to cut.
_MOST = 256
# Added tokens, at most: each is looked for alone, and asking for them takes a microsecond each.
_ADDED = 100
# A byte that no text in UTF-8 has: what begins with it is left to others.
_NO_TEXT = b"\xff"
# Bytes for which one more thread is woken.
_BYTES_A_THREAD = 100_000


class WordPiece:
    """A vocabulary in the native library. It is only read, so that one serves many threads.

    Args:
        tokenizer: one that `settings` knows. It is not kept: what is changed of it later is not seen here.

    Raises:
        MemoryError: the library could not take the vocabulary up.
        OverflowError: an id has more than 31 bits.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        model = tokenizer.model
        vocabulary = tokenizer.get_vocab(with_added_tokens=False)
        numbers = np.fromiter(vocabulary.values(), np.int32, len(vocabulary))
        codes, kinds, letters = _characters(*_switches(tokenizer.normalizer))
        native = library.handle()
        self._encode = native.crossrank_wordpiece_encode
        self._pointer = native.crossrank_wordpiece_create(
            library.Strings.of([piece.encode() for piece in vocabulary]),
            numbers.ctypes.data_as(POINTER(c_int32)),
            library.Strings.of([model.continuing_subword_prefix.encode()]),
            vocabulary[model.unk_token],
            model.max_input_chars_per_word,
            library.Strings.of(letters),
            codes.ctypes.data_as(POINTER(c_int32)),
            kinds.ctypes.data_as(POINTER(c_uint8)),
        )
        if not self._pointer:
            raise MemoryError("no memory for the vocabulary")
        destroyed = weakref.finalize(self, native.crossrank_wordpiece_destroy, self._pointer)
        # A daemon thread may still be reading it when the interpreter exits, and the process's end frees all memory.
        destroyed.atexit = False
        self._sought = [one.content.encode() for one in _sought(tokenizer, tokenizer.get_added_tokens_decoder())]

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Ids of texts, end to end, special tokens left out, and how many each text has: -1 where it is left to others.

        Args:
            texts: any; each half of a surrogate pair is read as U+FFFD.

        Raises:
            MemoryError: there is none for the threads' work.
        """
        try:
            encoded = [text.encode() for text in texts]
        except UnicodeEncodeError:
            encoded = [valid_text(text).encode() for text in texts]
        if self._sought:
            whole = b"\0".join(encoded)
            found = [word for word in self._sought if word in whole]
            encoded = (
                [_NO_TEXT if any(word in text for word in found) else text for text in encoded] if found else encoded
            )
        strings = library.Strings.of(encoded)
        size = int(strings.kept[-1])
        ids, counts = np.empty(size, dtype=np.int32), np.empty(len(texts), dtype=np.int64)
        threads = min(1 + size // _BYTES_A_THREAD, cores.available()) if size > _BYTES_A_THREAD else 1
        places = ids.ctypes.data_as(POINTER(c_int32)), counts.ctypes.data_as(POINTER(c_int64))
        total = self._encode(self._pointer, strings, threads, *places)
        if total < 0:
            raise MemoryError("no memory to read texts")
        return ids[:total].copy(), counts


def opened(tokenizer: Tokenizer) -> WordPiece | None:
    """The vocabulary of a tokenizer that `settings` knows; None without the native library, or where it refuses."""
    if library.obstacle() is not None:
        return None
    try:
        made = WordPiece(tokenizer)
    except (MemoryError, OverflowError):
        return None
    # A template may leave a text out or say it twice, also where no special tokens are asked for. Nothing is told by a
    # text that is left to the library: "b" may be an added token.
    ids, counts = made.encode(["a b"])
    same = counts[0] > 0 and ids.tolist() == tokenizer.encode("a b", add_special_tokens=False).ids
    return made if same else None


def settings(tokenizer: Tokenizer) -> Hashable | None:
    """What a tokenizer's ids follow from beside its vocabulary; None where it cuts texts otherwise than is done here.

    It takes some 10 microseconds, so that it can be asked whether a tokenizer is still the same. A vocabulary of the
    same size is taken for the same.

    >>> from crossrank.models import named
    >>> settings(named.read("small", default="small").tokenizer()) is not None
    True
    """
    model, normalizer = tokenizer.model, tokenizer.normalizer
    if (
        type(model) is not models.WordPiece
        or type(normalizer) is not normalizers.BertNormalizer
        or type(tokenizer.pre_tokenizer) is not pre_tokenizers.BertPreTokenizer
    ):
        return None
    added = tokenizer.get_added_tokens_decoder()
    sought = _sought(tokenizer, added)
    most = model.max_input_chars_per_word
    if (
        tokenizer.truncation is not None
        or tokenizer.padding is not None
        or not 1 <= most <= _MOST
        or model.token_to_id(model.unk_token) is None
        # Looked for in what a text becomes, which is not known here.
        or any(one.normalized for one in sought)
        or len(added) > _ADDED
    ):
        return None
    words = *(one.content for one in sought), model.unk_token, model.continuing_subword_prefix
    return *_switches(normalizer), most, tokenizer.get_vocab_size(), words, template_of(tokenizer)


def template_of(tokenizer: Tokenizer) -> bytes | None:
    """What puts special tokens around a text, as far as it can be compared."""
    step = tokenizer.post_processor
    return None if step is None else step.__getstate__()


def _sought(tokenizer: Tokenizer, added: dict[int, AddedToken]) -> list[AddedToken]:
    """Added tokens that are looked for in texts; special ones are where texts may spell them."""
    plain = tokenizer.encode_special_tokens
    return [one for one in added.values() if not (plain and one.special)]


def _switches(normalizer: Any) -> tuple[bool, bool, bool | None, bool]:
    """Of a BertNormalizer, in the order of its arguments."""
    one = normalizer
    return one.clean_text, one.handle_chinese_chars, one.strip_accents, one.lowercase


@lru_cache(maxsize=8)
def _characters(
    clean: bool, chinese: bool, accents: bool | None, lower: bool
) -> tuple[NDArray[np.int32], NDArray[np.uint8], list[bytes]]:
    """Characters, in what way each is read, and what it becomes, as the tokenizers library says.

    What becomes of one depends on no other: marks may change places with each other where accents are stripped, but
    there all of them go.
    """
    normalizer, before = normalizers.BertNormalizer(clean, chinese, accents, lower), pre_tokenizers.BertPreTokenizer()
    codes, kinds, letters = [], [], []
    for code in (code for first, last in RANGES for code in range(first, last + 1)):
        text = normalizer.normalize_str(chr(code))
        parts = [part for part, _ in before.pre_tokenize_str(f"a{text}a")]
        kind = _kind(text, parts)
        if kind:
            codes.append(code)
            kinds.append(kind)
            letters.append((parts[1] if kind == ALONE else text if kind == LETTERS else "").encode())
    return np.array(codes, dtype=np.int32), np.array(kinds, dtype=np.uint8), letters


def _kind(text: str, parts: list[str]) -> int:
    """In what way a character is read that becomes `text`, which a pre-tokenizer cuts so between two letters a; 0 where
    in none of these."""
    if not text:
        return NOTHING
    if parts == ["a", "a"]:
        return SPACE
    if parts == [f"a{text}a"]:
        return LETTERS
    return ALONE if len(parts) == 3 and parts[0] == parts[2] == "a" else 0
