"""Raw files in any format → documents by shard. Reads raw files; writes `collect/documents` and
`collect/dropped`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any


def read_table(path: str) -> dict[str, Any]:
    """Return a TOML file of this package, a table of words; `path` is relative to this folder."""
    return tomllib.loads(resources.files(__name__).joinpath(path).read_text("utf-8"))


def by_word(table: Mapping[str, str]) -> dict[str, str]:
    """Return word → key of a table of key → words."""
    return {word: key for key, words in table.items() for word in words.split()}
