"""Pictures of many prompts or classes, drawn in calls of bounded size, each picture known by its number and seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mosaics.pipelines.seeds import candidate_seed

PICTURES_TOGETHER = 64


@dataclass(frozen=True)
class Drawn:
    """A picture that was kept.

    Args:
        number: Number of its request.
        candidate: Number of the candidate within the request.
        seed: What redraws it.
        score: The opinion of CLIP, or of the classifier of a class-conditional pipeline; `None` if unranked.
        pixels: `(C, H, W)` in [0, 1], on the CPU.
    """

    number: int
    candidate: int
    seed: int
    score: float | None
    pixels: torch.Tensor


def draw_many(
    pipe: Any,
    requests: Mapping[int, str | int | None],
    *,
    num_candidates: int = 1,
    num_images: int = 1,
    seed: int = 0,
    together: int | None = None,
    **sampling: Any,
) -> Iterator[dict[int, list[Drawn]]]:
    """Draws the requests of a pipeline, some at a time.

    Candidate c of request number n has the seed that `pipe(all requests, seed=seed)` gives it, so its picture depends
    neither on what is drawn together nor on which requests are left out.

    Args:
        pipe: A [`DallePipeline`] or a [`VQVAEPipeline`].
        requests: By their numbers the prompts, or the classes (`{0: None}` for a pipeline without classes).
        num_candidates: Pictures drawn of each request.
        num_images: Pictures kept of each, the best; if there are more than candidates, as many are drawn.
        seed: Seed of all.
        together: Requests drawn in one call; by default as many as fill a batch.
        **sampling: `temperature`, `top_k`, `top_p`, `batch_size`, and `guidance_scale` for a [`DallePipeline`].

    Yields:
        For each call its requests' numbers with their pictures, the best first.
    """
    count = max(num_candidates, num_images)
    together = together or max(1, PICTURES_TOGETHER // count)
    all_numbers = list(requests)
    for first in range(0, len(all_numbers), together):
        numbers = all_numbers[first : first + together]
        seeds = {candidate_seed(seed, n, c): (n, c) for n in numbers for c in range(count)}
        asked = [requests[number] for number in numbers]
        output = _call(pipe, asked, count, num_images, list(seeds), sampling)
        scores = getattr(output, "clip_scores", None) or output.scores
        drawn: dict[int, list[Drawn]] = {number: [] for number in numbers}
        for picture_seed, score, pixels in zip(output.seeds, scores, output.images, strict=True):
            number, candidate = seeds[picture_seed]
            drawn[number].append(Drawn(number, candidate, picture_seed, score, pixels))
        yield drawn


def is_text_to_image(pipe: Any) -> bool:
    """Whether requests are prompts, and not classes."""
    return hasattr(pipe, "tokenizer")


def _call(pipe: Any, asked: Sequence[Any], count: int, keep: int, seeds: list[int], sampling: dict[str, Any]) -> Any:
    common = {"num_candidates": count, "seed": seeds, "output_type": "pt", **sampling}
    if is_text_to_image(pipe):
        return pipe(list(asked), num_images_per_prompt=keep, **common)
    labels = None if asked == [None] else list(asked)
    return pipe(labels, num_images=keep, **common)
