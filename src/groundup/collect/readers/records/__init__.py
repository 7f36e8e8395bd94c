"""Rows of tables and databases: JSON, CSV, YAML, Parquet, Arrow, SQL, SQLite."""
