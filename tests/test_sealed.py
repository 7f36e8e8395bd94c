"""Run files carry the hash of their bytes: every flipped bit is seen, and a kill costs nothing."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.commands.verify import CHECKS, Note, check_bytes, outcome
from groundup.errors import StoreError
from groundup.runtime.sealed import (
    append_chained,
    is_intact,
    read_chained,
    read_sealed,
    sealed_toml,
    write_sealed,
)
from tests.helpers.examples import examples

VALUES = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sealed")


def flipped(path: Path) -> list[int]:
    """Flip each bit of a file in turn; return the offsets of those that nobody noticed."""
    data, missed = path.read_bytes(), []
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        if is_intact(path) is not False:
            missed.append(bit // 8)
    path.write_bytes(data)
    return missed


@examples(30)
@given(table=VALUES)
def test_a_sealed_table_is_read_back(folder: Path, table: dict[str, object]) -> None:
    path = folder / "a.json"
    table.pop("sha256", None)
    write_sealed(path, table)
    assert read_sealed(path) == table and is_intact(path)


@pytest.mark.parametrize("table", [{}, {"step": 75_000, "loss": 2.87}, {"é\udcff": ['"\n}']}])
def test_every_flipped_bit_of_a_table_is_seen(tmp_path: Path, table: dict[str, object]) -> None:
    path = tmp_path / "best.json"
    write_sealed(path, table)
    assert flipped(path) == []
    path.write_bytes(path.read_bytes().replace(b" ", b"\t", 1))
    with pytest.raises(StoreError, match=r"best\.json: damaged"):
        read_sealed(path)


def test_every_flipped_bit_of_a_lock_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "recipe.lock.toml"
    path.write_bytes(sealed_toml(b'name = "mine"\n'))
    assert is_intact(path) and flipped(path) == []


@pytest.mark.parametrize("lines", [1, 4])
def test_every_flipped_bit_of_a_chain_is_seen(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "ledger.jsonl"
    for n in range(lines):
        append_chained(path, {"event": "run", "n": n})
    assert is_intact(path) and flipped(path) == []
    assert [entry["n"] for entry in read_chained(path)] == list(range(lines))


def test_what_a_kill_leaves_of_a_line_is_no_damage(tmp_path: Path) -> None:
    """Cut at any byte, the chain is intact, and goes on; the torn part is covered by it."""
    path = tmp_path / "metrics.jsonl"
    for n in range(3):
        append_chained(path, {"step": n})
    whole = path.read_bytes()
    second = len(whole) // 3 * 2
    for size in range(second, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert is_intact(path), size
        append_chained(path, {"step": 9})
        assert is_intact(path) and [entry["step"] for entry in read_chained(path)][-1] == 9
    path.write_bytes(whole[: second + 5])
    append_chained(path, {"step": 9})
    assert flipped(path) == []


def test_a_file_of_an_earlier_version_is_carried_on(tmp_path: Path) -> None:
    """It has no chain yet; the first new line covers all of it."""
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"event": "run"}\n' * 5_000)
    assert is_intact(path) is None
    append_chained(path, {"event": "began"})
    assert is_intact(path) and len(read_chained(path)) == 5_001
    path.write_bytes(path.read_bytes().replace(b"run", b"ran", 1))
    assert is_intact(path) is False


def damaged(root: Path) -> set[str]:
    """Return the files that the check of all bytes names; a note names those without a hash."""
    lines = [line for line in check_bytes(root) if not isinstance(line, Note)]
    return {line.partition(":")[0] for line in lines}


def test_a_flipped_bit_anywhere_in_a_copied_run_is_named(tiny_run: Path, tmp_path: Path) -> None:
    """A copy has no hard links, so views are files of their own. 200 random places and more."""
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    assert list(check_bytes(copy)) == []
    paths = [path for path in sorted(copy.rglob("*")) if path.is_file() and path.name != ".lock"]
    random, flips = np.random.default_rng(1), 0
    paths = [path for path in paths if ".staging" not in path.parts and path.stat().st_size]
    while flips < 200:
        before = {}
        for path in paths:
            path.chmod(stat.S_IRUSR | stat.S_IWUSR)
            data = before[path] = path.read_bytes()
            changed = bytearray(data)
            changed[random.integers(len(data))] ^= 1 << int(random.integers(8))
            path.write_bytes(changed)
            flips += 1
        # A damaged manifest names itself, and vouches for no file; the others are named by it.
        assert {str(path) for path in paths if path.name == "manifest.json"} <= damaged(copy)
        for path in paths:
            if path.name == "manifest.json":
                path.write_bytes(before[path])
        assert damaged(copy) == {str(path) for path in paths if path.name != "manifest.json"}
        for path, data in before.items():
            path.write_bytes(data)


@pytest.mark.parametrize("name", ["ledger.jsonl", "train/metrics.jsonl", "export/manifest.json"])
def test_a_missing_file_is_named(tiny_run: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(tiny_run, tmp_path / "run")
    (copy / name).unlink()
    shown = [line.partition(":")[0] for check in CHECKS.values() for line in outcome(check, copy)]
    assert str(copy / name) in shown or str((copy / name).parent) in shown
