"""The command `look`: collect and refine a sample of raw files, and show what became of them.

    groundup look my-texts      # the sources that `init` would propose; a single file, too
    groundup look recipe.toml   # those of a recipe, with its settings
    groundup look runs/mine     # the page of a run, written again

The sample is chosen by a hash of the names, so it is the same at every call, and it is spread over
the sources. Its files are copied to the cache and refined there in a run directory, which holds
`look/index.html` and answers `groundup inspect`. Benchmarks and tuning data are left out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from groundup.artifacts.kinds import is_training
from groundup.collect.sources import RawFile, list_source
from groundup.collect.suggest import name_hash, suggest_sources
from groundup.commands.init import recipe_text
from groundup.errors import SourceError
from groundup.flow import run_flow
from groundup.recipe import Evaluate, Recipe, Source, Tune, clean_name, load_recipe, recipe_from
from groundup.report.figures import Row
from groundup.report.look import write_look
from groundup.runtime.fetch.download import cache_root
from groundup.runtime.lock import LOCK, load_lock
from groundup.runtime.progress import say
from groundup.schema import parse_toml

# Files of a folder whose first bytes are read, which takes about 10 s.
MAX_SURVEYED = 20_000
# A larger file is cut to its share of the sample, or left out if its format cannot be cut.
MAX_WHOLE = 64_000_000
# First bytes of formats of which a beginning is no file: zip, Parquet, Arrow, PDF, OLE, 7z, SQLite.
WHOLE_ONLY = (b"PK", b"PAR1", b"ARROW1", b"%PDF", b"\xd0\xcf\x11\xe0", b"7z", b"SQLite")
# A cut file ends with a line, if one ends in its last bytes: half a character has no meaning.
LINE_BYTES = 1 << 16
# Files that are named because they were cut or left out; the others are counted.
MAX_NOTES = 8


@dataclass(frozen=True)
class SampledFile:
    """A raw file of the sample, and how many of its bytes are read."""

    source: str
    file: RawFile
    size: int


@dataclass
class Surveyed:
    """What there is to sample."""

    recipe: Recipe
    listings: dict[str, Sequence[RawFile]] = field(default_factory=dict)  # by source
    sorts: list[Row] = field(default_factory=list)  # of all files; see `write_look`
    notes: list[str] = field(default_factory=list)  # lines for the top of the page


def look(target: Path, out: Path | None, files: int, megabytes: float) -> str:
    """Make the page of a folder, a recipe or a run; return where it is, and what comes next.

    The sample has about `files` files and `megabytes`, but one file of each source at least. Raises
    SourceError if there is no such folder or recipe, or nothing in it can be read.
    """
    if (target / LOCK).exists():
        recipe = load_lock(target)
        return _said(write_look(target, recipe.name, recipe.seed), target)
    looked = _look_at(target)
    recipe, notes = looked.recipe, looked.notes
    chosen = choose_sample(looked.listings, files, int(megabytes * 1e6))
    digest = hashlib.sha256(os.fsencode(target.resolve())).hexdigest()[:12]
    folder = cache_root() / "look" / f"{recipe.name}-{digest}"
    # A sample of other files, or of an earlier state of them.
    shutil.rmtree(folder / "raw", ignore_errors=True)
    copied, left_out = copy_sample(chosen, folder / "raw")
    every = [file for listed in looked.listings.values() for file in listed]
    read, whole = sum(sampled.size for sampled in copied), sum(file.size for file in every)
    sample = f"{len(copied):,} of {len(every):,} files, {read / 1e6:,.1f} of {whole / 1e6:,.1f} MB"
    if len(copied) < len(every) or read < whole:
        notes.insert(0, f"A sample: {sample}, chosen by a hash of the names.")
    say(f"look      {sample}")
    root, used = out or folder / "run", {sampled.source for sampled in copied}
    run = run_flow(_sample_recipe(recipe, folder / "raw", used), root, until="refine")
    if len(left_out) > MAX_NOTES:
        left_out[MAX_NOTES:] = [f"And {len(left_out) - MAX_NOTES:,} more files like these."]
    page = write_look(run.root, recipe.name, recipe.seed, [*notes, *left_out], looked.sorts)
    return _said(page, root)


def _said(page: Path, root: Path) -> str:
    more = f"groundup inspect {root} --kept     groundup inspect {root} --search WORDS"
    return f"open:  {page.absolute()}\nmore:  {more}"


def _look_at(target: Path) -> Surveyed:
    """Return the sources of a recipe, or those that `init` would propose for raw files."""
    if target.suffix == ".toml" and not target.is_dir():
        return _list_files(load_recipe(target))
    if target.is_dir() and any(target.iterdir()):
        say(f"look      {target}: looking at names and first bytes")
    found = suggest_sources(target, most=MAX_SURVEYED)
    if not any(is_training(source.kind) for source in found.sources):
        raise SourceError(f"{target}: it holds no text that can be read; `groundup init` says why")
    folder = (target if target.is_dir() else target.parent).resolve()
    name = clean_name(target.resolve().stem).strip("-.")[:80] or "mine"
    table = parse_toml(recipe_text(name, found, ".").encode(), str(target))
    looked = Surveyed(recipe_from(table, str(target), folder))
    looked.listings = {s.name: s.members for s in found.sources if is_training(s.kind)}
    for sorts, is_read in ((found.sorts, True), (found.unread, False)):
        looked.sorts += [
            {"sort": sort.reason, "files": sort.files, "bytes": sort.bytes, "read": is_read}
            for sort in sorts
        ]
    files = sum(sort.files for sort in (*found.sorts, *found.unread))
    if files < found.listed:
        looked.notes.append(
            f"Only {files:,} of {found.listed:,} files were looked at to find sources."
        )
    return looked


def _list_files(recipe: Recipe) -> Surveyed:
    """Return the raw files of each training source on this machine, and notes on the others."""
    looked = Surveyed(recipe)
    for source in (source for source in recipe.source if is_training(source.kind)):
        if "://" in source.path or source.path.startswith(("pypi:", "scrape:")):
            note = f"Source {source.name} is not on this machine, so it is not sampled."
            looked.notes.append(note)
        else:
            looked.listings[source.name] = list_source(source, recipe.root).files
    if not any(looked.listings.values()):
        advice = "`groundup run RECIPE --until refine` fetches the sources and writes the page"
        raise SourceError(f"{recipe.name}: no source has files on this machine; {advice}")
    return looked


def choose_sample(
    listings: Mapping[str, Sequence[RawFile]], files: int, size: int
) -> list[SampledFile]:
    """Return about `files` files with about `size` bytes, spread over the sources.

    The next file is always of the source that has used least of either. A file larger than its
    source's share is cut.
    """

    # In reverse, so that the next one is the last.
    queues = {
        name: sorted(listed, key=lambda file: name_hash(f"{name}\0{file.origin}"), reverse=True)
        for name, listed in listings.items()
        if listed
    }
    share = size // max(1, len(queues))
    chosen: list[SampledFile] = []
    counts, bytes_of = dict.fromkeys(queues, 0), dict.fromkeys(queues, 0)
    while open_ := [name for name in queues if queues[name]]:
        name = min(open_, key=lambda n: (max(counts[n] / files, bytes_of[n] / size), n))
        full = len(chosen) >= files or sum(bytes_of.values()) >= size
        if full and counts[name]:
            break
        file = queues[name].pop()
        sampled = SampledFile(name, file, min(file.size, max(share, 1)))
        chosen.append(sampled)
        counts[name] += 1
        bytes_of[name] += sampled.size
    return chosen


def copy_sample(chosen: Sequence[SampledFile], folder: Path) -> tuple[list[SampledFile], list[str]]:
    """Copy a sample to `folder/SOURCE/ORIGIN`; return what was copied, and notes on the rest.

    They are copies, because a link would change what the file system says of the raw file.
    """
    copied, notes = [], []
    for sampled in chosen:
        file = sampled.file
        data = read_beginning(file, sampled.size)
        if data is None:
            too_large = f"{file.size / 1e6:,.0f} MB, and a part of it cannot be read"
            notes.append(f"Left out of the sample: {file.origin} ({too_large}).")
            continue
        if len(data) < file.size:
            part = f"{len(data) / 1e6:,.1f} of {file.size / 1e6:,.1f} MB"
            notes.append(f"Cut to its beginning: {file.origin} ({part}).")
        target = folder / sampled.source / file.origin
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        copied.append(dataclasses.replace(sampled, size=len(data)))
    return copied, notes


def read_beginning(file: RawFile, size: int) -> bytes | None:
    """Return about `size` bytes of a file, or all of them if a part of it cannot be read.

    None stands for a file that would have to be read whole, and is too large for that.
    """
    with file.path.open("rb") as raw:
        head = raw.read(16)
        if size < file.size and head.startswith(WHOLE_ONLY):
            return head + raw.read() if file.size <= MAX_WHOLE else None
        data = (head + raw.read(max(0, size - len(head))))[:size]
    if len(data) >= file.size:
        return data
    line = data.rfind(b"\n", max(0, len(data) - LINE_BYTES)) + 1
    return data[: line or len(data)]


def _sample_recipe(recipe: Recipe, folder: Path, used: set[str]) -> Recipe:
    """Return a recipe whose sources are those of the sample, and that no loss of text stops."""
    sources: list[Source] = [
        dataclasses.replace(source, path=str(folder / source.name), sha256="", most_dropped=1.0)
        for source in recipe.source
        if source.name in used
    ]
    return dataclasses.replace(recipe, source=tuple(sources), evaluate=Evaluate(), tune=Tune())
