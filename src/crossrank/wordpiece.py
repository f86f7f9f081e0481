"""BERT's WordPiece in the native library: the ids that the tokenizers library gives, at a twentieth of its time.

That library stays the truth. What becomes of a character is asked of it when a text first has one, and a text with a
character that cannot be told of is left to it. So are tokenizers of any other kind, and all of them where there is no
native library.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
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
UNKNOWN, NOTHING, SPACE, LETTERS, ALONE = range(5)
# The first code that the library has no place for.
END = 0x30000
# Marks that are not stripped: with these around it, none stays at its place that changes places with others.
_BEFORE, _AFTER = "\U0001d16d", "\u1b44"
# Of the longest word, in characters, that the library can be told to cut.
_MOST = 256
# Added tokens, at most: each is looked for alone, and asking for them takes a microsecond each.
_ADDED = 100
# A byte that no text in UTF-8 has: what begins with it is left to others.
_NO_TEXT = b"\xff"
# Bytes for which one more thread is woken.
_BYTES_A_THREAD = 100_000


class WordPiece:
    """A vocabulary in the native library. One serves many threads.

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
        self._characters = _characters(*_switches(tokenizer.normalizer))
        native = library.handle()
        self._encode = native.crossrank_wordpiece_encode
        self._pointer = native.crossrank_wordpiece_create(
            library.Strings.of([piece.encode() for piece in vocabulary]),
            numbers.ctypes.data_as(POINTER(c_int32)),
            library.Strings.of([model.continuing_subword_prefix.encode()]),
            vocabulary[model.unk_token],
            model.max_input_chars_per_word,
        )
        if not self._pointer:
            raise MemoryError("no memory for the vocabulary")
        _destroy_with(self, native.crossrank_wordpiece_destroy, self._pointer)
        self._sought = [one.content.encode() for one in _sought(tokenizer, tokenizer.get_added_tokens_decoder())]

    def encode(self, texts: Sequence[str], threads: int | None = None) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Ids of texts, end to end, special tokens left out, and how many each text has: -1 where it is left to others.

        Args:
            texts: any; each half of a surrogate pair is read as U+FFFD.
            threads: cores that the call may use; all that this process may use when absent.

        Raises:
            MemoryError: there is none for the threads' work.
        """
        ids, _, counts = self._read(texts, threads, located=False)
        return ids, counts

    def spans(self, texts: Sequence[str], threads: int | None = None) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Where the tokens of texts begin and end, in characters, shape (tokens, 2), and how many each text has.

        Otherwise like `encode`.
        """
        _, spans, counts = self._read(texts, threads, located=True)
        return spans, counts

    def _read(
        self, texts: Sequence[str], threads: int | None, located: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
        try:
            encoded = [text.encode() for text in texts]
        except UnicodeEncodeError:
            texts = list(map(valid_text, texts))
            encoded = [text.encode() for text in texts]
        if self._sought:
            whole = b"\0".join(encoded)
            found = [word for word in self._sought if word in whole]
            encoded = (
                [_NO_TEXT if any(word in text for word in found) else text for text in encoded] if found else encoded
            )
        strings = library.Strings.of(encoded)
        size = int(strings.kept[-1])
        worth = 1 + size // _BYTES_A_THREAD
        # Short texts need not ask the system how many cores there are.
        used = 1 if worth == 1 else min(worth, threads or cores.available())
        made = self._called(strings, used, located)
        left = np.flatnonzero(made[2] < 0).tolist()
        if left and self._characters.learn([texts[i] for i in left]):
            made = self._called(strings, used, located)
        return made

    def _called(
        self, strings: library.Strings, threads: int, located: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
        size = int(strings.kept[-1])
        ids, counts = np.empty(size, dtype=np.int32), np.empty(strings.n, dtype=np.int64)
        spans = np.empty((size if located else 0, 2), dtype=np.int32)
        integers = POINTER(c_int32)
        places = ids.ctypes.data_as(integers), spans.ctypes.data_as(integers) if located else None
        total = self._encode(
            self._pointer, self._characters.pointer, strings, threads, *places, counts.ctypes.data_as(POINTER(c_int64))
        )
        if total < 0:
            raise MemoryError("no memory to read texts")
        return ids[:total].copy(), spans[:total].copy(), counts


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


def _destroy_with(owner: object, destroy: Callable[[int], None], pointer: int) -> None:
    destroyed = weakref.finalize(owner, destroy, pointer)
    # A daemon thread may still be reading it when the interpreter exits, and the process's end frees all memory.
    destroyed.atexit = False


class _Characters:
    """What becomes of characters in the native library, which is told of those that texts have. Thread-safe.

    To ask for one takes some 10 microseconds, in which the tokenizers library reads five tokens.
    """

    def __init__(self, clean: bool, chinese: bool, accents: bool | None, lower: bool) -> None:
        self._normalizer = normalizers.BertNormalizer(clean, chinese, accents, lower)
        self._splitter = pre_tokenizers.BertPreTokenizer()
        self._asked = bytearray(END)
        native = library.handle()
        self._tell = native.crossrank_characters_tell
        self.pointer: int = native.crossrank_characters_create()
        if not self.pointer:
            raise MemoryError("no memory for the table of characters")
        _destroy_with(self, native.crossrank_characters_destroy, self.pointer)

    def learn(self, texts: Sequence[str]) -> bool:
        """Tell the library of the characters of texts that it was not told of; whether there were any."""
        seen = map(ord, set().union(*texts))
        codes = [code for code in seen if code < END and not self._asked[code]]
        if not codes:
            return False
        found = [self._becomes(chr(code)) for code in codes]
        numbers = np.array(codes, dtype=np.int32), np.array([kind for kind, _ in found], dtype=np.uint8)
        letters = library.Strings.of([text.encode() for _, text in found])
        places = numbers[0].ctypes.data_as(POINTER(c_int32)), numbers[1].ctypes.data_as(POINTER(c_uint8))
        if self._tell(self.pointer, letters, *places):
            raise MemoryError("no memory for the table of characters")
        # Only now: another thread that asks for the same would otherwise leave its text to the tokenizers library.
        for code in codes:
            self._asked[code] = True
        return True

    def _becomes(self, character: str) -> tuple[int, str]:
        """In what way a character is read, and its letters; UNKNOWN where that depends on the characters beside it."""
        text = self._normalizer.normalize_str(f"{_BEFORE}{character}{_AFTER}")
        if sorted(text) == [_AFTER, _BEFORE]:
            return NOTHING, ""
        if not (text.startswith(_BEFORE) and text.endswith(_AFTER)):
            # Accents are stripped, for which marks are put in order, and this one is not stripped.
            return UNKNOWN, ""
        text = text[1:-1]
        parts = [part for part, _ in self._splitter.pre_tokenize_str(f"a{text}a")]
        if parts == ["a", "a"]:
            return SPACE, ""
        if parts == [f"a{text}a"]:
            return LETTERS, text
        return (ALONE, parts[1]) if len(parts) == 3 and parts[0] == parts[2] == "a" else (UNKNOWN, "")


# Made once for tokenizers that normalize alike.
_characters = lru_cache(maxsize=8)(_Characters)
