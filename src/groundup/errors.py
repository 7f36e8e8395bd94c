"""The one error that reaches a user: a line that says what, where and what to do."""

import errno
import os


class GroundupError(Exception):
    """Something the user can mend. The command line prints its message as one line, without a
    traceback.
    """


class RecipeError(GroundupError):
    """A recipe cannot be used: a misspelt key, a wrong type, an impossible number."""


class SourceError(GroundupError):
    """A source cannot be read at all: a missing path, an empty folder, an unreachable address."""


class StoreError(GroundupError):
    """A run directory cannot be used: locked, full, or written by something else."""


class ExpensiveError(GroundupError):
    """Going on would throw away work that cost more than ten minutes; `--redo STAGE` allows it."""


def is_full_disk(error: BaseException) -> bool:
    """Whether an error is a full disk or quota; libraries in C++ and Rust report it in words of
    their own.
    """
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(
        errno.ENOSPC
    ) in str(error)
