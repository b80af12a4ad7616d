"""The exception raised for errors that the user can fix."""


class InputError(Exception):
    """An error that the user can fix, with a one-line message that names the cause and the remedy.

    Command-line programs print the message and exit with code 1.
    """
