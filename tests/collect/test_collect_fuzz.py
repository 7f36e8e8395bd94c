"""Fuzzing of every reader: a damaged file is kept or listed in bounded time, others survive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.helpers import mutations
from tests.helpers.fuzz_files import SMALL
from tests.helpers.mutations import files_of, fuzz, read_between, trial

from groundup.artifacts.document import Document, Reject
from groundup.collect.files.streams import Item
from groundup.collect.readers.registry import read_item
from groundup.recipe import Source

SHORT, LONG = 200, int(os.environ.get("GROUNDUP_MUTATIONS", "10000"))


@pytest.mark.parametrize("reader", SMALL)
def test_whole_files_are_read(reader: str) -> None:
    """The files that are damaged below give documents while they are whole."""
    assert any(isinstance(result, Document) for result in read_between(*SMALL[reader])[1:-1])


@pytest.mark.parametrize("reader", SMALL)
def test_damaged_files(reader: str) -> None:
    """Two hundred mutations of a small file."""
    files = files_of(reader, None)
    assert not list(filter(None, (trial(reader, n, files) for n in range(SHORT))))


def test_memory_is_bounded() -> None:
    """The memory bound of the fuzzer leaves room for the libraries."""
    assert fuzz("jsonl", 20, None) == []


@pytest.mark.torture
@pytest.mark.parametrize("reader", SMALL)
def test_damaged_real_files(reader: str) -> None:
    """Ten thousand mutations of real (else small) files, in a child process of bounded memory."""
    folder = os.environ.get("GROUNDUP_TEST_DATA")
    assert fuzz(reader, LONG, Path(folder) if folder else None) == []


@pytest.mark.parametrize("failure", ["lost neighbours", "crashes", "hangs"])
def test_failures_are_seen(failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzzer reports a reader that loses records, raises or hangs."""

    def bad(item: Item, source: Source) -> list[Document | Reject]:
        while failure == "hangs":
            pass
        if failure == "crashes":
            raise KeyError
        return list(read_item(item, source))[:-1]

    monkeypatch.setattr(mutations, "read_item", bad)
    monkeypatch.setattr(mutations, "PATIENCE", 0.05)
    assert trial("jsonl", 1, files_of("jsonl", None)).startswith(failure)
