"""Raw files as bounded byte streams: archives, compression, formats, globs."""
