"""What counts as the same text."""

import unicodedata
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Normalizer:
    """Brings references and hypotheses into one form before they are compared or learned.

    Args:
        form: Unicode normalisation form: NFC, NFD, NFKC, NFKD, or "" for none.
        collapse_spaces: runs of white space become one space, none at the ends.
        replace: strings to replace, such as typographic by straight quotes; composed and decomposed alike.
    """

    form: str = "NFC"
    collapse_spaces: bool = True
    replace: dict[str, str] = field(default_factory=dict)

    def __call__(self, text: str) -> str:
        text = self._formed(text)
        if self.replace:
            for old, new in self.replace.items():
                text = text.replace(self._formed(old), new)
            text = self._formed(text)
        return " ".join(text.split()) if self.collapse_spaces else text

    def _formed(self, text: str) -> str:
        return unicodedata.normalize(self.form, text) if self.form else text  # type: ignore[arg-type]
