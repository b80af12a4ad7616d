"""Convert between characters and label ids."""

from collections import Counter
from collections.abc import Iterable, Sequence

from htr_lightning.errors import InputError, printable


class Codec:
    """A mapping between characters and label ids, in which the special labels come before the alphabet.

    Args:
        alphabet: distinct characters, each a single code point.
        specials: names of labels that are not characters, such as the CTC blank.

    Raises:
        InputError: if the alphabet is empty, or contains duplicates or entries that are not a single code point.
    """

    def __init__(self, alphabet: Iterable[str], specials: Sequence[str] = ()) -> None:
        self.alphabet = list(alphabet)
        self.specials = list(specials)
        if not self.alphabet:
            raise InputError(
                "the alphabet is empty; list its characters in data.alphabet, or set data.alphabet=null to use those "
                "in the training texts"
            )
        for entry in self.alphabet:
            if not isinstance(entry, str):
                raise InputError(f"the alphabet contains {entry!r}, which is not a string; put it in quotes: '{entry}'")
            if len(entry) != 1:
                which = f"{name(entry)}, which is not a single character" if entry else "an empty entry"
                raise InputError(f"the alphabet contains {which}; use one entry per code point")
        if twice := next((c for c, count in Counter(self.alphabet).items() if count > 1), None):
            raise InputError(f"the alphabet contains {name(twice)} more than once; list each character once")
        self._ids = {character: id for id, character in enumerate(self.alphabet, start=len(self.specials))}

    def __len__(self) -> int:
        return len(self.specials) + len(self.alphabet)

    def encode(self, text: str, sample: str = "text") -> list[int]:
        """Return the label ids of a text.

        Raises:
            InputError: if a character is not in the alphabet; the message names `sample` and the character.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise InputError(
                f"{sample}: {name(error.args[0])} is not in the alphabet; add it or set model.unknown=skip"
            ) from None

    def known(self, text: str) -> str:
        """Remove characters that are not in the alphabet from a text."""
        return "".join(character for character in text if character in self._ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text for the given label ids, ignoring special labels."""
        return "".join(self.alphabet[id - len(self.specials)] for id in ids if id >= len(self.specials))


def alphabet_of(texts: Iterable[str]) -> list[str]:
    """Return the distinct characters in the given texts, in code point order."""
    return sorted(set().union(*texts))


def name(character: str) -> str:
    """Return a character in the form used in messages: 'é' (U+00E9), or U+200B if it cannot be printed."""
    codes = " ".join(f"U+{ord(c):04X}" for c in character)
    return f"'{printable(character)}' ({codes})" if character.isprintable() else codes
