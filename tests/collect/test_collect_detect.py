"""`init` puts each raw file of a mixture into exactly one sensible source."""

from __future__ import annotations

import json
import os
import shutil
import socket
import zipfile
from pathlib import Path

import pytest

from groundup.collect.detect import detect_kind
from groundup.collect.patterns import Patterns
from groundup.collect.sources import list_source
from groundup.collect.suggest import MAX_PATTERNS, SuggestedSource, suggest_sources
from groundup.commands.init import write_recipe
from groundup.errors import SourceError
from groundup.recipe import Source, load_recipe

WRAPPED = (
    "It was a bright morning in early spring when the old schoolmaster set\nout from the village"
    " with nothing in his pockets.\n" * 20 + "\n"
) * 20


@pytest.fixture
def mixture(tmp_path: Path) -> Path:
    """A folder with one sub-folder per kind, under names that do not say it, and loose files."""
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


def _listed(sources: list[SuggestedSource], root: Path) -> list[tuple[str, str]]:
    """Return path and kind of every file of every source, as list_source finds them."""
    return [
        (file.path.relative_to(root.resolve()).as_posix(), source.kind)
        for source in sources
        for file in list_source(
            Source(
                source.path,
                source.kind,
                source.name,
                include=source.include,
                exclude=source.exclude,
            ),
            root,
        ).files
    ]


def _files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_kinds(mixture: Path) -> None:
    """Contents decide, not names; a project is code whatever else is in it."""
    found = suggest_sources(mixture)
    kinds = dict(_listed(found.sources, mixture))
    assert {path.partition("/")[0]: kind for path, kind in kinds.items()} == {
        "one": "books",
        "two": "wikipedia",
        "three": "web",
        "four": "code",
        "five": "conversations",
        "six": "evaluation",
        "loose.txt": "text",
        "mixed": "web",
    }
    assert kinds["mixed/b.py"] == "code" and kinds["four/proj/test.html"] == "code"


def test_every_file_in_exactly_one_source(mixture: Path) -> None:
    """No file is left out or read twice; one that cannot be read is named with its reason."""
    found = suggest_sources(mixture)
    paths = sorted(path for path, _ in _listed(found.sources, mixture))
    assert paths == [path for path in _files(mixture) if path != "mixed/c.blob"]
    assert [(part.reason, part.example) for part in found.unread] == [
        ("binary files", "mixed/c.blob")
    ]
    assert len({source.name for source in found.sources}) == len(found.sources) == 7
    assert all(source.why and "\n" not in source.why for source in found.sources)
    assert sum(source.files for source in found.sources) == len(paths)


def test_many_folders_become_few_sources(tmp_path: Path) -> None:
    """Thirty small folders of three kinds are three sources of few patterns; a large one is one."""
    talk = json.dumps([{"messages": [{"role": "user", "content": "x"}]}])
    texts = {
        "web": ("page.html", "<html><body>x</body></html>"),
        "code": ("main.py", "import os\n"),
        "conversations": ("day.json", talk),
    }
    for kind, (name, text) in texts.items():
        for number in range(10):
            folder = tmp_path / f"{kind[::-1]}{number}"
            folder.mkdir()
            (folder / name).write_text(text)
    (tmp_path / "tales").mkdir()
    (tmp_path / "tales" / "a.txt").write_text(WRAPPED * 30)
    sources = suggest_sources(tmp_path).sources
    assert {source.path: source.kind for source in sources if source.path != "."} == {
        "tales": "books"
    }
    assert sorted((source.kind, *source.include) for source in sources) == [
        ("books",),
        ("code", "*.py"),
        ("conversations", "*.json"),
        ("web", "*.html"),
    ]


def test_files_that_no_pattern_tells_apart_go_together(tmp_path: Path) -> None:
    """Where each file would need a pattern of its own, one source takes what others cannot name."""
    talk = json.dumps([{"messages": [{"role": "user", "content": "x"}]}])
    for number in range(40):
        for part in ("a", "b"):
            folder = tmp_path / f"{number}" / part
            folder.mkdir(parents=True)
            is_talk = (number % 2 == 0) == (part == "a")
            (folder / "x.json").write_text(talk if is_talk else '{"text": "t"}')
            (folder / "y.html").write_text("<html><body>x</body></html>")
    sources = suggest_sources(tmp_path).sources
    assert sorted(path for path, _ in _listed(sources, tmp_path)) == _files(tmp_path)
    assert all(len(source.include) + len(source.exclude) <= MAX_PATTERNS for source in sources)


