"""Recognizers: a network together with all it needs to turn an image into text."""
