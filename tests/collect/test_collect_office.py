"""Office files: what a reader of the paper sees becomes text, once; the rest is left out."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.helpers.office_files import (
    docx,
    odf,
    ole,
    p,
    package,
    pptx,
    shape,
    strict,
    xls,
    xlsx,
)

from groundup.artifacts.document import Document, Reject
from groundup.collect.files import packages, streams
from groundup.collect.files.formats import detect_format
from groundup.collect.readers.blocks import Blocks, symbols

Read = Callable[..., list[Document | Reject]]
# What a workbook of Excel 97 begins with.
BOOK = b"\x09\x08\x10\0\0\x06\x05\0".ljust(20, b"\0")
Texts = Callable[..., list[str]]


def _word(texts: Texts, body: str, **parts: str) -> str:
    (text,) = texts("documents", "x.docx", docx(body, **parts))
    return text


def _run(inner: str, properties: str = "") -> str:
    return f"<w:r><w:rPr>{properties}</w:rPr>{inner}</w:r>"


def _field(code: str, result: str) -> str:
    mark = '<w:r><w:fldChar w:fldCharType="{}"/></w:r>'
    begin, middle, end = map(mark.format, ("begin", "separate", "end"))
    return f"{begin}{code}{middle}{result}{end}"


@pytest.mark.parametrize(
    ("inner", "text"),
    [
        ("<w:del><w:r><w:delText>old</w:delText></w:r></w:del><w:ins>{new}</w:ins>", "new"),
        ("<w:moveFrom>{old}</w:moveFrom>{new}", "new"),
        ("<w:hyperlink>{a link}</w:hyperlink>", "a link"),
        ("{co<w:softHyphen/>op}", "coop"),
        ("<w:r><w:t>a\xadb</w:t><w:noBreakHyphen/><w:t>c</w:t></w:r>", "ab-c"),
        ("<w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t></w:r>", "a b\nc"),
        ("<w:fldSimple>{7}</w:fldSimple>", "7"),
        (_field("<w:r><w:instrText>PAGE</w:instrText></w:r>", "{7}"), "7"),
        (_field("{IF}" + _field("{X}", "{code}"), "{result}"), "result"),
        ("<w:r><w:sym w:font='Symbol' w:char='F061'/></w:r>", "α"),
        ("<w:r><w:sym w:font='Wingdings' w:char='00E0'/></w:r>", "→"),
        (_run("<w:t>hidden</w:t>", "<w:vanish/>") + "{shown}", "shown"),
        ("{10}" + _run("<w:t>23</w:t>", '<w:vertAlign w:val="superscript"/>'), "10²³"),
        ("{see}" + _run("<w:t>th</w:t>", '<w:vertAlign w:val="superscript"/>'), "seeth"),
        ("<w:ruby><w:rt>{kan}</w:rt><w:rubyBase>{漢}</w:rubyBase></w:ruby>", "漢"),
        ("<w:sdt><w:sdtPr>{no}</w:sdtPr><w:sdtContent>{yes}</w:sdtContent></w:sdt>", "yes"),
    ],
)
def test_runs_of_word(texts: Texts, inner: str, text: str) -> None:
    """Deletions, codes of fields and hidden text go; results, insertions and symbols stay."""
    pieces = inner.split("{")
    runs = (
        f"<w:r><w:t>{run}</w:t></w:r>{rest}".replace(
            "<w:softHyphen/>", "</w:t><w:softHyphen/><w:t>"
        )
        for run, _, rest in (piece.partition("}") for piece in pieces[1:])
    )
    assert _word(texts, f"<w:p>{pieces[0]}{''.join(runs)}</w:p>") == text


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        ("<m:f><m:num>{a+b}</m:num><m:den>{2}</m:den></m:f>", "(a+b)/2"),
        ("<m:sSup><m:e>{x}</m:e><m:sup>{n+1}</m:sup></m:sSup>", "x^(n+1)"),
        (
            (
                '<m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr><m:sub>{i=1}</m:sub><m:sup>{n}'
                "</m:sup><m:e><m:sSub><m:e>{a}</m:e><m:sub>{i}</m:sub></m:sSub></m:e></m:nary>"
            ),
            "∑_(i=1)^n a_i",
        ),
        ("<m:d><m:e><m:rad><m:deg/><m:e>{y}</m:e></m:rad></m:e></m:d>", "(√y)"),
        ("<m:m><m:mr><m:e>{1}</m:e><m:e>{2}</m:e></m:mr></m:m>", "[1, 2]"),
    ],
)
def test_formulas_are_lines(texts: Texts, formula: str, text: str) -> None:
    """The structure of a formula stays: without it a fraction would read as a product."""
    runs = formula.replace("{", "<m:r><m:t>").replace("}", "</m:t></m:r>")
    assert _word(texts, f"<w:p><m:oMath>{runs}</m:oMath></w:p>") == text


STYLES = (
    '<w:style w:styleId="H1"><w:name w:val="heading 1"/><w:pPr><w:outlineLvl w:val="0"/></w:pPr>'
    '</w:style><w:style w:styleId="T1"><w:name w:val="toc 1"/></w:style>'
    '<w:style w:styleId="L"><w:name w:val="List"/><w:pPr><w:numPr><w:numId w:val="2"/></w:numPr>'
    '</w:pPr></w:style><w:style w:styleId="L2"><w:basedOn w:val="L"/></w:style>'
)
NUMBERS = (
    '<w:abstractNum w:abstractNumId="5"><w:lvl w:ilvl="0"><w:start w:val="1"/>'
    '<w:numFmt w:val="decimal"/><w:lvlText w:val="%1."/></w:lvl><w:lvl w:ilvl="1">'
    '<w:numFmt w:val="lowerLetter"/><w:lvlText w:val="%1.%2)"/></w:lvl></w:abstractNum>'
    '<w:abstractNum w:abstractNumId="6"><w:lvl w:ilvl="0"><w:numFmt w:val="bullet"/></w:lvl>'
    '</w:abstractNum><w:num w:numId="1"><w:abstractNumId w:val="5"/></w:num>'
    '<w:num w:numId="2"><w:abstractNumId w:val="6"/></w:num>'
)


def _item(text: str, number: int, level: int = 0) -> str:
    own = f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>'
    return p(text, own)


def test_structure_of_word(texts: Texts) -> None:
    """Headings stand alone, items below each other with their numbers; tables of contents go."""
    body = (
        p("Contents 3", '<w:pStyle w:val="T1"/>')
        + p("Results", '<w:pStyle w:val="H1"/>')
        + "".join([_item("one", 1), _item("deep", 1, 1), _item("deeper", 1, 1), _item("two", 1)])
        + p("")
        + p("styled", '<w:pStyle w:val="L2"/>')
        + p("plain", '<w:pStyle w:val="L2"/><w:numPr><w:numId w:val="0"/></w:numPr>')
    )
    text = "Results\n\n1. one\n1.a) deep\n1.b) deeper\n2. two\n- styled\n\nplain"
    assert _word(texts, body, styles=STYLES, numbering=NUMBERS) == text


def _table(*rows: str) -> str:
    cells = ("".join(f"<w:tc>{cell}</w:tc>" for cell in row.split(";")) for row in rows)
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


def test_tables_of_word(texts: Texts) -> None:
    """Rows become lines; a table that lays out the page becomes paragraphs."""
    table = _table(f"{p('name')};{p('score')}", f"{p('ours')};{p('7')}{p('of 9')}", f"{p('')};")
    assert _word(texts, p("a") + table + p("b")) == "a\n\nname | score\nours | 7 of 9\n\nb"
    nested = _table(f"{p('x')}{_table(p('in') + ';' + p('side'))}{p('y')};{p('z')}")
    assert _word(texts, nested) == "x in | side y | z"
    assert _word(texts, _table(p("one"), p("two"))) == "one\n\ntwo"
    assert _word(texts, _table(f"{p('long ' * 200)};{p('b')}")) == f"{'long ' * 199}long\n\nb"


def test_text_boxes_once_and_notes_at_the_end(texts: Texts) -> None:
    """A box has a copy for older programs, which is left out; notes come in the order of marks."""
    box = f"<w:txbxContent>{p('box')}</w:txbxContent>"
    copy = (
        f"<w:r><mc:AlternateContent><mc:Choice><w:drawing>{box}</w:drawing></mc:Choice>"
        f"<mc:Fallback><w:pict>{box}</w:pict></mc:Fallback></mc:AlternateContent></w:r>"
    )
    marks = '<w:r><w:footnoteReference w:id="3"/></w:r><w:r><w:footnoteReference w:id="2"/></w:r>'
    body = f"<w:p>{copy}<w:r><w:t>text</w:t></w:r>{marks}</w:p>" + p("more")
    notes = "".join(
        f'<w:footnote w:id="{key}">{p(f"note {key}")}</w:footnote>' for key in (0, 2, 3)
    )
    assert _word(texts, body, footnotes=notes) == "text\n\nbox\n\nmore\n\nnote 3\n\nnote 2"


def test_a_paragraph_whose_end_was_deleted_goes_on(texts: Texts) -> None:
    """Word shows both as one paragraph when the change is accepted."""
    body = p("They went ", "<w:rPr><w:del/></w:rPr>") + p("home.")
    assert _word(texts, body) == "They went home."


@pytest.mark.parametrize(
    ("title", "text"),
    [
        ("A Tale", "A Tale\n\nOnce a day."),
        ("once  a Day", "Once a day."),
        ("Microsoft Word - tale.doc", "Once a day."),
        ("Document1", "Once a day."),
        ("[no title]", "Once a day."),
        ("PowerPoint Presentation", "Once a day."),
    ],
)
def test_title(texts: Texts, title: str, text: str) -> None:
    """The title of the properties is taken where the text has none, unless a program made it."""
    assert texts("documents", "x.docx", docx(p("Once a day."), title)) == [text]


@pytest.mark.parametrize(("base", "text"), [("1", "x = 1\ny = 2"), ("0", "x = 1\n\ny = 2")])
def test_code_by_the_font_of_a_style(texts: Texts, base: str, text: str) -> None:
    """Lines in a style of a typewriter's font are code, but not in a text that is all in one."""
    is_default = "w:default='1'" if base == "0" else ""
    style = (
        f"<w:style w:styleId='E' {is_default}><w:name w:val='Example'/>"
        "<w:rPr><w:rFonts w:ascii='Courier New'/></w:rPr></w:style>"
    )
    body = "".join(p(line, "<w:pStyle w:val='E'/>") for line in ("x = 1", "y = 2"))
    assert texts("documents", "x.docx", docx(body, styles=style)) == [text]
    name = "Standard" if base == "0" else "Example"
    style = (
        f"<style:style style:name='{name}'><style:text-properties style:font-name='Courier'/>"
        f"</style:style><style:style style:name='P1' style:parent-style-name='{name}'/>"
    )
    body = "<text:p text:style-name='P1'>x = 1</text:p><text:p text:style-name='P1'>y = 2</text:p>"
    assert texts("documents", "x.odt", odf(body, styles=style)) == [text]


