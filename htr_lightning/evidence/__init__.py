"""What a recognizer reads right and wrong, and runs compared."""
