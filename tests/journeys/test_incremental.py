"""Raw files that are added, changed and taken away redo their own shards and the global lists:
exactly which, counted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.helpers.shards_kit import (
    SHARDS,
    artifacts,
    between,
    names,
    run,
    texts,
    write,
    write_project,
)

from groundup.runtime.store import Store

PER_SHARD = {"collect": "collect/shard/", "refine": "refine/shard/", "tokenize": "tokenize/shard/"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = write_project(tmp_path_factory.mktemp("incremental"))
    run(recipe)
    return recipe


def begins(number: int) -> str:
    return sorted(name for name, _ in zip(names(begin=True), range(SHARDS), strict=False))[number]


def add(raw: Path) -> None:
    write(raw / between(begins(1), after=5), texts(9))


def change(raw: Path) -> None:
    write(raw / between(begins(1)), [*texts(4)[1:], "Another text in the place of the first one."])


def take_away(raw: Path) -> None:
    (raw / between(begins(1))).unlink()


def verdicts(root: Path) -> dict[str, str]:
    view = Store(root).view("refine")
    assert view is not None
    return {
        name[6:-4]: entry["sha256"]
        for name, entry in view.manifest["files"].items()
        if name.startswith("split/")
    }


@pytest.mark.parametrize("what", [add, change, take_away])
def test_only_its_shard_and_the_lists_are_built(
    project: Path, tmp_path: Path, what: Callable[[Path], None]
) -> None:
    recipe = shutil.copytree(project.parent, tmp_path / "copy") / project.name
    root, before = recipe.parent / "run", artifacts(recipe.parent / "run")
    old = verdicts(root)
    own = [
        artifact.name
        for artifact in Store(root).artifacts("collect", "collect/shard")
        if begins(1) in artifact.manifest["inputs"]
    ]
    what(recipe.parent / "raw")
    run(recipe)
    built = {name.rpartition("-")[0] for name in artifacts(root) - before}
    assert len(verdicts(root)) == SHARDS
    moved = {name for name, digest in verdicts(root).items() if digest != old[name]}
    expected = {"collect": set(own), "refine": set(own), "tokenize": set(own) | moved}
    for stage, prefix in PER_SHARD.items():
        assert {name.removeprefix(prefix) for name in built if name.startswith(prefix)} == expected[
            stage
        ], stage
    # The rest is lists over all shards, one of each: the text is too little for many ranges of
    # hashes. The list of what was cut stays, since nothing repeats; the tokenizer is frozen.
    rest = sorted(name for name in built if not name.startswith(tuple(PER_SHARD.values())))
    lists = ["duplicates/duplicates", "line_counts/notes.0000", "quality/quality", "split/split"]
    assert rest == [*(f"refine/{name}" for name in lists), "tokenize/index/index"]


@pytest.mark.parametrize("what", [add, change, take_away])
def test_status_counts_what_the_last_run_built(
    project: Path, tmp_path: Path, what: Callable[[Path], None]
) -> None:
    from groundup.commands.status import run_status, status_text

    recipe = shutil.copytree(project.parent, tmp_path / "copy") / project.name
    root, before = recipe.parent / "run", artifacts(recipe.parent / "run")
    what(recipe.parent / "raw")
    run(recipe)
    built = artifacts(root) - before
    state = run_status(root)["stages"]
    for stage in PER_SHARD:
        view = Store(root).view(stage)
        assert view is not None
        new = sum(name.startswith(f"{stage}/") for name in built)
        assert (state[stage]["built"], state[stage]["reused"]) == (
            new,
            len(view.manifest["artefacts"]) - new,
        ), stage
    assert (state["train"]["built"], state["train"]["reused"]) == (None, None)
    run(recipe)
    assert [run_status(root)["stages"][stage]["built"] for stage in PER_SHARD] == [0, 0, 0]
    assert "reused" in status_text(run_status(root))
