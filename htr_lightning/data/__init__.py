"""Samples, pages, readers and batches. Does not depend on any model."""
