"""The command `data export`: the kept documents of a run for other programs, here or on the Hub.

    DIR/data/train-00000-of-00002.parquet        DOCUMENT schema; texts as training reads them
    DIR/data/validation-00000-of-00001.parquet
    DIR/manifest.json                            what it was made of; SHA-256 of every file

As `hf` it has a README.md, too, which the Hugging Face hub and `datasets.load_dataset(DIR)` read.
As `jsonl` the files have one JSON object a line. The folder is there whole or not at all. An
upload to hf://OWNER/NAME is that folder, written to the cache and committed to the Hub at once.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup._version import __version__
from groundup.artifacts.arrays import lengths
from groundup.artifacts.corpus import VERDICTS, RefinedShard, Split, refined_shards
from groundup.artifacts.document import DOCUMENT
from groundup.artifacts.kinds import KINDS
from groundup.errors import GroundupError
from groundup.recipe import Recipe
from groundup.report.card import hub_name
from groundup.report.page import page_template
from groundup.runtime.fetch.download import cache_root
from groundup.runtime.fetch.hub import HubRepo, hub_repo
from groundup.runtime.files import make_folder
from groundup.runtime.lock import load_lock
from groundup.runtime.progress import progress
from groundup.runtime.sealed import read_sealed
from groundup.runtime.store import MANIFEST, Store, commit

Format = Literal["jsonl", "parquet", "hf"]
# Bytes of a file of the export before compression. The hub wants Parquet files below 500 MB, which
# it and Arrow read in parallel.
FILE_BYTES = 480_000_000
# Rows of a batch that are Python objects at a time, on their way to JSON.
JSON_ROWS = 256
SUFFIXES = {"": "", "gzip": ".gz", "zstd": ".zst"}
# Marks a manifest as that of an export, which --force may replace.
EXPORT = "data export"
# Files of an export beside `data/`.
TOP_FILES = {MANIFEST, "README.md"}
# Share of the documents from which the card names a language: a few are always misjudged.
MIN_LANGUAGE = 0.01
# Upper bounds of the number of documents → the hub's name of the size.
HUB_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
HUB_SIZES |= {10_000_000: "1M<n<10M", 100_000_000: "10M<n<100M"}

Write = Callable[[pa.RecordBatch], None]


@dataclass
class Exported:
    """What was exported, counted by (split, source, kind, license, language)."""

    documents: Counter[tuple[str, ...]] = field(default_factory=Counter)
    bytes: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def add(self, split: Split, batch: pa.RecordBatch) -> None:
        """Count the documents of a batch and the bytes of their texts."""
        names = ("source", "kind", "license", "language")
        columns = {name: pc.fill_null(batch.column(name), "") for name in names}
        table = pa.table(columns | {"bytes": lengths(batch.column("text")).astype("int64")})
        sums = table.group_by(names).aggregate([("bytes", "sum"), ("bytes", "count")])
        for row in sums.to_pylist():
            key = (split, *(row[name] for name in names))
            self.documents[key] += row["bytes_count"]
            self.bytes[key] += row["bytes_sum"]

    def splits(self) -> list[Split]:
        """Return the splits that have documents, training first."""
        return [split for split in VERDICTS if any(key[0] == split for key in self.documents)]

    def values(self, position: int, **of: str) -> list[str]:
        """Return the values of one part of the key, the most frequent first."""
        counts = Counter[str]()
        for key, count in self.documents.items():
            if of.get("source", key[1]) == key[1]:
                counts[key[position]] += count
        return sorted(counts, key=lambda value: (-counts[value], value))

    def counted(self, split: str = "", source: str = "") -> tuple[int, int]:
        """Return documents and bytes of text, in all or of a split or source."""
        keys = [k for k in self.documents if split in ("", k[0]) and source in ("", k[1])]
        return sum(self.documents[key] for key in keys), sum(self.bytes[key] for key in keys)


def export_data(
    root: Path,
    to: str,
    form: Format = "parquet",
    split: Split | None = None,
    source: str | None = None,
    compress: str = "",
    force: bool = False,
    public: bool = False,
) -> str:
    """Write the kept documents of a run to the folder `to`; return what was written, in a line.

    `hf://OWNER/NAME` is a data set of the Hub, whatever `form`; it is created as a private one
    unless `public`. Raises GroundupError if `to` is there (with `force`: if it is no earlier
    export), if the run has no such documents, or if the Hub refuses.
    """
    if compress and form != "jsonl":
        raise GroundupError("--compress is for --format jsonl; Parquet files are compressed")
    if to.startswith("hf://"):
        if form == "jsonl":
            raise GroundupError(
                f"{to}: a data set of the Hub has Parquet files; leave out --format"
            )
        return publish_data(root, hub_repo(to), split, source, force, public)
    if "://" in to:
        raise GroundupError(f"{to}: expected a folder of this machine, or hf://OWNER/NAME")
    if public:
        raise GroundupError("--public is for --to hf://OWNER/NAME")
    target = Path(to).expanduser()
    check_target(target, force)
    return f"{target}: {write_export(root, target, form, split, source, compress)}"


def publish_data(
    root: Path, repo: HubRepo, split: Split | None, source: str | None, force: bool, public: bool
) -> str:
    """Upload the kept documents of a run as a data set of the Hub; return where, in a line.

    The same documents make the same files, and the Hub keeps the large ones that arrived: so an
    upload that was interrupted goes on when it is called again.
    """
    repo.check_token()
    present = repo.files()
    if not all(name in TOP_FILES or name.startswith("data/") for name in present):
        raise GroundupError(
            f"{repo.address}: holds other files than an export; choose another --to"
        )
    if present and not force:
        raise GroundupError(f"{repo.address}: is there already; --force replaces it")
    folder = cache_root() / "upload" / repo.name.replace("/", "--")
    # What a killed upload left.
    shutil.rmtree(folder, ignore_errors=True)
    try:
        said = write_export(root, folder, "hf", split, source, place=repo.name)
        repo.upload(folder, public, f"Export {load_lock(root).name} by groundup {__version__}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return f"{repo.url}: {said}"


def write_export(
    root: Path,
    target: Path,
    form: Format,
    split: Split | None,
    source: str | None,
    compress: str = "",
    place: str = "",
) -> str:
    """Write a whole export to `target`; return what it holds, in words.

    `place` is what `load_dataset` finds it by.
    """
    recipe, shards = load_lock(root), refined_shards(root, source)
    splits: list[Split] = [split] if split else list(VERDICTS)
    with staging_folder(target) as folder:
        # Apart from the manifest: programs that read a folder take every file for a table.
        (folder / "data").mkdir()
        exported = write_documents(folder / "data", shards, splits, form, compress)
        documents, size = exported.counted()
        if not documents:
            of = f" of {split}" if split else ""
            raise GroundupError(f"{root}: there is no kept document{of}; nothing was written")
        if form == "hf":
            card = data_card(recipe, exported, place)
            (folder / "README.md").write_text(card, encoding="utf-8", errors="replace")
        commit(folder, target, manifest(root, recipe, form, exported))
    counts = [f"{name} {exported.counted(name)[0]:,}" for name in exported.splits()]
    return f"{documents:,} documents ({', '.join(counts)}), {size / 1e6:,.1f} MB of text"


def check_target(target: Path, force: bool) -> None:
    """Raise GroundupError unless an export may be written to a folder.

    `force` replaces an earlier export only: a slip of the hand must not cost a home folder.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    table = read_sealed(target / MANIFEST) if target.is_dir() else None
    if not table or table.get("made_by") != EXPORT:
        raise GroundupError(f"{target}: is there already, and is no export; choose another --to")
    if not force:
        raise GroundupError(f"{target}: is there already; --force replaces it")


@contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`; it is deleted unless it is committed."""
    make_folder(target.parent)
    folder = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    folder.mkdir()
    try:
        yield folder
    finally:
        for left in target.parent.glob(f"{folder.name}*"):
            shutil.rmtree(left, ignore_errors=True)


def write_documents(
    folder: Path, shards: Iterable[RefinedShard], splits: Iterable[Split], form: str, compress: str
) -> Exported:
    """Write the kept documents shard by shard, a row group at a time, into files by split."""
    exported, shards = Exported(), list(shards)
    names = DOCUMENT.names
    with progress("exporting", sum(shard.documents.stat().st_size for shard in shards), "B") as bar:
        writers = {split: SplitWriter(folder, split, form, compress) for split in splits}
        for shard in shards:
            for split, writer in writers.items():
                for batch in shard.batches(names, split):
                    writer.write(batch)
                    exported.add(split, batch)
            bar.add(shard.documents.stat().st_size)
        for writer in writers.values():
            writer.finish()
    return exported


@dataclass
class SplitWriter:
    """Writes the documents of one split into files of at most FILE_BYTES, if no batch is larger."""

    folder: Path
    split: str
    form: str
    compress: str
    paths: list[Path] = field(default_factory=list)
    _room: int = 0
    _write: Write | None = None
    _close: Callable[[], None] = lambda: None

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch, in a new file if the last one has no room for it."""
        if self._write is None or batch.nbytes > self._room:
            self._write, self._room = self._open(), FILE_BYTES
        self._write(batch)
        self._room -= batch.nbytes

    def _open(self) -> Write:
        self._close()
        path = self.folder / f"{self.split}-{len(self.paths):05}"
        self.paths.append(path)
        if self.form != "jsonl":
            writer = pq.ParquetWriter(path, DOCUMENT, compression="zstd")
            self._close = writer.close
            return writer.write_batch
        stream = pa.output_stream(str(path), compression=self.compress or None)
        self._close = stream.close

        def write_lines(batch: pa.RecordBatch) -> None:
            for first in range(0, len(batch), JSON_ROWS):
                # Twice as fast as joining columns of JSON with Arrow's kernels.
                lines = map(orjson.dumps, batch.slice(first, JSON_ROWS).to_pylist())
                stream.write(b"\n".join(lines) + b"\n")

        return write_lines

    def finish(self) -> None:
        """Close the last file, and name the files as the hub does, with their number."""
        self._close()
        suffix = ".parquet" if self.form != "jsonl" else f".jsonl{SUFFIXES[self.compress]}"
        for path in self.paths:
            path.rename(path.with_name(f"{path.name}-of-{len(self.paths):05}{suffix}"))


def manifest(root: Path, recipe: Recipe, form: str, exported: Exported) -> dict[str, object]:
    """Return what the manifest of an export says beside its files."""
    view = Store(root).view("refine")
    counts = {split: exported.counted(split) for split in exported.splits()}
    return {
        "made_by": EXPORT,
        "groundup": __version__,
        "recipe": recipe.name,
        "refine": view.content if view is not None else "",
        "format": form,
        "splits": {name: {"documents": d, "bytes": b} for name, (d, b) in counts.items()},
    }


def data_card(recipe: Recipe, exported: Exported, place: str = "") -> str:
    """Return README.md of a data set: front matter of the hub, licenses, counts, how it was made.

    `place` is the name of the data set on the Hub, if it has one.
    `language` of source code is a programming language, which the hub does not list there.
    """
    rows = []
    for source in exported.values(1):
        documents, size = exported.counted(source=source)
        splits = {split: exported.counted(split, source)[0] for split in VERDICTS}
        row = {"name": source, "kind": exported.values(2, source=source)[0], "size": size}
        rows.append(row | splits | {"licenses": exported.values(3, source=source)})
    documents, size = exported.counted()
    spoken = Counter[str]()
    for (_, _, kind, _, code), count in exported.documents.items():
        if re.fullmatch(r"[a-z]{2,3}", code) and not (kind in KINDS and KINDS[kind].is_code):
            spoken[code] += count
    languages = sorted(code for code in spoken if spoken[code] >= MIN_LANGUAGE * documents)
    return page_template("data_card.md").render(
        recipe=recipe,
        place=place or "PATH OF THIS FOLDER",
        rows=rows,
        splits=exported.splits(),
        languages=languages,
        license=hub_name(exported.values(3)),
        documents=documents,
        bytes=size,
        size_name=next((n for most, n in HUB_SIZES.items() if documents < most), "n>100M"),
        version=__version__,
    )
