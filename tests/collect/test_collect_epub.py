"""EPUB books: the text of the pages in reading order; pages that cannot be read are listed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.artifacts.document import Document, Reject
from groundup.collect.detect import detect_kind
from groundup.collect.files import streams
from groundup.collect.files.streams import DamagedError
from groundup.collect.readers import epub as epub_reader
from groundup.collect.readers.web.html import page_text

Read = Callable[..., list[Document | Reject]]
CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfile'
    ' full-path="OEBPS/book.opf"/></container>'
)
OPF = """<?xml version="1.0"?><package
xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">
<metadata><dc:title>The Élan: a Tale</dc:title><dc:creator>Doe, Jane</dc:creator>
<dc:creator>Else</dc:creator></metadata>
<manifest><item id="n" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>
<item id="c" href="cover.svg" media-type="image/svg+xml"/>
<item id="p2" href="text/a%20two.xhtml#x" media-type="application/xhtml+xml"/>
<item id="p1" href="text/zwei.xhtml" media-type="application/xhtml+xml"/></manifest>
<spine><itemref idref="c"/><itemref idref="n"/><itemref idref="p1"/>
<itemref idref="p2"/><itemref idref="p1"/></spine></package>"""
PAGES = {
    "nav.xhtml": (
        "<html><body><nav><ol><li><a"
        " href='text/zwei.xhtml'>One</a></li></ol></nav><p>Contents</p></body></html>"
    ),
    "cover.svg": "<svg/>",
    "text/zwei.xhtml": (
        "<html><head><title/></head><body><h1>One</h1><p>It was late&nbsp;&mdash; and"
        " <i>dark</i>.</p></body></html>"
    ),
    "text/a two.xhtml": "<html><body><h1>Two</h1><p>The end.</p></body></html>",
}


def _epub(changes: dict[str, str | bytes | None] | None = None, mimetype: bool = True) -> bytes:
    """Return a book of two pages; `changes` by path replace its parts, or take them out."""
    parts: dict[str, str | bytes | None] = {
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": OPF,
    }
    parts |= {f"OEBPS/{name}": page for name, page in PAGES.items()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        if mimetype:
            archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        for name, data in (parts | (changes or {})).items():
            if data is not None:
                archive.writestr(name, data)
    return out.getvalue()


def _told(results: list[Document | Reject]) -> list[tuple[int, str]]:
    return [(f.record, f.text if isinstance(f, Document) else f.reason) for f in results]


BOOK = "One\n\nIt was late\xa0— and dark.\n\nTwo\n\nThe end."


def test_one_document_in_reading_order(read: Read) -> None:
    """Pages come in the order of the spine, once each, without cover and table of contents."""
    (result,) = read("books", "x.epub", _epub())
    assert isinstance(result, Document)
    assert (result.text, result.group) == (BOOK, "the elan a tale|doe jane")
    (plain,) = read(
        "books", "x.txt", "Title: The Élan: a Tale\nAuthor: Jane Doe\n\nOnce upon a time."
    )
    assert isinstance(plain, Document) and plain.group == result.group


def test_told_by_bytes_or_name(read: Read, tmp_path: Path) -> None:
    """A book is detected by its first member or its suffix; other kinds reject it."""
    assert _told(read("books", "x.zip", _epub())) == [(0, BOOK)]
    assert _told(read("text", "x.epub", _epub(mimetype=False))) == [(0, BOOK)]
    assert _told(read("web", "x.epub", _epub())) == [(0, "wrong-kind")]
    (tmp_path / "y.epub").write_bytes(_epub())
    assert detect_kind(tmp_path / "y.epub").kind == "books"


@pytest.mark.parametrize("path", ["META-INF/container.xml", "OEBPS/book.opf"])
@pytest.mark.parametrize("data", [None, "", "<package", b"\0\xff" * 50])
def test_broken_package_falls_back(read: Read, path: str, data: str | bytes | None) -> None:
    """Without a readable package document, the pages come in the order of their names."""
    results = read("books", "x.epub", _epub({path: data}))
    assert isinstance(results[0], Document)
    assert {"It was late\xa0— and dark.", "The end."} <= set(results[0].text.split("\n\n"))


def test_pages_that_cannot_be_read_cost_themselves(read: Read) -> None:
    """A missing, deeply nested or binary page, and a page of links, is listed after the book."""
    links = "".join(f"<a href='{n}'>Chapter {n}</a> " for n in range(20))
    for page, reason in (
        (None, "missing"),
        ("<html><body>" + "<div>" * 5000, "nesting"),
        (b"\x89PNG\r\n\x1a\n\0\0\x01" * 99, "binary"),
        (links, "navigation"),
    ):
        results = read("books", "x.epub", _epub({"OEBPS/text/a two.xhtml": page}))
        assert _told(results) == [(0, "One\n\nIt was late\xa0— and dark."), (1, reason)]


def test_pages_after_the_time_of_a_book_are_listed(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve pages that take long each do not take twelve times as long as one may."""
    monkeypatch.setattr(epub_reader, "RECORD_SECONDS", 0.0)
    told = _told(read("books", "x.epub", _epub()))
    assert [text for _, text in told] == ["empty", "timeout", "timeout"]


