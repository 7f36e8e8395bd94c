"""The page RUN/look/index.html: what the data stages made of the raw files, before training.

It shows files by ending, sources, reasons, and random texts that were kept and dropped. The run
writes it when it ends after `refine`, and again when the data under an existing page changes. It
quotes documents, so `groundup forget` deletes it.

The page has one script, which searches the shown texts. Its hash stands in the page's content
security policy, so nothing else can run, whatever the texts hold.
"""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from groundup.artifacts.corpus import refined_shards, tables
from groundup.artifacts.document import read_batches
from groundup.artifacts.kinds import is_training
from groundup.report import content
from groundup.report.figures import Problems, Row
from groundup.report.formatting import FigureHtml
from groundup.report.gather import Report, figure_table, gather_facts, plain
from groundup.report.page import bar_width, drop_reasons, empty_sources, page_template
from groundup.runtime.store import Store, commit

PAGE = "look/index.html"
# Raised by hand when the page changes.
VERSION = 3
# Texts of each source that are shown, kept ones and dropped ones, and their length.
TEXTS, CHARACTERS = 10, 600
# Sorts and endings of files that are shown; the others are behind a click.
MAX_ROWS = 12


@dataclass
class EndingCounts:
    """Files whose names end alike, such as in `.txt` or `.json.gz`."""

    ending: str
    files: int = 0
    documents: int = 0
    kept: int = 0


def write_look(
    root: Path, name: str, seed: int, notes: Sequence[str] = (), sorts: Sequence[Row] = ()
) -> Path:
    """Write the page of a run with refined documents, unless it is fresh; return its path.

    `notes` are lines at the top of the page, such as what it is a sample of. `sorts` are rows of
    `sort`, `files`, `bytes` and `read`: what the raw files are by their first bytes, and whether
    they are read. Raises StoreError if the run has no refined documents.
    """
    refined_shards(root)
    store = Store(root)
    views = [store.view(stage) for stage in ("collect", "refine")]
    facts = {
        "version": VERSION,
        "name": name,
        "seed": seed,
        "data": [view.content if view else "" for view in views],
        "notes": list(notes),
        "sorts": list(sorts),
    }
    old = store.view("look")
    if old is None or old.facts != facts:
        page = render_look(gather_look(root, name, seed), notes, sorts)
        with store.stage() as folder:
            text = page.encode("utf-8", "replace")
            (folder / "index.html").write_bytes(text)
            commit(folder, root / "look", {"view": "look", "artefacts": [], "facts": facts})
    return root / PAGE


def gather_look(root: Path, name: str, seed: int) -> Report:
    """Return what the page shows: figures, counts by ending and step, and texts by source."""
    problems, report = Problems(root), gather_facts(root, name)
    read = problems.guarded
    names = [source["name"] for source in report["sources"] if is_training(source["kind"])]
    histograms = read("distributions", lambda: content.distributions(root), {})
    figures = problems.collected("languages", content.document_labels(root))
    figures += content.distribution_figures(histograms)
    reasons = read("reasons", lambda: reason_examples(root, seed), {})
    kept = read("kept texts", lambda: content.kept_examples(root, seed, TEXTS, CHARACTERS), [])
    dropped = read("dropped texts", lambda: dropped_texts(root, seed), [])
    pairs = read("duplicates", lambda: content.duplicate_examples(root, seed), [])
    # Two texts that are the same show nothing, two that are nearly so do.
    pairs.sort(key=lambda row: row["reason"] != "near_duplicate")
    look = {
        "name": name,
        "sources": [source for source in report["sources"] if source["name"] in names],
        "figures": report["figures"] | figure_table(figures),
        "endings": read("endings", lambda: count_endings(root, names), []),
        "reasons": reasons,
        "kept": kept,
        "dropped": [row for row in dropped if row["source"] in names],
        "duplicates": pairs,
        "cleaning": report["cleaning"],
        "problems": report["problems"] + problems.lines,
    }
    return dict(plain(look))


def reason_examples(root: Path, seed: int) -> Row:
    """Return one example by reason."""
    rows = content.choose_dropped(root, ("collect", "refine"), seed, 1)
    return {row["reason"]: row for row in content.dropped_examples(root, rows)}


