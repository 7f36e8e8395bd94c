"""Training: token shards → checkpoints, live in `RUN/train`."""
