"""What a file says, by tools that are none of ours: pandoc, pdftotext, Python's email, and for
exports of chats, forums and slides a few lines each. A reference raises UnreadableError where
its tool cannot read a file.
"""

from __future__ import annotations

import email.policy
import gzip
import html
import json
import mailbox
import re
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from email.message import MIMEPart
from email.parser import BytesParser
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pyarrow.parquet as pq

# Formulas, pictures, citations, names of labels, tags and states of tasks are left out, and so is a
# note that was given before; titles that pandoc takes for metadata are text.
LUA = """
function Cite() return {} end
function Link(link) if link.attributes["reference"] then return {} end end
function Math() return {} end
function Span(span)
  for _, class in ipairs({"tag", "todo", "done"}) do
    if span.classes:includes(class) then return {} end
  end
end
function Image() return {} end
notes = {}
function Note(note)
  local text = pandoc.utils.stringify(pandoc.Div(note.content))
  if notes[text] then return {} end
  notes[text] = true
end
function Pandoc(doc)
  for _, key in ipairs({"subtitle", "title"}) do
    if doc.meta[key] then
      table.insert(doc.blocks, 1, pandoc.Para(pandoc.Str(pandoc.utils.stringify(doc.meta[key]))))
    end
  end
  return doc
end
"""
SLIDE = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
ODF = "{urn:oasis:names:tc:opendocument:xmlns:"
# Elements of OpenDocument that hold no text of the document, and those that stand for a space.
ODF_NO_TEXT = (
    *(f"{ODF}office:1.0}}annotation", f"{ODF}text:1.0}}tracked-changes"),
    *(f"{ODF}text:1.0}}note-citation", f"{ODF}text:1.0}}table-of-content"),
    f"{ODF}office:1.0}}forms",
)
ODF_SPACES = tuple(f"{ODF}text:1.0}}{name}" for name in ("s", "tab", "line-break"))
# What a notebook shows of an object that it cannot print.
OBJECT = re.compile(r"\s*(?:\[?<[^<>\n]*>[,\]]?\s*)+")
# What WhatsApp and Signal put before a message, and the start of a quotation in a mail.
CHAT_HEAD = re.compile(
    r"^\[?\d[\d/.-]{5,9},? \d\d?:\d\d(?::\d\d)?(?: [ap]\. ?m\.)?\]?(?: -)? (?:([^:\n]{1,60}):)?"
)
ATTRIBUTION = re.compile(
    r"^(?:-{3} )?(?:On|Le|Am|El) .{5,200}(?:wrote|writes|a écrit|schrieb|escribió):\s*$"
)
# With the name of a list.
MAIL_PREFIX = re.compile(
    r"^(?:(?:re|fwd?|aw)(?:\[\d+\])?:\s*|\[[^\[\]]{1,40}\]\s*(?=\S))+", re.IGNORECASE
)
EMOJI = re.compile(r"(?<!\w):[\w+-]+:")
# Where Outlook and others begin what a mail answers.
QUOTED = re.compile(
    r"^(?:-{2,} ?Original Message ?-{2,}"
    r"|From: .*\n(?:Subject: .*\n)?(?:(?:Sent|Date|To): .*\n){2})",
    re.MULTILINE,
)
# What programs and companies add: the header lines of a forwarded mail, notices, advertisements,
# what newsletters say above and below their text, and what PGP puts around one.
ADDED = re.compile(
    r"^Da: .*\n(?:(?:Inviato|Data|A|Cc|Oggetto): .*\n)+|^Inizio messaggio inoltrato:$"
    r"|^(?:Begin forwarded message:|-+ ?Forwarded message ?-+)\s*\n"
    r"(?:(?:From|Date|To|Subject): .*\n)+"
    r"|^(?:Sent|Envoyé) (?:via|par) .* service\b.*$|^To view this email as a web page.*$"
    r"|^If you'd rather not receive future emails(?:.*\n)*"
    r"|^Nota di riservatezza\b.*$|^-----BEGIN PGP SIGNED MESSAGE-----\n(?:.+\n)*"
    r"|^-----BEGIN PGP SIGNATURE-----\n(?:.*\n)*?-----END PGP SIGNATURE-----$",
    re.MULTILINE,
)
PDFTOTEXT = ("pdftotext", "-enc", "UTF-8", "-nopgbrk")
MAX_SECONDS = 30
# Longer outputs of notebooks are data; bounds as in docs/sources.md.
SHORT_OUTPUT, SHORT_LINES = 1_000, 20
# Columns that a person reads, by a part of the file's path; the first that fits.
COLUMNS = {
    "TOS/": ("sentence",),
    "SmolLM2": ("system_prompt", "prompt", "response"),
    "alpaca": ("instruction", "input", "output"),
    "diversity__demo": ("text", "input", "output"),
    "": ("text",),
}


