"""Small files of Office, OpenDocument and PDF, made in memory."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence

_OOXML, _STRICT = "http://schemas.openxmlformats.org", "http://purl.oclc.org/ooxml"
_W = f"{_OOXML}/wordprocessingml/2006/main"
_A = f"{_OOXML}/drawingml/2006/main"
_P = f"{_OOXML}/presentationml/2006/main"
_R = f"{_OOXML}/officeDocument/2006/relationships"
_M = f"{_OOXML}/officeDocument/2006/math"
_MC = f"{_OOXML}/markup-compatibility/2006"
_V = "urn:schemas-microsoft-com:vml"
SPACES = f'xmlns:w="{_W}" xmlns:a="{_A}" xmlns:p="{_P}" xmlns:r="{_R}" xmlns:m="{_M}"'
SPACES += f' xmlns:mc="{_MC}" xmlns:v="{_V}"'
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_ODF = "urn:oasis:names:tc:opendocument:xmlns:"
ODF_SPACES = " ".join(
    f'xmlns:{name}="{_ODF}{name}:1.0"'
    for name in ("office", "text", "table", "style", "presentation")
)
ODF_SPACES += f' xmlns:draw="{_ODF}drawing:1.0" xmlns:dc="http://purl.org/dc/elements/1.1/"'


def package(members: Mapping[str, str], media_type: str = "") -> bytes:
    """Return a zip file of the members, after its media type where it has one."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        if media_type:
            archive.writestr("mimetype", media_type, zipfile.ZIP_STORED)
        for name, text in members.items():
            archive.writestr(name, text)
    return out.getvalue()


def relations(**targets: str) -> str:
    """Return a member of relations: id → `type member`."""
    entries = "".join(
        f'<Relationship Id="{key}" Type="{_R}/{value.split()[0]}" Target="{value.split()[1]}"/>'
        for key, value in targets.items()
    )
    return f'<Relationships xmlns="{_RELATIONS}">{entries}</Relationships>'


def docx(body: str, title: str = "", **parts: str) -> bytes:
    """Return a DOCX; `parts` are the insides of its members `word/NAME.xml`."""
    members = {
        "[Content_Types].xml": "<Types/>",
        "_rels/.rels": relations(a="officeDocument word/document.xml"),
        "word/document.xml": f"<w:document {SPACES}><w:body>{body}</w:body></w:document>",
        "docProps/core.xml": f"<c xmlns:dc='http://purl.org/dc/elements/1.1/'><dc:title>{title}"
        "</dc:title></c>",
    }
    for name, inner in parts.items():
        members[f"word/{name}.xml"] = f"<w:{name} {SPACES}>{inner}</w:{name}>"
    return package(members)


def p(text: str, properties: str = "") -> str:
    """Return a paragraph of Word of one run."""
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def shape(place: str, *paragraphs: str) -> str:
    """Return a shape of a slide; `place` is the type of its placeholder, "" for a text box."""
    mark = f'<p:nvSpPr><p:nvPr><p:ph type="{place}"/></p:nvPr></p:nvSpPr>' if place else ""
    inner = "".join(f"<a:p><a:r><a:t>{text}</a:t></a:r></a:p>" for text in paragraphs)
    return f"<p:sp>{mark}<p:txBody>{inner}</p:txBody></p:sp>"


