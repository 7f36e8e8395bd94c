"""Exact and near-duplicate detection with MinHash LSH."""
