"""Reads the items of a benchmark from its files: JSON, JSON lines, Parquet, CSV, COPA's XML, and
plain text of HellaSwag and WikiText.

Of a folder, the files of the part that is asked (test or validation, by their names) are read, and
those of the part that gives examples. A file of another sort is named and left out, and so is one
whose items were read already.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lxml import etree

from groundup.errors import GroundupError, one_line
from groundup.evaluate.task_rows import TaskItem
from groundup.evaluate.tasks import TASKS

_DECOMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
}
_PART = re.compile(r"(?:^|[^a-z])(train|dev|validation|valid|val|test)(?=[^a-z]|$)")
_PARTS = {
    "test": ("test",),
    "validation": ("validation", "valid", "val", "dev"),
    "": ("",),
}
_SUBJECT = re.compile(r"[_-](?:dev|test|val)$")
# An article of WikiText begins with a heading of the first level.
_ARTICLE = re.compile(r"(?m)^(?= = [^=\n]+ = $)")
# One wrong file of gigabytes must not fill the memory.
MAX_BYTES = 1 << 30


@dataclass
class TaskItems:
    """The items of a benchmark, and what was left out of its files."""

    items: list[TaskItem] = field(default_factory=list)
    examples: dict[str, list[TaskItem]] = field(default_factory=dict)  # by group, of the other part
    files: list[str] = field(default_factory=list)  # that items came from
    left_out: Counter[str] = field(default_factory=Counter)  # rows, by reason
    skipped: dict[str, str] = field(default_factory=dict)  # file → reason
    repeated: int = 0  # items that a file asks again


@dataclass
class _File:
    origin: str
    part: str
    rank: int  # position of its layout in the task
    items: list[TaskItem]
    left_out: Counter[str]


def read_task(name: str, files: Mapping[str, Path], shots: int) -> TaskItems:
    """Return the items of a benchmark and the examples that `shots` asks for.

    `files` is origin → path. Raises GroundupError if there is no item, or no example.
    """
    task, result, read = TASKS[name], TaskItems(), []
    for origin, path in files.items():
        if origin.endswith(".lst"):
            continue
        file = _read_file(name, origin, path, files)
        if isinstance(file, str):
            result.skipped[origin] = file
        else:
            read.append(file)
    if not read:
        raise GroundupError(f"benchmark {name}: no file holds an item of it: {_reasons(result)}")
    given = _of_part(read, ("dev",) if task.first_examples else ("train",))
    asked = _of_part(read, _PARTS[task.split]) or [f for f in read if f not in given] or read
    _add_items(result, asked)
    for file in read:
        if file not in asked and not (shots and file in given):
            result.skipped[file.origin] = f"not of the {task.split} part by its name"
    if shots:
        for item in (item for file in given if file not in asked for item in file.items):
            result.examples.setdefault(item.group, []).append(item)
        _check_examples(name, result, shots)
    return result


def _of_part(files: Sequence[_File], names: Sequence[str]) -> list[_File]:
    return [file for file in files if file.part in names or names == ("",)]


def _add_items(result: TaskItems, files: Sequence[_File]) -> None:
    """Add the items of files, of which those in the first layouts come first, once each."""
    known: set[object] = set()
    for file in sorted(files, key=lambda file: (file.rank, file.origin)):
        new = [item for item in file.items if item.key not in known]
        if not new:
            result.skipped[file.origin] = f"the same items as {', '.join(result.files)}"
            continue
        if len(new) < len(file.items):
            again = f"asked in {', '.join(result.files)}"
            result.left_out[again] += len(file.items) - len(new)
        keys = {item.key for item in new}
        result.repeated += len(new) - len(keys)
        known |= keys
        result.files.append(file.origin)
        result.items += new
        result.left_out.update(file.left_out)


def _check_examples(name: str, result: TaskItems, shots: int) -> None:
    groups = {item.group for item in result.items}
    few = min(groups, key=lambda group: len(result.examples.get(group, ())))
    if (count := len(result.examples.get(few, ()))) < shots:
        of_group = f" of {few}" if few else ""
        part = "dev" if TASKS[name].first_examples else "train"
        raise GroundupError(
            f"benchmark {name}: {shots} examples{of_group} are shown before each question, but"
            f" {count} are there; add the {part} file to the folder, or write {name}:0=PATH"
        )


def _reasons(result: TaskItems) -> str:
    named = [f"{origin}: {reason}" for origin, reason in list(result.skipped.items())[:3]]
    more = len(result.skipped) - len(named)
    return "; ".join(named) + (f"; and {more:,} more" if more > 0 else "") or "there is none"


def _read_file(name: str, origin: str, path: Path, files: Mapping[str, Path]) -> _File | str:
    """Return the items of a file, or why it holds none."""
    task = TASKS[name]
    try:
        rows = list(_rows(name, origin, path))
        if labels := _labels(origin, files):
            rows = _with_labels(rows, labels)
    except (OSError, EOFError, ValueError, csv.Error, etree.XMLSyntaxError) as error:
        return one_line(error, 200)
    items, left_out, ranks = [], Counter[str](), Counter[int]()
    for row in rows:
        try:
            if not isinstance(row, dict):
                raise ValueError("not an object")
            items.append(task.item(row))
            ranks[task.layouts.index(task.layout(list(row)))] += 1
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            left_out[one_line(error, 100)] += 1
    if not items:
        (reason, count) = left_out.most_common(1)[0] if left_out else ("empty", 0)
        return f"{reason} ({count:,} of {len(rows):,})" if count else "it holds no row"
    parts = _PART.findall(origin.lower())
    return _File(origin, parts[-1] if parts else "", ranks.most_common(1)[0][0], items, left_out)


def _labels(origin: str, files: Mapping[str, Path]) -> list[str]:
    """Return the lines of the file of labels beside a file, as PIQA and SIQA have it."""
    path = files.get(label_name(origin))
    return path.read_text(encoding="utf-8").split() if path else []


def label_name(origin: str) -> str:
    """Return where the labels of a file would be, "" if it is of no kind that has some."""
    return f"{origin.removesuffix('.jsonl')}-labels.lst" if origin.endswith(".jsonl") else ""


def _with_labels(rows: Sequence[Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    if len(rows) != len(labels):
        raise ValueError(f"{len(labels):,} labels for {len(rows):,} rows")
    return [{**row, "label": label} for row, label in zip(rows, labels, strict=True)]


# Formats


def _rows(name: str, origin: str, path: Path) -> Iterator[Any]:
    """Yield the rows of a file; ValueError for a file of another sort."""
    suffixes = Path(origin.lower()).suffixes
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES:,} bytes")
    data = path.read_bytes()
    if suffixes and suffixes[-1] in _DECOMPRESS:
        data = _DECOMPRESS[suffixes.pop()](data)
    suffix = suffixes[-1] if suffixes else ""
    if suffix == ".parquet" or data[:4] == b"PAR1":
        yield from _parquet(data)
    elif suffix in (".csv", ".tsv"):
        yield from _csv(_decode(data), "\t" if suffix == ".tsv" else ",", origin)
    elif suffix == ".xml":
        yield from _copa_xml(data)
    elif suffix in (".json", ".jsonl"):
        yield from _json(_decode(data))
    elif suffix in (".txt", ".tokens", ".raw") and name in _PLAIN:
        yield from _PLAIN[name](_decode(data))
    else:
        raise ValueError("another sort of file")


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason}") from None


def _parquet(data: bytes) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(pa.BufferReader(data)).to_pylist()
    except pa.ArrowException as error:
        raise ValueError(f"no Parquet: {one_line(error, 100)}") from None
    yield from _pages(rows)


def _json(data: str) -> Iterator[Any]:
    if data.lstrip()[:1] == "[":
        yield from json.loads(data)
        return
    rows = [row for line in data.split("\n") if line.strip() for row in [_json_line(line)]]
    if len(rows) == 1 and isinstance(rows[0], dict) and isinstance(rows[0].get("Data"), list):
        rows = rows[0]["Data"]
    yield from _pages(rows)


def _json_line(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _pages(rows: list[Any]) -> Iterator[Any]:
    """Yield rows; lines of WikiText are joined to its articles."""
    lines = [row["text"] for row in rows if isinstance(row, dict) and list(row) == ["text"]]
    if len(lines) == len(rows) and any(_ARTICLE.match(line) for line in lines[:100]):
        yield from _wikitext(
            "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
        )
    else:
        yield from rows


def _csv(data: str, delimiter: str, origin: str) -> Iterator[Any]:
    """Yield rows under their header; MMLU's have none in the original files."""
    rows = list(csv.reader(io.StringIO(data, newline=""), delimiter=delimiter))
    subject = _SUBJECT.sub("", re.split(r"[/\\]", origin)[-1].split(".")[0])
    header = rows[0] if rows else []
    if "question" in header:
        records = [dict(zip(header, row, strict=False)) for row in rows[1:] if row]
    else:
        names = ["question", *"ABCD", "answer"]
        records = [dict(zip(names, row, strict=False)) for row in rows if len(row) == len(names)]
        if len(records) < len(rows):
            raise ValueError("neither a header with question nor rows of six columns")
    for record in records:
        choices = [
            record[key] for key in (*"ABCD", *(f"choice{n}" for n in range(4))) if key in record
        ]
        yield {"subject": subject, **record, **({"choices": choices} if choices else {})}


