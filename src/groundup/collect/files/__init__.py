"""Raw files as byte streams: archives, compression, formats, globs."""
