"""Compute edit counts, calibration errors and mean losses over whole data sets."""
