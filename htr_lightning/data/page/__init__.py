"""Pages and their lines: PAGE, ALTO and METS files."""
