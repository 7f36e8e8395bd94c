"""Proves on a finished run what the architecture promises: one line a check, and a failure says
where.

Reads everything in a run directory; writes nothing. Hashes every file, whatever its time says.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.artifacts.checkpoints import best_step, list_checkpoints
from groundup.artifacts.corpus import find_documents, tables
from groundup.artifacts.document import matching
from groundup.artifacts.forgotten import FILE, Forgotten
from groundup.errors import StoreError
from groundup.recipe import TUNING, UNTRAINED, all_sources
from groundup.runtime.files import file_digest
from groundup.runtime.progress import printable
from groundup.runtime.run import LOCK, load_lock, pinned_places
from groundup.runtime.store import Artifact, Store, changed_files, load_artifact

Check = Callable[[Path], Iterator[str]]
# How many problems of a check are shown; the rest is counted.
SHOWN = 5
# Documents that are decoded from their tokens and compared with their text.
ROUND_TRIPS = 200
# What the split promises. A short text that a long one contains is no near copy of it, and is told
# as a figure only.
CLUSTER_JACCARD = 0.5
# Validation documents, those with the largest overlap first, whose nearest train document is looked
# at.
MOST_PAIRS = 200


class Note(str):
    """A figure that a check measured; it is shown and fails nothing."""

    __slots__ = ()


def verify_run(root: Path) -> bool:
    """Print `ok` or `FAIL` with what was found for every check; return whether all passed.

    Raises:
        StoreError: there is no run in `root`.
    """
    if not (root / LOCK).exists():
        raise StoreError(
            f"{root}: there is no run here; `groundup run RECIPE --out {root}` makes one"
        )
    passed = True
    for check in CHECKS:
        found = list(guarded(check, root))
        problems = [line for line in found if not isinstance(line, Note)]
        passed &= not problems
        title = (check.__doc__ or check.__name__).strip().rstrip(".")
        sys.stdout.write(f"{'FAIL' if problems else 'ok  '} {title}\n")
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        notes = [line for line in found if isinstance(line, Note)]
        sys.stdout.writelines(
            f"     {printable(line)}\n" for line in [*notes, *problems[:SHOWN], *more]
        )
        sys.stdout.flush()
    return passed


def guarded(check: Check, root: Path) -> Iterator[str]:
    """Run a check; what keeps it from running is a failure of it, and the other checks go on."""
    try:
        yield from check(root)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        yield (
            f"could not be checked: {type(error).__name__}: {text}; `groundup run RECIPE --redo"
            " STAGE` builds a damaged stage again"
        )


def artifacts(root: Path, view: str, step: str) -> list[Artifact]:
    """Return the artifacts of one step that a view names, in order."""
    found = Store(root).view(view)
    entries = found.manifest["artefacts"] if found else []
    return [
        a
        for entry in entries
        if entry["step"] == step and (a := Store(root).artifact(entry)) is not None
    ]


def check_stages(root: Path) -> Iterator[str]:
    """Every stage is there and whole."""
    # Not every run has a tuned model.
    tuned = ["tune"] if (root / "tune").exists() or load_lock(root).tune.method != "none" else []
    for stage in ("collect", "refine", "tokenize", "evaluate", *tuned, "export", "report"):
        view = Store(root).view(stage)
        if view is None:
            yield f"{root / stage}: missing or incomplete; `groundup run` finishes it"
            continue
        if "live" in view.facts:
            yield f"{root / stage}: it is of a run that did not end; `groundup run` finishes it"
        for entry in view.manifest["artefacts"]:
            if Store(root).artifact(entry) is None:
                yield (
                    f"{stage}: the store lost {entry['step']} {entry['name']}; `groundup run`"
                    " builds it again"
                )


def check_bytes(root: Path) -> Iterator[str]:
    """Every file has the bytes that were written."""
    for folder in sorted((root / ".store").glob("*/*/*")):
        artifact = load_artifact(folder)
        if artifact is None:
            yield f"{folder}: its manifest or one of its files is damaged"
        else:
            yield from changed_files(artifact)


def check_raw(root: Path) -> Iterator[str]:
    """Every raw file has the bytes that were collected."""
    from groundup.collect.sources import list_source

    recipe, places = load_lock(root), pinned_places(root)
    listings = {
        source.name: list_source(source, recipe.root, places.get(source.path, ""))
        for source in all_sources(recipe)
    }
    paths = {
        (name, file.origin): file.path
        for name, listing in listings.items()
        for file in listing.files
    }
    for artifact in artifacts(root, "collect", "collect/shard"):
        source = artifact.name.rpartition(".")[0]
        for origin, digest in artifact.manifest["inputs"].items():
            if source not in listings and artifact.facts["kind"] == TUNING:
                continue  # Tuned by hand: the recipe does not name this file.
            path = paths.get((source, origin))
            if path is None or file_digest(path) != digest:
                yield f"{source}: {origin} is missing or changed since it was collected"


def check_accounted(root: Path) -> Iterator[str]:
    """Every collected document is kept or listed with a reason, once."""
    refined = {artifact.name: artifact for artifact in artifacts(root, "refine", "refine/shard")}
    for shard in artifacts(root, "collect", "collect/shard"):
        ids = _ids(shard.path / "documents.parquet")
        if len(pc.unique(ids)) != len(ids):
            yield f"{shard.name}: two documents have one id"
        if shard.facts.get("kind") in UNTRAINED:
            continue
        after = refined.get(shard.name)
        if after is None:
            yield f"{shard.name}: was never refined"
            continue
        found = pa.concat_arrays(
            [_ids(after.path / name) for name in ("documents.parquet", "dropped.parquet")]
        )
        if sorted(found.to_pylist()) != sorted(ids.to_pylist()):
            yield (
                f"{shard.name}: {len(ids)} documents were collected, {len(found)} are kept or"
                " listed"
            )


def check_split(root: Path) -> Iterator[str]:
    """No group is on both sides of the split, and no document that a list drops on any."""
    sides: dict[str, int] = {}
    listed = [
        root / "refine" / "dropped" / f"{name}.parquet"
        for name in ("duplicates", "lines", "contaminated")
    ]
    dropped = {document for path in listed if path.exists() for document in _ids(path).to_pylist()}
    for shard in artifacts(root, "refine", "refine/shard"):
        split = np.load(root / "refine" / "split" / f"{shard.name}.npy")
        table = pq.read_table(shard.path / "documents.parquet", columns=["id", "group"])
        for group, document, side in zip(
            table["group"].to_pylist(), table["id"].to_pylist(), split.tolist(), strict=True
        ):
            if (document in dropped) != (side == 0):
                yield f"{document}: is listed as dropped and kept, or neither"
            if side and sides.setdefault(group, side) != side:
                yield f"group {group!r} is in train and in validation"


def check_overlap(root: Path) -> Iterator[str]:
    """No validation document is a near copy of a train document (13-grams, without LSH)."""
    from groundup.refine.dedup.minhash import jaccard
    from groundup.refine.split.leakage import OVERLAPPING, measure

    found = measure(root, worst=MOST_PAIRS)
    yield Note(
        f"{found.overlapping:.1%} of {found.documents:,} validation documents have more than"
        f" {OVERLAPPING:.0%} of their 13-grams somewhere in train; {found.grams:.2%} of all their"
        " 13-grams stand there"
    )
    close = [pair for pair in found.worst if pair.share > OVERLAPPING]
    sets = shingles_of(root, {name for pair in close for name in (pair.validation, pair.train)})
    for pair in close:
        similarity = float(jaccard(sets[pair.validation], sets[pair.train]))
        if similarity >= CLUSTER_JACCARD:
            yield (
                f"{pair.validation} in validation and {pair.train} in train have Jaccard"
                f" {similarity:.2f}"
            )


def check_contamination(root: Path) -> Iterator[str]:
    """No kept document holds an item of the evaluation files (n-grams, all of them, from the
    texts).
    """
    from groundup.refine.decontaminate.contamination import contaminated_again

    shards = artifacts(root, "refine", "refine/shard")
    tests = [
        shard
        for shard in artifacts(root, "collect", "collect/shard")
        if shard.facts.get("kind") == "evaluation"
    ]
    allowed = load_lock(root).refine.allowed_overlap
    folders = [(shard.name, shard.path) for shard in shards]
    where = {"dropped": root / "refine" / "dropped", "cuts": root / "refine" / "cuts"}
    for document, item, share in (
        contaminated_again(folders, [test.path for test in tests], allowed, **where)
        if tests
        else ()
    ):
        yield f"{document} is kept and holds {share:.0%} of the evaluation item {item}"


def check_lines(root: Path) -> Iterator[str]:
    """No kept document holds a line that was cut elsewhere in its source."""
    from groundup.artifacts.arrays import text_buffers
    from groundup.artifacts.corpus import RefinedShard
    from groundup.refine.lines.lines import find_lines

    path = root / "refine" / "lines.parquet"
    table = (
        pq.read_table(path, columns=["source", "hash"])
        if path.exists()
        else pa.table({"source": [], "hash": []})
    )
    for shard in artifacts(root, "refine", "refine/shard"):
        listed = np.sort(
            table.filter(pc.equal(table["source"], shard.name.rpartition(".")[0]))[
                "hash"
            ].to_numpy()
        )
        refined = RefinedShard(root / "refine", shard.name)
        for batch in refined.batches(["id", "text"]) if len(listed) else ():
            for row, *_ in find_lines(text_buffers(batch.column("text")), listed)[:SHOWN].tolist():
                yield (
                    f"{batch.column('id')[row]} is kept and holds a line that `groundup inspect"
                    f" {root} --lines` shows"
                )


def shingles_of(root: Path, ids: Collection[str]) -> dict[str, npt.NDArray[np.uint64]]:
    """Return the word 5-grams of some kept documents, sorted and each once, by id."""
    from groundup.artifacts.arrays import text_buffers
    from groundup.artifacts.corpus import kept_documents
    from groundup.refine.dedup.minhash import shingle_sets

    wanted, found = pa.array(sorted(ids), pa.string()), dict[str, npt.NDArray[np.uint64]]()
    for batch in kept_documents(root, ["id", "text"]) if ids else ():
        rows = batch.filter(pc.is_in(batch.column("id"), wanted))
        sets, offsets = shingle_sets(text_buffers(rows.column("text")))
        found |= (
            dict(zip(rows.column("id").to_pylist(), np.split(sets, offsets[1:-1]), strict=True))
            if len(rows)
            else {}
        )
    return found


def check_tokens(root: Path) -> Iterator[str]:
    """Token shards hold the kept documents, all of them and nothing else."""
    from groundup.artifacts.tokenizer import Tokenizer
    from groundup.artifacts.tokens import open_shard

    tokenizer = Tokenizer.load(root / "tokenize")
    index = pq.read_table(root / "tokenize" / "index.parquet")
    for shard in artifacts(root, "refine", "refine/shard"):
        split = np.load(root / "refine" / "split" / f"{shard.name}.npy")
        for code, side in ((1, "train"), (2, "validation")):
            rows = index.filter(
                pc.and_(pc.equal(index["shard"], shard.name), pc.equal(index["split"], side))
            )
            tokens = open_shard(
                root / "tokenize" / "shards" / f"{shard.name}.{side}.npy", tokenizer.vocab_size
            )
            if rows.num_rows != int((split == code).sum()) or int(
                pc.sum(rows["length"]).as_py() or 0
            ) != len(tokens):
                yield (
                    f"{shard.name}.{side}: {rows.num_rows} documents and {len(tokens)} tokens do"
                    " not agree with the index"
                )
            if len(tokens) and int(tokens.max()) >= tokenizer.vocab_size:
                yield f"{shard.name}.{side}: a token is beyond the vocabulary"


def check_round_trip(root: Path) -> Iterator[str]:
    """Tokens decode to the text that they were made from (200 random documents)."""
    from groundup.artifacts.tokenizer import Tokenizer
    from groundup.artifacts.tokens import open_shard

    tokenizer = Tokenizer.load(root / "tokenize")
    index = pq.read_table(root / "tokenize" / "index.parquet")
    chosen = np.sort(np.random.default_rng(0).permutation(index.num_rows)[:ROUND_TRIPS])
    for row in index.take(pa.array(chosen)).to_pylist():
        tokens = open_shard(
            root / "tokenize" / "shards" / f"{row['shard']}.{row['split']}.npy",
            tokenizer.vocab_size,
        )
        text = tokenizer.decode(tokens[row["offset"] : row["offset"] + row["length"] - 1].tolist())
        path = root / "refine" / "documents" / f"{row['shard']}.parquet"
        document = find_documents([path], [row["id"]], ["id", "text"])[row["id"]]
        if text != tokenizer.normalized(document["text"]):
            yield f"{row['id']}: its tokens decode to another text"


def check_checkpoints(root: Path) -> Iterator[str]:
    """Every checkpoint is whole, and the best one is there."""
    if not (root / "train").exists():
        yield f"{root / 'train'}: missing; `groundup run` trains"
        return
    folders, best = list_checkpoints(root), best_step(root)
    for folder in folders.values():
        artifact = load_artifact(folder)
        yield from (
            changed_files(artifact)
            if artifact
            else [f"{folder}: its manifest or one of its files is damaged"]
        )
    if best not in folders or load_artifact(folders[best]) is None:
        yield f"{root / 'train' / 'best.json'}: names no checkpoint that is there"


def check_exports(root: Path) -> Iterator[str]:
    """Every export is of a model that the run has, with its sizes and its vocabulary."""
    from groundup.export.formats import differences

    view = Store(root).view("export")
    entries = (
        [entry for entry in view.manifest["artefacts"] if entry["step"] != "export/parity"]
        if view
        else []
    )
    for artifact in filter(None, map(Store(root).artifact, entries)):
        yield from (
            f"{artifact.step} of {artifact.name}: {line}" for line in differences(root, artifact)
        )


def check_forgotten(root: Path) -> Iterator[str]:
    """No forgotten document is among documents or tokens."""
    forgotten = Forgotten.load(root)
    if forgotten.pending:
        yield (
            f"{root / FILE}: was not carried out to its end; `groundup run` or `groundup forget`"
            " finishes it"
        )
    paths = [
        *tables(root, "collect/documents"),
        *tables(root, "refine/documents"),
        root / "tokenize" / "index.parquet",
    ]
    for path in paths if forgotten.documents else ():
        for batch in matching([path], "id", forgotten.ids, ["id"]) if path.exists() else ():
            yield from (
                f"{document}: was forgotten, and stands in {path}"
                for document in batch.column("id").to_pylist()
            )


def _ids(path: Path) -> pa.Array:
    return pq.read_table(path, columns=["id"])["id"].combine_chunks()


CHECKS: tuple[Check, ...] = (
    check_stages,
    check_bytes,
    check_raw,
    check_accounted,
    check_split,
    check_overlap,
    check_lines,
    check_contamination,
    check_tokens,
    check_round_trip,
    check_forgotten,
    check_checkpoints,
    check_exports,
)
