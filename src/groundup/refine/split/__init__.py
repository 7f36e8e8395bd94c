"""Train and validation split by group and near-duplicate cluster."""
