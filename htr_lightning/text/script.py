"""Name the scripts of an alphabet."""

import unicodedata
from collections import Counter
from collections.abc import Iterable

CODES = {
    "Arabic": "Arab", "Armenian": "Armn", "Bengali": "Beng", "Cyrillic": "Cyrl", "Devanagari": "Deva",
    "Ethiopic": "Ethi", "Georgian": "Geor", "Greek": "Grek", "Gujarati": "Gujr", "Gurmukhi": "Guru",
    "Han": "Hani", "Hangul": "Hang", "Hebrew": "Hebr", "Hiragana": "Hira", "Katakana": "Kana", "Khmer": "Khmr",
    "Latin": "Latn", "Mongolian": "Mong", "Myanmar": "Mymr", "Syriac": "Syrc", "Tamil": "Taml", "Telugu": "Telu",
    "Thai": "Thai", "Tibetan": "Tibt",
}  # fmt: skip  # of ISO 15924
MIN_FRACTION = 0.05  # of the letters of an alphabet; a few foreign letters are no script that it can read


def scripts(alphabet: Iterable[str]) -> list[str]:
    """Return the scripts of an alphabet, a key of `CODES` each, the one with most letters first.

    >>> scripts("abcß")
    ['Latin']
    >>> scripts("0123")
    []
    """
    found = Counter(map(_script, (letter for letter in alphabet if len(letter) == 1 and letter.isalpha())))
    return [name for name, count in found.most_common() if name in CODES and count >= MIN_FRACTION * found.total()]


def _script(letter: str) -> str:
    first = unicodedata.name(letter, "?").partition(" ")[0].capitalize()
    return "Han" if first == "Cjk" else first
