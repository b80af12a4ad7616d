"""Train recognizers with Lightning: callbacks, console output, loggers, fine-tuning and sweeps."""
