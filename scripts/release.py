"""Build what a release is made of into dist/.

Wheel, sdist, the lock that the wheel is installed with, the bill of materials, SHA256SUMS of these,
and the changelog's part.

`make release` calls it. Nothing is uploaded. The version comes from the package; a checkout at a
tag must carry the tag of that version.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from groundup import __version__
from scripts.lock import WHEEL
from scripts.sbom import bill

PROJECT = Path(__file__).parent.parent
DIST = PROJECT / "dist"


def changes(changelog: str, version: str) -> str:
    """Return the part of the changelog that belongs to a version; "Unreleased" where it has none.

    Raises:
        SystemExit: the changelog has neither.
    """
    for title in (version, "Unreleased"):
        heading = rf"^## \[?{re.escape(title)}\]?[^\n]*\n(.*?)(?=^## |\Z)"
        if part := re.search(heading, changelog, re.M | re.S):
            return part[1].strip() + "\n"
    sys.exit(f"CHANGELOG.md: there is no part for {version}")


def git(*arguments: str) -> str:
    """Return what git prints about the checkout; nothing outside of git."""
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def main() -> None:
    """Build the files, or say in one line why not."""
    tags = git("tag", "--points-at", "HEAD").split()
    named = [tag for tag in tags if re.fullmatch(r"v\d+\..*", tag)]
    if named and f"v{__version__}" not in named:
        sys.exit(f"the tag is {named[0]} and the package says {__version__}: change one of them")
    shutil.rmtree(DIST, ignore_errors=True)
    # The build backend is installed already, so that nothing is fetched here.
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(DIST)]
    subprocess.run(build, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    shutil.copy(WHEEL, DIST / f"groundup-{__version__}.lock.txt")
    materials = json.dumps(bill(__version__, git("log", "-1", "--format=%cI")), indent=1)
    (DIST / f"groundup-{__version__}.cdx.json").write_text(materials + "\n", encoding="utf-8")
    built = sorted(DIST.iterdir())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in built]
    (DIST / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    changelog = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    (DIST / "CHANGES.md").write_text(changes(changelog, __version__), encoding="utf-8")
    for path in sorted(DIST.iterdir()):
        print(f"{path.relative_to(PROJECT)}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
