"""Decode frame or step probabilities into label sequences."""
