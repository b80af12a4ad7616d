"""Networks in plain PyTorch, independent of Lightning and of text processing, so that they can be exported."""
