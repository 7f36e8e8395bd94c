"""What differs between two runs: settings, documents, tokens and reasons. Reads both run
directories; writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.artifacts.corpus import find_documents, tables
from groundup.commands.columns import side_by_side
from groundup.commands.difference import differences
from groundup.errors import GroundupError
from groundup.recipe import UNTRAINED
from groundup.runtime.ledger import Ledger
from groundup.runtime.run import load_lock, machine_settings
from groundup.runtime.store import Store
from groundup.schema import settings

STAGES = ("collect", "refine", "tokenize")
TITLES = {
    "kept_dropped": "kept in A, dropped in B",
    "dropped_kept": "dropped in A, kept in B",
    "text": "kept in both, with another text",
    "split": "kept in both, on another side of the split",
    "reason": "dropped in both, for other reasons",
    "only_first": "only in A",
    "only_second": "only in B",
}
Table = dict[str, Any]


def compare(one: Path, other: Path) -> Table:
    """Return what differs between two runs, as plain tables; a pair is always first run, second
    run.

    Returns:
        runs, unfinished (stages that a run has not), compared (the last stage whose documents both
        have), settings, counts (by source and figure), documents (by category, source and fate) and
        examples (by category).

    Raises:
        GroundupError: one of them is no run, or has collected nothing.
    """
    roots = (one, other)
    missing = [[stage for stage in STAGES if Store(root).view(stage) is None] for root in roots]
    for root, stages in zip(roots, missing, strict=True):
        load_lock(root)
        if "collect" in stages:
            raise GroundupError(
                f"{root}: it has collected nothing yet; `groundup run RECIPE --out {root} --until"
                " collect` does"
            )
    stage = "collect" if any("refine" in stages for stages in missing) else "refine"
    found = differences(one, other, stage, _untrained(roots))
    return {
        "runs": [str(root) for root in roots],
        "unfinished": missing,
        "compared": stage,
        "settings": _pairs(*map(_settings, roots)),
        "counts": {source: pairs for source, pairs in _by_source(roots).items() if pairs},
        "documents": {name: _nested(counts) for name, counts in found.counts.items()},
        "examples": _examples(roots, found.examples),
    }


def _untrained(roots: tuple[Path, Path]) -> list[str]:
    """Return the sources of evaluation and tuning data, those of a tuning by hand too."""
    shards = (
        Store(root).artifact(entry)
        for root in roots
        for entry in _manifest(root, "collect").get("artefacts", ())
    )
    return sorted(
        {
            shard.facts["source"]
            for shard in shards
            if shard is not None and shard.facts["kind"] in UNTRAINED
        }
    )


def _settings(root: Path) -> Table:
    """Return every setting of a run by its path, and what was resolved for its machine, and the
    versions that worked on it last.
    """
    table = settings(load_lock(root))
    table["source"] = {source["name"]: source for source in table["source"]}
    events = Ledger(root / "ledger.jsonl").events("run")
    return _flat(
        table
        | {
            "machine": machine_settings(root),
            "version": events[-1].get("versions", {}) if events else {},
        }
    )


def _flat(table: Mapping[str, Any], prefix: str = "") -> Table:
    found: Table = {}
    for name, value in table.items():
        found |= (
            _flat(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{name}": value}
        )
    return found


def _pairs(one: Table, other: Table) -> dict[str, list[Any]]:
    """Return what differs, by name; None stands for what one of them has not."""
    names = sorted({*one, *other})
    return {
        name: [one.get(name), other.get(name)] for name in names if one.get(name) != other.get(name)
    }


def _by_source(roots: tuple[Path, Path]) -> dict[str, dict[str, list[Any]]]:
    tables = [_counts(root) for root in roots]
    return {
        source: _pairs(*(table.get(source, {}) for table in tables))
        for source in sorted({*tables[0], *tables[1]})
    }


def _counts(root: Path) -> dict[str, Counter[str]]:
    """Return the figures of each source, stage by stage, from what the stages counted."""
    found: dict[str, Counter[str]] = {}
    for entry in _manifest(root, "collect").get("artefacts", ()):
        shard = Store(root).artifact(entry)
        if shard is not None:
            own = found.setdefault(shard.facts["source"], Counter())
            own.update(
                {"collected": shard.facts["documents"]}
                | {f"dropped {name}": count for name, count in shard.facts["dropped"].items()}
            )
    for source, facts in _facts(root, "refine").items():
        own = found.setdefault(source, Counter())
        own.update(
            {"kept": facts["documents"]}
            | {f"dropped {name}": count for name, count in facts["dropped"].items()}
        )
    for source, splits in _facts(root, "tokenize").items():
        for split, facts in splits.items():
            found.setdefault(source, Counter()).update(
                {f"{split} {name}": facts[name] for name in ("documents", "tokens")}
            )
    return found


def _manifest(root: Path, stage: str) -> Mapping[str, Any]:
    view = Store(root).view(stage)
    return view.manifest if view is not None else {}


def _facts(root: Path, stage: str) -> dict[str, Any]:
    return dict(_manifest(root, stage).get("facts", {}).get("sources", {}))


def _nested(counts: Counter[tuple[str, str, str]]) -> list[Table]:
    return [
        {"source": source, "first": one, "second": other, "documents": n}
        for (source, one, other), n in sorted(counts.items())
    ]


def _examples(
    roots: tuple[Path, Path], examples: Mapping[str, Sequence[tuple[str, str, str, str]]]
) -> dict[str, list[Table]]:
    """Return the examples of each category with their origin and record, looked up in the first run
    that has them.
    """
    ids = {name for rows in examples.values() for name, *_ in rows}
    found: dict[str, Table] = {}
    for root in roots:
        folders = [*tables(root, "collect/documents"), *tables(root, "collect/dropped")]
        found |= find_documents(folders, ids - found.keys(), ("id", "origin", "record"))
    return {
        category: [
            found.get(name, {"id": name, "origin": None, "record": None})
            | {"source": source, "first": one, "second": other}
            for name, source, one, other in rows
        ]
        for category, rows in examples.items()
    }


def in_words(found: Table, width: int = 80) -> str:
    """Return a comparison for people."""
    names = dict(zip("AB", found["runs"], strict=True))
    lines = [f"{letter} = {name}" for letter, name in names.items()]
    for letter, missing in zip("AB", found["unfinished"], strict=True):
        lines += (
            [f"{letter} is not finished: it has no {' and no '.join(missing)}"] if missing else []
        )
    lines += ["", *_settings_lines(found["settings"]), "", *_count_lines(found["counts"])]
    for category, title in TITLES.items():
        lines += _document_lines(found, category, title, width)
    if not any(found["documents"].values()):
        lines += ["", f"no document differs after {found['compared']}"]
    return "\n".join(lines)


def _settings_lines(pairs: Mapping[str, list[Any]]) -> list[str]:
    if not pairs:
        return ["no setting differs"]
    return [
        "settings",
        *(f"  {name}: {_value(one)} → {_value(other)}" for name, (one, other) in pairs.items()),
    ]


def _value(value: Any) -> str:
    return (
        "not there"
        if value is None
        else f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else str(value)
    )


def _count_lines(counts: Mapping[str, Mapping[str, list[Any]]]) -> list[str]:
    if not counts:
        return ["no count of documents or tokens differs"]
    lines = [f"{'':44} {'A':>14} {'B':>14}"]
    for source, pairs in counts.items():
        lines += [
            source,
            *(
                f"  {name:42} {one or 0:>14,} {other or 0:>14,}"
                for name, (one, other) in pairs.items()
            ),
        ]
    return lines


def _document_lines(found: Table, category: str, title: str, width: int) -> list[str]:
    rows = found["documents"].get(category, [])
    if not rows:
        return []
    lines = ["", f"{title}: {sum(row['documents'] for row in rows):,}"]
    lines += [f"  {row['documents']:>10,}  {row['source']}  {_fates(row)}" for row in rows]
    for row in found["examples"].get(category, []):
        lines.append(
            f"  {row['id']}  {row['source']}: {row['origin']}#{row['record']}  {_fates(row)}"
        )
        lines += (
            [f"    {line}" for line in _texts(found, row, width - 4)] if category == "text" else []
        )
    return lines


def _fates(row: Table) -> str:
    return " → ".join(fate for fate in (row["first"], row["second"]) if fate)


def _texts(found: Table, row: Table, width: int) -> list[str]:
    folder = f"{found['compared']}/documents"
    rows = [
        find_documents(tables(Path(root), folder, row["source"]), [row["id"]], ("id", "text"))
        for root in found["runs"]
    ]
    one, other = (here.get(row["id"], {}).get("text", "") for here in rows)
    return side_by_side(one, other, width, ("A", "B"))
