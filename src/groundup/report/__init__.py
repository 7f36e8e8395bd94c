"""Every figure of a run, computed from what is on disk, each with the artefact that it comes from."""