class UnreadableError(Exception):
    """The tool of a reference does not read a file."""


class Reference(NamedTuple):
    """The text of a file, and the names of those who speak in it."""

    text: str
    names: frozenset[str] = frozenset()


def decode(data: bytes, name: str = "") -> str:
    """Return bytes as text: by their mark, as UTF-8, by what HTML declares or the file is called
    by, else as Western.
    """
    marks = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
    declared = re.search(rb"charset=[\"']?([\w-]+)", data[:2000])
    names = [name for mark, name in marks.items() if data.startswith(mark)]
    names += ["utf-8", declared[1].decode() if declared else name, "cp1252"]
    for each in names:
        try:
            return data.decode(each)
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("cp1252", "replace")


def command(words: list[str], data: bytes = b"") -> str:
    """Return what a program prints."""
    try:
        done = subprocess.run(
            words, input=data, capture_output=True, check=True, timeout=MAX_SECONDS
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise UnreadableError(str(error)) from None
    return done.stdout.decode("utf-8", "replace")


def pandoc_text(format: str, data: bytes) -> str:
    """Return what pandoc makes of a file in a format; text in any encoding."""
    if format not in ("docx", "odt"):
        data = decode(data).encode()
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(LUA)
        script.flush()
        words = ["pandoc", "-f", format, "-t", "plain", "--wrap=none", "--lua-filter", script.name]
        return command(words, data)


def pandoc(format: str) -> Callable[[Path], Reference]:
    return lambda path: Reference(pandoc_text(format, path.read_bytes()))


def markdown(path: Path) -> Reference:
    """Markdown; embedded notes and lines for site generators are no text, and of a link between
    notes its label is.
    """
    text = re.sub(r"\{\{[#<%].*?\}\}|!\[\[[^\[\]]*\]\]", "", decode(path.read_bytes()))
    text = re.sub(r"\[\[(?:[^\[\]|]*\|)?([^\[\]]*)\]\]", r"\1", text)
    return Reference(pandoc_text("gfm+footnotes+yaml_metadata_block", text.encode()))


def structured(path: Path) -> Reference:
    """reStructuredText; the header of a PEP is no text, nor are the names of what Sphinx documents
    from code.
    """
    text = re.sub(r"\A(?:[A-Z][\w-]+:.*\n(?:[ \t]+.*\n)*)+", "", decode(path.read_bytes()))
    text = re.sub(
        r"^[ \t]*\.\.[ \t]+(?:py:)?auto\w+::.*\n(?:[ \t]+:.*\n)*", "\n", text, flags=re.MULTILINE
    )
    return Reference(pandoc_text("rst", text.encode()))


def outline(path: Path) -> Reference:
    """Org; what a clock wrote is no text."""
    text = re.sub(r"^[ \t]*CLOCK:.*\n", "", decode(path.read_bytes()), flags=re.MULTILINE)
    return Reference(pandoc_text("org", text.encode()))


def pdf(path: Path) -> Reference:
    return Reference(command([*PDFTOTEXT, str(path), "-"]))


def notebook(path: Path) -> Reference:
    """The source of cells: Markdown as pandoc reads it, code as it is; and what code prints or
    returns, if it is short and no object without a text. Raw cells are for programs.
    """
    try:
        cells = json.loads(path.read_bytes())["cells"]
    except (ValueError, KeyError, TypeError):
        raise UnreadableError("no cells") from None
    parts = []
    for cell in cells:
        if cell["cell_type"] == "raw":
            continue
        source = "".join(cell["source"])
        is_prose = cell["cell_type"] == "markdown"
        parts.append(pandoc_text("markdown", source.encode()) if is_prose else source)
        for output in cell.get("outputs", ()):
            shown = output.get("data", {}).get("text/plain") or output.get("text") or ""
            text = "".join(shown)
            is_short = len(text) < SHORT_OUTPUT and text.count("\n") < SHORT_LINES
            parts.append("" if not is_short or OBJECT.fullmatch(text) else text)
    return Reference("\n\n".join(parts))


def slides(path: Path) -> Reference:
    """The paragraphs of the slides and of their notes."""
    parts = []
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if re.fullmatch(r"ppt/(?:slides/slide|notesSlides/notesSlide)\d+\.xml", name):
                    for node in ElementTree.fromstring(archive.read(name)).iter():
                        # Paragraphs and lines begin anew.
                        is_break = node.tag in (f"{SLIDE}p", f"{SLIDE}br")
                        parts.append("\n" if is_break else "")
                        parts.append(node.text or "" if node.tag == f"{SLIDE}t" else "")
    except (zipfile.BadZipFile, ElementTree.ParseError) as error:
        raise UnreadableError(str(error)) from None
    return Reference("".join(parts))


def open_document(path: Path) -> Reference:
    """All paragraphs; pandoc leaves out sections."""
    try:
        with zipfile.ZipFile(path) as archive:
            root = ElementTree.fromstring(archive.read("content.xml"))
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError) as error:
        raise UnreadableError(str(error)) from None
    body = root.find(f"{ODF}office:1.0}}body")
    return Reference("" if body is None else open_document_text(body))


