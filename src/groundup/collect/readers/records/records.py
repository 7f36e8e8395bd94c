"""Records of JSONL, JSON, CSV, TSV, YAML, Parquet and Arrow files, as plain Python values.

Every format is read in bounded memory: one record, or one small batch of rows, at a time. A record
that cannot be parsed costs itself where the format allows that, and the file from there on
otherwise. A mistake in YAML costs an entry of a list, or a document.
"""

from __future__ import annotations

import codecs
import io
import itertools
import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
import yaml

from groundup.artifacts.document import Reject
from groundup.collect.charset import (
    bom_encoding,
    decode,
    decode_errors,
    detect_encoding,
    open_text,
    repair_text,
)
from groundup.collect.files.formats import detect_format, text_head
from groundup.collect.files.streams import (
    MAX_RECORD,
    DamagedError,
    Item,
    TooLongError,
    bounded_lines,
    deadline,
    read_all,
)
from groundup.collect.readers.records.columnar import read_columnar
from groundup.collect.readers.records.csv_rows import read_csv
from groundup.errors import one_line

MAX_YAML = 16 << 20
# libyaml composes nodes by unbounded recursion in C: 50,000 brackets crash the process.
MAX_YAML_DEPTH = 100
MAX_YAML_TOKENS = 1 << 20  # a token of a few bytes becomes objects of a kilobyte
MAX_YAML_PARTS = 100_000  # parts that a text with a mistake is cut into
# One element of a JSON array, or one entry of a JSON object, in bytes of memory: a character takes
# one to four.
MAX_ELEMENT = 256 << 20
MAX_MARKS = 8 << 20  # marks of its structure, each for objects of up to 100 bytes
_CHUNK = 1 << 20
_TOO_MANY = f"one JSON value of more than {MAX_MARKS:,} brackets, commas and colons"
_BLANK = b" \t\r\n\xef\xbb\xbf\0\x1e"  # bytes of a line of JSONL that holds no record

# Keys under which an object wraps a list of records.
_WRAPPERS = frozenset(
    "data rows items examples records dialogues dialogs conversations train test validation".split()
)
_DECODER = json.JSONDecoder(strict=False)
# What stands between values: white space, and the record separator of JSON text sequences.
_SPACE = re.compile(r"[ \t\r\n\ufeff\x1e]*")
_SEPARATORS = " \t\r\n\ufeff\x1e,"
_INDEX = re.compile(r"-?\d+")
_YAML_DOCUMENT = re.compile(r"^%[^\n]*\n(?:[%#][^\n]*\n|[ \t]*\n)*---|^---(?=\s|\Z)", re.MULTILINE)
_YAML_ENTRY = re.compile(r"^-(?=[ \n])", re.MULTILINE)
# What may come before the first word of a document; and a document whose first word is an entry.
_YAML_PREFIX = re.compile(r"(?:(?:---|%|[ \t]*#)[^\n]*\n|[ \t]*\n)*+")
_YAML_LIST = re.compile(_YAML_PREFIX.pattern + r"-[ \n]")
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


def _number(records: Iterable[Record], first: int = 0) -> Iterator[NumberedRecord]:
    for index, record in enumerate(records, first):
        yield index, replace(record, record=index) if isinstance(record, Reject) else record


