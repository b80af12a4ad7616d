"""Networks in plain PyTorch, independent of Lightning and of text, so that they can be exported."""
