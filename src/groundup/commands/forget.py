"""The command `forget`: take documents out of a run, and name the models that have read them.

Collect, refine and tokenize are built again without the documents, and whatever may quote them is
deleted. The raw files stay; they belong to the user. A model cannot unlearn, so it is named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup.artifacts.document import matching
from groundup.artifacts.forgotten import (
    MAX_STEPS,
    Forgotten,
    ForgottenDocument,
    finish_forget,
    training_key,
)
from groundup.collect.sources import list_source
from groundup.commands.duplicates import relatives
from groundup.commands.trace import TrainingTrace
from groundup.errors import GroundupError
from groundup.flow import STAGES
from groundup.recipe import Recipe, all_sources
from groundup.runtime.lock import load_lock, pinned_places
from groundup.runtime.run import Run
from groundup.runtime.store import Store

COLUMNS = ["id", "source", "origin", "record"]
# Documents that a list names; the others are counted.
MAX_NAMED = 20


def forget(root: Path, ids: Sequence[str], workers: int | None = None) -> str:
    """Take documents out of a run; return what happened, and which models have read them.

    Raises GroundupError if an id is unknown or a source is missing; nothing is changed then.
    """
    recipe, before = load_lock(root), Forgotten.load(root)
    new = find_entries(root, sorted(set(ids) - before.ids))
    known = [f"{document} is forgotten already" for document in ids if document in before.ids]
    if not new and not before.pending:
        return "\n".join(known)
    # A missing source stops it here: the run could not be built again without the documents.
    for source in all_sources(recipe):
        list_source(source, recipe.root, pinned_places(root).get(source.path, ""))
    entries = [*before.pending, *new]
    # Looked up before the lists that connect the documents are built again.
    similar = relatives(root, [entry.id for entry in entries])
    with Run.open(recipe, root, workers=workers) as run:
        # Load again: another `forget` may have added documents before this one got the lock.
        Forgotten.load(root).joined(new).save(root)
        try:
            deleted = finish_forget(run, STAGES)
        except GroundupError as error:
            noted = f"{root}: the documents are noted in forgotten.json, and not taken out yet"
            finish = "fix that, and `groundup run` takes them out"
            raise GroundupError(f"{noted}: {error}; {finish}") from None
    described = describe_forgotten(recipe, entries, similar, deleted)
    return "\n".join([*known, *described, *describe_models(root, entries)])


def find_entries(root: Path, ids: Sequence[str]) -> list[ForgottenDocument]:
    """Return the records of a run that have these ids, in their order.

    Raises GroundupError if an id is unknown.
    """
    # The view tune may list data that a later `groundup run` left out of collect.
    store = Store(root)
    shards = [
        *store.artifacts("collect", "collect/shard"),
        *store.artifacts("tune", "collect/shard"),
    ]
    entries: dict[str, ForgottenDocument] = {}
    for shard in {shard.path: shard for shard in shards}.values() if ids else ():
        # The files that no reader opened are listed as .unread.
        if shard.name.endswith(".unread"):
            continue
        tables = [shard.path / name for name in ("documents.parquet", "dropped.parquet")]
        for batch in matching(tables, "id", ids, COLUMNS):
            for row in batch.to_pylist():
                entry = ForgottenDocument(**row, shard=shard.name)
                digests = map(shard.manifest["inputs"].get, entry.files)
                raw = next(filter(None, digests), "")
                entries[entry.id] = dataclasses.replace(entry, raw=raw)
    if unknown := [document for document in ids if document not in entries]:
        hint = "Ids are 32 hexadecimal digits, see `groundup inspect`"
        unchanged = f"there is no document {unknown[0]}; nothing was changed"
        raise GroundupError(f"{root}: {unchanged}. {hint}")
    seen = seen_by_training(root, ids)
    return [dataclasses.replace(entries[document], seen=seen[document]) for document in ids]


def seen_by_training(root: Path, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what training did with documents, which cannot be computed after they are gone."""
    key = training_key(root)
    if not key:
        return {document: {} for document in ids}
    try:
        trace = TrainingTrace.open(root)
    except GroundupError:
        return {document: {"training": key, "times": None, "steps": []} for document in ids}
    table = {document: {"training": key, "times": 0, "steps": []} for document in ids}
    for document, seen in (trace.of_documents(ids) if trace is not None else {}).items():
        table[document] |= {"times": seen.times, "steps": list(seen.steps[:MAX_STEPS])}
    return table


def describe_forgotten(
    recipe: Recipe,
    entries: Sequence[ForgottenDocument],
    similar: Sequence[str],
    deleted: Sequence[str],
) -> list[str]:
    """Return lines that name the documents, the raw files that still hold them, and their like."""
    lines = [
        f"forgotten: {entry.id}  {entry.source}: {entry.origin}#{entry.record}"
        for entry in entries[:MAX_NAMED]
    ]
    if len(entries) > MAX_NAMED:
        lines.append(f"and {len(entries) - MAX_NAMED:,} more")
    paths = {source.name: source.path for source in recipe.source}
    where = ", ".join(sorted({paths.get(entry.source, "the data of tuning") for entry in entries}))
    them = "it" if len(entries) == 1 else "them"
    lines.append(f"collect, refine and tokenize are without {them}; the raw files stay: {where}")
    if similar:
        hidden = len(similar) - MAX_NAMED
        named = ", ".join(similar[:MAX_NAMED]) + (f" and {hidden:,} more" if hidden > 0 else "")
        more = "forget these too if the text itself has to go"
        lines.append(f"still here, and alike or the same: {named}; {more}")
    if deleted:
        gone = f"deleted, since they may quote it: {', '.join(deleted)}"
        lines.append(f"{gone}; `groundup run` makes what is missing")
    return lines


def describe_models(root: Path, entries: Sequence[ForgottenDocument]) -> list[str]:
    """Return lines that name what may know the text: nothing can be deleted from a model."""
    lines = []
    if (root / "tokenize" / "tokenizer.json").exists():
        redo = "`--redo tokenize` trains a new one, and then the model"
        lines.append(f"the tokenizer was trained on a sample that may hold it; {redo}")
    for entry in entries[:MAX_NAMED]:
        if entry.checkpoints(root):
            read = entry.words(root).removeprefix("forgotten; ")
            lines.append(f"{entry.id} {read}; `--redo train` trains without it")
    if (root / "train").exists():
        again = "`groundup run` trains again, and asks first if that took long"
        lines.append(f"training stays as it is; if its tokens changed, {again}")
    archived = [path for name in ("train", "tune") for path in (root / "aside").glob(f"{name}-*")]
    models = sorted(path.relative_to(root).as_posix() for path in archived)
    if (root / "export").exists():
        models.append("export")
    return [*lines, f"models that may know it: {', '.join(models)}"] if models else lines
