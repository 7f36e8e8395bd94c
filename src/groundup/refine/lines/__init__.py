"""Lines that a source repeats across documents."""
