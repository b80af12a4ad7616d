"""Find faults in a data set before training on it."""
