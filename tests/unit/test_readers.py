from __future__ import annotations

import gzip
import json
import os
import time
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossrank.errors import InputError, ReadError
from crossrank.index import sevenbit
from crossrank.index.documents import Document, Failure, Limits, plain_metadata
from crossrank.index.headings import sections
from crossrank.index.html import to_text
from crossrank.index.readers import count, find, read
from crossrank.index.rows import Rows

pa = pytest.importorskip("pyarrow", reason="needs the search extra")


def collect(path: Path, limits: Limits | None = None) -> tuple[list[Document], list[Failure]]:
    failures: list[Failure] = []
    return list(read(path, limits, failures.append)), failures


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def pdf(texts: list[str]) -> bytes:
    """A small PDF; a page without text for an empty string."""
    bodies = [f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else "" for text in texts]
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(texts)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(texts)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, body in enumerate(bodies):
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(body)} >>\nstream\n{body}\nendstream")
    out, places = "%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{text}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return (out + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}").encode()


# Files that are one document.


def test_text_files(tmp_path: Path) -> None:
    (document,), failures = collect(write(tmp_path / "a.txt", b"\xef\xbb\xbfOne\r\ntwo \xc3\xa9\r\n"))
    assert (document.id, document.text, document.title, failures) == ("a.txt", "One\ntwo é\n", "", [])
    assert document.metadata == {"path": "a.txt", "type": "txt"}
    assert collect(write(tmp_path / "a.MD", "# T\n"))[0][0].markup == "markdown"
    assert collect(write(tmp_path / "a.markdown", "# T\n"))[0][0].markup == "markdown"
    assert collect(write(tmp_path / "a.xhtml", "<p>T"))[0][0].markup == "html"
    assert collect(write(tmp_path / "a.rst", "T\n=\n"))[0][0].markup == "rst"


@pytest.mark.parametrize(
    ("field", "title"),
    [
        ("title: Onions: a guide ", "Onions: a guide"),
        ("title:\tC# in depth # a comment", "C# in depth"),
        ('title: "Peel \\\\ \\"them\\" # all"', 'Peel \\ "them" # all'),
        ("title: 'it''s'", "it's"),
        ("title: >-\n  Folded over\n  two lines", "Folded over two lines"),
        ("title: [a, b]", ""),
        ("title:", ""),
        ("title: ''", ""),
        ("title: ~", ""),
        ("title: null  # to do", ""),
        ("title: Null and void", "Null and void"),
        (r'title: "Caf\u00e9\n\ud83d\ude00 \x41\/B"', "Caf\u00e9 \U0001f600 A/B"),
        ("subtitle: x\nmeta:\n  title: y", ""),
    ],
)
def test_the_title_of_front_matter(tmp_path: Path, field: str, title: str) -> None:
    text = f"---\nlayout: page\n{field}\n---\ntitle: text\n"
    (document,), _ = collect(write(tmp_path / "a.md", text))
    assert document.title == title
    # YAML has no second colon, and no half characters: such a block stays in the text.
    wrong = any(sign in field for sign in (": a", r"\ud83d"))
    assert document.text.strip() == (text.strip() if wrong else "title: text")
    assert len(document.text) == len(text)
    assert collect(write(tmp_path / "b.md", f"\n{text}"))[0][0].title == ""
    assert collect(write(tmp_path / "c.txt", text))[0][0].title == ""


def test_front_matter_is_metadata_and_no_text(tmp_path: Path) -> None:
    # Its tags were found before the pages about them, and marked as the sentence that answers.
    text = """---
title: "Retries"
tags: [upload, api]
author: Refund Team   # who to ask
weight: 4
draft: false
lang: no
released: 2024-05-01
version: "1.10"
code: 007
type: faq
seo:
  keywords: [a, b]
---
# Uploads
A failed upload is retried.
"""
    (document,), _ = collect(write(tmp_path / "a.md", text))
    assert document.text.strip() == "# Uploads\nA failed upload is retried."
    assert document.metadata == {
        "tags": ["upload", "api"], "author": "Refund Team", "weight": 4, "draft": False, "lang": "no",
        "released": "2024-05-01", "version": "1.10", "code": "007", "seo": {"keywords": ["a", "b"]},
        "path": "a.md", "type": "md",
    }  # fmt: skip
    assert document.omitted == ["type"]
    # No place in the text has moved.
    assert document.text.index("A failed") == text.index("A failed")
    assert document.text.count("\n") == text.count("\n")
    (only,), _ = collect(write(tmp_path / "b.md", "---\nlayout: page\n---"))
    assert (only.text.strip(), only.metadata["layout"]) == ("", "page")
    (odd,), _ = collect(write(tmp_path / "c.md", "---\ntitle: [a, b]\n---\ntext"))
    assert (odd.title, odd.metadata["title"]) == ("", ["a", "b"])


LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghij")
)


