"""Megabytes a second through refinement on one core, and where the processor time goes: by step and
kind, in milliseconds a megabyte of text.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.corpora import collected
from benchmarks.machine import machine, test_data
from benchmarks.varied import make_corpus
from groundup.artifacts.document import TableWriter
from groundup.refine import lines, shard
from groundup.refine.clean import pipeline
from groundup.refine.dedup import lsh_index
from groundup.refine.filter import language, statistics
from groundup.refine.filter.statistics import Statistics
from groundup.refine.stage import run as refine
from groundup.refine.stats import ShardStats

# Of raw files of five kinds, for the table of steps.
STEPS_MEGABYTES = 60
# Steps of a shard: what they are called, and the function that is measured without those inside it.
STEPS: dict[str, tuple[Any, str]] = {
    "reading": (shard, "read_batches"),
    "white space": (pipeline, "normalize_whitespace"),
    "normal form": (pipeline, "normalize_form"),
    "mojibake and entities": (pipeline, "repair"),
    "personal data": (pipeline, "redact"),
    "other cleaning": (shard, "clean_texts"),
    "cleaning of turns": (shard, "clean_turns"),
    "description of texts": (ShardStats, "cleaned"),
    "language": (language, "detect"),
    "words": (statistics, "words"),
    "words and sentences": (statistics, "count_tokens"),
    "repeated n-grams": (statistics, "repeated_words"),
    "other counts of filters": (Statistics, "__getitem__"),
    "other filtering": (shard, "apply_filters"),
    "hashes of texts": (lsh_index, "folded_hashes"),
    "signatures": (lsh_index, "sign_words"),
    "other duplicate keys": (shard, "document_keys"),
    "lines": (lines, "line_hashes"),
    "writing": (TableWriter, "write"),
    "index": (shard, "write_index"),
}


def measure() -> dict[str, object] | None:
    data = test_data()
    if data is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        # The first run compiles the kernels, and is not counted.
        for _ in range(2):
            run = collected(data, Path(folder))
            start, processor = time.perf_counter(), time.process_time()
            run.perform_again("refine", refine)
            seconds, processor = time.perf_counter() - start, time.process_time() - processor
        view = run.store.view("refine")
        assert view is not None
        megabytes = view.facts["bytes_in"] / 1e6
        figures: dict[str, object] = {
            "MB in": megabytes,
            "MB/s, whole stage, one core": megabytes / seconds,
            "MB a processor second, whole stage": megabytes / processor,
        }
        for of_kind in make_corpus(data, Path(folder) / "varied", STEPS_MEGABYTES)[0]:
            figures |= steps_of(data, Path(folder) / of_kind["kind"], of_kind)
    for entry in view.manifest["artefacts"]:
        source = str(entry["name"]).rpartition(".")[0]
        size = view.facts["sources"].get(source, {}).get("bytes_in")
        if entry["step"] == "refine/shard" and size:
            figures[f"MB/s, {source}"] = size / 1e6 / entry["seconds"]
    return {
        "what": (
            "Refinement of real text, one process, kernels compiled before. Milliseconds are those"
            " of the processor, without the steps that a step calls."
        ),
        "figures": figures,
        "machine": machine(),
    }


def steps_of(data: Path, folder: Path, source: Mapping[str, str]) -> dict[str, object]:
    """Return the milliseconds a megabyte of each step that takes any, for one kind of text."""
    run = collected(data, folder, [source])
    with timed_steps() as spent:
        run.perform_again("refine", refine)
    view = run.store.view("refine")
    assert view is not None
    per_megabyte = {name: 1e9 * spent[name] / view.facts["bytes_in"] for name in STEPS}
    kind = source["kind"]
    steps: dict[str, object] = {
        f"ms a MB, {kind}, {name}": value for name, value in per_megabyte.items() if value >= 0.1
    }
    return steps | {f"ms a MB, {kind}, all of these": sum(per_megabyte.values())}


@contextmanager
def timed_steps() -> Iterator[dict[str, float]]:
    """Measure the processor seconds of each of STEPS while the context is open."""
    spent, inner = defaultdict[str, float](float), [0.0]

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            inner.append(0.0)
            result = function(*arguments, **options)
            if isinstance(result, Iterator):
                # Batches that are read one by one.
                result = iter(list(result))
            taken = time.process_time() - start
            spent[name] += taken - inner.pop()
            inner[-1] += taken
            return result

        return measured

    with ExitStack() as stack:
        for name, (owner, attribute) in STEPS.items():
            function = timed(name, getattr(owner, attribute))
            stack.enter_context(patch.object(owner, attribute, function))
        yield spent
