"""Every reader on damaged files: each is kept or listed, in bounded time, and its neighbours survive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fuzz_files import SMALL
from mutations import files_of, fuzz, read_between, trial

from groundup.document import Document

SHORT, LONG = 200, int(os.environ.get("GROUNDUP_MUTATIONS", "10000"))


@pytest.mark.parametrize("reader", SMALL)
def test_whole_files_are_read(reader: str) -> None:
    """What is damaged below gives documents while it is whole: else the damage would prove nothing."""
    assert any(isinstance(one, Document) for one in read_between(*SMALL[reader])[1:-1])


@pytest.mark.parametrize("reader", SMALL)
def test_damaged_files(reader: str) -> None:
    """Two hundred mutations of a small file."""
    files = files_of(reader, None)
    assert not list(filter(None, (trial(reader, n, files) for n in range(SHORT))))


def test_memory_is_bounded() -> None:
    """The bound under which ten thousand are read leaves room for libraries, and for no more than small files want."""
    assert fuzz("jsonl", 20, None) == []


@pytest.mark.torture
@pytest.mark.parametrize("reader", SMALL)
def test_damaged_real_files(reader: str) -> None:
    """Ten thousand mutations of real files, or of a small one where there is no real data, in a child whose memory is bounded."""
    folder = os.environ.get("GROUNDUP_TEST_DATA")
    assert fuzz(reader, LONG, Path(folder) if folder else None) == []
