"""Fixtures of the collect tests: a source, its records, and the real data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.helpers.items import item_from_bytes

from groundup.artifacts.document import Document, Reject
from groundup.collect.readers.registry import read_item
from groundup.recipe import Source

Read = Callable[..., list[Document | Reject]]


@pytest.fixture
def read() -> Read:
    """Read bytes as a file of a source: read(kind, name, data)."""

    def _read(
        kind: str, name: str, data: bytes | str, **settings: object
    ) -> list[Document | Reject]:
        raw = data.encode() if isinstance(data, str) else data
        return list(read_item(item_from_bytes(raw, name), Source(path="x", kind=kind, **settings)))  # type: ignore[arg-type]

    return _read


@pytest.fixture
def texts(read: Read) -> Callable[..., list[str]]:
    """Read bytes and return the texts of the documents."""

    def _texts(kind: str, name: str, data: bytes | str, **settings: object) -> list[str]:
        return [
            found.text
            for found in read(kind, name, data, **settings)
            if isinstance(found, Document)
        ]

    return _texts


@pytest.fixture
def real_data() -> Path:
    """The folder of real data; the test is skipped without it."""
    folder = os.environ.get("GROUNDUP_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GROUNDUP_TEST_DATA does not name the folder of real data")
    return Path(folder)
