"""Test `groundup inspect --token` with the first and the last token of every document."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.helpers.shards_kit import run, write_project

from groundup.commands import inspect
from groundup.commands.inspect import describe_token
from groundup.errors import GroundupError


def test_tokens_belong_to_the_documents_of_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens count over the train shards by name; validation does not count."""
    root = run(write_project(tmp_path))
    monkeypatch.setattr(inspect, "describe_document", lambda root, document, width, token: document)
    rows = [
        row
        for row in pq.read_table(root / "tokenize/index.parquet").to_pylist()
        if row["split"] == "train"
    ]
    begin = 0
    for row in sorted(rows, key=lambda row: (row["shard"], row["offset"])):
        for token in (0, row["length"] - 1):
            assert (
                describe_token(root, begin + token)
                == f"token {begin + token:,} is token {token:,} of {row['id']}"
            )
        begin += row["length"]
    with pytest.raises(
        GroundupError, match=f"there are {begin:,} training tokens; {begin:,} is beyond them"
    ):
        describe_token(root, begin)
