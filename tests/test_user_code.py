"""Functions of the user in one Python process that runs recipes more than once."""

import sys
from pathlib import Path

from groundup.runtime.user_code import code_digest, load_function

NAME = "reader_of_a_recipe:read"


def _write(folder: Path, answer: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "reader_of_a_recipe.py").write_text(f"def read():\n    return {answer!r}\n")


def test_a_function_that_changed_is_imported_again(tmp_path: Path) -> None:
    """Protects: what the old function makes would be stored under the digest of the new one."""
    _write(tmp_path, "one")
    first = load_function(NAME, tmp_path, "reader")
    digest = code_digest(NAME, tmp_path, "reader")
    assert load_function(NAME, tmp_path, "reader") is first
    _write(tmp_path, "second")
    assert load_function(NAME, tmp_path, "reader")() == "second"
    assert code_digest(NAME, tmp_path, "reader") != digest


def test_a_recipe_has_the_modules_of_its_own_folder(tmp_path: Path) -> None:
    """Protects: another recipe's module of the same name was called, without a word."""
    for answer in ("a", "b", "a"):
        _write(tmp_path / answer, answer)
        assert load_function(NAME, tmp_path / answer, "reader")() == answer
    assert str(tmp_path / "b") not in sys.path
