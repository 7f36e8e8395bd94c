"""Readers of users: the documented one reads a mailbox; its errors cost one file."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from groundup.errors import GroundupError, RecipeError
from groundup.flow import run_flow
from groundup.recipe import load_recipe

PAGE = Path(__file__).parents[2] / "docs" / "own-code.md"
MAILBOX = b"""From ann@example.org Sat Jan  3 01:05:34 1996
From: Ann <ann@example.org>
Subject: Tides
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

The caf=E9 by the harbour floods twice a month.
From bob@example.org Sat Jan  3 02:05:34 1996
From: Bob <bob@example.org>
Subject: RE: Fwd: Tides

> The caf=E9 by the harbour floods twice a month.
Only at spring tide.
From spam@example.org Sat Jan  3 03:05:34 1996
Subject: Picture
Content-Type: text/html

<p>look</p>
"""


def project(folder: Path, code: str, reader: str, kind: str = "text") -> Path:
    """Write two mailboxes, one compressed, a module and a recipe; return the recipe's path."""
    (folder / "mail").mkdir(parents=True)
    (folder / "mail" / "a.mbox").write_bytes(MAILBOX)
    (folder / "mail" / "b.mbox.gz").write_bytes(gzip.compress(MAILBOX.replace(b"Tides", b"Dikes")))
    (folder / f"{reader.partition(':')[0]}.py").write_text(code)
    recipe = folder / "recipe.toml"
    recipe.write_text(
        f'name = "own"\n[[source]]\nkind = "{kind}"\npath = "mail"\nreader = "{reader}"\n'
    )
    return recipe


def collected(recipe: Path, workers: int = 1) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run the recipe until collect; return its documents and dropped records."""
    root = run_flow(load_recipe(recipe, ()), recipe.parent / "run", "collect", workers=workers).root
    tables = (
        [
            row
            for path in sorted((root / "collect" / name).glob("*.parquet"))
            for row in pq.read_table(path).to_pylist()
        ]
        for name in ("documents", "dropped")
    )
    documents, dropped = tables
    return sorted(documents, key=lambda row: (row["origin"], row["record"])), sorted(
        dropped, key=lambda row: (row["origin"], row["record"])
    )


def test_documented_reader(tmp_path: Path) -> None:
    """The code of the documentation gives texts, groups, reasons and numbers, in two processes."""
    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        if "def read_mbox" in block
    )
    assert len(code.splitlines()) <= 20
    recipe = project(tmp_path, code.replace("my_readers", "x"), "my_readers_of_a_test:read_mbox")
    documents, dropped = collected(recipe, workers=2)
    assert [
        (row["origin"], row["record"], row["group"], row["text"].strip()) for row in documents
    ] == [
        ("a.mbox", 0, "text:Tides", "The café by the harbour floods twice a month."),
        ("a.mbox", 1, "text:Tides", "Only at spring tide."),
        ("b.mbox.gz", 0, "text:Dikes", "The café by the harbour floods twice a month."),
        ("b.mbox.gz", 1, "text:Dikes", "Only at spring tide."),
    ]
    assert [(row["origin"], row["record"], row["reason"], row["detail"]) for row in dropped] == [
        ("a.mbox", 2, "no-plain-text", "text/html"),
        ("b.mbox.gz", 2, "no-plain-text", "text/html"),
    ]


def test_key_holds_the_source_of_the_reader(tmp_path: Path) -> None:
    """The source file of a reader is in the key, so a changed reader reads the files again."""
    recipe = project(
        tmp_path, "def read(stream, origin):\n    yield 'one'\n", "reader_of_a_test_1:read"
    )
    assert [row["text"] for row in collected(recipe)[0]] == ["one", "one"]
    (tmp_path / "reader_of_a_test_2.py").write_text("def read(stream, origin):\n    yield origin\n")
    recipe.write_text(recipe.read_text().replace("test_1", "test_2"))
    assert [row["text"] for row in collected(recipe)[0]] == ["a.mbox", "b.mbox.gz"]


def test_conversations_keep_their_turns(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    code = f"def read(stream, origin):\n    yield {{'messages': {said}}}\n"
    documents, _ = collected(project(tmp_path, code, "reader_of_a_test_3:read", "conversations"))
    assert documents[0]["turns"] == said


@pytest.mark.parametrize(
    ("body", "reason", "detail"),
    [
        (
            "    yield 'fine'\n    raise ValueError('no such letter')\n",
            "malformed",
            "ValueError: no such letter",
        ),
        (
            "    yield 'fine'\n    raise SystemExit(0)\n",
            "malformed",
            "RuntimeError: the reader called sys.exit(0)",
        ),
        ("    yield 'fine'\n    yield 7\n", "no-text", "a int where an object was expected"),
        ("    yield 'fine'\n    yield {'title': 'x'}\n", "no-text", "no key of text"),
        ("    yield 'fine'\n    yield {'text': 'a' * 70_000_000}\n", "too-large", "bytes of text"),
    ],
)
def test_errors_cost_the_file(tmp_path: Path, body: str, reason: str, detail: str) -> None:
    """Records before an error are kept, and the next file is read."""
    name = f"reader_of_a_test_{abs(hash(body))}"
    documents, dropped = collected(
        project(tmp_path, f"def read(stream, origin):\n{body}", f"{name}:read")
    )
    assert [row["text"] for row in documents] == ["fine", "fine"]
    assert [(row["record"], row["reason"], detail in str(row["detail"])) for row in dropped] == [
        (1, reason, True)
    ] * 2


def test_missing_reader_or_package(tmp_path: Path) -> None:
    """A missing reader, or one that lacks a package, stops the run with one line."""
    recipe = project(
        tmp_path,
        "def read(stream, origin):\n    import no_such_package_of_a_test\n    yield ''\n",
        "reader_of_a_test_4:read",
    )
    with pytest.raises(
        GroundupError,
        match='reader "reader_of_a_test_4:read" needs something that is not installed: No module',
    ):
        collected(recipe)
    recipe.write_text(recipe.read_text().replace(":read", ":rad"))
    with pytest.raises(RecipeError, match='reader "reader_of_a_test_4:rad" cannot be imported'):
        collected(recipe)
    recipe.write_text(recipe.read_text().replace("reader_of_a_test_4:rad", "mailbox"))
    with pytest.raises(RecipeError, match='reader "mailbox" is not of the form'):
        load_recipe(recipe, ())
