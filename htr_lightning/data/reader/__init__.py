"""Read data sets as sequences of `Sample`, with ids, texts, groups and sizes available without decoding any images."""
