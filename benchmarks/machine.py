"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """Return processor, cores and Python of this machine."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}"


def test_data() -> Path | None:
    """Return the folder that GROUNDUP_TEST_DATA names, if it is there."""
    folder = os.environ.get("GROUNDUP_TEST_DATA")
    return Path(folder) if folder and Path(folder).is_dir() else None
