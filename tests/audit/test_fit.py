"""How texts fit images: against texts and widths that are known."""

from itertools import product

import numpy as np

from htr_lightning.audit import fit
from htr_lightning.audit.fit import COLUMNS, SHIFT_COST, align, by_size, encode, in_small_group, lengths_of


def texts_and_lengths(count: int = 300) -> tuple[list[str], np.ndarray, dict[str, float]]:
    rng = np.random.default_rng(0)
    widths = {"i": 0.3, "a": 1.0, "m": 1.7, " ": 0.8}
    texts = ["".join(rng.choice(list(widths), size)) for size in rng.integers(5, 40, count)]
    lengths = np.array([sum(widths[c] for c in text) for text in texts])
    return texts, lengths, widths


def test_widths_of_characters_are_found_though_writers_write_wide_and_narrow() -> None:
    texts, lengths, widths = texts_and_lengths()
    groups = [str(index % 10) for index in range(len(texts))]
    hands = np.exp(np.random.default_rng(1).normal(0, 0.3, 10))
    hands /= np.median(hands)
    codes = encode(texts)
    found, residual, common = lengths_of(codes, lengths * hands[[int(group) for group in groups]], groups)
    each = {character: found[codes.texts[0][texts[0].index(character)]] for character in set(texts[0])}
    ratios = [each[character] / widths[character] for character in each]
    assert np.ptp(np.log(ratios)) < 0.15
    assert abs(residual).max() < 0.1
    np.testing.assert_allclose([np.median(common[index::10]) for index in range(10)], np.log(hands), atol=0.15)


def test_a_hand_of_few_lines_has_no_scale_of_its_own() -> None:
    texts, lengths, _ = texts_and_lengths()
    groups = ["many"] * 290 + ["few"] * 4 + [str(index) for index in range(6)]
    lengths[290:294] *= 2
    _, residual, common = lengths_of(encode(texts), lengths, groups)
    assert (residual[290:294] > 0.6).all()
    assert in_small_group(groups).tolist() == [False] * 290 + [True] * 10
    np.testing.assert_array_equal(residual[290:], common[290:])


def test_one_wrong_text_stands_out_and_does_not_move_the_others() -> None:
    texts, lengths, _ = texts_and_lengths()
    texts[7] = texts[7] * 3
    _, residual, _ = lengths_of(encode(texts), lengths, ["one"] * len(texts))
    assert abs(residual[7] + np.log(3)) < 0.1
    assert abs(np.delete(residual, 7)).max() < 0.1


def test_rare_characters_share_a_number() -> None:
    rare = [chr(0x4E00 + number) for number in range(400)]
    codes = encode(["".join(rare), "aaa"])
    assert codes.kinds == fit.CHARACTERS + 1
    assert max(text.max() for text in codes.texts) == fit.CHARACTERS


def test_deviations_are_those_of_lines_of_like_size() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 100, 4000)
    values = rng.normal(5, 1, 4000) / np.sqrt(sizes)
    scores = by_size(values, sizes)
    for low, high in ((10, 20), (80, 90)):
        part = scores[(sizes > low) & (sizes < high)]
        assert abs(part.std() - 1) < 0.2


def brute_force(line: np.ndarray, text: np.ndarray, band: int) -> float:
    """Every path of steps 0, 1 and 2, of profiles of few columns."""
    columns = line.shape[1]
    best = np.inf
    for start, steps in product(range(-2, 3), product((0, 1, 2), repeat=columns)):
        places = start - 1 + np.cumsum(steps)
        bent = sum(step != 1 for step in steps)
        offsets = places - np.arange(columns)
        if abs(offsets).max() > band or abs(offsets[-1]) > 2 or places.min() < 0 or places.max() >= columns:
            continue
        cost = np.square(line - text[:, places]).mean(0).sum() + SHIFT_COST * bent
        best = min(best, cost / columns)
    return best


def test_the_best_alignment_is_that_of_brute_force() -> None:
    lines, texts = np.random.default_rng(0).normal(size=(2, 8, 3, 6)).astype(np.float32)
    for line, text, cost in zip(lines, texts, align(lines, texts, band=3), strict=True):
        np.testing.assert_allclose(cost, brute_force(line, text, band=3), rtol=1e-5)


def test_a_bent_profile_is_nearer_to_its_own_text_than_another() -> None:
    rng = np.random.default_rng(0)
    smooth = np.apply_along_axis(lambda row: np.convolve(row, np.ones(5) / 2, "same"), 2, rng.normal(size=(30, 3, 160)))
    texts = smooth[:, :, 10:138].astype(np.float32)
    bent = np.arange(COLUMNS) + 4 * np.sin(np.arange(COLUMNS) / COLUMNS * 2 * np.pi)
    lines = texts[:, :, bent.round().astype(int).clip(0, COLUMNS - 1)]
    assert (align(lines, texts) < align(lines, np.roll(texts, 1, axis=0))).all()
    np.testing.assert_allclose(align(texts, texts), 0, atol=1e-6)
