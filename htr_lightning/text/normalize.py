"""Normalise texts before training and comparison."""

import unicodedata
from dataclasses import dataclass, field

from htr_lightning.errors import InputError

PASSES = 100  # maximum number of replacement passes beyond one per character, and maximum growth factor of a text


@dataclass(frozen=True)
class Normalizer:
    """A text normalizer, applied to references before training, and to references and hypotheses before comparison.

    Args:
        form: name of a Unicode normal form ("NFC", "NFD", "NFKC" or "NFKD"), or "" for none.
        collapse_spaces: whether to replace each run of whitespace with one space and strip leading and trailing spaces.
        replace: mapping from strings to their replacements, e.g. from typographic to straight quotes. Strings are
            matched after Unicode normalisation. Replacements are repeated until the text no longer changes, so
            normalisation is idempotent.
    """

    form: str = "NFC"
    collapse_spaces: bool = True
    replace: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.form not in ("", "NFC", "NFD", "NFKC", "NFKD"):
            raise InputError(f"normalizer.form={self.form}: use NFC, NFD, NFKC, NFKD or an empty string")
        if "" in self.replace:
            raise InputError("normalizer.replace: cannot replace the empty string ''; remove this entry")
        if grows := next((old for old, new in self.replace.items() if self._to_form(old) in self._to_form(new)), None):
            raise InputError(f"normalizer.replace: '{grows}' occurs in its own replacement; change one of them")

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
            f"normalizer.replace: replacements never end for '{text[:20]}'; remove replacements that undo each other"
        )

    def _once(self, text: str) -> str:
        text = self._to_form(text)
        for old, new in self.replace.items():
            text = text.replace(self._to_form(old), new)
        text = self._to_form(text)
        return " ".join(text.split()) if self.collapse_spaces else text

    def _to_form(self, text: str) -> str:
        return unicodedata.normalize(self.form, text) if self.form else text  # type: ignore[arg-type]