@pytest.mark.parametrize(
    "block",
    [
        "Some text between two rules.\n",
        "# A heading\n\n\nA text.\n",
        "- a\n- list\n",
        "title: Onions: a guide\n",
        "a: !python/object/apply:os.getcwd []\n",
        "a: &a [*a]\n",
        LAUGHS,
        "a: " + "[" * 20_000 + "\n",
        "- " * 20_000 + "\n",
        "a: " + "9" * 10_000 + "\n",
        "? [a, b]\n: c\n",
        "a: !!bool maybe\n",
        'a: !!int ""\n',
        "a: !!timestamp 2024-05-40\n",
        "a: [\n",
        "".join(f"k{number}: v\n" for number in range(10_000)),
    ],
)
def test_what_only_looks_like_front_matter_stays_in_the_text(tmp_path: Path, block: str) -> None:
    text = f"---\n{block}---\nPeel them.\n"
    began = time.process_time()
    (document,), _ = collect(write(tmp_path / "a.md", text))
    assert (document.text, document.metadata) == (text, {"path": "a.md", "type": "md"})
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("content", "cure"),
    [
        (b"caf\xe9", "save it as UTF-8"),
        ("caf\u00e9".encode("utf-16"), "iconv -f UTF-16"),
        (b"\x7fELF\0\0\0", "binary"),
    ],
)
def test_what_is_not_utf8_names_the_cure(tmp_path: Path, content: bytes, cure: str) -> None:
    with pytest.raises(ReadError, match=cure):
        collect(write(tmp_path / "a.txt", content))


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.txt"
    with path.open("wb") as file:
        file.truncate(50 * 2**20)
    with pytest.raises(ReadError, match=r"split it, or in Python raise Limits\.file_bytes"):
        collect(path)
    path.rename(tmp_path / "big.pdf")
    with pytest.raises(ReadError, match=r"larger than 33,554,432 bytes: take out its text with `pdftotext`"):
        collect(tmp_path / "big.pdf")
    assert collect(write(tmp_path / "b.txt", "x" * 100), Limits(file_bytes=100))[0]
    with pytest.raises(InputError, match="at least 1"):
        Limits(file_bytes=0)


def test_html() -> None:
    page = """<!doctype html><html><head><title> My
      page </title><style>p { color: red }</style><script>var x = "<p>no</p>"</script></head><body>
      <nav>Home | About</nav><h1>Top</h1><p>One <b>bold</b>&nbsp;word.<br>Next</p><h2>Sub</h2>
      <ul><li>first</li><li>second</li></ul><pre>def f():
# comment
    return 1</pre><table><tr><td>a</td><td>b</td></tr></table></body></html>"""
    title, text = to_text(page)
    assert title == "My page"
    assert text.startswith("# Top\n\nOne bold word.\nNext")
    assert "## Sub" in text
    assert "- first\n- second" in text
    assert "    # comment\n    return 1" in text
    assert "a b" in text
    assert not {"red", "var", "Home"} & set(text.split())


def test_html_that_is_broken_still_has_its_text() -> None:
    assert to_text("<p>a<nav>menu<p>never closed")[1].split() == ["a", "menu", "never", "closed"]
    assert to_text("<title>t</title>no head <b>at all")[1] == "no head at all"
    assert to_text("<head><meta charset=utf-8><body>text")[1] == "text"
    assert to_text("<div>" * 50_000 + "deep")[1] == "deep"
    assert to_text("1 < 2 & <3 > &lt;b&gt; <!-- never closed")[1] == "1 < 2 & <3 > <b> never closed"
    assert to_text("a<!-->b<!--->c<!-- d -->e")[1] == "abce"
    assert to_text('<a title="a > b" href=\'x>y\'>link</a> <a title="never closed>text</a>')[1] == "link text"
    assert to_text("<script>if (a < b) { '</p>' }</SCRIPT>after<style>x")[1] == "after"
    assert to_text(f"&#{'9' * 5000}; &#x41; &eacute; &nosuch;")[1] == "\ufffd A é &nosuch;"


def test_drawings_give_a_page_neither_title_nor_an_end() -> None:
    icon = "<svg><title>Icon</title><path/></svg>"
    assert to_text(f"<p>{icon}Soup") == ("", "Soup")
    assert to_text(f"{icon}<title>Onions</title><p>Soup") == ("Onions", "Soup")
    assert to_text("<nav>Home</nav><p>Onion<svg/>soup<noscript>Script!</noscript>") == ("", "Onion soup")


@pytest.mark.parametrize(
    "unit", ["<", "<!", "<?", "</", "<a ", '<a b="', "<a b='>", "<!--", "&", "&#x", "<script>", "<![CDATA[", "<nav>"]
)
def test_html_takes_linear_time(unit: str) -> None:
    began = time.process_time()
    to_text(unit * 100_000)
    assert time.process_time() - began < 5


@settings(max_examples=200)
@given(st.text(st.sampled_from("ab <>/!-?\"'=&#;pre title\n"), max_size=200))
def test_html_never_raises(page: str) -> None:
    title, text = to_text(page)
    assert (title, text) == (title.strip(), text.strip("\n").rstrip())
    assert "\n\n\n" not in text
    assert "\0" not in text


def test_html_headings_are_those_of_the_page() -> None:
    def headings(page: str) -> list[str]:
        return [" > ".join(section.path) for section in sections(to_text(page)[1] + "\nx", "html") if section.path]

    assert headings("<p># not a heading</p><p>  ## nor<b> this</b></p><div>#<b> nor</b> that</div>") == []
    assert headings("<table><tr><th># of users</th><th>n</th></tr></table><pre>x\n # y\n</pre>\0# z&#0;") == []
    assert headings("<h2><div>Install</div></h2><p>a") == ["Install"]
    assert headings("<h2><a href=#x><svg><path></svg></a>Install<br>it</h2>a<h3> <p>On</p>Linux</h3>") == [
        "Install it",
        "Install it > On",
    ]
    assert headings("<h2></h2><p>no heading</p><h2><div></div></h2>none<h2>C #</h2>a") == ["C #"]
    assert headings("<h2>never closed<p>text<br>more<h3>B") == ["never closed", "never closed > B"]


def test_html_lists_words_and_code() -> None:
    assert to_text("<ul><li><p>one</p></li><li> <div><b>two</b><p>3</div></li><li></li></ul><p>-</p>")[1] == (
        "- one\n\n- two\n\n3\n\n-"
    )
    assert to_text("<ol><li></ol><p>text<ul><li></li>bare")[1] == "text\n\nbare"
    assert to_text("<select><option>Germany</option><option>France</select>")[1] == "Germany France"
    assert to_text("a<button>Save</button>b<label>Name</label><input>c")[1] == "a Save b Name c"
    assert to_text("<fieldset>a<legend>b</legend>c</fieldset><table>d<caption>e</caption><tr><td>f")[1].split() == (
        list("abcdef")
    )
    assert to_text("<title>Do&shy;nau</title>hy\u00adphen&#173;ation")[1:] == ("hyphenation",)
    assert to_text("<title>Do&shy;nau</title>")[0] == "Donau"
    assert to_text("<p>x <b> y</b><pre>  if a:\n    b\n c</pre>")[1] == "x y\n\n  if a:\n    b\n c"
    assert to_text("<pre> a\n   b</pre>")[1] == " a\n   b"


