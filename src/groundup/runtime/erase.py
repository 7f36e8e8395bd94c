"""Deletes what may still hold the text of forgotten documents, once the data have been made without
them.

Reads the list of forgotten documents, `aside/`, the store and the view `tune`; deletes artifacts,
and writes `forgotten.json`.
What is a model stays: it cannot be made again without them from what is here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from groundup.artifacts.document import matching
from groundup.artifacts.forgotten import Forgotten
from groundup.runtime.run import Run
from groundup.runtime.store import Store

# They quote documents, and what a model remembers of them.
QUOTING = ("evaluate", "report")
VIEWS = ("collect", "refine", "tokenize", "evaluate", "tune", "export", "report")
MODELS = ("model", "adapter")


def erase(run: Run, forgotten: Forgotten) -> list[str]:
    """Delete what may hold the text, note that it is done, and return the names of what was deleted
    in the run directory.

    Every step can be done twice: a kill in between costs nothing but a second time.
    """
    store = run.store
    gone = [name for name in QUOTING if (run.root / name).exists()]
    store.discard(run.root / name for name in gone)
    for name in gone:
        run.ledger.write("erased", stage=name)
    if _learned_from(store, forgotten):
        run.set_aside("tune")
    gone += list(_clear_aside(store, forgotten))
    # Of exports only models are left over.
    store.discard(path for path in store.unreferenced(VIEWS) if path.parent.parent.name != "export")
    store.clean()
    forgotten.carried_out().save(run.root)
    return gone


def _learned_from(store: Store, forgotten: Forgotten) -> bool:
    """Whether what stands in `tune/` read a forgotten document, or began with a model that may
    have.
    """
    view = store.view("tune")
    if view is None:
        return (store.root / "tune").exists()
    artifacts = [
        found
        for entry in view.manifest["artefacts"]
        if (found := store.artifact(entry)) is not None
    ]
    read = {
        name.partition(" ")[2] for artifact in artifacts for name in artifact.manifest["inputs"]
    } | {a.name for a in artifacts}
    return any(
        entry.shard in read or (entry.seen and entry.seen["times"] != 0)
        for entry in forgotten.pending
    )


def _clear_aside(store: Store, forgotten: Forgotten) -> Iterator[str]:
    for folder in sorted(path for path in (store.root / "aside").glob("*") if path.is_dir()):
        # Whatever a person has called it behind that: a number says no more.
        stage = folder.name.partition("-")[0]
        if stage == "tune":
            store.discard(path for path in folder.iterdir() if path.name not in MODELS)
        elif stage in QUOTING or (stage in VIEWS and _names(folder, forgotten)):
            store.discard([folder])
            yield f"aside/{folder.name}"


def _names(folder: Path, forgotten: Forgotten) -> bool:
    """Whether a table of a folder names a forgotten document, as its own or as what it was dropped
    for.
    """
    for path in sorted(folder.rglob("*.parquet")):
        for column in {"id", "duplicate_of"} & set(pq.read_schema(path).names):
            if any(
                True
                for _ in matching(
                    [path], column, [entry.id for entry in forgotten.pending], [column]
                )
            ):
                return True
    return False
