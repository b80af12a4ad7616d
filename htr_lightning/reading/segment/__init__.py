"""Find the lines on images of pages."""
