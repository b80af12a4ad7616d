"""Read pages and their lines from PAGE, ALTO and METS files, and write PAGE files."""
