"""Read and write pages and their lines: PAGE, ALTO and METS files."""
