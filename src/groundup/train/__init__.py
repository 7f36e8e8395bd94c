"""Training: token shards → checkpoints, live in `RUN/train`."""

import os

# OpenMP threads that wait for each other sleep. By default they spin, and beside another program
# the spinning thread holds the core that the awaited one needs: steps took several times as long
# (docs/experiments.md). OpenMP reads this once, when torch is imported; results do not depend on
# it. This package is imported before torch by `groundup run`, `groundup tune` and every rank.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
