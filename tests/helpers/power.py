"""Simulates power cuts: what a disk holds if the power fails at any moment of a run.

Between two calls of fsync nothing more is sure to reach the disk, so one state for each call covers
every write between them. `record` runs a command with `os.fsync` replaced in all of its processes
by one that notes what becomes durable: the bytes of a file, or the names in a folder. `states`
builds from these notes what may be left after each call:

- "lost": a file has the bytes of its last fsync (none if there was none), and a folder the names of
  its last fsync: all that is not synced is gone.
- "names": names reach the disk at once, as journaling file systems do it, but bytes do not.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_NOTES = "GROUNDUP_TEST_POWER"
# FS_IOC_GETVERSION: a new file that gets the number of a deleted inode has another generation.
_GENERATION = 0x80087601

# The names in a folder: name → identity, and whether it is a folder.
Names = dict[str, tuple[str, bool]]


def record(command: Sequence[str], root: Path, notes: Path) -> None:
    """Run a command that writes to `root`, and note every fsync below it in `notes`."""
    (notes / "site").mkdir(parents=True)
    (notes / "site" / "sitecustomize.py").write_text(
        "from tests.helpers import power\npower.install()\n"
    )
    (notes / "bytes").mkdir()
    paths = [str(notes / "site"), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        _NOTES: json.dumps([str(root), str(notes)]),
    }
    done = subprocess.run(command, check=False, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()


def install() -> None:
    """Replace `os.fsync` in this process; called by each process of the recorded command."""
    if _NOTES not in os.environ:
        return
    root, notes = map(Path, json.loads(os.environ[_NOTES]))
    fsync = os.fsync

    def noted_fsync(fd: Any) -> None:
        fsync(fd)
        descriptor = fd if isinstance(fd, int) else fd.fileno()
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_relative_to(root) and path.exists():
            with (notes / "log").open("a") as log:
                fcntl.flock(log, fcntl.LOCK_EX)
                log.write(json.dumps(_note(path, root, notes)) + "\n")

    os.fsync = noted_fsync


def _note(path: Path, root: Path, notes: Path) -> dict[str, Any]:
    """Return what an fsync made durable, and all names below the root at that moment."""
    if path.is_dir():
        durable: dict[str, Any] = {"names": _names(path)}
    else:
        content = path.read_bytes()
        durable = {"bytes": hashlib.sha256(content).hexdigest()}
        (notes / "bytes" / durable["bytes"]).write_bytes(content)
    tree = {_identity(folder): _names(folder) for folder in _folders(root)}
    return {"of": _identity(path), "root": _identity(root), "tree": tree} | durable


def _folders(root: Path) -> Iterator[Path]:
    for folder, _, _ in os.walk(root):
        if Path(folder).exists():
            yield Path(folder)


def _names(folder: Path) -> Names:
    names: Names = {}
    for entry in os.scandir(folder):
        # What another process removes meanwhile is gone.
        try:
            is_folder = stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode)
            names[entry.name] = (_identity(Path(entry.path)), is_folder)
        except FileNotFoundError:
            continue
    return names


def _identity(path: Path) -> str:
    """Return a name for an inode that no later inode has."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        generation = struct.pack("l", 0)
        with contextlib.suppress(OSError):
            generation = fcntl.ioctl(descriptor, _GENERATION, generation)
        return f"{os.fstat(descriptor).st_ino}-{struct.unpack('l', generation)[0]}"
    finally:
        os.close(descriptor)


def states(notes: Path) -> Iterator[tuple[str, dict[str, Path | None]]]:
    """Yield the different states of a disk, each a name and its files (path → bytes, None if lost).

    A folder is there if its path ends with a slash.
    """
    contents: dict[str, Path] = {}
    durable: dict[str, Names] = {}
    seen = set()
    for number, line in enumerate((notes / "log").read_text().splitlines()):
        note = json.loads(line)
        if "bytes" in note:
            contents[note["of"]] = notes / "bytes" / note["bytes"]
        else:
            durable[note["of"]] = note["names"]
        for kind, names in (("lost", durable), ("names", note["tree"])):
            files = dict(_below(note["root"], "", names, contents))
            key = json.dumps({name: str(files[name]) for name in sorted(files)})
            if (kind, key) not in seen:
                seen.add((kind, key))
                yield f"{kind}-{number:04d}", files


def _below(
    folder: str, prefix: str, names: Mapping[str, Names], contents: Mapping[str, Path]
) -> Iterator[tuple[str, Path | None]]:
    for name, (identity, is_folder) in names.get(folder, {}).items():
        if is_folder:
            yield f"{prefix}{name}/", None
            yield from _below(identity, f"{prefix}{name}/", names, contents)
        else:
            yield f"{prefix}{name}", contents.get(identity)


def restore(files: Mapping[str, Path | None], root: Path) -> None:
    """Write a state of a disk to `root`."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name, source in files.items():
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        elif source is None:
            path.touch()
        else:
            shutil.copyfile(source, path)
