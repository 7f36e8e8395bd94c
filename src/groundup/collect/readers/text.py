"""Plain text, records that hold a text, and evaluation sets.

Subtitles (SRT, WebVTT, SubStation Alpha) are plain text too, without their numbers, times and
styles. Training text is checked against evaluation sets: one document an item, of all its text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any

from groundup.artifacts.document import MAX_DOCUMENT_BYTES, Document, Reject
from groundup.artifacts.questions import find_question
from groundup.collect.charset import decode, detect_encoding, is_binary, repair_text
from groundup.collect.files.streams import Item, PrefixedStream, read_all
from groundup.collect.readers.chat.layouts import content_text
from groundup.collect.readers.records.columns import (
    METADATA_KEYS,
    TITLE_KEYS,
    MissingColumnError,
    fill,
    metadata_of,
    with_title,
)
from groundup.collect.readers.records.records import lower_keys, read_records
from groundup.collect.readers.web.feeds import element_lines, xml_root
from groundup.collect.readers.web.html import host
from groundup.recipe import RECORD_COLUMNS, Source
from groundup.recipe.templates import is_template, template_columns

# Names of columns, the preferred first.
TEXT_KEYS = tuple(
    "text content raw_content body document article articlebody maintext page_content code passage"
    " story completion".split()
)
_URL_KEYS = ("url", "source_url", "warc_target_uri", "warc-target-uri", "uri", "id")
_GROUP_KEYS = tuple(
    "title url source_url book repo_name max_stars_repo_name repo domain host"
    " warc_target_uri".split()
)
_COLUMNS = frozenset(
    (
        *(*TEXT_KEYS, *_URL_KEYS, *_GROUP_KEYS, *TITLE_KEYS, *METADATA_KEYS),
        *"group license language lang".split(),
    )
)
# What is read of an item of an evaluation set, in this order. Any of it could have leaked.
_ITEM_KEYS = tuple(
    "text context continuation passage premise query question ctx prompt goal sentence"
    " sentence_good sentence_bad choice1 choice2 sol1 sol2 answer target completion"
    " response".split()
)
_CHOICE_KEYS = ("choices", "endings", "options", "answers")
# A file longer than MAX_DOCUMENT_BYTES is a corpus in one file: it is cut at blank lines into
# pieces of this size.
PIECE_CHARACTERS = 1 << 20

_TIME = r"(?:\d\d?:)?\d\d?:\d\d[.,]\d{1,3}"
_CUE = re.compile(rf"^(?:\d+[ \t]*\n)?{_TIME}[ \t]*-->[ \t]*{_TIME}[^\n]*\n?", re.MULTILINE)
_VTT_HEADER = re.compile(r"\A\s*WEBVTT[^\n]*\n")
# After a blank line, up to the next one.
_VTT_NOTE = re.compile(
    r"(?:(?<=\n\n)|(?<=\n\r\n))(?:NOTE|STYLE|REGION)(?!\S)[^\n]*\n?(?:[^\r\n]+\r?\n?)*+"
)
# SubStation Alpha: nine fields before the words, among which \N ends a line.
_SSA_HEADER = re.compile(r"\A\s*\[Script Info\]")
_SSA_LINE = re.compile(r"^Dialogue:(?:[^,\n]*,){9}([^\n]*)", re.MULTILINE)
_SUBTITLE_TAG = re.compile(
    r"</?(?:[bicuv]|ruby|rt|lang|font)\b[^<>\n]{0,200}>|\{\\[^{}\n]{0,100}\}", re.IGNORECASE
)


def declared_encoding(source: Source) -> str:
    """Return the encoding that the recipe declares for a source; "" for automatic detection."""
    return "" if source.encoding == "auto" else source.encoding


def read_text(item: Item, source: Source, start: bytes = b"") -> Iterator[Document | Reject]:
    """Yield a plain-text file as one document, or a very long one as pieces cut at blank lines.

    `start` is what was read of the stream already.
    """
    declared = declared_encoding(source)
    data = start + item.stream.read(MAX_DOCUMENT_BYTES - len(start))
    if len(data) < MAX_DOCUMENT_BYTES:
        text = decode(data, declared)
        yield Document(_spoken_lines(text), group=item.origin)
        return
    stream = io.BufferedReader(PrefixedStream(data, item.stream))
    encoding = detect_encoding(item.head, declared)
    lines = io.TextIOWrapper(stream, encoding=encoding, errors="replace")
    piece: list[str] = []
    index = size = 0
    for line in iter(lambda: lines.readline(PIECE_CHARACTERS), ""):
        piece.append(line)
        size += len(line)
        if size >= PIECE_CHARACTERS and (not line.strip() or size >= 4 * PIECE_CHARACTERS):
            yield Document("".join(piece), index, group=item.origin)
            piece, size, index = [], 0, index + 1
    if piece:
        yield Document("".join(piece), index, group=item.origin)


def _spoken_lines(text: str) -> str:
    """Return what subtitles say, a line for each line on the screen; another text as it is."""
    if _SSA_HEADER.match(text):
        bare = re.sub(r"\\[Nnh]", "\n", "\n".join(_SSA_LINE.findall(text)))
    elif _VTT_HEADER.match(text):
        bare = _CUE.sub("", _VTT_HEADER.sub("", _VTT_NOTE.sub("", text)))
    elif len(_CUE.findall(text[:2000])) >= 3:
        bare = _CUE.sub("", text)
    else:
        return text
    lines = (line.strip() for line in _SUBTITLE_TAG.sub("", bare).split("\n"))
    return "\n".join(filter(None, lines))


def read_text_records(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the records of a file that hold a text; others are rejected by number.

    The columns that the source names come first: `text`, `title`, `group` and `language`.
    """
    names = [name for key in RECORD_COLUMNS for name in template_columns(getattr(source, key))]
    columns = {name.lower() for name in names} | (_COLUMNS - set(TEXT_KEYS if source.text else ()))
    for index, record in read_records(item, columns):
        document = text_document(record, index, item, source.kind, source.text)
        if isinstance(document, Document) and isinstance(record, Mapping):
            document = with_named_columns(document, record, source)
        yield document


