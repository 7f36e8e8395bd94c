"""Takes documents out of a run: `groundup forget`. Reads the views and the training; writes
`forgotten.json`, has collect, refine and tokenize follow, and deletes what still holds the text.

The raw files are the user's and stay. What has learned from a document cannot unlearn it: it is
named instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup.artifacts.document import matching
from groundup.artifacts.forgotten import MOST_STEPS, Entry, Forgotten, training_key
from groundup.collect.sources import list_source
from groundup.commands.duplicates import relatives
from groundup.commands.trace import Course
from groundup.errors import GroundupError
from groundup.flow import finish_forget, opened
from groundup.recipe import Recipe, all_sources
from groundup.runtime.run import load_lock, pinned_places
from groundup.runtime.store import Artifact, Store

COLUMNS = ["id", "source", "origin", "record"]
# Documents, checkpoints and so on that are named in a line.
NAMED = 20


def forget(root: Path, ids: Sequence[str], workers: int | None = None) -> str:
    """Take documents out of a run, and return in words what happened and which models know them.

    Raises:
        GroundupError: an id is unknown, or a source of the run cannot be found; nothing was changed
            then.
    """
    recipe, before = load_lock(root), Forgotten.load(root)
    new = find(root, sorted(set(ids) - before.ids))
    again = [f"{one} is forgotten already" for one in ids if one in before.ids]
    if not new and not before.pending:
        return "\n".join(again)
    _check_sources(root, recipe)
    entries = [*before.pending, *new]
    alike = relatives(root, [entry.id for entry in entries])
    with opened(recipe, root, workers=workers) as run:
        # Another `forget` may have written to the list while this one was looking for its
        # documents.
        Forgotten.load(root).joined(new).save(root)
        try:
            gone = finish_forget(run)
        except GroundupError as error:
            raise GroundupError(
                f"{root}: noted in forgotten.json and not carried out yet: {error}; mend that, and"
                " `groundup run` finishes it"
            ) from None
    return "\n".join(
        [
            *again,
            *_told(root, recipe, entries),
            *_alike(alike),
            *_deleted(gone),
            *_models(root, entries),
        ]
    )


def find(root: Path, ids: Sequence[str]) -> list[Entry]:
    """Return the records of a run that have these ids, in their order.

    Raises:
        GroundupError: one of them is not known.
    """
    found: dict[str, Entry] = {}
    for shard in _collected(root) if ids else ():
        for batch in matching(
            [shard.path / name for name in ("documents.parquet", "dropped.parquet")],
            "id",
            ids,
            COLUMNS,
        ):
            found |= {row["id"]: _entry(shard, row) for row in batch.to_pylist()}
    for one in ids:
        if one not in found:
            raise GroundupError(
                f"{root}: there is no document {one}; nothing was changed. Ids are 32 hexadecimal"
                " digits, see `inspect`"
            )
    told = _tell(root, ids)
    return [dataclasses.replace(found[one], seen=told[one]) for one in ids]


def _collected(root: Path) -> list[Artifact]:
    """Return the collected shards that a view names. The view `tune` may name data that a later
    `groundup run` left out of `collect`; a list of unread files is no shard.
    """
    store = Store(root)
    views = [view for name in ("collect", "tune") if (view := store.view(name)) is not None]
    entries = {
        (entry["name"], entry["key"]): entry
        for view in views
        for entry in view.manifest["artefacts"]
        if entry["step"] == "collect/shard" and not entry["name"].endswith(".unread")
    }
    found = (store.artifact(entry) for entry in entries.values())
    return [artifact for artifact in found if artifact is not None]


def _entry(shard: Artifact, row: dict[str, Any]) -> Entry:
    entry = Entry(row["id"], row["source"], row["origin"], row["record"], shard.name)
    raw = next(
        (digest for file in entry.files if (digest := shard.manifest["inputs"].get(file))), ""
    )
    return dataclasses.replace(entry, raw=raw)


def _tell(root: Path, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what the training that stands there did with documents: afterwards nobody could tell."""
    key = training_key(root)
    if not key:
        return {one: {} for one in ids}
    try:
        course = Course.open(root)
    except GroundupError:
        return {one: {"training": key, "times": None, "steps": []} for one in ids}
    read = course.of_documents(ids) if course is not None else {}
    found = {
        one: {"times": seen.times, "steps": list(seen.steps[:MOST_STEPS])}
        for one, seen in read.items()
    }
    return {one: {"training": key} | found.get(one, {"times": 0, "steps": []}) for one in ids}


def _check_sources(root: Path, recipe: Recipe) -> None:
    places = pinned_places(root)
    for source in all_sources(recipe):
        list_source(source, recipe.root, places.get(source.path, ""))


def _told(root: Path, recipe: Recipe, entries: Sequence[Entry]) -> list[str]:
    paths = {source.name: source.path for source in recipe.source}
    lines = [
        f"forgotten: {entry.id}  {entry.source}: {entry.origin}#{entry.record}"
        for entry in entries[:NAMED]
    ]
    lines += [f"and {len(entries) - NAMED:,} more"] if len(entries) > NAMED else []
    where = ", ".join(sorted({paths.get(entry.source, "the data of tuning") for entry in entries}))
    return [
        *lines,
        (
            f"collect, refine and tokenize are without {'it' if len(entries) == 1 else 'them'}; the"
            f" raw files stay: {where}"
        ),
    ]


def _alike(alike: Sequence[str]) -> list[str]:
    """Name the documents of the same clusters: kept or dropped, they say nearly the same, and their
    text is still here.
    """
    named = ", ".join(alike[:NAMED]) + (
        f" and {len(alike) - NAMED:,} more" if len(alike) > NAMED else ""
    )
    return (
        [
            f"still here, and alike or the same: {named}; forget these too if the text itself has"
            " to go"
        ]
        if alike
        else []
    )


def _deleted(gone: Sequence[str]) -> list[str]:
    return (
        [
            f"deleted, since they may quote it: {', '.join(gone)}; `groundup run` makes what is"
            " missing"
        ]
        if gone
        else []
    )


def _models(root: Path, entries: Sequence[Entry]) -> list[str]:
    """Name what may know the text: nothing can be deleted from a model."""
    lines = []
    if (root / "tokenize" / "tokenizer.json").exists():
        lines.append(
            "the tokenizer was trained on a sample that may hold it; `--redo tokenize` trains a new"
            " one, and then the model"
        )
    for entry in entries[:NAMED]:
        if entry.checkpoints(root):
            lines.append(
                f"{entry.id} {entry.words(root).removeprefix('forgotten; ')}; `--redo train` trains"
                " without it"
            )
    if (root / "train").exists():
        lines.append(
            "training stays as it is; where its tokens changed, `groundup run` trains again, and"
            " asks first if that took long"
        )
    others = sorted(
        path.relative_to(root).as_posix()
        for name in ("train", "tune")
        for path in (root / "aside").glob(f"{name}-*")
    )
    others += ["export"] if (root / "export").exists() else []
    return [*lines, f"models that may know it: {', '.join(others)}"] if others else lines