def _copa_xml(data: bytes) -> Iterator[Any]:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    for item in etree.fromstring(data, parser):
        words = {child.tag: child.text or "" for child in item}
        if item.tag != "item" or not {"p", "a1", "a2"} <= set(words):
            raise ValueError("no items of COPA")
        answer = item.get("most-plausible-alternative")
        yield {
            "premise": words["p"],
            "choice1": words["a1"],
            "choice2": words["a2"],
            "question": item.get("asks-for"),
            "label": str(int(answer) - 1) if answer and answer.isdigit() else None,
        }


def _hellaswag_text(data: str) -> Iterator[Any]:
    """Yield items of six lines: the context after its label, the right ending, four endings."""
    lines = data.rstrip("\n").split("\n")
    if len(lines) % 6:
        raise ValueError(f"{len(lines):,} lines are not items of six")
    for start in range(0, len(lines), 6):
        context, gold, *endings = lines[start : start + 6]
        yield {"query": context, "choices": endings, "gold": gold}


def _wikitext(data: str) -> Iterator[Any]:
    pages = [page for page in _ARTICLE.split(data) if page.strip()]
    if len(pages) < 2:
        raise ValueError("no headings of WikiText")
    for page in pages:
        yield {"page": page}


_PLAIN: Mapping[str, Callable[[str], Iterator[Any]]] = {
    "hellaswag": _hellaswag_text,
    "wikitext": _wikitext,
}