def open_document_text(node: ElementTree.Element) -> str:
    """Return the text of an element, each paragraph on a line of its own."""
    if node.tag in ODF_NO_TEXT:
        return node.tail or ""
    ends = "\n" if node.tag in (f"{ODF}text:1.0}}p", f"{ODF}text:1.0}}h") else ""
    space = " " if node.tag in ODF_SPACES else ""
    inner = "".join(map(open_document_text, node))
    return f"{ends}{space}{node.text or ''}{inner}{ends}{node.tail or ''}"


def web_page(path: Path) -> Reference:
    """All that a page shows, menus too."""
    return Reference(pandoc_text("html", path.read_bytes()))


def saved_page(path: Path) -> Reference:
    message = BytesParser(policy=email.policy.default).parsebytes(path.read_bytes())
    for part in message.walk():
        if part.get_content_type() == "text/html":
            data = part.get_payload(decode=True)
            return Reference(pandoc_text("html", data if isinstance(data, bytes) else b""))
    raise UnreadableError("no page")


def mail(path: Path) -> Reference:
    """A mail and those attached to it; reports of programs that a mail came back are none."""
    data = path.read_bytes()
    # Some programs save mails in UTF-16, which email does not read.
    data = data.decode("utf-16-le", "replace").encode() if b"\0" in data[:200] else data
    message = BytesParser(policy=email.policy.default).parsebytes(data)
    if any(part.get_content_type() == "message/delivery-status" for part in message.walk()):
        raise UnreadableError("a bounce")
    return mails([message])


def mails_of_box(path: Path) -> Reference:
    parser: Any = BytesParser(policy=email.policy.default)
    return mails(mailbox.mbox(path, factory=parser.parse))


