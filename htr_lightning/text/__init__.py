"""Text without images: label codes, normalisation, direction. Plain Python."""
