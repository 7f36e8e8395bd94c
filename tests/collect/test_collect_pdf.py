"""PDF: lines become paragraphs in reading order; what has no text is listed, by page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.office_files import lines, pdf

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.formats import detect_format
from groundup.collect.readers.office import pdf as pdf_reader
from groundup.collect.readers.office.pdf import is_garbled
from groundup.collect.readers.office.pdf_pages import Page

pytest.importorskip("pypdfium2")

Read = Callable[..., list[Document | Reject]]
Texts = Callable[..., list[str]]
LONG = "It was late in the year and nobody had seen the"  # a whole line of a column


def _text(texts: Texts, *pages: list[tuple[float, float, str]]) -> str:
    (text,) = texts("documents", "x.pdf", pdf(pages))
    return text


def test_lines_become_paragraphs(texts: Texts) -> None:
    """A gap, an indent or an early end after a sentence ends a paragraph; a line does not."""
    page = [
        *lines(["A Title", "", LONG, "harvest.", LONG, "rain."]),
        *lines(["  " + LONG, "sun."], 50, 628),
    ]
    first, second, third, fourth = _text(texts, page).split("\n\n")
    assert (first, second) == ("A Title", f"{LONG} harvest.")
    assert (third, fourth) == (f"{LONG} rain.", f"{LONG} sun.")


def test_cut_words_are_joined(texts: Texts) -> None:
    """A hyphen at a line end goes, unless other places of the text write the word with one."""
    page = lines(
        [
            "It is a well-known and long tale of a vil-",
            "lage that had no name, and of a well-",
            "known man who lived in it for a year.",
        ]
    )
    text = _text(texts, page)
    assert "of a village that" in text and "a well-known man" in text


def test_columns_are_read_one_by_one(texts: Texts) -> None:
    """Two columns that are drawn line by line over both are read from top to bottom."""
    page = [(50.0, 760.0, "A title over both of the columns")]
    for n in range(12):
        page.append((50, 700 - 12 * n, f"left {n} goes on and on and on"))
        page.append((330, 700 - 12 * n, f"right {n} goes on and on and on"))
    text = _text(texts, page)
    assert text.startswith("A title") and text.index("left 11") < text.index("right 0")


def test_a_raised_letter_belongs_to_its_line(texts: Texts) -> None:
    """On a page of one line, too, where an exponent above it looks like a number of the page."""
    page = pdf([[(50.0, 700.0, "x"), (56.0, 704.0, "2"), (66.0, 700.0, "= 9")]])
    page = page.replace(b"1 0 0 1 56.0", b"0.6 0 0 0.6 56")
    assert texts("documents", "x.pdf", page) == ["x² = 9"]
    page = pdf([[(50.0, 700.0, "H"), (56.0, 698.0, "2"), (59.6, 700.0, "O boils")]])
    page = page.replace(b"1 0 0 1 56.0", b"0.6 0 0 0.6 56")
    assert texts("documents", "x.pdf", page) == ["H₂O boils"]


def test_tables_are_rows(texts: Texts) -> None:
    """Cells that stand below each other are rows of a table."""
    rows = [("name", "score"), ("ours", "7"), ("theirs", "12")]
    cells = [
        cell
        for n, (name, score) in enumerate(rows)
        for cell in ((50, 600 - 12 * n, name), (200, 600 - 12 * n, score))
    ]
    text = _text(texts, [*lines([LONG, "harvest."]), *cells])
    assert text.endswith("\n\nname | score\nours | 7\ntheirs | 12")


def test_a_cell_of_two_lines_stays_one_cell(texts: Texts) -> None:
    """A line without a cell in some columns goes on in the row above, if rows stand farther apart
    or the words go on; an item with its mark is no row.
    """
    rows = [
        (50, 600, "Date"), (200, 600, "What"),
        (50, 580, "May"), (200, 580, "A draft of the"), (200, 568, "Third Part"),
        (50, 550, "June"), (200, 550, "A letter to"), (200, 538, "all members."),
    ]  # fmt: skip
    text = _text(texts, [*lines([LONG, "harvest."]), *rows])
    assert text.endswith(
        "Date | What\nMay | A draft of the Third Part\nJune | A letter to all members."
    )
    items = [(50, 600, "*"), (80, 600, "One thing."), (50, 588, "*"), (80, 588, "Another thing.")]
    assert " | " not in _text(texts, [*lines([LONG, "harvest."]), *items])


def test_cells_that_are_drawn_one_by_one_are_rows(texts: Texts) -> None:
    """TeX draws all lines of a cell before the next cell; two blocks of prose are no row."""
    rows = [
        (50, 600, "Early"), (50, 588, "May"), (200, 600, "A draft of"), (200, 588, "all Parts"),
        (50, 570, "June"), (200, 570, "The letter"),
    ]  # fmt: skip
    text = _text(texts, [*lines([LONG, "harvest."]), *rows])
    assert text.endswith("Early May | A draft of all Parts\nJune | The letter")
    assert " | " not in _text(texts, [*lines([LONG, "harvest."]), *rows[:4]])


def test_text_is_read_in_its_own_direction(texts: Texts) -> None:
    """A drawing may be turned: its words stand below each other on the page."""
    page = pdf([[(300.0, 700.0, "Turn the"), (300.0, 640.0, "ring")]])
    page = page.replace(b"1 0 0 1 300.0", b"0 -1 1 0 300.")
    assert texts("documents", "x.pdf", page) == ["Turn the ring"]


def test_values_of_a_form_are_text(texts: Texts) -> None:
    """What was typed stands behind its label; a password is not shown."""
    page = pdf([[(50.0, 700.0, "Name:"), (50.0, 650.0, "Key:")]])
    fields = [(b"V(Ada)", b"", 698), (b"V(secret)", b"/Ff 8192", 648)]
    widgets = b"".join(
        b"<</Type/Annot/Subtype/Widget/FT/Tx/T(t%d)/%b%b/Rect[100 %d 200 %d]>>"
        % (y, value, flags, y, y + 14)
        for value, flags, y in fields
    )
    page = page.replace(b"/Contents 5 0 R", b"/Annots[%b]/Contents 5 0 R" % widgets)
    page = page.replace(b"/Type/Catalog", b"/Type/Catalog/AcroForm<</Fields[]>>")
    assert texts("documents", "x.pdf", page) == ["Name: Ada\n\nKey:"]


def test_what_is_printed_at_the_margins_goes(texts: Texts) -> None:
    """Browsers print an address and a date; heads count the pages, whatever else they say."""
    margins = [(10.0, 790.0, "A page"), (300.0, 790.0, "https://a.org/b"), (10.0, 10.0, "1 of 1")]
    margins.append((300.0, 10.0, "3.5.2020 11:02"))
    assert _text(texts, [*lines([LONG, "harvest."]), *margins]) == f"{LONG} harvest."
    feet = [(50.0, 22.0, "Form 293"), (300.0, 22.0, "Page 1 of 4"), (50.0, 10.0, "It ends")]
    assert _text(texts, [*lines([LONG, "harvest."]), *feet]) == f"{LONG} harvest.\n\nIt ends"
    heads = ["6 Of Kings", "Of Queens 7", "8 Of a Year"]
    pages = [[(50.0, 790.0, head), *lines([LONG, "harvest."])] for head in heads]
    assert "Of" not in _text(texts, *pages)
    head = [(50.0, 740.0, "7"), (250.0, 740.0, "Of Kings")]
    assert _text(texts, [*head, *lines([LONG] * 8)]) == " ".join([LONG] * 8)
    assert _text(texts, [(50.0, 790.0, "7")]) == "7"


def test_running_lines_go(texts: Texts) -> None:
    """Heads, feet and numbers that pages repeat go; a paragraph goes on over the page."""
    pages = [
        [
            (50.0, 780.0, f"{n} A Tale of a Year"),
            *lines([LONG, f"harvest {word}", LONG]),
            (300.0, 20.0, f"- {n} -"),
        ]
        for n, word in enumerate("one two three four five".split(), 1)
    ]
    text = _text(texts, *pages)
    assert "Tale" not in text and "-" not in text
    assert text.count(LONG) == 10


def test_a_paragraph_goes_on_over_the_page(texts: Texts) -> None:
    """The first line of a page that starts in lower case belongs to the page before."""
    assert _text(texts, lines([LONG]), lines(["harvest."])) == f"{LONG} harvest."


def test_what_the_page_does_not_show_is_no_text(texts: Texts) -> None:
    """The halves of a spread hold the text of both, each beyond the edge of the other."""
    assert _text(texts, [*lines([LONG]), (650.0, 700.0, "right"), (50.0, 900.0, "above")]) == LONG


def test_ligatures_are_letters(texts: Texts) -> None:
    """A ligature of a font is the letters that it joins."""
    page = pdf([lines([LONG])]).replace(b"(It was", b"(\xdet was")
    assert texts("documents", "x.pdf", page) == [LONG.replace("It", "Þt")]
    assert "ﬁ".translate(pdf_reader._LIGATURES) == "fi"


@pytest.mark.parametrize(("font", "text"), [("CMR10", "The effort"), ("Courier", "The e↵ort")])
def test_ligatures_of_tex_fonts(texts: Texts, font: str, text: str) -> None:
    """macOS names the ligature ff a carriage return, by its place in the font."""
    encoding = b"/Encoding<</Type/Encoding/Differences[33/carriagereturn]>>"
    page = pdf([lines(["The e!ort"])]).replace(b"/Encoding/WinAnsiEncoding", encoding)
    page = page.replace(b"BaseFont/Courier", f"BaseFont/{font}".encode())
    assert texts("documents", "x.pdf", page) == [text]


def test_a_soft_hyphen_inside_a_line_is_a_hyphen(texts: Texts) -> None:
    """Word processors draw it where a person typed a hyphen; at the end of a line it cuts."""
    page = lines(["A well\xadknown and very long tale of a vil\xad", "lage."])
    assert _text(texts, page) == "A well-known and very long tale of a village."


def test_code_keeps_its_lines(texts: Texts) -> None:
    """Lines in a font of code keep their indentation, and lose the numbers that count them."""
    prose = [(x, y, f") Tj /G 10 Tf ({text}") for x, y, text in lines([LONG, "harvest."])]
    code = lines(["def f(x):", "    if x:", "        return 2  # two", "", "f(1)"], 60, 640)
    code = [(x, y, f") Tj /F 10 Tf ({text}") for x, y, text in code]
    counted = lines(["7 a = 1", "8   b = 2", "9 c = 3"], 60, 500)
    counted = [(x, y, f") Tj /F 10 Tf ({text}") for x, y, text in counted]
    after = [(50.0, 400.0, f") Tj /G 10 Tf ({LONG}")]
    assert _text(texts, [*prose, *code, *counted, *after]).split("\n\n", 1)[1] == (
        "def f(x):\n    if x:\n        return 2  # two\n\nf(1)\n\na = 1\n  b = 2\nc = 3\n\n" + LONG
    )
    # A text that is all in such a font is typed.
    assert _text(texts, lines([LONG, "harvest."])) == f"{LONG} harvest."


def test_accents_of_tex_belong_to_their_letters(texts: Texts) -> None:
    """TeX draws the accent first, above the place of the letter; elsewhere it is an apostrophe."""
    page = [(50.0, 700.0, "Wilczy"), (86.0, 700.0, "\xb4"), (86.0, 700.0, "nski de l\xb4enfant")]
    assert _text(texts, page) == "Wilczyński de l\xb4enfant"


def test_spaced_letters_and_words(texts: Texts) -> None:
    """Letters far from each other are words, and words far from each other no cells of tables."""
    assert _text(texts, [(50.0, 700.0, ") Tj 5 Tc (A WIDE TITLE")]) == "A WIDE TITLE"
    wide = ["the rain and the", "sun of the year", "had all been in", "vain for men who"]
    page = [(x, y, f") Tj 9 Tw ({text}") for x, y, text in lines(wide)]
    assert _text(texts, page) == " ".join(wide)


def test_tables_of_contents_go(texts: Texts) -> None:
    """Entries end with numbers of pages that grow; a page without a head has dots before them."""
    entries = [(f"{n} Of the year {2 * n}", 200, str(3 + n)) for n in range(4)]
    listed = [
        part
        for n, (entry, x, page) in enumerate(entries)
        for part in ((50.0, 690.0 - 14 * n, entry), (x + 50.0, 690.0 - 14 * n, page))
    ]
    first = [(50.0, 710.0, "Contents"), *listed, (50.0, 560.0, f"{LONG} 1999")]
    dotted = lines([f"A chapter with a long head ....... {n}" for n in (8, 9, 12)])
    assert (
        _text(texts, first, [*dotted, *lines(["It ends."], 50, 500)]) == f"{LONG} 1999\n\nIt ends."
    )


def test_starts_of_paragraphs(texts: Texts) -> None:
    """Captions, lines with labels and entries of a bibliography start one; their lines go on."""
    page = lines([LONG, "Table 2: Rye and oats of all the valley by the", "year.", "", "Date: May"])
    page += lines(["Place: the valley"], 50, 640)
    page += [(50.0, 600.0, f"[1] {LONG[:40]}"), (68.0, 588.0, "Valley. Mill Press, 1902.")]
    page += [(50.0, 576.0, f"[2] {LONG[:40]}"), (68.0, 564.0, "Sea. Mill Press, 1903.")]
    caption = "Table 2: Rye and oats of all the valley by the year."
    assert _text(texts, page).split("\n\n") == [
        LONG,
        caption,
        "Date: May",
        "Place: the valley",
        f"[1] {LONG[:40]} Valley. Mill Press, 1902.",
        f"[2] {LONG[:40]} Sea. Mill Press, 1903.",
    ]


def test_items_of_a_slide(texts: Texts) -> None:
    """A line of a slide that the next word would have had room in is whole."""
    page = pdf([lines(["Supply of chips is late", "Exchange rates", "People"], 50, 400)])
    page = page.replace(b"[0 0 600 800]", b"[0 0 900 500]")
    assert texts("documents", "x.pdf", page) == [
        "Supply of chips is late\n\nExchange rates\n\nPeople"
    ]


def test_heads_of_left_and_right_pages(texts: Texts) -> None:
    """The number of the page stands at the outer end of a head: left of it, or right."""
    heads = ["2 A Tale of Rye", "A Tale of Rye 3", "4 A Tale of Rye"]
    pages = [[(50.0, 780.0, head), *lines([LONG, f"harvest {n}."])] for n, head in enumerate(heads)]
    assert "Tale" not in _text(texts, *pages)


def test_a_heading_of_two_lines(texts: Texts) -> None:
    """A heading goes on in the next line where both are taller than the text."""
    page = pdf(
        [[(50.0, 740.0, "A Tale of the Rye and the"), (50.0, 724.0, "Oats"), *lines([LONG] * 4)]]
    )
    page = page.replace(b"1 0 0 1 50.0 740.0", b"1.4 0 0 1.4 50 740.")
    page = page.replace(b"1 0 0 1 50.0 724.0", b"1.4 0 0 1.4 50 724.")
    (text,) = texts("documents", "x.pdf", page)
    assert text.split("\n\n")[0] == "A Tale of the Rye and the Oats"


def _told(results: list[Document | Reject]) -> list[tuple[int, str, str]]:
    return [
        (r.record, "text", "") if isinstance(r, Document) else (r.record, r.reason, r.detail)
        for r in results
    ]


def test_pages_without_text_are_listed(read: Read) -> None:
    """A scan is one rejection; pages of one are listed by number beside the text."""
    ((record, reason, detail),) = _told(read("documents", "x.pdf", pdf([[], []])))
    assert (record, reason) == (0, "no-text-layer") and "1-2 of 2" in detail
    part = _told(read("documents", "x.pdf", pdf([[], lines([LONG]), [], []])))
    assert part[0] == (0, "text", "")
    assert part[1][:2] == (1, "no-text-layer") and "1, 3-4 of 4" in part[1][2]


def test_fonts_without_letters_are_garbage() -> None:
    """Private and shifted characters are no text; prose in several languages is."""
    prose = "Byl pozdní večer, první máj, večerní máj, byl lásky čas. " * 9
    shifted = "".join(chr(ord(char) - 29) if char.isalpha() else char for char in f"{LONG} " * 9)
    assert is_garbled("\ue001\ue002 " * 99, Page())
    assert is_garbled(shifted, Page())
    assert is_garbled("abc", Page(unmapped=3))
    for text in (
        prose,
        "It was late in the year. " * 20,
        "年の瀬であった。" * 50,
        "12 | 13\n" * 99,
    ):
        assert not is_garbled(text, Page())


def test_noise_of_a_scan_is_no_text(read: Read) -> None:
    """Spots that a program took for signs are no text layer; labels without letters go."""
    noise = [(50.0, 700.0 - 12 * n, ". ,: i' ?.") for n in range(10)]
    assert _told(read("documents", "x.pdf", pdf([noise])))[0][1] == "no-text-layer"
    assert not pdf_reader.has_letters("\x04\x05") and pdf_reader.has_letters("wo\x02")


def test_what_is_no_whole_pdf(read: Read) -> None:
    """Rubbish in front is skipped; what cannot be opened is one rejection; records are no PDF."""
    whole = pdf([lines([LONG])])
    assert _told(read("documents", "x.pdf", b"\x00\x05\x16\x07" * 100 + whole))[0][1] == "text"
    whole += bytes(range(256)) * 4
    assert detect_format("x", b"<b>Warning</b>: no cache\n" + whole) == "pdf"
    assert detect_format("x.csv", b"name,text\nA,It rained.\n" + whole) == "csv"
    assert detect_format("x", b'{"text": "It rained."}\n' + whole) == "json"
    assert _told(read("documents", "x.pdf", b"%PDF-1.4\n" + b"\0" * 99))[0][1] == "damaged"


def test_a_crash_costs_the_page(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that kills the child is listed; the others, and the next file, are read."""
    monkeypatch.setattr(pdf_reader, "read_pages", _read_or_die)
    data = pdf([lines([LONG]), [(1.0, 1.0, "DIE")], lines([LONG])])
    results = read("documents", "x.pdf", data)
    assert isinstance(results[0], Document) and results[0].text.count(LONG) == 2
    assert _told(results)[1][:2] == (1, "damaged") and "pages 2 of 3" in _told(results)[1][2]
    monkeypatch.undo()
    assert isinstance(read("documents", "x.pdf", pdf([lines([LONG])]))[0], Document)


