"""Fixtures of the refine tests: documents with ids, collected shards, and real text where
GROUNDUP_TEST_DATA names it.
"""

from __future__ import annotations

import json
import os
import random
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from groundup.artifacts.document import DOCUMENT, DROPPED, TableWriter, document_id
from groundup.refine.clean.unicode_classes import LOWERCASE, UNSPACED, WORD, WORD_CLASSES
from groundup.refine.shard import refine_shard

Row = dict[str, object]


def make_row(
    text: str,
    number: int,
    kind: str = "text",
    source: str = "s",
    group: str = "",
    turns: list[dict[str, str]] | None = None,
) -> Row:
    return {
        "id": document_id(source, "file", number),
        "text": text,
        "kind": kind,
        "source": source,
        "origin": "file",
        "record": number,
        "group": f"{kind}:{group or number}",
        "license": "",
        "language": "python" if kind == "code" else "",
        "turns": turns,
    }


def write_collected(folder: Path, rows: Sequence[Row]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with TableWriter(folder / "documents.parquet", DOCUMENT) as out:
        for row in rows:
            out.add(row, 64 + len(str(row["text"])))
    with TableWriter(folder / "dropped.parquet", DROPPED):
        pass
    return folder


@pytest.fixture
def row() -> Callable[..., Row]:
    """Make a row of the document schema from a text and its number."""
    return make_row


@pytest.fixture
def collected() -> Callable[[Path, Sequence[Row]], Path]:
    """Write rows as a collect artifact into a folder."""
    return write_collected


def split_words(text: str) -> list[str]:
    """Words by the definition, one code point at a time."""
    found, running = [], ""
    for letter in text + " ":
        kind = WORD_CLASSES[ord(letter)]
        if kind != WORD and running:
            found.append(running)
            running = ""
        if kind == UNSPACED:
            found.append(letter)
        elif kind == WORD:
            running += chr(LOWERCASE[ord(letter)])
    return found


def split_shingles(text: str, width: int = 5) -> set[tuple[str, ...]]:
    """Runs of `width` words, or all words of a text that has fewer."""
    found = split_words(text)
    return {
        tuple(found[i : i + width]) for i in range(max(len(found) - width + 1, min(len(found), 1)))
    }


@pytest.fixture(scope="session")
def plain_words() -> Callable[[str], list[str]]:
    """The plain reference for words."""
    return split_words


@pytest.fixture(scope="session")
def plain_shingles() -> Callable[..., set[tuple[str, ...]]]:
    """The plain reference for shingles."""
    return split_shingles


def real_data() -> Path:
    """Return the folder of real data, or skip the test."""
    folder = os.environ.get("GROUNDUP_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GROUNDUP_TEST_DATA does not name a folder of real data")
    return Path(folder)


def _code(folder: Path) -> list[str]:
    texts = []
    for path in sorted((folder / "code" / "pypi").glob("*.tar.gz")):
        if path.name.startswith(("flask", "requests", "rich", "msgpack")):
            with tarfile.open(path) as archive:
                files = [
                    archive.extractfile(member)
                    for member in archive
                    if member.isfile() and member.name.endswith((".py", ".rst", ".pyx"))
                ]
                texts += [file.read().decode("utf-8", "ignore") for file in files if file]
    return texts


def _edited(texts: Sequence[str], count: int) -> list[str]:
    """Plant near-duplicates: copies with one word in 10 … 500 replaced."""
    chance = random.Random(7)
    copies = []
    for text in chance.sample([text for text in texts if 60 < len(text.split()) < 3_000], count):
        words, rate = text.split(" "), chance.choice([10, 20, 50, 100, 500])
        copies.append(
            " ".join(
                chance.choice(words) + "x" if chance.randrange(rate) == 0 else word
                for word in words
            )
        )
    return copies


@pytest.fixture(scope="session")
def real_texts() -> list[str]:
    """At least 2,000 real texts with natural near-duplicates (two versions of flask, editions of
    books) and planted ones.
    """
    folder = real_data()
    web = [
        json.loads(line)["text"]
        for line in (folder / "web/jsonl/c4_demo.jsonl").open(encoding="utf-8")
    ]
    wiki = [
        line
        for line in (folder / "wikipedia/plain/wikitext-2-valid.txt")
        .read_text(encoding="utf-8")
        .split("\n")
        if len(line) > 200
    ]
    books = [
        path.read_text(encoding="utf-8", errors="ignore")
        for path in sorted((folder / "books/gitenberg").rglob("*.txt"))
    ]
    pages = [
        book[at : at + 4_000] for book in books for at in range(0, min(len(book), 200_000), 4_000)
    ]
    texts = _code(folder) + web + wiki[:1_000] + pages
    return [text for text in texts + _edited(texts, 300) if text.strip()]


@pytest.fixture
def refined(tmp_path: Path) -> Callable[..., list[tuple[str, Path]]]:
    """Refine lists of texts into one shard each, filters off; `first` numbers their sources."""

    def build(lists: Sequence[Sequence[str]], first: int = 0) -> list[tuple[str, Path]]:
        shards = []
        for number, texts in enumerate(lists, first):
            name = f"source{number}.x"
            source = write_collected(
                tmp_path / f"in-{name}",
                [make_row(text, n, "code", f"source{number}") for n, text in enumerate(texts)],
            )
            (out := tmp_path / name).mkdir()
            refine_shard(out, source, "code", [], [], tmp_path)
            shards.append((name, out))
        return shards

    return build