def mails(messages: Any) -> Reference:
    """The subjects, each once, and the texts; each text once, as in lists that hold it twice."""
    lines = dict[str, None]()
    names = set[str]()
    for message in messages:
        for part in message.walk():
            if part.is_multipart() and part.get("subject") is None:
                continue
            subject = " ".join(str(part.get("subject") or "").split())
            lines.setdefault(MAIL_PREFIX.sub("", subject))
            names.add(re.sub(r"<[^>]*>", "", str(part.get("from") or "")))
        texts = list(map(written, bodies(message)))
        # A subject that a text begins with is there once.
        for subject in [line for line in lines if any(text.startswith(line) for text in texts)]:
            del lines[subject]
        lines.update(dict.fromkeys(texts))
    return Reference("\n\n".join(lines), frozenset(names))


def bodies(message: MIMEPart) -> Iterator[str]:
    """Yield the texts of a mail: of alternatives the plain one."""
    if message.get_content_type() == "multipart/alternative":
        body = message.get_body(("plain", "html"))
        yield from bodies(body) if body is not None and body is not message else ()
    elif message.is_multipart():
        for part in message.iter_parts():
            yield from bodies(part)
    elif (message.get_filename() or "").lower().endswith(".rb"):
        # Source code is read by other sources.
        return
    elif message.get_content_maintype() == "text":
        data = message.get_payload(decode=True)
        data = data if isinstance(data, bytes) else b""
        text = declared_text(data, message.get_content_charset() or "utf-8")
        is_page = message.get_content_subtype() == "html"
        yield pandoc_text("html", text.encode()) if is_page else text
    elif (message.get_filename() or "").lower().endswith(".pdf"):
        data = message.get_payload(decode=True)
        yield command([*PDFTOTEXT, "-", "-"], data if isinstance(data, bytes) else b"")


def declared_text(data: bytes, charset: str) -> str:
    """Return bytes in the encoding that a mail declares, if 99 of 100 characters are in it."""
    try:
        text = data.decode("gb18030" if charset == "gb2312" else charset, "replace")
    except LookupError:
        return decode(data)
    return text if text.count("\ufffd") <= len(text) / 100 else decode(data)


def written(text: str) -> str:
    """Return a mail without quoted lines and the signature."""
    text = ADDED.sub("", text.replace("\r\n", "\n"))
    text = re.split(r"^-- ?$", text, maxsplit=1, flags=re.MULTILINE)[0]
    text = QUOTED.split(text, maxsplit=1)[0]
    lines = (line.rstrip() for line in text.splitlines())
    return "\n".join(
        line for line in lines if not line.lstrip().startswith(">") and not ATTRIBUTION.match(line)
    )


