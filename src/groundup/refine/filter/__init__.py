"""Quality filters and language identification."""
