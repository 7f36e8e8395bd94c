"""The report of a run: every figure computed from the files on disk, each with its origin."""

import logging

# Matplotlib lists the fonts at its first import on a machine, and logs that.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
