"""Pairs become sequences in the model's own template; the query is spared, and nothing is cut silently."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import spies
from crossrank.checkpoint import vocabulary
from crossrank.encoder import PairEncoder, Windows, begun
from crossrank.errors import CheckpointError, InputError
from crossrank.template import Template
from crossrank.types import Tokens, Truncation
from crossrank.windows import spans

WORDS = [f"w{i}" for i in range(200)]


def bert_tokenizer():
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def roberta_tokenizer():
    vocabulary = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=False)
    return tokenizer


def text(n):
    return " ".join(WORDS[i % len(WORDS)] for i in range(n))


def test_bert_template_and_types():
    encoded = PairEncoder(bert_tokenizer(), 32).encode([("w0 w1", "w2")], Windows())
    assert encoded.tokens.ids.tolist() == [2, 4, 5, 3, 6, 3]
    assert encoded.tokens.types.tolist() == [0, 0, 0, 0, 1, 1]


def test_roberta_template():
    template = Template.of(roberta_tokenizer())
    assert (template.before, template.between, template.after) == ((0,), (2, 2), (2,))
    encoded = PairEncoder(roberta_tokenizer(), 32).encode([("w0", "w1")], Windows())
    assert encoded.tokens.ids.tolist() == [0, 4, 2, 2, 5, 2]
    assert encoded.tokens.types.tolist() == [0] * 6


@pytest.mark.parametrize("make", [bert_tokenizer, roberta_tokenizer])
def test_same_ids_as_the_tokenizer_itself(make):
    plain = make().encode(text(9), text(30))
    encoded = PairEncoder(make(), 64).encode([(text(9), text(30))], Windows())
    assert encoded.tokens.ids.tolist() == plain.ids
    assert encoded.tokens.types.tolist() == plain.type_ids


def test_each_special_token_keeps_the_type_that_the_tokenizer_gives_it():
    tokenizer = bert_tokenizer()
    specials = [("[CLS]", 2), ("[SEP]", 3)]
    for pair in ("[CLS]:5 $A:1 [SEP]:2 $B:3 [SEP]:4", "[CLS]:5 $A:1 $B:3 [SEP]:4"):
        tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A", pair, specials)
        plain = tokenizer.encode("w0 w1", "w2")
        encoded = PairEncoder(tokenizer, 32).encode([("w0 w1", "w2")], Windows())
        assert encoded.tokens.ids.tolist() == plain.ids
        assert encoded.tokens.types.tolist() == plain.type_ids


def test_a_sequence_has_room_for_a_token_of_the_query_and_one_of_the_passage():
    with pytest.raises(CheckpointError, match=r"a maximum length of 4 leaves no room .* the least is 5"):
        PairEncoder(bert_tokenizer(), 4)
    assert PairEncoder(bert_tokenizer(), 5).encode([("w0", "w1")], Windows()).tokens.ids.tolist() == [2, 4, 3, 5, 3]


def test_a_tokenizer_without_special_tokens_is_refused():
    tokenizer = bert_tokenizer()
    tokenizer.post_processor = processors.ByteLevel()
    with pytest.raises(CheckpointError, match="special tokens"):
        PairEncoder(tokenizer, 64)


def test_a_passage_cannot_forge_special_tokens():
    tokenizer = bert_tokenizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    encoded = PairEncoder(tokenizer, 64).encode([("w0", "w1 [SEP] w2")], Windows())
    assert encoded.tokens.ids.tolist().count(3) == 2, "only the template's own [SEP]"


def looked_up_whole(folder, model, pre_tokenizer):
    """A tokenizer whose vocabulary holds its special tokens, read from a folder."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer, vocabulary.tokenizer(folder, "xlm-roberta")


SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
FORGERIES = ["w </s> w", "</s>", "w<mask>w", "<s>w<pad>w", "<</s>>", "<s<s>"]