@pytest.mark.parametrize(
    "name",
    ["undefined", "idna", "nonsense", "base64", "unicode_escape", "raw_unicode_escape", "charmap", "utf-7", "utf-16"],
)
def test_html_in_an_encoding_that_is_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(ReadError, match="not UTF-8"):
        collect(write(tmp_path / "a.html", f'<meta charset="{name}">caf'.encode() + b"\xe9" + b"x" * 80))


def test_html_in_the_encoding_it_names(tmp_path: Path) -> None:
    page = b'<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1"><p>caf\xe9'
    assert collect(write(tmp_path / "a.html", page))[0][0].text == "café"
    with pytest.raises(ReadError, match="not UTF-8"):
        collect(write(tmp_path / "b.html", b"<p>caf\xe9"))


@pytest.mark.parametrize(
    ("label", "raw", "text"),
    [
        ("iso-8859-1", b"\x93don\x92t\x94 \x80 5 \x81", "“don’t” € 5 \x81"),
        ("US-ASCII", b"\x96 \xe9", "– é"),
        ("x-cp1252", b"\x97", "—"),
        ("iso-8859-9", b"\x80 \xfe", "€ ş"),
        ("iso-8859-15", b"\xa4", "€"),
        ("gb2312", "朱镕基".encode("gbk"), "朱镕基"),
        ("shift_jis", "①髙".encode("cp932"), "①髙"),
        ("x-sjis", "①".encode("cp932"), "①"),
        ("windows-31j", "①".encode("cp932"), "①"),
        ("ks_c_5601-1987", "똠".encode("cp949"), "똠"),
        ("Big5", "中①".encode("big5hkscs"), "中①"),
        ("koi8-r", "да".encode("koi8-r"), "да"),
    ],
)
def test_html_in_an_encoding_as_browsers_read_it(tmp_path: Path, label: str, raw: bytes, text: str) -> None:
    page = f"<meta charset='{label}'><pre>".encode() + raw
    assert collect(write(tmp_path / "a.html", page))[0][0].text == text
    page = f'<?xml version="1.0" encoding="{label}"?><pre>'.encode() + raw
    assert collect(write(tmp_path / "b.html", page))[0][0].text == text


@pytest.mark.parametrize(
    ("label", "codec", "text"),
    [
        ("ISO-2022-JP", "iso2022_jp", "日本語の全文検索"),
        ("iso-2022-jp-2", "iso2022_jp_2", "日本 한국"),
        ("csISO2022JP", "iso2022_jp_ext", "日本ｱｲｳ"),
        ("iso-2022-kr", "iso2022_kr", "한국어 문서"),
        ("hz-gb-2312", "hz", "中文文件"),
    ],
)
def test_seven_bit_encodings_are_read(tmp_path: Path, label: str, codec: str, text: str) -> None:
    """They are valid UTF-8, and were indexed as what they look like there: $BF|K."""
    raw = f"<p>{text}</p>\r\n<p>end".encode(codec)
    head = f"<meta charset='{label}'>".encode()
    assert collect(write(tmp_path / "a.html", head + raw))[0][0].text == f"{text}\n\nend"
    if codec != "hz":  # Which has no escape sequences.
        for name in ("a.txt", "a.md"):
            assert collect(write(tmp_path / name, f"{text}\nend".encode(codec)))[0][0].text == f"{text}\nend"
        assert collect(write(tmp_path / "b.html", raw))[0][0].text == f"{text}\n\nend"


def test_letters_that_only_windows_has_in_iso_2022_jp(tmp_path: Path) -> None:
    raw = "日本".encode("iso2022_jp")[:-3] + b"-!\x1b(I1\x1b(B end"
    assert collect(write(tmp_path / "a.txt", raw))[0][0].text == "日本①ｱ end"


