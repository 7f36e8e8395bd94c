"""The command `init`: write a recipe for raw files, or copy one that comes along.

Only names and first bytes of the files are read. The recipe names the sources; every other key
keeps its default.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import suppress
from itertools import islice
from pathlib import Path

from groundup.artifacts.document import Document
from groundup.artifacts.kinds import KINDS
from groundup.collect.files.archives import open_items
from groundup.collect.files.globs import Selection
from groundup.collect.files.streams import DamagedError, Item
from groundup.collect.readers.registry import read_item
from groundup.collect.sources import RawFile, list_source
from groundup.collect.suggest import SAMPLE_FILES, SuggestedSource, Suggestions, suggest_sources
from groundup.errors import RecipeError, SourceError
from groundup.recipe import Source, Tune, clean_name, load_recipe
from groundup.runtime.files import write_whole

# An installed package holds them; in a checkout they are at its top.
_PACKAGE = Path(__file__).parents[1]
EXAMPLE_FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parents[1] / "recipes")
# A smaller source may be a note or two, which a filter drops whole: that must not stop the run.
LITTLE_BYTES = 1_000_000
_REPLACE = "--force replaces it, --recipe FILE writes another"
# Fewer exchanges teach no model to answer.
MIN_EXCHANGES = 300
# About so many exchanges are counted before more are taken for granted.
SAMPLE_EXCHANGES = 2_000
# Sorts of unread files that the recipe names.
MAX_UNREAD = 12
_SIZES = ("files", "bytes")


def write_recipe(directory: Path, recipe: Path, force: bool = False) -> str:
    """Write a recipe for a folder of raw files, or for one; return what was found, as a table.

    Raises SourceError if the path is missing or nothing in it can be read, RecipeError if there is
    a recipe already or it cannot be written.
    """
    if re.match(r"(https?|s3|hf|pypi|scrape):", str(directory)):
        hint = "write such a path into a recipe (docs/sources.md, Places)"
        raise SourceError(f"{directory}: init looks into folders on this machine; {hint}")
    if not directory.exists():
        raise SourceError(f"{directory}: there is no such file or folder")
    if recipe.exists() and not force:
        raise RecipeError(f"{recipe}: there is a recipe already; {_REPLACE}")
    if directory.is_dir() and not any(directory.iterdir()):
        raise SourceError(f"{directory}: the folder is empty")
    path, top = recipe.resolve(), directory.resolve()
    # If the recipe is inside of the folder of raw files, it is not collected.
    own_path = path.relative_to(top).as_posix() if path.is_relative_to(top) else ""
    found = suggest_sources(directory, own_path)
    if not found.sources:
        reasons = "; ".join(f"{part.files:,} × {part.reason}" for part in found.unread)
        raise SourceError(f"{directory}: nothing in it can be read: {reasons}")
    if all(KINDS[source.kind].role == "evaluation" for source in found.sources):
        only = "it holds evaluation items only, which no model is trained on"
        raise SourceError(f"{directory}: {only}; name a folder that holds texts, too")
    folder = directory if directory.is_dir() else directory.parent
    name = clean_name(top.stem if directory.is_file() else top.name).strip("-.")[:80] or "mine"
    text = recipe_text(name, found, os.path.relpath(folder, path.parent), own_path)
    tune = tune_text(found, folder)
    _write(recipe, f"{text}\n{tune}" if tune else text)
    load_recipe(recipe)
    next_step = f"wrote {recipe}; next: groundup plan {recipe}, groundup run {recipe}"
    return "\n".join([*_survey_lines(found), "", next_step])


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


def recipe_text(name: str, found: Suggestions, prefix: str, own_path: str = "") -> str:
    """Return a recipe with the sources that were suggested, and a comment on what is not read.

    `prefix` leads from the folder of the recipe to the folder of raw files; `own_path` is the path
    of the recipe inside of that folder, which is excluded.
    """
    blocks = [f"name = {_quoted(name)}\nseed = 1\n"]
    blocks += [_source_text(source, prefix, own_path) for source in found.sources]
    if found.unread:
        files, size = (sum(getattr(part, key) for part in found.unread) for key in _SIZES)
        lines = [
            f"# Not read: {files:,} files, {size / 1e6:,.1f} MB, with an example of each sort."
        ]
        for part in found.unread[:MAX_UNREAD]:
            lines.append(f"#   {part.files:,} × {part.reason}: {_quoted(part.example)[1:-1]}")
        if others := found.unread[MAX_UNREAD:]:
            lines.append(f"#   {sum(part.files for part in others):,} others")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _source_text(source: SuggestedSource, prefix: str, own_path: str) -> str:
    """Return the table of one source."""
    path = os.path.normpath(source.path if prefix == "." else f"{prefix}/{source.path}")
    # A leading ~ would be taken for a home folder.
    path = f"./{path}" if path.startswith("~") else path
    lines = [f"# {source.why}", "[[source]]", f"name = {_quoted(source.name)}"]
    lines += [f"kind = {_quoted(source.kind)}", f"path = {_quoted(path)}"]
    # Exclude the recipe itself from a source that would read it.
    folder = source.path.removesuffix("*").rstrip("/")
    inside = own_path if folder in ("", ".") else own_path.removeprefix(f"{folder}/")
    is_inside = own_path and (folder in ("", ".") or inside != own_path)
    exclude = list(source.exclude)
    if is_inside and Selection(source.include, source.exclude).keeps(inside):
        exclude.append(inside)
    for key, patterns in (("include", source.include), ("exclude", exclude)):
        if patterns:
            lines.append(f"{key} = [{', '.join(map(_quoted, patterns))}]")
    if source.column:
        lines.append(f"text = {_quoted(source.column)}")
    if KINDS[source.kind].role != "evaluation" and source.bytes < LITTLE_BYTES:
        lines.append("most_dropped = 1  # little text: it may all be dropped")
    return "\n".join(lines) + "\n"


def tune_text(found: Suggestions, folder: Path) -> str:
    """Return a [tune] table if the sources hold enough exchanges to learn from, else ""."""
    talks = {
        source.name: count
        for source in found.sources
        if KINDS[source.kind].has_turns and (count := count_exchanges(source, folder))
    }
    if sum(talks.values()) < MIN_EXCHANGES:
        return ""
    size = {
        is_talk: sum(
            source.bytes * KINDS[source.kind].clean_share
            for source in found.sources
            if (source.name in talks) is is_talk
        )
        for is_talk in (True, False)
    }
    # The model has read them once. More passes than one pay where they are few beside other text.
    epochs = 1 if size[True] > size[False] else Tune().epochs
    lines = [
        "# Teaches the finished model to answer, from conversations above;"
        ' method = "none" leaves it out.',
        *("[tune]", 'method = "sft"', f"epochs = {epochs}"),
        f"sources = [{', '.join(map(_quoted, talks))}]",
    ]
    return "\n".join(lines) + "\n"


def count_exchanges(source: SuggestedSource, folder: Path) -> int:
    """Return about how many answers to somebody the conversations of a source have.

    A sample of its files is read, each from its beginning.
    """
    settings = Source(
        source.path, source.kind, source.name, include=source.include, exclude=source.exclude
    )
    files = list_source(settings, folder).files
    step = max(1, -(-len(files) // SAMPLE_FILES))
    sample = files[::step]
    enough = SAMPLE_EXCHANGES // max(1, len(sample))
    return sum(_exchanges(file, settings, enough) for file in sample) * step


def _exchanges(file: RawFile, source: Source, enough: int) -> int:
    """Return the number of answers in the first documents of a file, about `enough` at most."""
    count = 0
    selection = Selection(source.include, source.exclude)
    with suppress(OSError, DamagedError), file.path.open("rb") as stream:
        for item in open_items(file.path, stream, file.origin, file.size, selection):
            results = read_item(item, source) if isinstance(item, Item) else iter(())
            for document in islice(results, SAMPLE_EXCHANGES):
                turns = document.turns or () if isinstance(document, Document) else ()
                count += sum(turn["role"] == "assistant" for turn in turns[1:])
                if count >= enough:
                    return count
    return count


def _quoted(text: str) -> str:
    """Return a TOML basic string."""
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda m: f"\\u{ord(m[0]):04x}", text) + '"'


def _survey_lines(found: Suggestions) -> list[str]:
    """Return a line for each source, and one for each sort of file that is not read or opened."""
    lines = []
    for source in found.sources:
        size, where = f"{source.bytes / 1e6:9,.1f} MB", source.path
        if source.include:
            where += f": {', '.join(source.include)}"
        elif source.exclude:
            where += f" but {', '.join(source.exclude)}"
        lines.append(f"{source.kind:14} {source.files:7,} files {size}  {where}  ({source.why})")
    lines += [
        f"{'not read':14} {part.files:7,} files {part.bytes / 1e6:9,.1f} MB  {part.reason}"
        for part in found.unread
    ]
    reasons = Counter(refused.reason for refused in found.refused)
    if reasons:
        counts = ", ".join(f"{count:,} × {reason}" for reason, count in sorted(reasons.items()))
        lines.append(f"{'':14} not opened, but listed: {counts}")
    # Of a link that leads out of the folder, and what to do about it.
    details = {refused.detail for refused in found.refused if "follow_links" in refused.detail}
    lines += [f"{'':14} {detail}" for detail in details]
    return lines
