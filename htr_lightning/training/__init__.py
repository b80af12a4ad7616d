"""Runs: how they are trained, what they print and what they save."""
