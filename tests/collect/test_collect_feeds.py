"""Feeds, other XML and subtitles: their text without markup."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.formats import detect_format

Read = Callable[..., list[Document | Reject]]
RSS = (
    "<rss version='2.0'"
    " xmlns:content='c'><channel><title>All</title><link>http://www.a.org/x</link>{}</channel></rss>"
)
RDF = (
    "<?xml version='1.0'?><!DOCTYPE rdf:RDF [<!ENTITY e 'no'>]><rdf:RDF xmlns:rdf='r'"
    " xmlns='s'><channel><items/></channel>{}</rdf:RDF>"
)
ATOM = (
    "<?xml version='1.0' encoding='utf-8'?>\n<!-- a -->\n<feed"
    " xmlns='http://www.w3.org/2005/Atom'><link href='http://a.org/'/>{}</feed>"
)


@pytest.mark.parametrize(
    ("feed", "entry", "text", "group"),
    [
        (RSS, "<item><title>T &amp; U</title><description>&lt;p&gt;Hi &amp;amp; bye&lt;/p&gt;"
         "</description></item>",
         "T & U\n\nHi & bye", "a.org"),
        (RSS, "<item><link>http://b.org/1</link><description>short</description>"
         "<content:encoded><![CDATA[<p>One</p><p>Two]]></content:encoded></item>",
         "One\n\nTwo", "b.org"),
        (RDF, "<item rdf:about='h'><title>caf&eacute;</title><link>http://a.org/1</link></item>",
         "café", "a.org"),
        (ATOM, "<entry><title>T</title><link href='http://c.org'/><content type='xhtml'><div>"
         "<p>One</p><p>Two</p></div></content></entry>",
         "T\n\nOne\n\nTwo", "c.org"),
        (ATOM, "<entry><title>T</title><summary>a &lt; b</summary></entry>", "T\n\na < b", "a.org"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["web", "text"])
def test_entries(kind: str, feed: str, entry: str, text: str, group: str, read: Read) -> None:
    """Title and fullest body, escaped, in CDATA or as markup; the host of the entry or the feed."""
    assert read(kind, "f.xml", feed.format(entry * 2)) == [
        Document(text, 0, group),
        Document(text, 1, group),
    ]


def test_broken_entries_cost_themselves(read: Read) -> None:
    """An entry without end or without text costs itself; declared entities are not expanded."""
    entries = (
        "<item><title>A</title></item><item><title>B</title><description>c<item><title>D"
        " &e;</title></item><item></item>"
    )
    results = read("web", "f.xml", RSS.format(entries))
    assert [
        result.text if isinstance(result, Document) else result.reason for result in results
    ] == [
        "A",
        "B\n\nc",
        "D &e;",
        "empty",
    ]
    bomb = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10}'>" for n in range(1, 12))
    doctype = f"<?xml version='1.0'?><!DOCTYPE rss [<!ENTITY e0 'ha'>{bomb}]>"
    assert read("web", "f.xml", doctype + RSS.format("<item><title>A &e11;</title></item>")) == [
        Document("A &e11;", 0, "a.org")
    ]
    assert read("text", "x.xml", doctype + "<a><b>B &e11;</b></a>") == [
        Document("B &e11;", 0, "x.xml")
    ]


def test_other_xml(read: Read) -> None:
    """Each run of text between tags is a line; each item of an evaluation set is a document."""
    copa = "<?xml version='1.0'?><!DOCTYPE c SYSTEM 'c.dtd'>"
    copa += (
        "<c>\n <item id='1'>\n  <p>It fell.</p>\n  <a1>Wind.</a1>\n"
        " </item><item><p>B</p></item></c>"
    )
    assert read("text", "x.xml", copa) == [Document("It fell.\nWind.\nB", 0, "x.xml")]
    assert [
        result.text for result in read("evaluation", "x.xml", copa) if isinstance(result, Document)
    ] == [
        "It fell.\nWind.",
        "B",
    ]
    assert isinstance(read("web", "x.xml", copa)[0], Reject)


def test_the_outermost_element_tells() -> None:
    """The outermost element gives the format: a page about feeds is HTML."""
    assert detect_format("a", b"<?xml version='1.0'?><rss>") == "feed"
    assert detect_format("a", b"<html><head><link href='x'></head><feed>") == "html"
    assert detect_format("a", b"<mediawiki><page>&lt;rss <rss>") == "mediawiki"
    assert detect_format("a", b"<?xml version='1.0'?><a>") == "xml"


def test_subtitles(texts: Callable[..., list[str]]) -> None:
    """Numbers, times and styles are removed; text with a few times in it stays."""
    srt = "".join(
        f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n<i>Is it\n{n}?</i>\n\n" for n in range(1, 5)
    )
    vtt = "WEBVTT\n\n" + "".join(
        f"0{n}:00.000 --> 0{n}:01.000 align:start\n- Line {n}\n\n" for n in range(1, 5)
    )
    assert texts("text", "a.srt", srt) == ["Is it\n1?\nIs it\n2?\nIs it\n3?\nIs it\n4?"]
    assert texts("text", "a.vtt", vtt) == ["- Line 1\n- Line 2\n- Line 3\n- Line 4"]
    note = "WEBVTT\r\n\r\nNOTE Made\r\nby hand\r\n\r\n00:01.000 --> 00:02.000\r\nNOTE: it\r\n"
    assert texts("text", "b.vtt", note) == ["NOTE: it"]
    ssa = "[Script Info]\nTitle: T\n\n[Events]\nFormat: Layer, Start\n" + "".join(
        f"Dialogue: 0,0:00:0{n}.00,0:00:0{n}.90,Default,,0,0,0,,{{\\i1}}Oh, no\\Nnot {n}\n"
        for n in range(1, 3)
    )
    assert texts("text", "a.ass", ssa) == ["Oh, no\nnot 1\nOh, no\nnot 2"]
    plain = "At 00:00:01,000 --> 00:00:02,000 it began.\n\n1\n2\n"
    assert texts("text", "a.txt", plain) == [plain]


def test_real_feeds(read: Read, real_data: Path) -> None:
    """All but two feeds without entries give documents, in their declared encoding."""
    files = sorted(real_data.glob("web/encodings/*/*.xml"))
    results = {path: read("web", path.name, path.read_bytes()) for path in files}
    kept = {
        path: [result.text for result in results[path] if isinstance(result, Document)]
        for path in files
    }
    assert [path.name for path in files if not kept[path]] == ["intertat.ru.xml"] * 2
    texts = [text for path in files for text in kept[path]]
    assert len(texts) > 1700 and sum("</p>" in text or "&lt;" in text for text in texts) < 5
    assert sum("\ufffd" in text for text in texts) < 30
    subtitles = real_data / "web/encodings/iso-8859-9-turkish/subtitle.srt"
    (document,) = read("text", subtitles.name, subtitles.read_bytes())
    assert isinstance(document, Document) and "Abaddon" in document.text
