"""ftfy's own cases of broken text, and mojibake made from sentences in 75 languages: ours beside
ftfy, and the speed of both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import ftfy
import ftfy.bad_codecs
import numpy as np
import pyarrow as pa

from benchmarks.languages import sentences
from benchmarks.machine import test_data
from benchmarks.peers import megabytes, result, seconds
from groundup.refine.clean.pipeline import CleanedTexts, clean_texts, repair
from groundup.refine.clean.pipeline import suspects as find_suspects

# All are judged by what is left when quotes are straight and white space is plain: fix_text and we
# differ there by design.
STRAIGHT = str.maketrans(dict.fromkeys("‘’‚", "'") | dict.fromkeys("“”„", '"'))
MISREAD_AS = (
    "latin-1",
    "iso-8859-2",
    "macroman",
    "cp437",
    *(f"sloppy-windows-{page}" for page in (1250, 1251, 1252, 1253, 1254, 1257)),
)
Repair = Callable[[list[str]], list[str]]


def ours(texts: list[str]) -> list[str]:
    cleaned: list[str] = clean_texts(
        pa.array(texts), np.zeros(len(texts), np.bool_)
    ).texts.to_pylist()
    return cleaned


TOOLS: dict[str, Repair] = {
    "ours": ours,
    "ftfy.fix_encoding": lambda texts: [ftfy.fix_encoding(text) for text in texts],
    "ftfy.fix_text": lambda texts: [ftfy.fix_text(text) for text in texts],
}


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    figures: dict[str, object] = {}
    for path in sorted(data.glob("web/mojibake/*.json")):
        figures |= cases(path)
    lines = sentences(data)
    figures |= made(lines)
    for name, texts in real(data, lines).items():
        figures |= speed(name, texts)
    return result(__doc__, figures)


def plain(text: str) -> str:
    return " ".join(text.translate(STRAIGHT).split())


def cases(path: Path) -> dict[str, object]:
    """Count the cases of one file that each tool gets right; in `negative` a case is right when it
    is left alone.
    """
    listed = json.loads(path.read_text(encoding="utf-8"))
    wanted = [
        {plain(case["fixed"]), plain(case.get("fixed-encoding", case["fixed"]))} for case in listed
    ]
    figures: dict[str, object] = {f"{path.stem}: cases": len(listed)}
    for name, tool in TOOLS.items():
        got = tool([case["original"] for case in listed])
        figures[f"{path.stem}: right, {name}"] = sum(
            plain(text) in right for text, right in zip(got, wanted, strict=True)
        )
    return figures


def made(lines: dict[str, list[str]]) -> dict[str, object]:
    """Misread every tenth sentence, as cleaning leaves it, in ten encodings, with no-break spaces
    as they are and as plain ones.
    """
    clean = ours([text for texts in lines.values() for text in texts[::10]])
    right = [text for text in clean if not text.isascii()]
    pairs = [(text, text.encode().decode(code, "replace")) for text in right for code in MISREAD_AS]
    pairs += [(text, broken.replace("\xa0", " ")) for text, broken in pairs if "\xa0" in broken]
    broken = [pair[1] for pair in pairs]
    figures: dict[str, object] = {"made: sentences": len(pairs)}
    for name, tool in TOOLS.items():
        figures[f"made: share right, {name}"] = sum(
            plain(a) == plain(b) for (a, _), b in zip(pairs, tool(broken), strict=True)
        ) / len(pairs)
    alone = [text for text in broken if ftfy.fix_encoding(text) != text]
    figures["made: ftfy changes, our screen misses"] = int(
        (~find_suspects(pa.array(alone), np.ones(len(alone), np.bool_))).sum()
    )
    return figures


def real(data: Path, lines: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return clean prose (chapters of ten books), web text, and documents of ten sentences in 75
    languages.
    """
    books = [
        path.read_text(encoding="utf-8")
        for path in sorted(data.glob("books/gutenberg/*/*.txt"))[:10]
    ]
    web = [
        json.loads(line)["text"]
        for line in (data / "web/jsonl/c4_demo.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    many = [
        " ".join(texts[i : i + 10]) for texts in lines.values() for i in range(0, len(texts), 10)
    ]
    return {
        "books": [chapter for book in books for chapter in book.split("\n\n\n")],
        "web": web,
        "75 languages": many,
    }


def speed(name: str, texts: list[str]) -> dict[str, object]:
    column, prose, size = pa.array(texts), np.ones(len(texts), np.bool_), megabytes(texts)
    suspects = int(find_suspects(column, prose).sum())
    figures: dict[str, object] = {
        f"{name}: documents": len(texts),
        f"{name}: documents that the screen suspects": suspects,
        f"{name}: documents that the repair changes": int(
            repair(CleanedTexts(column), prose).sum()
        ),
        f"{name}: MB/s, our repair": size / seconds(lambda: repair(CleanedTexts(column), prose)),
        f"{name}: MB/s, our whole cleaning": size / seconds(lambda: clean_texts(column, ~prose)),
    }
    for tool in ("ftfy.fix_encoding", "ftfy.fix_text"):
        figures[f"{name}: MB/s, {tool}"] = size / seconds(lambda tool=tool: TOOLS[tool](texts))  # type: ignore[misc]
    return figures
