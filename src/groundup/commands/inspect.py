"""Show what a run did with a document, a token or a line: what was kept, what was dropped and why.

Texts are shown in two columns. Control sequences are removed before the columns are measured, and a
wide character takes two places of the terminal.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.artifacts.arrays import mask, replace_rows
from groundup.artifacts.corpus import (
    DROPPED,
    SHOWN,
    find_documents,
    refined_shards,
    tables,
)
from groundup.artifacts.document import Row, matching, read_batches
from groundup.artifacts.forgotten import Forgotten
from groundup.artifacts.tokens import train_lengths
from groundup.commands.duplicates import find_cluster
from groundup.commands.trace import describe_trace
from groundup.errors import GroundupError
from groundup.recipe import Refine
from groundup.report.content import kept_examples
from groundup.runtime.files import read_json
from groundup.runtime.lock import load_lock
from groundup.runtime.progress import printable
from groundup.runtime.store import Store

EXAMPLES = 20
# Cut lines that are shown, and characters of a text among others of its kind, and alone.
MAX_LINES, PREVIEW, ALONE = 100, 400, 1_000
WIDTH = 80
# difflib is quadratic: it sees this much of each text, from the first difference on.
MAX_CHARACTERS, MAX_WORDS = 50_000, 2_000
# Equal words around a difference, differences shown, and rows of one difference.
CONTEXT_WORDS, MAX_DIFFERENCES, MAX_ROWS = 6, 5, 8
MIN_COLUMN = 10


def overview(root: Path) -> str:
    """Return what each source gave, what each reason dropped, and what was kept, as tables."""
    kept: Counter[tuple[str, int]] = Counter()
    for path in sorted((root / "refine" / "split").glob("*.npy")):
        verdicts, source = np.load(path), path.stem.rpartition(".")[0]
        kept.update({(source, side): int((verdicts == side).sum()) for side in (1, 2)})
    quality = (read_json(root / "refine" / "quality.json") or {}).get("sources", {})
    lines = ["source                     collected     kept   train  validation  median bytes"]
    for source, count in sorted(_count(root, "collect/documents", "source").items()):
        train, validation = kept[source, 1], kept[source, 2]
        measures = quality.get(source, {}).get("measures", {})
        quantiles = measures["bytes"]["kept"]["quantiles"] if measures else None
        # Bins of quality.json are good for two digits.
        median = f"{float(f'{quantiles[1]:.2g}'):,.0f}" if quantiles else ""
        lines.append(
            f"{source:24} {count:11,} {train + validation:8,} {train:7,} {validation:11,}"
            f" {median:>13}"
        )
    lines += ["", "dropped for               documents"]
    dropped = dropped_by_reason(root)
    order = sorted(dropped, key=lambda reason: (-dropped[reason], reason))
    lines += [f"{reason:24} {dropped[reason]:11,}" for reason in order]
    return "\n".join([*lines, "", f"groundup inspect {root} --dropped REASON shows examples"])


def dropped_by_reason(root: Path) -> Counter[str]:
    """Return how many records each reason dropped, from reading to deduplication."""
    return _count(root, "collect/dropped", "reason") + _count(root, "refine/dropped", "reason")


def describe_dropped(root: Path, reason: str, width: int = WIDTH) -> str:
    """Show twenty random records that were dropped for `reason`, the same ones at every call."""
    counts = dropped_by_reason(root)
    if reason not in counts:
        names = ", ".join(sorted(counts)) or "none"
        raise GroundupError(
            f'{root}: nothing was dropped for "{reason}"; the reasons of this run are: {names}'
        )
    shuffled = np.random.default_rng(0).permutation(counts[reason])
    positions = np.sort(shuffled[:EXAMPLES])
    rows: list[Row] = []
    first = 0
    for batch in matching(_drop_lists(root), "reason", [reason]):
        inside = positions[(positions >= first) & (positions < first + len(batch))]
        rows += batch.take(pa.array(inside - first, pa.int64())).to_pylist()
        first += len(batch)
    texts = raw_and_cleaned(root, [row["id"] for row in rows], PREVIEW)
    blocks = []
    for row in rows:
        score = "" if row["score"] is None else f"  score {row['score']:.3g}"
        of = f"  duplicate of {row['duplicate_of']}" if row["duplicate_of"] else ""
        detail = f"\n  {row['detail']}" if row["detail"] else ""
        text = text_lines(texts.get(row["id"]), width)
        blocks.append("\n".join([f"{_name(row)}{score}{of}{detail}", *text]))
    return "\n\n".join([f"{counts[reason]:,} dropped for {reason}; {len(rows)} of them:", *blocks])


def describe_kept(root: Path, count: int, source: str | None = None) -> str:
    """Show `count` random kept documents of each source, or of one; the same ones at every call."""
    kept = Counter[str]()
    for shard in refined_shards(root, source):
        kept[shard.source] += int((shard.verdicts() != DROPPED).sum())
    rows = kept_examples(root, 0, count, PREVIEW, source)
    blocks = []
    for name, total in kept.items():
        shown = [row for row in rows if row["source"] == name]
        more = f"; {len(shown)} of them:" if shown else ""
        blocks.append(f"{name}: {total:,} kept{more}")
        blocks += [_kept_block(row, row["text"]) for row in shown]
    return "\n\n".join(blocks)


def describe_found(
    root: Path, words: str, count: int | None = None, source: str | None = None
) -> str:
    """Show the first kept documents that hold `words`, in any case, where they hold them."""
    found, rows, most = 0, list[Row](), count or EXAMPLES
    for shard in refined_shards(root, source):
        for batch in shard.batches(SHOWN):
            hits = batch.filter(pc.match_substring(batch.column("text"), words, ignore_case=True))
            rows += hits.slice(0, most - len(rows)).to_pylist()
            found += len(hits)
    blocks = []
    for row in rows:
        match = re.search(re.escape(words), row["text"], re.IGNORECASE)
        begin = max(0, match.start() - PREVIEW // 2) if match else 0
        blocks.append(_kept_block(row, "… " * bool(begin) + _cut(row["text"][begin:], PREVIEW)))
    more = f"; {len(rows)} of them:" if rows else ""
    return "\n\n".join([f'{found:,} kept documents with "{words}"{more}', *blocks])


def _kept_block(row: Row, text: str) -> str:
    stated = [f"{name} {row[name]}" for name in ("language", "license") if row[name]]
    head = "  ".join([_name(row), *stated])
    return "\n".join([head, *text_lines((text, text), WIDTH)])


def _name(row: Row) -> str:
    return f"{row['id']}  {row['source']}: {row['origin']}#{row['record']}"


def text_lines(texts: tuple[str, str] | None, width: int) -> list[str]:
    """Return a text as it was read and as the filters saw it, in one column if they are equal."""
    if texts is None:
        return []
    if texts[0] == texts[1]:
        return [f"  | {line}" for line in texts[0].split("\n")]
    column = _column_width(width - 2)
    sides: list[list[str]] = []
    for text in texts:
        lines = printable(text).split("\n")
        sides.append([row for line in lines for row in wrap_words(line.split(), column) or [""]])
    rows = [("as it was read", "|", "as the filters saw it")]
    rows += [(a, "|", b) for a, b in zip_longest(*sides, fillvalue="")]
    return [f"  {line}" for line in _join_columns(rows, column)]


def raw_and_cleaned(
    root: Path, ids: Sequence[str], max_characters: int
) -> dict[str, tuple[str, str]]:
    """Return the beginning of documents as they were read and as the filters saw them, by id.

    The cleaned text of a dropped document is not stored; it is cleaned again, as refine did.
    """
    from groundup.refine.clean.pipeline import clean_texts
    from groundup.refine.filter.language import detect
    from groundup.refine.filter.rules import C4_LINES, prose_lines

    columns = ("id", "text", "kind", "language")
    documents = find_documents(_tables(root, "collect/documents"), ids, columns)
    if not documents:
        return {}
    try:
        settings = load_lock(root).refine
    except GroundupError:
        # A run that lost its settings can still be inspected.
        settings = Refine()
    rows = documents.values()
    raw = [row["text"][: 8 * max_characters] for row in rows]
    is_code = np.array([row["kind"] == "code" for row in rows])
    cleaned = clean_texts(pa.array(raw, pa.string()), is_code, settings.personal).texts
    if C4_LINES.name in settings.filters:
        # As refine does: what the reader knows counts if the text does not tell.
        codes = zip(detect(cleaned).code.to_pylist(), rows, strict=True)
        english = [(code or row["language"]) == "en" for code, row in codes]
        chosen = np.array(english) & [row["kind"] in C4_LINES.kinds for row in rows]
        cleaned = replace_rows(cleaned, chosen, prose_lines(cleaned.filter(pa.array(chosen))))
    return {
        document: (_cut(before, max_characters), _cut(after, max_characters))
        for document, before, after in zip(documents, raw, cleaned.to_pylist(), strict=True)
    }


def raw_texts(root: Path, ids: Sequence[str]) -> dict[str, str]:
    """Return the text of documents as they were collected, by id; unknown ids are left out."""
    documents = find_documents(_tables(root, "collect/documents"), ids, ("id", "text"))
    return {document: row["text"] for document, row in documents.items()}


def describe_document(
    root: Path, document: str, width: int = WIDTH, token: int | None = None
) -> str:
    """Tell where a document came from, what happened to it, and which training steps read it.

    With `token`, training is asked about this token of the document only.
    """
    batches = matching(_drop_lists(root), "id", [document])
    drops = [row for batch in batches for row in batch.to_pylist()]
    columns = ("id", "source", "origin", "record", "kind", "group", "license")
    collected = find_documents(_tables(root, "collect/documents"), [document], columns)
    if not collected and not drops:
        raise GroundupError(
            f"{root}: there is no document {document}; ids are 32 hexadecimal digits"
        )
    row = collected.get(document) or drops[0]
    lines = [_name(row)]
    if collected:
        license = row["license"] or "not stated"
        lines.append(f"  kind {row['kind']}, group {row['group']!r}, license {license}")
    for drop in drops:
        of = f" (duplicate of {drop['duplicate_of']})" if drop["duplicate_of"] else ""
        score = "" if drop["score"] is None else f", score {drop['score']:.3g}"
        detail = f", {drop['detail']}" if drop["detail"] else ""
        lines.append(f"  dropped: {drop['reason']}{of}{score}{detail}")
    index = root / "tokenize" / "index.parquet"
    filters = [("id", "==", document)]
    for entry in pq.read_table(index, filters=filters).to_pylist() if index.exists() else ():
        begin, end = entry["offset"], entry["offset"] + entry["length"]
        shard = f"shards/{entry['shard']}.{entry['split']}.npy"
        lines.append(f"  tokens {begin:,} to {end:,} of {shard}")
        if entry["split"] == "validation":
            lines.append("  held out: training does not read it")
    forgotten = [entry for entry in Forgotten.load(root).documents if entry.id == document]
    training = describe_trace(root, document, token) or [entry.words(root) for entry in forgotten]
    lines += [f"  {line}" for line in training]
    texts = raw_and_cleaned(root, [document], ALONE).get(document)
    return "\n".join([*lines, *text_lines(texts, width)])


def describe_duplicates(root: Path, document: str, width: int = WIDTH) -> str:
    """Show the cluster of a document: the kept one, its duplicates, and where they differ."""
    cluster = find_cluster(root, document)
    # A later list may have dropped what deduplication kept.
    drops = matching(_tables(root, "refine/dropped"), "id", [cluster.kept])
    fate = next((f"dropped for {batch.column('reason')[0]}" for batch in drops), "kept")
    lines = [f"{cluster.kept} is {fate}; dropped as its duplicates: {cluster.count:,}"]
    for member in cluster.members:
        row, (direct, with_kept) = member.row, member.similarity
        then = f"({row['score']:.3f} when it was dropped)"
        head = f"{_name(row)}  {row['reason']}, similarity {direct:.3f} {then}"
        if row["duplicate_of"] != cluster.kept:
            head += f" of {row['duplicate_of']}, with the kept one {with_kept:.3f}"
        differences = word_diff(cluster.text, member.text, width - 2, ("kept", "dropped"))
        lines += ["", head, *(f"  {line}" for line in differences)]
    if hidden := cluster.count - len(cluster.members):
        lines += ["", f"and {hidden:,} more"]
    return "\n".join(lines)


def describe_token(root: Path, token: int, width: int = WIDTH) -> str:
    """Tell from which document a training token comes, and which training steps read it.

    Tokens count from 0 over the train shards in the order of their names.
    """
    index = root / "tokenize" / "index.parquet"
    if not index.exists():
        raise GroundupError(
            f"{root}: it has no tokens yet; `groundup run RECIPE --out {root} --until tokenize`"
            " makes them"
        )
    shards = sorted(train_lengths(index).items())
    ends = np.cumsum([length for _, length in shards])
    total = int(ends[-1]) if shards else 0
    if token >= total:
        there = f"there are {total:,} training tokens"
        raise GroundupError(f"{root}: {there}; {token:,} is beyond them")
    n = int(np.searchsorted(ends, token, side="right"))
    shard, length = shards[n]
    place = token - (int(ends[n]) - length)
    for batch in matching([index], "shard", [shard], ["id", "shard", "split", "offset", "length"]):
        within = place - batch.column("offset").to_numpy()
        train = mask(pc.equal(batch.column("split"), "train"))
        rows = np.flatnonzero(train & (within >= 0) & (within < batch.column("length").to_numpy()))
        if len(rows):
            document, within_document = batch.column("id")[rows[0]].as_py(), int(within[rows[0]])
            description = describe_document(root, document, width, within_document)
            return f"token {token:,} is token {within_document:,} of {description}"
    raise GroundupError(
        f"{index}: no document holds token {place:,} of shard {shard}; run with --redo tokenize"
    )


def describe_lines(root: Path, source: str = "") -> str:
    """Show the lines that a source (or any) repeats and that were cut, the most frequent first."""
    if Store(root).view("refine") is None:
        raise GroundupError(
            f"{root}: there is no run here with refined documents; `groundup run RECIPE --out"
            f" {root}` makes one"
        )
    path = root / "refine" / "lines.parquet"
    if not path.exists():
        raise GroundupError(
            f"{root}: this run did not look for repeated lines; [refine] repeated_lines is 0, or"
            " no source is of a kind that repeats lines"
        )
    table = pq.read_table(path)
    cut = table.filter(pc.equal(table["source"], source)) if source else table
    if source and not cut.num_rows:
        known = ", ".join(sorted(pc.unique(table["source"]).to_pylist())) or "none"
        raise GroundupError(
            f'{root}: nothing was cut from "{source}"; sources that repeat lines: {known}'
        )
    order = [("documents", "descending"), ("source", "ascending"), ("hash", "ascending")]
    rows = cut.take(pc.select_k_unstable(cut, MAX_LINES, order)).to_pylist()
    more = f"; {len(rows)} of them" if len(rows) < len(cut) else ""
    lines = [
        f"{cut.num_rows:,} lines were cut because their source repeats them{more}",
        f"{'documents':>9}  {'source':20} {'one of them':32}  line",
    ]
    for row in rows:
        text = _cut(row["text"], PREVIEW)
        lines.append(f"{row['documents']:9,}  {row['source']:20} {row['example']}  {text}")
    return "\n".join(lines)


def _drop_lists(root: Path) -> list[Path]:
    return _tables(root, "collect/dropped") + _tables(root, "refine/dropped")


def _tables(root: Path, folder: str) -> list[Path]:
    """Return the Parquet files of a folder of a view, none if its stage has not run.

    Raises GroundupError if the run has collected nothing.
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


