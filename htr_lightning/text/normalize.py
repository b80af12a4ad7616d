"""What counts as the same text."""

import unicodedata
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Normalizer:
    """Brings references and hypotheses into one form before they are compared or learned.

    Args:
        form: Unicode normalisation form: NFC, NFD, NFKC, NFKD, or "" for none.
        collapse_spaces: runs of white space become one space, none at the ends.
        replace: strings to replace, such as typographic by straight quotes, before all else.
    """

    form: str = "NFC"
    collapse_spaces: bool = True
    replace: dict[str, str] = field(default_factory=dict)

    def __call__(self, text: str) -> str:
        for old, new in self.replace.items():
            text = text.replace(old, new)
        if self.form:
            text = unicodedata.normalize(self.form, text)  # type: ignore[arg-type]
        return " ".join(text.split()) if self.collapse_spaces else text