def pptx(slides: Sequence[str], notes: Mapping[int, str] | None = None) -> bytes:
    """Return a PPTX of slides in reverse order of their members; `notes` by number of a slide."""
    numbers = range(len(slides), 0, -1)
    ids = "".join(f'<p:sldId id="25{n}" r:id="r{n}"/>' for n in numbers)
    members = {
        "[Content_Types].xml": "<Types/>",
        "_rels/.rels": relations(a="officeDocument ppt/presentation.xml"),
        "ppt/presentation.xml": f"<p:presentation {SPACES}>{ids}</p:presentation>",
        "ppt/_rels/presentation.xml.rels": relations(
            **{f"r{n}": f"slide slides/slide{n}.xml" for n in numbers}
        ),
    }
    for n, inner in zip(numbers, slides, strict=True):
        members[f"ppt/slides/slide{n}.xml"] = f"<p:sld {SPACES}>{inner}</p:sld>"
    for n, text in (notes or {}).items():
        number = numbers[n]
        members[f"ppt/slides/_rels/slide{number}.xml.rels"] = relations(
            n=f"notesSlide ../notesSlides/n{number}.xml"
        )
        members[f"ppt/notesSlides/n{number}.xml"] = (
            f"<p:notes {SPACES}>{shape('body', text)}{shape('sldNum', str(number))}</p:notes>"
        )
    return package(members)


def odf(body: str, form: str = "text", styles: str = "", meta: str = "") -> bytes:
    """Return an ODT, or an ODP with `form="presentation"`."""
    content = (
        f"<office:document-content {ODF_SPACES}><office:automatic-styles>{styles}"
        f"</office:automatic-styles><office:body><office:{form}>{body}</office:{form}>"
        "</office:body></office:document-content>"
    )
    members = {"content.xml": content, "meta.xml": f"<m {ODF_SPACES}>{meta}</m>"}
    return package(members, f"application/vnd.oasis.opendocument.{form}")


def xlsx(**sheets: Sequence[Sequence[str | float]]) -> bytes:
    """Return an XLSX of sheets by name."""
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    types = "http://schemas.openxmlformats.org/package/2006/content-types"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    main = f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>'
    names = list(sheets)
    entries = "".join(
        f'<sheet name="{name}" sheetId="{n}" r:id="r{n}"/>' for n, name in enumerate(names, 1)
    )
    members = {
        "[Content_Types].xml": f'<Types xmlns="{types}">{main}</Types>',
        "_rels/.rels": relations(a="officeDocument xl/workbook.xml"),
        "xl/workbook.xml": (
            f'<workbook xmlns="{space}" xmlns:r="{_R}"><sheets>{entries}</sheets></workbook>'
        ),
        "xl/_rels/workbook.xml.rels": relations(
            **{f"r{n}": f"worksheet worksheets/sheet{n}.xml" for n in range(1, len(names) + 1)}
        ),
    }
    for number, rows in enumerate(sheets.values(), 1):
        data = ""
        for y, row in enumerate(rows, 1):
            cells = (
                f'<c r="{chr(65 + x)}{y}" t="inlineStr"><is><t>{value}</t></is></c>'
                if isinstance(value, str)
                else f'<c r="{chr(65 + x)}{y}"><v>{value}</v></c>'
                for x, value in enumerate(row)
            )
            data += f'<row r="{y}">{"".join(cells)}</row>'
        members[f"xl/worksheets/sheet{number}.xml"] = (
            f'<worksheet xmlns="{space}"><sheetData>{data}</sheetData></worksheet>'
        )
    return package(members)


def strict(data: bytes) -> bytes:
    """Return a file of Office Open XML in its strict form, which has other namespaces."""
    members = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            text = archive.read(name).decode()
            for part in ("wordprocessingml", "drawingml", "presentationml", "spreadsheetml"):
                text = text.replace(f"{_OOXML}/{part}/2006/", f"{_STRICT}/{part}/")
            members[name] = text.replace(
                f"{_OOXML}/officeDocument/2006/", f"{_STRICT}/officeDocument/"
            )
    return package(members)


