"""Hands out a staging folder and commits it: whole or absent, hashed, with a manifest.

Reads and writes `RUN/.store` (immutable artifacts by key), `RUN/.staging`, and the stage folders,
which are views: hard links into the store. docs/architecture.md gives the protocol and why it is
so.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from groundup.errors import StoreError, is_full_disk
from groundup.runtime.files import (
    canonical,
    content_digest,
    file_digest,
    flush,
    link,
    read_json,
    write_json,
)

MANIFEST = "manifest.json"
# The name that a staging folder carries from the first flush to the rename; a kill in between
# leaves it to be counted.
COMMITTING = ".commit"
_CHUNK = 1 << 20

Facts = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """What decides an artifact's bytes: the step, its version, its settings and the contents of its
    inputs.
    """

    step: str
    name: str
    version: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """SHA-256 of the step as canonical JSON."""
        parts = [self.step, self.name, self.version, self.settings, self.inputs]
        return hashlib.sha256(canonical(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A committed folder and its manifest."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def step(self) -> str:
        """Name of the step that built it, such as `refine/shard`."""
        return str(self.manifest["step"])

    @property
    def name(self) -> str:
        """Name among the artifacts of its step."""
        return str(self.manifest["name"])

    @property
    def key(self) -> str:
        """Key that it was built for."""
        return str(self.manifest["key"])

    @property
    def content(self) -> str:
        """SHA-256 over its files: what later steps take as their input."""
        return str(self.manifest["content"])

    @property
    def facts(self) -> Facts:
        """Counts that its step returned."""
        return dict(self.manifest["facts"])

    @property
    def seconds(self) -> float:
        """What building it cost."""
        return float(self.manifest["seconds"])


def folder_files(
    folder: Path, known: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file below `folder`; `known` digests are taken over unread."""
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    paths.pop(MANIFEST, None)

    def digest(name: str) -> str:
        return str(known[name]["sha256"]) if known and name in known else file_digest(paths[name])

    # Hashing gives up the interpreter's lock, and a checkpoint is two large files.
    with ThreadPoolExecutor(2) as pool:
        return {
            name: {"size": paths[name].stat().st_size, "sha256": found}
            for name, found in zip(paths, pool.map(digest, paths), strict=True)
        }


