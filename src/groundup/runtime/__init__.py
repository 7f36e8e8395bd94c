"""What every stage runs on: the run directory, its store of artifacts, workers, downloads,
progress.
"""
