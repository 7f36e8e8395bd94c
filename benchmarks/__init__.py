"""Every figure that a document of this project names, made again by `make bench`."""
