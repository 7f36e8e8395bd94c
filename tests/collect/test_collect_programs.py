"""Programs that read a file for us end within their bounds, and take what they started along."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.collect.files import programs
from groundup.collect.files.streams import DamagedError


def _run(script: str, folder: Path) -> bytes:
    return programs.run_program(["sh", "-c", script], str(folder))


def test_it_runs_in_its_folder(tmp_path: Path) -> None:
    """Its home and working folder are the one that is removed after."""
    assert _run("pwd; echo $HOME", tmp_path).decode().split() == [str(tmp_path)] * 2


def test_failure_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exit status names the program; one that hangs is ended."""
    with pytest.raises(DamagedError, match="sh cannot read it"):
        _run("exit 3", tmp_path)
    monkeypatch.setattr(programs, "RECORD_SECONDS", 0.2)
    with pytest.raises(DamagedError, match="longer than"):
        _run("sleep 60", tmp_path)


def test_output_and_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds hold in every shell: dash sets one a command."""
    monkeypatch.setattr(programs, "MAX_DOCUMENT_BYTES", 4096)
    with pytest.raises(DamagedError):
        _run("head -c 100000 /dev/zero", tmp_path)
    assert _run("ulimit -v", tmp_path).strip() == str(programs.MEMORY >> 10).encode()
