"""Text of files by one tool, in a process of its own. Reads FOLDER/files.json (paths); writes
FOLDER/TOOL.json: for each path the text, null where the tool fails, and processor seconds.

    python wild_peers.py TOOL FOLDER

Nothing but the tool is imported, so that it runs in the virtual environment of the peers too.
unstructured sorts elements into titles and prose with a model of spaCy that it downloads; it gets a
blank one, which changes names of elements and no text.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

PACKAGES = {
    "markitdown": "markitdown[docx,pptx,xlsx,pdf]==0.1.9",
    "unstructured": "unstructured[docx,pptx,xlsx,odt,rtf,rst,org,md]==0.27.35",
    "openpyxl": "openpyxl==3.1.5",
}
MAX_SECONDS = 20
Extract = Callable[[str], str]


def markitdown() -> Extract:
    from markitdown import MarkItDown

    tool = MarkItDown(enable_plugins=False)
    return lambda path: tool.convert_local(path).text_content


def unstructured() -> Extract:
    os.environ["DO_NOT_TRACK"] = os.environ["UNSTRUCTURED_DISABLE_NOTICE"] = "1"
    import spacy
    from unstructured.nlp import tokenize  # type: ignore[import-not-found]
    from unstructured.partition.auto import partition  # type: ignore[import-not-found]

    blank = spacy.blank("en")
    blank.add_pipe("sentencizer")
    tokenize._load_spacy_model = lambda: blank
    return lambda path: "\n".join(map(str, partition(path, strategy="fast")))


def openpyxl() -> Extract:
    """The values of all cells of the sheets that are shown and have a word of two letters."""
    from openpyxl import load_workbook

    def values(sheet: Any) -> str:
        cells = (value for row in sheet.iter_rows(values_only=True) for value in row)
        whole = (int(v) if isinstance(v, float) and v.is_integer() else v for v in cells)
        return "\n".join(str(value) for value in whole if value is not None)

    def extract(path: str) -> str:
        sheets = load_workbook(path, data_only=True).worksheets
        texts = (values(sheet) for sheet in sheets if sheet.sheet_state == "visible")
        return "\n".join(text for text in texts if re.search(r"[^\W\d_]{2}", text))

    return extract


TOOLS: dict[str, Callable[[], Extract]] = {
    "markitdown": markitdown,
    "unstructured": unstructured,
    "openpyxl": openpyxl,
}


def _expire(*_: Any) -> NoReturn:
    """Stop the programs that the tool has started, and the call."""
    for listed in Path("/proc/self/task").glob("*/children"):
        for child in listed.read_text().split():
            os.kill(int(child), signal.SIGKILL)
    raise TimeoutError


def processor_seconds() -> float:
    """Return those of this process, and of the processes that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def attempt(extract: Extract, path: str) -> tuple[str | None, float]:
    """Return what a tool finds within 20 seconds, None where it fails, and processor seconds."""
    start = processor_seconds()
    signal.alarm(MAX_SECONDS)
    try:
        text: str | None = extract(path)
    except Exception:
        text = None
    finally:
        signal.alarm(0)
    return text, processor_seconds() - start


def main(name: str, folder: Path) -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _expire)
    extract = TOOLS[name]()
    paths = json.loads((folder / "files.json").read_text(encoding="utf-8"))
    # So that no import is counted.
    for path in {Path(path).suffix: path for path in paths}.values():
        attempt(extract, path)
    found = {path: attempt(extract, path) for path in paths}
    (folder / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
