"""The version of groundup."""

__version__ = "0.1.0"
