"""Office files and PDF as prose."""
