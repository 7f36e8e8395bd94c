"""Web pages of a URL list, fetched politely into WARC files."""
