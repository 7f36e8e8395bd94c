"""The stage: what is built, reused and listed; the number of workers changes nothing."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from groundup.artifacts import questions
from groundup.artifacts.document import DOCUMENT, DROPPED, document_id
from groundup.artifacts.forgotten import Forgotten, ForgottenDocument
from groundup.artifacts.questions import LastWord, Question
from groundup.collect import results, shard, sources, stage
from groundup.collect.shard import collect_shard
from groundup.collect.sources import Digests, HashedFile, RawFile
from groundup.errors import SourceError
from groundup.recipe import Evaluate, Recipe, Source
from groundup.runtime.run import Run
from groundup.runtime.workers.map import Workers

# What the readers make of the files below, by version of the stage. When this test fails because a
# reader's output changed, raise shard.VERSION and put the new digest here; without that, old shards
# would be taken for new ones. Main text of web pages is that of libraries, whose releases change
# it, and is left out.
GOLDEN = {24: "2835a1ad458c5ad7c605f7ee014b7ab70cb6a6f94725e0930230e09f457989f3"}
FILES = {
    "books/b.txt": (
        "Title: A Tale\nAuthor: Jane Doe\n*** START OF THE PROJECT GUTENBERG EBOOK A TALE ***\nOnce"
        " _upon_ a time.\n\nThe end.\n*** END OF THE PROJECT GUTENBERG EBOOK A TALE ***\nlicence\n"
    ),
    "books/latin.txt": "Un été à la mer, où l'on vécut très bien jusqu'à la fin des beaux jours.",
    "wikipedia/d.xml": (
        "<mediawiki><page><title>A</title><ns>0</ns><revision><text>'''A''' is a"
        " [[letter]].{{x}}\n== B ==\n*"
        " c</text></revision></page><page><title>R</title><ns>0</ns><redirect"
        ' title="A"/><revision><text>#REDIRECT [[A]]</text></revision></page></mediawiki>'
    ),
    "code/p/LICENSE": "MIT License",
    "code/p/a.py": "x = 1\n",
    "code/p/a.min.js": "x",
    "conversations/c.jsonl": (
        '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content":'
        ' "Hello"}]}\nbroken\n'
    ),
    "text/t.csv": "id,text\n1,one\n2,two\n",
    "evaluation/e.jsonl": '{"query": "q", "choices": ["a", "b"], "gold": 0}\n',
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Raw files of six kinds, old enough for their digests to be remembered."""
    for name, text in FILES.items():
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1" if "latin" in name else "utf-8"))
        os.utime(path, (1_500_000_000, 1_500_000_000))
    return tmp_path


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat the inodes, which are a minute old, as settled."""
    monkeypatch.setattr(sources, "SETTLED_SECONDS", -1e9)


def _recipe(project: Path, *sources: Source) -> Recipe:
    kinds = sorted({name.partition("/")[0] for name in FILES})
    return Recipe(
        source=sources
        or tuple(Source(path=f"raw/{kind}", kind=kind, license="L") for kind in kinds),
        root=project,
    )


def _run(project: Path, recipe: Recipe, workers: int = 1, out: str = "run") -> Run:
    pool = Workers(workers)
    run = Run(project / out, recipe, pool)
    run.root.mkdir(exist_ok=True)
    try:
        stage.run(run)
    finally:
        pool.close()
    return run


def _rows(run: Run, table: str) -> list[dict[str, object]]:
    return [
        row
        for path in sorted((run.root / "collect" / table).glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]


def _bytes(run: Run) -> dict[str, str]:
    view = run.store.view("collect")
    assert view is not None
    return {name: entry["sha256"] for name, entry in view.manifest["files"].items()}


def test_golden(project: Path) -> None:
    """The output of readers changes only together with the version of the step."""
    run = _run(project, _recipe(project))
    rows = [_rows(run, "documents"), _rows(run, "dropped")]
    digest = hashlib.sha256(
        json.dumps(rows, sort_keys=True, ensure_ascii=False).encode()
    ).hexdigest()
    assert GOLDEN.get(shard.VERSION) == digest


def test_tables(project: Path) -> None:
    """Both tables have their schemas and ids; every file is kept or listed."""
    run = _run(project, _recipe(project))
    for path in (run.root / "collect").rglob("*.parquet"):
        assert pq.read_schema(path).equals(DOCUMENT if path.parent.name == "documents" else DROPPED)
    documents, dropped = _rows(run, "documents"), _rows(run, "dropped")
    assert {f"{row['source']}/{row['origin']}" for row in documents + dropped} == set(FILES)
    assert all(
        row["id"] == document_id(str(row["source"]), str(row["origin"]), int(str(row["record"])))
        for row in documents
    )
    by_origin = {row["origin"]: row for row in documents}
    assert (
        by_origin["b.txt"]["text"] == "Once upon a time.\n\nThe end."
        and by_origin["b.txt"]["group"] == "books:a tale|doe jane"
    )
    assert "très" in str(by_origin["latin.txt"]["text"])
    assert (
        by_origin["p/a.py"]["license"],
        by_origin["p/a.py"]["group"],
        by_origin["t.csv"]["license"],
    ) == ("MIT", "code:p", "L")
    assert {row["reason"] for row in dropped} == {
        "redirect",
        "minified",
        "malformed",
        "license-file",
    }


def test_facts_of_main_text(project: Path) -> None:
    """The facts count visible and kept characters of pages, and list where little was kept."""
    sentence = "The harvest had been late that year, and nobody had expected so little."
    prose = "".join(f"<p>{number}. {sentence}</p>" for number in range(5))
    menu = "<nav>" + "<a href=/x>One of many links</a> " * 100 + "</nav>"
    (project / "pages").mkdir()
    for name, rest in (("a.html", ""), ("b.html", menu)):
        (project / "pages" / name).write_text(
            f"<html><body>{rest}<article>{prose}</article></body></html>"
        )
    run = _run(project, _recipe(project, Source(path="pages", kind="web", name="pages")))
    view = run.store.view("collect")
    assert view is not None
    artifacts = [run.store.artifact(entry) for entry in view.manifest["artefacts"]]
    facts = [a.facts["main_text"] for a in artifacts if a is not None and "main_text" in a.facts]
    assert sum(f["pages"] for f in facts) == 2 and sum(f["mostly_left_out"] for f in facts) == 1
    ((origin, record, share),) = [page for f in facts for page in f["least_kept"]]
    kept = sum(f["kept"] for f in facts)
    assert (origin, record) == ("b.html", 0) and 0 < share < results.LOW_SHARE
    assert kept < sum(f["visible"] for f in facts)


def test_same_bytes_whoever_works(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes in another folder give the same bytes as one process."""
    monkeypatch.setattr(shard, "FILES_PER_SHARD", 1)
    first = _run(project, _recipe(project))
    moved = project.rename(project.with_name("elsewhere"))
    second = _run(moved, _recipe(moved), workers=2, out="other")
    assert _bytes(Run(moved / "run", first.recipe)) == _bytes(second)