def with_named_columns(document: Document, record: Mapping[Any, Any], source: Source) -> Document:
    """Return a document with its title, and the group and language that the source names."""
    given = {"title": "", "group": "", "language": ""}
    for key in given:
        if setting := getattr(source, key):
            with suppress(MissingColumnError):
                given[key] = fill(setting, record).strip()
    title = given["title"]
    # Who writes a template says what comes first.
    if not source.title and not is_template(source.text):
        title = _known_text([_lowered(record, TITLE_KEYS), *_metadata(record)], TITLE_KEYS)
    if not title and not given["group"] and not given["language"]:
        return document
    language = re.split(r"[-_]", given["language"].lower())[0]
    return replace(
        document,
        text=with_title(document.text, title),
        group=given["group"] or document.group,
        language=language if len(language) == 2 else document.language,
    )


def text_document(
    record: Any, index: int, item: Item, kind: str = "", template: str = ""
) -> Document | Reject:
    """Return the document that a record, a text or a mapping, holds under one of `TEXT_KEYS`.

    `template` names the columns of the text instead. Pages of the kind "web" are grouped by host.
    A Reject is returned as it is.
    """
    if isinstance(record, Reject):
        return record
    if isinstance(record, str):
        record = {"text": record}
    if not isinstance(record, Mapping):
        return Reject("no-text", index, f"a {type(record).__name__} where an object was expected")
    values = _lowered(record, _COLUMNS)
    try:
        text = fill(template, record) if template else record_text(values)
    except MissingColumnError as missing:
        return Reject("no-text", index, str(missing))
    if text is None:
        return Reject("no-text", index, _why_no_text(record, values))
    if not text.strip():
        return Reject("empty", index)
    group = first_text(values, ("group",))
    parts = [values, *_metadata(values)]
    if not group and kind == "web":
        # The URL stands in the record itself, or in its metadata.
        hosts = (host(first_text(part, _URL_KEYS) or "") for part in parts)
        group = next(filter(None, hosts), "")
    group = group or _known_text(parts, _GROUP_KEYS) or f"{item.origin}#{index}"
    license_name = _known_text(parts, ("license",))
    language = _known_text(parts, ("language", "lang"))
    return Document(text, index, group, license_name, language if len(language) == 2 else "")


def _why_no_text(record: Mapping[Any, Any], values: Mapping[str, Any]) -> str:
    """Return why a record has no text, for a person; `values` are those of known columns."""
    key = next((key for key in TEXT_KEYS if key in values), None)
    if key is None:
        known, keys = ", ".join(TEXT_KEYS[:4]), ", ".join(str(key) for key in islice(record, 8))
        return f"no key of {known}, … among {keys}"
    value = values[key]
    if value is None:
        return f"its {key} is null"
    if isinstance(value, bytes):
        return f"its {key} is no text but bytes that are no text"
    detail = f"its {key} is no text but a {type(value).__name__}"
    is_list = isinstance(value, (list, tuple)) and value
    return detail + (" of something else than texts" if is_list else "")


