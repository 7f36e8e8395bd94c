"""Collected documents → clean, filtered, deduplicated and split ones. Reads `collect`; writes
`refine`.
"""
