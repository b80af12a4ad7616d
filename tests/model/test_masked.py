"""Masked columns are filled in from what is seen alone, and the loss is that of them alone."""

from functools import partial

import pytest
import torch

from htr_lightning.data.batch import Batch
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.errors import InputError
from htr_lightning.model.masked import MaskedColumns, frame_pixels
from htr_lightning.net.backbone import PlainBackbone, ResidualBackbone
from htr_lightning.net.crnn import CRNN
from htr_lightning.net.vit import ViT
from htr_lightning.text.normalize import Normalizer

HEIGHT = 16


def backbone() -> ResidualBackbone:
    return ResidualBackbone([8, 8], [1, 1], [[1, 1], [2, 2]], stem=8)


NETS = {
    "crnn": lambda classes: CRNN(classes, backbone(), hidden=8, layers=1, shortcut=False),
    "plain": lambda classes: CRNN(
        classes, PlainBackbone(HEIGHT, [8, 8], [[2, 2], [2, 1]]), hidden=8, layers=1, shortcut=False
    ),
    "vit": lambda classes: ViT(classes, backbone(), width=16, depth=1, heads=2, mask_ratio=0.0, shortcut=False),
}


def make(net: str = "crnn", **others: float) -> MaskedColumns:
    torch.manual_seed(0)
    return MaskedColumns(NETS[net], normalizer=Normalizer(), preprocess=FitHeight(HEIGHT), **others).eval()


def batch(*widths: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(len(widths), 1, HEIGHT, max(widths))
    for image, width in zip(images, widths, strict=True):
        image[..., :width] = torch.rand(1, HEIGHT, width, generator=generator)
    ids = [f"set/{width}" for width in widths]
    return Batch(ids, images, torch.tensor(widths), [""] * len(widths), ids)


@pytest.mark.parametrize("net", sorted(NETS))
def test_pixels_under_the_mask_change_the_target_and_not_the_prediction(net: str) -> None:
    model, lines = make(net), batch(101, 60)
    masked = model.fixed_mask(lines.ids, lines.widths, 101)
    columns = masked.repeat_interleave(model.stride, 1)[:, None, None, :101].expand_as(lines.images)
    assert masked.any(1).all()
    other = torch.where(columns, batch(101, 60, seed=1).images, lines.images)
    with torch.inference_mode():
        drawn, again = (model.filled(images, lines.widths, masked) for images in (lines.images, other))
    assert torch.equal(drawn, again)
    losses = [model.summed_loss(drawn, images, masked)[0] for images in (lines.images, other)]
    assert losses[0] != losses[1]
    seen = torch.where(columns, lines.images, batch(101, 60, seed=1).images)  # the other pixels do reach it
    with torch.inference_mode():
        assert not torch.equal(drawn, model.filled(seen, lines.widths, masked))


def test_pixels_that_are_seen_are_no_target() -> None:
    model, lines = make(), batch(101, 60)
    masked = model.fixed_mask(lines.ids, lines.widths, 101)
    columns = masked.repeat_interleave(model.stride, 1)[:, None, None, :101]
    drawn = torch.rand(2, masked.shape[1], HEIGHT * model.stride)
    seen = torch.where(columns, lines.images, torch.rand_like(lines.images))
    assert model.summed_loss(drawn, lines.images, masked)[0] == model.summed_loss(drawn, seen, masked)[0]


def test_the_loss_is_the_mean_squared_error_of_the_masked_pixels() -> None:
    model, lines = make(), batch(90, 52)
    masked = model.fixed_mask(lines.ids, lines.widths, 90)
    with torch.inference_mode():
        drawn = model.filled(lines.images, lines.widths, masked)
    total, pixels = model.summed_loss(drawn, lines.images, masked)
    errors = []
    for row, frame in masked.nonzero().tolist():
        for column in range(model.stride):
            for y in range(HEIGHT):
                x = frame * model.stride + column
                target = float(lines.images[row, 0, y, x]) if x < 90 else 0.0
                errors.append((float(drawn[row, frame, column * HEIGHT + y]) - target) ** 2)
    assert pixels == len(errors)
    assert float(total) == pytest.approx(sum(errors), rel=1e-4)


@pytest.mark.parametrize("net", sorted(NETS))
@pytest.mark.parametrize("width", [60, 61])
def test_a_line_is_validated_by_the_same_mask_and_loss_alone_and_in_a_batch(net: str, width: int) -> None:
    model, both, alone = make(net), batch(width, 101), batch(width)
    frames = -(-width // model.stride)
    figures = []
    for lines in (both, alone):
        masked = model.fixed_mask(lines.ids, lines.widths, lines.images.shape[-1])
        masked[0, frames - 1] = True  # of which only a part is in the line
        with torch.inference_mode():
            drawn = model.filled(lines.images, lines.widths, masked)
        figures.append((masked[0, :frames], *model.summed_loss(drawn[:1], lines.images[:1], masked[:1])))
        assert not masked[0, frames:].any()
    assert torch.equal(figures[0][0], figures[1][0])
    assert float(figures[0][1]) == pytest.approx(float(figures[1][1]), rel=1e-4)
    assert figures[0][2] == figures[1][2]


def test_frames_are_their_own_columns() -> None:
    image = torch.arange(3 * 10).float().view(1, 1, 3, 10)
    frames = frame_pixels(image, 4)
    assert frames.shape == (1, 3, 12)
    for frame in range(3):
        for column in range(4):
            x = 4 * frame + column
            own = frames[0, frame, 3 * column : 3 * column + 3]
            assert torch.equal(own, image[0, 0, :, x] if x < 10 else torch.zeros(3))


def test_finding_the_stride_leaves_the_network_as_it_was() -> None:
    shared = backbone()
    net = partial(CRNN, backbone=shared, hidden=8, layers=1, shortcut=False)
    before = {name: value.clone() for name, value in shared.state_dict().items()}
    model = MaskedColumns(net, normalizer=Normalizer(), preprocess=FitHeight(HEIGHT))
    assert model.stride == 4
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in shared.state_dict().items())


@pytest.mark.parametrize("given", [{"mask_ratio": 0.0}, {"mask_ratio": 1.5}, {"mask_span": 0}])
def test_a_mask_that_masks_nothing_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"model\.mask_ratio="):
        make(**given)


def test_a_second_head_is_refused() -> None:
    net = partial(CRNN, backbone=backbone(), hidden=8, layers=1)
    with pytest.raises(InputError, match=r"model\.net\.shortcut=true"):
        MaskedColumns(net, normalizer=Normalizer(), preprocess=FitHeight(HEIGHT))