def test_drm(read: Read) -> None:
    """A book under DRM is one rejection; scrambled fonts are not DRM."""
    entry = (
        "<EncryptedData><EncryptionMethod Algorithm='{}'/><CipherReference"
        " URI='{}'/></EncryptedData>"
    )
    method = "http://www.w3.org/2001/04/xmlenc#aes128-cbc"
    for algorithm, path, told in (
        (method, "OEBPS/text/zwei.xhtml", "encrypted"),
        ("http://www.idpf.org/2008/embedding", "OEBPS/text/zwei.xhtml", BOOK),
        (method, "OEBPS/cover.svg", BOOK),
    ):
        results = read(
            "books",
            "x.epub",
            _epub({"META-INF/encryption.xml": f"<e>{entry.format(algorithm, path)}</e>"}),
        )
        assert _told(results) == [(0, told)]


def test_bombs_are_stopped(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages count against the bounds of every archive, and no declared entity is expanded."""
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    bomb = (
        f'<!DOCTYPE html [<!ENTITY e0 "ha">{entities}]><html><body><p>It is &e11;'
        " over.</p></body></html>"
    )
    (result,) = read(
        "books",
        "x.epub",
        _epub({"OEBPS/text/a two.xhtml": bomb, "OEBPS/book.opf": bomb[:-14] + OPF[21:]}),
    )
    assert isinstance(result, Document) and len(result.text) < 200
    monkeypatch.setattr(streams, "RATIO_FLOOR", 1 << 20)
    (result,) = read("books", "x.epub", _epub({"OEBPS/text/a two.xhtml": "<p>" + " " * (15 << 20)}))
    assert isinstance(result, Reject) and result.reason == "bomb"


def test_not_a_zip(read: Read) -> None:
    """A truncated book has lost its zip directory, and is one rejection."""
    for data in (_epub()[:-100], _epub()[:40], b"PK\x05\x06" + b"\0" * 18):
        (result,) = read("books", "x.epub", data)
        assert isinstance(result, Reject) and result.reason in ("damaged", "empty")


def test_gutenberg_markers(read: Read) -> None:
    """Header and license of Project Gutenberg are removed."""
    mark = "<p>*** {} OF THIS PROJECT GUTENBERG EBOOK X ***</p>"
    changes: dict[str, str | bytes | None] = {
        "OEBPS/text/zwei.xhtml": (
            "<html><body><p>The Project Gutenberg EBook of"
            f" X</p>{mark.format('START')}</body></html>"
        ),
        "OEBPS/text/a two.xhtml": (
            f"<html><body><p>The end.</p>{mark.format('END')}<p>Licence</p></body></html>"
        ),
    }
    assert _told(read("books", "x.epub", _epub(changes))) == [(0, "The end.")]


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>a<br/>b</p><ul><li>c</li><li>d</li></ul>", "a\nb\n\nc\nd"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
        (
            (
                "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>c</td><td>d</td>"
                "</tr><tr><td></td><td>e</td></tr></tbody></table>"
            ),
            "a | b\nc | d\n| e",
        ),
        (
            (
                "<p>so <math xmlns='http://www.w3.org/1998/Math/MathML'><msup><mi>x</mi><mn>2</mn>"
                "</msup></math> is</p>"
            ),
            "so x^2 is",
        ),
        (
            (
                "<p>so <math xmlns='http://www.w3.org/1998/Math/MathML'><semantics><mi>x</mi>"
                "<annotation encoding='application/x-tex'>\\frac{x}{2}</annotation></semantics>"
                "</math> is</p>"
            ),
            "so $\\frac{x}{2}$ is",
        ),
        ("<p>if x:</p><pre>  y\n    z</pre>\n <p> w </p>", "if x:\n\n  y\n    z\n\nw"),
        (
            (
                "<p>note<a epub:type='noteref' href='#n'>1</a>, <span class='pagenum'>p."
                " 7</span><ruby>漢<rt>kan</rt></ruby></p>"
            ),
            "note, 漢",
        ),
        (
            "<script/>kept <!-- not --> too &lt;b&gt; &amp;lt; &nosuch;",
            "kept too <b> &lt; &nosuch;",
        ),
        (
            "<p>10<sup>6</sup> is x<sub>max</sub>, he <q>said</q><sup class='noteref'>2</sup>.</p>",
            "10⁶ is x_max, he “said”.",
        ),
        ("<p>unclosed <b>tag<p>next", "unclosed tag\n\nnext"),
        ("", ""),
    ],
)
def test_page_text(page: str, text: str) -> None:
    """Blocks become paragraphs, rows become lines, page numbers go, broken markup is repaired."""
    space = "xmlns='http://www.w3.org/1999/xhtml' xmlns:epub='http://www.idpf.org/2007/ops'"
    assert (
        page_text(f"<?xml version='1.0' encoding='utf-8'?><html {space}><body>{page}</body></html>")
        == text
    )


def test_deep_pages_are_refused() -> None:
    """Nesting is bounded before parsing; empty anchors do not count."""
    with pytest.raises(DamagedError, match="nesting"):
        page_text("<div>" * 100_000)
    assert page_text("<html><body><p>" + "<a id='x'/>" * 3000 + "text</p></body></html>") == "text"
