"""Web pages from a list of addresses, fetched politely into WARC files."""
