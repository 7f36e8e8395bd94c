"""What generates tokens from a model."""