def test_evaluation_items_stay_apart_however_many_patterns_they_need(tmp_path: Path) -> None:
    """No evaluation item gets into a source of training text."""
    for number in range(60):
        folder = tmp_path / "raw" / f"{number}"
        folder.mkdir(parents=True)
        item = {"query": "a", "choices": ["b"], "gold": 0} if number % 3 == 0 else {"text": "t"}
        (folder / "x.jsonl").write_text(f"{json.dumps(item)}\n" * 3)
    kinds = dict(_listed(suggest_sources(tmp_path / "raw").sources, tmp_path / "raw"))
    assert len(kinds) == 60
    assert {path for path, kind in kinds.items() if kind == "evaluation"} == {
        f"{number}/x.jsonl" for number in range(0, 60, 3)
    }


def test_archives_are_read_by_one_source_only(tmp_path: Path) -> None:
    """A source opens every archive below its path, whatever it includes, unless it excludes it."""
    with zipfile.ZipFile(tmp_path / "pages.zip", "w") as archive:
        archive.writestr("a.html", "<html><body>x</body></html>")
        archive.writestr("b.py", "import os\n")
        archive.writestr("c.html", "<html><body>y</body></html>")
        archive.writestr("d.html", "<html><body>z</body></html>")
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("import os\n")
    kinds = _listed(suggest_sources(tmp_path).sources, tmp_path)
    assert sorted(kinds) == [("a.py", "code"), ("b.py", "code"), ("pages.zip", "web")]


def test_records_with_a_column_of_another_name(tmp_path: Path) -> None:
    """A source names the column with the prose; what twelve sources cannot hold is told."""
    prose = "It was a bright morning in early spring when they set out for the village."
    for number in range(20):
        row = {"id": f"x{number}", f"col{number}": prose}
        text = f"{json.dumps(row)}\n" * (number + 6)
        (tmp_path / f"{number:02}.jsonl").write_text(text)
    (tmp_path / "note.txt").write_text(prose)
    found = suggest_sources(tmp_path)
    columns = {source.column for source in found.sources}
    assert len(found.sources) <= 12 and {"", "col19", "col12"} <= columns
    assert sum(part.files for part in found.unread) + len(_listed(found.sources, tmp_path)) == 21
    write_recipe(tmp_path / "19.jsonl", tmp_path / "r.toml")
    assert [source.text for source in load_recipe(tmp_path / "r.toml").source] == ["col19"]


def test_columns_of_prose_that_are_not_read_are_named(tmp_path: Path) -> None:
    """A template may read them, too; addresses and numbers are no prose."""
    prose = "It was a bright morning in early spring when they set out for the village."
    row = {"url": "https://example.org/a/bright/morning", "note": prose, "n": "1 2 3 4"}
    for name, text in (("a", {"body": prose}), ("b", {"Remark": prose * 2})):
        (tmp_path / f"{name}.jsonl").write_text(f"{json.dumps(text | row)}\n" * 9)
    assert detect_kind(tmp_path / "a.jsonl").reason == "records with a text, not note"
    assert detect_kind(tmp_path / "b.jsonl").reason == "records with prose in Remark, not note"


def test_a_single_file_is_a_source(tmp_path: Path) -> None:
    """`init` takes a file as well as a folder, also under a name with glob characters."""
    (tmp_path / "a [1].txt").write_text("A few words.")
    (tmp_path / "b.txt").write_text("Others.")
    write_recipe(tmp_path / "a [1].txt", tmp_path / "r.toml")
    (source,) = load_recipe(tmp_path / "r.toml").source
    assert [file.origin for file in list_source(source, tmp_path).files] == ["a [1].txt"]


def test_empty_and_missing(tmp_path: Path) -> None:
    """A missing folder and a folder without files are one-line errors."""
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SourceError):
            suggest_sources(folder)


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
    """A folder of real data is one source of its kind, whatever its parent is called."""
    shutil.copytree(real_data / copied, tmp_path / "raw" / Path(copied).name)
    sources = suggest_sources(tmp_path / "raw").sources
    assert {source.kind for source in sources} == {kind}
    listed = _listed(sources, tmp_path / "raw")
    assert sorted(path for path, _ in listed) == _files(tmp_path / "raw")


@pytest.mark.parametrize("kind", ["books", "wikipedia", "web", "code", "conversations"])
def test_real_kinds(kind: str, real_data: Path) -> None:
    """Each folder of the real data is one source."""
    assert [source.kind for source in suggest_sources(real_data / kind).sources] == [kind]


