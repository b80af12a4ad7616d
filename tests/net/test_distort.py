"""Random distortions of a batch of images."""

import math

import pytest
import torch
from torch.nn import functional

from htr_lightning.net.distort import Distort

STILL = {"rotation": 0.0, "scale": 0.0, "slant": 0.0, "shift": 0.0, "elastic": 0.0, "sigma": 4.0}


@pytest.fixture(autouse=True)
def _dice() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("size", [(28, 28), (16, 40), (64, 5)])
def test_distortions_of_strength_0_leave_the_images_as_they_are(size: tuple[int, int]) -> None:
    images = torch.rand(3, 1, *size)
    torch.testing.assert_close(Distort(**STILL)(images), images, atol=1e-4, rtol=0)


def test_a_field_has_the_given_deviation_at_every_pixel_and_the_correlation_of_smoothed_noise() -> None:
    sigma = 4.0
    field = Distort(**STILL | {"elastic": 1.5, "sigma": sigma}).field(torch.zeros(4000, 1, 20, 28))
    assert field.shape == (4000, 20, 28, 2)
    assert field.mean(0).abs().max() < 0.15
    torch.testing.assert_close(field.std(0), torch.full((20, 28, 2), 1.5), atol=0.1, rtol=0)
    for distance in (2, 4, 8):  # two Gaussians with standard deviation sigma at this distance
        expected = math.exp(-(distance**2) / (4 * sigma**2))
        for one, other in ((field[:, 9, 3], field[:, 9, 3 + distance]), (field[:, 3, 9], field[:, 3 + distance, 9])):
            torch.testing.assert_close((one * other).mean(0) / 1.5**2, torch.full((2,), expected), atol=0.08, rtol=0)
    assert (field[..., 0] * field[..., 1]).mean().abs() < 0.02


def test_the_field_is_as_strong_as_that_of_the_paper() -> None:
    alpha, sigma = 34.0, 4.0
    kernel = torch.exp(-(torch.arange(-20, 21.0) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    noise = torch.rand(200, 1, 61, 61) * 2 - 1
    smooth = functional.conv2d(functional.conv2d(noise, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1)) * alpha
    assert smooth.std() == pytest.approx(alpha / (2 * sigma * math.sqrt(3 * math.pi)), rel=0.03)


def test_affine_maps_keep_within_their_bounds() -> None:
    def drawn(**strength: float) -> torch.Tensor:
        return Distort(**STILL | strength).matrices(2000, torch.zeros(1))

    turned = drawn(rotation=15.0)
    torch.testing.assert_close(turned @ turned.mT, torch.eye(2).expand(2000, 2, 2))
    angles = torch.rad2deg(torch.atan2(turned[:, 0, 1], turned[:, 0, 0]))
    assert -15 <= angles.min() < -14
    assert 14 < angles.max() <= 15
    scaled = drawn(scale=0.2)
    assert scaled[:, 0, 1].abs().max() == scaled[:, 1, 0].abs().max() == 0
    for side in (scaled[:, 0, 0], scaled[:, 1, 1]):
        assert 0.8 <= side.min() < 0.81
        assert 1.19 < side.max() <= 1.2
    slanted = drawn(slant=0.3)
    torch.testing.assert_close(slanted[:, 0, :], torch.tensor([1.0, 0.0]).expand(2000, 2))
    assert (slanted[:, 1, 1] == 1).all()
    assert 0.29 < slanted[:, 1, 0].abs().max() <= 0.3


def test_a_rotation_is_about_the_centre_of_the_image() -> None:
    images = torch.rand(1, 1, 9, 9)
    quarter = Distort(**STILL)
    quarter.matrices = lambda batch, like: torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]])  # type: ignore[method-assign]
    assert any(torch.allclose(quarter(images), images.rot90(k, (2, 3)), atol=1e-4) for k in (1, 3))


def test_paper_is_shifted_in_and_every_image_is_shifted_differently() -> None:
    images = torch.ones(50, 1, 10, 10)
    shifted = Distort(**STILL | {"shift": 3.0})(images)
    assert (shifted[:, :, 4:6, 4:6] > 0.999).all()
    assert shifted.min() == 0
    assert len(shifted.flatten(1).unique(dim=0)) == 50


def test_bfloat16_training_has_the_same_coordinates() -> None:
    images, distort = torch.rand(4, 1, 28, 28), Distort(10.0, 0.1, 0.1, 1.0, 1.0, 4.0)
    torch.manual_seed(1)
    plain = distort(images)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(distort(images), plain)
