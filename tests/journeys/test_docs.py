"""The docs are true: commands and settings exist, links lead somewhere, examples run."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
from benchmarks import readme
from scripts import recipe_page
from tests.helpers.raw import write_books

import groundup
from groundup.artifacts.document import DOCUMENT
from groundup.cli import cli
from groundup.flow import run_flow
from groundup.model.config import PRESETS
from groundup.recipe import KINDS, TUNING, Train, load_recipe, recipe_from
from groundup.refine.filter.apply import check_filters
from groundup.refine.filter.rules import RULE_SETS
from groundup.train import setup as train_plan

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELLS = ("console", "sh", "shell", "bash")


def names(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


def blocks(page: Path, *languages: str) -> list[str]:
    return [
        body
        for language, body in FENCE.findall(page.read_text(encoding="utf-8"))
        if language in languages
    ]


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of every `groundup` line of a page, in a fence or indented by four."""
    text = page.read_text(encoding="utf-8")
    indented = re.findall(r"^ {4}(\S.*)$", FENCE.sub("", text), re.MULTILINE)
    fenced = [
        line for body in blocks(page, *SHELLS) for line in body.replace("\\\n", " ").splitlines()
    ]
    for line in [*fenced, *indented]:
        line = line.strip().removeprefix("$ ")
        if re.match(r"(\.venv/bin/)?groundup\s", line):
            yield shlex.split(line, comments=True)[1:]


def test_the_finder_of_commands_finds_them(tmp_path: Path) -> None:
    """Else the test of all pages could not fail."""
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\n$ groundup run x.toml \\\n  --until train  # why\n```\n\n    .venv/bin/groundup"
        " verify runs/x\n\n    groundupper x\n"
    )
    assert list(commands(page)) == [["run", "x.toml", "--until", "train"], ["verify", "runs/x"]]
    for wrong in (
        ["run", "x.toml", "--untli", "train"],
        ["inspect"],
        ["sample", "x", "y", "--tokens", "many"],
        ["rnu", "x"],
        ["data", "exprot", "x"],
    ):
        with pytest.raises((click.UsageError, KeyError)):
            check(wrong)


