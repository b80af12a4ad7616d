"""Samples, documents, readers and the batches made of them; knows no model."""
