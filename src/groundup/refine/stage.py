"""The refine stage. Reads the collect view; writes refine/shard, refine/duplicates and refine/split, and the refine view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.errors import SourceError, StoreError
from groundup.refine.dedup import EXACT, NEAR, find_duplicates
from groundup.refine.filters import RULE_SETS, applicable, code_digest
from groundup.refine.shard import refine_shard
from groundup.refine.split import split_documents
from groundup.run import Job, Run
from groundup.store import Artefact, Facts, Step

# Raised by hand when the output of a step changes.
SHARD_VERSION = DUPLICATES_VERSION = SPLIT_VERSION = 1


def run(run: Run) -> None:
    """Clean, filter, deduplicate and split what was collected.

    Raises:
        RecipeError: a filter is unknown or cannot be imported.
        SourceError: no document is left.
        StoreError: there is no collect stage.
    """
    shards = run.build("refine", [_shard_job(run, collected) for collected in _collected(run)], "refine", "B")
    folders = [(shard.name, shard.path) for shard in shards]
    contents = {shard.name: shard.content for shard in shards}
    threshold = run.recipe.refine.near_threshold
    step = Step("refine/duplicates", "duplicates", DUPLICATES_VERSION, {"near_threshold": threshold}, contents)
    job = Job(step, find_duplicates, {"shards": folders, "near_threshold": threshold})
    (duplicates,) = run.build("refine", [job], "duplicates", "list")
    share, seed = run.recipe.tokenize.validation, run.recipe.seed
    step = Step("refine/split", "split", SPLIT_VERSION, {"seed": seed, "validation": share}, contents | {"duplicates": duplicates.content})
    kinds = {shard.name.rpartition(".")[0]: str(shard.facts["kind"]) for shard in shards}
    job = Job(step, split_documents, {"shards": folders, "kinds": kinds, "duplicates": duplicates.path, "seed": seed, "share": share})
    (split,) = run.build("refine", [job], "split", "list")
    facts = _facts(shards, duplicates, split)
    if not facts["documents"]:
        raise SourceError(f"refine kept no document; dropped: {_words(facts['dropped'])}; `groundup inspect {run.root} --dropped REASON`")
    run.publish("refine", [*shards, duplicates, split], _links(shards, duplicates, split), facts)


def _collected(run: Run) -> list[Artefact]:
    """Return the collected shards in order, without those of evaluation files: they are never trained on."""
    view = run.store.view("collect")
    if view is None:
        raise StoreError(f"{run.root / 'collect'}: missing or damaged; `groundup run` builds it")
    found = [run.store.artefact(entry) for entry in view.manifest["artefacts"] if entry["step"] == "collect/shard"]
    if None in found:
        raise StoreError(f"{run.root / '.store'}: a collected shard is missing or damaged; run with --redo collect")
    return [artefact for artefact in found if artefact is not None and artefact.facts["kind"] != "evaluation"]


def _shard_job(run: Run, collected: Artefact) -> Job:
    refine, root = run.recipe.refine, run.recipe.root
    kind = collected.facts["kind"]
    filters = applicable(refine.filters, kind)
    languages = list(refine.languages) if kind != "code" else []
    code = {name: code_digest(name, root) for name in filters if name not in RULE_SETS}
    step = Step(
        "refine/shard",
        collected.name,
        SHARD_VERSION,
        {"languages": languages, "filters": filters, "code": code},
        {"collect": collected.content},
    )
    arguments = {"collected": collected.path, "kind": kind, "languages": languages, "filters": filters, "root": root}
    return Job(step, refine_shard, arguments, float(collected.facts.get("bytes_out", 1)))


def _links(shards: list[Artefact], duplicates: Artefact, split: Artefact) -> dict[str, Path]:
    links = {"dropped/duplicates.parquet": duplicates.path / "duplicates.parquet"}
    for shard in shards:
        for folder in ("documents", "dropped"):
            links[f"{folder}/{shard.name}.parquet"] = shard.path / f"{folder}.parquet"
        links[f"split/{shard.name}.npy"] = split.path / "split" / f"{shard.name}.npy"
    return links


def _facts(shards: list[Artefact], duplicates: Artefact, split: Artefact) -> Facts:
    """Add up what the artefacts count, over all and by source."""
    sources: dict[str, dict[str, Any]] = {}
    for shard in shards:
        source = shard.name.rpartition(".")[0]
        own = sources.setdefault(source, {"kind": shard.facts["kind"], "bytes_in": 0, "dropped": Counter(), "changed": Counter()})
        own["bytes_in"] += shard.facts["bytes_in"]
        for name in ("dropped", "changed"):
            own[name].update(shard.facts[name])
    for reason in (EXACT, NEAR):
        for source, count in duplicates.facts[reason]["by_source"].items():
            sources[source]["dropped"][reason] += count
    for source, counts in split.facts["sources"].items():
        sources[source] |= counts | {part: counts["train"][part] + counts["validation"][part] for part in ("documents", "bytes")}
    dropped: Counter[str] = Counter()
    for own in sources.values():
        dropped.update(own["dropped"])
    return {
        "documents": sum(own["documents"] for own in sources.values()),
        "bytes": sum(own["bytes"] for own in sources.values()),
        "bytes_in": sum(own["bytes_in"] for own in sources.values()),
        "dropped": dict(sorted(dropped.items())),
        "sources": {
            name: own | {part: dict(sorted(own[part].items())) for part in ("dropped", "changed")} for name, own in sources.items()
        },
    }


def _words(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "nothing, since nothing was collected"
