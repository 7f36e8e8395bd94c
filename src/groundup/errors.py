"""The errors that reach a user: one line that says what, where and what to do."""

import errno
import os


class GroundupError(Exception):
    """Something the user can fix; the command line prints its message without a traceback."""


class RecipeError(GroundupError):
    """A recipe cannot be used: a misspelt key, a wrong type, an impossible number."""


class SourceError(GroundupError):
    """A source cannot be read at all: a missing path, an empty folder, an unreachable address."""


class StoreError(GroundupError):
    """A run directory cannot be used: locked, full, or written by something else."""


class InterruptionError(GroundupError):
    """The user stopped a stage, which saved its work first; no failure."""


class ExpensiveError(GroundupError):
    """Work that took more than ten minutes would be discarded; `--redo STAGE` allows it."""


def one_line(error: BaseException, length: int = 300) -> str:
    """Return an error's message, which may be many lines, as one of at most `length` characters."""
    return " ".join(str(error).split())[:length]


def is_full_disk(error: BaseException) -> bool:
    """Whether an error means a full disk or quota; C++ and Rust libraries only say so in words."""
    code = getattr(error, "errno", None)
    return code in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)
