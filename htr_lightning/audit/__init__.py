"""Find the faults in a data set before training on it."""
