"""What a recipe says: TOML tables as frozen, validated settings."""
