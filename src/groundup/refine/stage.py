"""The refine stage. Reads the collect view; writes refine/shard, the lists refine/duplicates,
refine/lines and refine/contaminated, refine/split, refine/quality, and the refine view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.errors import StoreError
from groundup.recipe import TUNING
from groundup.refine.decontaminate.contamination import (
    CONTAMINATED,
    find_contaminated,
    find_occurrences,
)
from groundup.refine.decontaminate.evaluation import write_grams
from groundup.refine.dedup.duplicates import EXACT, NEAR, find_duplicates
from groundup.refine.dedup.incremental import Earlier
from groundup.refine.filter.filters import applicable, check_filters, thresholds_for
from groundup.refine.filter.rules import RULE_SETS
from groundup.refine.lines.lines import KINDS as LINE_KINDS
from groundup.refine.lines.repeated_lines import BOILERPLATE, find_boilerplate
from groundup.refine.shard import refine_shard
from groundup.refine.split.split import split_documents
from groundup.refine.stats.distributions import sum_quality
from groundup.refine.stats.drop_check import check_losses
from groundup.runtime.files import content_digest
from groundup.runtime.job import Job
from groundup.runtime.run import Run
from groundup.runtime.store import Artifact, Facts, Step
from groundup.runtime.user_code import code_digest

# Raised by hand when the output of a step changes.
SHARD_VERSION = 5
DUPLICATES_VERSION = SPLIT_VERSION = 3
CONTAMINATION_VERSION = QUALITY_VERSION = 2
LINES_VERSION = 1
# Files of a refined shard that refine/quality alone reads.
DESCRIPTIONS = ("bins.npy", "quality.json")


def run(run: Run) -> None:
    """Clean, filter, deduplicate, take out repeated lines, decontaminate and split what was
    collected.

    Raises:
        RecipeError: a filter or a threshold is unknown, or a filter cannot be imported.
        SourceError: a source lost more than the recipe allows; the view is there by then.
        StoreError: there is no collect stage.
    """
    collected = _collected(run)
    check_filters(run.recipe.refine.filters, run.recipe.refine.thresholds)
    shards = run.build(
        "refine",
        [_shard_job(run, one) for one in collected if not _is_evaluation(one)],
        "refine",
        "B",
    )
    (duplicates,) = run.build("refine", [_duplicates_job(run, shards)], "duplicates", "list")
    lists = {"duplicates": duplicates} | _lines(run, shards, duplicates)
    tests = [one for one in collected if _is_evaluation(one)]
    against = (
        _contaminated(run, shards, lists, tests)
        if any(one.facts["documents"] for one in tests)
        else []
    )
    lists |= {"contaminated": against[-1]} if against else {}
    (split,) = run.build("refine", [_split_job(run, shards, lists)], "split", "list")
    (quality,) = run.build(
        "refine", [_quality_job(run, shards, lists, split)], "distributions", "list"
    )
    links = _links(shards, lists, split) | {"quality.json": quality.path / "quality.json"}
    found = [artifact for name, artifact in lists.items() if name != "contaminated"]
    run.publish(
        "refine", [*shards, *found, *against, split, quality], links, _facts(shards, lists, split)
    )
    check_losses(run, quality.facts["sources"], _rejected(collected))


def _folders(shards: Sequence[Artifact]) -> list[tuple[str, Path]]:
    return [(shard.name, shard.path) for shard in shards]


def _contents(shards: Sequence[Artifact]) -> dict[str, str]:
    return {shard.name: _rows(shard) for shard in shards}


def _rows(shard: Artifact) -> str:
    """Return the content of a shard without what only describes it: another filter that drops the
    same changes no list.
    """
    return content_digest(
        {name: entry for name, entry in shard.manifest["files"].items() if name not in DESCRIPTIONS}
    )


def _kinds(shards: Sequence[Artifact]) -> dict[str, str]:
    return {shard.name.rpartition(".")[0]: str(shard.facts["kind"]) for shard in shards}


def _rejected(collected: Sequence[Artifact]) -> dict[str, Counter[str]]:
    """Return what the collector could not read, by source and reason."""
    found: dict[str, Counter[str]] = {}
    for artifact in collected:
        found.setdefault(artifact.name.rpartition(".")[0], Counter()).update(
            artifact.facts.get("dropped", {})
        )
    return found


def _is_evaluation(collected: Artifact) -> bool:
    return bool(collected.facts["kind"] == "evaluation")


def _duplicates_job(run: Run, shards: Sequence[Artifact]) -> Job:
    settings: dict[str, Any] = {"near_threshold": run.recipe.refine.near_threshold}
    if preferred := {
        source.name: source.priority for source in run.recipe.source if source.priority
    }:
        settings["priorities"] = preferred
    step = Step("refine/duplicates", "duplicates", DUPLICATES_VERSION, settings, _contents(shards))
    arguments = {"shards": _folders(shards), "memory": _memory(run), "earlier": _earlier(run, step)}
    return Job(step, find_duplicates, arguments | settings)


def _memory(run: Run) -> int:
    """Return how many bytes of the index a global step may hold; the rest of what it needs is as
    much again.
    """
    return run.recipe.refine.memory_megabytes * 500_000


def _earlier(run: Run, wanted: Step) -> Earlier | None:
    """Return the list that the last run made with the same settings, from which a new one can go
    on.
    """
    view = run.store.view("refine")
    entries = view.manifest["artefacts"] if view is not None else []
    old = next(
        (
            a
            for e in entries
            if e["step"] == wanted.step and (a := run.store.artifact(e)) is not None
        ),
        None,
    )
    if (
        old is None
        or old.facts["crowded"]
        or (old.manifest["settings"], old.manifest["version"]) != (wanted.settings, wanted.version)
    ):
        return None
    same = frozenset(
        name
        for name, content in old.manifest["inputs"].items()
        if wanted.inputs.get(name) == content
    )
    return Earlier(old.path, old.facts["shards"], same) if same else None


def _lines(run: Run, shards: Sequence[Artifact], duplicates: Artifact) -> dict[str, Artifact]:
    """Build the list of repeated lines, where the recipe wants it and a source is of a kind that
    has them.
    """
    fewest, kinds = run.recipe.refine.repeated_lines, _kinds(shards)
    looked = [shard for shard in shards if shard.facts["kind"] in LINE_KINDS]
    if not fewest or not looked:
        return {}
    step = Step(
        "refine/lines",
        "lines",
        LINES_VERSION,
        {"fewest": fewest},
        _contents(looked) | {"duplicates": duplicates.content},
    )
    arguments = {
        "shards": _folders(shards),
        "kinds": kinds,
        "duplicates": _list(duplicates),
        "fewest": fewest,
    }
    return {
        "lines": run.build(
            "refine", [Job(step, find_boilerplate, arguments)], "repeated lines", "list"
        )[0]
    }


def _list(artifact: Artifact) -> Path:
    """Return the documents that a list drops."""
    return artifact.path / (
        "dropped.parquet" if artifact.name == "lines" else f"{artifact.name}.parquet"
    )


def _cuts(lists: Mapping[str, Artifact]) -> dict[str, Path]:
    """Return the files of cuts by shard; most shards of most kinds have none."""
    return (
        {path.stem: path for path in sorted((lists["lines"].path / "cuts").glob("*.npy"))}
        if "lines" in lists
        else {}
    )


def _cuts_digest(lists: Mapping[str, Artifact], shard: Artifact) -> dict[str, str]:
    """Return what the cuts of a shard add to the inputs of a step that reads its texts."""
    name = f"cuts/{shard.name}.npy"
    files = lists["lines"].manifest["files"] if "lines" in lists else {}
    return {"cuts": files[name]["sha256"]} if name in files else {}


def _contaminated(
    run: Run, shards: Sequence[Artifact], lists: Mapping[str, Artifact], tests: Sequence[Artifact]
) -> list[Artifact]:
    """Build the grams of the evaluation items, their occurrences by shard, and the list of
    documents that hold items.
    """
    allowed = list(run.recipe.refine.allowed_overlap)
    step = Step(
        "refine/evaluation",
        "evaluation",
        CONTAMINATION_VERSION,
        {"allowed": allowed},
        _contents(tests),
    )
    (grams,) = run.build(
        "refine",
        [Job(step, write_grams, {"shards": [test.path for test in tests], "allowed": allowed})],
        "evaluation",
    )
    found = run.build(
        "refine", [_occurrences_job(shard, grams, lists) for shard in shards], "contamination", "B"
    )
    paths = {shard.name: artifact.path for shard, artifact in zip(shards, found, strict=True)}
    inputs = _contents(shards) | _contents(list(lists.values())) | {"evaluation": grams.content}
    step = Step("refine/contaminated", "contaminated", CONTAMINATION_VERSION, {}, inputs)
    dropped = [_list(artifact) for artifact in lists.values()]
    arguments = {
        "shards": _folders(shards),
        "occurrences": paths,
        "dropped": dropped,
        "cuts": _cuts(lists),
        "evaluation": grams.path,
    }
    return [
        grams,
        *found,
        *run.build("refine", [Job(step, find_contaminated, arguments)], "contaminated", "list"),
    ]


def _occurrences_job(shard: Artifact, grams: Artifact, lists: Mapping[str, Artifact]) -> Job:
    inputs = {"shard": _rows(shard), "evaluation": grams.content} | _cuts_digest(lists, shard)
    step = Step("refine/occurrences", shard.name, CONTAMINATION_VERSION, {}, inputs)
    arguments = {
        "shard": shard.path,
        "evaluation": grams.path,
        "cuts": _cuts(lists).get(shard.name),
    }
    return Job(step, find_occurrences, arguments, float(shard.facts["bytes_out"]))


def _split_job(run: Run, shards: Sequence[Artifact], lists: Mapping[str, Artifact]) -> Job:
    share, seed = run.recipe.tokenize.validation, run.recipe.seed
    inputs = _contents(shards) | {name: artifact.content for name, artifact in lists.items()}
    step = Step("refine/split", "split", SPLIT_VERSION, {"seed": seed, "validation": share}, inputs)
    lost = {"dropped": [_list(artifact) for artifact in lists.values()], "cuts": _cuts(lists)}
    arguments = {
        "shards": _folders(shards),
        "kinds": _kinds(shards),
        "seed": seed,
        "share": share,
        "memory": _memory(run),
    }
    return Job(step, split_documents, arguments | lost)


def _quality_job(
    run: Run, shards: Sequence[Artifact], lists: Mapping[str, Artifact], split: Artifact
) -> Job:
    inputs = {artifact.name: artifact.content for artifact in [*shards, *lists.values(), split]}
    paths = [_list(artifact) for artifact in lists.values()]
    arguments = {
        "shards": _folders(shards),
        "kinds": _kinds(shards),
        "split": split.path / "split",
        "lists": paths,
        "cuts": _cuts(lists),
    }
    return Job(
        Step("refine/quality", "quality", QUALITY_VERSION, {}, inputs), sum_quality, arguments
    )


def _collected(run: Run) -> list[Artifact]:
    """Return the collected shards in order, without the tuning data.

    Shards of evaluation files are never trained on; training text is compared with them.
    """
    view = run.store.view("collect")
    if view is None:
        raise StoreError(f"{run.root / 'collect'}: missing or damaged; `groundup run` builds it")
    found = [
        run.store.artifact(entry)
        for entry in view.manifest["artefacts"]
        if entry["step"] == "collect/shard"
    ]
    if None in found:
        raise StoreError(
            f"{run.root / '.store'}: a collected shard is missing or damaged; run with --redo"
            " collect"
        )
    return [shard for shard in found if shard is not None and shard.facts["kind"] != TUNING]


def _shard_job(run: Run, collected: Artifact) -> Job:
    refine, root = run.recipe.refine, run.recipe.root
    kind = collected.facts["kind"]
    filters = applicable(refine.filters, kind)
    languages = list(refine.languages) if kind != "code" else []
    code = {name: code_digest(name, root, "filter") for name in filters if name not in RULE_SETS}
    own = thresholds_for(filters, kind, refine.thresholds)
    settings = {
        "languages": languages,
        "filters": filters,
        "code": code,
        "personal": refine.personal.actions(kind == "code"),
    }
    step = Step(
        "refine/shard",
        collected.name,
        SHARD_VERSION,
        settings | ({"thresholds": own} if own else {}),
        {"collect": collected.content},
    )
    arguments = {
        "collected": collected.path,
        "kind": kind,
        "languages": languages,
        "filters": filters,
        "root": root,
        "thresholds": own,
    }
    arguments["personal"] = refine.personal
    return Job(step, refine_shard, arguments, float(collected.facts.get("bytes_out", 1)))


def _links(
    shards: list[Artifact], lists: Mapping[str, Artifact], split: Artifact
) -> dict[str, Path]:
    links = {f"dropped/{name}.parquet": _list(artifact) for name, artifact in lists.items()}
    links |= {f"cuts/{name}.npy": path for name, path in _cuts(lists).items()}
    links |= {"lines.parquet": lists["lines"].path / "lines.parquet"} if "lines" in lists else {}
    for shard in shards:
        for folder in ("documents", "dropped"):
            links[f"{folder}/{shard.name}.parquet"] = shard.path / f"{folder}.parquet"
        links[f"split/{shard.name}.npy"] = split.path / "split" / f"{shard.name}.npy"
    return links


def _facts(shards: list[Artifact], lists: Mapping[str, Artifact], split: Artifact) -> Facts:
    """Add up what the artifacts count, over all and by source."""
    sources = _of_shards(shards)
    for reason, by_source in _of_lists(lists).items():
        for source, count in by_source.items():
            sources[source]["dropped"][reason] += count
    for source, counts in lists["lines"].facts["sources"].items() if "lines" in lists else ():
        sources[source]["lines"] = counts
    for source, counts in split.facts["sources"].items():
        sources[source] |= counts | {
            part: counts["train"][part] + counts["validation"][part]
            for part in ("documents", "bytes")
        }
    dropped: Counter[str] = Counter()
    for own in sources.values():
        dropped.update(own["dropped"])
        own |= {part: dict(sorted(own[part].items())) for part in ("dropped", "changed")}
    sums = {
        part: sum(own[part] for own in sources.values())
        for part in ("documents", "bytes", "bytes_in")
    }
    return sums | {"dropped": dict(sorted(dropped.items())), "sources": sources}


def _of_shards(shards: Sequence[Artifact]) -> dict[str, dict[str, Any]]:
    """Return by source what its shards count."""
    sources: dict[str, dict[str, Any]] = {}
    for shard in shards:
        source = shard.name.rpartition(".")[0]
        own = sources.setdefault(
            source,
            {
                "kind": shard.facts["kind"],
                "bytes_in": 0,
                "dropped": Counter(),
                "changed": Counter(),
            },
        )
        own["bytes_in"] += shard.facts["bytes_in"]
        for name in ("dropped", "changed"):
            own[name].update(shard.facts[name])
    return sources


def _of_lists(lists: Mapping[str, Artifact]) -> dict[str, dict[str, int]]:
    """Return by reason and source how many documents the lists drop."""
    listed = {reason: lists["duplicates"].facts[reason]["by_source"] for reason in (EXACT, NEAR)}
    if "contaminated" in lists:
        listed[CONTAMINATED] = lists["contaminated"].facts["by_source"]
    if "lines" in lists:
        repeated = lists["lines"].facts["sources"]
        listed[BOILERPLATE] = {
            source: counts["dropped"] for source, counts in repeated.items() if counts["dropped"]
        }
    return listed
