"""Alter references as careless transcribers do, to measure how many label errors are found."""

import random
from collections.abc import Callable, Sequence

SWAPPED, WORD, DROPPED, CHARACTERS = "neighbouring lines swapped", "word of another line", "word dropped", "characters"
SUBSTITUTIONS = (2, 4)  # smallest and largest number of characters replaced in a line


def plant(texts: Sequence[str], groups: Sequence[str], fraction: float, seed: int) -> dict[int, tuple[str, str]]:
    """Alter a fraction of references: each of four kinds in a quarter of them.

    Args:
        texts: references, in reading order.
        groups: page or writer of each line; only neighbours in the same group are swapped.
        fraction: fraction of the lines to alter.
        seed: random seed.

    Returns:
        The kind of error and the new text of each altered line, by its index.
    """
    draw = random.Random(seed)
    wanted = round(fraction * len(texts))
    letters = [letter for text in texts for letter in text if letter != " "]  # as frequent as in the texts
    kinds: dict[str, Callable[[int], dict[int, str]]] = {
        SWAPPED: lambda index: _swap(index, texts, groups),
        WORD: lambda index: {index: _other_word(draw, texts, index)},
        DROPPED: lambda index: {index: _without_word(draw, texts[index])},
        CHARACTERS: lambda index: {index: _substituted(draw, texts[index], letters)},
    }
    order = draw.sample(range(len(texts)), len(texts))
    found: dict[int, tuple[str, str]] = {}
    for number, (kind, alter) in enumerate(kinds.items(), start=1):
        for index in order:
            if len(found) >= wanted * number // len(kinds):
                break
            altered = alter(index) if index not in found else {}
            if altered and not altered.keys() & found and all(texts[i] != new for i, new in altered.items()):
                found |= {i: (kind, new) for i, new in altered.items()}
    return found


def _swap(index: int, texts: Sequence[str], groups: Sequence[str]) -> dict[int, str]:
    if index + 1 == len(texts) or groups[index] != groups[index + 1]:
        return {}
    return {index: texts[index + 1], index + 1: texts[index]}


def _other_word(draw: random.Random, texts: Sequence[str], index: int) -> str:
    words, others = texts[index].split(" "), draw.choice(texts).split(" ")
    words[draw.randrange(len(words))] = draw.choice(others)
    return " ".join(words)


def _without_word(draw: random.Random, text: str) -> str:
    words = text.split(" ")
    if len(words) > 1:  # a line keeps at least one word
        del words[draw.randrange(len(words))]
    return " ".join(words)


def _substituted(draw: random.Random, text: str, letters: Sequence[str]) -> str:
    places = [place for place, character in enumerate(text) if character != " "]
    characters = list(text)
    if len(set(letters)) < 2:
        return text
    for place in draw.sample(places, min(draw.randint(*SUBSTITUTIONS), len(places))):
        while characters[place] == text[place]:
            characters[place] = draw.choice(letters)
    return "".join(characters)
