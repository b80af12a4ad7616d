"""PAGE, ALTO and METS files."""
