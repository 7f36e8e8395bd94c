"""What every stage runs on: run directory, store of artifacts, locks, workers, downloads."""
