"""Text without images: label codes, normalisation, alignment. Standard library only."""
