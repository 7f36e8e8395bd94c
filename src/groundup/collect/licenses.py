"""Detects licenses in LICENSE files, and the projects in a source tree or archive of code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from groundup.collect.readers.code import is_license_file

# SPDX name → pattern in the text, narrow ones first: every BSD-3-Clause text is BSD-2-Clause, too.
_PATTERNS = {
    name: re.compile(pattern, re.MULTILINE)
    for name, pattern in (
        ("AGPL-3.0", r"gnu affero general public license"),
        ("LGPL-3.0", r"gnu lesser general public license.{0,60}version 3"),
        ("LGPL-2.1", r"gnu (?:lesser|library) general public license"),
        ("GPL-3.0", r"gnu general public license.{0,60}version 3"),
        ("GPL-2.0", r"gnu general public license|/common-licenses/gpl"),
        ("MPL-2.0", r"mozilla public license,? (?:version|v\.?) ?2"),
        ("EPL-2.0", r"eclipse public license"),
        (
            "Apache-2.0",
            r"apache license,? (?:version|v\.?) ?2|apache-2\.0|/common-licenses/apache-2",
        ),
        ("Artistic-2.0", r"artistic license"),
        ("Unlicense", r"this is free and unencumbered software released into the public domain"),
        ("CC0-1.0", r"cc0 1\.0"),
        (
            "BSD-3-Clause",
            r"redistributions? (?:and use )?in source and binary forms.{0,2500}neither the"
            r" name|bsd-3-clause",
        ),
        ("BSD-2-Clause", r"redistribution and use in source and binary forms|bsd-2-clause"),
        (
            "ISC",
            r"permission to use, copy, modify,? and(?:/or)? distribute this software for any"
            r" purpose with or without fee",
        ),
        ("Zlib", r"this software is provided 'as-is', without any express or implied"),
        ("PSF-2.0", r"python software foundation license"),
        ("BSL-1.0", r"boost software license"),
        (
            "MIT",
            r"permission is hereby granted, free of charge|\bmit license\b|^(?:license:"
            r" )?(?:mit|expat)$|license: expat",
        ),
    )
}
# Debian packages: the one license file lies far from the files that it covers (Policy 12.5).
_DEBIAN_COPYRIGHT = re.compile(r"(.*!)/(?:.*/)?usr/share/doc/[^/]+/copyright")
# Files at the top of a project.
_PROJECT_FILES = frozenset(
    "setup.py setup.cfg pyproject.toml package.json cargo.toml go.mod makefile cmakelists.txt"
    " pom.xml build.gradle gemfile composer.json configure.ac meson.build pkg-info readme readme.md"
    " readme.rst readme.txt".split()
)
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
    return frozenset(
        folder for folder in folders if not any(parent in folders for parent in _parents(folder))
    )


def _parents(folder: str) -> list[str]:
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:n]) for n in range(len(parts))]


def project_root(path: str, roots: frozenset[str]) -> str:
    """Return the project root that a path lies in; without one, its first folder."""
    folder = path.rpartition("/")[0]
    for parent in [*_parents(folder), folder]:
        if parent in roots:
            return parent
    return path.partition("/")[0] if "/" in path else ""


def project_licenses(paths: Sequence[str], licenses: Mapping[str, str]) -> dict[str, str]:
    """Return the project roots among `paths`, each with the license that lies nearest to it.

    Args:
        paths: of all files.
        licenses: path of a license file → license.
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
    stem = re.sub(
        r"\.(?:tar(?:\.\w+)?|tgz|tbz2?|txz|zip|whl|egg|gem|crate)$",
        "",
        name.rpartition("/")[2],
        flags=re.IGNORECASE,
    )
    return (re.sub(r"[-_.]v?\d.*$", "", stem) or stem).lower().replace("_", "-")