def _cut(text: str, max_characters: int) -> str:
    return text[:max_characters] + (" …" if len(text) > max_characters else "")


def word_diff(left: str, right: str, width: int, titles: tuple[str, str] = ("", "")) -> list[str]:
    """Return where two texts differ, word by word, in two columns.

    `|` marks what changed, `<` and `>` what only one of them has.
    """
    if left == right:
        return ["the texts are the same"]
    pairs = enumerate(zip(left, right, strict=False))
    prefix = next((n for n, (a, b) in pairs if a != b), min(len(left), len(right)))
    begin = left.rfind(" ", 0, max(0, prefix - 12 * CONTEXT_WORDS)) + 1
    first, second = (
        printable(text[begin : begin + MAX_CHARACTERS]).split()[:MAX_WORDS]
        for text in (left, right)
    )
    groups = list(SequenceMatcher(None, first, second).get_grouped_opcodes(CONTEXT_WORDS))
    if not groups and len(first) < MAX_WORDS:
        return ["they differ in white space only"]
    if not groups:
        return [f"no word differs in {MAX_WORDS:,} from the first difference on"]
    column = _column_width(width)
    rows = [(titles[0], " ", titles[1])] if any(titles) else []
    for n, group in enumerate(groups[:MAX_DIFFERENCES]):
        if n:
            rows.append(("…", " ", "…"))
        for operation, a, b, c, d in group:
            mark = {"equal": " ", "replace": "|", "delete": "<", "insert": ">"}[operation]
            sides = wrap_words(first[a:b], column), wrap_words(second[c:d], column)
            cells = [(a, mark, b) for a, b in zip_longest(*sides, fillvalue="")]
            rows += cells[:MAX_ROWS]
            if len(cells) > MAX_ROWS:
                rows.append(("…", mark, "…"))
    hidden = len(groups) - MAX_DIFFERENCES
    return _join_columns(rows, column) + ([f"… and {hidden} more places"] if hidden > 0 else [])


