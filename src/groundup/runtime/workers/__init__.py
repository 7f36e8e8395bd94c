"""The same ordered map over shards: in this process, in local processes, or on a Ray cluster."""
