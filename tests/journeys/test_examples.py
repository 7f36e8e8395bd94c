"""Recipes inside the package, in a checkout and in an installed wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from groundup.cli import cli
from groundup.commands.init import examples
from groundup.errors import RecipeError
from groundup.recipe import load_recipe

PROJECT = Path(__file__).parents[2]


def test_every_example_is_a_recipe() -> None:
    assert {"starter", "base-300m", "base-500m"} <= examples().keys()
    for path in examples().values():
        assert load_recipe(path).source


def test_an_example_is_written_and_never_over_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["init", "--example", "starter"])
    assert done.exit_code == 0 and "groundup run recipe.toml" in done.output
    assert Path("recipe.toml").read_bytes() == (PROJECT / "recipes/starter.toml").read_bytes()
    again = CliRunner().invoke(cli, ["init", "--example", "starter"])
    assert isinstance(again.exception, RecipeError) and "--force" in str(again.exception)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--example", "other"], "starter"),
        ([], "--example"),
        (["raw", "--example", "starter"], "one of the two"),
    ],
)
def test_what_is_asked_wrong_is_one_line(arguments: list[str], told: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "groundup", "init", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode and told in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_the_wheel_holds_the_recipes(tmp_path: Path) -> None:
    """A wheel, unpacked elsewhere, finds its examples without the checkout."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import groundup;"
        "from groundup.commands.init import examples; print(*examples())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["base-300m", "base-500m", "starter"]
