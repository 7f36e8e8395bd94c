"""Dumps and files of wikitext: one document an article, without markup."""

from __future__ import annotations

import bz2
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.archives import open_items
from groundup.collect.files.globs import Selection
from groundup.collect.files.streams import Item
from groundup.collect.readers.registry import read_item
from groundup.collect.readers.wiki import dump as wiki_dump
from groundup.recipe import Source

Read = Callable[..., list[Document | Reject]]


def _page(title: str, text: str, ns: int = 0, more: str = "") -> str:
    revision = f"<revision><model>wikitext</model><text>{text}</text></revision>"
    return f"<page><title>{title}</title><ns>{ns}</ns>{more}{revision}</page>\n"


def _dump(*pages: str) -> str:
    return (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/"><siteinfo/>\n'
        + "".join(pages)
        + "</mediawiki>"
    )


@pytest.mark.parametrize("codec", ["utf-8", "utf-16", "utf-8-sig"])
def test_pages_of_a_dump(read: Read, codec: str) -> None:
    """Articles are documents; redirects, other namespaces, broken and empty pages are rejected."""
    dump = _dump(
        _page("Été", "'''Été''' is [[summer|the warm season]]."),
        _page("Old", "#REDIRECT [[Été]]", more='<redirect title="Été"/>'),
        _page("Talk:Été", "hello", ns=1),
        _page("Broken", "a < b"),
        _page("Only", "{{infobox|x=1}}"),
        _page("Last", "The end."),
    )
    results = read("wikipedia", "dump.xml", dump.encode(codec))
    assert [f.reason if isinstance(f, Reject) else f.text for f in results] == [
        "Été\n\nÉté is the warm season.",
        "redirect",
        "namespace",
        "malformed",
        "empty",
        "Last\n\nThe end.",
    ]
    assert [f.record for f in results] == list(range(6))
    assert isinstance(results[0], Document) and results[0].group == "Été"


def test_truncated_dump_keeps_whole_pages(read: Read) -> None:
    """A dump that ends inside a page keeps the pages before it."""
    dump = _dump(_page("A", "One."), _page("B", "Two."))
    results = read("wikipedia", "dump.xml", dump[: dump.rindex("<text>") + 8])
    assert [getattr(f, "reason", "document") for f in results] == ["document", "truncated"]


def test_history_gives_the_last_revision(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many revisions the last is read, also when all of them together are too long."""
    monkeypatch.setattr(wiki_dump, "MAX_PAGE_BYTES", 3000)
    monkeypatch.setattr(wiki_dump, "_CHUNK", 500)
    revisions = "".join(
        f"<revision><text>Version {n}. {'x ' * 300}</text></revision>" for n in range(20)
    )
    history = f"<page><title>A</title><ns>0</ns>{revisions}</page>"
    others = _page("B", "y " * 4000) + _page("C", "Short.")
    dump = f"<mediawiki>{history}{others}</mediawiki>"
    first, second, third = read("wikipedia", "dump.xml", dump)
    assert isinstance(first, Document) and first.text.startswith("A\n\nVersion 19.")
    assert isinstance(second, Reject) and second.reason == "too-large"
    assert isinstance(third, Document)


def test_entities_are_not_expanded(read: Read) -> None:
    """Entities of a dump are not expanded: a page that uses one is malformed."""
    bomb = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>' + _dump(
        _page("A", "&b;"), _page("B", "Fine &amp; well.")
    )
    first, second = read("wikipedia", "dump.xml", bomb)
    assert isinstance(first, Reject) and first.reason == "malformed"
    assert isinstance(second, Document) and second.text.endswith("Fine & well.")


def test_local_namespaces_come_from_the_dump(read: Read) -> None:
    """The dump names its namespaces of files and categories, whose links show nothing."""
    spaces = (
        '<namespaces><namespace key="6">Fails</namespace><namespace key="14"'
        ' case="x">Kategoreja</namespace></namespaces>'
    )
    page = _page("A", "Text.[[Kategoreja:Braz]] [[Fails:x|thumb|c]] [[Portals:P|shown]]")
    (result,) = read(
        "wikipedia", "d.xml", _dump(page).replace("<siteinfo/>", f"<siteinfo>{spaces}</siteinfo>")
    )
    assert isinstance(result, Document) and result.text == "A\n\nText. shown"


def test_real_dumps(real_data: Path) -> None:
    """Counts of a real dump match its README, and no markup is left outside formulas."""
    path = next(real_data.glob("wikipedia/enwiki-latest-pages-articles1*.bz2"))
    source = Source(path="x", kind="wikipedia")
    result = [result for item in _items(path) for result in read_item(item, source)]
    documents = [f for f in result if isinstance(f, Document)]
    assert (len(result), len(documents)) == (206, 106)
    assert sum(f.reason == "redirect" for f in result if isinstance(f, Reject)) == 99
    prose = re.sub(r"\$[^\n]*\$", "", "\n".join(d.text for d in documents))
    assert not re.search(
        r"\[\[|\]\]|\{\{|\{\||'''|<ref|&nbsp;|thumb\||^\||\(\s*[,;]", prose, re.MULTILINE
    )
    assert len(prose) > 2_850_000


def test_real_pages_in_many_languages(real_data: Path) -> None:
    """Pages in 76 languages keep their prose and lose their markup."""
    source = Source(path="x", kind="wikipedia")
    paths = sorted(real_data.glob("wikipedia/minidumps/*/*.bz2"))
    texts = [
        result.text
        for path in paths
        for item in _items(path)
        for result in read_item(item, source)
        if isinstance(result, Document)
    ]
    assert len(texts) > 90 and sum(map(len, texts)) > 1_400_000
    left = [
        piece
        for text in texts
        for piece in re.findall(r"\[\[|\{\{|\{\||'''|<ref|&nbsp;|^==|-\{", text, re.MULTILINE)
    ]
    assert len(left) < 5


def _items(path: Path) -> list[Item]:
    with path.open("rb") as file:
        return [
            i
            for i in open_items(path, file, path.name, path.stat().st_size, Selection())
            if isinstance(i, Item)
        ]


def test_the_index_of_a_dump_is_no_text(read: Read) -> None:
    """Protects: its millions of titles, true or not, were documents beside the pages."""
    lines = [f"{600 + n // 100 * 1000}:{n}:Title {n}\n" for n in range(300)]
    (result,) = read("wikipedia", "enwiki-multistream-index.txt", "".join(lines).encode())
    assert isinstance(result, Reject) and result.reason == "wrong-kind"
    (result,) = read("wikipedia", "scores.txt", b"10:30:The match begins.\nIt ends in a draw.\n")
    assert isinstance(result, Document)


def test_raw_wikitext_files(read: Read) -> None:
    """A text file full of markup is a page of wikitext."""
    markup = "'''A''' is a [[letter]].\n\n== Use ==\n{{x}}It is the [[first letter|first]] one.\n"
    (result,) = read("wikipedia", "Letter_A.txt", markup)
    assert (
        isinstance(result, Document)
        and result.text == "Letter A\n\nA is a letter.\n\nUse\n\nIt is the first one."
    )
    assert bz2.decompress(bz2.compress(markup.encode())) == markup.encode()