def commit(
    staging: Path,
    target: Path,
    manifest: Mapping[str, Any],
    known: Mapping[str, Mapping[str, Any]] | None = None,
    key: str = "",
) -> Artifact:
    """Turn a staging folder into `target` by one rename; what stood at `target` is replaced.

    Every file is flushed and hashed first (`known` digests are those of hard links, already
    flushed), and the manifest is written last, so that a folder with a manifest is whole.

    Args:
        key: of an artifact that may be there by now, whole; then that one stays.
    """
    committing = staging.with_name(staging.name + COMMITTING)
    staging.rename(committing)
    files = folder_files(committing, known)
    for name in files:
        if not known or name not in known:
            flush(committing / name)
            # Read-only: a file edited in place in a view would change the store under its key.
            (committing / name).chmod(0o444)
    whole = dict(manifest) | {"files": files, "content": content_digest(files)}
    write_json(committing / MANIFEST, whole)
    for folder in [path for path in committing.rglob("*") if path.is_dir()] + [committing]:
        flush(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    done = _replace(committing, target, key) or Artifact(target, whole)
    flush(target.parent)
    return done


def _replace(source: Path, target: Path, key: str) -> Artifact | None:
    """Rename `source` to `target`, moving a folder that stands there out of the way first.

    Returns:
        the artifact of `key`, if it stands there whole: a worker that was given up for lost went on
        and was quicker. Its bytes are the same, and others may be reading them.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        standing = load_artifact(target)
        if key and standing is not None and standing.manifest.get("key") == key:
            return standing
        old = source.with_name(f"old-{uuid.uuid4().hex[:12]}")
        target.rename(old)
        source.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    return None


def load_artifact(path: Path) -> Artifact | None:
    """Return the artifact at `path` if its manifest parses and every file has its recorded size."""
    manifest = read_json(path / MANIFEST)
    if not isinstance(manifest, dict) or "files" not in manifest:
        return None
    for name, entry in manifest["files"].items():
        try:
            if (path / name).stat().st_size != entry["size"]:
                return None
        except OSError:
            return None
    return Artifact(path, manifest)


def changed_files(artifact: Artifact) -> list[str]:
    """Return a line for each file of an artifact whose bytes are not those of its manifest."""
    wrong = []
    for name, entry in artifact.manifest["files"].items():
        path = artifact.path / name
        if not path.is_file():
            wrong.append(f"{path}: missing")
        elif path.stat().st_size != entry["size"] or file_digest(path) != entry["sha256"]:
            wrong.append(f"{path}: its bytes are not those that were written")
    return wrong


@dataclass(frozen=True)
class Store:
    """The artifacts of one run directory. Safe to use from several worker processes."""

    root: Path

    @property
    def staging(self) -> Path:
        """Where folders grow before they are committed."""
        return self.root / ".staging"

    def path(self, step: Step) -> Path:
        """Where the artifact of `step` stands once it is committed."""
        return self.root / ".store" / step.step / f"{step.name}-{step.key[:16]}"

    def find(self, step: Step) -> Artifact | None:
        """Return the artifact of `step` if it is there, whole, and of the same key."""
        artifact = load_artifact(self.path(step))
        return artifact if artifact is not None and artifact.key == step.key else None

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """Hand out an empty folder on the run's file system; it is gone at the end unless it was
        committed.
        """
        folder = self.staging / f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(folder.with_name(folder.name + COMMITTING), ignore_errors=True)

    def build(
        self, step: Step, function: Callable[..., Facts], arguments: Mapping[str, Any]
    ) -> Artifact:
        """Run `function(folder, **arguments)` in a staging folder and commit what it wrote there."""
        start = time.perf_counter()
        with self.stage() as folder:
            facts = function(folder, **arguments)
            manifest = {
                "step": step.step,
                "name": step.name,
                "version": step.version,
                "key": step.key,
                "settings": dict(step.settings),
                "inputs": dict(step.inputs),
                "facts": facts,
                "seconds": round(time.perf_counter() - start, 3),
            }
            return commit(folder, self.path(step), manifest, key=step.key)

    def seen(self, artifact: Artifact, patience: float = 60.0) -> Artifact:
        """Return an artifact that a worker committed, once this machine sees it.

        NFS remembers for up to a minute that a name was not there; reading the folder makes it ask
        again.

        Raises:
            StoreError: it is not seen after `patience` seconds.
        """
        end = time.monotonic() + patience
        while not (artifact.path / MANIFEST).exists():
            if time.monotonic() > end:
                raise StoreError(
                    f"{artifact.path}: a worker committed it, and this machine does not see it; is"
                    " the file system shared?"
                )
            for folder in reversed(artifact.path.relative_to(self.root).parents):
                with contextlib.suppress(FileNotFoundError):
                    list((self.root / folder).iterdir())
            time.sleep(0.1)
        return artifact

    def publish(
        self,
        view: str,
        links: Mapping[str, Path],
        artifacts: Sequence[Artifact],
        facts: Facts | None = None,
    ) -> Artifact:
        """Replace the stage folder `view` by hard links: name in the view → file of an artifact.

        Its manifest lists the artifacts with their keys and what they cost. Nothing is done when it
        is the same.
        """
        entries = [
            {
                "step": a.step,
                "name": a.name,
                "key": a.key,
                "content": a.content,
                "seconds": a.seconds,
            }
            for a in artifacts
        ]
        old = self.view(view)
        if (
            old is not None
            and old.manifest["artefacts"] == entries
            and set(old.manifest["files"]) == set(links)
        ):
            return old
        known = _known(links, artifacts)
        with self.stage() as folder:
            for name, path in links.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                link(path, target)
            return commit(
                folder,
                self.root / view,
                {"view": view, "artefacts": entries, "facts": facts or {}},
                known,
            )

    def view(self, view: str) -> Artifact | None:
        """Return the published stage folder, if it is there and whole."""
        artifact = load_artifact(self.root / view)
        return artifact if artifact is not None and "artefacts" in artifact.manifest else None

    def artifact(self, entry: Mapping[str, Any]) -> Artifact | None:
        """Return the artifact that a view's entry names, if the store still has it."""
        return self.lookup(str(entry["step"]), str(entry["name"]), str(entry["key"]))

    def plan(self, stage: str) -> dict[str, dict[str, str]]:
        """Return what the stage last set out to build: step → name → key."""
        plan = read_json(self.root / ".store" / stage / "plan.json")
        return plan if isinstance(plan, dict) else {}

    def discarded_seconds(self, stage: str) -> float:
        """Return the seconds of work of a stage that lost their place since its view was last
        published.
        """
        return float(read_json(self.root / ".store" / stage / "thrown-away.json") or 0.0)

    def set_discarded_seconds(self, stage: str, seconds: float) -> None:
        """Remember `discarded_seconds` across processes; 0 forgets it."""
        path = self.root / ".store" / stage / "thrown-away.json"
        if seconds:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, seconds)
        else:
            path.unlink(missing_ok=True)

    def write_plan(self, stage: str, plan: Mapping[str, Mapping[str, str]]) -> None:
        """Remember what the stage sets out to build; written before the work, so that a kill cannot
        hide its cost.
        """
        path = self.root / ".store" / stage / "plan.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, plan)

    def lookup(self, step: str, name: str, key: str) -> Artifact | None:
        """Return the artifact of a plan's entry, if the store has it."""
        return load_artifact(self.root / ".store" / step / f"{name}-{key[:16]}")

    def discard(self, entries: Iterable[Path]) -> None:
        """Delete artifact folders: renamed away first, so that a kill leaves no half of one."""
        for path in entries:
            with contextlib.suppress(FileNotFoundError):
                trash = self.staging / f"trash-{uuid.uuid4().hex[:12]}"
                trash.parent.mkdir(exist_ok=True)
                path.rename(trash)
                shutil.rmtree(trash, ignore_errors=True)

    def unreferenced(self, views: Iterable[str]) -> list[Path]:
        """Return the artifact folders that none of the views names, damaged ones too: they hold
        text as others do.
        """
        entries = [
            e for name in views if (view := self.view(name)) for e in view.manifest["artefacts"]
        ]
        named = {f"{e['step']}/{e['name']}-{e['key'][:16]}" for e in entries}
        folders = (self.root / ".store").glob("*/*/*")
        return [
            path
            for path in folders
            if path.relative_to(self.root / ".store").as_posix() not in named
        ]

    def set_aside(self, view: str) -> Path | None:
        """Move a stage folder to `RUN/aside/VIEW-N`; its hard links keep every byte."""
        path = self.root / view
        if not path.exists():
            return None
        aside = self.root / "aside"
        aside.mkdir(exist_ok=True)
        # A person may have put another name there.
        numbers = [
            end for p in aside.glob(f"{view}-*") if (end := p.name.rpartition("-")[2]).isdecimal()
        ]
        number = 1 + max(map(int, numbers), default=0)
        return path.rename(aside / f"{view}-{number}")

    def clean(self) -> None:
        """Empty the staging area; only under the run's lock.

        It is renamed whole first: a worker that outlived its parent then finds its folder gone and
        cannot commit half of it.
        """
        trash = self.root / f".trash-{uuid.uuid4().hex[:12]}"
        with contextlib.suppress(FileNotFoundError):
            self.staging.rename(trash)
        for old in self.root.glob(".trash-*"):
            shutil.rmtree(old, ignore_errors=True)
        self.staging.mkdir(parents=True, exist_ok=True)


def _known(
    links: Mapping[str, Path], artifacts: Sequence[Artifact]
) -> dict[str, Mapping[str, Any]]:
    digests = {
        a.path / name: entry for a in artifacts for name, entry in a.manifest["files"].items()
    }
    return {name: digests[path] for name, path in links.items() if path in digests}


def explain_full_disk(error: OSError, root: Path) -> StoreError | None:
    """Return the one-line error for a full disk or quota, or None for another cause."""
    if not is_full_disk(error):
        return None
    return StoreError(
        f"{root}: the disk is full; free some space and run again, what was finished is kept"
    )
