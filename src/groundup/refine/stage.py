"""The refine stage: clean, filter, deduplicate, decontaminate and split the collected documents.

    step                 one artifact per   what it does
    refine/shard         collected shard    cleans and filters documents, and indexes those it keeps
    refine/duplicates    run                lists exact and near duplicates (dedup/parts.py)
    refine/line_counts   source, range      counts lines, and lists those that a source repeats
    refine/cuts          refined shard      cuts them out
    refine/lines         run                lists these lines, and documents left without words
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
the refinement of its own shard, and the lists; no other document is written again:

    web.a ──► refined web.a ─┐                                          ┌──► split
    web.b ──► refined web.b ─┼──► duplicates ──► lines ──► contaminated ┤
    new   ──► refined new   ─┘    each reads all shards, and the lists  └──► quality
                                  before it

Filters before duplicates is the order of RefinedWeb (Penedo et al. 2023, arXiv 2306.01116): a
filter costs less per document, and a document that it drops is never chosen as the one to keep.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.artifacts.kinds import KINDS, is_training
from groundup.errors import StoreError
from groundup.refine.refinement import Refinement, contents, source_of
from groundup.runtime.progress import say
from groundup.runtime.run import ABSENT, Job, Keyed, Run, Unkeyed, taken
from groundup.runtime.store import Artifact, Facts
from groundup.runtime.user_code import code_digest


def run(run: Run) -> None:
    """Run the stage.

    Raises a RecipeError for an unknown filter or threshold, or a filter that cannot be imported; a
    SourceError if a source lost more than the recipe allows, after publishing the view; a
    StoreError without a collect stage.
    """
    from groundup.refine.dedup.parts import discard_parts
    from groundup.refine.filter.apply import check_filters
    from groundup.refine.kernels import is_cache_cold
    from groundup.refine.rehearsal import compile_kernels

    collected = _collected_shards(run)
    # Before any work, since a misspelled filter would be found hours later.
    check_filters(run.recipe.refine.filters, run.recipe.refine.thresholds)

    stage = Refinement(run)
    # Shards are independent, so workers refine them in parallel. The rest runs once per run.
    jobs = [_shard_job(run, shard) for shard in collected if is_training(shard.facts["kind"])]
    if is_cache_cold() and any(run.store.find(job.step) is None for job in jobs):
        say("refine: compiling kernels (once per version)")
        compile_kernels(run.workers)
    stage.shards = stage.build(taken(jobs), "refine")
    tests = [test for test in collected if not is_training(test.facts["kind"])]
    lists = [_prepared_duplicates(stage), *_evaluation_jobs(stage, tests)]
    stage.lists["duplicates"], *evaluation = stage.build_lists(lists, "duplicates")
    discard_parts(run)
    _find_repeated_lines(stage)
    _find_contaminated(stage, evaluation)
    lists = [_prepared_split(stage), _quality_job(stage)]
    split, quality = stage.build_lists(lists, "split")
    discard_parts(run)
    _publish(stage, split, quality, collected)


def _collected_shards(run: Run) -> list[Artifact]:
    view = run.store.view("collect")
    if view is None:
        raise StoreError(f"{run.root / 'collect'}: missing or damaged; `groundup run` builds it")
    steps = [entry["step"] for entry in view.manifest["artefacts"]]
    collected = run.store.artifacts("collect", "collect/shard")
    if len(collected) < steps.count("collect/shard"):
        problem = "a collected shard is missing or damaged; run with --redo collect"
        raise StoreError(f"{run.root / '.store'}: {problem}")
    # Conversations for tuning keep their form: the tune stage reads them from collect.
    return [shard for shard in collected if KINDS[shard.facts["kind"]].role != "tuning"]


def _shard_job(run: Run, collected: Artifact) -> Job:
    """Return the job that cleans, filters and indexes one collected shard."""
    from groundup.refine.filter.apply import applicable_filters, rules_digest, thresholds_for
    from groundup.refine.filter.rules import RULE_SETS
    from groundup.refine.shard import refine_shard

    refine, root, kind = run.recipe.refine, run.recipe.root, collected.facts["kind"]
    # Only what applies to this kind is in the key: a new rule for pages leaves books alone.
    filters = applicable_filters(refine.filters, kind)
    thresholds = thresholds_for(filters, kind, refine.thresholds)
    code = {name: code_digest(name, root, "filter") for name in filters if name not in RULE_SETS}
    # The bounds too: a rule set that is edited keeps its name.
    rules = {name: rules_digest(name, kind, thresholds) for name in filters if name in RULE_SETS}
    return refine_shard.job(
        collected.name,
        inputs={"collect": collected.content},
        size=float(collected.facts.get("bytes_out", 1)),
        key_only={"code": code, "rules": rules},
        languages=list(refine.languages) if not KINDS[kind].is_code else [],
        filters=filters,
        thresholds=Keyed(thresholds, thresholds or ABSENT),
        personal=Keyed(refine.personal, refine.personal.actions(KINDS[kind].is_code)),
        # The collected shard decides its kind.
        kind=Unkeyed(kind),
        collected=Unkeyed(collected.path),
        root=Unkeyed(root),
    )


def _duplicates_job(stage: Refinement) -> Job:
    """Return the job that lists the duplicates, from the list of the last run if it can be."""
    from groundup.refine.dedup.duplicates import EarlierResult, find_duplicates

    run, recipe = stage.run, stage.run.recipe
    # Without priorities the key is that of runs before they existed.
    priorities = {source.name: source.priority for source in recipe.source if source.priority}
    job = find_duplicates.job(
        "duplicates",
        inputs=contents(stage.shards),
        near_threshold=recipe.refine.near_threshold,
        priorities=Keyed(priorities, priorities or ABSENT),
        shards=Unkeyed(stage.folders),
        memory=Unkeyed(stage.memory),
        threads=Unkeyed(run.workers.threads),
        # These save work, and do not change the list.
        earlier=Unkeyed(None),
        prepared=Unkeyed(None),
    )
    step = job.step
    # At most one.
    for old in run.store.artifacts("refine", step.step):
        before = old.manifest
        # Shards that have not changed: pairs among them need no comparison.
        same = frozenset(name for name, _ in before["inputs"].items() & step.inputs.items())
        equal = (before["settings"], before["version"]) == (step.settings, step.version)
        # In a crowded bucket, the compared pairs would depend on the earlier list.
        if same and equal and not old.facts["crowded"]:
            earlier = EarlierResult(old.path, old.facts["shards"], same)
            job = replace(job, arguments={**job.arguments, "earlier": earlier})
    return job


def _prepared_duplicates(stage: Refinement) -> Job:
    """Return the job that lists the duplicates, after those that prepare it."""
    from groundup.refine.dedup.duplicates import find_near_rows
    from groundup.refine.dedup.lsh_index import EXACT, NEAR
    from groundup.refine.dedup.parts import LongList

    job = _duplicates_job(stage)
    priorities = {source.name: source.priority for source in stage.run.recipe.source}
    long_list = LongList(stage.run, stage.indexed, [EXACT, *NEAR], stage.memory, priorities)
    if (earlier := job.arguments["earlier"]) is not None:
        if not long_list.is_long([s for s in stage.indexed if s.name not in earlier.same]):
            return job
        job = replace(job, arguments={**job.arguments, "earlier": None})

    def choose(buckets: Sequence[Path]) -> Job:
        return find_near_rows.job(
            "duplicates",
            inputs={"list": job.step.key},
            priorities=priorities,
            shards=Unkeyed(stage.folders),
            buckets=Unkeyed(buckets),
            memory=Unkeyed(stage.memory),
        )

    return long_list.prepare(job, choose)


def _prepared_split(stage: Refinement) -> Job:
    """Return the job that splits the documents, after those that prepare it."""
    from groundup.refine.dedup.lsh_index import CLUSTER
    from groundup.refine.dedup.parts import LongList
    from groundup.refine.split import find_cluster_rows

    job = _split_job(stage)

    def choose(buckets: Sequence[Path]) -> Job:
        return find_cluster_rows.job(
            "split",
            inputs={"list": job.step.key},
            shards=Unkeyed(stage.folders),
            buckets=Unkeyed(buckets),
            dropped=Unkeyed(list(stage.dropped.values())),
            cuts=Unkeyed(stage.cuts),
            memory=Unkeyed(stage.memory),
        )

    long_list = LongList(stage.run, stage.indexed, CLUSTER, stage.memory, cuts=stage.cuts)
    return long_list.prepare(job, choose)


def _find_repeated_lines(stage: Refinement) -> None:
    """List and cut repeated lines, if the recipe wants it and a source may have any."""
    from groundup.refine.lines import LINE_KINDS, list_lines

    fewest, sources = stage.run.recipe.refine.repeated_lines, defaultdict[str, list[int]](list)
    for k, shard in enumerate(stage.shards):
        if shard.facts["kind"] in LINE_KINDS:
            sources[source_of(shard)].append(k)
    if not fewest or not sources:
        return
    counted = [job for members in sources.values() for job in _line_jobs(stage, members, fewest)]
    repeated: dict[str, list[Artifact]] = {source: [] for source in sources}
    for artifact in stage.build(counted, "repeated lines", "list"):
        repeated[source_of(artifact)].append(artifact)
    stage.cut = stage.build(_cut_jobs(stage, sources, repeated), "cutting lines")
    cuts: dict[str, list[tuple[Path, Facts]]] = {source: [] for source in sources}
    for artifact in stage.cut:
        cuts[source_of(artifact)].append((artifact.path, artifact.facts))
    parts = [*(artifact for ranges in repeated.values() for artifact in ranges), *stage.cut]
    ranges = {source: [a.path for a in artifacts] for source, artifacts in repeated.items()}
    job = list_lines.job(
        "lines",
        inputs={f"{part.step} {part.name}": part.content for part in parts},
        repeated=Unkeyed(ranges),
        cuts=Unkeyed(cuts),
    )
    (stage.lists["lines"],) = stage.build([job], "listing lines", "list")


def _line_jobs(stage: Refinement, members: Sequence[int], fewest: int) -> Iterator[Job]:
    """Yield the jobs that count the lines of the shards of one source, a range of hashes each."""
    from groundup.refine.dedup.duplicates import EXACT, NEAR
    from groundup.refine.lines import PART_LINES, find_repeated_lines, min_documents
    from groundup.refine.out_of_core import hash_ranges

    shards, indexed = [stage.shards[k] for k in members], stage.indexed
    source, duplicates = source_of(shards[0]), stage.lists["duplicates"]
    counts = [duplicates.facts[reason]["by_source"].get(source, 0) for reason in (EXACT, NEAR)]
    kept = sum(shard.facts["documents"] for shard in shards) - sum(counts)
    lines = sum(shard.manifest["files"]["lines.npy"]["size"] for shard in shards) // 8
    for part, (low, high) in enumerate(hash_ranges(lines, PART_LINES)):
        yield find_repeated_lines.job(
            f"{source}.{part:04}",
            inputs=contents(shards) | {"duplicates": duplicates.content},
            fewest=min_documents(fewest, kept),
            low=low,
            high=high,
            shards=Unkeyed([indexed[k] for k in members]),
            duplicates=Unkeyed(duplicates.path / "listed.npy"),
        )


def _cut_jobs(
    stage: Refinement,
    sources: Mapping[str, Sequence[int]],
    repeated: Mapping[str, Sequence[Artifact]],
) -> Iterator[Job]:
    """Yield the jobs that cut the repeated lines of a source out of each of its shards."""
    from groundup.refine.lines import cut_lines

    indexed, digests, duplicates = stage.indexed, contents(stage.shards), stage.lists["duplicates"]
    for source, members in sources.items():
        if not any(artifact.facts["lines"] for artifact in repeated[source]):
            continue
        # Not the counts: another number of documents with the same lines cuts the same.
        lines = {a.name: a.manifest["files"]["hashes.npy"]["sha256"] for a in repeated[source]}
        for k in members:
            shard = stage.shards[k]
            yield cut_lines.job(
                shard.name,
                inputs=lines | {"shard": digests[shard.name], "duplicates": duplicates.content},
                size=float(shard.facts["bytes_out"]),
                shard=Unkeyed(indexed[k]),
                duplicates=Unkeyed(duplicates.path / "listed.npy"),
                repeated=Unkeyed([artifact.path for artifact in repeated[source]]),
            )


def _evaluation_jobs(stage: Refinement, tests: Sequence[Artifact]) -> list[Job]:
    """Return the job that collects the n-grams of the evaluation items, if there are any items."""
    from groundup.refine.decontaminate import write_grams

    if not any(test.facts["documents"] for test in tests):
        return []
    # Without shards of training text: a new one does not change what is searched.
    return [
        write_grams.job(
            "evaluation",
            inputs=contents(tests),
            allowed=list(stage.run.recipe.refine.allowed_overlap),
            shards=Unkeyed([test.path for test in tests]),
        )
    ]


def _find_contaminated(stage: Refinement, evaluation: Sequence[Artifact]) -> None:
    """List the documents that hold evaluation items, if there are any items."""
    from groundup.refine.decontaminate import find_contaminated, find_occurrences

    if not evaluation:
        return
    (grams,) = evaluation
    cuts, items, jobs = stage.cuts, Unkeyed(grams.path), []
    digests = stage.cut_digests
    for shard, content in zip(stage.shards, contents(stage.shards).values(), strict=True):
        inputs = {"shard": content, "evaluation": grams.content}
        # Not the list of lines: cuts in one shard leave the others as they are.
        if shard.name in digests:
            inputs["cuts"] = digests[shard.name]
        size, path, cut = float(shard.facts["bytes_out"]), Unkeyed(shard.path), cuts.get(shard.name)
        job = find_occurrences.job(
            shard.name, inputs, size, shard=path, evaluation=items, cuts=Unkeyed(cut)
        )
        jobs.append(job)
    # A phrase that many documents hold is no item, so the verdict needs all shards.
    occurrences = stage.build(jobs, "contamination")
    job = find_contaminated.job(
        "contaminated",
        inputs=stage.inputs | {"evaluation": grams.content},
        shards=Unkeyed(stage.folders),
        occurrences=Unkeyed({artifact.name: artifact.path for artifact in occurrences}),
        dropped=Unkeyed(list(stage.dropped.values())),
        cuts=Unkeyed(cuts),
        evaluation=items,
    )
    (stage.lists["contaminated"],) = stage.build([job], "contaminated", "list")


def _split_job(stage: Refinement) -> Job:
    """Return the job that assigns every document on no list to train or validation."""
    from groundup.refine.split import split_documents

    return split_documents.job(
        "split",
        inputs=stage.inputs,
        seed=stage.run.recipe.seed,
        validation=stage.run.recipe.tokenize.validation,
        shards=Unkeyed(stage.folders),
        kinds=Unkeyed(stage.kinds),
        dropped=Unkeyed(list(stage.dropped.values())),
        cuts=Unkeyed(stage.cuts),
        memory=Unkeyed(stage.memory),
        threads=Unkeyed(stage.run.workers.threads),
        prepared=Unkeyed(None),
    )


def _quality_job(stage: Refinement) -> Job:
    """Return the job that sums the statistics by source and step."""
    from groundup.refine.stats import sum_distributions

    return sum_distributions.job(
        "quality",
        inputs=stage.inputs | {shard.name: shard.content for shard in stage.shards},
        shards=Unkeyed(stage.folders),
        kinds=Unkeyed(stage.kinds),
        lists=Unkeyed(list(stage.dropped.values())),
        cuts=Unkeyed(stage.cuts),
    )


def _publish(
    stage: Refinement, split: Artifact, quality: Artifact, collected: Sequence[Artifact]
) -> None:
    """Publish the view `refine`, and check what each source lost."""
    from groundup.refine.drop_check import check_drops

    # The view is hard links into the store: a file is stored once, whatever shows it.
    links = {f"dropped/{name}.parquet": path for name, path in stage.dropped.items()}
    links |= {f"cuts/{name}.npy": path for name, path in stage.cuts.items()}
    if "lines" in stage.lists:
        links["lines.parquet"] = stage.lists["lines"].path / "lines.parquet"
    for shard in stage.shards:
        for folder in ("documents", "dropped"):
            links[f"{folder}/{shard.name}.parquet"] = shard.path / f"{folder}.parquet"
        links[f"split/{shard.name}.npy"] = split.path / "split" / f"{shard.name}.npy"
    links["quality.json"] = quality.path / "quality.json"
    stage.run.publish("refine", stage.artifacts, links, _facts(stage, split))
    # After publishing, so `groundup inspect` can show what was dropped, and why.
    rejected: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for shard in collected:
        rejected[source_of(shard)].update(shard.facts.get("dropped", {}))
    check_drops(stage.run, quality.facts["sources"], rejected)


def _facts(stage: Refinement, split: Artifact) -> Facts:
    """Add up what the artifacts count, over all sources and by source."""
    from groundup.refine.decontaminate import CONTAMINATED
    from groundup.refine.dedup.duplicates import EXACT, NEAR
    from groundup.refine.lines import BOILERPLATE

    sources: dict[str, dict[str, Any]] = {}
    # What refine/shard dropped and changed.
    for shard in stage.shards:
        empty = {"bytes_in": 0, "dropped": Counter(), "changed": Counter()}
        counts = sources.setdefault(source_of(shard), {"kind": shard.facts["kind"]} | empty)
        counts["bytes_in"] += shard.facts["bytes_in"]
        for name in ("dropped", "changed"):
            counts[name].update(shard.facts[name])
    # What the global steps dropped: number of documents by reason and source.
    facts = {name: list_.facts for name, list_ in stage.lists.items()}
    listed = {reason: facts["duplicates"][reason]["by_source"] for reason in (EXACT, NEAR)}
    listed[CONTAMINATED] = facts["contaminated"]["by_source"] if "contaminated" in facts else {}
    lines = facts["lines"]["sources"] if "lines" in facts else {}
    listed[BOILERPLATE] = {source: counts["dropped"] for source, counts in lines.items()}
    dropped = Counter[str]()
    for source, counts in sources.items():
        drops = {reason: by_source.get(source, 0) for reason, by_source in listed.items()}
        counts["dropped"] += Counter(drops)
        dropped += counts["dropped"]
        if source in lines:
            counts["lines"] = lines[source]
        sides = split.facts["sources"][source]
        counts.update(sides)
        for name in ("documents", "bytes"):
            counts[name] = sides["train"][name] + sides["validation"][name]
        # Sorted, so equal counts give equal bytes.
        for name in ("dropped", "changed"):
            counts[name] = dict(sorted(counts[name].items()))
    names = ("documents", "bytes", "bytes_in")
    sums = {name: sum(counts[name] for counts in sources.values()) for name in names}
    return sums | {"dropped": dict(sorted(dropped.items())), "sources": sources}
