"""What runs where the work is done: makes a call and packs its answer; says what a machine has and
sees.

Reads the places that it is told to look at, and writes a mark beside one of them. Ray carries this
module to its nodes by
value, to find out whether groundup is there at all: so it imports the standard library only.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pickle
import platform
import socket
import traceback
import uuid
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

_FAULTLESS: set[str] = set()


def attempt(call: bytes) -> bytes:
    """Make a pickled (function, arguments) call and return its pickled (value, error), one of which
    is None.
    """
    try:
        function, arguments = pickle.loads(call)
        return pickle.dumps((function(*arguments), None))
    except Exception as error:
        # The traceback stays on this machine; its text goes with the error, for GROUNDUP_TRACEBACK.
        error.add_note("".join(traceback.format_exception(error)))
        return _pack_error(error)


def _pack_error(error: Exception) -> bytes:
    try:
        packed = pickle.dumps((None, error))
        pickle.loads(packed)
        return packed
    except Exception:
        return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))


def perform(expected: Mapping[str, Any], call: bytes) -> tuple[str, bytes]:
    """Make a call on a node of a cluster, if the node is what is expected; an empty call only
    looks.

    Returns:
        what is wrong with the node ("" for nothing), and the answer.
    """
    if expected["token"] not in _FAULTLESS:
        wrong = fault(expected)
        if wrong:
            return f"node {socket.gethostname()}: {wrong}", b""
        _FAULTLESS.add(expected["token"])
    return "", attempt(call) if call else b""


def fault(expected: Mapping[str, Any]) -> str:
    """Return what is wrong with this machine, in words, or ""."""
    found = versions(expected["versions"])
    if not found["groundup"]:
        return (
            "groundup is not installed there; run `pip install"
            f" groundup=={expected['versions']['groundup']}` on every node"
        )
    differ = [
        f"{name} {found[name] or 'is missing'} (here {want})"
        for name, want in expected["versions"].items()
        if found[name] != want
    ]
    if differ:
        return f"{', '.join(differ)}; install the same versions on every node"
    if sources() != expected["sources"]:
        return (
            f"its groundup {found['groundup']} has other source files than the one here; install"
            " the same one on every node"
        )
    return _unseen(expected["places"]) or _unwritable(expected["writable"])


def _unseen(places: Mapping[str, tuple[str, int]]) -> str:
    for title, (path, inode) in places.items():
        try:
            same = Path(path).stat().st_ino == inode
        except OSError:
            same = False
        if not same:
            return (
                f"does not see {title}; it must lie on a file system that all nodes mount at the"
                " same place"
            )
    return ""


def _unwritable(folder: str) -> str:
    try:
        mark = Path(folder, f"mark-{uuid.uuid4().hex[:12]}")
        mark.touch()
        mark.unlink()
    except OSError as error:
        return f"cannot write to {folder}: {error.strerror}"
    return ""


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the version of each distribution, "" for one that is not installed; Python's by its
    minor version.
    """
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    if name == "python":
        return ".".join(platform.python_version_tuple()[:2])
    if name == "groundup":
        # Not its metadata: a source tree on PYTHONPATH has none.
        return (
            str(getattr(importlib.import_module(name), "__version__", ""))
            if importlib.util.find_spec(name)
            else ""
        )
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def sources() -> str:
    """Return a SHA-256 over the source files of groundup: two checkouts of one version may hold
    different code.
    """
    folder = Path(str(importlib.import_module("groundup").__file__)).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(
            f"{path.relative_to(folder).as_posix()}"
            f" {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
        )
    return digest.hexdigest()
