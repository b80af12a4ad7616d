"""The one error that a user can fix."""


class InputError(Exception):
    """Unusable input: one line with the file, sample or key, its value and the remedy. Programs exit with 1."""
