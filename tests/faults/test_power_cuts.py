"""Power cuts: whatever of a run did not reach the disk is made again, with the same bytes."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers import power
from tests.helpers.killing import digests, finish

State = dict[str, Path | None]


@pytest.fixture(scope="module")
def cuts(
    tiny_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, list[tuple[str, State]]]]:
    """The directory of a run, and what the disk may hold after a cut at each of its moments."""
    folder = tmp_path_factory.mktemp("power")
    root = folder / "run"
    command = [sys.executable, "-m", "groundup", "run", str(tiny_project), "--out", str(root)]
    power.record([*command, "--workers", "2"], root, folder / "notes")
    yield root, list(power.states(folder / "notes"))


def check(cuts: tuple[Path, list[tuple[str, State]]], recipe: Path, tiny_run: Path, n: int) -> None:
    root, states = cuts
    expected = digests(tiny_run)
    # What is lost and what names outlive is often the same.
    different = list({frozenset(files.items()): (name, files) for name, files in states}.values())
    for name, files in random.Random(0).sample(different, min(n, len(different))):
        power.restore(files, root)
        assert finish(recipe, root) == expected, name


def test_a_finished_run_is_on_the_disk(
    cuts: tuple[Path, list[tuple[str, State]]], tiny_run: Path
) -> None:
    """The last states hold every promised file with its bytes: nothing is left to chance."""
    root, states = cuts
    for kind in ("lost", "names"):
        power.restore([files for name, files in states if name.startswith(kind)][-1], root)
        assert digests(root) == digests(tiny_run)


def test_power_cuts(
    cuts: tuple[Path, list[tuple[str, State]]], tiny_project: Path, tiny_run: Path
) -> None:
    """Two moments of the run; `make torture` tries them all."""
    check(cuts, tiny_project, tiny_run, 2)


@pytest.mark.torture
def test_every_power_cut(
    cuts: tuple[Path, list[tuple[str, State]]], tiny_project: Path, tiny_run: Path
) -> None:
    """Every state of the disk between the first write and the last."""
    check(cuts, tiny_project, tiny_run, sys.maxsize)
