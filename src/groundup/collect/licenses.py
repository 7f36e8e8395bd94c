"""Detects licenses in LICENSE files, and the projects in a source tree or archive of code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.collect import read_table
from groundup.collect.readers.code import is_license_file

_TABLES: Any = read_table("licenses.toml")
_PATTERNS = {name: re.compile(text, re.MULTILINE) for name, text in _TABLES["patterns"].items()}
_PROJECT_FILES = frozenset(_TABLES["projects"]["files"].split())
# Debian packages: the one license file lies far from the files that it covers (Policy 12.5).
_DEBIAN_COPYRIGHT = re.compile(r"(.*!)/(?:.*/)?usr/share/doc/[^/]+/copyright")
_ARCHIVE_SUFFIX = re.compile(r"\.(?:tar(?:\.\w+)?|tgz|tbz2?|txz|zip|whl|egg|gem|crate)$", re.I)
# A license is short; longer texts quote others.
LICENSE_BYTES = 1 << 16


def detect_license(text: str) -> str:
    """Return the SPDX name of the license that a text grants, or "" if it is none that is known."""
    lines = re.sub(r"\n[ \t#*/]*(?=\S)", "\n", text[:LICENSE_BYTES].lower())
    lines = re.sub(r"[ \t]+", " ", lines)
    joined = lines.replace("\n", " ")
    # The license whose pattern matches first is the one granted; later ones cover parts, or are
    # quoted. The order of the table breaks ties.
    hits = [
        (match.start(), rank, name)
        for rank, (name, pattern) in enumerate(_PATTERNS.items())
        if (match := pattern.search(joined) or pattern.search(lines))
    ]
    return min(hits)[2] if hits else ""


def project_roots(paths: Iterable[str]) -> frozenset[str]:
    """Return the topmost folders with a license, readme or build file; "" is the top itself."""
    folders = {
        path.rpartition("/")[0]
        for path in paths
        if is_license_file(path) or path.rpartition("/")[2].lower() in _PROJECT_FILES
    }
    return frozenset(folder for folder in folders if folders.isdisjoint(_parents(folder)))


def _parents(folder: str) -> list[str]:
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:n]) for n in range(len(parts))]


def project_root(path: str, roots: frozenset[str]) -> str:
    """Return the project root that a path lies in; without one, its first folder."""
    folder = path.rpartition("/")[0]
    above = (parent for parent in [*_parents(folder), folder] if parent in roots)
    return next(above, path.partition("/")[0] if "/" in path else "")


def project_licenses(paths: Sequence[str], licenses: Mapping[str, str]) -> dict[str, str]:
    """Return the project roots among `paths`, each with the license that lies nearest to it.

    `licenses` is path of a license file → license.
    """
    debian = {match[1] for path in licenses if (match := _DEBIAN_COPYRIGHT.fullmatch(path))}
    others = [path for path in licenses if not _DEBIAN_COPYRIGHT.fullmatch(path)]
    roots = project_roots(paths) | {
        package for package in debian if not any(path.startswith(f"{package}/") for path in others)
    }
    by_root = dict.fromkeys(sorted(roots), "")
    for path in sorted(licenses, key=lambda path: (path.count("/"), path)):
        root = project_root(path, roots)
        if licenses[path] and not by_root.get(root):
            by_root[root] = licenses[path]
    return by_root


def folder_projects(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the project roots among files (path in the source → path on disk), with licenses."""
    licenses = {}
    for path, file in files.items():
        if is_license_file(path):
            with file.open("rb") as opened:
                text = opened.read(LICENSE_BYTES).decode("utf-8", "replace")
            licenses[path] = detect_license(text)
    return project_licenses(list(files), licenses)


def archive_project(name: str) -> str:
    """Return the project in an archive's name: `flask-3.0.3.tar.gz` → `flask`."""
    stem = _ARCHIVE_SUFFIX.sub("", name.rpartition("/")[2])
    return (re.sub(r"[-_.]v?\d.*$", "", stem) or stem).lower().replace("_", "-")