def test_slides(texts: Texts) -> None:
    """Slides come in order: title, other shapes, tables, notes; running lines and numbers go."""
    cells = "".join(f"<a:tc><a:p><a:r><a:t>{n}</a:t></a:r></a:p></a:tc>" for n in "ab")
    table = f"<p:graphicFrame><a:tbl><a:tr>{cells}</a:tr></a:tbl></p:graphicFrame>"
    footer = shape("", "The Company 2020") + shape("sldNum", "7") + shape("ftr", "secret")
    slides = [
        shape("body", "one", "two") + shape("title", "First") + footer,
        shape("title", "Second") + table + footer,
        f"<p:grpSp>{shape('', 'in a group')}</p:grpSp>{footer}",
    ]
    expected = "First\n\n- one\n- two\n\nsay this\n\nSecond\n\na | b\n\nin a group"
    assert texts("documents", "x.pptx", pptx(slides, {0: "say this"})) == [expected]


LIST_STYLE = (
    '<text:list-style style:name="N"><text:list-level-style-number text:level="1"'
    ' style:num-format="1" style:num-suffix=")"/></text:list-style>'
    '<style:style style:name="up"><style:text-properties style:text-position="super 58%"/>'
    "</style:style>"
)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("<text:h>Head</text:h><text:p>a <text:span>b</text:span>  c</text:p>", "Head\n\na b c"),
        ("<text:p>a<text:tab/>b<text:line-break/>c<text:s text:c='3'/>d</text:p>", "a b\nc d"),
        (
            "<text:p>10<text:span text:style-name='up'>23</text:span> m</text:p>",
            "10²³ m",
        ),
        (
            (
                "<text:list text:style-name='N'><text:list-item><text:p>one</text:p><text:list>"
                "<text:list-item><text:p>deep</text:p></text:list-item></text:list>"
                "</text:list-item><text:list-item><text:p>two</text:p></text:list-item></text:list>"
            ),
            "1) one\n- deep\n2) two",
        ),
        (
            (
                "<table:table><table:table-row><table:table-cell><text:p>a</text:p>"
                "</table:table-cell><table:table-cell><text:p>b</text:p></table:table-cell>"
                "</table:table-row></table:table>"
            ),
            "a | b",
        ),
        (
            (
                "<text:tracked-changes><text:p>gone</text:p></text:tracked-changes><text:p>a"
                "<office:annotation><text:p>comment</text:p></office:annotation>b<text:note>"
                "<text:note-citation>1</text:note-citation><text:note-body><text:p>note</text:p>"
                "</text:note-body></text:note></text:p><text:p>c</text:p>"
            ),
            "ab\n\nc\n\nnote",
        ),
        (
            (
                "<text:p>a<draw:frame><draw:text-box><text:p>box</text:p></draw:text-box>"
                "</draw:frame></text:p><text:table-of-content><text:p>a 1</text:p>"
                "</text:table-of-content>"
            ),
            "a\n\nbox",
        ),
        (
            (
                "<text:section><text:p>in</text:p></text:section><text:p><text:page-number>3"
                "</text:page-number></text:p>"
            ),
            "in",
        ),
    ],
)
def test_open_documents(texts: Texts, body: str, text: str) -> None:
    """ODT gives what DOCX gives."""
    assert texts("documents", "x.odt", odf(body, styles=LIST_STYLE)) == [text]


