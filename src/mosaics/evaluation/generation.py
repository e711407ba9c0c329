"""Evaluation of a pipeline: what it draws against real pictures with the same captions or classes."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from tqdm.auto import tqdm

from mosaics.evaluation.arguments import check_counts, check_names, require_torchmetrics
from mosaics.evaluation.clip_score import ClipScore
from mosaics.evaluation.correctness import CaptionCorrectness, Judge
from mosaics.evaluation.networks import FeatureNetworks, PictureMetrics
from mosaics.evaluation.reconstruction import read_pictures_of
from mosaics.evaluation.result import EvaluationResult, Measured
from mosaics.evaluation.speed import Stopwatch
from mosaics.pipelines.many_pictures import PICTURES_TOGETHER, draw_many, is_text_to_image

FRECHET_METRICS = ("fid", "frechet_efficientnet_lite0")
CLIP_METRICS = ("clip_score", "clip_score_real")
SPEED_METRICS = ("seconds_per_picture", "candidates_per_second")
CORRECTNESS = "caption_correctness"
GENERATION_METRICS = (*FRECHET_METRICS, *CLIP_METRICS, CORRECTNESS, *SPEED_METRICS)


@torch.no_grad()
def evaluate_generation(
    pipe: Any,
    dataset: Any,
    *,
    num_prompts: int = 100,
    num_candidates: int = 1,
    seed: int = 0,
    metrics: Sequence[str] | None = None,
    networks: FeatureNetworks | None = None,
    clip: tuple[Any, Any] | None = None,
    judge: Judge | None = None,
    name: str = "data set",
    progress_bar: bool = False,
    **sampling: Any,
) -> EvaluationResult:
    """Draws one picture for each of the first captions (or classes) of a data set, and measures them.

    Args:
        pipe: A [`DallePipeline`], or a [`VQVAEPipeline`], which has no CLIP score.
        dataset: `dataset[i]` is a mapping with `pixel_values` `(C, H, W)` in [0, 1], and `caption`, or `class_labels`
            for a pipeline with classes.
        num_prompts: Pictures drawn, each for its own sample; the Frechet distances are to the same samples' pictures.
        num_candidates: Candidates drawn for each; the best is measured.
        seed: Seed of the pictures.
        metrics: Names of `GENERATION_METRICS`; by default all, `caption_correctness` with a `judge`.
        networks: Where the feature networks of the Frechet distances are.
        clip: A `CLIPModel` and its processor ([`mosaics.pipelines.reranking.load_clip`]) to score with; by default the
            pipeline's own, which may have chosen the pictures itself.
        judge: Reads off the pictures whether they show what their captions say: a function from the numbers of samples
            and their pictures `(B, C, H, W)` in [0, 1] to, for each, a mapping from the kinds of statements that its
            caption makes to whether the picture bears each out, with `"all"`, whether it bears out all.
        name: What to call the data set in the result.
        progress_bar: Show one on stderr.
        **sampling: `temperature`, `top_k`, `top_p`, `batch_size`, `guidance_scale`.

    Returns:
        [`EvaluationResult`]. A metric that needs what is not on the machine is `None`, with the reason.

    Raises:
        ValueError: The data set is empty, has no captions, or a number or name is out of range.
        ImportError: torchmetrics is not installed.
    """
    require_torchmetrics()
    check_counts(num_prompts=num_prompts, num_candidates=num_candidates)
    wanted = check_names(metrics, GENERATION_METRICS)
    if metrics is None and judge is None:
        wanted = [name for name in wanted if name != CORRECTNESS]
    batches, count = read_pictures_of(dataset, num_prompts, max(1, PICTURES_TOGETHER // num_candidates))
    device = torch.device(pipe._execution_device)
    frechet = PictureMetrics(_frechet_metrics(wanted, networks or FeatureNetworks(), device))
    scores = {
        name: PictureMetrics({name: partial(ClipScore, pipe, clip)} if name in wanted else {}) for name in CLIP_METRICS
    }
    correctness = PictureMetrics({CORRECTNESS: partial(CaptionCorrectness, judge)} if CORRECTNESS in wanted else {})
    watch, first = Stopwatch(device), 0
    for batch in tqdm(batches, unit=" batches", disable=not progress_bar):
        real = batch["pixel_values"].to(device)
        asked = _requests(pipe, batch)
        draw = partial(_draw, pipe, dict(enumerate(asked, start=first)), num_candidates, seed, sampling)
        drawn = watch.time(draw, len(asked)).to(device)
        correctness.update(drawn, range(first, first + len(asked)))
        first += len(asked)
        frechet.update(real, drawn)
        scores["clip_score"].update(drawn, asked)
        scores["clip_score_real"].update(real, asked)
    result = EvaluationResult("generation", str(getattr(pipe, "name_or_path", type(pipe).__name__)), name, count)
    for group in (frechet, *scores.values(), correctness):
        group.record(result)
    if num_candidates > 1 and clip is None and result.metrics.get("clip_score") is not None:
        result.remarks["clip_score"] = "of the CLIP that also chose the candidates"
    speed = {"seconds_per_picture": 1 / watch.per_second, "candidates_per_second": num_candidates * watch.per_second}
    for metric in (metric for metric in SPEED_METRICS if metric in wanted):
        result.record(metric, Measured(speed[metric]))
    given = {key: value for key, value in sampling.items() if value is not None}
    result.settings = {"num_candidates": num_candidates, "seed": seed, **given, "device": str(device)}
    return result


def _frechet_metrics(wanted: Sequence[str], networks: FeatureNetworks, device: torch.device) -> dict[str, Any]:
    makers = {
        "fid": partial(networks.inception, device),
        "frechet_efficientnet_lite0": partial(networks.efficientnet, device),
    }
    return {name: makers[name] for name in FRECHET_METRICS if name in wanted}


def _requests(pipe: Any, batch: dict[str, Any]) -> list[Any]:
    """The captions or classes of a batch; nothing, for a pipeline that takes neither."""
    if not is_text_to_image(pipe) and pipe.num_classes is None:
        return [None] * len(batch["pixel_values"])
    column = "caption" if is_text_to_image(pipe) else "class_labels"
    if column not in batch:
        raise ValueError(f"the samples of the data set have no {column!r}; they have {', '.join(batch)}.")
    values = batch[column]
    return values.tolist() if isinstance(values, torch.Tensor) else list(values)


def _draw(
    pipe: Any, requests: dict[int, Any], num_candidates: int, seed: int, sampling: dict[str, Any]
) -> torch.Tensor:
    """The best picture of each request, `(B, C, H, W)`."""
    num_images = 1
    if None in requests.values():  # no prompts and no classes: one request for all of them
        num_images, requests = len(requests), {min(requests): None}
    calls = draw_many(
        pipe,
        requests,
        num_candidates=num_candidates * num_images,
        num_images=num_images,
        seed=seed,
        together=len(requests),
        **sampling,
    )
    return torch.stack([picture.pixels for call in calls for pictures in call.values() for picture in pictures])
