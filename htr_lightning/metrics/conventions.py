"""Error rates by other conventions than those of `edits`, for comparison with the literature."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

import editdistance

MARKS = r"""[]{}/()"'&+*=<>?.;:,!-—_€#%°"""  # separated from words by VAN and HTR-VT; the backslash is not
SEPARATE = re.compile(f"([{re.escape(MARKS)}])")
NLTK = [  # replacements of NLTK's word tokenizer, in its order
    (r"([«“‘„]|`+)", r" \1 "),
    (r'^"', "``"),
    (r"(``)", r" \1 "),
    (r"""([ (\[{<])("|'')""", r"\1 `` "),
    (r"(?i)(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", "' "),
    (r"""([^.])(\.)([\])}>"'»”’ ]*+)\s*$""", r"\1 \2 \3 "),
    (r"([:,])([^\d])", r" \1 \2"),
    (r"([:,])$", r" \1 "),
    (r"\.{2,}|[;@#$%&\u2012-\u2015?!]", r" \g<0> "),
    (r"([^'])' ", r"\1 ' "),
    (r"[*\]\[(){}<>]", r" \g<0> "),
    (r"--", " -- "),
    (r"^|$", " "),
    (r"[»”’]", r" \g<0> "),
    (r"""''|\"""", " '' "),
    (r"\s+", " "),
    (r"([^' ])('[sSmMdD]|') ", r"\1 \2 "),
    (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 "),
    (r"(?i)\b(?:cannot|d'ye|gimme|gonna|gotta|lemme|more'n|wanna(?=\s))\b", r" \g<0> "),
    (r"(?i)(?<=\bcan)(?=not\b)|(?<=\bd)(?='ye\b)|(?<=\bgim)(?=me\b)|(?<=\bgon)(?=na\b)|(?<=\bgot)(?=ta\b)"
     r"|(?<=\blem)(?=me\b)|(?<=\bmore)(?='n\b)|(?<=\bwan)(?=na\s)", " "),
    (r"(?i) ('t)(is)\b", r" \1 \2 "),
    (r"(?i) ('t)(was)\b", r" \1 \2 "),
]  # fmt: skip
NLTK_RULES = [(re.compile(pattern), replacement) for pattern, replacement in NLTK]


class Convention(NamedTuple):
    """An error rate: what it is, and a function of the references and hypotheses of all lines."""

    definition: str
    rate: Callable[[Sequence[str], Sequence[str]], float]


def marks_split(text: str) -> list[str]:
    """Split a text into words and punctuation marks, as VAN and HTR-VT do before they compute the WER.

    An empty text is one empty word, as in their code (Coquenet et al., 2022, "End-to-end handwritten paragraph text
    recognition using a vertical attention network"; Li et al., 2025, "HTR-VT").
    """
    return re.sub(r"[ \n]+", " ", SEPARATE.sub(r" \1 ", text)).strip().split(" ")


def nltk_words(text: str) -> list[str]:
    """Split a line into words by the rules of NLTK's `word_tokenize(line, preserve_line=True)` for English.

    These are the Penn Treebank's rules (quotes, clitics and punctuation marks are words; a period only at the end of
    the line) with NLTK's additions, as of NLTK 3.10. Without `preserve_line`, NLTK first looks for sentences with a
    trained model, and also splits the last period of a sentence that ends within a line.
    """
    for pattern, replacement in NLTK_RULES:
        text = pattern.sub(replacement, text)
    return text.split()


def fold_accents(text: str) -> str:
    """Remove all combining marks after canonical decomposition, so that é becomes e."""
    bare = "".join(one for one in unicodedata.normalize("NFD", text) if unicodedata.category(one) != "Mn")
    return unicodedata.normalize("NFC", bare)


def _over(split: Callable[[str], Sequence[str]]) -> Callable[[Sequence[str], Sequence[str]], float]:
    """Return a micro average: edits divided by reference units, both summed over all lines."""

    def rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
        pairs = [(split(r), split(h)) for r, h in zip(references, hypotheses, strict=True)]
        return sum(editdistance.eval(r, h) for r, h in pairs) / max(1, sum(len(r) for r, _ in pairs))

    return rate


def _mean_over_lines(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    rates = [editdistance.eval(r, h) / max(1, len(r)) for r, h in zip(references, hypotheses, strict=True)]
    return sum(rates) / max(1, len(rates))


CONVENTIONS = {
    "cer_line_mean": Convention("mean of the CERs of the lines", _mean_over_lines),
    "cer_no_spaces": Convention("CER after all whitespace is removed", _over(lambda text: "".join(text.split()))),
    "cer_case_folded": Convention("CER after Unicode case folding", _over(str.casefold)),
    "cer_accent_folded": Convention("CER after combining marks are removed (NFD, category Mn)", _over(fold_accents)),
    "wer_case_folded": Convention("WER after Unicode case folding", _over(lambda text: text.casefold().split())),
    "wer_accent_folded": Convention(
        "WER after combining marks are removed (NFD, category Mn)", _over(lambda text: fold_accents(text).split())
    ),
    "wer_marks_split": Convention(
        f"WER in which each of the marks {MARKS} is a word of its own, as in VAN and HTR-VT", _over(marks_split)
    ),
    "wer_nltk": Convention(
        "WER over the words of NLTK's word_tokenize(line, preserve_line=True) for English", _over(nltk_words)
    ),
}


def by_convention(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float]:
    """Return the error rate of lines by each of the `CONVENTIONS`, comparing `references[i]` with `hypotheses[i]`."""
    return {name: one.rate(references, hypotheses) for name, one in CONVENTIONS.items()}
