"""The stage `collect`: raw files → documents by shard.

Reads the sources of the recipe; writes `collect/documents/SOURCE.SHARD.parquet` and
`collect/dropped/...`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from groundup.artifacts.document import DOCUMENT, DROPPED, Reject, TableWriter
from groundup.artifacts.forgotten import Forgotten
from groundup.collect import licenses
from groundup.collect.digests import Digests, Known
from groundup.collect.files.archives import Refused
from groundup.collect.shard import Output, collect_shard, facts
from groundup.collect.sharding import Shard, cut
from groundup.collect.sources import Listing, RawFile, list_source
from groundup.errors import SourceError, StoreError
from groundup.recipe import TUNING, Source, all_sources
from groundup.runtime.job import Job
from groundup.runtime.progress import say
from groundup.runtime.run import Run, pinned_places, write_lock
from groundup.runtime.store import Artifact, Facts, Step
from groundup.runtime.user_code import code_digest

# Raised by hand whenever a reader's output changes; a golden test fails when it changes without.
VERSION = 5
STEP = "collect/shard"


def run(run: Run) -> None:
    """Build the shards of every source and publish them as `collect/`.

    Raises:
        SourceError: a source cannot be found, or all sources together hold no document.
    """
    sources = all_sources(run.recipe)
    artifacts = run.build("collect", _jobs_of(run, sources), "collecting")
    texts = [source for source in sources if source.kind != TUNING]
    _report(texts, artifacts, run.allow_discard)
    _publish(run, artifacts)


def collect_tuning(run: Run) -> None:
    """Collect the tuning data alone, for `groundup tune`; the other shards stay as they are.

    So a model can be tuned on a machine that lacks the raw files that it was trained on.

    Raises:
        SourceError: the data cannot be found.
        StoreError: the view `collect` is missing or damaged.
    """
    view = run.store.view("collect")
    shards = [run.store.artifact(entry) for entry in view.manifest["artefacts"]] if view else [None]
    others: list[Job] = []
    for shard in shards:
        if shard is None:
            raise StoreError(
                f"{run.root / 'collect'}: missing or damaged; `groundup run` builds it"
            )
        if shard.facts["kind"] != TUNING:
            table = shard.manifest
            step = Step(STEP, shard.name, table["version"], table["settings"], table["inputs"])
            others.append(Job(step, collect_shard, {}))  # In the store: never built again.
    tuning = _jobs_of(run, all_sources(run.recipe)[-1:])
    _publish(run, run.build("collect", [*others, *tuning], "collecting"))


def _jobs_of(run: Run, sources: Sequence[Source]) -> list[Job]:
    digests, forgotten = Digests.load(run.root / ".store" / "raw.json"), Forgotten.load(run.root)
    jobs: list[Job] = []
    for source in sources:
        jobs += _jobs(source, _listing(run, source), digests, forgotten, run.recipe.root)
    digests.save()
    return jobs


def _publish(run: Run, artifacts: Sequence[Artifact]) -> None:
    links = {
        f"{table}/{a.name}.parquet": a.path / f"{table}.parquet"
        for a in artifacts
        for table in ("documents", "dropped")
    }
    run.publish("collect", artifacts, links)


def _listing(run: Run, source: Source) -> Listing:
    """List a source; of a place that has many states, the one that this run saw first, until
    `--redo collect`.
    """
    places, again = pinned_places(run.root), "collect" in run.redo
    listing = list_source(
        source, run.recipe.root, "" if again else places.get(source.path, ""), again
    )
    if listing.pinned and listing.pinned != places.get(source.path):
        say(f'source "{source.name}": {listing.pinned}, until --redo collect')
        write_lock(run, places=places | {source.path: listing.pinned})
    return listing


def _jobs(
    source: Source, listing: Listing, digests: Digests, forgotten: Forgotten, root: Path
) -> list[Job]:
    """Return one job a shard, and one for what is refused unread."""
    known, failed = digests.known(listing.files)
    by_file = {one.file: one for one in known}
    refused = [*listing.refused, *(Refused(file.origin, "unreadable", why) for file, why in failed)]
    projects = _projects(source, known)
    jobs = [
        _job(source, shard, by_file, projects, forgotten, root)
        for shard in cut([one.file for one in known])
    ]
    return jobs + ([_refused_job(source, refused, root)] if refused else [])


def _settings(source: Source, root: Path) -> dict[str, Any]:
    """Return what the bytes of a shard depend on: neither weight nor path."""
    own = (
        {"reader": source.reader, "code": code_digest(source.reader, root, "reader")}
        if source.reader
        else {}
    )
    return (
        {
            "source": source.name,
            "kind": source.kind,
            "license": source.license,
            "include": list(source.include),
            "exclude": list(source.exclude),
            "encoding": source.encoding,
        }
        | ({"columns": list(source.columns)} if source.columns else {})
        | own
    )


def _job(
    source: Source,
    shard: Shard,
    by_file: Mapping[RawFile, Known],
    projects: Mapping[str, str],
    forgotten: Forgotten,
    root: Path,
) -> Job:
    files = [by_file[file] for file in shard.files]
    here = _projects_of(shard, projects)
    inputs = {known.file.origin: known.sha256 for known in files}
    gone = _forgotten(source, inputs, forgotten)
    settings = (
        _settings(source, root)
        | ({"projects": here} if here else {})
        | ({"forgotten": [list(one) for one in gone]} if gone else {})
    )
    step = Step(STEP, f"{source.name}.{shard.name}", VERSION, settings, inputs)
    return Job(
        step,
        collect_shard,
        {"files": files, "source": source, "projects": here, "forgotten": gone, "root": root},
        shard.size,
    )


def _forgotten(
    source: Source, digests: Mapping[str, str], forgotten: Forgotten
) -> list[tuple[str, int]]:
    """Return origin and record of what is forgotten of some raw files; say so where a file is not
    what it was.
    """
    here = forgotten.inside(source.name, digests)
    changed = {
        file for entry in here for file in entry.files if digests.get(file, entry.raw) != entry.raw
    }
    for file in sorted(changed):
        say(
            f'warning: source "{source.name}": {file} changed since records of it were forgotten;'
            " the same numbers are left out of it"
        )
    return [(entry.origin, entry.record) for entry in here]


def _projects(source: Source, known: Sequence[Known]) -> dict[str, str]:
    """Return the roots of the projects in a folder of code, with their licenses."""
    if source.kind != "code":
        return {}
    found = {}
    for one in known:
        if licenses.is_license_file(one.file.origin):
            with one.file.path.open("rb") as file:
                found[one.file.origin] = licenses.detect_license(
                    file.read(licenses.LICENSE_BYTES).decode("utf-8", "replace")
                )
    return licenses.project_licenses([one.file.origin for one in known], found)


def _projects_of(shard: Shard, projects: Mapping[str, str]) -> dict[str, str]:
    roots = frozenset(projects)
    here = {licenses.project_root(file.origin, roots) for file in shard.files}
    return {root: projects[root] for root in sorted(here) if root in projects}


def _refused_job(source: Source, refused: Sequence[Refused], root: Path) -> Job:
    rows = [[one.origin, one.reason, one.detail] for one in refused]
    step = Step(
        STEP, f"{source.name}.unread", VERSION, _settings(source, root) | {"refused": rows}, {}
    )
    return Job(step, collect_refused, {"rows": rows, "source": source}, 0)


def collect_refused(folder: Path, rows: Sequence[Sequence[str]], source: Source) -> Facts:
    """Write the list of what was refused unread, in the form of a shard without documents."""
    with ExitStack() as stack:
        documents = stack.enter_context(TableWriter(folder / "documents.parquet", DOCUMENT))
        dropped = stack.enter_context(TableWriter(folder / "dropped.parquet", DROPPED))
        output = Output(source, documents, dropped)
        for origin, reason, detail in rows:
            output.add(origin, Reject(reason, detail=detail))
    return facts(output, [])


def _report(sources: Sequence[Source], artifacts: Sequence[Artifact], forgetting: bool) -> None:
    """Warn of sources without documents; raise SourceError when no source has any, unless they are
    being forgotten.
    """
    documents: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {}
    for artifact in artifacts:
        name = str(artifact.facts["source"])
        documents[name] += int(artifact.facts["documents"])
        reasons.setdefault(name, Counter()).update(artifact.facts["dropped"])
    lines = [
        f'source "{s.name}": no document of kind {s.kind}; seen were {_seen(reasons.get(s.name))}'
        for s in sources
        if not documents[s.name]
    ]
    if not any(documents[s.name] for s in sources) and not forgetting:
        raise SourceError("; ".join(lines) + "; check kind and path in the recipe")
    for line in lines:
        say(f"warning: {line}")


def _seen(reasons: Counter[str] | None) -> str:
    found = sorted((reasons or Counter()).items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{count:,} {reason}" for reason, count in found[:5]) or "no files"
