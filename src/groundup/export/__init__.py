"""A model of the run → what other programs load, published only after it agrees with the model."""
