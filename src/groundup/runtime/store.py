"""The artifacts of a run: built in a staging folder, committed whole by one rename, found by key.

    RUN/.staging/PID-RANDOM/             a folder that grows; whatever is left here is garbage
    RUN/.store/refine/shard/NAME-KEY/    a committed artifact; immutable, its files are read-only
    RUN/refine/                          a view: hard links into artifacts, with a manifest

    build                        commit                                  publish
    .staging/7-ab/x.parquet  →  hash and flush files, write manifest  →  RUN/refine/ is replaced
                                 rename to .store/refine/shard/a-3f/      by a folder of links

A rename is atomic, and the manifest is the last file that a commit writes. So an artifact is
either whole or absent, whenever the process is killed. What decides the bytes of an artifact is
its `Step`; the SHA-256 of the step is the key:

    step = Step("refine/shard", "books.1f2e", 5, {"filters": ["gopher"]}, {"collect": "9a0c…"})
    artifact = store.find(step) or store.build(step, refine_shard, {"filters": ["gopher"], …})
    store.publish("refine", {"documents/books.1f2e.parquet": artifact.path / …}, [artifact])

A `manifest.json` holds step, name, version, key, settings and inputs; `files`: path → size and
SHA-256; `content`: SHA-256 over the files, which later steps take as their input; `facts`: counts
for people; `seconds`, and `processor_seconds` of the process that built it. That of a view holds
its `view` name, `artefacts` (step, name, key, content, seconds of each), `facts`, `files` and
`content`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from groundup.errors import StoreError
from groundup.runtime.files import canonical, content_digest, file_digest, flush, link, make_folder
from groundup.runtime.resources import processor_seconds
from groundup.runtime.sealed import read_sealed, write_sealed

MANIFEST = "manifest.json"
# Suffix of a staging folder between its first flush and the rename. Tests of kills count what a
# kill leaves under this name.
COMMITTING = ".commit"

Facts = dict[str, Any]
# Path in a folder → its size and SHA-256.
Files = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Step:
    """What decides the bytes of an artifact: step, version, settings and contents of its inputs."""

    step: str  # stage and step, such as `refine/shard`
    name: str  # among the artifacts of the step
    version: int  # raised by hand when equal settings and inputs begin to give other bytes
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)  # name → content

    @cached_property
    def key(self) -> str:
        """SHA-256 of the step as canonical JSON."""
        # Times and absolute paths are not in it: a moved run, or another machine, finds the same.
        parts = [self.step, self.name, self.version, self.settings, self.inputs]
        return hashlib.sha256(canonical(parts).encode()).hexdigest()


class ShardManifest(Mapping[str, Any]):
    """A manifest in little memory, since a run holds one for each of 100,000 shards.

    Short values are kept as they are. `inputs` (the digests of hundreds of raw files) are read from
    disk again where they are asked for, once a run at most; what else there is (settings, files,
    facts) is kept as compressed JSON, and decoded each time.
    """

    SHORT = ("step", "name", "version", "key", "content", "seconds", "processor_seconds")
    ON_DISK = "inputs"

    __slots__ = ("_names", "_packed", "_path", "_short")

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self._path = path
        self._names = _same_tuple(tuple(manifest))
        self._short = tuple(manifest.get(name) for name in self.SHORT)
        rest = {n: manifest[n] for n in manifest if n not in self.SHORT and n != self.ON_DISK}
        self._packed = zlib.compress(json.dumps(rest, separators=(",", ":")).encode(), 1)

    def __getitem__(self, name: str) -> Any:
        if name in self.SHORT and name in self._names:
            return self._short[self.SHORT.index(name)]
        if name != self.ON_DISK:
            return json.loads(zlib.decompress(self._packed))[name]
        manifest = read_sealed(self._path / MANIFEST)
        if manifest is None:
            raise StoreError(f"{self._path}: it vanished during the run; run again to build it")
        return manifest[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@lru_cache(maxsize=64)
def _same_tuple(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return one object for equal tuples."""
    return names