def test_open_presentations(texts: Texts) -> None:
    """Slides of an ODP come with their titles first and their notes last."""

    def frame(place: str, text: str) -> str:
        return (
            f"<draw:frame presentation:class='{place}'><draw:text-box><text:p>{text}</text:p>"
            "</draw:text-box></draw:frame>"
        )

    pages = "".join(
        f"<draw:page><presentation:notes>{frame('notes', f'say {n}')}</presentation:notes>"
        f"{frame('footer', 'f')}{frame('', 'The Company')}{frame('outline', f'text {n}')}"
        f"{frame('title', f'Title {n}')}</draw:page>"
        for n in range(3)
    )
    expected = "\n\n".join(f"Title {n}\n\ntext {n}\n\nsay {n}" for n in range(3))
    assert texts("documents", "x.odp", odf(pages, "presentation")) == [expected]


@pytest.mark.parametrize(
    ("name", "data", "form"),
    [
        ("x.zip", docx(p("a")), "docx"),
        ("x.doc", docx(p("a")), "docx"),
        ("x", pptx([shape("", "a")]), "pptx"),
        ("x.zip", odf(""), "odt"),
        ("x.docx", b"PK\x03\x04" + b"\0" * 40, "docx"),
        ("x.zip", package({"a.txt": "a", "word/b.xml": "b"}), "document"),
        ("x.doc", b"\xd0\xcf\x11\xe0" + b"\0" * 600, "doc"),
        ("x", b"\xd0\xcf\x11\xe0" + "WordDocument".encode("utf-16-le"), "doc"),
        ("x.docx", b"\xd0\xcf\x11\xe0" + "EncryptedPackage".encode("utf-16-le"), "encrypted"),
        ("x.doc", ole("WordDocument", b"\xec\xa5".ljust(11, b"\0") + b"\x01"), "encrypted"),
        ("x.doc", ole("WordDocument", b"\xec\xa5".ljust(11, b"\0") + b"\x02"), "doc"),
        ("x.xls", ole("Workbook", BOOK + b"\x2f\0\x06\0".ljust(10, b"\0")), "encrypted"),
        ("x.xls", ole("Workbook", BOOK + b"\x42\0\x02\0\x2f\0"), "xls"),
        ("x.xls", ole("Workbook", BOOK), "xls"),
        ("x.ppt", ole("PowerPoint Docu", b"\x14\0\0\0\xdf\xc4\xd1\xf3"), "encrypted"),
        ("x.docx", b"{\\rtf1 a}", "rtf"),
        ("x.rtf", b"{\\pard a\\par}", "rtf"),
        ("x.rtf", b"Text by another program.", "text"),
        ("x.zip", xlsx(A=[["a"]]), "xlsx"),
    ],
)
def test_formats_are_told_by_bytes(name: str, data: bytes, form: str) -> None:
    """The members of a zip file and the streams of an OLE file decide before the suffix."""
    assert detect_format(name, data) == form


