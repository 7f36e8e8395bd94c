"""Programs of this machine that read a file for us, within bounds of time, memory and output.

A converter of old office files or Tesseract is as easy to crash as a library in C, so it gets a
process group, an empty home folder and no input; what it starts ends with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from groundup.artifacts.document import MAX_DOCUMENT_BYTES
from groundup.collect.files.streams import RECORD_SECONDS, DamagedError

# Address space of a program.
MEMORY = 2 << 30


def run_program(
    command: Sequence[str], folder: str, variables: Mapping[str, str] | None = None
) -> bytes:
    """Return what a program prints; DamagedError if it fails, takes too long, or prints too much.

    It runs in `folder`, with `variables` in its environment, for RECORD_SECONDS at most.
    """
    output = Path(folder) / "output"
    # The shell sets the bounds, in KB and blocks of 512 bytes: it is safe beside threads. One a
    # command, as dash refuses two.
    bounds = f"ulimit -v {MEMORY >> 10}; ulimit -f {MAX_DOCUMENT_BYTES >> 9}"
    with output.open("wb") as file:
        child = subprocess.Popen(
            ["sh", "-c", f'{bounds}; exec "$@"', "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={**os.environ, "HOME": folder, **(variables or {})},
            start_new_session=True,
        )
        try:
            status = child.wait(RECORD_SECONDS)
        except subprocess.TimeoutExpired:
            detail = f"{command[0]} took longer than {RECORD_SECONDS:.0f} s"
            raise DamagedError("timeout", detail) from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if status:
        raise DamagedError("damaged", f"{command[0]} cannot read it (exit status {status})")
    return output.read_bytes()
