"""Calls a function on every rank: in this process if there is one, else in those of torchrun.

    python -m groundup.train.ranks FOLDER    a rank, which reads FOLDER/.call

The folder is the caller's own, and goes with what was built in it.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from groundup.errors import GroundupError
from groundup.train.distributed import DistributedContext, init_distributed
from groundup.train.hardware import Hardware
from groundup.train.launch import ERROR, exit_with_parent, start_ranks

MODULE = "groundup.train.ranks"
# What is called, and what rank 0 got.
CALL, RESULT = ".call", ".result"
P = ParamSpec("P")
R = TypeVar("R")


def call_on_ranks(
    folder: Path,
    hardware: Hardware,
    function: Callable[Concatenate[DistributedContext, P], R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Return what rank 0 gets of `function(ranks, *args, **kwargs)`.

    Raises GroundupError if the ranks were stopped, failed, or died too often.
    """
    if hardware.processes == 1:
        with init_distributed(hardware) as ranks:
            return function(ranks, *args, **kwargs)
    call, result = folder / CALL, folder / RESULT
    call.write_bytes(pickle.dumps((hardware, function, args, kwargs)))
    try:
        if not start_ranks(MODULE, folder, folder / ERROR, hardware) or not result.exists():
            raise GroundupError("the processes died; run the same command to resume")
        returned: R = pickle.loads(result.read_bytes())
        return returned
    finally:
        call.unlink()
        result.unlink(missing_ok=True)


def main(folder: Path) -> None:
    """Make the call of a folder as one rank. An error that the user can fix becomes a file."""
    if (folder / ERROR).exists():
        # A rank has failed, and torchrun restarts all ranks because of it.
        return
    try:
        hardware, function, args, kwargs = pickle.loads((folder / CALL).read_bytes())
        with init_distributed(hardware) as ranks:
            returned = function(ranks, *args, **kwargs)
            if ranks.is_first:
                (folder / RESULT).write_bytes(pickle.dumps(returned))
    except GroundupError as error:
        # Not a failure to torchrun, which would restart all ranks.
        (folder / ERROR).write_text(str(error), encoding="utf-8")


if __name__ == "__main__":
    exit_with_parent()
    main(Path(sys.argv[1]))
