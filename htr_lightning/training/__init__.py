"""Runs, and what they show and keep."""
