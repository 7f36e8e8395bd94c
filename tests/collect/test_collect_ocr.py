"""Pages that are pictures: read by Tesseract where a source asks for it and the machine has it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.helpers.office_files import lines, pdf, scan

from groundup.artifacts.document import Document, Reject
from groundup.collect.detect import detect_kind
from groundup.collect.readers.office import ocr
from groundup.collect.stage import _key_settings, _without_missing_ocr
from groundup.errors import GroundupError
from groundup.recipe import Source

pytest.importorskip("pypdfium2")
needs_tesseract = pytest.mark.skipif(
    bool(ocr.missing_tesseract("eng")), reason="Tesseract is not installed"
)

Read = Callable[..., list[Document | Reject]]
LONG = "It was late in the year and nobody had seen the"

# One line that ends in a hyphen, and a table, as Tesseract prints them (300 dots an inch).
HOCR = """<html xmlns="http://www.w3.org/1999/xhtml"><body>
<div class='ocr_page' title='bbox 0 0 2500 3000'>
<span class='ocr_line' title="bbox 100 100 900 150; baseline 0 -10; x_size 50">
<span class='ocrx_word' title='bbox 100 100 300 150; x_wconf 95'>a</span>
<span class='ocrx_word' title='bbox 320 100 900 150; x_wconf 95'>vil-</span></span>
<span class='ocr_line' title="bbox 100 160 900 210; baseline 0 -10; x_size 50">
<span class='ocrx_word' title='bbox 100 160 300 210; x_wconf 95'>lage</span>
<span class='ocrx_word' title='bbox 400 160 420 210; x_wconf 95'>|</span>
<span class='ocrx_word' title='bbox 500 160 900 210; x_wconf 95'>7</span></span></div></body></html>
"""


def test_words_become_lines() -> None:
    """Baselines and ends are in points; a wide gap starts a cell; bars of tables are no text."""
    (page,) = ocr._parse(HOCR.encode(), 72 / 300)
    first, second = page.lines
    assert first.text == "a vil\x02"
    places = [first.left, first.right, first.y, first.size]
    assert places == pytest.approx([24.0, 216.0, (3000 - 140) * 0.24, 12.0])
    assert [text for text, _, _ in second.cells] == ["lage", "7"]


def test_a_picture_without_text_has_none() -> None:
    """Tesseract sees letters in any photo; it is not sure of them."""
    (page,) = ocr._parse(HOCR.replace("x_wconf 95", "x_wconf 30").encode(), 72 / 300)
    assert not page.lines


@needs_tesseract
def test_scans_are_read_where_the_source_asks(read: Read) -> None:
    """A scan has the text of the page; a page with a text layer keeps it; off by default."""
    written = pdf([lines([LONG, "harvest.", "", "Nobody knew why."])])
    data = scan(written)
    (listed,) = read("documents", "x.pdf", data)
    assert isinstance(listed, Reject) and listed.reason == "no-text-layer"
    assert "ocr" in listed.detail
    (document,) = read("documents", "x.pdf", data, ocr="eng")
    assert isinstance(document, Document)
    assert document.text == f"{LONG} harvest.\n\nNobody knew why."
    assert read("documents", "x.pdf", data, ocr="eng") == [document]


@needs_tesseract
def test_blank_pages_stay_listed(read: Read) -> None:
    """A page that Tesseract sees nothing on is listed with its number."""
    document, listed = read("documents", "x.pdf", pdf([lines([LONG]), [], []]), ocr="eng")
    assert isinstance(document, Document) and document.text == LONG
    assert isinstance(listed, Reject) and listed.reason == "no-text-layer"
    assert listed.detail.startswith("pages 2-3 of 3:") and "Tesseract" in listed.detail


@needs_tesseract
def test_images_are_read_where_the_source_asks(read: Read, tmp_path: Path) -> None:
    """A picture of a page in PNG is read like a page; else it is an image as before."""
    image = pytest.importorskip("PIL.Image")
    import pypdfium2

    page = pypdfium2.PdfDocument(pdf([lines([LONG])]))[0].render(scale=4, grayscale=True)
    path = tmp_path / "x.png"
    image.fromarray(page.to_numpy().squeeze()).save(path)
    (document,) = read("documents", "x.png", path.read_bytes(), ocr="eng")
    assert isinstance(document, Document) and document.text == LONG
    (listed,) = read("documents", "x.png", path.read_bytes())
    assert isinstance(listed, Reject) and listed.detail == "image"


@pytest.mark.parametrize("failure", ["exit 1", "kill -9 $$"])
def test_a_crash_of_tesseract_costs_its_pages(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    """A page on which it fails is listed like one without text; the others stay."""
    _install(tmp_path, monkeypatch, failure)
    document, listed = read("documents", "x.pdf", pdf([lines([LONG]), [], []]), ocr="eng")
    assert isinstance(document, Document) and document.text == LONG
    assert isinstance(listed, Reject) and listed.detail.startswith("pages 2-3 of 3:")


def _install(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program called tesseract on the PATH, before all others."""
    program = folder / "tesseract"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_machine_without_tesseract_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line names the remedy; the source is then read as without the key."""
    source = Source(path="x", name="scans", ocr="eng+deu")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _without_missing_ocr(source) == Source(path="x", name="scans")
    assert "apt-get install tesseract-ocr" in capsys.readouterr().err
    _install(tmp_path, monkeypatch, 'printf "List of languages (1):\\neng\\n"')
    assert _without_missing_ocr(source).ocr == ""
    assert "tesseract-ocr-deu" in capsys.readouterr().err
    english = Source(path="x", name="scans", ocr="eng")
    assert _without_missing_ocr(english) is english


def test_the_version_of_tesseract_is_part_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version may see other letters; without the key of the recipe nothing changes."""
    _install(tmp_path, monkeypatch, "echo tesseract 9.9")
    settings = _key_settings(Source(path="x", ocr="eng"), tmp_path)
    assert (settings["ocr"], settings["tesseract"]) == ("eng", "9.9")
    assert not {"ocr", "tesseract"} & _key_settings(Source(path="x"), tmp_path).keys()


def test_a_node_without_tesseract_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage found it on another machine: the bytes must not depend on the node."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("tesseract") is None
    with pytest.raises(GroundupError, match="not installed on this node"):
        next(ocr.recognize("x.pgm", "eng", str(tmp_path)))


@pytest.mark.parametrize("languages", ["-l", "eng+", "eng;deu", "../eng", "eng deu"])
def test_languages_are_names(languages: str) -> None:
    """What would be another option or path of the program is an error of the recipe."""
    with pytest.raises(ValueError, match="ocr"):
        Source(path="x", ocr=languages)


def test_init_names_the_key(tmp_path: Path) -> None:
    """A PDF of pictures is told from one with a text layer, with the key that reads it."""
    (tmp_path / "a.pdf").write_bytes(scan(pdf([lines([LONG])])))
    (tmp_path / "b.pdf").write_bytes(pdf([lines([LONG])]))
    assert 'ocr = "eng"' in detect_kind(tmp_path / "a.pdf").reason
    assert detect_kind(tmp_path / "b.pdf").reason == "PDF files"