def test_unread_files_are_reported(tmp_path: Path) -> None:
    """Unreadable formats are counted with advice, as are links; alone they make no recipe."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.bin").write_bytes(b"\0\1\2" * 99)
    (raw / "b.rar").write_bytes(b"Rar!\x1a\7")
    (raw / "c.csv").write_text("x,y\n1,2\n")
    (raw / "d.txt").touch()
    (raw / "e.zip").write_bytes(b"PK\x03\x04damaged")
    with pytest.raises(
        SourceError,
        match=(
            r"nothing in it can be read: 1 × RAR archives \(unpack first\); 1 × archives: damaged;"
            r" 1 × binary files; 1 × csv without a column of prose; 1 × empty files"
        ),
    ):
        write_recipe(raw, tmp_path / "r.toml")
    assert not (tmp_path / "r.toml").exists()
    (raw / "f.txt").write_text("A few words.")
    (raw / "README.md").write_text("About these.")
    os.mkfifo(raw / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(raw / "s"))
    (raw / "loop").symlink_to(raw)
    (raw / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    told = write_recipe(raw, tmp_path / "r.toml")
    for line in (
        "2 × plain text; 1 × notes and documentation",
        "5 not read",
        "1 files       0.0 MB  archives: damaged",
        "1 × link, 2 × special-file",
    ):
        assert line in told
    (source,) = load_recipe(tmp_path / "r.toml").source
    assert source.kind == "text" and len(list_source(source, tmp_path).refused) == 3


def test_evaluation_items_alone_make_no_recipe(tmp_path: Path) -> None:
    """Evaluation items are never trained on."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.jsonl").write_text('{"query": "a", "choices": ["b"], "gold": 0}\n' * 3)
    with pytest.raises(SourceError, match="evaluation items only"):
        write_recipe(tmp_path / "raw", tmp_path / "r.toml")


def test_urls_and_folder_names_decide(tmp_path: Path) -> None:
    """Records with a URL are from the web; known benchmarks are recognized by their folder."""
    records = {
        "dump": {"text": "x", "metadata": {"url": "http://a.org/"}},
        "extraction-benchmark": {"articleBody": "x", "url": "http://a.org/"},
        "gsm8k": {"question": "1 + 1?", "answer": "2"},
        "notebooks": {"text": "x"},
        "e-books": {"text": "x"},
    }
    kinds = {}
    for name, record in records.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.jsonl").write_text(f"{json.dumps(record)}\n" * 2)
        (kinds[name],) = (source.kind for source in suggest_sources(tmp_path / name).sources)
    assert list(kinds.values()) == ["web", "web", "evaluation", "text", "books"]


def test_web_pages_with_the_columns_of_fineweb_are_no_code(tmp_path: Path) -> None:
    """A `file_path` and a `language` are those of a dump and of a text, unless they name code."""
    page = {"text": "x", "url": "http://a.org/", "file_path": "s3://cc/1.warc.gz", "language": "en"}
    code = {"content": "x", "path": "src/a.rs", "license": "mit", "ext": "rs"}
    for name, record in {"pages": page, "files": code}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.jsonl").write_text(f"{json.dumps(record)}\n" * 2)
    kinds = [source.kind for source in suggest_sources(tmp_path).sources]
    assert kinds == ["code", "web"]


def test_what_cannot_be_told_apart_is_small() -> None:
    """Without room for all patterns the one with most files comes first, or with most bytes."""
    sizes = {"notes/a.txt": 1, "x/1.json": 1, "x/2.json": 1, "dump/all.xml": 1_000_000}
    patterns, others = Patterns("", sizes), {name for name in sizes if name != "notes/a.txt"}
    assert patterns.cover(others, {"notes/a.txt"}, 1).left == {"dump/all.xml"}
    kept = patterns.cover(others, {"notes/a.txt"}, 1, by_size=True)
    assert kept.left == {"x/1.json", "x/2.json"}
    assert patterns.named(kept.patterns) == {"dump/all.xml"}


def test_patterns_that_add_the_same_are_taken_by_length_and_alphabet() -> None:
    """So a recipe does not depend on the order of a listing; each adds most to the former ones."""
    names = [*(f"b/{n}.txt" for n in range(3)), *(f"a/{n}.md" for n in range(3)), "c/x/0.md"]
    for order in (names, names[::-1]):
        patterns = Patterns("", dict.fromkeys([*order, "a/0.json"], 1))
        cover = patterns.cover(names, {"a/0.json"}, 2)
        assert cover == (["*.md", "b"], set(), [])
        assert patterns.cover(names[:6], {"c/x/0.md"}, 1).patterns == ["a"]
