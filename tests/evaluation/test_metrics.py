"""Each metric against numbers worked out by hand."""

import math

import pytest
import torch
from torch import nn

from mosaics.evaluation.bits import BitsPerDim, Coded
from mosaics.evaluation.codebook import CodeCounts
from mosaics.evaluation.distortion import PSNR, SSIM, MeanSquaredError
from mosaics.evaluation.frechet import FrechetDistance
from mosaics.evaluation.result import Unavailable
from mosaics.evaluation.speed import Stopwatch
from testing_utils import tiny_dvae, tiny_vqvae2


def test_psnr_is_the_mean_over_pictures_of_ten_times_the_log_of_the_inverse_error():
    pixels = torch.zeros(2, 3, 4, 4)
    restored = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    psnr, error = PSNR(), MeanSquaredError()
    for metric in (psnr, error):
        metric.update(pixels, restored)
    assert psnr.compute().value == pytest.approx((20 + 40) / 2, abs=1e-4)
    assert error.compute().value == pytest.approx((1e-2 + 1e-4) / 2, rel=1e-5)


def test_an_exact_picture_has_infinite_psnr_and_that_is_said():
    pixels = torch.rand(2, 3, 4, 4)
    metric = PSNR()
    metric.update(pixels, torch.stack([pixels[0], pixels[1] * 0.5]))
    measured = metric.compute()
    assert measured.value == math.inf
    assert "1 of 2 pictures come back exactly" in measured.remark


def test_ssim_of_flat_pictures_is_the_luminance_term():
    one, other = 0.2, 0.6
    metric = SSIM()
    metric.update(torch.full((1, 1, 16, 16), one), torch.full((1, 1, 16, 16), other))
    expected = (2 * one * other + 0.01**2) / (one**2 + other**2 + 0.01**2)
    assert metric.compute().value == pytest.approx(expected, abs=1e-4)
    with pytest.raises(Unavailable, match="11 pixels"):
        metric.update(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))


def test_usage_and_perplexity_count_over_all_batches():
    codes = CodeCounts(8)
    codes.update(torch.tensor([[[0, 0], [1, 2]]]))
    codes.update(torch.tensor([[[0, 0], [1, 2]]]))
    # Frequencies 1/2, 1/4, 1/4: the entropy is 1.5 ln 2.
    assert codes.usage().value == pytest.approx(3 / 8)
    assert codes.perplexity().value == pytest.approx(2**1.5)


def test_each_level_of_codes_is_counted_by_itself():
    codes = CodeCounts(4)
    codes.update((torch.tensor([[[3]]]), torch.tensor([[[0, 1], [2, 3]]])))
    assert codes.usage().value == [0.25, 1.0]
    assert codes.perplexity().value == pytest.approx([1.0, 4.0])


@torch.no_grad()
def test_bits_of_a_discrete_vae_are_those_of_its_codes_and_of_the_pixels_given_them():
    dvae = tiny_dvae().eval()
    pixels = torch.rand(3, 3, 16, 16)
    output = dvae(pixels)
    bits = BitsPerDim(dvae)
    bits.update(pixels, Coded(output))
    # 16 codes of log2(32) = 5 bits for 768 numbers; a step between 8-bit values is 0.8 / 255 wide.
    decoder_bits = float(output.reconstruction_loss) / math.log(2) - math.log2(0.8 / 255)
    assert bits.compute().value == pytest.approx(16 * 5 / 768 + decoder_bits, rel=1e-5)


@torch.no_grad()
def test_a_squared_error_has_no_bits():
    model = tiny_vqvae2()
    pixels = torch.rand(1, 3, 16, 16)
    with pytest.raises(Unavailable, match="squared error"):
        BitsPerDim(model).update(pixels, Coded(model(pixels)))


class TwoNumbers(nn.Module):
    """The first two channels of a picture of one pixel, as its features."""

    num_features = 2

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels[:, :2, 0, 0]


def as_pictures(points: list[tuple[float, float]]) -> torch.Tensor:
    return torch.tensor([[x, y, 0.0] for x, y in points])[:, :, None, None]


CROSS = [(1.0, 0.0), (-1.0, 0.0), (0.0, 2.0), (0.0, -2.0)]  # covariance diag(2/3, 8/3)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (CROSS, 0.0),
        ([(x + 3, y + 4) for x, y in CROSS], 25.0),  # |(3, 4)|^2
        ([(2 * x, 2 * y) for x, y in CROSS], 10 / 3),  # trace(C + 4 C - 2 * 2 C)
    ],
)
def test_the_frechet_distance_is_that_of_two_gaussians(points, expected):
    distance = FrechetDistance(TwoNumbers(), torch.device("cpu"))
    for part in (slice(0, 1), slice(1, 4)):  # however it is cut into batches
        distance.update(as_pictures(CROSS[part]), as_pictures(points[part]))
    assert distance.compute().value == pytest.approx(expected, abs=1e-4)


def test_one_picture_has_no_covariance():
    distance = FrechetDistance(TwoNumbers(), torch.device("cpu"))
    distance.update(as_pictures(CROSS[:1]), as_pictures(CROSS[:1]))
    with pytest.raises(Unavailable, match="two pictures"):
        distance.compute()


def test_the_first_lap_warms_up():
    watch = Stopwatch(torch.device("cpu"))
    watch.laps = [(10.0, 4), (0.5, 4), (0.5, 2)]
    assert watch.per_second == pytest.approx(6.0)
    assert watch.time(lambda: "done", 1) == "done" and len(watch.laps) == 4
