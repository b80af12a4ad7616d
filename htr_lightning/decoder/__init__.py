"""Decoders: from frame or step probabilities to label sequences."""