def test_an_archive_of_documents_is_an_archive(texts: Texts) -> None:
    """A DOCX that an archive holds uncompressed does not make the archive one."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.docx", docx(p("one")))
        archive.writestr("b.docx", docx(p("two")))
    assert packages.package_format("x.zip", out.getvalue()) == ""


def _reason(results: list[Document | Reject]) -> str:
    (result,) = results
    assert isinstance(result, Reject)
    return result.reason


def test_what_cannot_be_read_is_listed(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encrypted, cut-off, empty and old files are one rejection each, with what to do."""
    for name in ("x.docx", "x.xlsx", "x.pptx"):
        assert _reason(read("documents", name, ole("EncryptedPackage", b""))) == "encrypted"
    (locked,) = read("documents", "x.xls", ole("Workbook", BOOK + b"\x2f\0\x06\0"))
    assert locked == Reject("encrypted", detail="it wants a password: save it without one first")
    assert _reason(read("documents", "x.docx", docx(p("a"))[:-40])) == "damaged"
    assert _reason(read("documents", "x.docx", docx(""))) == "no-text"
    assert _reason(read("documents", "x.docx", package({"[Content_Types].xml": ""}))) == "missing"
    monkeypatch.setenv("PATH", "")
    (old,) = read("documents", "x.doc", b"\xd0\xcf\x11\xe0" + b"\0" * 600)
    assert isinstance(old, Reject) and "antiword" in old.detail


