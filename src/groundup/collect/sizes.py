"""What a source holds, before it is fetched: names and bytes, and a line that says what a run will
fetch. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from groundup.collect.files.globs import Selection
from groundup.collect.scrape.scrape import SCHEME, ahead
from groundup.collect.sources import list_source
from groundup.recipe import Source
from groundup.runtime.fetch.cache import cached, filename_of
from groundup.runtime.fetch.download import announced
from groundup.runtime.fetch.remote import select, total
from groundup.runtime.fetch.resolve import FAR, place_of
from groundup.runtime.progress import say

Sizes = Sequence[tuple[str, int]]


def sizes(source: Source, root: Path) -> Sizes:
    """Return names and bytes of a source's raw files, and say what of them has to be fetched;
    packages are fetched here.

    Raises:
        SourceError: the source cannot be found.
    """
    if source.path.startswith(FAR):
        return _far(source)
    if source.path.startswith(SCHEME):
        found = ahead(source, root)
        if found.line:
            say(found.line)
        return [("pages.warc.gz", found.bytes)]
    if source.path.startswith("https://") and cached(source.path, source.sha256) is None:
        size = announced(source.path)
        say(
            f'source "{source.name}" will be fetched:'
            f" {_megabytes(size) if size else 'a file of unknown size'}"
        )
        return [(filename_of(source.path), size)]
    return [(file.origin, file.size) for file in list_source(source, root).files]


def _far(source: Source) -> Sizes:
    place, inside = place_of(source.path)
    selected = select(place, inside, Selection(source.include, source.exclude))
    missing = selected.missing()
    if missing:
        say(
            f'source "{source.name}" will be fetched: {len(missing):,} files,'
            f" {_megabytes(total(missing))}, from {place.address}"
        )
    return [(origin, file.size) for origin, file in selected.files.items()]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
