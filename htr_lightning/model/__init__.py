"""Recognizers: networks with everything needed to turn an image into text."""
