"""Draw synthetic handwriting."""
