"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil


def machine() -> str:
    """Return processor, cores and Python of this machine."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}"


def test_data() -> Path | None:
    """Return the folder that GROUNDUP_TEST_DATA names, if it is there."""
    folder = os.environ.get("GROUNDUP_TEST_DATA")
    return Path(folder) if folder and Path(folder).is_dir() else None


def watched(command: Sequence[str]) -> tuple[str, dict[str, float]]:
    """Run a process; return what it printed, and in GB its peak resident memory and the part of it
    that is no mapped file.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peaks, stop = {"resident": 0, "own": 0}, threading.Event()

    def look() -> None:
        process = psutil.Process(child.pid)
        while not stop.wait(0.05):
            try:
                memory = process.memory_info()
            except psutil.Error:
                return
            peaks["resident"] = max(peaks["resident"], memory.rss)
            peaks["own"] = max(peaks["own"], memory.rss - memory.shared)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    out, log = child.communicate()
    stop.set()
    thread.join()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, list(command), out, log)
    return out, {name: round(size / 1e9, 3) for name, size in peaks.items()}


def watched_tree(command: Sequence[str]) -> float:
    """Run a process; return in GB the peak of the memory of it and its children, together.

    Pages that they share are counted once for each (resident), so this is an upper bound.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    child = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peak, stop = [0], threading.Event()

    def look() -> None:
        while not stop.wait(0.2):
            total = 0
            for process in [child, *child.children(recursive=True)]:
                with suppress(psutil.Error):
                    total += process.memory_info().rss
            peak[0] = max(peak[0], total)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    log, _ = child.communicate()
    stop.set()
    thread.join()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, list(command), log)
    return round(peak[0] / 1e9, 3)
