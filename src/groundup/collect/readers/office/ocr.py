"""Pages that are pictures → lines, by Tesseract, where a source asks for it: `ocr = "eng"`.

pdfium draws a page in the child process, Tesseract reads the picture and says where each word
stands (hOCR). Its words become lines as the words of a text layer do, so paragraphs, cut words,
tables and running heads are found in the same way.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundup.collect.files.child import Child
from groundup.collect.files.programs import run_program
from groundup.collect.files.streams import DamagedError
from groundup.collect.readers.office.pdf_pages import Page, draw_page, join_words
from groundup.collect.readers.office.pdf_words import HYPHEN, Word
from groundup.errors import GroundupError

TESSERACT = "tesseract"
# A picture of which Tesseract is less sure than this, of 100, on the mean over its words shows no
# text: photos give 10 to 40, scans of typewritten letters 80 and more.
MIN_CONFIDENCE = 50
_POINTS = 72.0
_DPI = 300.0
_LINES = frozenset(("ocr_line", "ocr_header", "ocr_caption", "ocr_textfloat"))
_PROPERTY = re.compile(r"(\w+) ([-\d. ]+)")
_HYPHEN_AT_END = re.compile(r"(?<=[^\W\d_])[-\u2010\xac]\Z")


def tesseract_version() -> str:
    """Return the version of the program on this machine, "" where there is none."""
    if shutil.which(TESSERACT) is None:
        return ""
    words = _printed("--version").split()
    return words[1] if len(words) > 1 else ""


def missing_tesseract(languages: str) -> str:
    """Return what this machine lacks to recognize languages such as `deu+fra`; "" if nothing."""
    if not tesseract_version():
        return "Tesseract is not installed (apt-get install tesseract-ocr, brew install tesseract)"
    installed = set(_printed("--list-langs").split("\n")[1:])
    missing = [language for language in languages.split("+") if language not in installed]
    if not missing:
        return ""
    packages = " ".join(f"tesseract-ocr-{name.replace('_', '-').lower()}" for name in missing)
    return f"Tesseract lacks the language {', '.join(missing)} (apt-get install {packages})"


def _printed(option: str) -> str:
    done = subprocess.run(
        [TESSERACT, option], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout or done.stderr


def recognize_page(path: str, number: int, languages: str) -> Page:
    """Return the lines of a page of a PDF, which has none where no text is seen in its picture.

    Raises DamagedError if the page cannot be drawn, or Tesseract crashes or takes too long.
    """
    with tempfile.TemporaryDirectory() as folder:
        picture = str(Path(folder) / "page.pgm")
        dpi = Child.call(draw_page, path, number, picture)
        if not dpi:
            raise DamagedError("damaged", "the page cannot be drawn")
        pages = list(recognize(picture, languages, folder, dpi))
    return pages[0] if pages else Page()


def recognize(picture: str, languages: str, folder: str, dpi: float = _DPI) -> Iterator[Page]:
    """Yield the pages of a picture file; `folder` is an empty one for the output.

    Raises DamagedError if Tesseract crashes or takes too long, GroundupError if it is missing.
    """
    if shutil.which(TESSERACT) is None:
        # The stage found it on another machine.
        raise GroundupError(f"{TESSERACT} is not installed on this node, as [[source]] ocr asks")
    command = [TESSERACT, picture, "stdout", "-l", languages, "--dpi", str(round(dpi))]
    # Shards are read in parallel already.
    hocr = run_program(
        [*command, "-c", "tessedit_create_hocr=1"], folder, {"OMP_THREAD_LIMIT": "1"}
    )
    yield from _parse(hocr, _POINTS / dpi)


def _parse(hocr: bytes, scale: float) -> Iterator[Page]:
    """Yield the pages of hOCR; `scale` is points a pixel."""
    from lxml import etree

    parser = etree.XMLParser(recover=True, resolve_entities=False, no_network=True)
    root = etree.fromstring(hocr, parser)
    for element in () if root is None else root.iter("{*}div"):
        if element.get("class") != "ocr_page":
            continue
        height = _properties(element)["bbox"][3]
        words, sure, characters = list[Word](), 0.0, 0
        for line in element.iter("{*}span"):
            if line.get("class") in _LINES:
                for word, confidence in _words(line, height, scale):
                    words.append(word)
                    sure += confidence * len(word.text)
                    characters += len(word.text)
        page = Page(height=height * scale, characters=characters)
        if sure >= MIN_CONFIDENCE * max(1, characters):
            page.lines = join_words(words)
        yield page


def _words(line: Any, height: float, scale: float) -> Iterator[tuple[Word, float]]:
    """Yield the words of a line, and how sure Tesseract is of each, of 100."""
    places = _properties(line)
    # Its slope, and where it starts above the lower edge of the box.
    _, rise = places.get("baseline", (0.0, 0.0))
    y = (height - places["bbox"][3] - rise) * scale
    (size, *_) = places.get("x_size", (10 / scale,))
    elements = [word for word in line.iter("{*}span") if word.get("class") == "ocrx_word"]
    for element in elements:
        text = "".join(element.itertext()).strip()
        # Rules of tables are seen as bars.
        if not text.strip("|"):
            continue
        if element is elements[-1]:
            text = _HYPHEN_AT_END.sub(HYPHEN, text)
        known = _properties(element)
        left, _, right, _ = (edge * scale for edge in known["bbox"])
        word = Word(text, left, max(left, right), y, max(1.0, size * scale), 0, False)
        yield word, known.get("x_wconf", (0.0,))[0]


def _properties(element: Any) -> dict[str, tuple[float, ...]]:
    """Return the numbers in the title of an element of hOCR, such as `bbox 283 345 1350 386`."""
    found = _PROPERTY.findall(element.get("title") or "")
    return {name: tuple(float(part) for part in values.split()) for name, values in found}
