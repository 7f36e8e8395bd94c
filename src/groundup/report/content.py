"""Choose what a report shows of the texts: documents, duplicates in pairs, tokens, histograms.

The choice depends on the seed only. Ids are hashes, so the first ids at or after a random place in
their order are a random sample. Of the texts, only the row groups with a chosen document are read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.artifacts.corpus import RefinedShard, find_documents, tables
from groundup.artifacts.document import read_batches
from groundup.artifacts.tokenizer import Tokenizer
from groundup.artifacts.tokens import open_shard
from groundup.report.charts import MEASURES, STEPS, drawings
from groundup.report.figures import DamagedRunFileError, Figure, Row, json_file, number
from groundup.report.formatting import PREVIEW_CHARACTERS, cut

# Examples of each source or reason.
KEPT, LEFT_OUT, DROPPED, PAIRS = 2, 3, 2, 3
DUPLICATES = ("near_duplicate", "exact_duplicate")
# Further reasons and sources are counted in the tables and not shown.
MAX_REASONS, MAX_SOURCES = 24, 60
DROPPED_COLUMNS = ["id", "source", "origin", "record", "reason", "score", "duplicate_of", "detail"]
LONGEST_TOKENS, FREQUENT_TOKENS = 24, 40
# Counting them takes 0.1 s; the most frequent tokens do not change beyond.
COUNTED_TOKENS = 1 << 22
PARAGRAPH_TOKENS = 160
QUALITY = "refine/quality.json"
# Only the scores of the filters that dropped most are drawn.
MAX_SCORES = 4


def examples(root: Path, seed: int) -> dict[str, list[Row]]:
    """Return documents `kept` and `left_out` by source, `dropped` by reason, and `duplicates`."""
    left_out = choose_dropped(root, ["refine"], seed, LEFT_OUT, by="source")
    stages = ("collect", "refine")
    dropped = choose_dropped(root, stages, seed, DROPPED, lambda name: name not in DUPLICATES)
    return {
        "kept": kept_examples(root, seed),
        "left_out": dropped_examples(root, left_out),
        "dropped": dropped_examples(root, dropped),
        "duplicates": duplicate_examples(root, seed),
    }


def duplicate_examples(root: Path, seed: int) -> list[Row]:
    """Return dropped duplicates, each with the document that was `kept` instead, if it is there."""
    stages = ("collect", "refine")
    pairs = choose_dropped(root, stages, seed, PAIRS, lambda name: name in DUPLICATES)
    collected = tables(root, "collect/documents")
    winners = find_documents(collected, {row["duplicate_of"] for row in pairs})
    duplicates = dropped_examples(root, pairs)
    for example, row in zip(duplicates, pairs, strict=True):
        winner = winners.get(row["duplicate_of"])
        example["kept"] = _kept_row(winner) if winner is not None else None
    return duplicates


def sample_ids(ids: pa.Array | pa.ChunkedArray, seed: int, count: int) -> list[str]:
    """Return the first `count` ids at or after the seed's place, going round at the end."""

    place = hashlib.blake2b(str(seed).encode(), digest_size=16).hexdigest()
    chosen: list[str] = []
    for compare in (pc.greater_equal, pc.less):
        part, missing = ids.filter(compare(ids, place)), count - len(chosen)
        if len(part) and missing:
            order = pc.select_k_unstable(part, missing, [("", "ascending")])
            chosen += part.take(order).to_pylist()
    return chosen


def kept_examples(
    root: Path,
    seed: int,
    count: int = KEPT,
    characters: int = PREVIEW_CHARACTERS,
    source: str | None = None,
) -> list[Row]:
    """Return `count` documents of each source, or of one, that became tokens."""
    chosen: dict[str, dict[str, Path]] = {}
    for shard in _refined_shards(root):
        if source in (None, shard.source):
            columns = [batch.column("id") for batch in shard.batches(["id"])]
            ids = sample_ids(pa.chunked_array(columns, pa.string()), seed, count)
            chosen.setdefault(shard.source, {}).update(dict.fromkeys(ids, shard.documents))
    rows: list[Row] = []
    for paths in list(chosen.values())[:MAX_SOURCES]:
        best = set(sample_ids(pa.array(list(paths), pa.string()), seed, count))
        of_files: dict[Path, list[str]] = {}
        for document in [name for name in paths if name in best]:
            of_files.setdefault(paths[document], []).append(document)
        for path, ids in of_files.items():
            documents = find_documents([path], ids)
            rows += [_kept_row(documents[document], characters) for document in ids]
    return rows


