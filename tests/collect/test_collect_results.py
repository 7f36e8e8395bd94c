"""What is read while records are counted comes back with its numbers, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.artifacts.document import Document, Reject
from groundup.collect import results
from groundup.collect.results import read_results, write_results

MANY: list[Document | Reject] = [
    Document(f"text {n} é\ud800" * 9, n, "g", "l", "en", [{"role": "a", "content": "b"}], 1, 2)
    if n % 3
    else Reject("malformed", n, "why")
    for n in range(500)
]


@pytest.mark.parametrize("count", [0, 1, 500])
def test_results_come_back_with_their_numbers(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a result holds, and however many blocks they take, all of them come back."""
    monkeypatch.setattr(results, "_BLOCK_CHARACTERS", 1000)
    path = tmp_path / "folder/results"
    assert write_results(path, MANY[:count]) == count
    expected = [replace(result, record=result.record + 70) for result in MANY[:count]]
    assert list(read_results(path, 70)) == expected


def test_half_of_the_results_is_none(tmp_path: Path) -> None:
    """Protects: a damaged range would pass for a whole one, with the results before the damage."""

    def damaged() -> Iterator[Document | Reject]:
        yield from MANY
        raise ValueError("damage")

    with pytest.raises(ValueError, match="damage"):
        write_results(tmp_path / "results", damaged())
    assert not list(tmp_path.iterdir())
