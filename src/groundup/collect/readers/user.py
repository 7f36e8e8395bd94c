"""A reader of the user's own: a function that gets a file and yields its records. Reads an item;
yields documents and rejections.

Everything around it is as for other readers: archives and compression are opened before, limits,
names and groups come after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from groundup.artifacts.document import Document, Reject
from groundup.collect.deadline import TooLongError, deadline
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.readers.conversations import conversations
from groundup.collect.readers.records import Numbered
from groundup.collect.readers.text import text_document
from groundup.errors import GroundupError
from groundup.recipe import Source
from groundup.runtime.user_code import Function, load_function


def own_reader(name: str, root: Path) -> Any:
    """Return the reader of a recipe's `reader = "module:function"`; modules beside the recipe (in
    `root`) are found too.

    Raises:
        RecipeError: it cannot be imported.
    """
    return partial(_read, name, load_function(name, root, "reader"))


def _read(name: str, function: Function, item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield what the function makes of a file: texts, or mappings with `text` or turns; `reason` in
    place of them lists a record.
    """
    rows = _rows(name, function, item)
    if source.kind in ("conversations", "tuning"):
        yield from conversations(rows, item)
    else:
        yield from (
            row if isinstance(row, Reject) else text_document(row, number, item, source.kind)
            for number, row in rows
        )


def _rows(name: str, function: Function, item: Item) -> Iterator[Numbered]:
    number = 0
    found: Iterator[Any] = iter(())
    try:
        with deadline():
            found = iter(function(item.stream, item.origin))
        while True:
            with deadline():
                record = next(found)
            yield number, _record(record, number, item)
            number += 1
    except StopIteration:
        return
    except TooLongError as error:
        raise DamagedError("timeout", str(error)) from None
    except ImportError as error:
        raise GroundupError(
            f'reader "{name}" needs something that is not installed: {error}'
        ) from None


def _record(record: Any, number: int, item: Item) -> Any:
    """Return a record with what is known of its file, or the rejection that it asks for."""
    if not isinstance(record, Mapping):
        return record
    if "reason" in record:
        return Reject(str(record["reason"]), number, str(record.get("detail", "")))
    known = {"license": item.license} | ({"group": item.project} if item.project else {})
    return known | dict(record)
