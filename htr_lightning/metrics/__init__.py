"""Edit counts, calibration and losses over whole sets."""
