"""One of the processes that torchrun starts: `torchrun ... -m groundup.train RUN`.

They may be on several machines that share the run directory. If `groundup run` did not start
torchrun, rank 0 prepares the training under the run's lock while the other ranks wait.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from groundup.errors import GroundupError
from groundup.runtime.lock import load_lock
from groundup.runtime.progress import echo
from groundup.runtime.run import Run
from groundup.train.distributed import init_distributed
from groundup.train.hardware import count_processes
from groundup.train.launch import ERROR, PREPARED, exit_with_parent
from groundup.train.setup import TrainSetup
from groundup.train.stage import begin, finished, prepare
from groundup.train.trainer import Trainer

# How long the other ranks wait for rank 0, which may have to probe the hardware.
PREPARE_SECONDS = 600.0


def main(root: Path) -> None:
    """Train. The process that started torchrun gets an error that the user can fix as a file."""
    prepared, error_file = bool(os.environ.get(PREPARED)), root / "train" / ERROR
    if prepared and error_file.exists():
        # A rank has failed, and torchrun restarts all ranks because of it.
        return
    # The ranks of this start wait for this file.
    run_id, restart = os.environ.get("TORCHELASTIC_RUN_ID", "0"), "TORCHELASTIC_RESTART_COUNT"
    ready = root / "train" / f".ready-{run_id}-{os.environ.get(restart, '0')}"
    try:
        with contextlib.ExitStack() as stack:
            setup: TrainSetup | None
            if not prepared and os.environ.get("RANK", "0") == "0":
                setup = stack.enter_context(_prepared_here(root, ready))
            else:
                deadline = time.monotonic() + PREPARE_SECONDS
                while not (prepared or ready.exists()) and time.monotonic() < deadline:
                    time.sleep(0.2)
                setup = TrainSetup.read(root)
            if setup is None:
                missing = f"{root / 'train'}: no training was begun there"
                raise GroundupError(f"{missing}; use `groundup run`")
            if not finished(root, setup):
                ranks = stack.enter_context(init_distributed(setup.hardware))
                Trainer(root, setup, ranks).train()
    except GroundupError as error:
        # Not a failure to torchrun, which would restart all ranks.
        error_file.write_text(str(error), encoding="utf-8")
        if not prepared:
            echo(f"groundup: {error}", error=True)


@contextlib.contextmanager
def _prepared_here(root: Path, ready: Path) -> Iterator[TrainSetup]:
    """Prepare the training for all ranks, and hold the run's lock within the block."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    (root / "train" / ERROR).unlink(missing_ok=True)
    with Run.open(load_lock(root), root, workers=1) as run:
        try:
            setup = TrainSetup.read(root)
            if setup is None:
                setup = prepare(run, processes)
            else:
                # Resumed with as many processes as there are now.
                train = dataclasses.replace(setup.train, processes=processes)
                count_processes(train, setup.sequences, setup.hardware.device)
                hardware = dataclasses.replace(setup.hardware, processes=processes)
                setup = dataclasses.replace(setup, hardware=hardware)
            begin(run, setup)
        finally:
            (root / "train").mkdir(exist_ok=True)
            ready.write_text("", encoding="utf-8")
        try:
            yield setup
        finally:
            ready.unlink()


if __name__ == "__main__":
    exit_with_parent()
    main(Path(sys.argv[1]))
