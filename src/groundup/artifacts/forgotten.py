"""Documents that a run was told to forget: the list, and the deletion of what may quote them.

`RUN/forgotten.json` holds `{"documents": [...]}`, one object a document with the fields of
`ForgottenDocument`; it holds no text. A document is known by source, origin and record number, as
its id is: the same text under another file name is another document. If its source is gone from the
recipe, it is known by its raw file and record number: a renamed source does not bring it back.

`groundup forget` adds to the list. Then collect leaves the records out and lists them as
`forgotten`, the data stages follow, and `erase` deletes artifacts that may still hold the text. A
model stays: it cannot be made again from what is here.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from groundup.artifacts.checkpoints import list_checkpoints, read_setup
from groundup.errors import GroundupError, StoreError
from groundup.runtime.lock import load_lock
from groundup.runtime.progress import say
from groundup.runtime.run import Run
from groundup.runtime.sealed import read_sealed, write_sealed
from groundup.runtime.store import Store
from groundup.schema import settings

FILE, REASON = "forgotten.json", "forgotten"
# Steps that read a document: at most this many are recorded.
MAX_STEPS = 20

# Stages whose artifacts hold text, in order; all but the models can be made again.
DATA_STAGES = ("collect", "refine", "tokenize")
# Views that quote documents, or what a model remembers of them.
QUOTING_STAGES = ("evaluate", "report", "look")
VIEWS = (*DATA_STAGES, "evaluate", "tune", "export", "report")
MODEL_FOLDERS = ("model", "adapter")


@dataclass(frozen=True)
class ForgottenDocument:
    """One document to forget."""

    id: str
    source: str
    origin: str
    record: int
    shard: str = ""  # that held it, `SOURCE.SHARD`
    raw: str = ""  # SHA-256 of its raw file then; a changed file may hold another text there
    # What training had done with it: `training` (its key), `times` it was read (None if unknown),
    # first `steps`.
    seen: Mapping[str, Any] = field(default_factory=dict)
    pending: bool = True  # something of its text may still be on disk

    @property
    def files(self) -> list[str]:
        """Origins that its raw file may have: the file itself, and each archive around it."""
        parts = self.origin.split("!/")
        return ["!/".join(parts[:end]) for end in range(1, len(parts) + 1)]

    def words(self, root: Path) -> str:
        """Return in words what the training of a run did with it before it was forgotten."""
        key = training_key(root)
        if not key:
            return "forgotten; there is no training in this run"
        if not self.seen or self.seen["training"] != key:
            return "forgotten; the current model was trained without it"
        if self.seen["times"] is None:
            return "forgotten; which steps had read it is not known"
        if not self.seen["times"]:
            return "forgotten; training had not read it"
        more = " …" if len(self.seen["steps"]) == MAX_STEPS else ""
        past = ", ".join(self.checkpoints(root)) or "no checkpoint that exists"
        steps = ", ".join(map(str, self.seen["steps"]))
        times = f"training had read it {self.seen['times']:,} times"
        return f"forgotten; {times}, in steps {steps}{more}; in the past of {past}"

    def checkpoints(self, root: Path) -> list[str]:
        """Return the names of the checkpoints that learned from it, or may have."""
        if not self.seen or self.seen["training"] != training_key(root) or self.seen["times"] == 0:
            return []
        first = self.seen["steps"][0] if self.seen["steps"] else 0
        return [path.name for step, path in list_checkpoints(root).items() if step > first]


def training_key(root: Path) -> str:
    """Return the key of the training of a run, "" if there is none."""
    return str(read_setup(root).get("key", ""))


@dataclass(frozen=True)
class Forgotten:
    """The list of documents to forget."""

    documents: tuple[ForgottenDocument, ...] = ()

    @classmethod
    def load(cls, root: Path) -> Forgotten:
        """Read the list of a run; StoreError if damaged: documents would come back without it."""
        path = root / FILE
        if not path.exists():
            return cls()
        table = read_sealed(path) or {}
        try:
            return cls(tuple(ForgottenDocument(**entry) for entry in table["documents"]))
        except (TypeError, KeyError):
            advice = "put it back, or delete it if what was forgotten may come back"
            raise StoreError(f"{path}: damaged; {advice}") from None

    def save(self, root: Path) -> None:
        """Write the list, whole."""
        write_sealed(root / FILE, asdict(self))

    @property
    def pending(self) -> tuple[ForgottenDocument, ...]:
        """Documents of which something may still be on disk."""
        return tuple(document for document in self.documents if document.pending)

    @cached_property
    def ids(self) -> frozenset[str]:
        """For a fast look-up."""
        return frozenset(document.id for document in self.documents)

    def joined(self, documents: Iterable[ForgottenDocument]) -> Forgotten:
        """Return the list with more documents; those already on it stay as they are."""
        new = (document for document in documents if document.id not in self.ids)
        return Forgotten((*self.documents, *new))

    def detached(self, sources: Container[str]) -> Forgotten:
        """Return the list with "" as source of the documents of other sources than these.

        Their source may only be renamed, so `inside` looks for their file in every source.
        """
        documents = (d if d.source in sources else replace(d, source="") for d in self.documents)
        return Forgotten(tuple(documents))

    def inside(self, source: str, inputs: Mapping[str, str]) -> list[ForgottenDocument]:
        """Return the forgotten documents of some raw files, by origin and record.

        `inputs` is origin → SHA-256. A document without a source is found by both.
        """

        def is_inside(document: ForgottenDocument) -> bool:
            digests = [inputs[file] for file in document.files if file in inputs]
            if document.source:
                return document.source == source and bool(digests)
            return document.raw in digests

        inside = filter(is_inside, self.documents)
        return sorted(inside, key=lambda document: (document.origin, document.record))


def finish_forget(run: Run, stages: Mapping[str, Callable[[Run], None]]) -> list[str]:
    """Finish what `groundup forget` started: update the data, then delete what may hold the text.

    Expensive data is replaced without a question, since the user asked for that; but not if the
    recipe was changed in between. Returns the names of what was deleted in the run directory.
    """
    forgotten = Forgotten.load(run.root)
    if not forgotten.pending:
        return []
    say(f"forget: {len(forgotten.pending):,} to take out")
    try:
        run.allow_discard = settings(load_lock(run.root)) == settings(run.recipe)
    except GroundupError:
        run.allow_discard = False
    started = [name for name in DATA_STAGES if run.store.plan(name) or (run.root / name).exists()]
    for name in DATA_STAGES[: DATA_STAGES.index(started[-1]) + 1] if started else ():
        with run.stage(name):
            stages[name](run)
    run.allow_discard = False
    return erase(run, forgotten)


def erase(run: Run, forgotten: Forgotten) -> list[str]:
    """Delete what may hold the text of pending documents, mark them as done, return the names.

    Every step can be repeated, so a kill in between costs nothing but a second time.
    """
    store = run.store
    deleted = [name for name in QUOTING_STAGES if (run.root / name).exists()]
    store.discard(run.root / name for name in deleted)
    for name in deleted:
        run.ledger.write("erased", stage=name)
    if _learned_from(store, forgotten):
        run.archive("tune")
    for folder in sorted(path for path in (run.root / "aside").glob("*") if path.is_dir()):
        # The user may have renamed STAGE-1 to STAGE-anything.
        stage = folder.name.partition("-")[0]
        if stage == "tune":
            store.discard(path for path in folder.iterdir() if path.name not in MODEL_FOLDERS)
        elif stage in QUOTING_STAGES or (stage in VIEWS and _names_pending(folder, forgotten)):
            store.discard([folder])
            deleted.append(f"aside/{folder.name}")
    # Exported models stay.
    store.discard(path for path in store.unreferenced(VIEWS) if path.parent.parent.name != "export")
    store.clean()
    done = (replace(document, pending=False) for document in forgotten.documents)
    Forgotten(tuple(done)).save(run.root)
    return deleted


def _learned_from(store: Store, forgotten: Forgotten) -> bool:
    """Whether the tuned model read a pending document, or started from a model that may have."""
    view = store.view("tune")
    if view is None:
        return (store.root / "tune").exists()
    read: set[str] = set()
    for entry in view.manifest["artefacts"]:
        artifact = store.artifact(entry)
        if artifact is not None:
            inputs = artifact.manifest["inputs"]
            read |= {artifact.name, *(name.partition(" ")[2] for name in inputs)}
    pending = forgotten.pending
    return any(doc.shard in read or (doc.seen and doc.seen["times"] != 0) for doc in pending)


def _names_pending(folder: Path, forgotten: Forgotten) -> bool:
    """Whether a table in a folder names a pending document, by id or as what was kept instead."""
    import pyarrow.parquet as pq

    from groundup.artifacts.document import matching

    ids = [document.id for document in forgotten.pending]
    for path in sorted(folder.rglob("*.parquet")):
        for column in {"id", "duplicate_of"} & set(pq.read_schema(path).names):
            if next(matching([path], column, ids, [column]), None) is not None:
                return True
    return False
