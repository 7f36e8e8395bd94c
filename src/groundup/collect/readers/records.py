"""Records of JSONL, JSON, CSV, TSV, YAML, Parquet and Arrow files, as plain Python values.

Every format is read in bounded memory: one record, or one small batch of rows, at a time. A record
that cannot be parsed costs itself where the format allows that, and the file from there on
otherwise.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from groundup.artifacts.document import Reject
from groundup.collect.charset import (
    bom_encoding,
    decode,
    decode_errors,
    detect_encoding,
    open_text,
    repair_text,
)
from groundup.collect.files.formats import detect_format
from groundup.collect.files.streams import MAX_RECORD, DamagedError, Item, bounded_lines, read_all
from groundup.collect.readers.columnar import read_columnar
from groundup.collect.readers.csv_rows import read_csv

MAX_YAML = 16 << 20
# libyaml composes nodes by unbounded recursion in C: 50,000 brackets crash the process.
MAX_YAML_DEPTH = 100
# One element of a JSON array, or one entry of a JSON object, in characters.
MAX_ELEMENT = 256 << 20
_CHUNK = 1 << 20

# Keys under which an object wraps a list of records.
_WRAPPERS = frozenset(
    "data rows items examples records dialogues dialogs conversations train test validation".split()
)
_DECODER = json.JSONDecoder(strict=False)
_SPACE = re.compile(r"[ \t\r\n\ufeff]*")
# Possessive quantifiers: backtracking in a long string takes a hundred times its size.
_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)

Record = Any
NumberedRecord = tuple[int, Record | Reject]


def read_records(item: Item, columns: Collection[str] | None = None) -> Iterator[NumberedRecord]:
    """Yield the records of a file of RECORD_FORMATS, numbered; a malformed one is a Reject.

    `columns` are those to read, in lower case, of formats that store columns; None for all.
    """
    form = detect_format(item.name, item.head)
    if form in ("parquet", "arrow"):
        return read_columnar(item, columns)
    return RECORD_FORMATS[form](item)


def lower_keys(record: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a record with its keys in lower case, since data sets differ in their spelling."""
    return {str(key).lower(): value for key, value in record.items()}