def _refined_shards(root: Path) -> list[RefinedShard]:
    paths = sorted((root / "refine" / "documents").glob("*.parquet"))
    return [RefinedShard(root / "refine", path.stem) for path in paths]


def choose_dropped(
    root: Path,
    stages: Sequence[str],
    seed: int,
    count: int,
    shown: Callable[[str], bool] = lambda group: True,
    by: str = "reason",
) -> list[Row]:
    """Return `count` dropped rows of each reason (or source) shown, the most frequent first."""
    paths = [path for stage in stages for path in tables(root, f"{stage}/dropped")]
    ids: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    for batch in read_batches(paths, ["id", by]):
        for entry in pc.value_counts(batch.column(by)).to_pylist():
            group = entry["values"]
            if shown(group):
                counts[group] += entry["counts"]
                of_group = batch.column("id").filter(pc.equal(batch.column(by), group))
                candidates = ids.get(group, []) + sample_ids(of_group, seed, count)
                ids[group] = sample_ids(pa.array(candidates, pa.string()), seed, count)
    groups = sorted(ids, key=lambda group: (-counts[group], group))
    groups = groups[: MAX_REASONS if by == "reason" else MAX_SOURCES]
    order = [(group, document) for group in groups for document in ids[group]]
    # A document may be listed more than once, for reasons of different stages.
    rows: dict[tuple[str, str], Row] = {}
    documents = pa.array(sorted({document for _, document in order}), pa.string())
    for batch in read_batches(paths, DROPPED_COLUMNS):
        for row in batch.filter(pc.is_in(batch.column("id"), documents)).to_pylist():
            rows.setdefault((row[by], row["id"]), row)
    return [rows[key] for key in order if key in rows]


def dropped_examples(
    root: Path, rows: Sequence[Row], characters: int = PREVIEW_CHARACTERS
) -> list[Row]:
    """Return dropped rows with the beginning of their text, if one was read."""
    sources = {row["source"] for row in rows}
    paths = [path for name in sorted(sources) for path in tables(root, "collect/documents", name)]
    documents = find_documents(paths, {row["id"] for row in rows})
    shown = []
    for row in rows:
        names = ("id", "source", "origin", "record", "reason", "detail")
        text = cut(documents.get(row["id"], {}).get("text") or "", characters)
        score = number(row["score"])
        shown.append({name: row[name] for name in names} | {"score": score, "text": text})
    return shown


def _kept_row(row: Row, characters: int = PREVIEW_CHARACTERS) -> Row:
    names = ("id", "source", "origin", "record", "license", "language")
    return {name: row.get(name) for name in names} | {"text": cut(row["text"] or "", characters)}


def document_labels(root: Path) -> Iterator[Figure]:
    """Yield the kept documents by language and by license, as the documents state them."""
    counts: dict[str, Counter[str]] = {"language": Counter(), "license": Counter()}
    for shard in _refined_shards(root):
        for batch in shard.batches(list(counts)):
            for name, counter in counts.items():
                suffix = f"@{shard.source}" if name == "license" else ""
                for entry in pc.value_counts(batch.column(name)).to_pylist():
                    counter[(entry["values"] or "") + suffix] += entry["counts"]
    for name, counter in counts.items():
        for value, count in sorted(counter.items()):
            yield Figure(f"documents.{name}.{value}", count, "documents", "refine/documents")


def vocabulary(root: Path, seed: int) -> Row:
    """Return the `longest` and most `frequent` tokens, and a `paragraph` cut into tokens."""
    if not (root / "tokenize" / "tokenizer.json").exists():
        return {}
    tokenizer = Tokenizer.load(root / "tokenize")
    sizes, counts = tokenizer.token_bytes(), np.zeros(tokenizer.vocab_size, np.int64)
    paths = sorted((root / "tokenize" / "shards").glob("*.train.npy"))
    shards = [open_shard(path, tokenizer.vocab_size, check_ids=False) for path in paths]
    total = sum(map(len, shards))
    for tokens in shards:
        # Of a large run, COUNTED_TOKENS are counted, from each shard in proportion to its size.
        first = len(tokens) * COUNTED_TOKENS // max(total, COUNTED_TOKENS)
        counts += np.bincount(tokens[:first], minlength=len(counts))[: len(counts)]
    longest = np.lexsort((np.arange(len(sizes)), -sizes))[:LONGEST_TOKENS].tolist()
    ranked = np.lexsort((np.arange(len(counts)), -counts)).tolist()
    frequent = [token for token in ranked if counts[token]][:FREQUENT_TOKENS]

    def entry(token: int, name: str, value: int) -> Row:
        return {"id": token, "text": tokenizer.decode([token]), name: int(value)}

    return {
        "longest": [entry(token, "bytes", sizes[token]) for token in longest],
        "frequent": [entry(token, "count", counts[token]) for token in frequent],
        "counted": int(counts.sum()),
        "paragraph": paragraph(root, tokenizer, seed),
    }


