"""One of the processes that torchrun starts: `python -m groundup.train RUN`. Reads `RUN/train/train.json`."""

from __future__ import annotations

import sys
from pathlib import Path

from groundup.errors import GroundupError
from groundup.train.plan import Plan
from groundup.train.stage import ERROR, train


def main(root: Path) -> None:
    """Train as planned; an error that the user can mend is left in a file for the process that started this one."""
    try:
        plan = Plan.read(root / "train")
        if plan is None:
            raise GroundupError(f"{root / 'train'}: no training was begun there; use `groundup run`")
        train(root, plan)
    except GroundupError as error:
        # Not a failure for torchrun, which would start everything again.
        (root / "train" / ERROR).write_text(str(error), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
