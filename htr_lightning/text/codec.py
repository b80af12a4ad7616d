"""The codec between characters and label ids."""

from collections.abc import Iterable, Sequence

from htr_lightning.errors import InputError


class Codec:
    """A mapping between characters and label ids: special labels first, then the alphabet in order.

    Args:
        alphabet: distinct characters; a character is one code point.
        specials: names of labels that are not characters, such as the CTC blank.

    Raises:
        InputError: the alphabet is empty, repeats a character, or has an entry that is not a single code point.
    """

    def __init__(self, alphabet: Iterable[str], specials: Sequence[str] = ()) -> None:
        self.alphabet = list(alphabet)
        self.specials = list(specials)
        if not self.alphabet:
            raise InputError("the alphabet is empty; list its characters, or use null for those of the training texts")
        for entry in self.alphabet:
            if not isinstance(entry, str):
                raise InputError(f"the alphabet contains {entry!r}, which is not a string; quote it, as in '{entry}'")
            if len(entry) != 1:
                which = f"{name(entry)}, {len(entry)} characters" if entry else "an empty entry"
                raise InputError(f"the alphabet contains {which}; give every code point its own entry")
        if len(set(self.alphabet)) < len(self.alphabet):
            twice = next(c for c in self.alphabet if self.alphabet.count(c) > 1)
            raise InputError(f"the alphabet contains {name(twice)} twice; list each character once")
        self._ids = {character: id for id, character in enumerate(self.alphabet, start=len(self.specials))}

    def __len__(self) -> int:
        return len(self.specials) + len(self.alphabet)

    def encode(self, text: str, sample: str = "text") -> list[int]:
        """Label ids of a text.

        Raises:
            InputError: a character is not in the alphabet; the message names `sample` and the character.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise InputError(
                f"{sample}: {name(error.args[0])} is not in the alphabet; add it or set model.unknown=skip"
            ) from None

    def known(self, text: str) -> str:
        """The text without characters that are not in the alphabet."""
        return "".join(character for character in text if character in self._ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of label ids; special labels are dropped."""
        return "".join(self.alphabet[id - len(self.specials)] for id in ids if id >= len(self.specials))


def alphabet_of(texts: Iterable[str]) -> list[str]:
    """The distinct characters of texts in code point order."""
    return sorted(set().union(*texts))


def name(character: str) -> str:
    """A character as shown in error messages: 'é' (U+00E9)."""
    return f"'{character}' ({' '.join(f'U+{ord(c):04X}' for c in character)})"