def test_pages_after_a_crash_keep_their_numbers(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that cannot be read is no page without text, and those after it do not move up."""
    monkeypatch.setattr(pdf_reader, "read_pages", _read_or_die)
    results = _told(read("documents", "x.pdf", pdf([[(1.0, 1.0, "DIE")], lines([LONG]), [], []])))
    assert [reason for _, reason, _ in results] == ["text", "no-text-layer", "damaged"]
    assert "pages 3-4 of 4" in results[1][2] and "pages 1 of 4" in results[2][2]


def test_a_slow_file_is_read_so_far(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """When its time is over, the pages that are left are listed."""
    monkeypatch.setattr(pdf_reader, "_MAX_SECONDS", -1.0)
    monkeypatch.setattr(pdf_reader, "_BATCH", 1)
    (late,) = _told(read("documents", "x.pdf", pdf([lines([LONG]), lines([LONG])])))
    assert late[1] == "timeout" and late[2].startswith("pages 1-2 of 2")


def _read_or_die(path: str, first: int, count: int) -> Any:
    """Read pages in the child as `read_pages`, but die at a page that says so."""
    import os

    from groundup.collect.readers.office.pdf_pages import read_pages

    pages = read_pages(path, first, count)
    if any(page and "DIE" in "".join(line.text for line in page.lines) for page in pages):
        os._exit(1)
    return pages


def test_real_files(texts: Texts, read: Read, real_data: Path) -> None:
    """Real files: a memo in paragraphs, a scan and a file with a password as rejections."""
    folder = real_data / "wild/messy_folder/example-docs/pdf"
    (memo,) = texts("documents", "x.pdf", (folder / "fake-memo.pdf").read_bytes())
    assert memo.split("\n\n")[1:3] == [
        "To Whom it May Concern:",
        "There were 20,000 bottles of water, 10,000 blankets, and 200 laptops delivered on January"
        " 23, 2023. A total of 3 trucks were used for 15 hours.",
    ]
    for name, reason in (("single_table", "no-text-layer"), ("password", "encrypted")):
        results = read("documents", "x.pdf", (folder / f"{name}.pdf").read_bytes())
        assert [told[1] for told in _told(results)] == [reason]
