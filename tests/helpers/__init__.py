"""What several tests share: small runs, raw files, servers and faults."""