def test_a_passage_cannot_forge_special_tokens_that_a_unigram_vocabulary_holds(tmp_path):
    pieces = [(word, 0.0) for word in SPECIALS] + [(letter, -5.0) for letter in "w<>/spadmk"]
    pieces += [("▁", -2.0), ("▁w", -3.0), ("ww", -4.0), ("<mask>", 0.0)]
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="always")
    plain, made = looked_up_whole(tmp_path, models.Unigram(pieces, unk_id=3), metaspace)
    assert made.encode("w</s>").ids == plain.encode("w</s>").ids, "who wants special tokens read gets them"
    encoder = PairEncoder(made, 64)
    for forgery in FORGERIES:
        ids = encoder.encode([("w", forgery)], Windows()).tokens.ids.tolist()
        assert [i for i in ids if i < 3 or i == len(pieces) - 1] == [0, 2, 2, 2], forgery
        stored = vocabulary.plain(made).encode(forgery, add_special_tokens=False)
        assert stored.ids == ids[4:-1], "ids of an index are the same"
        assert "".join(stored.tokens).replace("▁", " ").lstrip() == forgery
    for text_ in ("w ww www", "w < w", "<w>", "日本 w", "日w本", "wé</", "<s"):
        want = plain.encode(text_, add_special_tokens=False).ids
        assert made.encode(text_, add_special_tokens=False).ids == want, "other texts keep their ids"
    assert vocabulary.fingerprint(made) != vocabulary.fingerprint(plain), "ids from before are not taken for these"


def test_a_passage_cannot_forge_special_tokens_behind_a_normalizer(tmp_path):
    """T5's normalizer puts a mark before a text, with which the token did not cover all of it."""
    pieces = [(word, 0.0) for word in SPECIALS] + [(letter, -5.0) for letter in "w<>/spadmk▁"]
    plain = Tokenizer(models.Unigram(pieces, unk_id=3))
    plain.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    plain.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    plain.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    plain.save(str(tmp_path / "tokenizer.json"))
    encoder = PairEncoder(vocabulary.tokenizer(tmp_path, "xlm-roberta"), 64)
    assert encoder.encode([("w", "w</s>w")], Windows()).tokens.ids.tolist().count(2) == 3


def test_a_special_token_that_is_an_ordinary_word_splits_no_other(tmp_path):
    words = {word: i for i, word in enumerate([*SPECIALS, "<mask>", "sub", "##title", "title", "the"])}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<s>", "</s>", "title"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    made = vocabulary.plain(vocabulary.tokenizer(tmp_path, "bert"))
    assert made.encode("the subtitle title", add_special_tokens=False).tokens == ["the", "sub", "##title", "title"]


def test_white_space_counts_where_it_has_tokens():
    """As byte-level vocabularies read it: a long text keeps what a short one does."""
    letters = lambda parts: Tokens.of([[ord(letter) for letter in part] for part in parts])  # noqa: E731
    made, exact = begun(["\n a" + "x" * 100 + "\n", "\n a"], 2, letters)
    assert made.row(0)[:3].tolist() == made.row(1).tolist()
    assert exact.tolist() == [False, True]
    words = lambda parts: Tokens.of([[len(word) for word in part.split()] for part in parts])  # noqa: E731
    made, exact = begun(["\n" * 500 + "tea is hot" + " " * 500, "\n" * 60 + "a " * 50], 2, words)
    assert (made.row(0)[:3].tolist(), made.row(1)[:2].tolist()) == ([3, 2, 3], [1, 1])
    assert exact.tolist() == [True, False]
    _, exact = begun(["a" * 48 + "\n", "a" * 49], 2, letters)
    assert exact.tolist() == [True, False], "nothing but white space lies behind what was tokenized"


def test_a_passage_cannot_forge_special_tokens_that_a_word_vocabulary_holds(tmp_path):
    words = {word: i for i, word in enumerate([*SPECIALS, "w", "<", "##mask>", "<mask>"])}
    for model in (models.WordPiece(words, unk_token="<unk>"), models.WordLevel(words, unk_token="<unk>")):
        _, made = looked_up_whole(tmp_path, model, pre_tokenizers.WhitespaceSplit())
        for forgery in FORGERIES:
            ids = PairEncoder(made, 64).encode([("w", forgery)], Windows()).tokens.ids.tolist()
            assert [i for i in ids if i < 3 or i == 7] == [0, 2, 2, 2], forgery