@pytest.mark.parametrize("unit", ["\x1b(I!", "\x1b$B!!", "\x1b$B!!\x1b(B", "\x1b$B!!\n", "\x1b(B"])
def test_letters_that_only_windows_has_take_linear_time_and_memory(unit: str) -> None:
    raw = unit.encode() * (2**21 // len(unit)) + b"\x1b$B-!"
    began = time.process_time()
    tracemalloc.start()
    try:
        text = sevenbit.decoded(raw)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert text is not None
    assert text.endswith("①")
    assert most < 12 * 2**20
    assert time.process_time() - began < 5


def test_what_is_no_seven_bit_encoding_is_left_alone(tmp_path: Path) -> None:
    colours = "\x1b[31mred\x1b[0m \x1b(B\x1b(0"
    assert collect(write(tmp_path / "log.txt", colours.encode()))[0][0].text == colours
    page = "<meta charset='iso-2022-jp'><p>日本".encode()
    assert collect(write(tmp_path / "a.html", page))[0][0].text == "日本", "it is UTF-8, whatever it says"
    assert collect(write(tmp_path / "b.html", b"<meta charset=hz-gb-2312><p>~ 5"))[0][0].text == "~ 5"
    with pytest.raises(ReadError, match="ISO-2022, as its escape sequences say"):
        collect(write(tmp_path / "c.txt", b"\x1b$)A\x0e1!\x0f"))


def test_tsv_is_indexed_where_it_names_a_column_of_texts(tmp_path: Path) -> None:
    """BEIR's judgments lie beside the corpus in such files, and a table of numbers has nothing to read."""
    held = {
        "set/corpus.tsv": "_id\ttitle\ttext\tyear\n1\tT, U; V\ta, b; c\t2020\n",
        "set/queries.tsv": "_id\ttext\nq1\twhat\n",
        "set/qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\t1\t1\n",
        "set/qrels/dev.tsv": "q1\t0\t1\t1\nq2\t0\t1\t0\n",
        "notes.TSV": '\n\ufeff Body\t"tag, other"\nwords\tx\n',
        "bare.tsv": "0\tThe presence of text.\n",
        "empty.tsv": "",
    }
    for name, content in held.items():
        write(tmp_path / name, content)
    found = find([tmp_path])
    base = tmp_path.name
    assert [source.name for source in found.sources] == [f"{base}/notes.TSV", f"{base}/set/corpus.tsv"]
    assert found.passed_over == {".tsv without a text column": 4}
    (document,), failures = collect(tmp_path / "set/corpus.tsv")
    assert (document.id, document.title, document.text) == ("1", "T, U; V", "a, b; c")
    assert (document.metadata, failures) == ({"year": 2020}, [])
    for name in ("set/qrels/test.tsv", "set/qrels/dev.tsv", "bare.tsv"):
        with pytest.raises(ReadError, match="has no text column: name it one of text"):
            collect(tmp_path / name)


def test_folders_of_programs_and_indexes_are_left_out_and_counted(tmp_path: Path) -> None:
    """A project's own README would stand beside those of all that it installs."""
    for name in (
        "a.md", "web/node_modules/left-pad/README.md", "src/node_modules/x.md", "src/__pycache__/notes.txt",
        ".git/description.txt", "docs.index/passages.lance/data/a.lance", "docs.index/passages.lance/x.txt",
        "docs.index/writer.lock", "old/writer.lock", "table.lance/_versions/1.manifest", "a.png", "b.png",
    ):  # fmt: skip
        write(tmp_path / name, "words")
    found = find([tmp_path])
    assert [source.name for source in found.sources] == [f"{tmp_path.name}/a.md"]
    assert list(found.passed_over.items()) == [
        ("index or Lance table", 2), ("node_modules folder", 2), ("__pycache__ folder", 1), (".png", 2), (".lock", 1),
    ]  # fmt: skip
    # Whoever names such a folder means it; an index has nothing to read in any case.
    assert [source.name for source in find([tmp_path / "src/node_modules"]).sources] == ["node_modules/x.md"]
    assert find([tmp_path / "docs.index"]).sources == ()


@pytest.mark.parametrize(
    "content",
    [
        "id\ttext\n1\tGrüße\n".encode("utf-16"),
        "id\ttext\n1\tGrüße\n".encode("utf-16-le"),
        "id\tgröße\n1\tx\n".encode("latin-1"),
        "id\t本文\n1\tx\n".encode("iso2022_jp"),
        "".join(f"column{number}\t" for number in range(20_000)) + "text\n1\n",
        "".join(f"column{number}\t" for number in range(200_000)) + "text\n1\n",
        "id\ttext\r1\ttea\r",
        "id\rof it\ttext\n1\ttea\n",
        'id\t"text\n1\ttea\n',
        '"id\nof it"\ttext\n1\ttea\n',
        'id\t"title\tnotes\n1\t2"\n',
    ],
)
def test_a_tsv_whose_columns_are_uncertain_is_not_passed_over(tmp_path: Path, content: str | bytes) -> None:
    """What is passed over leaves an index, so it must be sure that nothing is there to read."""
    write(tmp_path / "a.tsv", content)
    assert ([len(found := find([tmp_path]).sources), found[0].path.name], find([tmp_path]).passed_over) == (
        [1, "a.tsv"],
        {},
    )


def test_a_tsv_is_opened_once_and_only_where_it_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes into the pipe, so whoever opens it waits for ever."""
    judged = write(tmp_path / "a/judged.tsv", "q\td\t1\n")
    os.mkfifo(tmp_path / "a/pipe.tsv")
    (tmp_path / "a/device.tsv").symlink_to("/dev/zero")
    (tmp_path / "a/same.tsv").symlink_to(judged)
    opened: list[Path] = []
    monkeypatch.setattr("crossrank.index.readers.has_texts", lambda path: opened.append(path) or False)
    found = find([tmp_path / "a", tmp_path])
    assert (opened, found.passed_over) == ([judged], {".tsv without a text column": 1})
    assert [source.path for source in find([tmp_path, judged, judged]).sources] == [judged], "it was named"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_table_in_iso_2022_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    separator = "," if name == "a.csv" else "\t"
    raw = f"id,text\n1,{'x' * 90}日本の猫\n".replace(",", separator).encode("iso2022_jp")
    path = write(tmp_path / name, raw)
    for size in (1, 2, 3, 2**20):
        monkeypatch.setattr("crossrank.index.readers._BYTES_AT_ONCE", size)
        with pytest.raises(ReadError, match=rf"{name} is written in ISO-2022, as its escape sequences say"):
            collect(path)
    (document,), _ = collect(write(path, raw + "ü".encode()))
    assert "\x1b$B" in document.text, "UTF-8 with an escape sequence is UTF-8"


@pytest.mark.parametrize(
    ("lines", "texts"),
    [
        (['"Hello," he said\ta', 'b\t"'], ['"Hello," he said', "b"]),
        (['"Reset the token\ta', "Bread\tb", 'say "x"\tc'], ['"Reset the token', "Bread", 'say "x"']),
        (['a\t"open', 'b\tclosed"'], ["a", "b"]),
        (['"one\ttab"\ta', '"Bo ""B"" Day"\tb'], ["one\ttab", 'Bo "B" Day']),
        (['"two', "", 'lines"\ta', 'c\t"more', 'lines"', "d\te"], ["two\n\nlines", "c", "d"]),
        (['"never closed\ta', *["b\tc"] * 9], ['"never closed', *"b" * 9]),
        (['"a"b"\ta', '""\tb', '""x\tc', '"\td'], ['"a"b"', "", '""x', '"']),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_quotes_of_tsv(tmp_path: Path, lines: list[str], texts: list[str], end: str) -> None:
    """Corpora in .tsv files know no quotes, and spreadsheets put them around cells that hold tabs or line ends."""
    documents, failures = collect(write(tmp_path / "a.tsv", end.join(["text\tmore", *lines])))
    assert ([document.text for document in documents], failures) == ([text.replace("\n", end) for text in texts], [])


def test_rows_of_tsv(tmp_path: Path) -> None:
    content = "\ufeff\n id \ttext\tyear\n\n1\t one \t2020\n2\ttoo few\n3\tthree\t007\n"
    documents, (failure,) = collect(write(tmp_path / "a.tsv", content))
    assert [(found.id, found.text, found.metadata, found.row) for found in documents] == [
        ("1", "one", {"year": 2020}, "row 1"),
        ("3", "three", {"year": "007"}, "row 3"),
    ]
    assert failure == Failure(f"{tmp_path}/a.tsv, row 2", "has 2 cells, but the header names 3 columns")
    for bad, cure in (
        ("\n\n", "nothing to index"),
        ("a\tb\n1\t2\n", "name it one of text"),
        ("text\ttext\n1\t2\n", "rename one"),
        (b"text\ncaf\xe9\n", "not UTF-8"),
        ("id\ttext\n1\tx\n".encode("utf-16-le"), "not UTF-8"),
        ("text\n" + "x" * 5000 + "\n", "raise Limits.row_bytes"),
    ):
        with pytest.raises(ReadError, match=cure):
            collect(write(tmp_path / "a.tsv", bad), Limits(row_bytes=1000))


@pytest.mark.parametrize("row", ['1\t"open "" and\tx', 'b"\t"c\t"d', '"\t"\t"', '"""\tb\tc'])
def test_quotes_of_tsv_take_linear_time(tmp_path: Path, row: str) -> None:
    began = time.process_time()
    documents, _ = collect(write(tmp_path / "a.tsv", "\n".join(["id\ttext\tmore", *[row] * 20_000])))
    assert len(documents) == 20_000
    assert time.process_time() - began < 10


def test_pdf(tmp_path: Path) -> None:
    pytest.importorskip("pypdf", reason="needs the search extra")
    (document,), _ = collect(write(tmp_path / "a.pdf", pdf(["First page.", "", "Third page."])))
    assert document.text == "First page.\n\nThird page."
    with pytest.raises(ReadError, match="run OCR over it"):
        collect(write(tmp_path / "scan.pdf", pdf(["", ""])))
    with pytest.raises(ReadError, match="damaged or not a PDF"):
        collect(write(tmp_path / "bad.pdf", b"%PDF-1.4\nnothing"))
    with pytest.raises(ReadError, match=r"raise Limits\.text_characters"):
        collect(tmp_path / "a.pdf", Limits(text_characters=15))


# Files of rows.


def test_jsonl_rows(tmp_path: Path) -> None:
    lines = [
        {"_id": "7", "title": "T", "text": "body", "metadata": {"year": 2020, "tags": ["a"]}, "lang": "en"},
        {"id": 8, "Content": "generic"},
        {"body": "no id"},
    ]
    path = write(tmp_path / "rows.jsonl", "\ufeff" + "\n\n".join(map(json.dumps, lines)))
    documents, failures = collect(path)
    assert failures == []
    assert [(d.id, d.title, d.text) for d in documents] == [
        ("7", "T", "body"),
        ("8", "", "generic"),
        ("rows.jsonl#5", "", "no id"),
    ]
    assert documents[0].metadata == {"lang": "en", "year": 2020, "tags": ["a"]}
    assert documents[0].omitted == []
    assert [d.text for d in collect(write(tmp_path / "a.ndjson", path.read_bytes()))[0]] == ["body", "generic", "no id"]
    packed = write(tmp_path / "rows.jsonl.gz", gzip.compress(path.read_bytes()))
    assert [d.text for d in collect(packed)[0]] == ["body", "generic", "no id"]


def test_of_fields_that_differ_in_case_one_that_holds_something_is_read(tmp_path: Path) -> None:
    rows = [{"text": "Bread", "Text": "", "id": "7", "ID": None}, {"TEXT": "Tea", "text": "", "Id": "8", "id": "9"}]
    documents, failures = collect(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))))
    assert ([(one.id, one.text) for one in documents], failures) == ([("7", "Bread"), ("9", "Tea")], [])
    for header in ("id,text,Text", "text,Id,id"):
        with pytest.raises(ReadError, match="two columns of the same name"):
            collect(write(tmp_path / "a.csv", f"{header}\n1,2,3\n"))
    assert collect(write(tmp_path / "a.csv", "text,Year,year\na,1,2\n"))[0][0].metadata == {"Year": 1, "year": 2}