@dataclass(frozen=True, slots=True)
class Artifact:
    """A committed folder and its manifest; a view has no step, name and key."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def step(self) -> str:
        """Stage and step, such as `refine/shard`."""
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
        """Time that building it took."""
        return float(self.manifest["seconds"])

    @property
    def processor_seconds(self) -> float:
        """Processor time that building it took; 0 for an artifact of an older version."""
        return float(self.manifest.get("processor_seconds", 0.0))


def load_artifact(path: Path) -> Artifact | None:
    """Return the artifact at `path` if its manifest parses and every file has its recorded size."""
    try:
        manifest = read_sealed(path / MANIFEST)
        if manifest is None or "files" not in manifest:
            return None
        # Sizes only: hashing a corpus at every start would take minutes; `groundup verify` does it.
        sizes = {name: entry["size"] for name, entry in manifest["files"].items()}
        same = all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, StoreError):
        return None
    return _artifact(path, manifest) if same else None


def _artifact(path: Path, manifest: Mapping[str, Any]) -> Artifact:
    """Return an artifact, or a view, of which a run holds one or two at a time."""
    return Artifact(path, ShardManifest(path, manifest) if "step" in manifest else manifest)


def changed_files(artifact: Artifact, names: Collection[str] | None = None) -> list[str]:
    """Return a line for each file of an artifact whose bytes are not those of its manifest.

    `names` limits it to these files.
    """
    wrong = []
    for name, entry in artifact.manifest["files"].items():
        if names is not None and name not in names:
            continue
        path = artifact.path / name
        if not path.is_file():
            wrong.append(f"{path}: missing")
        elif path.stat().st_size != entry["size"] or file_digest(path) != entry["sha256"]:
            wrong.append(f"{path}: its bytes are not those that were written")
    return wrong


def folder_files(folder: Path, known: Files | None = None) -> dict[str, Mapping[str, Any]]:
    """Return size and SHA-256 of every file below `folder`; `known` digests are not computed."""
    files: dict[str, Mapping[str, Any]] = {}
    for name in sorted(_file_names(folder)):
        size = (folder / name).stat().st_size
        same = known.get(name) if known else None
        files[name] = same if same and same["size"] == size else {"size": size}
    files.pop(MANIFEST, None)
    unknown = [name for name, entry in files.items() if "sha256" not in entry]
    # Hashing releases the GIL, and a checkpoint is two large files.
    with ThreadPoolExecutor(2) as pool:
        digests = pool.map(file_digest, [folder / name for name in unknown])
        for name, digest in zip(unknown, digests, strict=True):
            files[name] = {**files[name], "sha256": digest}
    return files


def _file_names(folder: Path) -> Iterator[str]:
    """Yield the path of every file below `folder`, relative to it: a view has 300,000."""
    for place, _, names in os.walk(folder):
        below = os.path.relpath(place, folder)
        yield from names if below == "." else (f"{below}/{name}" for name in names)


def commit(
    staging: Path,
    target: Path,
    manifest: Mapping[str, Any],
    known: Files | None = None,
    key: str = "",
) -> Artifact:
    """Turn a staging folder into `target` by one rename; a folder at `target` is replaced.

    But an intact artifact of the same `key` there is returned. `known` are the digests of files
    that are hard links to committed files, which need no flush.
    """
    committing = staging.with_name(staging.name + COMMITTING)
    staging.rename(committing)
    files = folder_files(committing, known)
    for name in files:
        if not known or name not in known:
            flush(committing / name)
            # Read-only: a file edited in place in a view would change the store under its key.
            (committing / name).chmod(0o444)
    # The manifest comes last, so that a folder with a manifest is whole.
    whole = {**manifest, "files": files, "content": content_digest(files)}
    write_sealed(committing / MANIFEST, whole)
    # A rename can reach the disk before the names of the files that it moved.
    for place, _, _ in os.walk(committing, topdown=False):
        flush(Path(place))
    make_folder(target.parent)
    artifact = _move_into_place(committing, target, key) or _artifact(target, whole)
    flush(target.parent)
    return artifact


def _move_into_place(source: Path, target: Path, key: str) -> Artifact | None:
    """Rename `source` to `target`, moving a folder that stands there out of the way first.

    Returns the artifact at `target` if it is whole and has the same key: then a worker that was
    given up as lost committed it first. Its bytes are the same, and others may be reading them.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        # POSIX replaces a folder by rename only if it is empty.
        existing = load_artifact(target)
        if key and existing is not None and existing.manifest.get("key") == key:
            return existing
        # Between these two renames there is no folder at `target`; a kill there costs a rebuild.
        old = source.with_name(f"old-{uuid.uuid4().hex[:12]}")
        target.rename(old)
        source.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    return None


