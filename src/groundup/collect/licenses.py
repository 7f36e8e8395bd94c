"""Tells a licence from the text of a LICENSE file, and a project from the paths of its files. Reads
and writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from groundup.collect.readers.code_languages import DOCS, language_of

# Names in the SPDX list; the first pattern that a text holds decides, so the narrower stand first.
_SIGNS = (
    ("AGPL-3.0", r"gnu affero general public license"),
    ("LGPL-3.0", r"gnu lesser general public license.{0,60}version 3"),
    ("LGPL-2.1", r"gnu (?:lesser|library) general public license"),
    ("GPL-3.0", r"gnu general public license.{0,60}version 3"),
    ("GPL-2.0", r"gnu general public license|/common-licenses/gpl"),
    ("MPL-2.0", r"mozilla public license,? (?:version|v\.?) ?2"),
    ("EPL-2.0", r"eclipse public license"),
    ("Apache-2.0", r"apache license,? (?:version|v\.?) ?2|apache-2\.0|/common-licenses/apache-2"),
    ("Artistic-2.0", r"artistic license"),
    ("Unlicense", r"this is free and unencumbered software released into the public domain"),
    ("CC0-1.0", r"cc0 1\.0"),
    (
        "BSD-3-Clause",
        (
            r"redistributions? (?:and use )?in source and binary forms.{0,2500}neither the"
            r" name|bsd-3-clause"
        ),
    ),
    ("BSD-2-Clause", r"redistribution and use in source and binary forms|bsd-2-clause"),
    (
        "ISC",
        (
            r"permission to use, copy, modify,? and(?:/or)? distribute this software for any"
            r" purpose with or without fee"
        ),
    ),
    ("Zlib", r"this software is provided 'as-is', without any express or implied"),
    ("PSF-2.0", r"python software foundation license"),
    ("BSL-1.0", r"boost software license"),
    (
        "MIT",
        (
            r"permission is hereby granted, free of charge|\bmit license\b|^(?:license:"
            r" )?(?:mit|expat)$|license: expat"
        ),
    ),
)
_COMPILED = tuple((name, re.compile(sign, re.MULTILINE)) for name, sign in _SIGNS)
_LICENSE_FILE = re.compile(
    r"(?:un)?licen[cs]e(?:s)?(?:[-.]\w+)*|copying(?:[-.]\w+)*|copyright", re.IGNORECASE
)
_PACKAGED = re.compile(r"(.*!)/(?:.*/)?usr/share/doc/[^/]+/copyright")
_MARKERS = frozenset(
    "setup.py setup.cfg pyproject.toml package.json cargo.toml go.mod makefile cmakelists.txt"
    " pom.xml build.gradle gemfile composer.json configure.ac meson.build pkg-info readme readme.md"
    " readme.rst readme.txt".split()
)
# A licence is short; what is longer quotes others.
LICENSE_BYTES = 1 << 16


def detect_license(text: str) -> str:
    """Return the SPDX name of the licence that a text grants, or "" when it is none that is known."""
    flat = re.sub(r"[ \t]+", " ", re.sub(r"\n[ \t#*/]*(?=\S)", "\n", text[:LICENSE_BYTES].lower()))
    lines, joined = flat, flat.replace("\n", " ")
    # The licence whose sign stands first is the one granted; later ones are of parts, or quoted.
    found = [
        (match.start(), order, name)
        for order, (name, sign) in enumerate(_COMPILED)
        if (match := sign.search(joined) or sign.search(lines))
    ]
    return min(found)[2] if found else ""


def is_license_file(path: str) -> bool:
    """Return whether a path is that of a licence: `LICENSE.md`, `COPYING`, but not `license.py`, a
    program about them.
    """
    name = path.rpartition("/")[2]
    # LICENSE.ru is a translation, license.rb a program.
    program = language_of(name) not in ("", *DOCS) and not name[:7].isupper()
    return not program and _LICENSE_FILE.fullmatch(name) is not None


def project_roots(paths: Iterable[str]) -> frozenset[str]:
    """Return the topmost folders that hold a project: a licence, a readme or a build file; "" is
    the top itself.
    """
    holders = {
        path.rpartition("/")[0]
        for path in paths
        if is_license_file(path) or path.rpartition("/")[2].lower() in _MARKERS
    }
    return frozenset(
        folder for folder in holders if not any(above in holders for above in _above(folder))
    )


def _above(folder: str) -> list[str]:
    parts = folder.split("/") if folder else []
    return ["/".join(parts[:n]) for n in range(len(parts))]


def project_root(path: str, roots: frozenset[str]) -> str:
    """Return the project root that a path lies in; without one, its first folder."""
    for folder in [*_above(path.rpartition("/")[0]), path.rpartition("/")[0]]:
        if folder in roots:
            return folder
    return path.partition("/")[0] if "/" in path else ""


def project_licenses(paths: Sequence[str], licenses: Mapping[str, str]) -> dict[str, str]:
    """Return the roots of the projects among `paths`, each with the licence that lies nearest to
    it.

    Args:
        paths: of all files.
        licenses: of licence files → the licence that they hold.
    """
    roots = project_roots(paths) | _packages(licenses)
    found = dict.fromkeys(sorted(roots), "")
    for path in sorted(licenses, key=lambda path: (path.count("/"), path)):
        root = project_root(path, roots)
        if licenses[path] and not found.get(root):
            found[root] = licenses[path]
    return found


def _packages(licenses: Iterable[str]) -> frozenset[str]:
    """Return the archives that are packages of Debian, whose one licence file lies far from the
    files that it is for (Policy 12.5).
    """
    archives = {match[1] for path in licenses if (match := _PACKAGED.fullmatch(path))}
    own = [path for path in licenses if not _PACKAGED.fullmatch(path)]
    return frozenset(
        archive for archive in archives if not any(path.startswith(f"{archive}/") for path in own)
    )


def archive_project(name: str) -> str:
    """Return the project that an archive is named for, without version and suffix:
    `flask-3.0.3.tar.gz` → `flask`.
    """
    stem = re.sub(
        r"\.(?:tar(?:\.\w+)?|tgz|tbz2?|txz|zip|whl|egg|gem|crate)$",
        "",
        name.rpartition("/")[2],
        flags=re.IGNORECASE,
    )
    return (re.sub(r"[-_.]v?\d.*$", "", stem) or stem).lower().replace("_", "-")
