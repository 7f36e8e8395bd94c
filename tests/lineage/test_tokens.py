"""From a token to its document, for the first and the last token of every document."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.helpers.shards_kit import run, write_project

from groundup.commands import inspect
from groundup.commands.inspect import describe_token
from groundup.errors import GroundupError


def test_every_token_is_of_the_document_that_the_index_puts_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the train shards by name; what lies in validation counts for nothing."""
    root = run(write_project(tmp_path))
    monkeypatch.setattr(inspect, "describe_document", lambda root, document, width, token: document)
    rows = [
        row
        for row in pq.read_table(root / "tokenize/index.parquet").to_pylist()
        if row["split"] == "train"
    ]
    at = 0
    for row in sorted(rows, key=lambda row: (row["shard"], row["offset"])):
        for token in (0, row["length"] - 1):
            assert (
                describe_token(root, at + token)
                == f"token {at + token:,} is token {token:,} of {row['id']}"
            )
        at += row["length"]
    with pytest.raises(
        GroundupError, match=f"there are {at:,} training tokens; {at:,} is beyond them"
    ):
        describe_token(root, at)