def _read_jsonl(item: Item) -> Iterator[NumberedRecord]:
    lines: Iterable[bytes | None] = bounded_lines(item.stream, b"\n", MAX_RECORD)
    if bom_encoding(item.head) in ("utf-16", "utf-32"):
        text_lines = bounded_lines(open_text(item), ("\n", "\r"), MAX_RECORD)
        lines = (line and line.encode("utf-8", "replace") for line in text_lines)
    lines = (line for line in lines if line is None or line.strip(b" \t\r\n\xef\xbb\xbf\0"))
    for index, line in enumerate(lines):
        if line is None:
            yield index, Reject("too-large", index, f"a line longer than {MAX_RECORD >> 20} MB")
            continue
        try:
            record = orjson.loads(line)
        except ValueError:
            # orjson refuses NaN, control characters in strings, invalid UTF-8 and the zero bytes of
            # a failed disk. Real files have all of them.
            try:
                text = repair_text(line.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
                record = json.loads(text.lstrip("\ufeff"), strict=False)
            except (ValueError, RecursionError) as error:
                detail = f"not JSON: {str(error).partition(': line')[0]}"
                record = Reject("malformed", index, detail)
        yield index, record


def _read_json(item: Item) -> Iterator[NumberedRecord]:
    index = held = 0
    # Entries that are no records themselves are the columns of one record.
    single: dict[str, Any] = {}
    for key, value, length in json_elements(item.stream, detect_encoding(item.head)):
        records: Iterable[Record] = ()
        if key is None or isinstance(value, Reject):
            records = [value]
        elif key in _WRAPPERS and isinstance(value, list) and value and not _is_message(value[0]):
            records = value
        elif isinstance(value, dict) and not _is_message(value) and not single:
            records = [{"id": key} | value]
        else:
            single[key] = value
        for record in records:
            is_reject = isinstance(record, Reject)
            yield index, replace(record, record=index) if is_reject else record
            index += 1
        if key in single:
            held += length
        if held > MAX_RECORD:
            detail = "an object whose entries are no records of their own is longer than"
            raise DamagedError("too-large", f"{detail} {MAX_RECORD >> 20} MB")
    if single:
        yield index, single


def _is_message(value: Any) -> bool:
    """Return whether a value looks like one message of a conversation, not like a record."""
    if isinstance(value, Mapping):
        return bool({"role", "from", "speaker", "replies"} & set(value))
    return isinstance(value, str)


def json_elements(
    source: io.BufferedReader, encoding: str
) -> Iterator[tuple[str | None, Any, int]]:
    """Yield the elements of a JSON array, or the entries of a JSON object, one by one.

    Each is (key, value, length): the key is None in an array, the length is in characters of the
    file. A value is a Reject where it cannot be parsed and those after it can.

    Raises:
        DamagedError: the text is no array or object, or ends early. What came before was yielded.
    """
    window = _Window(source, encoding)
    opening = window.peek()
    if opening not in ("[", "{") or not opening:
        raise DamagedError("malformed", "it starts with neither [ nor {")
    closing = {"[": "]", "{": "}"}[opening]
    window.take(opening)
    while not window.take(closing):
        key: str | None = None
        if closing == "}":
            key = window.value()
            if not isinstance(key, str) or not window.take(":"):
                raise window.error("a key of the JSON object is wrong")
        value = window.value()
        yield key, value, window.length
        if not window.take(",") and window.peek() != closing:
            raise window.error("the JSON ends or goes wrong after an element")
    if window.peek():
        raise window.error("there is more after the end of the JSON")


class _Window:
    """The part of a JSON text that was read and not yet consumed: memory holds one element."""

    def __init__(self, source: io.BufferedReader, encoding: str) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)(decode_errors(encoding))
        self.text, self.position, self.ended = "", 0, False
        # Characters of the value that was consumed last.
        self.length = 0
        # Damage of the source, raised after everything before it was used.
        self._damage: DamagedError | None = None

    def _grow(self) -> None:
        """Drop what was consumed, and double the rest (up to one character over MAX_ELEMENT)."""
        parts = [self.text[self.position :]]
        left = len(parts[0])
        count = min(max(_CHUNK, left), max(_CHUNK, MAX_ELEMENT + 1 - left))
        while count > 0 and not self.ended:
            try:
                data = self._source.read1(_CHUNK)
            except DamagedError as damage:
                self._damage, data = damage, b""
            self.ended = not data
            count -= len(data)
            parts.append(self._decoder.decode(data, final=self.ended and self._damage is None))
        self.text, self.position = "".join(parts), 0

    def error(self, detail: str) -> DamagedError:
        """Return why the text stops here: damage to the file, its end, or a mistake in it."""
        return self._damage or DamagedError("malformed" if self.peek() else "truncated", detail)

    def peek(self) -> str:
        """Return the next character that is not white space; "" at the end."""
        while True:
            match = _SPACE.match(self.text, self.position)
            self.position = match.end() if match else self.position
            if self.position < len(self.text) or self.ended:
                return self.text[self.position : self.position + 1]
            self._grow()

    def take(self, character: str) -> bool:
        """Consume a character if it comes next."""
        if self.peek() != character:
            return False
        self.position += 1
        return True

    def value(self) -> Any:
        """Consume one JSON value; a Reject where its brackets match but its inside is wrong.

        Raises:
            DamagedError: the text ends, or the value is too long, before it is complete.
        """
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.position)
                # A number may continue beyond the window: "-0." parses as -0.
                is_cut = isinstance(value, (int, float)) and len(self.text) - end < 4
                is_cut = is_cut and self.text[end : end + 1] in (".", "e", "E")
                if self.ended or (end < len(self.text) and not is_cut):
                    self.length, self.position = end - self.position, end
                    return value
            except RecursionError:
                if end := self._matching_bracket():
                    self.position = end
                    return Reject("malformed", detail="nested too deeply")
            except ValueError as error:
                # A value that fails at the end of the window may be complete with more text.
                is_cut = (not self.ended and isinstance(error, json.JSONDecodeError)) and (
                    error.msg.startswith("Unterminated string") or error.pos > len(self.text) - 16
                )
                if not is_cut and (end := self._matching_bracket()):
                    self.position = end
                    return Reject("malformed", detail=str(error).partition(": line")[0])
            if self.ended:
                detail = "the JSON ends in the middle of a value, or a bracket in it is wrong"
                raise self._damage or DamagedError("truncated", detail)
            if len(self.text) - self.position >= MAX_ELEMENT:
                detail = f"one JSON value is longer than {MAX_ELEMENT >> 20} MB"
                raise DamagedError("too-large", detail)
            self._grow()

    def _matching_bracket(self) -> int:
        """Return the end of the bracketed value at the position; 0 when the window has no end."""
        depth = 0
        for match in _BRACKET.finditer(self.text, self.position):
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
            if depth <= 0:
                # depth < 0: a wrong word or number, and the bracket closes the element around it.
                return match.end() if match[0] in ("]", "}") and depth == 0 else 0
        return 0


def _read_yaml(item: Item) -> Iterator[NumberedRecord]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = decode(read_all(item.stream, MAX_YAML))
    depth = 0
    try:
        for token in yaml.scan(text, Loader=loader):
            name = type(token).__name__
            if name == "AliasToken":
                # An alias may name a list of aliases, and so on. No data set uses them.
                raise DamagedError("malformed", "YAML with aliases is not read")
            depth += name.endswith(("SequenceStartToken", "MappingStartToken"))
            depth -= name.endswith("EndToken") and not name.startswith(("Document", "Stream"))
            if depth > MAX_YAML_DEPTH:
                raise DamagedError("nesting", f"YAML nests more than {MAX_YAML_DEPTH} deep")
        pages = list(yaml.load_all(text, Loader=loader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DamagedError("malformed", "not YAML: " + " ".join(str(error).split())[:200]) from None
    index = 0
    for page in pages:
        # A page is a list of records, an object that wraps one such list, or a record itself.
        lists = [page]
        if isinstance(page, Mapping):
            lists = [value for key, value in page.items() if key in _WRAPPERS]
        records = lists[0] if len(lists) == 1 and isinstance(lists[0], list) else []
        if not records or _is_message(records[0]):
            records = [page] if page is not None else []
        for record in records:
            yield index, record
            index += 1


RECORD_FORMATS: dict[str, Callable[[Item], Iterator[NumberedRecord]]] = {
    "jsonl": _read_jsonl,
    "json": _read_json,
    "yaml": _read_yaml,
    "csv": read_csv,
    "tsv": read_csv,
    "parquet": read_columnar,
    "arrow": read_columnar,
}
