"""The command `init`: write a recipe for a folder of raw files, or copy one that comes along.

Only names and first bytes of the files are read. The recipe names the sources; every other key
keeps its default.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from groundup.collect.detect import SuggestedSource, suggest_sources
from groundup.collect.files.globs import Selection
from groundup.collect.sources import list_source
from groundup.errors import RecipeError, SourceError
from groundup.recipe import Source, clean_name, load_recipe
from groundup.runtime.files import write_whole

# An installed package holds them; in a checkout they are at its top.
_PACKAGE = Path(__file__).parents[1]
EXAMPLE_FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parents[1] / "recipes")
# A smaller source may be a note or two, which a filter drops whole: that must not stop the run.
LITTLE_BYTES = 1_000_000
_REPLACE = "--force replaces it, --recipe FILE writes another"
# Added for conversations.
TUNE = (
    "# Teaches the finished model to answer, from the conversations above;"
    ' "none" leaves it as it was trained.\n'
    '[tune]\nmethod = "sft"\n'
)


def write_recipe(directory: Path, recipe: Path, force: bool = False) -> str:
    """Write a recipe for the raw files in `directory`; return what was found, as a table.

    Raises SourceError if the folder is missing or nothing in it can be read, RecipeError if there
    is a recipe already or it cannot be written.
    """
    if re.match(r"(https?|s3|hf|pypi|scrape):", str(directory)):
        hint = "write such a path into a recipe (docs/sources.md, Places)"
        raise SourceError(f"{directory}: init looks into folders on this machine; {hint}")
    if directory.is_file():
        raise SourceError(f"{directory}: is a file; name the folder that holds it")
    if not directory.is_dir():
        raise SourceError(f"{directory}: there is no such folder")
    if recipe.exists() and not force:
        raise RecipeError(f"{recipe}: there is a recipe already; {_REPLACE}")
    if not any(directory.iterdir()):
        raise SourceError(f"{directory}: the folder is empty")
    path, top = recipe.resolve(), directory.resolve()
    # If the recipe is inside of the folder of raw files, it is not collected.
    own_path = path.relative_to(top).as_posix() if path.is_relative_to(top) else ""
    entries = suggest_sources(directory, own_path)
    if not any(entry.readable for entry in entries):
        reasons = "; ".join(entry.why for entry in entries).replace("not read: ", "")
        raise SourceError(f"{directory}: nothing in it can be read: {reasons}")
    if not any(entry.readable and entry.kind != "evaluation" for entry in entries):
        only = "it holds evaluation items only, which no model is trained on"
        raise SourceError(f"{directory}: {only}; name a folder that holds texts, too")
    name = clean_name(top.name).strip("-.")[:80] or "mine"
    text = recipe_text(name, entries, os.path.relpath(directory, path.parent), own_path)
    _write(recipe, text)
    load_recipe(recipe)
    next_step = f"wrote {recipe}; next: groundup plan {recipe}, groundup run {recipe}"
    return "\n".join([*_survey_lines(entries, directory), "", next_step])


def examples() -> dict[str, Path]:
    """Return the recipes that come with groundup, by name."""
    folder = next((folder for folder in EXAMPLE_FOLDERS if folder.is_dir()), None)
    return {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.toml"))}


def write_example(name: str, recipe: Path, force: bool = False) -> str:
    """Copy an example to `recipe`; return the next command.

    Raises RecipeError if no recipe has this name, or `recipe` exists or cannot be written.
    """
    known = examples()
    if name not in known:
        raise RecipeError(f'there is no example "{name}"; there are {", ".join(known)}')
    if recipe.exists() and not force:
        raise RecipeError(f"{recipe}: exists already; {_REPLACE}")
    _write(recipe, known[name].read_text(encoding="utf-8"))
    return f"wrote {recipe}; next: groundup run {recipe}"


def _write(recipe: Path, text: str) -> None:
    try:
        write_whole(recipe, text.encode("utf-8"))
    except UnicodeEncodeError:
        rename = "rename the folder of raw files"
        raise RecipeError(f"{recipe}: a recipe can name UTF-8 paths only; {rename}") from None
    except OSError as error:
        raise RecipeError(f"{recipe}: cannot be written: {error.strerror}") from None


def recipe_text(
    name: str, entries: Sequence[SuggestedSource], prefix: str, own_path: str = ""
) -> str:
    """Return a recipe with one source for each entry of a survey.

    `prefix` leads from the folder of the recipe to the folder of raw files; `own_path` is the path
    of the recipe inside of that folder, which is excluded.
    """
    blocks = [f"name = {_quoted(name)}\nseed = 1\n"]
    used: set[str] = set()
    for entry in entries:
        source = clean_name(entry.name).strip("-.")[:60] or entry.kind
        names = (source if n == 1 else f"{source}-{n}" for n in range(1, len(used) + 2))
        unique = next(name for name in names if name not in used)
        used.add(unique)
        path = os.path.normpath(entry.path if prefix == "." else f"{prefix}/{entry.path}")
        # A leading ~ would be taken for a home folder.
        path = f"./{path}" if path.startswith("~") else path
        lines = [f"# {entry.why}", "[[source]]", f"name = {_quoted(unique)}"]
        lines += [f"kind = {_quoted(entry.kind)}", f"path = {_quoted(path)}"]
        if entry.include:
            lines.append(f"include = [{', '.join(map(_quoted, entry.include))}]")
        # Exclude the recipe itself from a source that would read it.
        folder = entry.path.removesuffix("*").rstrip("/")
        inside = own_path if folder in ("", ".") else own_path.removeprefix(f"{folder}/")
        is_inside = own_path and (folder in ("", ".") or inside != own_path)
        if is_inside and Selection(entry.include).keeps(inside):
            lines.append(f"exclude = [{_quoted(inside)}]")
        if entry.kind != "evaluation" and (not entry.readable or entry.bytes < LITTLE_BYTES):
            why = "little text" if entry.readable else "nothing that is read"
            lines.append(f"most_dropped = 1  # {why}: it may all be dropped")
        blocks.append("\n".join(lines) + "\n")
    if any(entry.kind == "conversations" for entry in entries):
        blocks.append(TUNE)
    return "\n".join(blocks)


def _quoted(text: str) -> str:
    """Return a TOML basic string."""
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda m: f"\\u{ord(m[0]):04x}", text) + '"'


def _survey_lines(entries: Sequence[SuggestedSource], directory: Path) -> list[str]:
    """Return a line for each source, and one for each sort of file that is not read or opened."""
    lines = []
    for entry in entries:
        why = entry.why if entry.readable else f"nothing that is read; {entry.why}"
        seen, *unread = why.split("; not read: ")
        megabytes = f"{entry.bytes / 1e6:9,.1f} MB"
        lines.append(f"{entry.kind:14} {entry.files:7,} files {megabytes}  {entry.path}  ({seen})")
        lines += [f"{'':14} not read, but listed: {reason}" for reason in unread]
    # Links, pipes and the like.
    listing = list_source(Source(path=".", name="survey"), directory)
    reasons = Counter(refused.reason for refused in listing.refused)
    if reasons:
        counts = ", ".join(f"{count:,} × {reason}" for reason, count in sorted(reasons.items()))
        lines.append(f"{'':14} not opened, but listed: {counts}")
    return lines
