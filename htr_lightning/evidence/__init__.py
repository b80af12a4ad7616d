"""Evaluate checkpoints and compare runs."""
