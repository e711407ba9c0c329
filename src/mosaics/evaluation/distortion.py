"""How far a reconstruction is from its picture, pixel by pixel: PSNR, SSIM and the mean squared error.

Pictures are float `(B, C, H, W)` in [0, 1]. Every metric is a mean over pictures, so it does not depend on how they
are cut into batches.
"""

import math

import torch

from mosaics.evaluation.result import Measured, Unavailable

SSIM_SIDE = 11  # pixels of the Gaussian window of Wang et al. 2004


class MeanOverImages:
    """The mean of one number per picture, summed in float64."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, values: torch.Tensor) -> None:
        """Takes in the numbers `(B,)` of a batch."""
        self.total += float(values.detach().double().sum())
        self.count += len(values)

    @property
    def value(self) -> float:
        """The mean so far; NaN of nothing."""
        return self.total / self.count if self.count else math.nan


class PSNR:
    """Peak signal-to-noise ratio, `10 log10(1 / mean squared error)` dB of each picture, infinite if it is exact."""

    def __init__(self) -> None:
        self.mean, self.num_exact = MeanOverImages(), 0

    def update(self, pixel_values: torch.Tensor, reconstruction: torch.Tensor) -> None:
        """Takes in pictures and their reconstructions, both `(B, C, H, W)`."""
        values = psnr_of_images(pixel_values, reconstruction)
        self.num_exact += int(torch.isinf(values).sum())
        self.mean.add(values)

    def compute(self) -> Measured:
        """The mean over all pictures."""
        exact = f"{self.num_exact} of {self.mean.count} pictures come back exactly; mse is finite"
        return Measured(self.mean.value, exact if self.num_exact else "")


class SSIM:
    """Structural similarity, up to 1 (*Image Quality Assessment*, Wang et al. 2004), with its 11-pixel window."""

    def __init__(self) -> None:
        self.mean = MeanOverImages()

    def update(self, pixel_values: torch.Tensor, reconstruction: torch.Tensor) -> None:
        """Takes in pictures and their reconstructions, both `(B, C, H, W)`."""
        from torchmetrics.functional.image import structural_similarity_index_measure

        side = min(pixel_values.shape[-2:])
        if side < SSIM_SIDE:
            raise Unavailable(f"SSIM's window has {SSIM_SIDE} pixels, the pictures have a side of {side}.")
        values = structural_similarity_index_measure(reconstruction, pixel_values, data_range=1.0, reduction="none")
        self.mean.add(torch.as_tensor(values))

    def compute(self) -> Measured:
        """The mean over all pictures."""
        return Measured(self.mean.value)


class MeanSquaredError:
    """The mean squared error of pixels in [0, 1]."""

    def __init__(self) -> None:
        self.mean = MeanOverImages()

    def update(self, pixel_values: torch.Tensor, reconstruction: torch.Tensor) -> None:
        """Takes in pictures and their reconstructions, both `(B, C, H, W)`."""
        self.mean.add((reconstruction - pixel_values).double().square().mean(dim=(1, 2, 3)))

    def compute(self) -> Measured:
        """The mean over all pictures."""
        return Measured(self.mean.value)


def psnr_of_images(pixel_values: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
    """PSNR `(B,)` in dB of each picture in [0, 1]; infinite where the reconstruction is exact."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return peak_signal_noise_ratio(
        reconstruction.double(), pixel_values.double(), data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
