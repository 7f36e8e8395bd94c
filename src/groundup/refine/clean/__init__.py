"""Cleaning: whitespace, Unicode, personal data."""
