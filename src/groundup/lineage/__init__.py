"""Answers about a finished run: where a token comes from, why a document was dropped, what differs, and what to forget."""
