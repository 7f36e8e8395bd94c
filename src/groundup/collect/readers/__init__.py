"""One reader for each format: bytes to documents."""
