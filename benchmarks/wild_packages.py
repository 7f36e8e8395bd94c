"""Documents and test data of source packages, by sort, measured as in the benchmark `wild`: which
share of the words of a file we recover, and which share of ours is rubbish, beside markitdown and
unstructured (its fast strategy).

wild_packages.toml lists the packages with their versions and hashes, and which of their files are
taken. The patterns were written from the names of files alone: those that a person writes to be
read, or that a test of a library of mail, office, PDF or notebooks reads as if so. Not taken are,
by rules that know nothing of what we make of a file: copies of a file taken before or of one in the
shared folder, files of more than 3 MB, and files of which the reference has fewer than 20 words,
which test a feature and are no prose. Of a sort at most 30 files of a package are taken, evenly
spread over their names. References, words and measures are those of `wild`.

The archives are fetched by pip and npm into the cache of groundup, and unpacked there; their
hashes are checked. Nothing of them is installed or run by this benchmark; pip asks the build system
of a package for its name.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.detection import spread
from benchmarks.machine import test_data
from benchmarks.wild import SORTS, compare
from groundup.runtime.fetch.download import cache_root
from groundup.runtime.files import file_digest

TABLE = Path(__file__).with_name("wild_packages.toml")
MAX_BYTES = 3 << 20
MIN_WORDS = 20


@dataclass(frozen=True)
class Package:
    """A source package, and globs of its files by sort."""

    name: str
    version: str
    sha256: str
    files: Mapping[str, Sequence[str]]
    registry: str = "pypi"

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.version}"

    def fetch_command(self, folder: Path) -> list[str]:
        """Return the command that puts the archive into a folder."""
        if self.registry == "npm":
            command = ["npm", "pack", "--silent", "--pack-destination", str(folder)]
            return [*command, f"{self.name}@{self.version}"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        # Only this package: what builds it may come as a wheel.
        command += ["--no-binary", self.name, "--dest", str(folder)]
        return [*command, f"{self.name}=={self.version}"]


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None or not (data / "wild").is_dir():
        return None
    root = cache_root() / "packages"
    files, copies = chosen_files(unpacked_packages(root), root, data / "wild")
    measured = compare(files, root, __doc__, MIN_WORDS)
    measured["files by package"] = counts_by_package(files, root)
    measured["copies, not taken"] = copies
    return measured


def packages() -> list[Package]:
    """Return the packages of the table."""
    return [Package(**row) for row in tomllib.loads(TABLE.read_text(encoding="utf-8"))["package"]]


def unpacked_packages(root: Path) -> Iterator[tuple[Package, Path]]:
    """Yield each package with its folder below `root`, after fetching it if it is not there."""
    for package in packages():
        folder = root / package.folder
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=made(root)) as made_folder:
                fetch_archive(package, Path(made_folder))
                (Path(made_folder) / "files").rename(folder)
        yield package, folder


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch_archive(package: Package, folder: Path) -> None:
    """Fetch a package, check its hash, and unpack it into `folder`/files.

    Raises:
        subprocess.CalledProcessError: pip or npm does not give it.
        ValueError: its SHA-256 is another one.
    """
    subprocess.run(package.fetch_command(folder), check=True, stdout=subprocess.DEVNULL)
    (archive,) = (path for path in folder.iterdir() if path.is_file())
    if (digest := file_digest(archive)) != package.sha256:
        raise ValueError(f"{package.folder}: its sha256 is {digest}, not {package.sha256}")
    if archive.suffix == ".zip":
        shutil.unpack_archive(archive, folder / "files")
        return
    with tarfile.open(archive) as members:
        members.extractall(folder / "files", filter="data")


def chosen_files(
    unpacked: Iterator[tuple[Package, Path]], root: Path, shared: Path
) -> tuple[dict[str, list[Path]], int]:
    """Return the files by sort, and how many copies were passed over."""
    seen = {file_digest(path) for path in shared.rglob("*") if path.is_file()}
    files: dict[str, list[Path]] = {sort: [] for sort in SORTS}
    copies = 0
    for package, folder in unpacked:
        for sort, globs in package.files.items():
            own = []
            for path in matches(folder, globs):
                digest = file_digest(path)
                copies += digest in seen
                own += [path] if digest not in seen else []
                seen.add(digest)
            files[sort] += spread(own)
    return {sort: each for sort, each in files.items() if each}, copies


def matches(folder: Path, globs: Sequence[str]) -> list[Path]:
    """Return the files of the folder inside of `folder` that fit a glob, in order.

    Raises:
        ValueError: a glob fits none.
    """
    (top,) = folder.iterdir()
    paths: set[Path] = set()
    for glob in globs:
        fitting = set(top.glob(glob))
        if not fitting:
            raise ValueError(f"{folder.name}: no file fits {glob}")
        paths |= fitting
    return sorted(path for path in paths if path.is_file() and path.stat().st_size <= MAX_BYTES)


def counts_by_package(files: Mapping[str, Sequence[Path]], root: Path) -> dict[str, int]:
    """Return the number of files of each package, with its version."""
    counts = {package.folder: 0 for package in packages()}
    for each in files.values():
        for path in each:
            counts[path.relative_to(root).parts[0]] += 1
    return counts
