"""A query in a script that the vocabulary has no words in: told where scores are, and only there."""

from __future__ import annotations

import pickle
import string
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import crossrank
import tiny
from crossrank.cascade import Stage, rerank
from crossrank.errors import InputError
from crossrank.foreign import caution, scripts
from crossrank.models import named
from crossrank.types import Passage, Ranking

CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
SAID = "the model has no words in the query's script ({}), so its scores say little: load one of that language"


def pairs(letters: str, count: int) -> Iterator[str]:
    return islice(map("".join, product(letters, repeat=2)), count)


def wordpiece(*pieces: str) -> Tokenizer:
    """A vocabulary of English letters and these pieces."""
    every = dict.fromkeys(["[UNK]", *string.ascii_lowercase, *pieces])
    made = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(every)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def byte_level(*pieces: str) -> Tokenizer:
    """As GPT's: pieces are spelled in letters that stand for bytes."""
    before = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelled = [before.pre_tokenize_str(piece)[0][0] for piece in pieces]
    every = dict.fromkeys([*pre_tokenizers.ByteLevel.alphabet(), *spelled])
    made = Tokenizer(models.BPE({piece: place for place, piece in enumerate(every)}, []))
    made.pre_tokenizer = before
    return made


def characters(first: int, count: int) -> list[str]:
    return [chr(first + place) for place in range(count)]


@pytest.mark.parametrize("kind", [wordpiece, byte_level])
def test_a_script_is_known_by_pieces_of_several_letters(kind: object) -> None:
    assert callable(kind)
    some, many = list(pairs(CYRILLIC, 99)), list(pairs(CYRILLIC, 100))
    assert scripts(kind()) == frozenset()
    assert scripts(kind(*CYRILLIC, *some)) == frozenset()
    assert scripts(kind(*CYRILLIC, *many)) == {"CYRILLIC"}
    # Letters with accents are Latin, and a piece of two scripts has words of neither.
    assert scripts(kind(*pairs("äöüßéèàç", 64), *(f"a{letter}" for letter in CYRILLIC * 4))) == frozenset()


def test_a_decoder_tells_of_bytes_as_well() -> None:
    made = byte_level(*pairs(CYRILLIC, 200))
    made.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    made.decoder = decoders.ByteLevel()
    assert scripts(made) == {"CYRILLIC"}


def test_chinese_and_korean_are_known_by_their_characters() -> None:
    assert scripts(wordpiece(*characters(0x4E00, 999))) == frozenset()
    assert scripts(wordpiece(*characters(0x4E00, 1000))) == {"CJK"}
    assert scripts(wordpiece(*characters(0x4E00, 1000), "あ", "ア")) == {"CJK", "HIRAGANA", "KATAKANA"}
    assert scripts(wordpiece(*characters(0xAC00, 1000))) == {"HANGUL"}


def test_the_models_of_the_wheel_know_latin_script_alone() -> None:
    for model in ("small", "late"):
        assert scripts(named.read(model, default="small").tokenizer()) == frozenset()


@pytest.mark.parametrize(
    ("query", "script"),
    [
        ("как повторить загрузку?", "Cyrillic"),
        ("где мой дом", "Cyrillic"),
        ("πού είναι το μουσείο;", "Greek"),
        ("كيف أعيد المحاولة؟", "Arabic"),
        ("हिंदी", "Devanagari"),
        ("தமிழ்", "Tamil"),
        ("北京大学", "Chinese"),
        ("返品", "Chinese"),
        ("東京の博物館はどこですか", "Japanese"),
        ("한국어", "Hangul"),
        ("วิธีลองอีกครั้ง", "Thai"),
        ("загрузка PDF", "Cyrillic"),
    ],
)
def test_a_query_in_another_script_is_told(query: str, script: str) -> None:
    assert caution(frozenset, query) == SAID.format(script)
    every = {"CYRILLIC", "GREEK", "ARABIC", "DEVANAGARI", "TAMIL", "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI"}
    assert caution(lambda: frozenset(every), query) == ""


@pytest.mark.parametrize(
    "query",
    [
        "how to retry a failed upload",
        "wo ist das Café in Österreich?",
        "Ở đâu có quán cà phê?",
        "is β larger than α?",
        "α β γ δ rays",
        "Δ = β² − 4αγ",
        "is ℕ ⊂ ℤ ⊂ ℚ ⊂ ℝ?",
        "𝗙𝗥𝗘𝗘 𝘀𝗵𝗶𝗽𝗽𝗶𝗻𝗴",
        "ｈｏｗ ｔｏ ｒｅｔｒｙ",
        "ʻAʻā ʻōʻō",
        "the тест of an upload that failed",
        "ошибка NullPointerException",
        "iPhone 15 价格",
        "1789 – 2024: 100 % 🎉",
        "\ud800 lone",
        "",
        "ª º µ",
    ],
)
def test_most_of_a_query_in_latin_letters_is_nothing_to_tell(query: str) -> None:
    assert caution(frozenset, query) == ""


def test_what_is_no_text_is_refused_by_those_who_score_it(scorer: crossrank.CrossEncoder) -> None:
    assert [caution(frozenset, query) for query in (None, 5, ["где музей"])] == ["", "", ""]  # type: ignore[arg-type]
    with pytest.raises(InputError, match="query"):
        rerank(None, Ranking.sorted(["a"], [1]), [Stage(scorer)], lambda ids: [Passage("a", "x")])  # type: ignore[arg-type]


@pytest.fixture
def scorer(tmp_path: Path) -> crossrank.CrossEncoder:
    return crossrank.load(tiny.cross_encoder(tmp_path / "model"), backend="fake")


def test_it_stands_beside_the_scores(scorer: crossrank.CrossEncoder) -> None:
    said = SAID.format("Cyrillic")
    assert scorer.rank("где музей", ["paris is a city", "x"]).note == said
    assert scorer.rank("где музей", []).note == ""
    assert scorer.rank("paris", ["где музей"]).note == ""
    assert pickle.loads(pickle.dumps(scorer)).caution("где музей") == said
    start = Ranking.sorted(["a", "b"], [2, 1])
    texts = {"a": "paris is a city", "b": "bread"}

    def note(deadline: float | None) -> str:
        _, (trace,) = rerank(
            "где музей",
            start,
            [Stage(scorer)],
            lambda ids: [Passage(id_, texts[id_]) for id_ in ids],
            deadline=deadline,
        )
        return trace.note

    assert (note(None), note(1e12)) == (said, said)
    assert note(0.0) == "the time was enough for 0 of 2 passages"


def test_late_interaction_tells_it_too() -> None:
    assert crossrank.load_late().rank("где находится музей", ["The museum is here."]).note == SAID.format("Cyrillic")