def test_a_title_is_a_text_or_a_number(tmp_path: Path) -> None:
    rows = [{"text": "x", "title": title} for title in (["A", "B"], {"en": "A"}, 1984)]
    (document,), failures = collect(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))))
    assert document.title == "1984"
    assert [one.reason for one in failures] == [f"its 'title' is a {kind}, not a string" for kind in ("list", "dict")]


def test_a_field_of_the_row_goes_before_one_in_its_metadata(tmp_path: Path) -> None:
    row = {"id": "a", "text": "tea", "year": 2020, "lang": "en", "metadata": {"year": 1999, "lang": "en", "n": 1}}
    (document,) = read(write(tmp_path / "a.jsonl", json.dumps(row)))
    assert (document.metadata, document.omitted) == ({"year": 2020, "lang": "en", "n": 1}, ["metadata.year"])


def test_a_field_that_holds_nothing_gives_way_to_the_next(tmp_path: Path) -> None:
    lines = [
        '{"_id": "", "id": "real", "text": null, "body": "one"}',
        '{"_id": NaN, "contents": "two"}',
        '{"id": 0, "content": "", "text": ""}',
        '{"_id": "a", "id": "b", "text": "three", "body": "more"}',
    ]
    documents, failures = collect(write(tmp_path / "a.jsonl", "\n".join(lines)))
    assert failures == []
    assert [(document.id, document.text, dict(document.metadata)) for document in documents] == [
        ("real", "one", {}),
        ("a.jsonl#2", "two", {}),
        ("0", "", {}),
        ("a", "three", {"id": "b", "body": "more"}),
    ]


