"""Gathers what report.json holds. Reads everything a run left on disk; writes nothing.

Two halves: `shallow` is cheap, and decides with the metrics whether a report is fresh; `deep` scans
texts and tokens, and follows from what `shallow` names by its content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from groundup.artifacts.checkpoints import CHECKPOINTS, init_from, list_checkpoints
from groundup.report.figure import Figure
from groundup.report.figures import all_figures
from groundup.report.measured import METRICS, environment
from groundup.report.run_files import Problems, Row, json_file, json_lines, lock_table, number
from groundup.runtime.files import canonical, file_digest
from groundup.runtime.run import changed_settings
from groundup.runtime.store import Store, load_artifact

STAGES = ("collect", "refine", "tokenize", "evaluate", "tune", "export")

# Where texts cannot be read.
NO_EXAMPLES: dict[str, list[Row]] = {"kept": [], "left_out": [], "dropped": [], "duplicates": []}

Report = dict[str, Any]


def shallow(root: Path, name: str) -> Report:
    """Return what manifests, training files, small JSON files and the ledger tell."""
    problems = Problems(root)
    figures = all_figures(root, problems)
    report = {
        "name": name,
        "figures": table(figures),
        "environment": problems.guarded("environment", lambda: environment(root), {}),
        "sources": problems.guarded("sources", lambda: sources(root), []),
        "training": problems.guarded(
            "events of training",
            lambda: training(root),
            {"events": [], "checkpoints": [], "best": None},
        ),
        "samples": problems.guarded("samples", lambda: samples(root), []),
        "definitions": problems.guarded("definitions", lambda: definitions(root), {}),
        "tuning": problems.guarded("tuning", lambda: json_file(root, "tune/tuning.json") or {}, {}),
        "exports": problems.guarded(
            "exports", lambda: json_file(root, "export/parity.json") or {}, {}
        ),
        "artefacts": problems.collected("hashes", hashes(root)),
        "base": problems.guarded("first weights", lambda: init_from(root), {}),
        "recipe": problems.guarded("recipe", lambda: lock_table(root), {}),
        "problems": problems.lines,
    }
    return dict(plain(report))


def deep(root: Path, seed: int) -> Report:
    """Return examples of text, distributions, what there is to see of the tokenizer, and figures
    that need a scan of the documents.
    """
    from groundup.report.distributions import distribution_figures, distributions
    from groundup.report.examples import examples, spoken
    from groundup.report.vocabulary import vocabulary, vocabulary_figures

    problems = Problems(root)
    shown = problems.guarded("examples of text", lambda: examples(root, seed), NO_EXAMPLES)
    found = problems.guarded("distributions", lambda: distributions(root), {})
    tokens = problems.guarded("tokenizer", lambda: vocabulary(root, seed), {})
    figures = (
        problems.collected("languages", spoken(root))
        + list(vocabulary_figures(tokens))
        + list(distribution_figures(found))
    )
    report = {
        "figures": table({f.name: f for f in figures}),
        "examples": shown,
        "distributions": found,
        "vocabulary": tokens,
    }
    return dict(plain(report | {"problems": problems.lines}))


def joined(one: Report, other: Report) -> Report:
    """Return a report of both halves."""
    figures = dict(sorted((one["figures"] | other["figures"]).items()))
    return one | other | {"figures": figures, "problems": one["problems"] + other["problems"]}


def digests(root: Path, found: Report) -> dict[str, str]:
    """Return what decides the bytes of a report: all of its cheap half, and the curves of training."""
    told = hashlib.sha256(canonical(found).encode()).hexdigest()
    path = root / METRICS
    return {"found": told, "metrics": file_digest(path) if path.is_file() else ""}


def table(figures: Mapping[str, Figure]) -> dict[str, Row]:
    """Return figures as report.json holds them, by name."""
    return {name: figures[name].entry() for name in sorted(figures)}


def sources(root: Path) -> list[Row]:
    """Return name, kind, path and license of each source, as the recipe has them."""
    found = lock_table(root).get("source", [])
    return [
        {name: source.get(name, "") for name in ("name", "kind", "path", "license")}
        for source in found
    ]


def training(root: Path) -> dict[str, Any]:
    """Return the events of training in words, the checkpoints that stand, and the step of the best."""
    best = json_file(root, "train/best.json")
    return {
        "events": list(events(root)),
        "checkpoints": list(list_checkpoints(root)),
        "best": best.get("step") if isinstance(best, dict) else None,
    }


def events(root: Path) -> Iterator[Row]:
    """Yield step, kind and words of each event of training, whatever its kind."""
    before: dict[str, Any] = {}
    for event in json_lines(root, "train/ledger.jsonl"):
        kind, settings = str(event.get("event", "event")), event.get("settings")
        if isinstance(settings, dict):
            changed = (
                changed_settings(before, settings)
                if before
                else "began with the settings of the recipe"
            )
            before = settings
        else:
            rest = {
                key: value for key, value in event.items() if key not in ("event", "time", "step")
            }
            changed = "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in rest.items())
        yield {"step": event.get("step"), "kind": kind, "words": changed[:1000]}


def samples(root: Path) -> list[Row]:
    """Return the samples of the model; what is none is left out."""
    found = json_file(root, "evaluate/samples.json")
    return (
        [row for row in found if isinstance(row, dict) and {"prompt", "text"} <= row.keys()]
        if isinstance(found, list)
        else []
    )


def definitions(root: Path) -> dict[str, str]:
    """Return what the figures of the evaluation mean, in the words of what computed them."""
    found = (json_file(root, "evaluate/evaluation.json") or {}).get("definitions", {})
    return {str(name): str(words) for name, words in found.items()}


def hashes(root: Path) -> Iterator[Row]:
    """Yield name, files, bytes and content hash of every published view and every checkpoint."""
    found = [(stage, Store(root).view(stage)) for stage in STAGES]
    found += [
        (f"{CHECKPOINTS}/{path.name}", load_artifact(path))
        for path in list_checkpoints(root).values()
    ]
    for name, artifact in found:
        if artifact is not None and artifact.manifest["files"]:
            files = artifact.manifest["files"].values()
            yield {
                "name": name,
                "files": len(files),
                "bytes": sum(entry["size"] for entry in files),
                "content": artifact.content,
            }


def plain(value: Any) -> Any:
    """Return a value that JSON and UTF-8 can hold: no NaN, no half of a surrogate pair, text for
    anything foreign.
    """
    if isinstance(value, dict):
        return {str(plain(str(key))): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return number(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value if value is None or isinstance(value, (bool, int)) else str(value)
