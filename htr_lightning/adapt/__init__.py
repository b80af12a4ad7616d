"""A better recognizer from a trained one."""