def ole(stream: str, data: bytes) -> bytes:
    """Return an OLE file of one stream, in sectors of 512 bytes: table, directory, stream."""
    data = data.ljust(4096, b"\0")
    data += bytes(-len(data) % 512)
    count = len(data) // 512
    table = [0xFFFFFFFD, 0xFFFFFFFE, *range(3, count + 2), 0xFFFFFFFE]

    def entry(name: str, kind: int, child: int, start: int, size: int) -> bytes:
        encoded = f"{name}\0".encode("utf-16-le")
        head = struct.pack("<64sHBBiii", encoded, len(encoded), kind, 1, -1, -1, child)
        return head + bytes(36) + struct.pack("<IQ", start, size)

    directory = entry("Root Entry", 5, 1, 0xFFFFFFFE, 0) + entry(stream, 2, -1, 2, len(data))
    header = struct.pack(
        "<8s16xHHHHH6xIIIIIIIIII", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0x3E, 3, 0xFFFE, 9, 6,
        0, 1, 1, 0, 4096, 0xFFFFFFFE, 0, 0xFFFFFFFE, 0, 0,
    )  # fmt: skip
    fat = struct.pack(f"<{len(table)}I", *table).ljust(512, b"\xff")
    return header.ljust(512, b"\xff") + fat + directory.ljust(512, b"\0") + data


def xls(rows: Sequence[Sequence[str]]) -> bytes:
    """Return an Excel workbook from before 2007 (BIFF8) of one sheet of words."""

    def record(kind: int, data: bytes) -> bytes:
        return struct.pack("<HH", kind, len(data)) + data

    def text(value: str, length: str) -> bytes:
        return struct.pack(length, len(value)) + b"\0" + value.encode("latin-1")

    def start(kind: int) -> bytes:
        return record(0x809, struct.pack("<HHHHII", 0x600, kind, 0, 0, 0, 6))

    end = record(0x0A, b"")
    sheet = start(0x10)
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            sheet += record(0x204, struct.pack("<HHH", y, x, 0) + text(value, "<H"))
    name = text("Survey", "<B")
    at = len(start(5)) + 4 + 6 + len(name) + len(end)
    book = start(5) + record(0x85, struct.pack("<IBB", at, 0, 0) + name) + end
    return ole("Workbook", book + sheet + end)


def pdf(pages: Sequence[Sequence[tuple[float, float, str]]], size: float = 10.0) -> bytes:
    """Return a PDF of pages of texts in Courier, each with the left end and the baseline.

    A letter is 0.6 of `size` wide. The font G is Helvetica.
    """
    streams = []
    for texts in pages:
        draw = "".join(f"1 0 0 1 {x} {y} Tm ({text}) Tj " for x, y, text in texts)
        streams.append(f"BT /F {size} Tf {draw}ET")
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Courier/Encoding/WinAnsiEncoding>>",
    ]
    for n, stream in enumerate(streams):
        objects.append(
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F 3 0 R/G"
            "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>>>>>"
            f"/Contents {5 + 2 * n} 0 R>>"
        )
        objects.append(f"<</Length {len(stream)}>>\nstream\n{stream}\nendstream")
    out, starts = "%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        starts.append(len(out))
        out += f"{number} 0 obj\n{text}\nendobj\n"
    table = "".join(f"{start:010} 00000 n \n" for start in starts)
    trailer = f"trailer\n<</Root 1 0 R/Size {len(objects) + 1}>>\nstartxref\n{len(out)}\n%%EOF\n"
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}"
    return out.encode("cp1252")


def lines(texts: Sequence[str], x: float = 50, y: float = 700) -> list[tuple[float, float, str]]:
    """Return lines for a page of a PDF below each other; "" is a blank line."""
    return [(x, y - 12 * n, text) for n, text in enumerate(texts) if text]


def scan(data: bytes) -> bytes:
    """Return a PDF whose pages are pictures of the pages of another."""
    import pypdfium2

    drawn, scanned = pypdfium2.PdfDocument(data), pypdfium2.PdfDocument.new()
    for page in drawn:
        width, height = page.get_size()
        image = pypdfium2.PdfImage.new(scanned)
        image.set_bitmap(page.render(scale=3, grayscale=True))
        image.set_matrix(pypdfium2.PdfMatrix().scale(width, height))
        copy = scanned.new_page(width, height)
        copy.insert_obj(image)
        copy.gen_content()
    out = io.BytesIO()
    scanned.save(out)
    return out.getvalue()