def dropped_texts(root: Path, seed: int) -> list[Row]:
    """Return dropped records of each source: documents first, then what was no document."""
    by_source: dict[str, dict[str, Row]] = defaultdict(dict)
    for stage in ("refine", "collect"):
        for row in content.choose_dropped(root, [stage], seed, TEXTS, by="source"):
            if len(by_source[row["source"]]) < TEXTS:
                by_source[row["source"]].setdefault(row["id"], row)
    rows = [row for of_source in by_source.values() for row in of_source.values()]
    return content.dropped_examples(root, rows, CHARACTERS)


def count_endings(root: Path, sources: Sequence[str]) -> list[Row]:
    """Return files, documents and kept documents by the ending of the file's name, most first.

    A member of an archive is a file; its own name counts.
    """
    counts: dict[str, EndingCounts] = {}

    def count(origins: pa.Array | pa.ChunkedArray, field: str) -> None:
        for entry in pc.value_counts(name_endings(origins)).to_pylist():
            ending = entry["values"]
            row = counts.setdefault(ending, EndingCounts(ending))
            setattr(row, field, getattr(row, field) + entry["counts"])

    for path in tables(root, "collect/documents"):
        if path.stem.rpartition(".")[0] not in sources:
            continue
        dropped = root / "collect" / "dropped" / path.name
        origins, left = (
            pa.chunked_array(
                [b.column("origin") for b in read_batches([file], ["origin"])], "string"
            )
            for file in (path, dropped)
        )
        count(pc.unique(pa.chunked_array([*origins.chunks, *left.chunks], "string")), "files")
        count(origins, "documents")
    for shard in refined_shards(root):
        if shard.source in sources:
            for batch in shard.batches(["origin"]):
                count(batch.column("origin"), "kept")
    ordered = sorted(counts.values(), key=lambda row: (-row.files, -row.documents, row.ending))
    return [vars(row) for row in ordered]


def name_endings(origins: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return the endings of file names in small letters, "" for a name without one."""
    pattern = r"(?P<ending>\.[a-z][a-z0-9_]{0,9}(?:\.(?:gz|bz2|xz|zst))?)$"
    matched = pc.extract_regex(pc.utf8_lower(origins), pattern)
    return pc.fill_null(pc.struct_field(matched, "ending"), "")


_TOTALS = (
    *(f"collect.{count}" for count in ("files", "bytes_in", "bytes_out", "documents")),
    *(f"refine.step.{count}.kept" for count in ("documents", "bytes")),
)


def render_look(look: Report, notes: Sequence[str] = (), sorts: Sequence[Row] = ()) -> str:
    """Return the page as HTML."""
    figures = FigureHtml(look["figures"])
    names = [source["name"] for source in look["sources"]]
    names.sort(key=lambda name: -figures.value(f"refine.step.bytes.kept.{name}"))
    texts: dict[str, dict[str, list[Row]]] = {name: {"kept": [], "dropped": []} for name in names}
    for side in ("kept", "dropped"):
        for row in look[side]:
            texts[row["source"]][side].append(row)
    prefix = "documents.language."
    languages = figures.names_after(prefix)
    languages.sort(key=lambda code: (-figures.value(prefix + code), code))
    script = page_template("look.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    totals = {
        figure: sum(int(figures.value(f"{figure}.{name}")) for name in names) for figure in _TOTALS
    }
    values: dict[str, Any] = {
        "look": look,
        "notes": [*notes, *look["problems"]],
        "sorts": sorts,
        "sources": names,
        "kinds": {source["name"]: source["kind"] for source in look["sources"]},
        "empty": empty_sources(figures),
        "texts": texts,
        "languages": languages,
        "drops": drop_reasons(figures),
        "totals": totals,
        "most": MAX_ROWS,
        "script": Markup(script),
        "script_hash": Markup(digest),
    }
    of_figures = {"fig": figures.fig, "has": figures.has, "value": figures.value}
    return page_template("look.html").render(values, **of_figures, width=bar_width)
