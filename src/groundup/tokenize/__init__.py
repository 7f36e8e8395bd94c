"""Kept documents → a byte-level BPE tokenizer and memory-mapped token shards."""
