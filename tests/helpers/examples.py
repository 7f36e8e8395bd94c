"""How many examples a property test tries: the same few each time, or with GROUNDUP_EXAMPLES=20
twenty times as many at random.

A test that draws anew each time fails some day on a change that has nothing to do with it; one that
never does finds nothing.
"""

import os
from typing import Any

from hypothesis import settings

_TIMES = int(os.environ.get("GROUNDUP_EXAMPLES", "0"))
# No time limit for an example: in a fresh clone the first call of a kernel compiles it.
settings.register_profile(
    "groundup", deadline=None, derandomize=not _TIMES, max_examples=100 * max(1, _TIMES)
)


def examples(count: int, **more: Any) -> settings:
    """Return the settings of a test that needs `count` examples on an ordinary day."""
    return settings(max_examples=count * max(1, _TIMES), **more)
