"""Encode, normalise, reorder and align text. Does not import NumPy or torch."""