@pytest.mark.parametrize("form", ["text", "spreadsheet", "presentation"])
def test_open_documents_with_a_password(read: Read, form: str) -> None:
    """Their members are noise; the manifest says that it is encrypted."""
    if form == "spreadsheet":
        pytest.importorskip("python_calamine")
    manifest = "<m:manifest xmlns:m='m'><m:encryption-data/></m:manifest>"
    members = {"content.xml": "\x01noise", "META-INF/manifest.xml": manifest}
    data = package(members, f"application/vnd.oasis.opendocument.{form}")
    assert _reason(read("documents", "x.odt", data)) == "encrypted"


def test_a_converter_reads_old_files(
    texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program on the PATH reads a DOC; its lines are paragraphs."""
    program = tmp_path / "antiword"
    program.write_text("#!/bin/sh\nprintf 'one\\n\\ntwo\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert texts("documents", "x.doc", b"\xd0\xcf\x11\xe0" + b"\0" * 600) == ["one\n\ntwo"]


def test_bombs_and_entities(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members count against the bounds of every archive; no entity is expanded or fetched."""
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    hostile = f'<!DOCTYPE w [<!ENTITY e0 "ha"><!ENTITY f SYSTEM "file:///etc/passwd">{entities}]>'
    data = package(
        {
            "[Content_Types].xml": "",
            "word/document.xml": hostile
            + "<w:d xmlns:w='w'><w:p><w:r><w:t>&e11;&f; safe</w:t></w:r></w:p></w:d>",
        }
    )
    (result,) = read("documents", "x.docx", data)
    assert isinstance(result, Reject) or len(result.text) < 20
    monkeypatch.setattr(streams, "RATIO_FLOOR", 1 << 20)
    assert _reason(read("documents", "x.docx", docx(p(" " * (15 << 20))))) == "bomb"


def test_what_stands_before_damage_is_kept(read: Read) -> None:
    """XML that breaks off, or nests too deeply, costs what follows, and is listed."""
    for inner, reason in (("<w:tbl><w:tr><w:tc>" * 3000, "nesting"), ("<w:p></w:r", "damaged")):
        document, reject = read("documents", "x.docx", docx(p("before") + inner))
        assert isinstance(document, Document) and document.text == "before"
        assert isinstance(reject, Reject) and (reject.record, reject.reason) == (1, reason)


@pytest.mark.parametrize(
    ("rtf", "text"),
    [
        (r"Caf\'e9 {\b bold}\par next\par", "Café bold\n\nnext"),
        (r"It\u8217?s \uc2\u945 xxb{\uc0\u946}c\par", "It’s αbβc"),
        (r"\u-10179?\u-8704?", "😀"),
        (r"a{\*\unknown gone}{\pict 0a0b}{\header no}b", "ab"),
        (r"a\bin3 }{\b", "ab"),
        (r"{\v hidden}{\deleted gone}shown {\field{\*\fldinst PAGE}{\fldrslt 7}}", "shown 7"),
        (r"\f1\'e0\'e1 {\f2\'61\'b7}", "аб α•"),
        (r"10{\super 23} to\~\endash  b\-c\_d\line e", "10²³ to – bc-d\ne"),
        (r"{\listtext 1.\tab}one\par{\listtext \'b7\tab}two\par", "1. one\n- two"),
        (r"\trowd a\cell b\par c\cell\row\trowd d\cell e\cell\row\pard f", "a | b c\nd | e\n\nf"),
        (r"a{\footnote note\par}b\par{\outlinelevel1 H\par}", "ab\n\nH\n\nnote"),
        (r"{\info{\title A Tale}{\author Ann}}text", "A Tale\n\ntext"),
    ],
)
def test_rtf(texts: Texts, rtf: str, text: str) -> None:
    """Words of RTF become characters and structure; groups that are no text go."""
    fonts = r"{\fonttbl{\f0 Arial;}{\f1\fcharset204 Arial Cyr;}{\f2\fcharset2 Symbol;}}"
    data = rf"{{\rtf1\ansi\ansicpg1252{fonts}\f0 {rtf}}}garbage".encode()
    assert texts("documents", "x.rtf", data) == [text]


def test_a_fragment_of_rtf_has_no_head(texts: Texts) -> None:
    """Programs write groups to be put into a document; all of them are read."""
    assert texts("documents", "x.rtf", rb"{\pard one\par}{\pard two\par}") == ["one\n\ntwo"]


def test_groups_of_rtf_are_bounded(read: Read) -> None:
    """A million groups inside each other are a rejection."""
    assert _reason(read("documents", "x.rtf", b"{\\rtf1 " + b"{" * 1_000_000)) == "nesting"


def test_sheets_of_words_are_documents(read: Read) -> None:
    """A sheet of words gives its rows; one of numbers is listed with its share of words."""
    pytest.importorskip("python_calamine")
    words: list[list[str | float]] = [
        ["Question", "Answer"],
        ["Is it late?", "It is, and dark."],
        ["How many?", 7],
    ]
    results = read(
        "documents", "x.xlsx", xlsx(Survey=words, Sheet2=[["n"], *[[n] for n in range(99)]])
    )
    assert isinstance(results[0], Document)
    assert results[0].text == (
        "Survey\n\nQuestion | Answer\nIs it late? | It is, and dark.\nHow many? | 7"
    )
    assert isinstance(results[1], Reject) and results[1].reason == "no-text"
    assert "Sheet2: 0%" in results[1].detail
    assert _reason(read("documents", "x.xlsx", xlsx(A=words)[:-30])) == "damaged"


def test_old_workbooks(texts: Texts) -> None:
    """Sheets of Excel from before 2007 give what XLSX gives."""
    pytest.importorskip("python_calamine")
    rows = [["Question", "Answer"], ["Is it late?", "It is, and dark."]]
    (text,) = texts("documents", "x.xls", xls(rows))
    assert text == "Survey\n\nQuestion | Answer\nIs it late? | It is, and dark."


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.docx", docx(p("one") + "<w:p><m:oMath><m:r><m:t>a</m:t></m:r></m:oMath></w:p>", "T")),
        ("x.pptx", pptx([shape("title", "T") + shape("body", "a", "b")], {0: "note"})),
        ("x.xlsx", xlsx(Survey=[["Question", "Answer"]])),
    ],
)
def test_strict_files_give_what_others_give(texts: Texts, name: str, data: bytes) -> None:
    """The strict form of Office Open XML (ISO 29500) has other namespaces."""
    if name == "x.xlsx":
        pytest.importorskip("python_calamine")
    (text,) = texts("documents", name, data)
    assert texts("documents", name, strict(data)) == [text]


def test_a_sheet_may_not_claim_a_billion_cells(read: Read) -> None:
    """A cell at the last corner makes the library ask for all of them: that costs the sheet."""
    pytest.importorskip("python_calamine")
    data = package(
        {
            name: text.replace('r="B1"', 'r="XFD1048576"')
            for name, text in _members(xlsx(A=[["a", "b"]])).items()
        }
    )
    assert _reason(read("documents", "x.xlsx", data)) in ("damaged", "too-large", "no-text")


def _members(data: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_symbols() -> None:
    """Letters of the font Symbol are Greek; private characters of other fonts read as Symbol."""
    assert symbols("a\uf062", "Symbol") == "αβ"
    assert symbols("a\uf062", "Arial") == "aβ"
    assert symbols("abc", "Arial") == "abc"


def test_typed_bullets() -> None:
    """A bullet typed by hand makes an item; one alone is nothing."""
    blocks = Blocks()
    for text in ("• a", "•", "•\tb"):
        blocks.add(text)
    assert blocks.text() == "- a\n- b"
