"""Computes every figure of a report. Reads views, training files and the ledger of a run; returns
values with their origin.

No figure is typed: a name, a value, a unit, and the file that it was computed from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from groundup.recipe import TUNING
from groundup.report.figure import Figure, Part
from groundup.report.measured import MEASURED, compared
from groundup.report.run_files import Problems, artifacts, json_file, lock_table, view


def all_figures(root: Path, problems: Problems | None = None) -> dict[str, Figure]:
    """Return every figure of a run that its finished stages allow, by name.

    A part that cannot be read is left out and told to `problems`.
    """
    told = problems if problems is not None else Problems(root)
    found = {
        figure.name: figure
        for name, part in (PARTS | MEASURED).items()
        for figure in told.collected(name, part(root))
    }
    return found | {
        figure.name: figure for figure in told.collected("planned beside measured", compared(found))
    }


def planned(root: Path) -> Iterator[Figure]:
    """What `plan` had estimated before the run, to stand beside what was measured."""
    for name, figure in (json_file(root, "plan.json") or {}).get("figures", {}).items():
        yield Figure(f"plan.{name.replace(' ', '_')}", figure["value"], figure["unit"], "plan.json")


def weighted(root: Path) -> Iterator[Figure]:
    """The weight of each source, as the recipe has it."""
    for source in lock_table(root).get("source", []):
        if source["kind"] != "evaluation":
            yield Figure(
                f"source.weight.{source['name']}", source["weight"], "", "recipe.lock.toml"
            )


def collected(root: Path) -> Iterator[Figure]:
    """Documents and bytes of raw text, in all and by source, and what could not be read."""
    origin, reasons = "collect/manifest.json", Counter[tuple[str, str]]()
    sums: dict[str, Counter[str]] = {}
    for artifact in artifacts(root, "collect", "collect/shard"):
        facts = artifact.facts
        if facts["kind"] == TUNING:
            continue
        source = sums.setdefault(facts["source"], Counter())
        source.update(
            {name: facts[name] for name in ("documents", "bytes_in", "bytes_out", "files")}
        )
        reasons.update(
            {(facts["source"], reason): count for reason, count in facts["dropped"].items()}
        )
    yield from _sums("collect", sums, origin)
    yield from _dropped("collect", reasons, "records", origin)


def refined(root: Path) -> Iterator[Figure]:
    """Documents and bytes after cleaning and filters, bytes of repeated lines, what each reason
    dropped, and duplicates.
    """
    origin, reasons = "refine/manifest.json", Counter[tuple[str, str]]()
    sums: dict[str, Counter[str]] = {}
    for artifact in artifacts(root, "refine", "refine/shard"):
        facts, name = artifact.facts, artifact.name.rpartition(".")[0]
        source = sums.setdefault(name, Counter())
        source.update({name: facts[name] for name in ("documents", "bytes_in", "bytes_out")})
        reasons.update({(name, reason): count for reason, count in facts["dropped"].items()})
    for artifact in artifacts(root, "refine", "refine/duplicates"):
        for reason in ("exact_duplicate", "near_duplicate"):
            reasons.update(
                {
                    (source, reason): count
                    for source, count in artifact.facts[reason]["by_source"].items()
                }
            )
    for artifact in artifacts(root, "refine", "refine/contaminated"):
        reasons.update(
            {
                (source, "contaminated"): count
                for source, count in artifact.facts["by_source"].items()
            }
        )
    for artifact in artifacts(root, "refine", "refine/lines"):
        for source, counts in artifact.facts["sources"].items():
            sums[source].update({"repeated_lines": counts["lines"], "bytes_cut": counts["bytes"]})
            reasons.update(
                {(source, "boilerplate"): counts["dropped"]} if counts["dropped"] else {}
            )
    yield from _sums("refine", sums, origin)
    yield from _dropped("refine", reasons, "documents", origin)


def _sums(stage: str, sums: Mapping[str, Counter[str]], origin: str) -> Iterator[Figure]:
    total: Counter[str] = Counter()
    for source, counts in sums.items():
        total.update(counts)
        yield from (
            Figure(f"{stage}.{name}.{source}", value, _unit(name), origin)
            for name, value in counts.items()
        )
    yield from (
        Figure(f"{stage}.{name}", value, _unit(name), origin) for name, value in total.items()
    )


def _dropped(
    stage: str, reasons: Mapping[tuple[str, str], int], unit: str, origin: str
) -> Iterator[Figure]:
    """Each reason in all, and each reason of each source (an `@` is in no source's name)."""
    total: Counter[str] = Counter()
    for (source, reason), count in sorted(reasons.items()):
        total[reason] += count
        yield Figure(f"{stage}.dropped_by.{source}@{reason}", count, unit, origin)
    yield from (
        Figure(f"{stage}.dropped.{reason}", count, unit, origin)
        for reason, count in sorted(total.items())
    )


def _unit(name: str) -> str:
    return "bytes" if name.startswith("bytes") else name.replace("_", " ")


def tokenized(root: Path) -> Iterator[Figure]:
    """Tokens, documents, bytes and bytes per token by source and split, and each source's share of
    all tokens.
    """
    found, origin = view(root, "tokenize"), "tokenize/manifest.json"
    if found is None:
        return
    yield Figure("tokens.vocabulary", found.facts["vocab_size"], "entries", origin)
    for split, counts in found.facts["total"].items():
        yield from (
            Figure(f"tokens.{split}.{name}", value, name, origin) for name, value in counts.items()
        )
    for source, splits in found.facts["sources"].items():
        for split, counts in splits.items():
            yield from (
                Figure(f"tokens.{split}.{name}.{source}", value, name, origin)
                for name, value in counts.items()
            )
    yield from _both_splits(
        {"": found.facts["total"]}
        | {f".{name}": splits for name, splits in found.facts["sources"].items()},
        origin,
    )


def _both_splits(
    tables: Mapping[str, Mapping[str, Mapping[str, float]]], origin: str
) -> Iterator[Figure]:
    everything = sum(split["tokens"] for split in tables[""].values())
    for source, splits in tables.items():
        sums = {
            name: sum(split[name] for split in splits.values())
            for name in ("documents", "tokens", "bytes")
        }
        yield from (
            Figure(f"tokens.kept.{name}{source}", value, name, origin)
            for name, value in sums.items()
        )
        yield Figure(
            f"tokens.kept.share{source}",
            sums["tokens"] / everything if everything else None,
            "share",
            origin,
        )
        per_token = round(sums["bytes"] / sums["tokens"], 4) if sums["tokens"] else None
        yield Figure(f"tokens.kept.bytes_per_token{source}", per_token, "bytes/token", origin)


PARTS: dict[str, Part] = {
    "plan": planned,
    "sources": weighted,
    "collect": collected,
    "refine": refined,
    "tokenize": tokenized,
}