def test_only_what_changed_is_built_again(project: Path) -> None:
    """A changed file or setting rebuilds its own shards; weights and paths rebuild none."""
    recipe = _recipe(project)
    assert _run(project, recipe).built == 6
    assert _run(project, recipe).built == 0
    (project / "raw/text/t.csv").write_text("id,text\n1,one\n2,tw0\n")
    assert _run(project, recipe).built == 1
    heavier = [
        Source(path=s.path, kind=s.kind, license=s.license, weight=2.0) for s in recipe.source
    ]
    assert _run(project, _recipe(project, *heavier)).built == 0
    other = [
        Source(path=s.path, kind=s.kind, license="M" if s.kind == "text" else "L")
        for s in recipe.source
    ]
    assert _run(project, _recipe(project, *other)).built == 1


def test_license_enters_the_key(project: Path) -> None:
    """The license is in a file of its own; when that file changes, the shard is built again."""
    recipe = _recipe(project, Source(path="raw/code", kind="code"))
    _run(project, recipe)
    (project / "raw/code/p/LICENSE").write_text("Apache License\nVersion 2.0")
    run = _run(project, recipe)
    assert {row["license"] for row in _rows(run, "documents")} == {"Apache-2.0"}


def test_refused_files_are_listed(project: Path) -> None:
    """Files that are never opened are listed as dropped, until they are gone."""
    os.mkfifo(project / "raw/text/pipe")
    recipe = _recipe(project, Source(path="raw/text"))
    assert [(row["origin"], row["reason"]) for row in _rows(_run(project, recipe), "dropped")] == [
        ("pipe", "special-file")
    ]
    (project / "raw/text/pipe").unlink()
    assert _rows(_run(project, recipe), "dropped") == []


