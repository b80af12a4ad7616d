"""The exception raised for errors that the user can fix."""


class InputError(Exception):
    """An error that the user can fix, with a one-line message that names the cause and the remedy.

    Command-line programs print the message and exit with code 1.
    """


def check_integer(key: str, value: object, minimum: int, maximum: int = 10**9) -> None:
    """Raise InputError if the value of a key is not an integer in the given range.

    Args:
        key: name of the key, used in the message.
        value: value to check.
        minimum: smallest allowed value.
        maximum: largest allowed value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        limit = f"at least {minimum}" if maximum == 10**9 else f"from {minimum} to {maximum}"
        raise InputError(f"{key}={value}: expected an integer {limit}")
