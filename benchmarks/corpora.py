"""Collected shards of real text by kind, from the folder that GROUNDUP_TEST_DATA names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from groundup.collect.stage import run as collect
from groundup.recipe import recipe_from
from groundup.run import Run

SOURCES = [
    {"name": "books", "kind": "books", "path": "books"},
    {"name": "wikitext", "kind": "wikipedia", "path": "wikipedia/plain"},
    {"name": "c4", "kind": "web", "path": "web/jsonl"},
    {"name": "code", "kind": "code", "path": "code/pypi"},
    {"name": "irc", "kind": "conversations", "path": "conversations/taskmaster4"},
]


def collected(data: Path, root: Path, sources: Sequence[Mapping[str, Any]] = SOURCES, refine: Mapping[str, Any] | None = None) -> Run:
    """Collect sources, by default about 45 MB of text, into a run at `root`; `refine` is that table of its recipe."""
    run = Run(root, recipe_from({"name": "benchmark", "source": list(sources), "refine": refine or {}}, "benchmark", data))
    run.store.clean()
    collect(run)
    return run