def test_wrong_kinds(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A source without documents is a warning; if all are, it is an error."""
    page = project / "raw/page/x.html"
    page.parent.mkdir()
    page.write_text("<html><body>x</body></html>")
    wrong = Source(path="raw/page", kind="books", name="wrong")
    run = _run(project, _recipe(project, wrong, Source(path="raw/text")))
    assert (
        'source "wrong": no document of kind books; seen: 1 wrong-kind' in capsys.readouterr().err
    )
    assert [row["detail"] for row in _rows(run, "dropped")] == ["html in a source of books"]
    with pytest.raises(SourceError, match="1 wrong-kind"):
        _run(project, _recipe(project, wrong), out="alone")


def test_include_reaches_into_archives(project: Path) -> None:
    """Patterns select members; an archive without any selected member is listed."""
    import zipfile

    with zipfile.ZipFile(project / "raw/text/z.zip", "w") as archive:
        archive.writestr("d/a.txt", "kept")
        archive.writestr("d/b.md", "left out")
    rows = _rows(
        _run(project, _recipe(project, Source(path="raw/text", include=("*.txt",)))), "documents"
    )
    assert [(row["origin"], row["text"]) for row in rows] == [("z.zip!/d/a.txt", "kept")]
    with pytest.raises(SourceError, match="1 nothing-selected"):
        _run(project, _recipe(project, Source(path="raw/text", include=("*.rst",))), out="none")


def _known(path: Path) -> HashedFile:
    (known,), failed = Digests(path.parent / "raw.json").hash_files(
        [RawFile(path.name, path, path.stat().st_size)]
    )
    assert not failed
    return known


@pytest.mark.parametrize("how", ["changes", "vanishes", "is replaced"])
def test_a_file_that_changes_is_never_silent(tmp_path: Path, how: str) -> None:
    """The bytes that are read are the bytes that were hashed, or the shard fails with one line."""
    path = tmp_path / "a.txt"
    path.write_text("before")
    known = _known(path)
    if how == "vanishes":
        path.unlink()
    elif how == "changes":
        path.write_text("after!")
        os.utime(path, ns=(known.fingerprint[1] + 1, known.fingerprint[1] + 1))
    else:
        path.rename(tmp_path / "old")
        path.write_text("before")
    with pytest.raises(SourceError, match="changed or vanished") as caught:
        collect_shard(tmp_path, [known], Source(path="x"))
    assert "\n" not in str(caught.value)


def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change during reading is noticed after it, also when the clock hides it."""
    path = tmp_path / "a.txt"
    path.write_text("before")
    monkeypatch.setattr(sources, "SETTLED_SECONDS", 1e9)
    known = _known(path)
    assert not known.settled
    hidden = HashedFile(
        known.file, hashlib.sha256(b"other").hexdigest(), known.fingerprint, settled=False
    )
    with pytest.raises(SourceError, match="changed or vanished"):
        collect_shard(tmp_path, [hidden], Source(path="x"))


def test_digests_are_remembered_for_settled_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A young file is hashed again by the next run; an old one only after it changed."""
    path = tmp_path / "a.txt"
    path.write_text("x")
    file = RawFile("a.txt", path, 1)
    monkeypatch.setattr(sources, "SETTLED_SECONDS", 2.0)
    young = Digests(tmp_path / "raw.json")
    young.hash_files([file])
    assert young.entries == {}
    monkeypatch.setattr(time, "time", lambda: path.stat().st_ctime + 10)
    old = Digests(tmp_path / "raw.json")
    old.hash_files([file])
    old.save()
    monkeypatch.setattr(sources, "file_digest", lambda path: pytest.fail("hashed again"))
    assert (
        Digests.load(tmp_path / "raw.json").hash_files([file])[0][0].sha256
        == hashlib.sha256(b"x").hexdigest()
    )


def test_truncated_archive_in_a_run(project: Path) -> None:
    """A truncated file costs only itself."""
    whole = gzip.compress(os.urandom(5000))
    (project / "raw/text/cut.txt.gz").write_bytes(whole[:-500])
    run = _run(project, _recipe(project, Source(path="raw/text")))
    assert [row["origin"] for row in _rows(run, "dropped")] == ["cut.txt.gz"]
    assert len(_rows(run, "documents")) == 2


def test_no_registry_is_named() -> None:
    """The package index is pip's; its host is named nowhere in this package."""
    host = re.compile("py" + r"pi\.org|python" + "hosted")
    assert not [
        path.name
        for path in Path(stage.__file__).parent.glob("*.py")
        if host.search(path.read_text())
    ]


def test_a_renamed_source_is_noticed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its files; the line names both names, the cost, and what avoids it."""
    books, text = Source("raw/books", "books"), Source("raw/text", "text")
    _run(project, _recipe(project, books, text))
    (project / "raw/books/new.txt").write_text("A new book.")
    novels = Source("raw/books", "books", name="novels")
    _run(project, _recipe(project, novels, text))
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "renamed" in x]
    assert 'source "novels" seems to be "books" renamed (2 of 3 files are the same)' in line
    assert "trained again from step 0" in line and 'name = "books" in the recipe avoids' in line
    # A further source of the same files, or one of others, is no renamed one.
    _run(project, _recipe(project, novels, text, Source("raw/books", "books", name="again")))
    _run(project, _recipe(project, novels, Source("raw/code", "code")))
    assert "renamed" not in capsys.readouterr().err


def test_a_renamed_source_brings_nothing_back_that_was_forgotten(project: Path) -> None:
    """The record of the same raw file stays out; in another file its number means nothing."""
    recipe = _recipe(project, Source("raw/books", "books"))
    run = _run(project, recipe)
    (row,) = [row for row in _rows(run, "documents") if row["origin"] == "b.txt"]
    raw = hashlib.sha256((project / "raw/books/b.txt").read_bytes()).hexdigest()
    entry = ForgottenDocument(str(row["id"]), "books", "b.txt", int(str(row["record"])), raw=raw)
    Forgotten((entry,)).save(run.root)
    renamed = _recipe(project, Source("raw/books", "books", name="novels"))
    for wanted in (recipe, renamed):
        run = _run(project, wanted)
        assert [row["origin"] for row in _rows(run, "documents")] == ["latin.txt"]
        assert [row["reason"] for row in _rows(run, "dropped")] == ["forgotten"]
    (project / "raw/books/b.txt").write_text("Another text that has this name now.")
    run = _run(project, renamed)
    assert [row["origin"] for row in _rows(run, "documents")] == ["b.txt", "latin.txt"]


@pytest.mark.parametrize("named", [False, True])
def test_evaluation_items_that_cannot_be_read_stop_the_run(project: Path, named: bool) -> None:
    """Protects: nothing is compared with them, so "no leak" would be untrue without a word."""
    (project / "exam.tsv").write_text("Is water wet?\tyes\nIs fire cold?\tno\nIs it?\tno\n")
    recipe = _recipe(project, Source("raw/text", "text"))
    if named:
        sources = (*recipe.source, Source("exam.tsv", "evaluation", "exam"))
        recipe = dataclasses.replace(recipe, source=sources)
    else:
        recipe = dataclasses.replace(recipe, evaluate=Evaluate(benchmarks=("exam.tsv",)))
    with pytest.raises(SourceError, match=r'"exam": exam\.tsv holds no .* \(2 without'):
        _run(project, recipe)


def test_evaluation_items_without_text_are_counted(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "exam.jsonl").write_text('{"query": "Is it?", "choices": ["a", "b"]}\n{"x": 1}\n')
    sources = (Source("raw/text", "text"), Source("exam.jsonl", "evaluation", "exam"))
    _run(project, _recipe(project, *sources))
    assert 'source "exam": 1 evaluation items are in no known layout' in capsys.readouterr().err


def test_a_new_layout_is_read_without_redo(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One registry serves collect and evaluate, and its layouts are in the key of such shards."""

    class Cloze(LastWord):
        def parse(self, row: Mapping[str, object]) -> Question | None:
            return Question(str(row["gap"]), ("wet",)) if "gap" in row else None

    (project / "exam.jsonl").write_text('{"gap": "Water is"}\n{"query": "Is it?"}\n')
    recipe = _recipe(
        project, Source("raw/text", "text"), Source("exam.jsonl", "evaluation", "exam")
    )
    _run(project, recipe)
    monkeypatch.setitem(questions.LAYOUTS, "cloze", Cloze())
    rows = _rows(_run(project, recipe), "documents")
    assert [row["text"] for row in rows if row["source"] == "exam"] == ["Water is\nwet", "Is it?"]