def check(words: list[str]) -> None:
    """Parse a command line as click would, without running it."""
    if words[0].startswith("-"):
        cli.make_context("groundup", words, resilient_parsing=True)
    else:
        group: click.Group = cli
        while isinstance(command := group.commands[words[0]], click.Group):
            group, words = command, words[1:]
        command.make_context(words[0], words[1:])


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_command_is_one_that_groundup_knows(page: Path) -> None:
    for words in commands(page):
        try:
            check(words)
        except (click.UsageError, KeyError) as error:
            pytest.fail(f"{page.name}: groundup {shlex.join(words)}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_setting_is_one_that_recipes_know(page: Path, tmp_path: Path) -> None:
    """Tables of recipes and `--set` alike."""
    (tmp_path / "one.toml").write_text('[[source]]\npath = "x"\nkind = "conversations"\n')
    for body in blocks(page, "toml"):
        table = tomllib.loads(body)
        named = table.get("tune", {}).get("sources", ["talk"])
        sources = [{"name": name, "path": "x", "kind": "conversations"} for name in named]
        recipe = recipe_from({"source": sources} | table, page.name, tmp_path)
        check_filters(recipe.refine.filters, recipe.refine.thresholds)
    for words in commands(page):
        # `tune` sets what stands in its own table.
        prefix = "tune." if words[0] == "tune" else ""
        load_recipe(
            tmp_path / "one.toml",
            [prefix + value for option, value in pairwise(words) if option == "--set"],
        )


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(
        r"<(?:img|a|source)\b[^>]*?(?:src|srcset|href)=\"([^\"]+)\"", text
    )
    for link in found:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


def headings(page: Path) -> set[str]:
    """Return the anchors of a page as GitHub names them."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "name", ["data", "duplicates", "lineage", "training", "training-reference"]
)
def test_a_page_begins_with_a_command_for_the_starter_run(name: str) -> None:
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    first = blocks(ROOT / "docs" / f"{name}.md", *SHELLS)[0]
    assert first.startswith("groundup ") and "runs/starter" in first
    assert text.index("```console") < text.index("\n## ")


def test_the_site_lists_every_page() -> None:
    """`make site` fails on a page that its index does not name."""
    listed = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines()
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"} <= set(listed)


def first_column(page: str, header: str) -> list[str]:
    """Return the code words in the first column of the table whose header begins so."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = text[text.index(f"| {header} |") :].split("\n\n")[0].splitlines()[2:]
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_tables_name_what_the_code_has(tiny_run: Path) -> None:
    """Kinds, rule sets, presets, settings and figures come and go; these pages must follow."""
    assert first_column("sources.md", "kind") == [*KINDS, TUNING]
    assert set(first_column("filters.md", "rule set")) == set(RULE_SETS)
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert f'"auto"          # {", ".join(PRESETS)};' in text
    assert set(first_column("training-reference.md", "setting")) == {
        name for name, kind in inspect.get_annotations(Train).items() if "auto" in kind.lower()
    }
    lines = [
        json.loads(line) for line in (tiny_run / "train" / "metrics.jsonl").read_text().splitlines()
    ]
    # `mfu` is there on GPUs with a data sheet only.
    assert set(first_column("training-reference.md", "key")) == {"mfu"} | {
        key.partition(".")[0] for line in lines for key in line
    }


def test_rules_of_thumb_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert "at four passes" in text and train_plan.EPOCHS == 4
    assert "twenty tokens a parameter" in text and train_plan.TOKENS_PER_PARAMETER == 20
    assert "five minutes on a CPU" in text and train_plan.CPU_SECONDS == 300


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A recipe that uses the filter of docs/own-code.md as it stands there, with a book that calls
    itself a draft.
    """
    page = ROOT / "docs" / "own-code.md"
    code = next(body for body in blocks(page, "python") if body.startswith("# my_filters.py"))
    settings = next(body for body in blocks(page, "toml") if "my_filters" in body)
    write_books(tmp_path / "raw", count=4)
    (tmp_path / "my_filters.py").write_text(code)
    book = tmp_path / "raw" / "book00.txt"
    marked = book.read_text(encoding="utf-8").replace(
        "EBOOK REFERENCE 0 ***", "EBOOK REFERENCE 0 ***\n\nThis is a DRAFT of the book.", 1
    )
    book.write_text(marked, encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(f'[[source]]\nkind = "books"\npath = "raw"\n{settings}')
    return tmp_path / "recipe.toml"


def dropped(recipe: Path) -> list[tuple[str, str, float]]:
    run_flow(load_recipe(recipe), recipe.parent / "run", until="refine", workers=1)
    rows: list[dict[str, Any]] = (
        groundup.open_run(recipe.parent / "run").dropped("refine").read_all().to_pylist()
    )
    return [(row["origin"], row["reason"], row["score"]) for row in rows]


def test_the_filter_of_the_page_drops_what_it_says(example: Path) -> None:
    """With the score that it gives, the place of the word; and its file is part of the key."""
    assert dropped(example) == [
        ("book00.txt", "my_filters:no_drafts", float("This is a DRAFT".index("DRAFT")))
    ]
    code = example.parent / "my_filters.py"
    code.write_text(code.read_text() + "# Another file, if not another answer.\n")
    assert len(dropped(example)) == 1
    manifests = [
        json.loads(path.read_text())
        for path in (example.parent / "run/.store/refine/shard").glob("*/manifest.json")
    ]
    assert hashlib.sha256(code.read_bytes()).hexdigest() in [
        one["settings"]["code"]["my_filters:no_drafts"] for one in manifests
    ]
    text = (ROOT / "docs" / "own-code.md").read_text(encoding="utf-8")
    promised = re.search(r"cleaned documents of one kind \((.*?)\)", text, re.DOTALL)
    assert promised is not None
    assert set(re.findall(r"`(\w+)`", promised[1])) <= set(DOCUMENT.names)


def test_examples_in_python_run(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On another run than the starter, which not everybody has."""
    bodies = [
        body
        for name in ("own-code.md", "lineage.md", "training-reference.md")
        for body in blocks(ROOT / "docs" / name, "python")
    ]
    runnable = [
        body.replace('"runs/starter"', repr(str(tiny_run)))
        for body in bodies
        if '"runs/starter"' in body
    ]
    assert len(runnable) == 2
    for body in runnable:
        exec(compile(body, "example", "exec"), {})
    printed = capsys.readouterr().out
    assert "exact_duplicate" in printed
    assert len(printed.splitlines()) >= 3


def test_the_page_of_all_keys_is_what_the_code_says() -> None:
    """Every key of a recipe has a meaning; `make docs` writes the page again."""
    page = recipe_page.page()
    assert page == recipe_page.PAGE.read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 80 and not [row for row in rows if row.rstrip(" |").endswith("`")]


def test_the_readme_has_the_plans_of_the_code() -> None:
    """`make docs` writes them again when the model of a step changes."""
    assert f"<!-- plan -->\n{readme.plans()}<!-- /plan -->" in (ROOT / "README.md").read_text()
