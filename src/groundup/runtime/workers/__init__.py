"""The same map over shards: here, in local processes, or on a Ray cluster."""
