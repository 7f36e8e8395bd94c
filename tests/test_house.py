"""The map of the package: layers of imports, one package for each public class, sizes."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest
from benchmarks.house import COLUMNS, PACKAGE, Tree, circles, imports, room, upward

from groundup.runtime.progress import echo, say

FILES = sorted(PACKAGE.rglob("*.py"))


def test_imports_go_down_the_layers_and_never_in_a_circle() -> None:
    edges = imports()
    assert not upward(edges)
    assert not circles(edges)


def test_an_upward_import_and_a_circle_are_seen() -> None:
    """The checks can fail: between layers, between stages, within a room."""
    assert upward([("x:1", "groundup.model.config", "groundup.train.stage")])
    assert upward([("x:1", "groundup.export.hf", "groundup.report.card")])
    assert upward([("x:1", "groundup.elsewhere", "groundup.errors")])
    assert not upward([("x:1", "groundup.tune.stage", "groundup.train.optimizer")])
    there, back = (
        ("x:1", "groundup.model.a", "groundup.model.b"),
        ("y:1", "groundup.model.b", "groundup.model.a"),
    )
    assert circles([there, back]) == [["groundup.model.a", "groundup.model.b"]]
    assert not circles([there])


def test_a_public_class_is_defined_in_one_package_only() -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for path in FILES:
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].add(room(module))
    assert {name: sorted(rooms) for name, rooms in places.items() if len(rooms) > 1} == {}


def test_imports_are_absolute() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path


def test_files_stay_small_and_few() -> None:
    tree = Tree()
    for path in FILES:
        tree.add(path)
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 500, path
    assert tree.files <= 5.6 * tree.lines / 1000
    assert tree.wide == 0, f"lines over {COLUMNS} columns"


def test_a_tree_is_counted_as_defined(tmp_path: Path) -> None:
    """A tree is counted by definition: names once beside their definition, long lines, lengths."""
    used = 'def used() -> None:\n    """Do."""\n    # Why.\n'
    source = used + '\n\ndef caller() -> None:\n    """Do."""\n    used()\n'
    (tmp_path / "a.py").write_text(source)
    tree = Tree()
    tree.add(tmp_path / "a.py")
    assert (tree.files, tree.lines, tree.comments, tree.lengths) == (1, 8, 1, [2, 3])
    assert tree.named_once() == 0.5


# The exit of a child process of the export, whose lines our own code reads.
WRITERS = {"runtime/progress.py", "export/llama_worker.py"}


def writes(path: Path) -> list[str]:
    """Return the lines of a file that write to the terminal, or name what does."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [
        f"{path}:{node.lineno}"
        for node in nodes
        if (isinstance(node, ast.Name) and node.id == "print")
        or (
            isinstance(node, ast.Attribute)
            and node.attr in ("echo", "secho", "write", "writelines", "buffer")
            and ast.unparse(node.value).split(".")[-1] in ("click", "tqdm", "stdout", "stderr")
        )
    ]


def test_one_module_writes_to_the_terminal() -> None:
    """It takes control sequences of documents, file names and models out."""
    paths = [p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).as_posix() not in WRITERS]
    assert [line for path in sorted(paths) for line in writes(path)] == []


def test_text_of_others_reaches_the_terminal_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[2J\x07\x08\r\x9b31m\u202eb\u2066\udcff\x7f"
    echo(f"{hostile}\tc\nd é 語")
    say(hostile)
    shown = capsys.readouterr()
    cleaned = "a?[2J????31m?b???\tc\nd é 語\n".replace("?", "\ufffd")
    assert shown.out == cleaned
    assert shown.err.count("\ufffd") == 9 and "\x1b" not in shown.err
