"""Removal of documents that overlap evaluation sets."""
