"""Drawn handwriting."""
