"""A web page and an HTTP API for transcription and correction. Does not import torch unless a checkpoint is served."""
