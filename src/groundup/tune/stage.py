"""The stage `tune`."""

from __future__ import annotations

from groundup.run import Run


def run(run: Run) -> None:
    """Do nothing: no recipe asks for tuning yet."""
