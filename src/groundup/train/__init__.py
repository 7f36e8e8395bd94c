"""Training: token shards → checkpoints, live in `RUN/train`."""

import os

# OpenMP threads that wait for each other spin for a moment, then sleep. By default they spin on;
# beside another program the spinning thread holds the core that the awaited one needs: steps took
# several times as long. Without any spinning an idle machine loses 15 % (docs/experiments.md).
# OpenMP reads this once, when torch is imported; results do not depend on it. This package is
# imported before torch by `groundup run`, `groundup tune` and every rank.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
