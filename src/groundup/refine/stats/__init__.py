"""Distributions of text statistics before and after each step."""
