"""Records of JSONL, JSON, CSV, TSV, YAML, Parquet and Arrow files as plain Python values. Reads an
item; writes nothing.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson

from groundup.artifacts.document import Reject
from groundup.collect.charset import (
    bom_encoding,
    decode,
    decode_errors,
    detect_encoding,
    repair_text,
)
from groundup.collect.files.streams import DamagedError, Item, read_all, spool
from groundup.collect.readers.json_stream import Malformed, elements

MAX_RECORD = 64 << 20
# A row of CSV is a list of Python objects before anything can be asked of it.
MAX_FIELDS = 1 << 20
# Rows of a Parquet file at a time: a few bytes of it may stand for megabytes in each row.
BATCH = 64
MAX_YAML = 16 << 20
# libyaml composes by recursion in C, without a bound: 50,000 brackets end the process.
MAX_YAML_DEPTH = 100
# What an object that holds nothing but a list of records calls it.
_WRAPPERS = frozenset(
    {
        "data",
        "rows",
        "items",
        "examples",
        "records",
        "dialogues",
        "dialogs",
        "conversations",
        "train",
        "test",
        "validation",
    }
)

Record = Any
Numbered = tuple[int, Record | Reject]


def read_records(item: Item, form: str) -> Iterator[Numbered]:
    """Yield the records of a file with their numbers; a malformed one is a Reject and keeps its
    number.

    Args:
        item: the file.
        form: its format, one of `FORMATS`.
    """
    return FORMATS[form](item)


def _text(item: Item) -> io.TextIOWrapper:
    encoding = detect_encoding(item.head)
    return io.TextIOWrapper(
        item.stream, encoding=encoding, errors=decode_errors(encoding), newline=""
    )


def _jsonl(item: Item) -> Iterator[Numbered]:
    number = -1
    for line in _lines(item):
        if line is not None and not line.strip(b" \t\r\n\xef\xbb\xbf\0"):
            continue
        number += 1
        yield (
            number,
            (
                Reject("too-large", number, f"a line longer than {MAX_RECORD >> 20} MB")
                if line is None
                else _loads(line, number)
            ),
        )


def _lines(item: Item) -> Iterator[bytes | None]:
    """Yield the lines of a file; None for one that is too long."""
    if bom_encoding(item.head) in ("utf-16", "utf-32"):
        yield from (
            line and line.encode("utf-8", "replace") for line in _bounded(_text(item), ("\n", "\r"))
        )
    else:
        yield from _bounded(item.stream, b"\n")


def _bounded(file: Any, ends: Any) -> Iterator[Any]:
    """Yield the lines of a file of bytes or text; None for one that is longer than a record may be."""
    while line := file.readline(MAX_RECORD):
        if len(line) == MAX_RECORD and not line.endswith(ends):
            while (rest := file.readline(MAX_RECORD)) and not rest.endswith(ends):
                pass
            yield None
        else:
            yield line


def _loads(line: bytes, number: int) -> Record | Reject:
    try:
        return orjson.loads(line)
    except ValueError:
        pass
    try:
        # Stricter than what is found: NaN, control characters in strings, bytes that are not UTF-8,
        # zero bytes of a disk that failed.
        return json.loads(
            repair_text(line.replace(b"\0", b"").decode("utf-8", "surrogateescape")).lstrip(
                "\ufeff"
            ),
            strict=False,
        )
    except (ValueError, RecursionError) as error:
        return Reject("malformed", number, f"not JSON: {str(error).partition(': line')[0]}")


def _json(item: Item) -> Iterator[Numbered]:
    number = held = 0
    single: dict[str, Any] = {}
    for key, value, length in elements(item.stream, detect_encoding(item.head)):
        for record in _element(key, value, single):
            yield (
                number,
                (
                    Reject("malformed", number, record.detail)
                    if isinstance(record, Malformed)
                    else record
                ),
            )
            number += 1
        held += length if key in single else 0
        if held > MAX_RECORD:
            raise DamagedError(
                "too-large",
                "an object whose entries are no records of their own is longer than"
                f" {MAX_RECORD >> 20} MB",
            )
    if single:
        yield number, single


def _element(key: str | None, value: Any, single: dict[str, Any]) -> Iterator[Record]:
    """Yield the records that one element of a JSON file gives; entries of a single record gather in
    `single`.
    """
    if key is None or isinstance(value, Malformed):
        yield value
    elif key in _WRAPPERS and isinstance(value, list) and value and not _is_turn(value[0]):
        yield from value
    elif isinstance(value, dict) and not _is_turn(value) and not single:
        yield {"id": key} | value
    else:
        single[key] = value


def _is_turn(value: Any) -> bool:
    """Return whether a value looks like one message of a conversation: short, and with text in it."""
    return isinstance(value, str) or (
        isinstance(value, Mapping) and bool({"role", "from", "speaker", "replies"} & set(value))
    )


def _yaml(item: Item) -> Iterator[Numbered]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = decode(read_all(item.stream, MAX_YAML))
    try:
        _check_yaml(yaml.scan(text, Loader=loader))
        pages = list(yaml.load_all(text, Loader=loader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DamagedError("malformed", "not YAML: " + " ".join(str(error).split())[:200]) from None
    yield from enumerate(record for page in pages if page is not None for record in _page(page))


def _check_yaml(tokens: Iterator[Any]) -> None:
    """Raise DamagedError for what libyaml does not survive, or what unfolds without bound."""
    depth = 0
    for token in tokens:
        kind = type(token).__name__
        if kind == "AliasToken":
            # One that names a list of aliases, and so on; no data set uses them.
            raise DamagedError("malformed", "YAML with aliases is not read")
        depth += kind.endswith(("SequenceStartToken", "MappingStartToken"))
        depth -= kind.endswith("EndToken") and not kind.startswith(("Document", "Stream"))
        if depth > MAX_YAML_DEPTH:
            raise DamagedError("nesting", f"YAML nests more than {MAX_YAML_DEPTH} deep")


def _page(page: Any) -> Iterator[Record]:
    """Yield the records of a YAML document: the elements of a list, those of the one wrapped list,
    or itself.
    """
    wrapped = (
        [value for key, value in page.items() if key in _WRAPPERS]
        if isinstance(page, Mapping)
        else [page]
    )
    if (
        len(wrapped) == 1
        and isinstance(wrapped[0], list)
        and wrapped[0]
        and not _is_turn(wrapped[0][0])
    ):
        yield from wrapped[0]
    else:
        yield page


def _csv(item: Item) -> Iterator[Numbered]:
    sample = item.head.decode(detect_encoding(item.head), "replace")
    delimiter = _delimiter(item.name, sample)
    # Tab-separated files quote nothing, as a rule, and hold stray quotation marks.
    plain = delimiter == "\t" and '\t"' not in sample
    csv.field_size_limit(MAX_RECORD)
    rows = csv.reader(
        _Rows(_text(item), delimiter),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
    )
    header: list[str] | None = None
    number = -1
    while (row := _next_row(rows)) is not None:
        number += header is not None
        if isinstance(row, str):
            yield max(number, 0), Reject("malformed", max(number, 0), row)
        elif header is None:
            header = [name.strip().lstrip("\ufeff").strip('"') for name in row]
        elif row:
            yield number, _row(header, row, number)


class _Rows:
    """The lines of a CSV file; one that is too long is an error of its row, since csv.reader takes
    any.
    """

    def __init__(self, file: io.TextIOWrapper, delimiter: str) -> None:
        self._lines, self._delimiter = _bounded(file, ("\n", "\r")), delimiter

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        if line is None:
            raise csv.Error(f"a line longer than {MAX_RECORD >> 20} MB")
        if line.count(self._delimiter) > MAX_FIELDS:
            raise csv.Error(f"a line of more than {MAX_FIELDS:,} fields")
        return str(line)


def _row(header: list[str], row: list[str], number: int) -> Record | Reject:
    if len(row) != len(header):
        return Reject(
            "malformed", number, f"a row of {len(row)} fields where the header has {len(header)}"
        )
    return dict(zip(header, map(repair_text, row), strict=True))


def _next_row(rows: Iterator[list[str]]) -> list[str] | str | None:
    """Return the next row, None at the end, or a text that says why it cannot be read."""
    try:
        return next(rows)
    except StopIteration:
        return None
    except csv.Error as error:
        return f"not CSV: {error}"


def _delimiter(name: str, sample: str) -> str:
    if name.lower().endswith(".tsv"):
        return "\t"
    first = sample.lstrip().split("\n", 1)[0]
    return max(",;\t|", key=first.count)


def _parquet(item: Item) -> Iterator[Numbered]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = item.path or spool(item.stream)
    try:
        with pq.ParquetFile(source) as file:
            yield from _numbered(file.iter_batches(batch_size=BATCH))
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(
            "damaged", f"not Parquet: {' '.join(str(error).split())[:200]}"
        ) from None


def _arrow(item: Item) -> Iterator[Numbered]:
    """Yield the rows of an Arrow file (Feather, too), or of a stream, which is what `datasets`
    saves.
    """
    import pyarrow as pa

    try:
        if not item.head.startswith(b"ARROW1"):
            yield from _numbered(_valid(pa.ipc.open_stream(_Parts(item.stream))))
            return
        with pa.ipc.open_file(item.path or spool(item.stream)) as file:
            yield from _numbered(_valid(file.get_batch(n) for n in range(file.num_record_batches)))
    except (pa.ArrowException, OSError) as error:
        raise DamagedError("damaged", f"not Arrow: {' '.join(str(error).split())[:200]}") from None


class _Parts(io.RawIOBase):
    """A stream that is read in parts, so that a length that lies takes no more memory than there
    are bytes.
    """

    def __init__(self, stream: io.BufferedReader) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        """Say that this stream can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, or all that are left."""
        parts = []
        while size and (part := self._stream.read(min(size, 1 << 20) if size > 0 else 1 << 20)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def _valid(batches: Iterable[Any]) -> Iterator[Any]:
    """Check what Arrow takes on trust: an offset that points elsewhere would end the process."""
    for batch in batches:
        batch.validate(full=True)
        yield batch


def _numbered(batches: Iterable[Any]) -> Iterator[Numbered]:
    """Yield the rows of Arrow batches, few at a time, by number."""
    parts = (
        batch.slice(start, BATCH) for batch in batches for start in range(0, batch.num_rows, BATCH)
    )
    yield from enumerate(record for part in parts for record in part.to_pylist())


FORMATS: dict[str, Callable[[Item], Iterator[Numbered]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "yaml": _yaml,
    "csv": _csv,
    "tsv": _csv,
    "parquet": _parquet,
    "arrow": _arrow,
}
