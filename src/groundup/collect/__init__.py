"""Raw files in any format → documents by shard. Reads raw files; writes `collect/documents` and
`collect/dropped`.
"""
