"""The refine stage: clean, filter, deduplicate, decontaminate and split the collected documents.

    step                 one artifact per   what it does
    refine/shard         collected shard    cleans and filters documents, and indexes those it keeps
    refine/duplicates    run                lists exact and near duplicates
    refine/lines         run                lists lines that a source repeats, and cuts them out
    refine/evaluation    run                collects the n-grams of the evaluation items
    refine/occurrences   refined shard      finds these n-grams
    refine/contaminated  run                lists documents that hold evaluation items
    refine/split         run                assigns what is left to train or validation
    refine/quality       run                sums statistics by source and step

For example, a web shard of 1,000 documents:

    refine/shard          1,000 → 640   210 few_words, 90 language, 60 repeated_line_bytes
    refine/duplicates       640 → 600   5 exact_duplicate, 35 near_duplicate
    refine/lines            600 → 598   2 boilerplate: nothing but a cookie notice and a menu
    refine/contaminated     598 → 597   1 contaminated: it holds a question of a benchmark
    refine/split            597         567 train, 30 validation

Only refine/shard writes documents. The global steps write lists of rows to drop and of bytes to
cut, and readers of kept documents apply the lists (artifacts/corpus.py). So one new raw file costs
the refinement of its own shard, and the lists; no other document is written again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.artifacts.kinds import KINDS, is_training
from groundup.errors import StoreError
from groundup.runtime.files import content_digest
from groundup.runtime.run import ABSENT, Job, Keyed, Run, Unkeyed
from groundup.runtime.store import Artifact, Facts, Step
from groundup.runtime.user_code import code_digest

if TYPE_CHECKING:
    from groundup.refine.dedup.duplicates import EarlierResult

# Files of a refined shard that only refine/quality reads.
DESCRIPTIONS = ("bins.npy", "quality.json")


def run(run: Run) -> None:
    """Run the stage.

    Raises:
        RecipeError: a filter or a threshold is unknown, or a filter cannot be imported.
        SourceError: a source lost more than the recipe allows; the view is published before.
        StoreError: there is no collect stage.
    """
    from groundup.refine.filter.apply import check_filters
    from groundup.refine.stats.distributions import check_drops

    collected = _collected_shards(run)
    check_filters(run.recipe.refine.filters, run.recipe.refine.thresholds)
    tests = [shard for shard in collected if not is_training(shard.facts["kind"])]
    texts = [shard for shard in collected if is_training(shard.facts["kind"])]

    done = Refinement(run, run.build("refine", [_shard_job(run, text) for text in texts], "refine"))
    done.lists["duplicates"] = _find_duplicates(done)
    if lines := _find_repeated_lines(done):
        done.lists["lines"] = lines
    contamination = _find_contaminated(done, tests)
    split = _split(done)
    quality = _sum_distributions(done, split)

    others = [artifact for name, artifact in done.lists.items() if name != "contaminated"]
    artifacts = [*done.shards, *others, *contamination, split, quality]
    run.publish("refine", artifacts, _links(done, split, quality), _facts(done, split))
    rejected: dict[str, Counter[str]] = {}
    for shard in collected:
        counts = rejected.setdefault(source_of(shard), Counter())
        counts.update(shard.facts.get("dropped", {}))
    check_drops(run, quality.facts["sources"], rejected)


@dataclass
class Refinement:
    """What the stage has built so far.

    Attributes:
        shards: the refined shards, in order.
        lists: artifacts that list dropped documents, by name: duplicates, lines, contaminated.
    """

    run: Run
    shards: list[Artifact]
    lists: dict[str, Artifact] = field(default_factory=dict)

    @property
    def folders(self) -> list[tuple[str, Path]]:
        """Name and folder of each shard."""
        return [(shard.name, shard.path) for shard in self.shards]

    @property
    def kinds(self) -> dict[str, str]:
        """Kind of each source."""
        return {source_of(shard): str(shard.facts["kind"]) for shard in self.shards}

    @property
    def dropped(self) -> dict[str, Path]:
        """File of each list of dropped documents."""
        paths = {name: list_.path / f"{name}.parquet" for name, list_ in self.lists.items()}
        if "lines" in paths:
            # lines.parquet lists lines.
            paths["lines"] = paths["lines"].with_name("dropped.parquet")
        return paths

    @property
    def cuts(self) -> dict[str, Path]:
        """File of the cuts of each shard that has any."""
        if "lines" not in self.lists:
            return {}
        return {
            path.stem: path for path in sorted((self.lists["lines"].path / "cuts").glob("*.npy"))
        }

    @property
    def inputs(self) -> dict[str, str]:
        """What a global step depends on: the rows of all shards, and the lists so far."""
        return contents(self.shards) | {name: list_.content for name, list_ in self.lists.items()}

    def cut_inputs(self, shard: Artifact) -> dict[str, str]:
        """Return what a step on the texts of a shard depends on, beside the shard."""
        name = f"cuts/{shard.name}.npy"
        files = self.lists["lines"].manifest["files"] if "lines" in self.lists else {}
        return {"cuts": files[name]["sha256"]} if name in files else {}

    @property
    def memory(self) -> int:
        """Bytes of the index that a step may hold: the rest of a step needs about as much again."""
        return self.run.recipe.refine.memory_megabytes * 500_000

    def build(self, job: Job, title: str) -> Artifact:
        """Build one list."""
        (artifact,) = self.run.build("refine", [job], title, "list")
        return artifact


def source_of(shard: Artifact) -> str:
    """Return the source of a shard named `SOURCE.SHARD`."""
    return shard.name.rpartition(".")[0]


def contents(shards: Sequence[Artifact]) -> dict[str, str]:
    """Return the content of each shard without DESCRIPTIONS.

    So another filter that drops the same documents changes no list.
    """
    digests = {}
    for shard in shards:
        files = shard.manifest["files"].items()
        rows = {name: entry for name, entry in files if name not in DESCRIPTIONS}
        digests[shard.name] = content_digest(rows)
    return digests


def _collected_shards(run: Run) -> list[Artifact]:
    """Return the collected shards in order, with evaluation files, without tuning data."""
    view = run.store.view("collect")
    if view is None:
        raise StoreError(f"{run.root / 'collect'}: missing or damaged; `groundup run` builds it")
    shards = []
    for entry in view.manifest["artefacts"]:
        if entry["step"] != "collect/shard":
            continue
        if (shard := run.store.artifact(entry)) is None:
            raise StoreError(
                f"{run.root / '.store'}: a collected shard is missing or damaged; run with --redo"
                " collect"
            )
        if KINDS[shard.facts["kind"]].role != "tuning":
            shards.append(shard)
    return shards


def _shard_job(run: Run, collected: Artifact) -> Job:
    from groundup.refine.filter.apply import applicable_filters, thresholds_for
    from groundup.refine.filter.rules import RULE_SETS
    from groundup.refine.shard import SHARD

    refine, root, kind = run.recipe.refine, run.recipe.root, collected.facts["kind"]
    filters = applicable_filters(refine.filters, kind)
    thresholds = thresholds_for(filters, kind, refine.thresholds)
    code = {name: code_digest(name, root, "filter") for name in filters if name not in RULE_SETS}
    return SHARD.job(
        collected.name,
        inputs={"collect": collected.content},
        size=float(collected.facts.get("bytes_out", 1)),
        key_only={"code": code},
        languages=list(refine.languages) if not KINDS[kind].is_code else [],
        filters=filters,
        thresholds=Keyed(thresholds, thresholds or ABSENT),
        personal=Keyed(refine.personal, refine.personal.actions(KINDS[kind].is_code)),
        # The collected shard decides its kind.
        kind=Unkeyed(kind),
        collected=Unkeyed(collected.path),
        root=Unkeyed(root),
    )


def _find_duplicates(done: Refinement) -> Artifact:
    from groundup.refine.dedup.duplicates import DUPLICATES

    recipe = done.run.recipe
    priorities = {source.name: source.priority for source in recipe.source if source.priority}
    job = DUPLICATES.job(
        "duplicates",
        inputs=contents(done.shards),
        near_threshold=recipe.refine.near_threshold,
        priorities=Keyed(priorities, priorities or ABSENT),
        shards=Unkeyed(done.folders),
        memory=Unkeyed(done.memory),
        # It saves comparisons, and does not change the list.
        earlier=Unkeyed(None),
    )
    arguments = {**job.arguments, "earlier": _earlier_result(done.run, job.step)}
    return done.build(replace(job, arguments=arguments), "duplicates")


def _earlier_result(run: Run, step: Step) -> EarlierResult | None:
    """Return the list of the last run with the same settings, if the new one can start from it."""
    from groundup.refine.dedup.duplicates import EarlierResult

    view = run.store.view("refine")
    entries = view.manifest["artefacts"] if view is not None else []
    artifacts = (run.store.artifact(entry) for entry in entries if entry["step"] == step.step)
    old = next((artifact for artifact in artifacts if artifact is not None), None)
    # In a crowded bucket, the compared pairs would depend on the earlier list.
    if old is None or old.facts["crowded"]:
        return None
    if (old.manifest["settings"], old.manifest["version"]) != (step.settings, step.version):
        return None
    same = frozenset(
        name for name, content in old.manifest["inputs"].items() if step.inputs.get(name) == content
    )
    return EarlierResult(old.path, old.facts["shards"], same) if same else None


def _find_repeated_lines(done: Refinement) -> Artifact | None:
    """Build the list of repeated lines, if the recipe wants it and a source may have any."""
    from groundup.refine.lines.line_index import LINE_KINDS
    from groundup.refine.lines.repeated_lines import LINES_STEP

    fewest = done.run.recipe.refine.repeated_lines
    searched = [shard for shard in done.shards if shard.facts["kind"] in LINE_KINDS]
    if not fewest or not searched:
        return None
    job = LINES_STEP.job(
        "lines",
        inputs=contents(searched) | {"duplicates": done.lists["duplicates"].content},
        fewest=fewest,
        shards=Unkeyed(done.folders),
        kinds=Unkeyed(done.kinds),
        duplicates=Unkeyed(done.dropped["duplicates"]),
    )
    return done.build(job, "repeated lines")


def _find_contaminated(done: Refinement, tests: Sequence[Artifact]) -> list[Artifact]:
    """List the documents that hold evaluation items; return all artifacts built for that."""
    from groundup.refine.decontaminate import CONTAMINATED_STEP, GRAMS, OCCURRENCES

    if not any(test.facts["documents"] for test in tests):
        return []
    run = done.run
    job = GRAMS.job(
        "evaluation",
        inputs=contents(tests),
        allowed=list(run.recipe.refine.allowed_overlap),
        shards=Unkeyed([test.path for test in tests]),
    )
    (grams,) = run.build("refine", [job], "evaluation")
    cuts = done.cuts
    jobs = [
        OCCURRENCES.job(
            shard.name,
            inputs={"shard": content, "evaluation": grams.content} | done.cut_inputs(shard),
            size=float(shard.facts["bytes_out"]),
            shard=Unkeyed(shard.path),
            evaluation=Unkeyed(grams.path),
            cuts=Unkeyed(cuts.get(shard.name)),
        )
        for shard, content in zip(done.shards, contents(done.shards).values(), strict=True)
    ]
    occurrences = run.build("refine", jobs, "contamination")
    job = CONTAMINATED_STEP.job(
        "contaminated",
        inputs=done.inputs | {"evaluation": grams.content},
        shards=Unkeyed(done.folders),
        occurrences=Unkeyed({artifact.name: artifact.path for artifact in occurrences}),
        dropped=Unkeyed(list(done.dropped.values())),
        cuts=Unkeyed(cuts),
        evaluation=Unkeyed(grams.path),
    )
    done.lists["contaminated"] = done.build(job, "contaminated")
    return [grams, *occurrences, done.lists["contaminated"]]


def _split(done: Refinement) -> Artifact:
    from groundup.refine.split.assign import SPLIT

    job = SPLIT.job(
        "split",
        inputs=done.inputs,
        seed=done.run.recipe.seed,
        validation=done.run.recipe.tokenize.validation,
        shards=Unkeyed(done.folders),
        kinds=Unkeyed(done.kinds),
        dropped=Unkeyed(list(done.dropped.values())),
        cuts=Unkeyed(done.cuts),
        memory=Unkeyed(done.memory),
    )
    return done.build(job, "split")


def _sum_distributions(done: Refinement, split: Artifact) -> Artifact:
    from groundup.refine.stats.distributions import DISTRIBUTIONS

    job = DISTRIBUTIONS.job(
        "quality",
        inputs={a.name: a.content for a in [*done.shards, *done.lists.values(), split]},
        shards=Unkeyed(done.folders),
        kinds=Unkeyed(done.kinds),
        split=Unkeyed(split.path / "split"),
        lists=Unkeyed(list(done.dropped.values())),
        cuts=Unkeyed(done.cuts),
    )
    return done.build(job, "distributions")


def _links(done: Refinement, split: Artifact, quality: Artifact) -> dict[str, Path]:
    """Return the files of the view `refine`."""
    links = {f"dropped/{name}.parquet": path for name, path in done.dropped.items()}
    links |= {f"cuts/{name}.npy": path for name, path in done.cuts.items()}
    if "lines" in done.lists:
        links["lines.parquet"] = done.lists["lines"].path / "lines.parquet"
    for shard in done.shards:
        for folder in ("documents", "dropped"):
            links[f"{folder}/{shard.name}.parquet"] = shard.path / f"{folder}.parquet"
        links[f"split/{shard.name}.npy"] = split.path / "split" / f"{shard.name}.npy"
    return links | {"quality.json": quality.path / "quality.json"}


def _facts(done: Refinement, split: Artifact) -> Facts:
    """Add up what the artifacts count, over all sources and by source."""
    sources: dict[str, dict[str, Any]] = {}
    for shard in done.shards:
        empty = {"bytes_in": 0, "dropped": Counter(), "changed": Counter()}
        counts = sources.setdefault(source_of(shard), {"kind": shard.facts["kind"]} | empty)
        counts["bytes_in"] += shard.facts["bytes_in"]
        for name in ("dropped", "changed"):
            counts[name].update(shard.facts[name])
    for reason, by_source in _listed(done.lists).items():
        for source, count in by_source.items():
            sources[source]["dropped"][reason] += count
    if "lines" in done.lists:
        for source, lines in done.lists["lines"].facts["sources"].items():
            sources[source]["lines"] = lines
    dropped: Counter[str] = Counter()
    for source, sides in split.facts["sources"].items():
        counts = sources[source]
        counts |= sides
        for name in ("documents", "bytes"):
            counts[name] = sides["train"][name] + sides["validation"][name]
        dropped.update(counts["dropped"])
        for name in ("dropped", "changed"):
            counts[name] = dict(sorted(counts[name].items()))
    names = ("documents", "bytes", "bytes_in")
    sums = {name: sum(counts[name] for counts in sources.values()) for name in names}
    return sums | {"dropped": dict(sorted(dropped.items())), "sources": sources}


def _listed(lists: Mapping[str, Artifact]) -> dict[str, dict[str, int]]:
    """Return the number of documents that the lists drop, by reason and source."""
    from groundup.refine.decontaminate import CONTAMINATED
    from groundup.refine.dedup.duplicates import EXACT, NEAR
    from groundup.refine.lines.repeated_lines import BOILERPLATE

    duplicates = lists["duplicates"].facts
    by_reason = {reason: duplicates[reason]["by_source"] for reason in (EXACT, NEAR)}
    if "contaminated" in lists:
        by_reason[CONTAMINATED] = lists["contaminated"].facts["by_source"]
    if "lines" in lists:
        repeated = lists["lines"].facts["sources"].items()
        by_reason[BOILERPLATE] = {
            source: counts["dropped"] for source, counts in repeated if counts["dropped"]
        }
    return by_reason
