"""Transcription of images and pages."""