def _lowered(record: Mapping[Any, Any], keys: Collection[str]) -> dict[str, Any]:
    """Return what a record holds under some `keys`, in lower case; it may have thousands."""
    return {key: value for name, value in record.items() if (key := str(name).lower()) in keys}


def _metadata(record: Mapping[Any, Any]) -> list[dict[str, Any]]:
    return list(map(lower_keys, metadata_of(record)))


def _known_text(parts: Iterable[Mapping[str, Any]], keys: Iterable[str]) -> str:
    """Return the first text under one of `keys`, in a record, then in its metadata; or ""."""
    return next(filter(None, (first_text(part, keys) for part in parts)), "")


def record_text(record: Mapping[str, Any]) -> str | None:
    """Return the text of a record; a list of texts is joined by blank lines, bytes are UTF-8."""
    values = _lowered(record, TEXT_KEYS)
    text = first_text(values, TEXT_KEYS)
    if text is not None:
        return text
    texts = (_joined_text(values.get(key)) for key in TEXT_KEYS)
    return next((text for text in texts if text is not None), None)


def _joined_text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return None if is_binary(value) else repair_text(value.decode("utf-8", "surrogateescape"))
    if isinstance(value, (list, tuple)):
        parts = [_joined_text(part) if isinstance(part, bytes) else part for part in value]
        texts = [part for part in parts if isinstance(part, str)]
        return "\n\n".join(texts) if texts and len(texts) == len(value) else None
    return None


def first_text(record: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    """Return the first value under one of `keys` that is a text; names are in lower case."""
    for key in keys:
        if isinstance(value := record.get(key), str):
            return value
    return None


def read_evaluation(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the items of an evaluation set; one of no known layout is rejected by number."""
    for index, record in read_records(item):
        if isinstance(record, Reject):
            yield record
        elif text := item_text(record):
            yield Document(repair_text(text), index, f"{item.origin}#{index}")
        else:
            yield Reject("no-text", index, "no known layout of an evaluation item")


def item_text(record: Any) -> str:
    """Return the whole text of an item: its context, question and every choice.

    What has none of the names in common use is read as the benchmark layout that knows it.
    """
    if isinstance(record, str):
        return record.strip()
    if not isinstance(record, Mapping):
        return ""
    if content_text(record.get("context")) and content_text(record.get("continuation")):
        # Two halves of one sentence.
        return (str(record["context"]) + " " + str(record["continuation"]).strip()).strip()
    if sentences := _filled_sentences(record):
        return "\n".join(sentences)
    parts = [content_text(record.get(key)) for key in _ITEM_KEYS]
    for value in map(record.get, _CHOICE_KEYS):
        choices = value.get("text") if isinstance(value, Mapping) else value
        if isinstance(choices, (list, tuple)):
            parts += map(content_text, choices)
    text = "\n".join(dict.fromkeys(filter(None, parts)))
    question = None
    with suppress(ValueError):
        question = find_question(record)
    if question is None or question.context.strip() in text:
        return text
    return "\n".join(filter(None, (text, question.context.strip(), *question.choices)))


def _filled_sentences(record: Mapping[str, Any]) -> list[str]:
    """Return the sentences of a schema with each of its words, as WinoGrande has them."""
    options, sentence = record.get("context_options"), content_text(record.get("sentence"))
    if isinstance(options, list):
        return [f"{option} {content_text(record.get('continuation'))}" for option in options]
    words = [content_text(record.get(key)) for key in ("option1", "option2")]
    if "_" in sentence and all(words):
        return [sentence.replace("_", word, 1) for word in words]
    return []


def read_evaluation_lines(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the paragraphs of a plain-text evaluation set, or its lines where it has none."""
    text = decode(read_all(item.stream), declared_encoding(source))
    has_paragraphs = text.strip().count("\n\n") * 20 > text.count("\n")
    pieces = text.split("\n\n" if has_paragraphs else "\n")
    for index, piece in enumerate(piece for piece in pieces if piece.strip()):
        yield Document(piece.strip(), index, f"{item.origin}#{index}")


def read_evaluation_xml(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield the items of an evaluation set in XML: the children of the root, as COPA has them."""
    for index, element in enumerate(xml_root(item)):
        if text := element_lines(element):
            yield Document(text, index, f"{item.origin}#{index}")
        else:
            yield Reject("no-text", index, "an item without text")
