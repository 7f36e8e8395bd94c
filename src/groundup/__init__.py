"""groundup: one recipe and one command from raw text to a language model."""

__version__ = "0.1.0"
