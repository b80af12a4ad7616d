"""Readers: sequences of `Sample` with `texts`, `groups` and `sizes` that open no image; no tensors, no models."""
