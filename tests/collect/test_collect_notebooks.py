"""Notebooks: Markdown as prose, code as it is, short outputs; versions 3 and 4."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from groundup.artifacts.document import Document, Reject

Read = Callable[..., list[Document | Reject]]


def _code(source: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": "code", "source": source, "outputs": list(outputs)}


def _read(read: Read, *cells: dict[str, Any], kind: str = "text") -> Document | Reject:
    (result,) = read(kind, "a.ipynb", json.dumps({"cells": cells, "nbformat": 4}))
    return result


@pytest.mark.parametrize("kind", ["text", "code"])
def test_cells_in_order(read: Read, kind: str) -> None:
    markdown = {"cell_type": "markdown", "source": ["# A *title*\n", "\n", "[w](http://x)"]}
    result = {"output_type": "execute_result", "data": {"text/plain": "2", "image/png": "iVBO"}}
    raw = {"cell_type": "raw", "source": "no"}
    document = _read(read, markdown, raw, _code("x = 1\n\ny = *x*\n", result), kind=kind)
    assert isinstance(document, Document)
    assert document.text == "A title\n\nw\n\nx = 1\n\ny = *x*\n\n2" and document.group == "a.ipynb"


@pytest.mark.parametrize(
    "output, text",
    [
        ({"output_type": "stream", "name": "stdout", "text": ["a\n", "\x1b[31mb\x1b[0m"]}, "a\nb"),
        ({"output_type": "stream", "name": "stdout", "text": "10%\r50%\rdone\n"}, "done"),
        ({"output_type": "stream", "name": "stderr", "text": "warning"}, ""),
        ({"output_type": "error", "traceback": ["no"]}, ""),
        (
            {
                "output_type": "display_data",
                "data": {"text/plain": "<Figure size 6x4 with 1 Axes>"},
            },
            "",
        ),
        ({"output_type": "display_data", "data": {"image/png": "iVBO"}}, ""),
        ({"output_type": "stream", "text": "x" * 1001}, ""),
        ({"output_type": "stream", "text": "x\n" * 21}, ""),
    ],
)
def test_outputs(read: Read, output: dict[str, Any], text: str) -> None:
    document = _read(read, _code("c", output))
    assert isinstance(document, Document) and document.text == f"c\n\n{text}".rstrip()


def test_version_3(read: Read) -> None:
    cells = [
        {"cell_type": "heading", "level": 1, "source": "Head"},
        {"cell_type": "code", "input": ["x"], "outputs": [{"output_type": "pyout", "text": ["1"]}]},
    ]
    data = json.dumps({"worksheets": [{"cells": cells}], "nbformat": 3})
    (document,) = read("text", "a.ipynb", data)
    assert isinstance(document, Document) and document.text == "Head\n\nx\n\n1"


def test_bad_notebooks_are_listed(read: Read) -> None:
    for data, reason in (('{"cells": [{"cell_type"', "malformed"), ('{"cells": [1, {}]}', "empty")):
        (reject,) = read("text", "a.ipynb", data)
        assert isinstance(reject, Reject) and reject.reason == reason
