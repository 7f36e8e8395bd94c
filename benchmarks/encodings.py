"""200 real files in 45 encodings, and sentences written in 27: what share decodes to the right
text, ours beside detectors.

Right is the text of the true encoding, or of the one that browsers read under its name (WHATWG
Encoding Standard). The real files are from chardet's own tests, which all detectors here were tuned
on; the sentences are from elsewhere.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.languages import sentences
from benchmarks.machine import test_data
from benchmarks.peers import peer, result, seconds
from groundup.collect.charset import detect_encoding

NAMES = {"MacCyrillic": "mac_cyrillic", "TIS-620": "cp874"}
BROWSERS = {
    "gb2312": "gb18030",
    "shift_jis": "cp932",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "euc_kr": "cp949",
}
WRITTEN = {
    "koi8-r": "ru",
    "cp1251": "ru bg sr uk be mk",
    "iso-8859-5": "ru bg sr",
    "cp866": "ru",
    "mac-cyrillic": "ru",
    "koi8-u": "uk",
    "iso-8859-2": "pl cs sk hu hr sl ro",
    "cp1250": "pl cs sk hu hr sl",
    "cp852": "pl cs hu",
    "cp1257": "lt lv et",
    "iso-8859-7": "el",
    "cp1253": "el",
    "cp1254": "tr",
    "cp1255": "he",
    "iso-8859-8": "he",
    "cp1256": "ar fa ur",
    "iso-8859-6": "ar",
    "shift_jis": "ja",
    "euc-jp": "ja",
    "iso-2022-jp": "ja",
    "gb18030": "zh",
    "big5": "zh",
    "euc-kr": "ko",
    "cp874": "th",
    "cp1252": "fr de es it pt nl sv da nb fi is",
    "mac-roman": "fr de es",
    "cp850": "fr de es",
}
EACH = 6
Case = tuple[bytes, str]


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    lines = sentences(data)
    sets = {"real files": list(files(data))} | {
        f"{count} sentence{'s' * (count > 1)}": list(written(lines, count)) for count in (1, 10)
    }
    figures: dict[str, object] = {}
    for kind, cases in sets.items():
        figures[f"{kind}: cases"] = len(cases)
        for name, tool in tools().items():
            figures[f"{kind}: share right, {name}"] = sum(
                same(raw, truth, tool(raw)) for raw, truth in cases
            ) / len(cases)
            spent = seconds(lambda tool=tool, cases=cases: [tool(raw) for raw, _ in cases])  # type: ignore[misc]
            figures[f"{kind}: MB/s, {name}"] = sum(len(raw) for raw, _ in cases) / 1e6 / spent
    return result(__doc__, figures)


def tools() -> dict[str, Callable[[bytes], str | None]]:
    """Return what each tool at its defaults calls the encoding of some bytes."""
    found: dict[str, Callable[[bytes], str | None]] = {"ours": detect_encoding}
    chardet, normalizer = peer("chardet"), peer("charset_normalizer")
    if chardet is not None:
        found["chardet"] = lambda data: chardet.detect(data)["encoding"]
    if normalizer is not None:
        found["charset-normalizer"] = lambda data: getattr(
            normalizer.from_bytes(data).best(), "encoding", None
        )
    return found


def files(data: Path) -> Iterator[Case]:
    """Yield every file with its encoding, which its folder names; Python has no EUC-TW."""
    for path in sorted(data.glob("web/encodings/*/*")):
        folder = path.parent.name
        names = [NAMES.get(folder, folder), folder.rpartition("-")[0]]
        truth = next((name for name in names if _known(name)), None)
        if truth is not None:
            yield path.read_bytes(), truth


def written(lines: dict[str, list[str]], count: int) -> Iterator[Case]:
    """Yield texts of `count` sentences that hold more than ASCII, up to six for each language and
    encoding.
    """
    for encoding, languages in WRITTEN.items():
        for language in languages.split():
            texts = [text.encode(encoding) for text in lines[language] if _fits(text, encoding)]
            groups = [b"\n".join(texts[i : i + count]) for i in range(0, len(texts), count)]
            yield from [
                (group, encoding) for group in groups if not group.isascii() or b"\x1b" in group
            ][:EACH]


def same(data: bytes, truth: str, guessed: str | None) -> bool:
    name = codecs.lookup(truth).name
    if guessed is None or not _known(guessed):
        return False
    return _text(data, guessed) in {_text(data, name), _text(data, BROWSERS.get(name, name))}


def _text(data: bytes, encoding: str) -> str:
    return data.decode(encoding, "replace").removeprefix("\ufeff")


def _known(name: str) -> bool:
    try:
        codecs.lookup(name)
    except LookupError:
        return False
    return True


def _fits(text: str, encoding: str) -> bool:
    return text.encode(encoding, "ignore").decode(encoding) == text
