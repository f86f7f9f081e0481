"""A query in a script that the vocabulary has no words in: told where scores are, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

import crossrank
import tiny
from crossrank.cascade import Stage, rerank
from crossrank.foreign import caution
from crossrank.types import Passage, Ranking

ENGLISH = ["how to retry a failed upload", "the museum is open on monday", "uploads are retried three times"] * 3
RUSSIAN = ["как повторить неудачную загрузку", "музей открыт в понедельник", "загрузку можно повторить"] * 3
CHINESE = ["如何重试失败的上传", "博物馆星期一开放"] * 3
KOREAN = ["파일을 업로드하는 방법", "박물관은 월요일에 문을 연다"] * 3


def wordpiece(*texts: list[str]) -> Tokenizer:
    """As BERT's is made: words into pieces, Chinese characters apart, and every letter that it saw."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(
        [line for lines in texts for line in lines],
        trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]"], show_progress=False),
    )
    return made


def spelling(letters: str) -> Tokenizer:
    """Words of English, and no more than the letters of another script."""
    made = wordpiece(ENGLISH)
    vocabulary = made.get_vocab()
    for letter in letters:
        for piece in (letter, f"##{letter}"):
            vocabulary.setdefault(piece, len(vocabulary))
    spelled = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    spelled.normalizer, spelled.pre_tokenizer = made.normalizer, made.pre_tokenizer
    return spelled


ALPHABET = "абвгдежзийклмнопрстуфхцчшщъыьэюя"


@pytest.mark.parametrize("query", ["как повторить загрузку?", "Музей открыт в понедельник"])
def test_a_script_that_is_spelled_or_unknown_is_told(query: str) -> None:
    for lacks in (spelling(ALPHABET), wordpiece(ENGLISH)):
        said = caution("m", lacks, query)
        assert said.startswith("m has no words in the query's script (Cyrillic), so its scores say little")
    assert caution("m", wordpiece(ENGLISH, RUSSIAN), query) == ""


def test_chinese_is_single_characters_and_told_where_they_are_unknown() -> None:
    assert "(Chinese)" in caution("m", wordpiece(ENGLISH), "如何重试失败的上传")
    assert caution("m", wordpiece(CHINESE), "如何重试失败的上传") == ""


def test_hangul_is_told_where_syllables_are_taken_apart() -> None:
    # Uncased BERT takes accents away by taking letters apart, and syllables with them.
    apart = wordpiece(ENGLISH)
    apart.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    assert "(Hangul)" in caution("m", apart, "파일을 업로드하는 방법")
    assert caution("m", wordpiece(KOREAN), "파일을 업로드하는 방법") == ""


@pytest.mark.parametrize(
    "query",
    [
        "how to retry a failed upload",
        "wo ist das Café in Österreich?",
        "is β larger than α?",
        "the тест of an upload that failed",
        "1789 – 2024: 100 %",
        "",
        "\ud800 lone",
    ],
)
def test_most_of_a_query_in_latin_letters_is_nothing_to_tell(query: str) -> None:
    assert caution("m", wordpiece(ENGLISH), query) == ""


def test_a_byte_level_vocabulary_is_told_by_what_it_spells() -> None:
    def byte_level(lines: list[str]) -> Tokenizer:
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        made.train_from_iterator(lines, trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
        return made

    assert "(Cyrillic)" in caution("m", byte_level(ENGLISH), "как повторить загрузку?")
    assert caution("m", byte_level(RUSSIAN), "как повторить загрузку?") == ""


@pytest.fixture
def scorer(tmp_path: Path) -> crossrank.CrossEncoder:
    return crossrank.load(tiny.cross_encoder(tmp_path / "model"), backend="fake")


def test_it_stands_beside_the_scores(scorer: crossrank.CrossEncoder) -> None:
    name = scorer.checkpoint.name
    said = (
        f"{name} has no words in the query's script (Cyrillic), so its scores say little: load a model of that language"
    )
    assert scorer.rank("где музей", ["paris is a city", "x"]).note == said
    assert scorer.rank("paris", ["где музей"]).note == ""
    start = Ranking.sorted(["a", "b"], [2, 1])
    texts = {"a": "paris is a city", "b": "bread"}
    for deadline in (None, 1e12):
        _, (trace,) = rerank(
            "где музей",
            start,
            [Stage(scorer)],
            lambda ids: [Passage(id_, texts[id_]) for id_ in ids],
            deadline=deadline,
        )
        assert trace.note == said


def test_late_interaction_tells_it_too() -> None:
    assert "(Cyrillic)" in crossrank.load_late().rank("где находится музей", ["The museum is here."]).note
