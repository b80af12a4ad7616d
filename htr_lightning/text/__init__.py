"""Text: label codes, normalisation, direction, alignment. Standard library only."""
