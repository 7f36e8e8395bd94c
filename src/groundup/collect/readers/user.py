"""Readers of users: `reader = "module:function"` in a recipe.

The function gets the stream and the origin of a file, and yields its records: texts, or mappings
with a `text`, with messages, or with a `reason` that lists the record as dropped:

    def read_log(stream, origin):
        for line in stream:
            if line.startswith(b"#"):
                yield {"reason": "comment"}
            else:
                yield {"text": line.decode(), "group": origin}

Archives and compression are opened before it is called; sizes, names and groups are checked after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from groundup.artifacts.document import Document, Reject
from groundup.artifacts.kinds import KINDS
from groundup.collect.files.streams import DamagedError, Item, TooLongError, deadline
from groundup.collect.readers.conversations import conversation_documents
from groundup.collect.readers.records import NumberedRecord
from groundup.collect.readers.registry import Reader
from groundup.collect.readers.text import text_document
from groundup.errors import GroundupError
from groundup.recipe import Source
from groundup.runtime.user_code import load_function


def user_reader(name: str, root: Path) -> Reader:
    """Return the reader that calls a function of the user.

    Args:
        name: `module:function`, as the recipe has it.
        root: folder of the recipe; modules in it can be imported.

    Raises:
        RecipeError: it cannot be imported.
    """
    return partial(_read, name, load_function(name, root, "reader"))


def _read(
    name: str, function: Callable[..., Any], item: Item, source: Source
) -> Iterator[Document | Reject]:
    rows = _call(name, function, item)
    if KINDS[source.kind].has_turns:
        yield from conversation_documents(rows, item)
        return
    for index, record in rows:
        if isinstance(record, Reject):
            yield record
        else:
            yield text_document(record, index, item, source.kind)


def _call(name: str, function: Callable[..., Any], item: Item) -> Iterator[NumberedRecord]:
    """Yield the records that the function yields, each within the deadline."""
    # What is known of the file, unless the record says it.
    known = {"license": item.license}
    if item.project:
        known["group"] = item.project
    index = 0
    records: Iterator[Any] = iter(())
    try:
        with deadline():
            records = iter(function(item.stream, item.origin))
        while True:
            with deadline():
                record = next(records)
            if not isinstance(record, Mapping):
                yield index, record
            elif "reason" in record:
                yield index, Reject(str(record["reason"]), index, str(record.get("detail", "")))
            else:
                yield index, known | dict(record)
            index += 1
    except StopIteration:
        return
    except SystemExit as error:
        # A crash of a reader costs its file, never the run.
        raise RuntimeError(f"the reader called sys.exit({error.code!r})") from None
    except TooLongError as error:
        raise DamagedError("timeout", str(error)) from None
    except ImportError as error:
        message = f'reader "{name}" needs something that is not installed: {error}'
        raise GroundupError(message) from None
