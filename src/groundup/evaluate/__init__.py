"""Best checkpoint → loss, bits per byte, benchmarks, next-passage accuracy, samples and speed."""