def test_bad_lines_are_reported_and_the_rest_is_read(tmp_path: Path) -> None:
    lines = [
        b'{"text": "good"}',
        b"{not json}",
        b'["a list"]',
        b'{"text": 5}',
        b'{"words": "x"}',
        b'{"text": "caf\xe9"}',
        b"[" * 100_000,
        b'{"text": "' + b"x" * 3000 + b'"}',
        b'{"text": "lone \\ud800 surrogate"}',
    ]
    documents, failures = collect(write(tmp_path / "a.jsonl", b"\n".join(lines)), Limits(row_bytes=200_000))
    assert [d.text[:4] for d in documents] == ["good", "xxxx", "lone"]
    assert documents[2].text == "lone \ufffd surrogate"
    reasons = {failure.source.rsplit(" ", 1)[1]: failure.reason for failure in failures}
    assert list(reasons) == ["2", "3", "4", "5", "6", "7"]
    assert "not JSON" in reasons["2"]
    assert "list" in reasons["3"]
    assert "not a string" in reasons["4"]
    assert "text, content, contents, body, passage" in reasons["5"]
    assert "not UTF-8" in reasons["6"]
    with pytest.raises(ReadError, match="line 2"):
        list(read(tmp_path / "a.jsonl"))


def test_a_line_of_50_mb_costs_no_more_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "before"}\n')
        for _ in range(50):
            file.write(b"x" * 2**20)
        file.write(b'\n{"text": "after"}\n')
    documents, failures = collect(path)
    assert [d.text for d in documents] == ["before", "after"]
    assert failures[0].source.endswith("line 2")
    assert "raise Limits.row_bytes" in failures[0].reason


def test_damaged_compression_is_told(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b'{"text": "x"}\n' * 9))
    packed[10:20] = b"\xff" * 10
    (source,) = find([write(tmp_path / "a.jsonl.gz", bytes(packed))]).sources
    assert count(source) == 0
    with pytest.raises(ReadError, match="cannot be read"):
        list(read(source))


def test_failures_do_not_flood(tmp_path: Path) -> None:
    documents, failures = collect(write(tmp_path / "a.jsonl", "no\n" * 1000))
    assert documents == []
    assert len(failures) == 21
    assert failures[-1].reason == "980 more rows could not be read"


def test_csv_rows(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        '\ufeffid,title,text,year,code,ok\n1,"A, B","two\nlines",2020,007,true\n2,,café,,x,no\n3,only three\n',
    )
    documents, failures = collect(path)
    assert [(d.id, d.title, d.text) for d in documents] == [("1", "A, B", "two\nlines"), ("2", "", "café")]
    assert documents[0].metadata == {"year": 2020, "code": "007", "ok": True}
    assert documents[1].metadata == {"year": None, "code": "x", "ok": "no"}
    assert failures[0].source.endswith("row 3")
    assert [failure.reason for failure in failures] == ["has 2 cells, but the header names 6 columns"]
    semicolons = write(tmp_path / "b.csv", "id;body\n9;semi, colons\n")
    assert collect(semicolons)[0][0].text == "semi, colons"


def test_refused_csv_rows_keep_their_numbers(tmp_path: Path) -> None:
    rows = "".join("x" * 20 + (",y\n" if number in (1, 3, 4, 9) else "\n") for number in range(1, 10))
    documents, failures = collect(write(tmp_path / "a.csv", "text\n" + rows), Limits(row_bytes=100))
    assert [document.id for document in documents] == [f"a.csv#{number}" for number in (2, 5, 6, 7, 8)]
    assert [failure.source.rpartition(" ")[2] for failure in failures] == ["1", "3", "4", "9"]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("\n\r\nid,text,year\n1,one,2020\n", "year"),
        ("\ufeffid, text, year\n1, one, 2020\n", "year"),
        ('id,text,"year\nof, birth"\n1,one,2020\n', "year\nof, birth"),
        ('id,text,5" pipe\n1,one,2020\n', '5" pipe'),
        ('id, "text", "5"" pipe"\n1, "one", "2020"\n', '5" pipe'),
    ],
)
def test_csv_headers(tmp_path: Path, content: str, name: str) -> None:
    (document,), failures = collect(write(tmp_path / "a.csv", content))
    assert failures == []
    assert (document.id, document.text, document.metadata) == ("1", "one", {name: 2020})


