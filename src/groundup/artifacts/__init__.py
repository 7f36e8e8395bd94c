"""What stages hand to each other on disk, each with its one reader."""