def _read_jsonl(item: Item) -> Iterator[Record]:
    lines: Iterable[bytes | None] = bounded_lines(item.stream, b"\n", MAX_RECORD)
    if bom_encoding(item.head) in ("utf-16", "utf-32"):
        text_lines = bounded_lines(open_text(item), ("\n", "\r"), MAX_RECORD)
        lines = (line and line.encode("utf-8", "replace") for line in text_lines)
    for line in lines:
        if line is None:
            yield Reject("too-large", detail=f"a line longer than {MAX_RECORD >> 20} MB")
        elif len(line) > MAX_MARKS and sum(map(line.count, (b"{", b"[", b",", b":"))) > MAX_MARKS:
            yield Reject("too-large", detail=_TOO_MANY)
        elif line.strip(_BLANK):
            try:
                record = orjson.loads(line.lstrip(b"\x1e"))
            except ValueError:
                # orjson refuses NaN, control characters in strings, invalid UTF-8 and the zero
                # bytes of a failed disk. Real files have all of them.
                try:
                    text = repair_text(line.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
                    record = json.loads(text.lstrip("\ufeff\x1e"), strict=False)
                except (ValueError, RecursionError) as error:
                    detail = f"not JSON: {str(error).partition(': line')[0]}"
                    record = Reject("malformed", detail=detail)
            yield record


def count_lines(stream: io.BufferedReader) -> int | None:
    """Return how many records a stream of JSONL holds; None if it does not end with a line."""
    records, is_new = 0, True
    while part := stream.readline(MAX_RECORD):
        is_whole = part.endswith(b"\n")
        is_long = len(part) == MAX_RECORD and not is_whole
        records += is_new and (is_long or bool(part.strip(_BLANK)))
        is_new = is_whole
    return records if is_new else None


def _read_json(item: Item) -> Iterator[Record]:
    """Yield the records of one JSON value, or of values one after another (jq, `json-seq`)."""
    window = JsonWindow(item.stream, detect_encoding(item.head))
    is_sequence = False
    head = text_head(item.head).lstrip(_SEPARATORS)
    if head.startswith("{"):
        with suppress(ValueError, RecursionError):
            _, end = _DECODER.raw_decode(head)
            is_sequence = head[end:].lstrip(_SEPARATORS).startswith(("{", "["))
    while True:
        yield from _list_records(window.value()) if is_sequence else _json_records(window)
        window.take(",")
        following = window.peek()
        if not following:
            break
        if following not in "[{":
            raise window.error("there is more after the end of the JSON")
        is_sequence = True
    if is_sequence and window.damage:
        raise window.damage


def _list_records(value: Any) -> Iterable[Record]:
    """Return the records of a value of a sequence: its items, those that it wraps, or itself."""
    if isinstance(value, list):
        is_conversation = value and isinstance(value[0], Mapping) and _is_message(value[0])
        return [value] if is_conversation else value
    if isinstance(value, dict) and value:
        lists = [part for key, part in value.items() if key in _WRAPPERS]
        if len(lists) == 1 and isinstance(lists[0], list) and lists[0]:
            rest = {key: part for key, part in value.items() if key not in _WRAPPERS}
            is_record = _is_message(lists[0][0])
            return [value] if is_record else itertools.chain(lists[0], filter(None, [rest]))
        if all(isinstance(part, dict) and not _is_message(part) for part in value.values()):
            return [{"id": key} | part for key, part in value.items()]
    return [value]


def _json_records(window: JsonWindow) -> Iterator[Record]:
    """Yield the records of an array, or of an object in one of the layouts in common use.

    pandas writes a table as {column: {row: value}}, as {row: {column: value}}, as {"columns": […],
    "index": […], "data": [[…], …]}, or as {"schema": {…}, "data": [{…}, …]}.
    """
    # Entries that are no records themselves are the columns of one record.
    single: dict[str, Any] = {}
    table: dict[str, dict[str, Any]] = {}
    held = 0
    for key, value, length in window.elements():
        items = value if isinstance(value, list) else []
        is_split = key == "data" and items and isinstance(items[0], list)
        if key is None or isinstance(value, Reject):
            yield value
        elif is_split and isinstance(single.get("columns"), list):
            names = single.pop("columns")
            single.pop("index", None)
            yield from (_split_row(names, row) for row in items)
        elif key in _WRAPPERS and items and not _is_message(items[0]):
            yield from items
        elif not single and _is_column(key, value, next(iter(table.values()), None)):
            table[key] = value
        elif key == "schema" and isinstance(value, dict) and "pandas_version" in value:
            continue
        elif isinstance(value, dict) and not _is_message(value) and not single:
            yield {"id": key} | value
        else:
            single[key] = value
        held += length if key in single or key in table else 0
        if held > (limit := MAX_ELEMENT if table else MAX_RECORD):
            detail = "an object whose entries are no records of their own is longer than"
            raise DamagedError("too-large", f"{detail} {limit >> 20} MB")
    if single:
        # A table has columns only: these are records, or what else the one record holds.
        yield from ({"id": name} | column for name, column in table.items())
        yield single
        return
    for row in dict.fromkeys(row for column in table.values() for row in column):
        yield {name: column[row] for name, column in table.items() if row in column}


def _split_row(names: list[Any], row: Any) -> Record:
    if not isinstance(row, list) or len(row) != len(names):
        width = len(row) if isinstance(row, list) else 1
        return Reject("malformed", detail=f"a row of {width} values for {len(names)} columns")
    return dict(zip(map(str, names), row, strict=True))


def _is_column(key: str, value: Any, first: dict[str, Any] | None) -> bool:
    """Return whether an entry is a column like the first one: its rows have numbers for names."""
    if not isinstance(value, dict) or not value:
        return False
    if first is not None:
        return value.keys() == first.keys()
    is_scalar = not any(isinstance(part, dict) for part in value.values())
    return is_scalar and not _INDEX.fullmatch(key) and all(map(_INDEX.fullmatch, value))


def _is_message(value: Any) -> bool:
    """Return whether a value looks like one message of a conversation, not like a record."""
    if isinstance(value, Mapping):
        return bool({"role", "from", "speaker", "replies"} & set(value))
    return isinstance(value, str)


class JsonWindow:
    """The part of a JSON text that was read and not yet consumed: memory holds one element."""

    def __init__(self, source: io.BufferedReader, encoding: str) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)(decode_errors(encoding))
        self.text, self.position, self.ended = "", 0, False
        self.length = 0  # characters of the value that was consumed last
        # Damage of the source, to be raised after everything before it was used.
        self.damage: DamagedError | None = None

    def _grow(self) -> None:
        """Drop what was consumed, and double the rest (up to one character over MAX_ELEMENT)."""
        parts = [self.text[self.position :]]
        left = len(parts[0])
        count = min(max(_CHUNK, left), max(_CHUNK, MAX_ELEMENT // self._width() + 1 - left))
        while count > 0 and not self.ended:
            try:
                data = self._source.read1(_CHUNK)
            except DamagedError as damage:
                self.damage, data = damage, b""
            self.ended = not data
            count -= len(data)
            parts.append(self._decoder.decode(data, final=self.ended and self.damage is None))
        self.text, self.position = "".join(parts), 0

    def _width(self) -> int:
        """Return the bytes that Python takes for a character of the text."""
        return max(1, sys.getsizeof(self.text) // max(64, len(self.text)))

    def error(self, detail: str) -> DamagedError:
        """Return why the text stops here: damage to the file, its end, or a mistake in it."""
        return self.damage or DamagedError("malformed" if self.peek() else "truncated", detail)

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

    def elements(self) -> Iterator[tuple[str | None, Any, int]]:
        """Yield the elements of a JSON array, or the entries of a JSON object, one by one.

        Each is (key, value, length): the key is None in an array, the length is in characters of
        the file. A value is a Reject where it cannot be parsed and those after it can. Raises
        DamagedError if the text is no array or object, or ends early.
        """
        opening = self.peek()
        closing = {"[": "]", "{": "}"}.get(opening)
        if closing is None:
            raise DamagedError("malformed", "it starts with neither [ nor {")
        self.take(opening)
        while not self.take(closing):
            key: str | None = None
            if closing == "}":
                key = self.value()
                if not isinstance(key, str) or not self.take(":"):
                    raise self.error("a key of the JSON object is wrong")
            value = self.value()
            yield key, value, self.length
            if not self.take(",") and self.peek() != closing:
                raise self.error("the JSON ends or goes wrong after an element")

    def value(self) -> Any:
        """Consume one JSON value; a Reject where its brackets match but its inside is wrong.

        Raises DamagedError if it is too long, or the text ends inside it.
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
            except (ValueError, RecursionError) as error:
                # A value that fails at the end of the window may be complete with more text.
                is_cut = (not self.ended and isinstance(error, json.JSONDecodeError)) and (
                    error.msg.startswith("Unterminated string") or error.pos > len(self.text) - 16
                )
                if not is_cut and (end := self._matching_bracket()):
                    self.position = end
                    is_deep = isinstance(error, RecursionError)
                    detail = "nested too deeply" if is_deep else str(error).partition(": line")[0]
                    return Reject("malformed", detail=detail)
            if self.ended:
                detail = "the JSON ends in the middle of a value, or a bracket in it is wrong"
                raise self.damage or DamagedError("truncated", detail)
            left = len(self.text) - self.position
            if left * self._width() >= MAX_ELEMENT:
                detail = f"one JSON value is longer than {MAX_ELEMENT >> 20} MB"
                raise DamagedError("too-large", detail)
            counts = (self.text.count(mark, self.position) for mark in "{[,:")
            if left > MAX_MARKS and sum(counts) > MAX_MARKS:
                raise DamagedError("too-large", _TOO_MANY)
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


def _yaml_records(text: str, line: int) -> Iterator[Record]:
    """Yield the records of a YAML text, of which `line` lines come before.

    A text with a mistake is cut into its documents, and a document into the entries of its list. A
    document is a list of records, an object that wraps one, or one record.
    """
    try:
        loader, pages = _yaml_pages(text, line)
    except DamagedError as damage:
        if damage.reason == "too-large":
            raise
        parts = _cut_yaml(text, _YAML_DOCUMENT)
        if len(parts) == 1 and _YAML_LIST.match(text):
            parts = _cut_yaml(text, _YAML_ENTRY)
        if not 1 < len(parts) <= MAX_YAML_PARTS:
            yield Reject(damage.reason, detail=damage.detail)
            return
        for part in parts:
            yield from _yaml_records(part, line)
            line += part.count("\n")
        return
    for page in pages:
        lists = {"": page}
        if isinstance(page, yaml.MappingNode):
            # The last one of equal keys counts.
            lists = {key.value: value for key, value in page.value if str(key.value) in _WRAPPERS}
        nodes: list[Any] = []
        if len(lists) == 1:
            (node,) = lists.values()
            nodes = node.value if node.tag == "tag:yaml.org,2002:seq" else []
        first = _construct(loader, nodes[0], line) if nodes else ""
        if _is_message(first):
            nodes, first = [page], _construct(loader, page, line)
            if first is None:
                continue
        yield first
        for node in nodes[1:]:
            yield _construct(loader, node, line)


def _construct(loader: Any, node: Any, line: int) -> Record:
    """Return the value of a record; a value in it that cannot be built costs the record."""
    try:
        # Numbers take time by the square of their length, and keys may by that of their number.
        with deadline():
            return loader.construct_document(node)
    except TooLongError as error:
        loader.state_generators = []
        return Reject("timeout", detail=str(error))
    except (yaml.YAMLError, ValueError, LookupError, RecursionError) as error:
        loader.state_generators = []
        return Reject("malformed", detail=_yaml_mistake(error, line, node.start_mark.line))


def _cut_yaml(text: str, start: re.Pattern[str]) -> list[str]:
    """Cut a text before each match of `start`; comments and blank lines before the first stay."""
    starts = [match.start() for match in start.finditer(text)]
    if starts and _YAML_PREFIX.fullmatch(text, 0, starts[0]):
        del starts[0]
    return [text[a:b] for a, b in itertools.pairwise([0, *starts, len(text)])]


def _yaml_pages(text: str, line: int) -> tuple[Any, list[Any]]:
    """Return a loader and the nodes of documents; DamagedError for no YAML, depth and aliases."""
    loader: Any = type("Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {})
    # A date is read as it is written: a text wants its characters.
    string = yaml.SafeLoader.construct_yaml_str
    loader.add_constructor("tag:yaml.org,2002:timestamp", string)
    depth = 0
    try:
        for number, token in enumerate(yaml.scan(text, Loader=loader)):
            if number >= MAX_YAML_TOKENS:
                raise DamagedError("too-large", f"YAML of more than {MAX_YAML_TOKENS:,} tokens")
            name = type(token).__name__
            where = f"line {line + token.start_mark.line + 1}: "
            if name == "AliasToken":
                # An alias may name a list of aliases, and so on. No data set uses them.
                raise DamagedError("malformed", f"{where}YAML with aliases is not read")
            depth += name.endswith(("SequenceStartToken", "MappingStartToken"))
            depth -= name.endswith("EndToken") and not name.startswith(("Document", "Stream"))
            if depth > MAX_YAML_DEPTH:
                raise DamagedError("nesting", f"{where}YAML nests more than {MAX_YAML_DEPTH} deep")
        return loader(text), list(yaml.compose_all(text, Loader=loader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DamagedError("malformed", _yaml_mistake(error, line)) from None


def _yaml_mistake(error: Exception, line: int, record: int = 0) -> str:
    """Return what is wrong with a YAML text after `line` lines, in its line or its record's."""
    mark = getattr(error, "problem_mark", None)
    if "scanning" in (getattr(error, "context", None) or ""):
        mark = getattr(error, "context_mark", mark)  # where a word begins that has no end
    problem = getattr(error, "problem", None) or one_line(error, 200)
    return f"line {line + (mark.line if mark else record) + 1}: not YAML: {problem}"


RECORD_FORMATS: dict[str, Callable[[Item], Iterator[NumberedRecord]]] = {
    "jsonl": lambda item: _number(_read_jsonl(item), item.first),
    "json": lambda item: _number(_read_json(item)),
    "yaml": lambda item: _number(_yaml_records(decode(read_all(item.stream, MAX_YAML)), 0)),
    "csv": read_csv,
    "tsv": read_csv,
    "parquet": read_columnar,
    "arrow": read_columnar,
}
