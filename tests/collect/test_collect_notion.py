"""Exports of Notion as HTML and CSV: the text of a page once, and each row once."""

from __future__ import annotations

from pathlib import Path

from tests.collect.conftest import Read

from groundup.artifacts.document import Document
from groundup.collect.detect import detect_kind
from groundup.collect.files.formats import detect_format
from groundup.collect.sources import list_source
from groundup.recipe import Source

ID = "0123456789abcdef" * 2
PAGE = """<html><head><title>Plan</title></head><body>
<article id="1d2c0f0e-0000-4000-8000-000000000001" class="page sans"><header>
<div class="page-header-icon"><span class="icon">*</span></div>
<h1 class="page-title">The plan</h1><p class="page-description">What we sow.</p>
<table class="properties"><tbody><tr><th>Status</th><td>Done</td></tr></tbody></table></header>
<div class="page-body"><p>We sow <strong>beans</strong> in May.</p>
<figure class="callout"><div><span class="icon">!</span></div><div>Water them.</div></figure>
<ul class="toggle"><li><details open=""><summary>Which beans?</summary><p>Runner beans.</p>
</details></li></ul><h2>Tools</h2><ul class="bulleted-list"><li>A spade</li></ul>
<ul class="to-do-list"><li><div class="checkbox checkbox-off"></div> Buy seeds</li></ul>
<table class="simple-table"><tbody><tr><td>Bean</td><td>May</td></tr></tbody></table>
<figure><div class="source"><a href="https://x.org">https://x.org</a></div></figure></div></article>
</body></html>"""
TEXT = """The plan

What we sow.

We sow beans in May.

Water them.

- Which beans?

Runner beans.

Tools

- A spade

- Buy seeds

Bean | May"""


def test_a_page_is_its_title_and_body(read: Read, tmp_path: Path) -> None:
    """Callouts and toggles are prose; properties, icons and addresses are left out."""
    (document,) = read("documents", f"Plan {ID}.html", PAGE)
    assert isinstance(document, Document)
    assert document.text == TEXT
    (tmp_path / "a.html").write_text(PAGE)
    detection = detect_kind(tmp_path / "a.html")
    assert (detection.kind, detection.reason) == ("documents", "pages of Notion")


def test_a_page_inside_of_a_dump_is_no_page_of_an_export() -> None:
    """One record quotes the page; the others are read as they are."""
    page = "<page><title>A</title><ns>0</ns><revision><text>Text.</text></revision></page>"
    data = f"<mediawiki>{page}{PAGE}{page}</mediawiki>".encode()
    assert detect_format("dump.xml", data) == "mediawiki"


def test_the_rows_of_a_database_are_read_once(tmp_path: Path) -> None:
    """Its view goes where a file has all rows; one that is alone stays."""
    for name in (f"Tasks {ID}.csv", f"Tasks {ID}_all.csv", f"Alone {ID}.csv", "a.csv", "a_all.csv"):
        (tmp_path / name).write_text("Name,Text\n")
    listing = list_source(Source(path=str(tmp_path), kind="text"), tmp_path)
    kept = [f"Alone {ID}.csv", f"Tasks {ID}_all.csv", "a.csv", "a_all.csv"]
    assert [file.origin for file in listing.files] == kept
    (refused,) = listing.refused
    assert (refused.origin, refused.reason) == (f"Tasks {ID}.csv", "twin")
    assert refused.detail == f"its rows are in Tasks {ID}_all.csv"
