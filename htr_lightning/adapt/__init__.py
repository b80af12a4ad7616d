"""Improve trained recognizers: calibrate, tune decoders, pseudo-label, adapt to a writer, learn from corrections."""
