"""SIGKILL to the whole process group at any moment: the next run goes on and ends with the same
bytes.
"""

from pathlib import Path

import pytest
from tests.helpers.killing import Killer, digests, finish
from tests.helpers.large_files import PIECE_BYTES, write_large_files


def test_killed_runs_end_as_the_undisturbed_one(
    tiny_project: Path, tiny_run: Path, tmp_path: Path
) -> None:
    killer = Killer(tiny_project, tmp_path / "run", digests(tiny_run), longest=12)
    killer.rampage(kills=4, in_commit=1)


@pytest.mark.torture
def test_a_hundred_kills_over_all_stages(
    tiny_project: Path, tiny_run: Path, tmp_path: Path
) -> None:
    killer = Killer(tiny_project, tmp_path / "run", digests(tiny_run), longest=15)
    killer.rampage(kills=100, in_commit=25)
    print(
        f"{killer.kills} kills, {killer.in_commit} of them inside a commit, {killer.finished}"
        " finished in between"
    )


@pytest.mark.torture
def test_fifty_kills_of_the_refinery(tiny_project: Path, tmp_path: Path) -> None:
    until = ("--until", "refine")
    expected = finish(tiny_project, tmp_path / "whole", *until)
    killer = Killer(tiny_project, tmp_path / "run", expected, longest=6, extra=until)
    killer.rampage(kills=50, in_commit=10)
    print(
        f"{killer.kills} kills, {killer.in_commit} of them inside a commit, {killer.finished}"
        " finished in between"
    )


@pytest.mark.torture
def test_fifty_kills_over_files_in_pieces(tmp_path: Path) -> None:
    """Protects: a piece that was half read, or results that were half written, are used."""
    until = ("--until", "refine")
    recipe = write_large_files(tmp_path)
    expected = finish(recipe, tmp_path / "whole", *until, piece_bytes=PIECE_BYTES)
    assert len(expected) > 60
    for workers in (1, 4):
        out = tmp_path / f"with {workers}"
        other = finish(recipe, out, *until, piece_bytes=PIECE_BYTES, workers=workers)
        assert other == expected
    killer = Killer(recipe, tmp_path / "run", expected, 8, until, piece_bytes=PIECE_BYTES)
    killer.rampage(kills=50, in_commit=15)
    print(
        f"{killer.kills} kills, {killer.in_commit} of them inside a commit, {killer.finished}"
        " finished in between"
    )
