"""Documents in plain-text markup, and notebooks, as prose."""