@pytest.mark.parametrize(
    ("content", "cure"),
    [
        ('"text,a\n1,2\n', "line 1: the quote that opens a cell here"),
        ("\n\n", "nothing to index"),
        ("text, text\n1,2\n", "rename one"),
        ("a,b\n1,2\n", "name it one of text, content, contents, body, passage"),
        ("text,text\n1,2\n", "rename one"),
        ("", "nothing to index"),
        (b"text\ncaf\xe9\n", "not UTF-8"),
        ("text\n" + "x" * 5000 + "\n", "raise Limits.row_bytes"),
    ],
)
def test_bad_csv(tmp_path: Path, content: str | bytes, cure: str) -> None:
    with pytest.raises(ReadError, match=cure):
        collect(write(tmp_path / "a.csv", content), Limits(row_bytes=1000))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('1,The login fails.\n2,"Reset the token\n3,Bread needs yeast.\n4,Tax law of 1990.\n', 3),
        ('1,"two\nlines"\n2,"Reset the token\n3,"Bread needs yeast."\n4,x\n', 4),  # Closed by the next row's quote.
        ('1,"a ""b\n2,c\n', 2),
        ('1,"a""\n2,c\n', 2),
        ('1,a\r\n2,"', 3),
    ],
)
def test_a_quote_that_is_not_closed_is_refused(tmp_path: Path, rows: str, line: int, separator: str) -> None:
    path = write(tmp_path / "a.csv", ("\ufeff" + '"id",text\n' + rows).replace(",", separator))
    with pytest.raises(ReadError, match=rf"a\.csv, line {line}: the quote that opens a cell here is not closed"):
        collect(path)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 2**20])
def test_quotes_that_are_closed_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("crossrank.index.arrow._BYTES_AT_ONCE", size)
    texts = ["", '"', '"', 'a "b"\nc, "', '5" pipe', 'pipe 5"', 'a""', 'b c"', "x\ry"]
    cells = ['""', '""""', '"""",', '"a ""b""\nc, """', '5" pipe', 'pipe 5"', 'a""', '"b "c"', '"x\ry"']
    content = '"text",more\n' + "\r\n".join(cell if cell.endswith(",") else f"{cell},1" for cell in cells)
    documents, failures = collect(write(tmp_path / "a.csv", content))
    assert [document.text for document in documents] == texts
    assert failures == []


def test_parquet_rows(tmp_path: Path) -> None:
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    table = pa.table({"_id": [1, 2], "passage": ["one", None], "score": [0.5, None], "vector": [[0.1] * 500] * 2})
    pyarrow.parquet.write_table(table, path)
    documents, failures = collect(path)
    assert [(d.id, d.text, dict(d.metadata)) for d in documents] == [
        ("1", "one", {"score": 0.5}),
        ("2", "", {"score": None}),
    ]
    assert failures == []
    pyarrow.parquet.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(ReadError, match="no text column"):
        collect(path)
    with pytest.raises(ReadError, match="not a Parquet file"):
        collect(write(tmp_path / "b.parquet", "PAR1 no PAR1"))


