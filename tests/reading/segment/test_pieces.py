"""Pieces of writing become lines: they are joined along a line, but not across lines or columns."""

import time

import cv2
import numpy as np
import pytest
from numpy import ndarray

from htr_lightning.reading.segment.detect import rows_of_ink
from htr_lightning.reading.segment.join import join, main_angle, reading_order
from htr_lightning.reading.segment.pieces import Piece, find_pieces

T = 10  # thickness of a line


def drawn(*segments: tuple[float, float, float, float]) -> ndarray:
    writing = np.zeros((640, 960), np.uint8)
    for x0, y0, x1, y1 in segments:
        cv2.line(writing, (round(x0), round(y0)), (round(x1), round(y1)), 1, T)
    return writing.astype(np.float32)


def lines_of(*segments: tuple[float, float, float, float]) -> list[Piece]:
    writing = drawn(*segments)
    return join(find_pieces(writing), writing)


@pytest.mark.parametrize("slope", [-0.3, 0.0, 0.1])
def test_pieces_of_a_line_are_joined(slope: float) -> None:
    segments = [(x, 300 + slope * x, x + 180, 300 + slope * (x + 180)) for x in (60, 270, 480)]
    (line,) = lines_of(*segments)
    assert line.thickness == pytest.approx(T, abs=2)
    assert np.allclose(line.middle[[0, -1], 0], (60, 660), atol=T)
    assert np.abs(line.middle[:, 1] - (300 + slope * line.middle[:, 0])).max() < 3
    assert np.abs(line.bottom[:, 1] - line.middle[:, 1] - T / 2).max() < 2


def test_pieces_of_neighbouring_lines_and_columns_are_not_joined() -> None:
    assert len(lines_of((60, 100, 400, 100), (420, 115, 800, 115))) == 2  # half a line below
    assert len(lines_of((60, 100, 400, 100), (400 + 6 * T, 100, 800, 100))) == 2  # a gutter
    assert len(lines_of((60, 100, 400, 100), (420, 100, 460, 260))) == 2  # another direction


def test_lines_that_touch_are_split() -> None:
    segments = [(60, y, 800, y) for y in (100, 200, 224, 300, 400)]
    writing = drawn(*segments)
    writing[200:224, 500:520] = 0.45  # a descender that reaches the next line
    assert len(join(find_pieces(writing), writing)) == 5


def test_lines_that_meet_at_a_gutter_are_split_but_not_a_title() -> None:
    apart = [(x, y, x + 340, y) for y in range(100, 220, 30) for x in (60, 440)]
    segments = [(60, 50, 780, 50), *apart, *((60, y, 780, y) for y in range(220, 400, 30))]
    writing = drawn(*segments)
    writing[215:400, 402:438] *= 0.6  # the columns are hardly apart
    lines = join(find_pieces(writing), writing)
    assert len(lines) == 1 + 8 + 12
    assert sum(line.length > 500 for line in lines) == 1
    order = [index for group in reading_order(lines) for index in group]
    left = [lines[index].middle[0, 0] < 300 for index in order]
    assert left == [True] * 11 + [False] * 10


def test_a_piece_too_short_for_a_direction_gets_that_of_its_neighbours() -> None:
    lines = lines_of((100, 100, 800, 200), (100, 160, 800, 260), (60, 88, 60, 100))
    short = min(lines, key=lambda line: line.length)
    assert main_angle([short]) == main_angle(lines) or main_angle(lines) == pytest.approx(8.1, abs=0.5)
    assert np.degrees(np.arctan2(*short.step[::-1])) == pytest.approx(8.1, abs=1)


def test_lines_cut_off_by_the_side_of_the_picture_are_left_out() -> None:
    whole = [(200, y, 900, y) for y in range(100, 500, 40)]
    cut = [(0, y, 60, y) for y in range(100, 500, 40)]
    assert len(lines_of(*whole, *cut)) == len(whole)
    assert len(lines_of(*[(0, y, 959, y) for y in range(100, 500, 40)])) == 10  # not all of the writing


@pytest.mark.parametrize("angle", [-120, -80, -30, 0, 15])
def test_the_main_direction_is_that_of_most_of_the_writing(angle: float) -> None:
    x, y = 150 * np.cos(np.radians(angle)), 150 * np.sin(np.radians(angle))
    segments = [(a - x, 320 - y, a + x, 320 + y) for a in (200, 480, 760)]
    assert main_angle(find_pieces(drawn(*segments[:1]))) == pytest.approx(angle, abs=1)


def test_an_upper_line_comes_first_even_on_sloping_lines() -> None:
    segments = [(60, 100 + 30 * n + 60, 800, 100 + 30 * n) for n in range(8)]
    lines = lines_of(*segments)
    (group,) = reading_order(lines)
    starts = [lines[index].middle[0, 1] for index in group]
    assert starts == sorted(starts)


def test_no_number_of_pieces_takes_long() -> None:
    rng = np.random.default_rng(0)
    writing = (rng.random((960, 960)) > 0.7).astype(np.float32)
    begun = time.process_time()
    lines = join(find_pieces(writing), writing)
    assert sorted(index for group in reading_order(lines) for index in group) == list(range(len(lines)))
    many = [Piece(np.array([(x, y), (x + 20.0, y)]), np.array([(x, y + 5.0), (x + 20.0, y + 5)]), 5.0)
            for x, y in rng.uniform(0, 900, (600, 2))]  # fmt: skip
    assert sorted(index for group in reading_order(many) for index in group) == list(range(600))
    assert time.process_time() - begun < 20
    nothing = np.zeros((64, 64), np.float32)
    assert join(find_pieces(nothing), nothing) == reading_order([]) == []


def test_rows_of_ink_show_lines_without_a_detector() -> None:
    rng = np.random.default_rng(0)
    page = np.full((960, 704), 235, np.uint8)
    rows = range(100, 900, 40)
    for y in rows:  # letters with ascenders and descenders
        for x in range(60, 640, 14):
            up, down = (rng.choice((8, 18), p=(0.7, 0.3)), rng.choice((0, 10), p=(0.8, 0.2)))
            cv2.line(page, (x, int(y - up)), (x, int(y + down)), 40, 3)
            cv2.line(page, (x, y), (x + 8, y - 8), 40, 2)
    lines = join(find_pieces(writing := rows_of_ink(page)), writing)
    assert len(lines) == len(rows)
    for line, y in zip(sorted(lines, key=lambda line: line.middle[0, 1]), rows, strict=True):
        assert abs(line.bottom[:, 1].mean() - y) < 12
