"""`init` looks at a mixture of raw files and puts each of them into exactly one sensible source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from groundup.collect.detect import Found, survey
from groundup.collect.places import list_source
from groundup.errors import SourceError
from groundup.source import Source

WRAPPED = (
    "It was a bright morning in early spring when the old schoolmaster set\nout from the village with nothing in his pockets.\n" * 20 + "\n"
) * 20


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    """A folder with one sub-folder a kind, no name of which says its kind, and a few loose files."""
    files = {
        "one/tale.txt": "*** START OF THE PROJECT GUTENBERG EBOOK X ***\n" + WRAPPED,
        "one/other.txt": WRAPPED,
        "two/dump.xml": '<mediawiki xmlns="x"><page><title>A</title></page></mediawiki>',
        "three/site/a.html": "<!doctype html><html><body>x</body></html>",
        "three/site/b.htm": "<html><body>x</body></html>",
        "four/proj/LICENSE": "MIT License",
        "four/proj/src/main.py": "print('hello')\n",
        "four/proj/src/util.py": "x = 1\n",
        "four/proj/test.html": "<html></html>",
        "four/proj/data.json": json.dumps([{"messages": [{"role": "user", "content": "x"}]}]),
        "five/chat.jsonl": '{"messages": [{"role": "user", "content": "Hi"}]}\n' * 3,
        "five/log.txt": "[10:00] <a> hi\n[10:01] <b> hello\n" * 5,
        "six/lambada_test.jsonl": '{"text": "the last word"}\n' * 3,
        "six/hella.jsonl": '{"query": "a", "choices": ["b"], "gold": 0}\n' * 3,
        "mixed/a.html": "<html><body>x</body></html>",
        "mixed/b.py": "import os\n",
        "mixed/c.blob": "\0\1\2",
        "loose.txt": "just a note",
    }
    for name, text in files.items():
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "raw"


def _places(found: list[Found], root: Path) -> list[Path]:
    """Return every file of every source, as list_source finds them by what `init` writes down."""
    return [
        file.path
        for one in found
        for file in list_source(Source(path=one.path, kind=one.kind, name=one.name, include=one.include), root).files
    ]


def test_kinds(mixture: Path) -> None:
    """Contents decide, not names; a project is code whatever else lies in it."""
    kinds = {one.path: one.kind for one in survey(mixture)}
    assert kinds["one"] == "books"
    assert kinds["two"] == "wikipedia"
    assert kinds["three"] == "web"
    assert kinds["four/proj"] == "code"
    assert kinds["five"] == "conversations"
    assert kinds["six"] == "evaluation"
    assert kinds["*"] == "text"


def test_every_file_in_exactly_one_source(mixture: Path) -> None:
    """Nothing is left out and nothing is read twice, also where one folder is divided by suffix."""
    found = survey(mixture)
    places = _places(found, mixture)
    assert sorted(places) == sorted(path.resolve() for path in mixture.rglob("*") if path.is_file())
    assert {one.kind for one in found if one.path == "mixed/*"} == {"web", "code"}
    assert len({one.name for one in found}) == len(found)
    assert all(one.why and "\n" not in one.why for one in found)
    assert sum(one.files for one in found) == len(places)


def test_empty_and_missing(tmp_path: Path) -> None:
    """No folder and no file are one line each."""
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SourceError):
            survey(folder)


@pytest.mark.parametrize(
    ("copied", "kind"),
    [
        ("books/gitenberg", "books"),
        ("books/gutenberg/Plato", "books"),
        ("wikipedia/minidumps", "wikipedia"),
        ("wikipedia/wikitext-pages", "wikipedia"),
        ("web/html", "web"),
        ("web/warc", "web"),
        ("code/pypi", "code"),
        ("code/npm", "code"),
        ("code/debian", "code"),
        ("conversations/oasst", "conversations"),
        ("conversations/instruct", "conversations"),
        ("conversations/chatterbot_corpus", "conversations"),
        ("conversations/ubuntu_irc", "conversations"),
        ("conversations/crosswoz", "conversations"),
        ("evals/lambada", "evaluation"),
        ("evals/arc_easy", "evaluation"),
    ],
)
def test_real_folders(copied: str, kind: str, real_data: Path, tmp_path: Path) -> None:
    """A folder of real data is one source of its kind, whatever the folder above it is called."""
    shutil.copytree(real_data / copied, tmp_path / "raw" / Path(copied).name)
    found = survey(tmp_path / "raw")
    assert {one.kind for one in found} == {kind}
    assert len(_places(found, tmp_path / "raw")) == sum(path.is_file() for path in (tmp_path / "raw").rglob("*"))


@pytest.mark.parametrize("kind", ["books", "wikipedia", "web", "code", "conversations"])
def test_real_kinds(kind: str, real_data: Path) -> None:
    """Each folder of the real data is one source."""
    assert [one.kind for one in survey(real_data / kind)] == [kind]