def test_times_that_python_cannot_hold_are_read(tmp_path: Path) -> None:
    import pyarrow.parquet

    far, fine = 253_402_300_800_000, 1_700_000_000_000_000_001  # The year 10000, and one nanosecond.
    table = pa.table(
        {
            "text": ["one", "two"],
            "far": pa.array([far, 0], pa.timestamp("ms")),
            "fine": pa.array([fine, None], pa.timestamp("ns", tz="UTC")),
            "times": pa.array([[far], []], pa.list_(pa.timestamp("ms"))),
            "took": pa.array([1, None], pa.duration("ns")),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    (first, second), failures = collect(tmp_path / "a.parquet")
    assert failures == []
    assert first.metadata == {
        # As the others of the column are spelled.
        "far": "10000-01-01T00:00:00",
        "fine": "2023-11-14T22:13:20.000000001+00:00",
        "times": ["10000-01-01T00:00:00"],
        "took": first.metadata["took"],
    }
    assert second.metadata == {"far": "1970-01-01T00:00:00", "fine": None, "times": [], "took": None}


def test_decimals_are_numbers() -> None:
    from decimal import Decimal

    given = {"price": Decimal("9.50"), "count": Decimal("12"), "nan": Decimal("NaN"), "huge": Decimal(2**70)}
    made = plain_metadata(given)
    assert made == {"price": 9.5, "count": 12, "nan": None, "huge": str(2**70)}
    assert plain_metadata({"prices": [Decimal("9.50")]}) == {"prices": [9.5]}


def test_metadata_of_every_kind() -> None:
    import datetime

    given = {
        1: 2**70,
        "d": datetime.date(2020, 1, 2),
        "n": float("inf"),
        "long": list(range(1000)),
        "t": True,
        "z": None,
    }
    assert plain_metadata(given) == {"1": str(2**70), "d": "2020-01-02", "n": None, "t": True, "z": None}


def test_metadata_of_numpy_and_of_subclasses_is_plain() -> None:
    import enum

    size = enum.IntEnum("size", {"LARGE": 3})
    kind = enum.Enum("kind", {"A": "x"}, type=str)
    given = {
        "int": (np.int64(2020), 2020),
        "huge": (np.uint64(2**63), str(2**63)),
        "float": (np.float64(0.5), 0.5),
        "half": (np.float16(0.5), 0.5),
        "nan": (np.float32("nan"), None),
        "bool": (np.bool_(True), True),
        "str": (np.str_("x"), "x"),
        "bytes": (np.bytes_(b"x"), None),
        "time": (np.datetime64("2020-01-02T03", "ns"), "2020-01-02T03:00:00.000000000"),
        "list": ([np.int64(1), np.float32(0.5), kind.A], [1, 0.5, "x"]),
        "size": (size.LARGE, 3),
        "kind": (kind.A, "x"),
    }
    made = plain_metadata({name: value for name, (value, _) in given.items()})
    assert made == {name: want for name, (_, want) in given.items() if name != "bytes"}
    plain = (int, float, bool, str, list, type(None))
    assert all(type(value) in plain for value in made.values())


def test_what_tables_have_in_place_of_a_value_is_none() -> None:
    """As text a NaT would be a date after all others, and a document's title or id."""
    from decimal import Decimal

    # As pandas calls them, which need not be installed. Its NA compares with nothing.
    na, nat = (
        type("NAType", (), {"__eq__": None, "__ne__": None, "__str__": lambda _: "<NA>"})(),
        type("NaTType", (), {})(),
    )
    missing = [
        None,
        float("nan"),
        np.float32("nan"),
        np.datetime64("NaT"),
        np.timedelta64("NaT"),
        Decimal("sNaN"),
        na,
        nat,
    ]
    assert plain_metadata(dict(enumerate(missing))) == {str(place): None for place in range(len(missing))}
    # Python's own float stays in a list, where JSON reads it as none.
    assert plain_metadata({"when": missing}) == {"when": [None] * len(missing)}
    times = np.array(["2020-01-02", "NaT"], dtype="datetime64[D]")
    assert plain_metadata({"when": times}) == {"when": ["2020-01-02", None]}
    for value in missing:
        row = {"id": value, "_id": "7", "text": value, "body": "Tea.", "title": value}
        made = Rows("a", "a", Limits(), lambda _: None).document(row, 1)
        assert made is not None
        assert (made.id, made.text, made.title, made.metadata) == ("7", "Tea.", "", {})


def test_metadata_that_json_cannot_hold_names_its_field() -> None:
    endless: list[object] = []
    endless.append(endless)
    for value in ({(1, 2): 3}, endless):
        with pytest.raises(InputError, match="field 'k' cannot be kept"):
            plain_metadata({"k": value})
    # In a file, only the row is lost.
    failures: list[Failure] = []
    assert Rows("a", "a", Limits(), failures.append).document({"text": "x", "k": endless}, 7) is None
    assert [failure.source for failure in failures] == ["a, row 7"]


def test_long_texts_are_no_metadata(tmp_path: Path) -> None:
    """Every passage holds a copy: one row with the source of its page ended a whole run at 2 GB."""
    fields = {"html": "<" * 32_001, "note": "é" * 32_000, "year": 2020}
    assert plain_metadata(fields) == {"note": "é" * 32_000, "year": 2020}
    assert plain_metadata(fields, copied=False) == fields  # A store of others holds them once.
    many = {f"{n}": "x" * 30_000 for n in range(9)} | {"year": 2020}
    assert list(plain_metadata(many)) == ["0", "1", "2", "3", "year"]
    assert len(plain_metadata({"n" * 1000 + str(n): n for n in range(500)})) == 124
    (document,), _ = collect(write(tmp_path / "a.jsonl", json.dumps({"text": "x", **fields})))
    assert document.omitted == ["html"]


# Folders.


def test_find_walks_folders(tmp_path: Path) -> None:
    for name in ("docs/b.md", "docs/a.txt", "docs/sub/c.rst", "docs/.hidden.md", "docs/.git/x.md", "docs/code.py"):
        write(tmp_path / name, "x")
    (tmp_path / "docs/loop").symlink_to(tmp_path / "docs", target_is_directory=True)
    (tmp_path / "docs/self.md").symlink_to(tmp_path / "docs/self.md")
    (tmp_path / "docs/copy.md").symlink_to(tmp_path / "docs/b.md")
    write(tmp_path / "other/d.md", "x")
    (tmp_path / "docs/linked").symlink_to(tmp_path / "other", target_is_directory=True)
    os.mkfifo(tmp_path / "docs/pipe.txt")
    for name in ("docs/b.DOCX", "docs/sub/c.docx", "docs/Makefile", "docs/.hidden.png"):
        write(tmp_path / name, "x")
    found = find([tmp_path / "docs", tmp_path / "docs/a.txt"])
    assert [source.name for source in found.sources] == [
        "docs/a.txt",
        "docs/b.md",
        "docs/linked/d.md",
        "docs/sub/c.rst",
    ]
    assert found.failures == ()
    assert list(found.passed_over.items()) == [(".docx", 2), ("", 1), (".py", 1)]
    assert [count(source) for source in found.sources] == [1, 1, 1, 1]


def test_find_leaves_the_queries_of_a_judged_set(tmp_path: Path) -> None:
    for name in ("set/corpus.jsonl", "set/queries.jsonl", "lone/queries.jsonl"):
        write(tmp_path / name, '{"text": "x"}\n')
    assert [source.name for source in find([tmp_path / "set", tmp_path / "lone"]).sources] == [
        "set/corpus.jsonl",
        "lone/queries.jsonl",
    ]


def test_find_refuses_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        find([tmp_path / "nothing.txt"])
    with pytest.raises(InputError, match="these can"):
        find([write(tmp_path / "a.exe", "x")])
    assert find([]).sources == ()


def test_limits_are_numbers_that_every_reader_takes() -> None:
    for name in ("row_bytes", "file_bytes", "text_characters"):
        with pytest.raises(InputError, match=f"Limits.{name} must be at most 2,147,483,647"):
            Limits(**{name: 2**63})
    assert Limits(bad_rows=2**63).bad_rows == 2**63


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_find_refuses_a_pipe_that_is_named(tmp_path: Path) -> None:
    """It was passed over, and nothing was indexed without a word."""
    for name in ("pipe.jsonl", "pipe"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(InputError, match=f"{name} is a pipe or device; write it to a file first"):
            find([tmp_path / name])
    assert find([tmp_path]).sources == ()


@pytest.mark.parametrize(("name", "place"), [("a.csv", "row 4"), ("a.tsv", "line 5")])
def test_a_row_of_a_table_that_is_too_large_is_named(tmp_path: Path, name: str, place: str) -> None:
    """It refuses the file, and to find it in a million rows was left to the reader."""
    text = "text\tby\n" + "tea\tme\nuneven\ntea\tme\n" + "x" * 999 + "\tme\ntea\tme\n"
    text = text if name == "a.tsv" else text.replace("\t", ",")
    with pytest.raises(ReadError, match=rf"{name}, {place} is larger than 200 bytes: .*Limits.row_bytes"):
        collect(write(tmp_path / name, text), Limits(row_bytes=200))
