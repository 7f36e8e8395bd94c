"""Build what a release is made of into dist/: wheel, sdist, SHA256SUMS and the changelog's part.

`make release` calls it. Nothing is uploaded. The version comes from the package; a checkout at a
tag must carry the tag of that version.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from groundup import __version__

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


def tags() -> list[str]:
    """Return the tags of the commit that is checked out; none outside of git."""
    command = ["git", "tag", "--points-at", "HEAD"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    return done.stdout.split()


def main() -> None:
    """Build the files, or say in one line why not."""
    named = [tag for tag in tags() if re.fullmatch(r"v\d+\..*", tag)]
    if named and f"v{__version__}" not in named:
        sys.exit(f"the tag is {named[0]} and the package says {__version__}: change one of them")
    shutil.rmtree(DIST, ignore_errors=True)
    # The build backend is installed already, so that nothing is fetched here.
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(DIST)]
    subprocess.run(build, cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    built = sorted(DIST.iterdir())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in built]
    (DIST / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    changelog = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    (DIST / "CHANGES.md").write_text(changes(changelog, __version__), encoding="utf-8")
    for path in sorted(DIST.iterdir()):
        print(f"{path.relative_to(PROJECT)}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
