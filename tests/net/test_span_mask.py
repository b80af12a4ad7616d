"""Spans of columns are masked at the defined rate, only in training and never in padding."""

import pytest
import torch

from htr_lightning.net.span_mask import SpanMask


def masked(length: int, frames: int, ratio: float, span: int, draws: int) -> torch.Tensor:
    """Return which columns of `draws` lines are zero."""
    torch.manual_seed(0)
    x = torch.ones(draws, frames, 3)
    out = SpanMask(ratio, span).train()(x, torch.full((draws,), length))
    assert ((out == 0) | (out == 1)).all()
    assert (out == out[:, :, :1]).all()  # columns are masked completely
    return out[:, :, 0] == 0


@pytest.mark.parametrize(("length", "ratio", "span"), [(100, 0.4, 8), (61, 0.7, 5), (24, 0.4, 8), (9, 0.95, 8)])
def test_a_column_is_masked_as_often_as_spans_fall_on_it(length: int, ratio: float, span: int) -> None:
    spans, places = int(ratio * length / span), length - span + 1
    over = torch.tensor([sum(start <= column < start + span for start in range(places)) for column in range(length)])
    expected = 1 - (1 - over / places) ** spans
    draws = 20_000
    found = masked(length, length, ratio, span, draws).float().mean(0)
    assert spans >= 1
    assert (found - expected).abs().max() < 5 * 0.5 / draws**0.5


def test_masked_columns_form_spans() -> None:
    for row in masked(length=100, frames=100, ratio=0.4, span=8, draws=500).long():
        edges = torch.diff(row, prepend=torch.zeros(1).long(), append=torch.zeros(1).long()).nonzero().flatten()
        assert ((edges[1::2] - edges[::2]) >= 8).all()
        assert 8 <= int(row.sum()) <= 40


def test_padding_is_never_touched_and_a_line_shorter_than_a_span_neither() -> None:
    x, lengths = torch.ones(200, 60, 2), torch.tensor([60, 31, 20, 7] * 50)
    out = SpanMask(0.9, 8).train()(x, lengths)
    for row, length in zip(out, lengths.tolist(), strict=True):
        assert (row[length:] == 1).all()
        assert bool((row[:length] == 0).any()) == (length > 8)


def test_every_line_has_spans_of_its_own() -> None:
    assert len(masked(length=100, frames=100, ratio=0.4, span=8, draws=50).unique(dim=0)) > 45


def test_nothing_is_masked_in_evaluation_or_at_ratio_zero() -> None:
    x, lengths = torch.rand(4, 50, 3), torch.full((4,), 50)
    assert SpanMask(0.4, 8).eval()(x, lengths) is x
    assert SpanMask(0.0, 8).train()(x, lengths) is x
