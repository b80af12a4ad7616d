"""The one kind of error a user can mend: a line that names the file or sample, the value and the remedy."""


class InputError(Exception):
    """What was given cannot be used. The message is one line and says what to do; programs exit with 1."""
