"""From a token to its document and back: what was kept, what was dropped and why, and which
training steps read it.

Reads the views `collect/`, `refine/` and `tokenize/` of a run, and its training; writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.artifacts.corpus import find_documents, tables
from groundup.artifacts.document import Row, matching, read_batches
from groundup.artifacts.forgotten import Forgotten
from groundup.artifacts.tokens import train_lengths
from groundup.commands import trace as seen
from groundup.commands.columns import beside, side_by_side
from groundup.commands.duplicates import Member, find_cluster
from groundup.errors import GroundupError
from groundup.recipe import Refine
from groundup.runtime.files import read_json
from groundup.runtime.run import load_lock
from groundup.runtime.store import Store

EXAMPLES = 20
# Lines that were cut, and characters of a text that are shown beside others of its kind, and alone.
LINES, PREVIEW, ALONE = 100, 400, 1_000
WIDTH = 80
LISTS = ("collect/dropped", "refine/dropped")


def overview(root: Path) -> str:
    """Return a table of what each source gave, what was dropped for which reason, and what was
    kept.
    """
    lines = ["source                     collected     kept   train  validation  median bytes"]
    kept, medians = _kept_by_source(root), _median_bytes(root)
    for source, count in sorted(_count(root, "collect/documents", "source").items()):
        train, validation = kept.get(source, (0, 0))
        lines.append(
            f"{source:24} {count:11,} {train + validation:8,} {train:7,} {validation:11,}"
            f" {medians.get(source, ''):>13}"
        )
    lines += ["", "dropped for               documents"]
    for reason, count in sorted(
        dropped_by_reason(root).items(), key=lambda item: (-item[1], item[0])
    ):
        lines.append(f"{reason:24} {count:11,}")
    return "\n".join([*lines, "", f"groundup inspect {root} --dropped REASON shows examples"])


def dropped_by_reason(root: Path) -> dict[str, int]:
    """Return how many records each reason dropped, from reading to deduplication."""
    return dict(sum((_count(root, folder, "reason") for folder in LISTS), Counter[str]()))


def describe_dropped(root: Path, reason: str, width: int = WIDTH) -> str:
    """Show up to twenty random (but always the same) records that were dropped for `reason`, as
    they were read and judged.
    """
    known = dropped_by_reason(root)
    if reason not in known:
        names = ", ".join(sorted(known)) or "none"
        raise GroundupError(
            f'{root}: nothing was dropped for "{reason}"; the reasons of this run are: {names}'
        )
    rows = _chosen(
        root,
        reason,
        np.sort(np.random.default_rng(0).permutation(known[reason])[:EXAMPLES]).tolist(),
    )
    texts = judged(root, [row["id"] for row in rows], PREVIEW)
    blocks = [
        "\n".join([_dropped_line(row), *_judged_lines(texts.get(row["id"]), width)]) for row in rows
    ]
    return "\n\n".join([f"{known[reason]:,} dropped for {reason}; {len(rows)} of them:", *blocks])


def _chosen(root: Path, reason: str, positions: Sequence[int]) -> list[Row]:
    """Return the rows at some positions among those of a reason, in order."""
    found, row = [], 0
    for batch in matching(
        [path for folder in LISTS for path in _tables(root, folder)], "reason", [reason]
    ):
        here = [position - row for position in positions if row <= position < row + len(batch)]
        found += batch.take(pa.array(here, pa.int64())).to_pylist()
        row += len(batch)
    return found


def _dropped_line(row: Row) -> str:
    score = "" if row["score"] is None else f"  score {row['score']:.3g}"
    of = f"  duplicate of {row['duplicate_of']}" if row["duplicate_of"] else ""
    detail = f"\n  {row['detail']}" if row["detail"] else ""
    return f"{row['id']}  {row['source']}: {row['origin']}#{row['record']}{score}{of}{detail}"


def _judged_lines(texts: tuple[str, str] | None, width: int) -> list[str]:
    if texts is None:
        return []
    if texts[0] == texts[1]:
        return [f"  | {line}" for line in texts[0].split("\n")]
    return [
        f"  {line}"
        for line in beside(*texts, width - 2, ("as it was read", "as the filters saw it"))
    ]


def judged(root: Path, ids: Sequence[str], most: int) -> dict[str, tuple[str, str]]:
    """Return the beginning of documents as they were read, and as the filters saw them: cleaned,
    lines taken out. By id.

    A dropped document's cleaned text is kept nowhere; cleaning is a function, so it is done again.
    """
    from groundup.refine.clean.clean import clean_texts

    found = find_documents(
        _tables(root, "collect/documents"), ids, ("id", "text", "kind", "language")
    )
    if not found:
        return {}
    raw = [row["text"][: 8 * most] for row in found.values()]
    code = np.array([row["kind"] == "code" for row in found.values()], np.bool_)
    settings = _settings(root)
    clean = _without_lines(
        clean_texts(pa.array(raw, pa.string()), code, settings.personal).texts,
        found.values(),
        settings,
    )
    return {
        name: (_cut(before, most), _cut(after, most))
        for name, before, after in zip(found, raw, clean.to_pylist(), strict=True)
    }


def _settings(root: Path) -> Refine:
    """Return how the run was refined; a run that lost its settings can still be looked into."""
    try:
        return load_lock(root).refine
    except GroundupError:
        return Refine()


def _without_lines(
    texts: pa.StringArray, rows: Collection[Row], settings: Refine
) -> pa.StringArray:
    """Take the lines out that a rule set of the recipe takes out of English pages."""
    from groundup.artifacts.arrays import replace_rows
    from groundup.refine.filter.c4_lines import prose_lines
    from groundup.refine.filter.language import detect
    from groundup.refine.filter.rules import CUTTING, RULE_SETS

    if CUTTING not in settings.filters:
        return texts
    # As refine has it: what the reader was told counts where the text does not tell.
    spoken = [
        code or row["language"]
        for code, row in zip(detect(texts).code.to_pylist(), rows, strict=True)
    ]
    asked = np.array(
        [
            row["kind"] in RULE_SETS[CUTTING].kinds and code == "en"
            for code, row in zip(spoken, rows, strict=True)
        ]
    )
    return replace_rows(texts, asked, prose_lines(texts.filter(pa.array(asked))))


def describe_document(
    root: Path, document: str, width: int = WIDTH, token: int | None = None
) -> str:
    """Tell where a document came from, what happened to it, where its tokens are and which training
    steps read them.
    """
    drops = [
        row
        for folder in LISTS
        for batch in matching(_tables(root, folder), "id", [document])
        for row in batch.to_pylist()
    ]
    columns = ("id", "source", "origin", "record", "kind", "group", "license")
    collected = list(
        find_documents(_tables(root, "collect/documents"), [document], columns).values()
    )
    if not collected and not drops:
        raise GroundupError(
            f"{root}: there is no document {document}; ids are 32 hexadecimal digits"
        )
    row = (collected or drops)[0]
    lines = [f"{document}  {row['source']}: {row['origin']}#{row['record']}"]
    if collected:
        lines.append(
            f"  kind {row['kind']}, group {row['group']!r}, license"
            f" {row['license'] or 'not stated'}"
        )
    lines += [f"  dropped: {_why(drop)}" for drop in drops]
    lines += [f"  {line}" for line in [*_places(root, document), *_steps(root, document, token)]]
    return "\n".join([*lines, *_judged_lines(judged(root, [document], ALONE).get(document), width)])


def _why(drop: Row) -> str:
    score = "" if drop["score"] is None else f", score {drop['score']:.3g}"
    of = f" (duplicate of {drop['duplicate_of']})" if drop["duplicate_of"] else ""
    return f"{drop['reason']}{of}{score}" + (f", {drop['detail']}" if drop["detail"] else "")


def _places(root: Path, document: str) -> Iterator[str]:
    for place in _index_rows(root, document):
        end = place["offset"] + place["length"]
        yield (
            f"tokens {place['offset']:,} to {end:,} of shards/{place['shard']}.{place['split']}.npy"
        )
        if place["split"] == "validation":
            yield "held out: training does not read it"


def _steps(root: Path, document: str, token: int | None) -> list[str]:
    gone = next((one for one in Forgotten.load(root).documents if one.id == document), None)
    return seen.in_words(root, document, token) or ([gone.words(root)] if gone is not None else [])


def describe_duplicates(root: Path, document: str, width: int = WIDTH) -> str:
    """Show the cluster of a document: the kept one and what it suppressed, how similar they are,
    and where they differ.
    """
    lists = _tables(root, "refine/dropped")
    cluster = find_cluster(root, document)
    # The lists that come after may have taken out what the list of duplicates kept.
    fate = next(
        (
            f"dropped for {batch.column('reason')[0]}"
            for batch in matching(lists, "id", [cluster.kept])
        ),
        "kept",
    )
    lines = [f"{cluster.kept} is {fate}; dropped as its duplicates: {cluster.count:,}"]
    for member in cluster.members:
        lines += ["", _member_line(cluster.kept, member)]
        lines += [
            f"  {line}"
            for line in side_by_side(cluster.text, member.text, width - 2, ("kept", "dropped"))
        ]
    more = cluster.count - len(cluster.members)
    return "\n".join([*lines, *(["", f"and {more:,} more"] if more else [])])


def _member_line(kept: str, member: Member) -> str:
    row, (direct, with_kept) = member.row, member.similarity
    of = (
        ""
        if row["duplicate_of"] == kept
        else f" of {row['duplicate_of']}, with the kept one {with_kept:.3f}"
    )
    was = f" ({row['score']:.3f} when it was dropped)"
    return (
        f"{row['id']}  {row['source']}: {row['origin']}#{row['record']}  {row['reason']},"
        f" similarity {direct:.3f}{was}{of}"
    )


def describe_token(root: Path, number: int, width: int = WIDTH) -> str:
    """Tell from which document training token `number` comes and which steps read it; tokens count
    over the train shards by name.
    """
    index, place = _index(root), number
    lengths = sorted(train_lengths(index).items())
    for shard, length in lengths:
        if place < length:
            document, within = _at(index, shard, place)
            return (
                f"token {number:,} is token {within:,} of"
                f" {describe_document(root, document, width, within)}"
            )
        place -= length
    raise GroundupError(
        f"{root}: there are {number - place:,} training tokens; {number:,} is beyond them"
    )


def _at(index: Path, shard: str, place: int) -> tuple[str, int]:
    """Return the document that holds a training token of a shard, and which of its tokens that is."""
    for batch in matching([index], "shard", [shard], ["id", "shard", "split", "offset", "length"]):
        within = place - batch.column("offset").to_numpy()
        train = pc.equal(batch.column("split"), "train").to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(train & (within >= 0) & (within < batch.column("length").to_numpy()))
        if len(rows):
            return str(batch.column("id")[rows[0]]), int(within[rows[0]])
    raise GroundupError(
        f"{index}: token {place:,} of shard {shard} is of no document; run with --redo tokenize"
    )


def describe_lines(root: Path, source: str = "") -> str:
    """Show the lines that a source (or any) repeats and that were cut, the most frequent first,
    each with a document that held it.
    """
    if Store(root).view("refine") is None:
        raise GroundupError(
            f"{root}: there is no run here with refined documents; `groundup run RECIPE --out"
            f" {root}` makes one"
        )
    path = root / "refine" / "lines.parquet"
    if not path.exists():
        raise GroundupError(
            f"{root}: no line was looked for; [refine] repeated_lines is 0, or no source is of a"
            " kind that repeats lines"
        )
    table = pq.read_table(path)
    found = table.filter(pc.equal(table["source"], source)) if source else table
    if source and found.num_rows == 0:
        known = ", ".join(sorted(pc.unique(table["source"]).to_pylist())) or "none"
        raise GroundupError(
            f'{root}: nothing was cut from "{source}"; sources that repeat lines: {known}'
        )
    order = [("documents", "descending"), ("source", "ascending"), ("hash", "ascending")]
    rows = found.take(pc.select_k_unstable(found, LINES, order)).to_pylist()
    lines = [
        f"{row['documents']:9,}  {row['source']:20} {row['example']}  {_cut(row['text'], PREVIEW)}"
        for row in rows
    ]
    head = f"{found.num_rows:,} lines were cut because their source repeats them" + (
        f"; {len(rows)} of them" if len(rows) < len(found) else ""
    )
    return "\n".join([head, f"{'documents':>9}  {'source':20} {'one of them':32}  line", *lines])


def _index(root: Path) -> Path:
    path = root / "tokenize" / "index.parquet"
    if not path.exists():
        raise GroundupError(
            f"{root}: it has no tokens yet; `groundup run RECIPE --out {root} --until tokenize`"
            " makes them"
        )
    return path


def _index_rows(root: Path, document: str) -> list[dict[str, Any]]:
    path = root / "tokenize" / "index.parquet"
    return (
        pq.read_table(path, filters=[("id", "==", document)]).to_pylist() if path.exists() else []
    )


def _tables(root: Path, folder: str) -> list[Path]:
    """Return the Parquet files of a folder of a view; one that is not there yet is empty, but a run
    has collected something.
    """
    if Store(root).view("collect") is None:
        raise GroundupError(
            f"{root}: there is no run here with collected documents; `groundup run RECIPE --out"
            f" {root}` makes one"
        )
    return tables(root, folder)


def _count(root: Path, folder: str, column: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for batch in read_batches(_tables(root, folder), [column]):
        for entry in pc.value_counts(batch.column(0)).to_pylist():
            counts[entry["values"]] += entry["counts"]
    return counts


def raw_texts(root: Path, ids: Sequence[str]) -> dict[str, str]:
    """Return the text of documents as they were collected, by id; an id that no document has is
    left out.
    """
    found = find_documents(_tables(root, "collect/documents"), ids, ("id", "text"))
    return {name: row["text"] for name, row in found.items()}


def _kept_by_source(root: Path) -> dict[str, tuple[int, int]]:
    counts: Counter[tuple[str, int]] = Counter()
    for path in sorted((root / "refine" / "split").glob("*.npy")):
        source = path.stem.rpartition(".")[0]
        split = np.load(path)
        counts.update({(source, code): int((split == code).sum()) for code in (1, 2)})
    return {source: (counts[source, 1], counts[source, 2]) for source, _ in counts}


def _median_bytes(root: Path) -> dict[str, str]:
    """Return the median length of the documents of each source that are kept, to two digits, which
    is what its bins are good for.
    """
    found = (read_json(root / "refine" / "quality.json") or {}).get("sources", {})
    return {
        name: f"{float(f'{of[1]:.2g}'):,.0f}"
        for name, source in found.items()
        if (of := source["measures"]["bytes"]["kept"]["quantiles"])
    }


def _cut(text: str, most: int) -> str:
    return text[:most] + (" …" if len(text) > most else "")