def _column_width(width: int) -> int:
    return max(MIN_COLUMN, (width - 3) // 2)


def _join_columns(rows: Sequence[tuple[str, str, str]], column: int) -> list[str]:
    return [
        f"{left}{' ' * max(0, column - display_width(left))} {mark} {right}".rstrip()
        for left, mark, right in rows
    ]


def wrap_words(words: Sequence[str], column: int) -> list[str]:
    """Return words in lines of at most `column` places; a longer word is cut."""
    lines: list[str] = []
    room = 0
    for word in words:
        for piece in _pieces(word, column):
            size = display_width(piece)
            if lines and size < room:
                lines[-1] += f" {piece}"
                room -= size + 1
            else:
                lines.append(piece)
                room = column - size
    return lines


def _pieces(word: str, column: int) -> list[str]:
    """Cut a word into pieces of at most `column` places."""
    pieces, room = [""], column
    for character in word:
        size = display_width(character)
        if size > room:
            pieces.append("")
            room = column
        pieces[-1] += character
        room -= size
    return pieces


def display_width(text: str) -> int:
    """Return how many places of a terminal a text takes."""
    if text.isascii():
        return len(text)
    shown = [c for c in text if unicodedata.category(c) not in ("Mn", "Me", "Cf")]
    return len(shown) + sum(unicodedata.east_asian_width(c) in "WF" for c in shown)
