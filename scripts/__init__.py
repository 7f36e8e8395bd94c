"""What the Makefile calls: pages made from code, and releases."""
