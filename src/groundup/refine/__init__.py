"""Turns collected documents into clean, filtered, deduplicated and split ones."""