def vocabulary_figures(table: Row) -> Iterator[Figure]:
    """Yield the counts and sizes of the tokens that `vocabulary` shows, by id."""
    if not table:
        return
    shards, counted = "tokenize/shards", table["counted"]
    yield Figure("tokens.counted", counted, "tokens", shards)
    for token in table["frequent"]:
        name, count = token["id"], token["count"]
        yield Figure(f"tokens.count.{name}", count, "tokens", shards)
        yield Figure(f"tokens.frequency.{name}", count / counted, "share", shards)
    for token in table["longest"]:
        name = f"tokens.bytes.{token['id']}"
        yield Figure(name, token["bytes"], "bytes", "tokenize/tokenizer.json")


def paragraph(root: Path, tokenizer: Tokenizer, seed: int) -> list[Row]:
    """Return the beginning of a held-out document as pieces of text with the ids of their tokens.

    It is the first document of a shard that is long enough, from the shard on that the seed
    chooses, else the longest. Tokens that share a character are one piece.
    """
    paths = sorted((root / "tokenize" / "shards").glob("*.validation.npy"))
    start = int(np.random.default_rng(seed).integers(max(1, len(paths))))
    longest: list[int] = []
    for path in paths[start:] + paths[:start]:
        tokens = open_shard(path, tokenizer.vocab_size, check_ids=False)[:PARAGRAPH_TOKENS].tolist()
        if tokenizer.end_id in tokens:
            tokens = tokens[: tokens.index(tokenizer.end_id) + 1]
        longest = max(longest, tokens, key=len)
        if len(longest) == PARAGRAPH_TOKENS:
            break
    pieces, pending = list[Row](), list[int]()
    for token in longest:
        pending.append(token)
        text = tokenizer.decode(pending)
        # A character has up to four bytes, so after four tokens no byte is missing.
        if not text.endswith("\N{REPLACEMENT CHARACTER}") or len(pending) > 4:
            pieces.append({"ids": pending, "text": text, "special": text in tokenizer.specials})
            pending = []
    return pieces


def distributions(root: Path) -> Row:
    """Return what report.json holds: histograms of all measures, and of the scores drawn.

    Raises DamagedRunFileError if refine/quality.json is not what refine writes.
    """
    quality = json_file(root, QUALITY)
    if quality is None:
        return {}
    try:
        sources = {}
        for name, source in quality["sources"].items():
            dropped, scores = source["dropped"], source["scores"]
            ranked = sorted(dropped, key=lambda name: (-dropped[name]["documents"], name))
            drawn = [reason for reason in ranked if reason in scores][:MAX_SCORES]
            sources[name] = source | {
                "scores": {score: scores[score] for score in drawn},
                "dropped": {reason: dropped[reason] for reason in ranked},
            }
        table = {"from": QUALITY} | quality | {"sources": sources}
        # What cannot be drawn is not shown at all.
        list(distribution_figures(table))
        drawings(table)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        raise DamagedRunFileError(f"{QUALITY} is damaged") from None
    return table


def distribution_figures(table: Row) -> Iterator[Figure]:
    """Yield medians, documents and bytes by step, and the shares that were lost, by source."""
    for name, source in table.get("sources", {}).items():
        yield Figure(f"refine.lost.{name}", source["lost"], "share", QUALITY)
        for step in STEPS:
            for unit in ("documents", "bytes"):
                count = source["steps"][step][unit]
                yield Figure(f"refine.step.{unit}.{step}.{name}", count, unit, QUALITY)
        for measure, unit in MEASURES.items():
            for step in ("collected", "kept"):
                quantiles = source["measures"][measure][step]["quantiles"]
                median = quantiles[1] if quantiles else None
                yield Figure(f"refine.median.{measure}.{step}.{name}", median, unit, QUALITY)
        size = source["steps"]["collected"]["bytes"]
        for reason, counts in source["dropped"].items():
            share = counts["bytes"] / size if size else None
            yield Figure(f"refine.dropped_share.{name}@{reason}", share, "share", QUALITY)
