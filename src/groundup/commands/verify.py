"""Check on a finished run what groundup guarantees: one line for each check, `ok` or `FAIL`.

    ok   Every file has the bytes that were written
    FAIL Every raw file has the bytes that were collected
         books: austen.txt is missing or changed since it was collected

A check is a function that yields a line for each problem, which names the file or the document, and
a Note for each figure that it measured. Every file is hashed, whatever its modification time:

    what                                        its hash
    files of artifacts, views and checkpoints   in the manifest.json of their folder
    manifests, plans, locks, lists, best.json   in the file itself (runtime/sealed.py)
    ledger.jsonl, metrics.jsonl                 a chain through their lines
    train/index.parquet                         in the ledger of the training

Only `.lock` and the staging area have none. Files are walked, not listed, so a file of somebody
else in the directory is seen, and said to be unchecked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.artifacts.checkpoints import best_step, list_checkpoints
from groundup.artifacts.corpus import RefinedShard, find_documents, tables
from groundup.artifacts.document import matching
from groundup.artifacts.forgotten import FILE, Forgotten
from groundup.artifacts.kinds import is_training
from groundup.errors import StoreError, one_line
from groundup.recipe import TUNING, all_sources
from groundup.runtime.files import file_digest, read_json_object
from groundup.runtime.lock import LOCK, load_lock, pinned_places, require_run
from groundup.runtime.progress import echo
from groundup.runtime.sealed import Ledger, is_intact
from groundup.runtime.store import MANIFEST, Store, load_artifact

Check = Callable[[Path], Iterator[str]]
CHECKS: dict[str, Check] = {}
# Problems of a check that are shown; the others are counted.
MAX_SHOWN = 5
CHANGED = "its bytes are not those that were written"
# What every run has, and what every training with a checkpoint has.
RUN_FILES = (LOCK, "ledger.jsonl")
TRAIN_FILES = ("train.json", "ledger.jsonl", "metrics.jsonl", "index.parquet")
# Documents that are decoded from their tokens.
ROUND_TRIPS = 200
# The split keeps pairs at or above it together. A short text inside of a long one is below it.
CLUSTER_JACCARD = 0.5
# Validation documents with the largest overlap, whose nearest train document is compared.
MAX_PAIRS = 200


class Note(str):
    """A figure that a check measured; it fails nothing."""

    __slots__ = ()


def check(title: str) -> Callable[[Check], Check]:
    """Register a check under the sentence that it proves."""

    def register(function: Check) -> Check:
        CHECKS[title] = function
        return function

    return register


def verify_run(root: Path) -> bool:
    """Print the outcome of every check; return whether all passed.

    Raises StoreError if there is no run in `root`.
    """
    require_run(root)
    passed = True
    for title, function in CHECKS.items():
        lines = list(outcome(function, root))
        notes = [line for line in lines if isinstance(line, Note)]
        problems = [line for line in lines if not isinstance(line, Note)]
        echo(f"{'FAIL' if problems else 'ok  '} {title}")
        for line in notes + problems[:MAX_SHOWN]:
            echo(f"     {line}")
        if len(problems) > MAX_SHOWN:
            echo(f"     and {len(problems) - MAX_SHOWN} more")
        passed = passed and not problems
    return passed


def outcome(function: Check, root: Path) -> Iterator[str]:
    """Yield what a check yields; an exception fails this check, and the others go on."""
    try:
        yield from function(root)
    except Exception as error:
        yield (
            f"could not be checked: {type(error).__name__}: {one_line(error)}; `groundup run"
            " RECIPE --redo STAGE` builds a damaged stage again"
        )


def read_table(path: Path, columns: list[str]) -> pa.Table:
    """Read some columns of a Parquet file of the run; an error names the file."""
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{path}: missing or damaged ({error})") from None


def verdicts(root: Path, shard: str) -> npt.NDArray[np.uint8]:
    """Return the verdict of each refined document of a shard: 0 dropped, 1 train, 2 validation."""
    refined = RefinedShard(root / "refine", shard)
    try:
        return refined.verdicts()
    except (OSError, EOFError, ValueError) as error:
        raise StoreError(f"{refined.split}: missing or damaged ({error})") from None


@check("Every stage is complete")
def check_stages(root: Path) -> Iterator[str]:
    """Ask for the view of each stage, and for every artifact that it lists."""
    stages = ["collect", "refine", "tokenize", "evaluate", "export", "report"]
    # Not every run has a tuned model.
    if (root / "tune").exists() or load_lock(root).tune.method != "none":
        stages.insert(4, "tune")
    for stage in stages:
        view = Store(root).view(stage)
        if view is None:
            yield f"{root / stage}: missing or incomplete; `groundup run` completes it"
            continue
        if "live" in view.facts:
            yield f"{root / stage}: belongs to a run that did not end; `groundup run` completes it"
        for entry in view.manifest["artefacts"]:
            if Store(root).artifact(entry) is None:
                lost = f"the store lost {entry['step']} {entry['name']}"
                yield f"{stage}: {lost}; `groundup run` builds it again"


@check("Every file has the bytes that were written")
def check_bytes(root: Path) -> Iterator[str]:
    """Hash every file of the run directory."""
    unchecked, digests = list[str](), dict[tuple[int, int], str]()
    files, recorded = list(_walk(root)), dict[Path, str]()
    for path in (file for file in files if file.name == MANIFEST and is_intact(file) is not False):
        # A damaged manifest vouches for no file.
        entries = (read_json_object(path) or {}).get("files")
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            recorded[path.parent / name] = entry["sha256"]
    folders = [file.parent for file in files if file.name == "train.json"]
    folders += [root / "train"] if (root / "train").exists() else []
    expected = dict.fromkeys([*recorded, *(root / name for name in RUN_FILES)])
    expected |= {folder / name: None for folder in folders for name in TRAIN_FILES}
    for file in expected | dict.fromkeys(files):
        intact: bool | None = None
        if file in expected and not file.is_file():
            yield f"{file}: missing"
            continue
        if file in recorded:
            # Each inode is hashed once.
            inode = (file.stat().st_dev, file.stat().st_ino)
            digests[inode] = digests.get(inode) or file_digest(file)
            intact = digests[inode] == recorded[file]
        elif file.name == "index.parquet":
            events = Ledger(file.parent / "ledger.jsonl").events("index")
            intact = file_digest(file) in [event["sha256"] for event in events] if events else None
        elif file.suffix in (".json", ".jsonl", ".toml"):
            intact = is_intact(file)
        if intact is None:
            unchecked.append(file.relative_to(root).as_posix())
        elif not intact:
            yield f"{file}: {CHANGED}"
    if unchecked:
        hidden = len(unchecked) - MAX_SHOWN
        more = f" and {hidden} more" if hidden > 0 else ""
        yield Note(f"without a hash, not checked: {', '.join(unchecked[:MAX_SHOWN])}{more}")


def _walk(root: Path) -> Iterator[Path]:
    """Yield every file of a run that hashes cover, in order."""
    for folder, folders, names in os.walk(root):
        top = Path(folder)
        if top == root:
            folders[:] = [n for n in folders if n != ".staging" and not n.startswith(".trash-")]
        folders.sort()
        yield from (top / name for name in sorted(names) if (top / name) != root / ".lock")


@check("Every raw file has the bytes that were collected")
def check_raw(root: Path) -> Iterator[str]:
    """Hash the raw files again; archives of far places as they were pinned."""
    from groundup.collect.sources import list_source

    recipe, places = load_lock(root), pinned_places(root)
    sources = {source.name for source in all_sources(recipe)}
    paths = {
        (source.name, file.origin): file.path
        for source in all_sources(recipe)
        for file in list_source(source, recipe.root, places.get(source.path, "")).files
    }
    # What says where a large file is cut has the digest of the whole file.
    steps = ("collect/shard", "collect/cut")
    for shard in [each for step in steps for each in Store(root).artifacts("collect", step)]:
        source = shard.name.rpartition(".")[0]
        # The recipe does not name the data of a tuning by hand.
        if source not in sources and shard.manifest["settings"]["kind"] == TUNING:
            continue
        if "piece" in shard.manifest["settings"]:
            continue
        for origin, digest in shard.manifest["inputs"].items():
            path = paths.get((source, origin))
            if path is None or file_digest(path) != digest:
                yield f"{source}: {origin} is missing or changed since it was collected"


@check("Every collected document is either kept or dropped with a reason")
def check_accounted(root: Path) -> Iterator[str]:
    """Compare the ids of each collected shard with those of its refined shard."""
    refined = {shard.name: shard for shard in Store(root).artifacts("refine", "refine/shard")}
    for shard in Store(root).artifacts("collect", "collect/shard"):
        ids = _ids(shard.path / "documents.parquet")
        if len(set(ids)) != len(ids):
            yield f"{shard.name}: two documents have the same id"
        if not is_training(shard.facts.get("kind", "")):
            continue
        if shard.name not in refined:
            yield f"{shard.name}: was never refined"
            continue
        names = ("documents.parquet", "dropped.parquet")
        after = [name for file in names for name in _ids(refined[shard.name].path / file)]
        if sorted(after) != sorted(ids):
            counts = f"{len(ids)} documents were collected, {len(after)} are kept or dropped"
            yield f"{shard.name}: {counts}"


def _ids(path: Path) -> list[str]:
    return list(read_table(path, ["id"])["id"].to_pylist())


@check("No group is in both train and validation, and no dropped document in either")
def check_split(root: Path) -> Iterator[str]:
    """Compare the verdicts of all documents with their groups and with the lists of drops."""
    folder = root / "refine" / "dropped"
    lists = [folder / f"{name}.parquet" for name in ("duplicates", "lines", "contaminated")]
    dropped = {document for path in lists if path.exists() for document in _ids(path)}
    sides: dict[str, int] = {}
    for shard in Store(root).artifacts("refine", "refine/shard"):
        table = read_table(shard.path / "documents.parquet", ["id", "group"])
        groups, documents = table["group"].to_pylist(), table["id"].to_pylist()
        split = verdicts(root, shard.name).tolist()
        for group, document, side in zip(groups, documents, split, strict=True):
            if (document in dropped) != (side == 0):
                yield f"{document}: is both dropped and kept, or neither"
            if side and sides.setdefault(group, side) != side:
                yield f"group {group!r} is in train and in validation"


@check("No validation document is a near duplicate of a train document (13-grams, without LSH)")
def check_overlap(root: Path) -> Iterator[str]:
    """Compare the validation documents that overlap most with their nearest train documents."""
    from groundup.artifacts.arrays import text_buffers
    from groundup.artifacts.corpus import kept_documents
    from groundup.refine.dedup.minhash import jaccard, shingle_sets
    from groundup.refine.leakage import LEAKING_SHARE, measure_leakage

    overlap = measure_leakage(root, worst=MAX_PAIRS)
    yield Note(
        f"{overlap.leaking:.1%} of {overlap.documents:,} validation documents have more than"
        f" {LEAKING_SHARE:.0%} of their 13-grams in train; {overlap.grams:.2%} of all validation"
        " 13-grams are in train"
    )
    close = [pair for pair in overlap.worst if pair.share > LEAKING_SHARE]
    ids = sorted({name for pair in close for name in (pair.validation, pair.train)})
    chosen, sets = pa.array(ids, pa.string()), dict[str, npt.NDArray[np.uint64]]()
    for batch in kept_documents(root, ["id", "text"]) if ids else ():
        rows = batch.filter(pc.is_in(batch.column("id"), chosen))
        if len(rows):
            shingles, offsets = shingle_sets(text_buffers(rows.column("text")))
            parts = np.split(shingles, offsets[1:-1])
            sets |= dict(zip(rows.column("id").to_pylist(), parts, strict=True))
    for pair in close:
        similarity = float(jaccard(sets[pair.validation], sets[pair.train]))
        if similarity >= CLUSTER_JACCARD:
            names = f"{pair.validation} in validation and {pair.train} in train"
            yield f"{names} have Jaccard {similarity:.2f}"


@check("No kept document holds a line that was cut elsewhere in its source")
def check_lines(root: Path) -> Iterator[str]:
    """Look for the lines that refine listed as repeated in what is kept of their source."""
    from groundup.artifacts.arrays import text_buffers
    from groundup.refine.lines import find_lines

    path = root / "refine" / "lines.parquet"
    if not path.exists():
        return
    table = read_table(path, ["source", "hash"])
    for shard in Store(root).artifacts("refine", "refine/shard"):
        rows = table.filter(pc.equal(table["source"], shard.name.rpartition(".")[0]))
        listed = np.sort(rows["hash"].to_numpy())
        refined = RefinedShard(root / "refine", shard.name)
        for batch in refined.batches(["id", "text"]) if len(listed) else ():
            lines = find_lines(text_buffers(batch.column("text")), listed)
            for row, *_ in lines[:MAX_SHOWN].tolist():
                shown = f"a line that `groundup inspect {root} --lines` shows"
                yield f"{batch.column('id')[row]} is kept and holds {shown}"


@check("No kept document holds an evaluation item (all n-grams, from the texts)")
def check_contamination(root: Path) -> Iterator[str]:
    """Compare all kept texts with the evaluation files again."""
    from groundup.refine.decontaminate import find_unlisted

    collected = Store(root).artifacts("collect", "collect/shard")
    tests = [shard.path for shard in collected if shard.facts.get("kind") == "evaluation"]
    if not tests:
        return
    contaminated = find_unlisted(
        [(shard.name, shard.path) for shard in Store(root).artifacts("refine", "refine/shard")],
        tests,
        load_lock(root).refine.allowed_overlap,
        dropped=root / "refine" / "dropped",
        cuts=root / "refine" / "cuts",
    )
    for document, item, share in contaminated:
        yield f"{document} is kept and holds {share:.0%} of the evaluation item {item}"


@check("Token shards hold exactly the kept documents")
def check_tokens(root: Path) -> Iterator[str]:
    """Compare the index of the tokens with the verdicts and with the sizes of the shards."""
    from groundup.artifacts.tokenizer import Tokenizer
    from groundup.artifacts.tokens import open_shard

    vocab_size = Tokenizer.load(root / "tokenize").vocab_size
    columns = ["shard", "split", "length"]
    index = read_table(root / "tokenize" / "index.parquet", columns)
    for shard in Store(root).artifacts("refine", "refine/shard"):
        split = verdicts(root, shard.name)
        for verdict, side in ((1, "train"), (2, "validation")):
            chosen = pc.and_(pc.equal(index["shard"], shard.name), pc.equal(index["split"], side))
            lengths = index.filter(chosen)["length"]
            name = f"{shard.name}.{side}"
            tokens = open_shard(root / "tokenize" / "shards" / f"{name}.npy", vocab_size)
            documents, total = int((split == verdict).sum()), int(pc.sum(lengths).as_py() or 0)
            if len(lengths) != documents or total != len(tokens):
                listed = f"the index lists {len(lengths)} documents with {total} tokens"
                held = f"{documents} documents are kept, and the shard holds {len(tokens)} tokens"
                yield f"{name}: {listed}; {held}"


@check(f"Tokens decode to the text that they were made from ({ROUND_TRIPS} random documents)")
def check_round_trip(root: Path) -> Iterator[str]:
    """Decode the tokens of random documents and compare them with the texts, as training reads."""
    from groundup.artifacts.tokenizer import Tokenizer
    from groundup.artifacts.tokens import open_shard

    tokenizer = Tokenizer.load(root / "tokenize")
    columns = ["id", "shard", "split", "offset", "length"]
    index = read_table(root / "tokenize" / "index.parquet", columns)
    chosen = np.sort(np.random.default_rng(0).permutation(index.num_rows)[:ROUND_TRIPS])
    for row in index.take(pa.array(chosen)).to_pylist():
        shard = root / "tokenize" / "shards" / f"{row['shard']}.{row['split']}.npy"
        begin, length = row["offset"], row["length"]
        # The last token of a document is the end-of-text token.
        ids = open_shard(shard, tokenizer.vocab_size)[begin : begin + length - 1].tolist()
        path = root / "refine" / "documents" / f"{row['shard']}.parquet"
        document = find_documents([path], [row["id"]], ("id", "text"))[row["id"]]
        if tokenizer.decode(ids) != tokenizer.normalized(document["text"]):
            yield f"{row['id']}: its tokens decode to another text"


@check("No forgotten document is among documents or tokens")
def check_forgotten(root: Path) -> Iterator[str]:
    """Look for the ids of forgotten.json in all tables."""
    forgotten = Forgotten.load(root)
    if forgotten.pending:
        finish = "`groundup run` or `groundup forget` completes it"
        yield f"{root / FILE}: not everything on it is deleted yet; {finish}"
    if not forgotten.documents:
        return
    paths = [*tables(root, "collect/documents"), *tables(root, "refine/documents")]
    index = root / "tokenize" / "index.parquet"
    paths += [index] if index.exists() else []
    for path in paths:
        for batch in matching([path], "id", forgotten.ids, ["id"]):
            for document in batch.column("id").to_pylist():
                yield f"{document}: was forgotten, and is in {path}"


@check("Every checkpoint is complete, and the best one exists")
def check_checkpoints(root: Path) -> Iterator[str]:
    """Look for the files of every checkpoint, and for the one that best.json names."""
    if not (root / "train").exists():
        yield f"{root / 'train'}: missing; `groundup run` trains"
        return
    folders, best = list_checkpoints(root), best_step(root)
    for folder in folders.values():
        if load_artifact(folder) is None:
            yield f"{folder}: its manifest or one of its files is damaged"
    if best not in folders or load_artifact(folders[best]) is None:
        yield f"{root / 'train' / 'best.json'}: names no checkpoint that exists"


@check("Every export matches a model of the run")
def check_exports(root: Path) -> Iterator[str]:
    """Compare sizes and vocabulary of each export with the model that it was made from."""
    from groundup.export.formats import differences

    view = Store(root).view("export")
    for entry in view.manifest["artefacts"] if view else ():
        artifact = Store(root).artifact(entry)
        if artifact is not None and entry["step"] != "export/parity":
            for line in differences(root, artifact):
                yield f"{artifact.step} of {artifact.name}: {line}"
