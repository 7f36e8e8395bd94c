"""Jupyter notebooks (nbformat 3 and 4): prose as Markdown, code as it is, short outputs as text.

{"cells": [{"cell_type": "markdown", "source": ["# A *title*"]},        A title
           {"cell_type": "code", "source": "1 + 1",               →
            "outputs": [{"data": {"text/plain": "2"}}]}]}               1 + 1

                                                                        2
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

from groundup.artifacts.document import Document, Reject
from groundup.collect.charset import decode, repair_text
from groundup.collect.files.streams import DamagedError, Item, TooLongError, deadline, read_all
from groundup.collect.readers.markup.markdown import markdown_text
from groundup.collect.readers.markup.plain import MAX_MARKUP_BYTES, clean_input
from groundup.recipe import Source

# Longer outputs are tables, logs and data.
MAX_OUTPUT_CHARACTERS = 1000
MAX_OUTPUT_LINES = 20
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0e-\x1f]")
_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n|\Z)")  # progress bars
# `<Figure size 640x480 with 1 Axes>`, `<module.Thing at 0x7f…>`
_REPRESENTATION = re.compile(r"\s*(?:\[?<[^<>\n]*(?:>| at 0x[^<>\n]*>)[,\]]?\s*)+\Z")


def read_notebook(item: Item, source: Source) -> Iterator[Document | Reject]:
    """Yield a notebook as one document; images, tracebacks and long outputs are left out.

    Raises DamagedError if it is no JSON, or longer than MAX_MARKUP_BYTES.
    """
    text = decode(read_all(item.stream, MAX_MARKUP_BYTES))
    try:
        with deadline():
            notebook = orjson.loads(repair_text(text))
            parts = [part for cell in _cells(notebook) for part in _cell_parts(cell)]
    except ValueError as error:
        raise DamagedError("malformed", f"a notebook that is no JSON: {error}") from None
    except TooLongError as error:
        raise DamagedError("timeout", str(error)) from None
    if parts:
        group = item.project or item.origin
        yield Document("\n\n".join(parts), group=group, license=item.license)
    else:
        yield Reject("empty", detail="a notebook without text or code")


def _cells(notebook: Any) -> list[dict[str, Any]]:
    """Return the cells of a notebook; those of version 3 are on worksheets."""
    if not isinstance(notebook, dict):
        return []
    sheets = notebook.get("worksheets")
    holders = [notebook, *(sheets if isinstance(sheets, list) else [])]
    lists = (holder.get("cells") for holder in holders if isinstance(holder, dict))
    cells = (cell for cells in lists if isinstance(cells, list) for cell in cells)
    return [cell for cell in cells if isinstance(cell, dict)]


def _cell_parts(cell: dict[str, Any]) -> Iterator[str]:
    """Yield the text of a cell, and those of its outputs that are short."""
    content = clean_input(_joined(cell.get("source", cell.get("input"))))
    match cell.get("cell_type"):
        case "markdown":
            content = markdown_text(content)
        case "heading":
            content = " ".join(markdown_text(content).split())
        case "code":
            content = content.strip("\n").rstrip()
        case _:
            # What a raw cell holds is for a program.
            return
    if content.strip():
        yield content
    outputs = cell.get("outputs")
    for output in outputs if isinstance(outputs, list) else []:
        if isinstance(output, dict) and (text := _output_text(output)):
            yield text


def _output_text(output: dict[str, Any]) -> str:
    """Return the plain text of an output; "" if it is long, an error, or stands for a picture."""
    data = output.get("data")
    if output.get("output_type") in ("error", "pyerr") or output.get("name") == "stderr":
        return ""
    if output.get("stream") == "stderr":
        return ""
    text = _joined(data.get("text/plain") if isinstance(data, dict) else output.get("text"))
    text = _ANSI.sub("", _OVERWRITTEN.sub("", text)).strip("\n").rstrip()
    is_long = len(text) > MAX_OUTPUT_CHARACTERS or text.count("\n") >= MAX_OUTPUT_LINES
    return "" if is_long or _REPRESENTATION.match(text) else text


def _joined(value: Any) -> str:
    """Return a text that may be given as a list of its lines."""
    if isinstance(value, list):
        return "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""
