"""Evaluation of an image tokenizer: pictures against what comes back of them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from mosaics.evaluation.arguments import check_counts, check_names, require_torchmetrics
from mosaics.evaluation.bits import BitsPerDim, Coded, PriorBitsPerDim
from mosaics.evaluation.codebook import CodeCounts
from mosaics.evaluation.distortion import PSNR, SSIM, MeanSquaredError
from mosaics.evaluation.networks import FeatureNetworks, PictureMetrics
from mosaics.evaluation.result import EvaluationResult, Measured
from mosaics.evaluation.speed import Stopwatch
from mosaics.pipelines.pictures import to_channels

PICTURE_METRICS = ("psnr", "ssim", "mse", "lpips", "rfid", "frechet_efficientnet_lite0")
CODE_METRICS = ("codebook_usage", "perplexity")
BIT_METRICS = ("bits_per_dim", "bits_per_dim_prior")
RECONSTRUCTION_METRICS = (*PICTURE_METRICS, *CODE_METRICS, *BIT_METRICS, "images_per_second")


@torch.no_grad()
def evaluate_reconstruction(
    model: PreTrainedModel,
    dataset: Any,
    *,
    num_images: int | None = None,
    batch_size: int = 32,
    metrics: Sequence[str] | None = None,
    networks: FeatureNetworks | None = None,
    prior: PreTrainedModel | None = None,
    name: str = "data set",
    progress_bar: bool = False,
) -> EvaluationResult:
    """Measures an image tokenizer over a data set.

    Nothing but `images_per_second` depends on `batch_size`: picture metrics are means over pictures, codes are counted
    over the whole set.

    Args:
        model: A [`DiscreteVAE`], [`VQVAE`] or [`VQVAE2`], on the device to compute on. Its training mode is restored.
        dataset: `dataset[i]` is a mapping with `pixel_values` `(C, H, W)` in [0, 1]; colour is made gray for a model
            of one channel. `class_labels` (an integer), if `prior` has classes.
        num_images: Only the first so many pictures.
        batch_size: Pictures at a time.
        metrics: Names of `RECONSTRUCTION_METRICS`; by default all, `bits_per_dim_prior` with a `prior`.
        networks: Where the feature networks of LPIPS and the Frechet distances are.
        prior: The [`PixelCNN`] over the model's codes, for `bits_per_dim_prior`, on the same device.
        name: What to call the data set in the result.
        progress_bar: Show one on stderr.

    Returns:
        [`EvaluationResult`]. A metric that needs what is not on the machine is `None`, with the reason.

    Raises:
        ValueError: The data set is empty, or a number or name is out of range.
        ImportError: torchmetrics is not installed.
    """
    require_torchmetrics()
    check_counts(num_images=num_images, batch_size=batch_size)
    wanted = check_names(metrics, RECONSTRUCTION_METRICS)
    if metrics is None and prior is None:
        wanted = [name for name in wanted if name != "bits_per_dim_prior"]
    loader, count = read_pictures_of(dataset, num_images, batch_size)
    pictures = PictureMetrics(_picture_metrics(wanted, networks or FeatureNetworks(), model.device))
    makers = {"bits_per_dim": partial(BitsPerDim, model), "bits_per_dim_prior": partial(PriorBitsPerDim, model, prior)}
    bits = PictureMetrics({name: makers[name] for name in BIT_METRICS if name in wanted})
    codes, watch = CodeCounts(model.config.num_embeddings), Stopwatch(model.device)
    was_training = model.training
    model.eval()
    try:
        for batch in tqdm(loader, unit=" batches", disable=not progress_bar):
            pixels = as_read_by(model, batch["pixel_values"]).to(model.device)
            output = watch.time(partial(model, pixels), len(pixels))
            pictures.update(pixels, output.reconstruction)
            labels = batch.get("class_labels")
            bits.update(pixels, Coded(output, None if labels is None else labels.to(model.device)))
            codes.update(output.indices)
    finally:
        model.train(was_training)
    result = EvaluationResult("reconstruction", model.name_or_path or type(model).__name__, name, count)
    pictures.record(result)
    measured = {"codebook_usage": codes.usage, "perplexity": codes.perplexity}
    for metric in (name for name in CODE_METRICS if name in wanted):
        result.record(metric, measured[metric]())
    bits.record(result)
    if "images_per_second" in wanted:
        result.record(
            "images_per_second", Measured(watch.per_second, f"encoding and decoding, {batch_size} at a time")
        )
    result.settings = {"batch_size": batch_size, "device": str(model.device), "dtype": str(model.dtype)[6:]}
    return result


def as_read_by(model: PreTrainedModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """Pictures `(B, 1 or 3, H, W)` with as many channels as the tokenizer reads: gray of colour, or three equal."""
    channels = model.config.num_channels
    if pixel_values.shape[1] == channels:
        return pixel_values
    return pixel_values.expand(-1, 3, -1, -1) if pixel_values.shape[1] == 1 else to_channels(pixel_values, channels)


def read_pictures_of(dataset: Any, num_images: int | None, batch_size: int) -> tuple[DataLoader, int]:
    """Batches of the first pictures of a data set, and their number.

    Raises:
        ValueError: There are none, or the data set is a stream.
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise ValueError("dataset must have a length and `dataset[i]`; make a list of the first samples of a stream.")
    count = len(dataset) if num_images is None else min(num_images, len(dataset))
    if count == 0:
        raise ValueError("dataset has no pictures.")
    return DataLoader(Subset(dataset, range(count)), batch_size=batch_size), count


def _picture_metrics(wanted: Sequence[str], networks: FeatureNetworks, device: torch.device) -> dict[str, Any]:
    """What makes each of the wanted metrics of pictures."""
    makers = {
        "psnr": PSNR,
        "ssim": SSIM,
        "mse": MeanSquaredError,
        "lpips": partial(networks.mean_lpips, device),
        "rfid": partial(networks.inception, device),
        "frechet_efficientnet_lite0": partial(networks.efficientnet, device),
    }
    return {name: makers[name] for name in PICTURE_METRICS if name in wanted}
