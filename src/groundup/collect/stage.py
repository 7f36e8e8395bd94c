"""The stage `collect`: raw files of every source → documents by shard.

    raw/books/*.txt   →  collect/documents/books.1f2e….parquet   every record that is a document
                         collect/dropped/books.1f2e….parquet     every other record, and why

A shard is some hundred files of one source; only shards whose files changed are built again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.artifacts.forgotten import Forgotten
from groundup.artifacts.kinds import KINDS
from groundup.artifacts.questions import LAYOUTS
from groundup.errors import SourceError, StoreError
from groundup.recipe import RECORD_COLUMNS, Source, all_sources
from groundup.runtime.lock import pinned_places, write_lock
from groundup.runtime.progress import say
from groundup.runtime.run import ABSENT, Job, Keyed, Run, Unkeyed, taken
from groundup.runtime.store import Artifact, Step
from groundup.runtime.user_code import code_digest

if TYPE_CHECKING:
    from groundup.collect.files.archives import Refused
    from groundup.collect.pieces import Piece
    from groundup.collect.readers.chat.people import People
    from groundup.collect.sources import HashedFile

    # Name of the source and origin of a file that is cut → its pieces.
    Pieces = dict[tuple[str, str], list[Piece]]
    # A source, its files, and those that are not opened.
    _Listed = tuple[Source, list[HashedFile], list[Refused]]

# Share of the files of a new source that must have stood in one that is gone: it was renamed.
MIN_SHARED = 0.5


def run(run: Run) -> None:
    """Build the shards of every source and publish them as `collect/`.

    Raises SourceError if a source cannot be found, or all sources together hold no document.
    """
    sources = all_sources(run.recipe)
    jobs, cuts = _jobs(run, sources)
    _warn_of_renames(run, jobs)
    artifacts = run.build("collect", taken(jobs), "collecting")
    documents, left_out, thin = (Counter[str]() for _ in range(3))
    dropped: dict[str, Counter[str]] = defaultdict(Counter)
    for facts in (artifact.facts for artifact in artifacts):
        name = facts["source"]
        documents[name] += facts["documents"]
        dropped[name].update(facts["dropped"])
        left_out[name] += facts["sentences_left_out"]
        thin[name] += facts.get("main_text", {}).get("mostly_left_out", 0)
    texts = [source for source in sources if KINDS[source.kind].role != "tuning"]
    lines = []
    for source in texts:
        if documents[source.name]:
            continue
        reasons = sorted(dropped[source.name].items(), key=lambda entry: (-entry[1], entry[0]))
        seen = ", ".join(f"{count:,} {reason}" for reason, count in reasons[:5]) or "no files"
        lines.append(f'source "{source.name}": no document of kind {source.kind}; seen: {seen}')
    if len(lines) == len(texts) and not run.allow_discard:
        raise SourceError("; ".join(lines) + "; check kind and path in the recipe")
    _check_evaluation(run, texts, documents, dropped)
    for line in lines:
        run.note(f"warning: {line}")
    where = "least_kept lists them in .store/collect/shard/*/manifest.json"
    for counts, what in (
        (left_out, "sentences left out: with an unknown template, or by a bot"),
        (thin, f"pages with little main text; {where}"),
    ):
        for name, count in sorted((+counts).items()):
            run.note(f'source "{name}": {count:,} {what}')
    _publish(run, artifacts, cuts)


def _warn_of_renames(run: Run, jobs: Sequence[Job]) -> None:
    """Say which sources seem to be renamed, what that costs, and how to avoid it.

    The id of a document is made of the name of its source, and ids decide the split. So a new name
    costs as much as new data. Tuning data are left out: the recipe gives them their name.
    """
    shards = run.store.artifacts("collect", "collect/shard")
    old_names = _text_sources(shard.manifest["settings"] for shard in shards)
    new_names = _text_sources(job.step.settings for job in jobs)
    gone = sorted(old_names - new_names)
    if not gone:
        return
    # SHA-256 of the raw files by source.
    before, now = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for shard in shards:
        if (name := shard.manifest["settings"]["source"]) in gone:
            before[name].update(shard.manifest["inputs"].values())
    for job in jobs:
        now[job.step.settings["source"]].update(job.step.inputs.values())
    for new in sorted(new_names - old_names):
        shared = {old: len(before[old] & now[new]) for old in gone}
        old = max(gone, key=lambda name: shared[name], default="")
        if old and shared[old] and shared[old] >= MIN_SHARED * len(now[new]):
            say(
                f'warning: source "{new}" seems to be "{old}" renamed ({shared[old]:,} of'
                f" {len(now[new]):,} files are the same); ids and the split depend on the name, so"
                " its documents get other ids, move between training and validation, and the model"
                f' is trained again from step 0; name = "{old}" in the recipe avoids that'
            )


def _text_sources(settings: Iterable[Mapping[str, Any]]) -> set[str]:
    return {of["source"] for of in settings if KINDS[of["kind"]].role != "tuning"}


def _check_evaluation(
    run: Run,
    sources: Sequence[Source],
    documents: Mapping[str, int],
    dropped: Mapping[str, Mapping[str, int]],
) -> None:
    """Raise SourceError for evaluation files without an item, and warn of items without text.

    Training text could hold the questions, and nothing would be compared with them.
    """
    for source in sources:
        if KINDS[source.kind].role != "evaluation":
            continue
        name, lost = source.name, dropped[source.name].get("no-text", 0)
        if not documents[name] and not run.allow_discard:
            raise SourceError(
                f'source "{name}": {source.path} holds no evaluation item that can be read'
                f" ({lost:,} without a known layout), so training text would not be checked"
                " against it; docs/evaluation.md lists the layouts"
            )
        if lost:
            run.note(
                f'warning: source "{name}": {lost:,} evaluation items are in no known layout;'
                " training text is not checked against them"
            )


def collect_tuning(run: Run) -> None:
    """Collect only the tuning data, for `groundup tune`; all other shards stay as they are.

    So a model can be tuned on a machine that lacks the raw files that it was trained on.

    Raises SourceError if they cannot be found, StoreError if the view `collect` is missing or
    damaged.
    """
    from groundup.collect.shard import collect_shard

    view = run.store.view("collect")
    entries = view.manifest["artefacts"] if view else None
    # None for a damaged artifact, as for a view that is missing.
    found = [None] if entries is None else [run.store.artifact(entry) for entry in entries]
    others, cuts = [], []
    for artifact in found:
        if artifact is None:
            folder = run.root / "collect"
            raise StoreError(f"{folder}: missing or damaged; `groundup run` builds it")
        if artifact.step != collect_shard.name:
            cuts.append(artifact)
        elif KINDS[artifact.facts["kind"]].role != "tuning":
            # The store holds it, so it is not built again.
            key = [artifact.manifest[part] for part in ("version", "settings", "inputs")]
            step = Step(collect_shard.name, artifact.name, *key)
            others.append(Job(step, collect_shard.function, {}))
    tuning, new_cuts = _jobs(run, all_sources(run.recipe)[-1:])
    built = run.build("collect", [*others, *tuning], "collecting")
    _publish(run, built, list({cut.path: cut for cut in [*cuts, *new_cuts]}.values()))


def _publish(run: Run, shards: Sequence[Artifact], cuts: Sequence[Artifact]) -> None:
    links = {
        f"{table}/{shard.name}.parquet": shard.path / f"{table}.parquet"
        for shard in shards
        for table in ("documents", "dropped")
    }
    run.publish("collect", [*shards, *cuts], links)


def _jobs(run: Run, sources: Sequence[Source]) -> tuple[list[Job], list[Artifact]]:
    """Return the jobs of the sources, and the artifacts that say where large files are cut.

    A store with revisions is pinned to the first one that was listed, until `--redo collect`.
    """
    from groundup.collect.sources import Digests, list_source

    names = {source.name for source in all_sources(run.recipe)}
    digests = Digests.load(run.root / ".store" / "raw.json")
    forgotten = Forgotten.load(run.root).detached(names)
    root, redo = run.recipe.root, "collect" in run.redo
    listed: list[_Listed] = []
    for source in map(_without_missing_ocr, sources):
        pinned = pinned_places(run.root)
        revision = "" if redo else pinned.get(source.path, "")
        listing = list_source(source, root, revision, redo)
        if listing.pinned and listing.pinned != pinned.get(source.path):
            say(f'source "{source.name}": {listing.pinned}, until --redo collect')
            write_lock(run.root, run.recipe, places=pinned | {source.path: listing.pinned})
        files, unreadable = digests.hash_files(listing.files)
        listed.append((source, files, listing.refused + unreadable))
    digests.save()
    pieces, artifacts = _cut_large_files(run, listed)
    jobs = [
        job
        for source, files, refused in listed
        for job in _source_jobs(run, source, files, refused, forgotten, pieces)
    ]
    return jobs, artifacts


def _cut_large_files(run: Run, listed: Sequence[_Listed]) -> tuple[Pieces, list[Artifact]]:
    """Return the pieces of the files that can be cut, and the artifacts that say where."""
    from groundup.collect import pieces

    large = [
        (source, hashed, _key_of_cuts(source, run.recipe.root))
        for source, files, _ in listed
        for hashed in files
        # What a user's reader makes of a part of a file is not known.
        if hashed.file.size > pieces.PIECE_BYTES and not source.reader
    ]
    cuts = run.build("collect", [pieces.cut_job(*file) for file in large], "cutting large files")
    counting = [
        list(pieces.count_jobs(source, hashed, cut.facts, key, _scratch(run)))
        for (source, hashed, key), cut in zip(large, cuts, strict=True)
    ]
    counts = run.build("collect", [*chain(*counting)], "counting records")
    following = iter(counts)
    cut_files: Pieces = {}
    for (source, hashed, _), cut, jobs in zip(large, cuts, counting, strict=True):
        of_file = [next(following).facts for _ in jobs]
        parts = pieces.join_ranges(hashed.file.size, cut.facts, of_file)
        if len(parts) > 1:
            cut_files[source.name, hashed.file.origin] = parts
    return cut_files, [*cuts, *counts]


def _key_of_cuts(source: Source, root: Path) -> dict[str, Any]:
    """Return what decides where a file is cut: whether, and how, the readers read its records."""
    from groundup.collect.shard import VERSION

    return {**_key_settings(source, root), "readers": VERSION}


def _scratch(run: Run) -> Path:
    """Return the folder for what is read while records are counted; it lasts as long as the run."""
    return run.store.staging / "results"


def _without_missing_ocr(source: Source) -> Source:
    """Return a source, without `ocr` if this machine cannot do it; say what it lacks."""
    from groundup.collect.readers.office.ocr import missing_tesseract

    if not source.ocr or not (lack := missing_tesseract(source.ocr)):
        return source
    say(
        f'warning: source "{source.name}": ocr = "{source.ocr}": {lack}; until then, pages without'
        " a text layer are listed"
    )
    return replace(source, ocr="")


def _source_jobs(
    run: Run,
    source: Source,
    files: Sequence[HashedFile],
    refused: Sequence[Refused],
    forgotten: Forgotten,
    pieces: Pieces,
) -> Iterator[Job]:
    """Yield one job per shard of a source, and one for the files that are not opened."""
    from groundup.collect.licenses import folder_projects
    from groundup.collect.pieces import PIECE_BYTES
    from groundup.collect.readers.chat.people import folder_people
    from groundup.collect.shard import collect_shard, cut_shards

    by_file = {hashed.file: hashed for hashed in files}
    paths = {file.origin: file.path for file in by_file}
    projects = folder_projects(paths) if KINDS[source.kind].is_code else {}
    people = folder_people(paths) if KINDS[source.kind].has_turns else {}
    jobs = _ShardJobs(run, source, forgotten, projects, people)
    for shard in cut_shards(list(by_file), shard_bytes=PIECE_BYTES):
        of_shard = [by_file[file] for file in shard.files]
        # A file that is cut is too large for others to be in its shard.
        parts = pieces.get((source.name, shard.files[0].origin), [])
        for number, piece in enumerate(parts):
            yield jobs.job(f"{shard.name}-{number:05d}", of_shard, piece)
        if not parts:
            yield jobs.job(shard.name, of_shard)
    if refused:
        listed = [[entry.origin, entry.reason, entry.detail] for entry in refused]
        unopened = {"files": Unkeyed(()), "source": Unkeyed(source), "refused": listed}
        yield collect_shard.job(f"{source.name}.unread", {}, 0, jobs.key, **unopened)


@dataclass(frozen=True)
class _ShardJobs:
    """The jobs of the shards of one source."""

    run: Run
    source: Source
    forgotten: Forgotten
    projects: Mapping[str, str]  # root of a source tree → license
    people: Mapping[str, People]  # folder of an export of chats → who is who in it

    @cached_property
    def key(self) -> dict[str, Any]:
        """Settings that decide the bytes of every shard."""
        return _key_settings(self.source, self.run.recipe.root)

    def job(self, name: str, files: Sequence[HashedFile], piece: Piece | None = None) -> Job:
        """Return the job of a shard, or of a piece of the only file in it."""
        from groundup.collect.licenses import project_root
        from groundup.collect.pieces import results_path
        from groundup.collect.readers.chat.people import people_digest
        from groundup.collect.shard import collect_shard

        source, people = self.source, self.people
        inputs = {hashed.file.origin: hashed.sha256 for hashed in files}
        size = sum(hashed.file.size for hashed in files)
        left_out = _forgotten_records(source, inputs, self.forgotten, piece)
        results = None
        if piece:
            inputs, size = dict.fromkeys(inputs, piece.digest), piece.size
            if piece.is_counted:
                results = results_path(_scratch(self.run), source, piece.digest, piece.head)
        roots = frozenset(self.projects)
        present = {project_root(hashed.file.origin, roots) for hashed in files} & roots
        licenses = {path: self.projects[path] for path in sorted(present)}
        return collect_shard.job(
            f"{source.name}.{name}",
            inputs=inputs,
            size=size,
            key_only=self.key,
            files=Unkeyed(files),
            source=Unkeyed(source),
            projects=Keyed(licenses, licenses or ABSENT),
            forgotten=Keyed(left_out, [list(record) for record in left_out] or ABSENT),
            root=Unkeyed(self.run.recipe.root),
            people=Keyed(people, people_digest(people) if people else ABSENT),
            piece=Keyed(piece, piece.key if piece else ABSENT),
            results=Unkeyed(results),
        )


def _key_settings(source: Source, root: Path) -> dict[str, Any]:
    """Return the settings of a source that decide the bytes of a shard: not its weight or path."""
    from groundup.collect.readers.office.ocr import tesseract_version

    settings: dict[str, Any] = {"source": source.name, "kind": source.kind}
    settings |= {"license": source.license, "encoding": source.encoding}
    settings |= {"include": list(source.include), "exclude": list(source.exclude)}
    if source.speakers != "pseudonyms":
        settings["speakers"] = source.speakers
    if source.ocr:
        settings |= {"ocr": source.ocr, "tesseract": tesseract_version()}
    named = {key: getattr(source, key) for key in RECORD_COLUMNS}
    settings |= {key: value for key, value in named.items() if value}
    if source.columns:
        settings["columns"] = list(source.columns)
    if KINDS[source.kind].role == "evaluation":
        # An item that no layout knows is rejected, until somebody adds its layout.
        settings["layouts"] = list(LAYOUTS)
    if source.reader:
        settings["reader"] = source.reader
        settings["code"] = code_digest(source.reader, root, "reader")
    return settings


def _forgotten_records(
    source: Source, inputs: dict[str, str], forgotten: Forgotten, piece: Piece | None
) -> list[tuple[str, int]]:
    """Return origin and record of what is forgotten of raw files; warn where a file changed since.

    `inputs` is origin → SHA-256 of the files. An entry may have that of the file or of its piece,
    by whether the file was cut when the document was forgotten.
    """
    digests = [inputs] if piece is None else [inputs, dict.fromkeys(inputs, piece.digest)]
    found = [entry for known in digests for entry in forgotten.inside(source.name, known)]
    entries = list({(entry.origin, entry.record): entry for entry in found}.values())
    entries = [entry for entry in entries if piece is None or piece.holds(entry.record)]
    files = {(file, entry.raw) for entry in entries for file in entry.files if file in inputs}
    changed = {file for file, raw in files if all(known[file] != raw for known in digests)}
    for file in sorted(changed):
        say(
            f'warning: source "{source.name}": {file} changed since records of it were forgotten;'
            " the records with the same numbers are left out"
        )
    return [(entry.origin, entry.record) for entry in entries]
