"""What this machine offers and what a stage uses of it: device, memory, versions of libraries."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata

import psutil

from groundup._version import __version__
from groundup.errors import GroundupError

# Versions that explain a difference between two machines. All but torch decide documents and
# tokens, so every node of a cluster must have the same.
DATA_LIBRARIES = tuple(
    "numpy pyarrow numba tokenizers lxml ftfy py3langid chardet fastwarc resiliparse".split()
)


def versions() -> dict[str, str]:
    """Return the versions of groundup, Python and the libraries that decide the output."""
    installed = {"groundup": __version__, "python": platform.python_version()}
    for name in ("torch", *DATA_LIBRARIES):
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def choose_device(wish: str = "auto") -> str:
    """Return the device that models run on: `cuda` or `cpu`; `auto` takes a GPU if there is one.

    Raises GroundupError for `cuda` without a GPU.
    """
    import torch

    # cuBLAS reads it once, before its first product: so much memory of its own lets it add in a
    # fixed order.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if wish == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wish == "cuda" and not torch.cuda.is_available():
        raise GroundupError("--device cuda: PyTorch sees no GPU here; use --device cpu")
    return wish


def device_memory(device: str) -> int:
    """Return the bytes of memory that training on a device can use."""
    if device == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(0).total_memory)
    return int(psutil.virtual_memory().total)


@contextmanager
def peak_memory(every_seconds: float = 0.25) -> Iterator[list[int]]:
    """Sample the resident memory of this process and its children during a with block.

    Yields a list of one number: the largest sum so far, in bytes.
    """
    peak, stop, process = [0], threading.Event(), psutil.Process()

    def sample() -> None:
        while not stop.is_set():
            total = 0
            for member in (process, *process.children(recursive=True)):
                # A child may have ended meanwhile.
                with suppress(psutil.Error):
                    total += member.memory_info().rss
            peak[0] = max(peak[0], total)
            stop.wait(every_seconds)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def processor_seconds() -> float:
    """Return the processor time so far of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
