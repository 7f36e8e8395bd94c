"""The refine stage. Reads the collect view; writes refine/shard, the lists refine/duplicates and refine/contaminated,
refine/split, and the refine view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.errors import SourceError, StoreError
from groundup.refine.contamination import CONTAMINATED, find_contaminated, find_occurrences
from groundup.refine.dedup import EXACT, NEAR, find_duplicates
from groundup.refine.earlier import Earlier
from groundup.refine.evaluation import write_grams
from groundup.refine.filters import RULE_SETS, applicable, code_digest
from groundup.refine.shard import refine_shard
from groundup.refine.split import split_documents
from groundup.run import Job, Run
from groundup.store import Artefact, Facts, Step

# Raised by hand when the output of a step changes.
SHARD_VERSION = 3
DUPLICATES_VERSION = SPLIT_VERSION = 2
CONTAMINATION_VERSION = 1


def run(run: Run) -> None:
    """Clean, filter, deduplicate, decontaminate and split what was collected.

    Raises:
        RecipeError: a filter is unknown or cannot be imported.
        SourceError: no document is left.
        StoreError: there is no collect stage.
    """
    collected = _collected(run)
    shards = run.build("refine", [_shard_job(run, one) for one in collected if not _is_evaluation(one)], "refine", "B")
    (duplicates,) = run.build("refine", [_duplicates_job(run, shards)], "duplicates", "list")
    tests = [one for one in collected if _is_evaluation(one)]
    against = _contaminated(run, shards, duplicates, tests) if any(one.facts["documents"] for one in tests) else []
    lists = {"duplicates": duplicates} | ({"contaminated": against[-1]} if against else {})
    (split,) = run.build("refine", [_split_job(run, shards, lists)], "split", "list")
    facts = _facts(shards, lists, split)
    if not facts["documents"]:
        raise SourceError(f"refine kept no document; dropped: {_words(facts['dropped'])}; `groundup inspect {run.root} --dropped REASON`")
    run.publish("refine", [*shards, duplicates, *against, split], _links(shards, lists, split), facts)


def _folders(shards: Sequence[Artefact]) -> list[tuple[str, Path]]:
    return [(shard.name, shard.path) for shard in shards]


def _contents(shards: Sequence[Artefact]) -> dict[str, str]:
    return {shard.name: shard.content for shard in shards}


def _is_evaluation(collected: Artefact) -> bool:
    return bool(collected.facts["kind"] == "evaluation")


def _duplicates_job(run: Run, shards: Sequence[Artefact]) -> Job:
    threshold = run.recipe.refine.near_threshold
    step = Step("refine/duplicates", "duplicates", DUPLICATES_VERSION, {"near_threshold": threshold}, _contents(shards))
    arguments = {"shards": _folders(shards), "near_threshold": threshold, "memory": _memory(run), "earlier": _earlier(run, step)}
    return Job(step, find_duplicates, arguments)


def _memory(run: Run) -> int:
    """Return how many bytes of the index a global step may hold; the rest of what it needs is as much again."""
    return run.recipe.refine.memory_megabytes * 500_000


def _earlier(run: Run, wanted: Step) -> Earlier | None:
    """Return the list that the last run made with the same settings, from which a new one can go on."""
    view = run.store.view("refine")
    entries = view.manifest["artefacts"] if view is not None else []
    old = next((a for e in entries if e["step"] == wanted.step and (a := run.store.artefact(e)) is not None), None)
    if old is None or old.facts["crowded"] or (old.manifest["settings"], old.manifest["version"]) != (wanted.settings, wanted.version):
        return None
    same = frozenset(name for name, content in old.manifest["inputs"].items() if wanted.inputs.get(name) == content)
    return Earlier(old.path, old.facts["shards"], same) if same else None


def _contaminated(run: Run, shards: Sequence[Artefact], duplicates: Artefact, tests: Sequence[Artefact]) -> list[Artefact]:
    """Build the grams of the evaluation items, their occurrences by shard, and the list of documents that hold items."""
    allowed = list(run.recipe.refine.allowed_overlap)
    step = Step("refine/evaluation", "evaluation", CONTAMINATION_VERSION, {"allowed": allowed}, _contents(tests))
    (grams,) = run.build("refine", [Job(step, write_grams, {"shards": [test.path for test in tests], "allowed": allowed})], "evaluation")
    found = run.build("refine", [_occurrences_job(shard, grams) for shard in shards], "contamination", "B")
    paths = {shard.name: artefact.path for shard, artefact in zip(shards, found, strict=True)}
    inputs = _contents(shards) | {"duplicates": duplicates.content, "evaluation": grams.content}
    step = Step("refine/contaminated", "contaminated", CONTAMINATION_VERSION, {}, inputs)
    arguments = {"shards": _folders(shards), "occurrences": paths, "duplicates": duplicates.path, "evaluation": grams.path}
    return [grams, *found, *run.build("refine", [Job(step, find_contaminated, arguments)], "contaminated", "list")]


def _occurrences_job(shard: Artefact, grams: Artefact) -> Job:
    step = Step("refine/occurrences", shard.name, CONTAMINATION_VERSION, {}, {"shard": shard.content, "evaluation": grams.content})
    return Job(step, find_occurrences, {"shard": shard.path, "evaluation": grams.path}, float(shard.facts["bytes_out"]))


def _split_job(run: Run, shards: Sequence[Artefact], lists: Mapping[str, Artefact]) -> Job:
    share, seed = run.recipe.tokenize.validation, run.recipe.seed
    inputs = _contents(shards) | {name: artefact.content for name, artefact in lists.items()}
    step = Step("refine/split", "split", SPLIT_VERSION, {"seed": seed, "validation": share}, inputs)
    kinds = {shard.name.rpartition(".")[0]: str(shard.facts["kind"]) for shard in shards}
    dropped = [artefact.path / f"{name}.parquet" for name, artefact in lists.items()]
    return Job(
        step,
        split_documents,
        {"shards": _folders(shards), "kinds": kinds, "dropped": dropped, "seed": seed, "share": share, "memory": _memory(run)},
    )


def _collected(run: Run) -> list[Artefact]:
    """Return the collected shards in order. Those of evaluation files are never trained on; training text is held against them."""
    view = run.store.view("collect")
    if view is None:
        raise StoreError(f"{run.root / 'collect'}: missing or damaged; `groundup run` builds it")
    found = [run.store.artefact(entry) for entry in view.manifest["artefacts"] if entry["step"] == "collect/shard"]
    if None in found:
        raise StoreError(f"{run.root / '.store'}: a collected shard is missing or damaged; run with --redo collect")
    return [artefact for artefact in found if artefact is not None]


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


def _links(shards: list[Artefact], lists: Mapping[str, Artefact], split: Artefact) -> dict[str, Path]:
    links = {f"dropped/{name}.parquet": artefact.path / f"{name}.parquet" for name, artefact in lists.items()}
    for shard in shards:
        for folder in ("documents", "dropped"):
            links[f"{folder}/{shard.name}.parquet"] = shard.path / f"{folder}.parquet"
        links[f"split/{shard.name}.npy"] = split.path / "split" / f"{shard.name}.npy"
    return links


def _facts(shards: list[Artefact], lists: Mapping[str, Artefact], split: Artefact) -> Facts:
    """Add up what the artefacts count, over all and by source."""
    sources: dict[str, dict[str, Any]] = {}
    for shard in shards:
        source = shard.name.rpartition(".")[0]
        own = sources.setdefault(source, {"kind": shard.facts["kind"], "bytes_in": 0, "dropped": Counter(), "changed": Counter()})
        own["bytes_in"] += shard.facts["bytes_in"]
        for name in ("dropped", "changed"):
            own[name].update(shard.facts[name])
    listed = {reason: lists["duplicates"].facts[reason]["by_source"] for reason in (EXACT, NEAR)}
    if "contaminated" in lists:
        listed[CONTAMINATED] = lists["contaminated"].facts["by_source"]
    for reason, by_source in listed.items():
        for source, count in by_source.items():
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