def test_a_tokenizer_that_needs_no_guard_keeps_its_fingerprint(tmp_path):
    model = models.WordPiece({word: i for i, word in enumerate([*SPECIALS, "w"])}, unk_token="<unk>")
    plain, made = looked_up_whole(tmp_path, model, pre_tokenizers.BertPreTokenizer())
    assert vocabulary.fingerprint(made) == vocabulary.fingerprint(plain)


@given(st.integers(1, 60), st.integers(0, 300), st.integers(8, 64), st.integers(1, 6))
def test_windows_cover_or_say_so(query_words, passage_words, max_length, most):
    windows = Windows(size=10, overlap=3, most=most)
    encoder = PairEncoder(bert_tokenizer(), max_length)
    encoded = encoder.encode([(text(query_words), text(passage_words))], windows)
    assert (encoded.tokens.lengths <= max_length).all()
    seen = np.unique(
        np.concatenate([encoded.tokens.row(i)[encoded.tokens.row(i) > 3] for i in range(len(encoded.tokens))])
    )
    reports = {t.position: t for t in encoded.truncations}
    cut_query = query_words > encoder.room // 2
    assert (-1 in reports) == cut_query
    report = reports.get(0)
    if report is None:
        assert len(encoded.tokens) == 1
        assert len(seen) == min(len(WORDS), max(passage_words, min(query_words, encoder.room // 2)))
    else:
        assert report.tokens == passage_words if report.exact else report.tokens <= passage_words
        assert report.windows == len(encoded.tokens) <= most
        assert report.lost == (report.read < passage_words or not report.exact)
        if report.lost:
            assert report.windows == most


def test_the_query_is_never_cut_for_a_long_passage():
    encoder = PairEncoder(bert_tokenizer(), 64)
    encoded = encoder.encode([(text(20), text(500))], Windows(size=400, overlap=5))
    for i in range(len(encoded.tokens)):
        assert encoded.tokens.row(i)[1:21].tolist() == [4 + j for j in range(20)]


BLANKS = ["\n" * 40_000, " \u2003\t" * 300_000]


@pytest.mark.parametrize("blanks", BLANKS)
def test_white_space_around_a_text_hides_nothing(blanks):
    encoder, windows = PairEncoder(bert_tokenizer(), 64), Windows(size=20, overlap=5, most=4)
    plain = encoder.encode([("w0", text(9))], windows)
    for pair in [("w0", blanks + text(9)), ("w0", text(9) + blanks), (f"{blanks}w0{blanks}", text(9))]:
        encoded = encoder.encode([pair], windows)
        assert encoded.tokens.ids.tolist() == plain.tokens.ids.tolist()
        assert encoded.truncations == (), "all of it was read"


def test_white_space_inside_a_text_hides_its_end_only_where_it_is_very_long():
    encoder, windows = PairEncoder(bert_tokenizer(), 64), Windows(size=20, overlap=5, most=4)
    gap = f"w1{' ' * 10_000}w2"
    encoded = encoder.encode([(gap, gap)], windows)
    assert encoded.tokens.ids.tolist() == [2, 5, 6, 3, 5, 6, 3]
    assert encoded.truncations == ()
    query, passage = encoder.encode(
        [("w0", f"w1{' ' * 1_000_000}w2"), (f"w0{' ' * 1_000_000}w2", "")], windows
    ).truncations
    assert (query.position, query.read, query.exact) == (-1, 1, False)
    assert (passage.position, passage.read, passage.exact, passage.lost) == (0, 1, False, True)


def test_ordinary_texts_are_tokenized_once_as_they_are():
    encoder = PairEncoder(bert_tokenizer(), 64)
    encoder._ids = spy = spies.Counting(encoder._ids)
    windows, long = Windows(size=20, overlap=5, most=4), "w1 " * 5_000
    encoder.encode([(" w0 ", " w1\n"), (" w0 ", long)], windows)
    assert sorted(spy.texts) == sorted([" w0 ", " w1\n", long[: 24 * 80]])


def test_a_huge_line_costs_bounded_memory_and_is_reported():
    encoder = PairEncoder(bert_tokenizer(), 64)
    encoded = encoder.encode([("w0", "w1 " * 5_000_000)], Windows(size=20, overlap=5, most=4))
    assert len(encoded.tokens) == 4
    (report,) = encoded.truncations
    assert report.lost
    assert not report.exact


@pytest.mark.parametrize(("max_length", "count"), [(512, 1), (256, 2), (128, 5)])
def test_a_short_sequence_still_reads_a_passage_in_few_windows(max_length, count):
    """With 128 tokens the overlap of 100 left steps of 1: 64 windows, and 196 of 360 tokens unread."""
    encoder = PairEncoder(bert_tokenizer(), max_length)
    encoded = encoder.encode([(text(24), text(360))], Windows())
    assert len(encoded.tokens) == count
    assert not any(cut.lost for cut in encoded.truncations)
    lengths, counts = encoder.sequence_lengths(text(24), np.array([360]), Windows())
    assert (lengths.tolist(), counts.tolist()) == (encoded.tokens.lengths.tolist(), [count])


def test_windows_of_512_tokens_lie_where_they_always_did():
    encoder, windows = PairEncoder(bert_tokenizer(), 512), Windows()
    for query in range(1, 255):
        room = encoder.room - query
        size = min(400, room)
        assert encoder._windows(3_000, room, windows) == spans(3_000, size, 100)
    assert encoder.stretch(windows) == 400 / 300


def test_a_passage_that_fills_its_sequence_is_one_window():
    encoder, windows = PairEncoder(bert_tokenizer(), 64), Windows(size=10, overlap=3)
    full = encoder.room - 4
    for tokens, count in ((full, 1), (full + 1, len(spans(full + 1, 10, 3)))):
        encoded = encoder.encode([(text(4), text(tokens))], windows)
        assert len(encoded.tokens) == len(encoded.owner) == count
        assert encoder.sequence_lengths(text(4), [tokens], windows)[1].tolist() == [count]


def test_of_a_very_long_passage_64_windows_are_read():
    encoder = PairEncoder(bert_tokenizer(), 512)
    (cut,) = encoder.encode([("w0", text(20_000))], Windows()).truncations
    assert (cut.windows, cut.read, cut.lost) == (64, 400 + 63 * 300, True)


def test_what_is_read_twice_is_foretold():
    encoder = PairEncoder(bert_tokenizer(), 128)
    assert encoder.stretch(Windows(fold="first")) == 1, "one window overlaps with none"
    (_, first), (second, _) = spans(1_000, encoder.room, encoder.room // 4)[:2]
    assert encoder.stretch(Windows()) == encoder.room / second
    assert first == encoder.room, "windows are no longer than a sequence"


@given(st.integers(5, 600), st.integers(1, 500), st.data())
def test_windows_advance_by_half_or_as_asked(max_length, size, data):
    windows = Windows(size, data.draw(st.integers(0, size - 1)))
    encoder = PairEncoder(bert_tokenizer(), max_length)
    room = encoder.room - data.draw(st.integers(1, encoder.room // 2))
    found = encoder._windows(5_000, room, replace(windows, most=10_000))
    steps = [after - before for (before, _), (after, _) in pairwise(found[:-1])]
    if size <= room:
        assert set(steps) <= {size - windows.overlap}
    elif windows.overlap <= size // 2:
        assert min(steps) >= room // 2
    assert encoder.stretch(windows) >= 1


def test_a_query_without_any_token_is_refused():
    encoder = PairEncoder(bert_tokenizer(), 64)
    for call in (
        lambda: encoder.encode([("w0", "w1"), (" ", "w1")], Windows()),
        lambda: encoder.encode_tokens([""], Tokens.of([[5]]), Windows()),
        lambda: encoder.sequence_lengths("", np.array([3]), Windows()),
        lambda: encoder.check_queries(["w0", "\t"], {}),
    ):
        with pytest.raises(InputError, match="the query is empty"):
            call()
    known = {}
    encoder.check_queries(["w0", text(60)], known)
    (cut,) = encoder.encode([(text(60), "w1")], Windows(), known).truncations
    assert cut.position == -1, "who checks a query has not read it: its cut is still told"


def test_what_is_no_text_has_no_count():
    encoder = PairEncoder(bert_tokenizer(), 64)
    assert encoder.count("w0 w1") == 2
    for wrong in (None, b"w0", 3):
        with pytest.raises(InputError, match=f"{type(wrong).__name__}, not a string"):
            encoder.count(wrong)


def test_lengths_of_passages_may_be_a_list():
    lengths, counts = PairEncoder(bert_tokenizer(), 64).sequence_lengths("w0", [3, 4], Windows())
    assert (lengths.tolist(), counts.tolist()) == ([7, 8], [1, 1])


def test_a_passage_without_any_token_is_blank():
    encoded = PairEncoder(bert_tokenizer(), 64).encode([("w0", " "), ("w0", text(200)), ("w0", "")], Windows(50, 10))
    assert encoded.blank.tolist() == [True, False, True]
    filled = encoded.filled()
    assert set(filled.owner.tolist()) == {1}
    assert len(filled.tokens) == len(filled.owner) == len(encoded.tokens) - 2
    plain = PairEncoder(bert_tokenizer(), 64).encode([("w0", "w1")], Windows())
    assert plain.filled() is plain


def test_what_is_read_of_a_query_is_never_more_than_there_is():
    encoder = PairEncoder(bert_tokenizer(), 512)
    (cut,) = encoder.encode([("w0" + " " * 200_000 + "w2", "w1")], Windows()).truncations
    assert cut == Truncation(-1, 1, 1, 1, exact=False)


def test_half_surrogates_are_read():
    encoded = PairEncoder(bert_tokenizer(), 64).encode([("w0 \ud800", "w1 \udfff")], Windows())
    assert encoded.tokens.ids.tolist() == [2, 4, 1, 3, 5, 1, 3]


def test_order_and_owners():
    pairs = [("w0", text(3)), ("w1", text(200)), ("w0", "")]
    encoded = PairEncoder(bert_tokenizer(), 64).encode(pairs, Windows(size=50, overlap=10))
    assert np.all(np.diff(encoded.owner) >= 0)
    assert set(encoded.owner.tolist()) == {0, 1, 2}


def test_nothing_to_encode():
    assert len(PairEncoder(bert_tokenizer(), 64).encode([], Windows()).tokens) == 0


@pytest.mark.parametrize("bad", [{"size": 0}, {"overlap": 400}, {"fold": "sum"}, {"most": 0}])
def test_impossible_windows(bad):
    with pytest.raises(InputError):
        Windows(**bad)


def by_hand(encoder, pairs, windows):
    """Sequences, types, owners and reports, one pair after the other: what the encoder does all at once."""
    t, rows, types, owner, cuts, reports = encoder.template, [], [], [], {}, []
    most = encoder.room // 2
    limits = (most + 1) * 24, max(windows.size * windows.most, encoder.room) * 24
    for position, pair in enumerate(pairs):
        words = [
            encoder._tokenizer.encode(side[:limit], add_special_tokens=False).ids
            for side, limit in zip(pair, limits, strict=True)
        ]
        whole = [len(side) <= limit for side, limit in zip(pair, limits, strict=True)]
        if len(words[0]) > most or not whole[0]:
            cuts[pair[0]] = Truncation(-1, len(words[0]), most, 1, whole[0])
        head, room = words[0][:most], encoder.room - min(len(words[0]), most)
        size = min(windows.size, room)
        overlap = min(windows.overlap, max(encoder.room // 4, size * windows.overlap // windows.size))
        places = [(0, len(words[1]))]
        if len(words[1]) > room:
            places = spans(len(words[1]), size, overlap)[: windows.most]
        if len(places) > 1 or places[-1][1] < len(words[1]) or not whole[1]:
            reports.append(Truncation(position, len(words[1]), places[-1][1], len(places), whole[1]))
        for start, stop in places:
            parts = (t.before, head, t.between, words[1][start:stop], t.after)
            rows.append([i for part in parts for i in part])
            types.append([kind for kind, part in zip(t.types, parts, strict=True) for _ in part])
            owner.append(position)
    return rows, types, owner, (*cuts.values(), *reports)


pairs_of_any_length = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 120)), max_size=12)


@given(pairs_of_any_length, st.integers(8, 64), st.integers(1, 6), st.sampled_from([bert_tokenizer, roberta_tokenizer]))
def test_all_at_once_is_one_after_the_other(counts, max_length, most, make):
    windows, encoder = Windows(size=10, overlap=3, most=most), PairEncoder(make(), max_length)
    pairs = [(text(query), text(passage)) for query, passage in counts]
    encoded = encoder.encode(pairs, windows)
    rows, types, owner, reports = by_hand(encoder, pairs, windows)
    want = Tokens.of(rows, types)
    for name in ("ids", "types", "offsets"):
        got = getattr(encoded.tokens, name)
        assert got.dtype == getattr(want, name).dtype
        np.testing.assert_array_equal(got, getattr(want, name))
    assert encoded.owner.tolist() == owner
    assert encoded.truncations == reports


@given(pairs_of_any_length, st.integers(8, 64))
def test_ids_of_an_index_stand_in_for_texts(counts, max_length):
    windows, encoder = Windows(size=10, overlap=3, most=4), PairEncoder(bert_tokenizer(), max_length)
    pairs = [(text(query), text(passage)) for query, passage in counts]
    stored = vocabulary.plain(bert_tokenizer())
    passages = Tokens.of([stored.encode(passage, add_special_tokens=False).ids for _, passage in pairs])
    from_ids = encoder.encode_tokens([query for query, _ in pairs], passages, windows)
    from_text = encoder.encode(pairs, windows)
    for name in ("ids", "types", "offsets"):
        np.testing.assert_array_equal(getattr(from_ids.tokens, name), getattr(from_text.tokens, name))
    np.testing.assert_array_equal(from_ids.owner, from_text.owner)
    # Ids are known to the end, texts only as far as they are tokenized.
    assert [(cut.position, cut.read, cut.windows) for cut in from_ids.truncations] == [
        (cut.position, cut.read, cut.windows) for cut in from_text.truncations
    ]


def test_every_text_is_tokenized_once():
    encoder = PairEncoder(bert_tokenizer(), 32)
    encoder._ids = spy = spies.Counting(encoder._ids)
    query_ids = {}
    first = encoder.encode([("w0", "w1"), ("w2", "w1"), (text(30), "w3")], Windows(), query_ids)
    assert sorted(spy.texts) == sorted(["w0", "w2", text(30), "w1", "w3"])
    assert [cut.position for cut in first.truncations] == [-1]
    spy.texts.clear()
    again = encoder.encode_tokens(["w0", text(30), "w9"], Tokens.of([[5], [6], []]), Windows(), query_ids)
    assert spy.texts == ["w9"]
    assert again.truncations == (), "a cut query is reported once"
    assert again.tokens.row(0).tolist() == [2, 4, 3, 5, 3]


def test_a_fingerprint_tells_tokenizers_apart():
    mine = PairEncoder(bert_tokenizer(), 32).fingerprint
    assert (
        mine == vocabulary.fingerprint(bert_tokenizer()) == vocabulary.fingerprint(vocabulary.plain(bert_tokenizer()))
    )
    padded = bert_tokenizer()
    padded.enable_padding()
    padded.enable_truncation(5)
    assert vocabulary.fingerprint(padded) == mine, "what a plain copy leaves out does not count"
    assert padded.truncation is not None, "and the caller's tokenizer is left alone"
    other = bert_tokenizer()
    other.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    assert vocabulary.fingerprint(other) != mine
    assert vocabulary.fingerprint(roberta_tokenizer()) != mine
