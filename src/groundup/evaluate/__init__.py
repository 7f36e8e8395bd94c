"""Best checkpoint → figures: loss and bits per byte against counting models, benchmarks, passages,
samples, speed.
"""
