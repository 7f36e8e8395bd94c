"""Looks at a folder of raw files and writes a recipe for it. Reads names and first bytes; writes
one TOML file.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from groundup.collect.files.globs import Selection
from groundup.collect.sources import list_source
from groundup.collect.suggest import SuggestedSource, suggest_sources
from groundup.errors import RecipeError, SourceError
from groundup.recipe import Source, load_recipe
from groundup.runtime.files import write_whole

# A source of less may be a note or two, which a filter drops whole: that must not stop the run of
# everything else.
LITTLE_BYTES = 1_000_000
# What a recipe with conversations says about them.
TUNE = """\
# Teaches the finished model to answer, from the conversations above; "none" leaves it as it was trained.
[tune]
method = "sft"
"""


def write_recipe(directory: Path, recipe: Path, force: bool = False) -> str:
    """Write a recipe for the raw files in `directory`; return what was found, for a person.

    Raises:
        SourceError: the folder is missing, or nothing in it can be read.
        RecipeError: a recipe is there already, or cannot be written.
    """
    if re.match(r"(https?|s3|hf|pypi|scrape):", str(directory)):
        raise SourceError(
            f"{directory}: init looks into folders on this machine; write such a path into a recipe"
            " (docs/data.md, Places)"
        )
    if not directory.is_dir():
        raise SourceError(f"{directory}: there is no such folder")
    if recipe.exists() and not force:
        raise RecipeError(
            f"{recipe}: there is a recipe already; --force replaces it, --recipe FILE writes"
            " another"
        )
    if not any(directory.iterdir()):
        raise SourceError(f"{directory}: the folder is empty")
    found = suggest_sources(directory, _own(recipe, directory))
    if not any(entry.readable for entry in found):
        raise SourceError(
            f"{directory}: nothing in it can be read:"
            f" {'; '.join(entry.why for entry in found).replace('not read: ', '')}"
        )
    if not any(entry.readable and entry.kind != "evaluation" for entry in found):
        raise SourceError(
            f"{directory}: it holds evaluation items only, which are never learned from; name a"
            " folder with texts, too"
        )
    name = re.sub(r"[^\w.+-]+", "-", directory.resolve().name).strip("-.") or "mine"
    text = recipe_text(
        name[:80],
        found,
        os.path.relpath(directory, recipe.resolve().parent),
        _own(recipe, directory),
    )
    try:
        write_whole(recipe, text.encode("utf-8"))
    except UnicodeEncodeError:
        raise RecipeError(
            f"{str(directory)!a}: a path that is not UTF-8 cannot stand in a recipe; rename the"
            " folder"
        ) from None
    except OSError as error:
        raise RecipeError(f"{recipe}: cannot be written: {error.strerror}") from None
    load_recipe(recipe)
    return "\n".join(
        [
            *_table(found),
            *_unopened(directory),
            "",
            f"wrote {recipe}; next: groundup plan {recipe}, groundup run {recipe}",
        ]
    )


def _own(recipe: Path, directory: Path) -> str:
    """Return the recipe's path below the folder of raw files, where it must not be collected, or
    "".
    """
    path, top = recipe.resolve(), directory.resolve()
    return path.relative_to(top).as_posix() if path.is_relative_to(top) else ""


def recipe_text(name: str, found: Sequence[SuggestedSource], prefix: str, own: str = "") -> str:
    """Return a recipe with one source for each thing that was found; every other key keeps its
    default.

    Args:
        prefix: from the recipe's folder to the folder of raw files.
        own: the recipe's own path below that folder, which is excluded.
    """
    blocks = [f"name = {_quoted(name)}\nseed = 1\n"]
    used: set[str] = set()
    for entry in found:
        source = _unused(re.sub(r"[^\w.+-]+", "-", entry.name).strip("-.")[:60] or entry.kind, used)
        path = _path(prefix, entry.path)
        lines = [
            f"# {entry.why}",
            "[[source]]",
            f"name = {_quoted(source)}",
            f"kind = {_quoted(entry.kind)}",
            f"path = {_quoted(path)}",
        ]
        lines += [f"include = [{', '.join(map(_quoted, entry.include))}]"] if entry.include else []
        lines += [f"exclude = [{_quoted(mine)}]"] if (mine := _excluded(entry, own)) else []
        lines += (
            [f"most_dropped = 1  # {why}: it may all be dropped"]
            if (why := _may_vanish(entry))
            else []
        )
        blocks.append("\n".join(lines) + "\n")
    if any(entry.kind == "conversations" for entry in found):
        blocks.append(TUNE)
    return "\n".join(blocks)


def _excluded(entry: SuggestedSource, own: str) -> str:
    """Return the recipe's own path below a source that would read it, or ""."""
    folder = entry.path.removesuffix("*").rstrip("/")
    inside = own if folder in ("", ".") else own.removeprefix(f"{folder}/")
    reads = (folder in ("", ".") or inside != own) and Selection(entry.include).keeps(inside)
    return inside if own and reads else ""


def _may_vanish(entry: SuggestedSource) -> str:
    """Return why a source may keep no document without stopping the run of everything else, or ""."""
    if entry.kind == "evaluation":
        return ""
    return (
        "nothing that is read"
        if not entry.readable
        else "little text"
        if entry.bytes < LITTLE_BYTES
        else ""
    )


def _path(prefix: str, path: str) -> str:
    """Join the two; a leading ~ would be taken for a home folder."""
    joined = os.path.normpath(path if prefix == "." else f"{prefix}/{path}")
    return f"./{joined}" if joined.startswith("~") else joined


def _unused(name: str, used: set[str]) -> str:
    number = 1
    while (candidate := name if number == 1 else f"{name}-{number}") in used:
        number += 1
    used.add(candidate)
    return candidate


def _quoted(text: str) -> str:
    """Return a TOML basic string."""
    escaped = "".join(
        f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else {'"': '\\"', "\\": "\\\\"}.get(c, c)
        for c in text
    )
    return f'"{escaped}"'


def _table(found: Sequence[SuggestedSource]) -> list[str]:
    """Return a line for each source, and one for each sort of file in it that is not read."""
    lines = []
    for entry in found:
        seen, *unread = (
            entry.why if entry.readable else f"nothing that is read; {entry.why}"
        ).split("; not read: ")
        lines.append(
            f"{entry.kind:14} {entry.files:7,} files {entry.bytes / 1e6:9,.1f} MB  {entry.path} "
            f" ({seen})"
        )
        lines += [f"{'':14} not read, but listed: {why}" for why in unread]
    return lines


def _unopened(directory: Path) -> list[str]:
    """Return a line for links, pipes and the like, which no source opens."""
    reasons = Counter(
        refused.reason
        for refused in list_source(Source(path=".", name="survey"), directory).refused
    )
    told = ", ".join(f"{count:,} × {reason}" for reason, count in sorted(reasons.items()))
    return [f"{'':14} not opened, but listed: {told}"] if told else []
