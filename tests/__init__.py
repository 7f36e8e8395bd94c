"""Tests, by room of the program; what several of them share is in `helpers`."""