def _linked_digests(links: Mapping[str, Path], artifacts: Iterable[Artifact]) -> Files:
    """Return size and SHA-256 of links: they were hashed when their artifact was committed."""
    linked = {str(path) for path in links.values()}
    digests = {}
    for artifact in artifacts:
        for name, entry in artifact.manifest["files"].items():
            if (path := f"{artifact.path}/{name}") in linked:
                digests[path] = entry
    names = ((name, str(path)) for name, path in links.items())
    return {name: digests[path] for name, path in names if path in digests}


@dataclass(frozen=True)
class Store:
    """The artifacts and views of one run directory. Safe to use from several worker processes."""

    root: Path

    @property
    def staging(self) -> Path:
        """Where folders grow before they are committed."""
        return self.root / ".staging"

    def artifact_path(self, step: str, name: str, key: str) -> Path:
        """Return the folder of an artifact, whether it exists or not."""
        # 64 bits of the key tell folders apart; `find` compares the whole key.
        return self.root / ".store" / step / f"{name}-{key[:16]}"

    def lookup(self, step: str, name: str, key: str) -> Artifact | None:
        """Return an artifact if the store has it whole."""
        return load_artifact(self.artifact_path(step, name, key))

    def find(self, step: Step) -> Artifact | None:
        """Return the artifact of `step` if it is there, whole, and of the same key."""
        artifact = self.lookup(step.step, step.name, step.key)
        return artifact if artifact is not None and artifact.key == step.key else None

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """Yield an empty folder on the run's file system; it is deleted unless it is committed."""
        # The process id is for people; two nodes of a cluster may have the same.
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
        """Run `function(folder, **arguments)` in a staging folder and commit what it wrote."""
        start, processor = time.perf_counter(), processor_seconds()
        with self.stage() as folder:
            facts = function(folder, **arguments)
            parts = ("step", "name", "version", "key", "settings", "inputs")
            manifest = {part: getattr(step, part) for part in parts}
            manifest |= {"facts": facts, "seconds": round(time.perf_counter() - start, 3)}
            manifest["processor_seconds"] = round(processor_seconds() - processor, 3)
            target = self.artifact_path(step.step, step.name, step.key)
            return commit(folder, target, manifest, key=step.key)

    def wait_until_visible(self, artifact: Artifact, patience: float = 60.0) -> Artifact:
        """Return an artifact that a worker committed, as soon as this machine sees it.

        NFS caches for up to a minute that a name does not exist; reading the folder makes it ask
        again. Raises StoreError after `patience` seconds.
        """
        end = time.monotonic() + patience
        while not (artifact.path / MANIFEST).exists():
            if time.monotonic() > end:
                why = "a worker committed it, and this machine does not see it"
                raise StoreError(f"{artifact.path}: {why}; is the file system shared?")
            # From the run directory down: the parent folders may be unknown here, too.
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
        """Replace the stage folder `view` by hard links, unless it already holds the same.

        `links` is name in the view → file of an artifact; the manifest lists the `artifacts`.
        """
        fields = ("step", "name", "key", "content", "seconds")
        entries = [{name: getattr(artifact, name) for name in fields} for artifact in artifacts]
        old = self.view(view)
        # An equal view is not replaced: its times would change, and people may be reading it.
        if old and (old.manifest["artefacts"], set(old.manifest["files"])) == (entries, set(links)):
            return old
        # A view of 100,000 shards is large.
        del old
        known = _linked_digests(links, artifacts)
        with self.stage() as folder:
            for place in {name.rpartition("/")[0] for name in links}:
                (folder / place).mkdir(parents=True, exist_ok=True)
            for name, path in links.items():
                link(path, folder / name)
            manifest = {"view": view, "artefacts": entries, "facts": facts or {}}
            return commit(folder, self.root / view, manifest, known)

    def view(self, view: str) -> Artifact | None:
        """Return the published stage folder, if it is there and whole."""
        artifact = load_artifact(self.root / view)
        return artifact if artifact is not None and "artefacts" in artifact.manifest else None

    def artifact(self, entry: Mapping[str, Any]) -> Artifact | None:
        """Return the artifact that a view's entry names, if the store still has it."""
        return self.lookup(str(entry["step"]), str(entry["name"]), str(entry["key"]))

    def artifacts(self, view: str, step: str) -> list[Artifact]:
        """Return the artifacts of one step that a published view lists, in order."""
        published = self.view(view)
        entries = published.manifest["artefacts"] if published is not None else []
        listed = (self.artifact(entry) for entry in entries if entry["step"] == step)
        return [artifact for artifact in listed if artifact is not None]

    def plan(self, stage: str) -> dict[str, dict[str, str]]:
        """Return what the stage last set out to build: step → name → key."""
        return read_sealed(self.root / ".store" / stage / "plan.json") or {}

    def write_plan(self, stage: str, plan: Mapping[str, Mapping[str, str]]) -> None:
        """Write the plan, before the work, so that a kill cannot hide what the work cost."""
        make_folder(self.root / ".store" / stage)
        write_sealed(self.root / ".store" / stage / "plan.json", plan)

    def discarded_seconds(self, stage: str) -> float:
        """Return the seconds of work of a stage that were discarded since it was last published."""
        table = read_sealed(self.root / ".store" / stage / "thrown-away.json") or {}
        return float(table.get("seconds", 0.0))

    def set_discarded_seconds(self, stage: str, seconds: float) -> None:
        """Remember `discarded_seconds` across processes; 0 forgets it."""
        path = self.root / ".store" / stage / "thrown-away.json"
        if seconds:
            make_folder(path.parent)
            write_sealed(path, {"seconds": seconds})
        else:
            path.unlink(missing_ok=True)

    def discard(self, folders: Iterable[Path]) -> None:
        """Delete folders of the run; each is renamed first, so a kill leaves no half of one."""
        for path in folders:
            with contextlib.suppress(FileNotFoundError):
                trash = self.staging / f"trash-{uuid.uuid4().hex[:12]}"
                trash.parent.mkdir(exist_ok=True)
                path.rename(trash)
                shutil.rmtree(trash, ignore_errors=True)

    def unreferenced(self, views: Iterable[str]) -> list[Path]:
        """Return the artifact folders that none of the views names, damaged ones included."""
        named = set()
        for name in views:
            view = self.view(name)
            for entry in view.manifest["artefacts"] if view else ():
                named.add(self.artifact_path(entry["step"], entry["name"], entry["key"]))
        return [path for path in (self.root / ".store").glob("*/*/*") if path not in named]

    def archive(self, view: str) -> Path | None:
        """Move a stage folder to `RUN/aside/VIEW-N`; its hard links keep every byte."""
        path = self.root / view
        if not path.exists():
            return None
        archive = self.root / "aside"
        make_folder(archive)
        # The user may have put folders of other names there.
        suffixes = [folder.name.rpartition("-")[2] for folder in archive.glob(f"{view}-*")]
        last = max((int(suffix) for suffix in suffixes if suffix.isdecimal()), default=0)
        archived = path.rename(archive / f"{view}-{last + 1}")
        # Before the name of what replaces it.
        flush(archive)
        return archived

    def clean(self) -> None:
        """Empty the staging area; only under the run's lock.

        It is renamed as a whole first. A worker that outlived its parent then finds its folder gone
        and cannot commit half of it.
        """
        trash = self.root / f".trash-{uuid.uuid4().hex[:12]}"
        with contextlib.suppress(FileNotFoundError):
            self.staging.rename(trash)
        for old in self.root.glob(".trash-*"):
            shutil.rmtree(old, ignore_errors=True)
        self.staging.mkdir(parents=True, exist_ok=True)
