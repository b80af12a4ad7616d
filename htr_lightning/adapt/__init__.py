"""Improve trained recognizers: calibrate confidences, tune decoders and pseudo-label lines for self-training."""
