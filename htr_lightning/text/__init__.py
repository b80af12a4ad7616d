"""Text without images: label codes, normalisation, alignment. Plain Python."""
