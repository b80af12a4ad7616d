"""Metrics whose states are integer counts."""
