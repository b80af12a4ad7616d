"""What counts as the same text."""

import unicodedata
from dataclasses import dataclass, field

from htr_lightning.errors import InputError

PASSES = 100  # of replacements over a text, more than its characters; and times as long as it was


@dataclass(frozen=True)
class Normalizer:
    """Brings references and hypotheses into one form before they are compared or learned.

    Args:
        form: Unicode normalisation form: NFC, NFD, NFKC, NFKD, or "" for none.
        collapse_spaces: runs of white space become one space, none at the ends.
        replace: strings to replace, such as typographic by straight quotes; composed and decomposed alike, and until
            none is left: what was normalised stays as it is.
    """

    form: str = "NFC"
    collapse_spaces: bool = True
    replace: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.form not in ("", "NFC", "NFD", "NFKC", "NFKD"):
            raise InputError(f"normalizer.form={self.form}: use NFC, NFD, NFKC, NFKD or an empty string")
        if "" in self.replace:
            raise InputError("normalizer.replace: '' stands between any two characters; name the text to replace")
        if grows := next((old for old, new in self.replace.items() if self._formed(old) in self._formed(new)), None):
            raise InputError(f"normalizer.replace: '{grows}' stands in what replaces it and would be replaced again")

    def __call__(self, text: str) -> str:
        found = self._once(text)
        if not self.replace:
            return found
        for _ in range(len(text) + PASSES):
            before, found = found, self._once(found)
            if found == before:
                return found
            if len(found) > PASSES * (len(text) + 1):
                break
        raise InputError(
            f"normalizer.replace: never comes to an end on '{text[:20]}'; leave out what brings itself back"
        )

    def _once(self, text: str) -> str:
        text = self._formed(text)
        for old, new in self.replace.items():
            text = text.replace(self._formed(old), new)
        text = self._formed(text)
        return " ".join(text.split()) if self.collapse_spaces else text

    def _formed(self, text: str) -> str:
        return unicodedata.normalize(self.form, text) if self.form else text  # type: ignore[arg-type]
