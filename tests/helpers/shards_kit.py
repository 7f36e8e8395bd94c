"""A small project whose one source has three shards of known files, and a run of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from pydoc_data.topics import topics

from groundup.collect.shard import cut_shards
from groundup.collect.sources import RawFile
from groundup.flow import run_flow
from groundup.recipe import load_recipe

RECIPE = """
[[source]]
name = "notes"
path = "raw"

[refine]
filters = []

[tokenize]
vocab_size = 400
validation = 0.2
"""
SHARDS, FILES, RECORDS = 3, 3, 8
SECRET = "the quokka of Rottnest keeps its umbrella behind the lighthouse"


def names(begin: bool) -> Iterator[str]:
    """Yield file names, in order, that begin a shard wherever they are, or that never do."""
    for number in count():
        found = RawFile(f"{number:06}.jsonl", Path("x"), 1)
        if begin == (len(cut_shards([RawFile("", Path("x"), 1), found])) == 2):
            yield found.origin


def between(first: str, after: int = 0) -> str:
    """Return a file name that follows another one in its shard, `after` names later."""
    return next(islice((name for name in names(begin=False) if name > first), after, None))


def write(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def texts(number: int) -> list[str]:
    """Return eight real texts, different ones for every number."""
    return [
        text[:1500] for _, text in sorted(topics.items())[number * RECORDS : (number + 1) * RECORDS]
    ]


def write_project(folder: Path) -> Path:
    """Write nine files of eight texts in three shards, and return the recipe.

    The last text of the second shard's first file holds the secret, twice. A shorter form of that
    text is in the third shard, and is dropped as its near duplicate.
    """
    (folder / "raw").mkdir(parents=True)
    for number, first in enumerate(islice(names(begin=True), SHARDS)):
        files = [first, *(between(first, after) for after in range(FILES - 1))]
        for place, name in enumerate(files):
            write(folder / "raw" / name, texts(number * FILES + place))
    told = f"{texts(9)[0]} {SECRET}. {texts(9)[1][:400]}"
    second, third = islice(names(begin=True), 1, 3)
    write(folder / "raw" / second, [*texts(3)[:-1], told])
    write(folder / "raw" / third, [told[:-40], *texts(6)[1:]])
    (folder / "notes.toml").write_text(RECIPE)
    return folder / "notes.toml"


def run(recipe: Path, until: str = "tokenize") -> Path:
    root = recipe.parent / "run"
    run_flow(load_recipe(recipe), root, until=until, workers=1)
    return root


def artifacts(root: Path) -> set[str]:
    """Return STEP/NAME-KEY of all artifacts in the store."""
    return {
        path.parent.relative_to(root / ".store").as_posix()
        for path in (root / ".store").glob("*/*/*/manifest.json")
    }
