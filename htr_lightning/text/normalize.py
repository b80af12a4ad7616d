"""Normalise texts before training and comparison."""

import unicodedata
from dataclasses import dataclass, field

import regex

from htr_lightning.errors import InputError

_INK = r"\P{Default_Ignorable_Code_Point}"
_JOINED = (  # letters and emoji whose shape depends on a joiner next to them
    rf"[[[\p{{L}}\p{{M}}]&&[\P{{InSC=Other}}\p{{jt=D}}\p{{jt=R}}\p{{jt=L}}]&&{_INK}]"
    r"||\p{Extended_Pictographic}||\p{Emoji_Modifier}]"
)
_VARIED = r"[\p{Han}||\p{Mongolian}||\p{Myanmar}||\p{Phags_Pa}||\p{Extended_Pictographic}]"  # by a variation selector
_HANGUL = rf"[\p{{Hangul}}&&{_INK}]"  # syllables that a filler completes
_SHAPING = (
    rf"(?<={_JOINED}[\p{{M}}&&{_INK}]*)\p{{Join_Control}}|\p{{Join_Control}}(?={_JOINED})"
    rf"|(?<=[{_VARIED}&&{_INK}])[\p{{Variation_Selector}}\u180e]"
    rf"|(?<={_HANGUL})[\u115f\u1160]|[\u115f\u1160](?={_HANGUL})"
)
# Characters without ink: default ignorable code points (UAX #44) that shape no other character, and annotation anchors
INVISIBLE = regex.compile(rf"(?!{_SHAPING})[\p{{Default_Ignorable_Code_Point}}\ufff9-\ufffb]", regex.V1)
SPACES = regex.compile(r"[\p{Z}--[ \u1680\u3000]]", regex.V1)  # not told apart from a space in an image
END_HYPHEN = regex.compile(r"(?<!\p{Pd})\u00ad(?=\s*$)")  # a soft hyphen is visible at the end of a line

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
        remove_invisible: whether to remove characters without ink, such as zero-width spaces, direction marks and soft
            hyphens, which a recognizer cannot see; a soft hyphen at the end of a line becomes a hyphen. Joiners and
            variation selectors are kept where they change the shape of a character, as in Persian, Indic scripts and
            Chinese.
    """

    form: str = "NFC"
    collapse_spaces: bool = True
    replace: dict[str, str] = field(default_factory=dict)
    remove_invisible: bool = False

    def __post_init__(self) -> None:
        if self.form not in ("", "NFC", "NFD", "NFKC", "NFKD"):
            raise InputError(f"model.normalizer.form={self.form}: use NFC, NFD, NFKC, NFKD or an empty string")
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
        if self.remove_invisible:
            text = self._to_form(INVISIBLE.sub("", END_HYPHEN.sub("-", text)))
        for old, new in self.replace.items():
            text = text.replace(self._to_form(old), new)
        text = self._to_form(text)
        return " ".join(text.split()) if self.collapse_spaces else text

    def _to_form(self, text: str) -> str:
        return unicodedata.normalize(self.form, text) if self.form else text  # type: ignore[arg-type]
