"""Gather what report.json holds, in two halves.

`gather_facts` reads manifests and small files. It is cheap, and its digest decides whether a report
is fresh. `gather_content` scans texts and tokens, whose bytes follow from the content hashes that
`gather_facts` lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from groundup.artifacts.checkpoints import CHECKPOINTS, init_from, list_checkpoints
from groundup.report.figures import (
    LEDGER,
    Figure,
    Problems,
    Row,
    json_file,
    json_lines,
    lock_table,
    number,
    run_figures,
)
from groundup.report.formatting import in_words, spaced
from groundup.runtime.sealed import Ledger
from groundup.runtime.store import Store, load_artifact

VIEWS = ("collect", "refine", "tokenize", "evaluate", "tune", "export")
# What is shown where texts cannot be read.
NO_EXAMPLES: dict[str, list[Row]] = {"kept": [], "left_out": [], "dropped": [], "duplicates": []}
# Of an event of training, what stands in other columns of its table or is a check of the file.
EVENT_FIELDS = ("event", "time", "step", "chain")
# What cleaning changes of a text; the rest of what it counts is personal data, and rule sets.
REPAIRS = ("white space and controls", "normal form", "encoding and entities")
NO_TRAINING: Row = {"events": [], "checkpoints": [], "best": None}

# What report.json holds, or one half of it.
Report = dict[str, Any]


def gather_facts(root: Path, name: str) -> Report:
    """Return what manifests, training files, small JSON files and the ledger say about a run."""
    problems = Problems(root)
    read = problems.guarded
    figures = run_figures(root, problems)
    report = {
        "name": name,
        "figures": figure_table(figures.values()),
        "environment": read("environment", lambda: environment(root), {}),
        "sources": read("sources", lambda: sources(root), []),
        "cleaning": read("cleaning", lambda: changed_documents(root), {}),
        "training": read("events of training", lambda: training(root), NO_TRAINING),
        "samples": read("samples", lambda: samples(root), []),
        "definitions": read("definitions", lambda: definitions(root), {}),
        "tuning": read("tuning", lambda: json_file(root, "tune/tuning.json") or {}, {}),
        "exports": read("exports", lambda: json_file(root, "export/parity.json") or {}, {}),
        "artefacts": problems.collected("hashes", content_hashes(root)),
        "base": read("first weights", lambda: init_from(root), {}),
        "recipe": read("recipe", lambda: lock_table(root), {}),
        "problems": problems.lines,
    }
    return dict(plain(report))


def gather_content(root: Path, seed: int) -> Report:
    """Return examples, distributions, the vocabulary, and figures that need a scan of documents."""
    from groundup.report import content

    problems = Problems(root)
    read = problems.guarded
    shown = read("examples of text", lambda: content.examples(root, seed), NO_EXAMPLES)
    histograms = read("distributions", lambda: content.distributions(root), {})
    tokens = read("tokenizer", lambda: content.vocabulary(root, seed), {})
    figures = problems.collected("languages", content.document_labels(root))
    figures += content.vocabulary_figures(tokens)
    figures += content.distribution_figures(histograms)
    report = {"figures": figure_table(figures), "examples": shown, "distributions": histograms}
    return dict(plain(report | {"vocabulary": tokens, "problems": problems.lines}))


def merge(facts: Report, content: Report) -> Report:
    """Return a report of both halves."""
    figures = dict(sorted((facts["figures"] | content["figures"]).items()))
    problems = facts["problems"] + content["problems"]
    return facts | content | {"figures": figures, "problems": problems}


def figure_table(figures: Iterable[Figure]) -> dict[str, Row]:
    """Return figures as report.json holds them, sorted by name."""
    table = {f.name: {"value": f.value, "unit": f.unit, "from": f.source} for f in figures}
    return dict(sorted(table.items()))


def environment(root: Path) -> Row:
    """Return the versions that the run's work was last done with, and the machine's settings."""
    latest, used = dict[str, str](), dict[str, str]()
    for event in Ledger(root / LEDGER).events():
        if event.get("event") == "run" and isinstance(event.get("versions"), dict):
            latest = event["versions"]
        elif event.get("event") == "finished" and event.get("stage") != "report":
            used = latest
    machine = lock_table(root).get("machine", {})
    return {"groundup": used.get("groundup"), "versions": used or latest, "machine": machine}


def sources(root: Path) -> list[Row]:
    """Return name, kind, path and license of each source of the recipe."""
    names = ("name", "kind", "path", "license")
    entries = lock_table(root).get("source", [])
    return [{name: source.get(name, "") for name in names} for source in entries]


def changed_documents(root: Path) -> dict[str, dict[str, dict[str, int]]]:
    """Return the documents that cleaning changed, by part, step and source."""
    view, parts = Store(root).view("refine"), dict[str, dict[str, dict[str, int]]]()
    for source, counts in view.facts["sources"].items() if view else ():
        for step, count in counts["changed"].items():
            part = "characters" if step in REPAIRS else "personal data"
            parts.setdefault(part, {}).setdefault(step, {})[source] = count
    return parts


def training(root: Path) -> Row:
    """Return the events of training, the steps of the checkpoints on disk, and that of the best."""
    events = []
    before: dict[str, Any] = {}
    for event in json_lines(root, "train/ledger.jsonl"):
        settings = event.get("settings")
        kind = str(event.get("event", "event"))
        if not isinstance(settings, dict):
            fields = {name: value for name, value in event.items() if name not in EVENT_FIELDS}
            words = in_words(fields.get(kind, fields))
        elif before:
            pairs = [(name, before.get(name), settings.get(name)) for name in before | settings]
            changes = [(spaced(name), in_words(a), in_words(b)) for name, a, b in pairs if a != b]
            words = "; ".join(f"{name} was {old}, is {new}" for name, old, new in changes)
            before = settings
        else:
            words, before = "began with the settings of the recipe", settings
        events.append({"step": event.get("step"), "kind": kind, "words": words[:1000]})
    best = json_file(root, "train/best.json")
    step = best.get("step") if isinstance(best, dict) else None
    return {"events": events, "checkpoints": list(list_checkpoints(root)), "best": step}


def samples(root: Path) -> list[Row]:
    """Return the samples of the model; entries that are no samples are left out."""
    rows = json_file(root, "evaluate/samples.json")
    if not isinstance(rows, list):
        return []
    return [row for row in rows if isinstance(row, dict) and {"prompt", "text"} <= row.keys()]


def definitions(root: Path) -> dict[str, str]:
    """Return what the figures of the evaluation mean, as the evaluation wrote it."""
    evaluation = json_file(root, "evaluate/evaluation.json") or {}
    return {str(name): str(words) for name, words in evaluation.get("definitions", {}).items()}


def content_hashes(root: Path) -> Iterator[Row]:
    """Yield name, files, bytes and content hash of every published view and every checkpoint."""
    listed = [(stage, Store(root).view(stage)) for stage in VIEWS]
    folders = list_checkpoints(root).values()
    listed += [(f"{CHECKPOINTS}/{path.name}", load_artifact(path)) for path in folders]
    for name, artifact in listed:
        if artifact is not None and artifact.manifest["files"]:
            sizes = [entry["size"] for entry in artifact.manifest["files"].values()]
            entry = {"name": name, "files": len(sizes), "bytes": sum(sizes)}
            yield entry | {"content": artifact.content}


def plain(value: Any) -> Any:
    """Return a value that JSON and UTF-8 can hold: no NaN, no lone surrogate, text for the rest."""
    if isinstance(value, dict):
        return {str(plain(str(key))): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return number(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value if value is None or isinstance(value, (bool, int)) else str(value)