def walk(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every object in a JSON value."""
    if isinstance(value, list):
        for item in value:
            yield from walk(item)
    elif isinstance(value, dict):
        yield value
        for item in value.values():
            yield from walk(item)


def json_values(path: Path) -> list[Any]:
    """Return the values of a file of JSON or JSON lines, maybe packed."""
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    try:
        return [json.loads(data)]
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in data.splitlines() if line.strip()]
    except ValueError as error:
        raise UnreadableError(str(error)) from None


def slack(path: Path) -> Reference:
    """What people typed, each message once: those that begin a thread stand twice in a dump."""
    if path.suffix == ".xml":
        root = ElementTree.fromstring(path.read_bytes())
        texts = [slack_text(message.findtext("text") or "") for message in root.iter("message")]
        return Reference("\n".join(texts), frozenset(user.text or "" for user in root.iter("user")))
    lines, names = dict[tuple[str, str], str](), set[str]()
    for record in walk(json_values(path)):
        names |= {str(record.get(key) or "") for key in ("user", "real_name", "display_name")}
        subtype = record.get("subtype") or ""
        typed = subtype in ("", "thread_broadcast", "me_message", "file_share")
        typed = typed and not record.get("bot_id")
        if typed and isinstance(record.get("ts"), str) and isinstance(record.get("text"), str):
            lines[record["ts"], record["text"]] = slack_text(record["text"])
    return Reference("\n".join(lines.values()), frozenset(names))


def slack_text(text: str) -> str:
    text = re.sub(r"<[#!]\w+(?:\^\w+)*\|([^<>]*)>|<@(\w+)>", r" \1\2 ", text)
    text = re.sub(r"<[^<>|\s]+\|([^<>]*)>", r"\1", text)
    return EMOJI.sub(" ", html.unescape(html.unescape(text)))


def discord(path: Path) -> Reference:
    records = [record for record in walk(json_values(path)) if "content" in record]
    typed = [record["content"] for record in records if record.get("type") in ("Default", "Reply")]
    people = [record for record in walk(json_values(path)) if "discriminator" in record]
    names = {str(person.get(key) or "") for person in people for key in ("name", "nickname")}
    return Reference(EMOJI.sub(" ", "\n".join(typed)), frozenset(names))


def telegram(path: Path) -> Reference:
    records = [record for record in walk(json_values(path)) if record.get("type") == "message"]
    texts = []
    for record in records:
        parts = record.get("text") or ""
        parts = [parts] if isinstance(parts, str) else parts
        texts.append("".join(part if isinstance(part, str) else part["text"] for part in parts))
    names = {str(record.get(key) or "") for record in records for key in ("from", "via_bot")}
    return Reference("\n".join(texts), frozenset(names))


def typed_log(path: Path) -> Reference:
    """WhatsApp and Signal: a message may have several lines; one without a name nobody typed."""
    lines, names, is_typed = [], set[str](), False
    for line in decode(path.read_bytes()).splitlines():
        if head := CHAT_HEAD.match(line):
            is_typed = head[1] is not None
            # A number is a name with and without its spaces.
            names |= {head[1] or "", re.sub(r"\W", "", head[1] or "")}
            line = line[head.end() :]
        if is_typed:
            lines.append(line)
    return Reference("\n".join(lines), frozenset(names))


def forum(path: Path) -> Reference:
    """Questions and answers of a dump of Stack Exchange, which knows people by their numbers."""
    parts, names = [], set[str]()
    for _, row in ElementTree.iterparse(path):
        if row.tag == "row" and row.get("PostTypeId") in ("1", "2"):
            body = re.sub(r"<[^<>]*>", " ", row.get("Body") or "")
            parts.append(f"{row.get('Title') or ''}\n{html.unescape(body)}")
            names |= {row.get("OwnerUserId") or "", row.get("OwnerDisplayName") or ""}
    return Reference("\n\n".join(parts), frozenset(names))


def records(path: Path) -> Reference:
    """The columns that a person reads."""
    names = next(names for part, names in COLUMNS.items() if part in path.as_posix())
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    else:
        values = json_values(path)
        rows = values[0] if isinstance(values[0], list) else values
    text = "\n".join(str(row.get(name) or "") for row in rows for name in names)
    return Reference(text, frozenset(("system", "user", "assistant")))


def subtitles(path: Path) -> Reference:
    """What is said: without numbers, times, styles and tags."""
    text = decode(path.read_bytes(), path.stem)
    if path.suffix == ".ass":
        cues = re.findall(r"^Dialogue:(?:[^,\n]*,){9}(.*)$", text, re.MULTILINE)
    else:
        timed = re.compile(r"^[\d:.,]+ --> [^\n]*\n", re.MULTILINE)
        blocks = re.split(r"\n\s*\n", text.replace("\r\n", "\n"))
        cues = [timed.split(block, maxsplit=1)[1] for block in blocks if timed.search(block)]
    return Reference(re.sub(r"<[^<>]*>|\{[^{}]*\}|\\[Nnh]", " ", "\n".join(cues)))
