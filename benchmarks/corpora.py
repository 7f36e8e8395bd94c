"""Real text by kind, from the folder that GROUNDUP_TEST_DATA names: collected shards, and texts cut
from them.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from groundup.collect.stage import run as collect
from groundup.errors import SourceError
from groundup.recipe import recipe_from
from groundup.runtime.run import Run

SOURCES = [
    {"name": "books", "kind": "books", "path": "books"},
    {"name": "wikitext", "kind": "wikipedia", "path": "wikipedia/plain"},
    {"name": "c4", "kind": "web", "path": "web/jsonl"},
    {"name": "code", "kind": "code", "path": "code/pypi"},
    {"name": "irc", "kind": "conversations", "path": "conversations/taskmaster4"},
]
# Everything, about 80 MB of text.
ALL_KINDS = [
    {"name": kind, "kind": kind, "path": kind}
    for kind in ("books", "wikipedia", "web", "code", "conversations")
]
SAMPLE = 2_500


def collected(
    data: Path,
    root: Path,
    sources: Sequence[Mapping[str, Any]] = SOURCES,
    refine: Mapping[str, Any] | None = None,
) -> Run:
    """Collect sources, by default about 45 MB of text, into a run at `root`; `refine` is that table
    of its recipe.
    """
    run = Run(
        root,
        recipe_from(
            {"name": "benchmark", "source": list(sources), "refine": refine or {}},
            "benchmark",
            data,
        ),
    )
    run.store.clean()
    collect(run)
    return run


def texts(run: Run) -> Iterator[str]:
    """Yield the collected texts, shard by shard."""
    for path in sorted((run.root / "collect" / "documents").glob("*.parquet")):
        yield from pq.read_table(path, columns=["text"])["text"].to_pylist()


def articles(data: Path, dumps: Iterable[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Yield each dump of Wikipedia, a file or a folder below `data`, with its articles' texts."""
    for dump in dumps:
        source = {"name": "one", "kind": "wikipedia", "path": str(dump.relative_to(data))}
        # A dump of redirects has no articles.
        with tempfile.TemporaryDirectory() as root, suppress(SourceError):
            yield dump, list(texts(collected(data, Path(root), [source])))


def sample(data: Path, root: Path) -> list[str]:
    """Return texts of 200 to 20,000 characters from all kinds."""
    found = []
    for text in texts(collected(data, root)):
        found += [
            text[at : at + 5_000]
            for at in range(0, min(len(text), 100_000), 5_000)
            if len(text) - at > 400
        ]
    return random.Random(0).sample(sorted(found), SAMPLE)


def pieces(
    text: str, rng: random.Random, shortest: int = 200, longest: int = 2_400
) -> Iterator[str]:
    """Cut a text into pieces from a paragraph to a page, their lengths spread evenly over the
    logarithm, at ends of words.
    """
    begin = 0
    while len(text) - begin >= shortest:
        end = begin + round(math.exp(rng.uniform(math.log(shortest), math.log(longest))))
        space = max(text.rfind(" ", begin, end), text.rfind("\n", begin, end))
        end = len(text) if end >= len(text) else space if space > begin else end
        yield text[begin:end]
        begin = end
