"""A visitor's request, the pictures drawn for it, and the lines that draw one of them again."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from PIL import Image

from mosaics.demo.limits import MAX_CANDIDATES, MAX_SHOWN, check_count, check_prompt, read_seed
from mosaics.pipelines import DallePipeline
from mosaics.pipelines.dalle_output import DallePipelineOutput
from mosaics.pipelines.default import default_checkpoint


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn; the arguments of [`DallePipeline`] of the same names."""

    temperature: float
    top_k: int | None
    top_p: float | None
    guidance_scale: float
    seed: int

    @classmethod
    def from_controls(
        cls, temperature: float, top_k: float, top_p: float, guidance_scale: float, seed: str
    ) -> "Sampling":
        """From the sliders of the page, whose end positions `top_k` 0 and `top_p` 1 mean all codes."""
        return cls(
            temperature=float(temperature),
            top_k=int(top_k) or None,
            top_p=None if top_p == 1 else float(top_p),
            guidance_scale=float(guidance_scale),
            seed=read_seed(seed),
        )

    def arguments(self) -> dict[str, Any]:
        """The arguments of a call, without those that change nothing."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class DrawingRequest:
    """What a visitor asks for.

    Args:
        prompt: A sentence.
        num_candidates: Pictures to draw, 1 to 512.
        num_shown: How many of them to show, the best by CLIP; all if there are fewer.
        sampling: How codes are drawn.
        image: A picture to complete, `(3, H, W)` in [0, 1].
        prefix_rows: How many rows of its codes are kept.

    Raises:
        ValueError: A number or the prompt is out of bounds.
    """

    prompt: str
    num_candidates: int
    num_shown: int
    sampling: Sampling
    image: torch.Tensor | None = None
    prefix_rows: int = 0

    def __post_init__(self):
        check_prompt(self.prompt)
        count = check_count("The number of candidates", self.num_candidates, MAX_CANDIDATES)
        object.__setattr__(self, "num_candidates", count)
        shown = check_count("The number of pictures shown", self.num_shown, MAX_SHOWN)
        object.__setattr__(self, "num_shown", min(shown, count))


@dataclass(frozen=True)
class DrawnPicture:
    """A picture and what draws it again."""

    image: Image.Image
    score: float | None
    seed: int
    request: DrawingRequest

    @property
    def caption(self) -> str | None:
        """What stands on it in a gallery: CLIP's score."""
        return None if self.score is None else f"{self.score:.3f}"


def draw(
    pipe: DallePipeline,
    request: DrawingRequest,
    report: Callable[[int, int], None] = lambda done, total: None,
    stop: threading.Event | None = None,
) -> list[DrawnPicture]:
    """Draws pictures, the best first.

    Args:
        pipe: The pipeline; without CLIP as many are drawn as are shown.
        request: What to draw.
        report: Called after every code with the number of codes drawn and to be drawn.
        stop: Set it to stop; the pictures are then chosen from the candidates finished by then.

    Raises:
        DrawingStopped: It was stopped before a candidate was finished.
        ValueError: The pipeline refuses an argument; the message names it.
    """
    num_candidates = request.num_candidates if pipe.clip is not None else request.num_shown
    positions = pipe.num_timesteps - request.prefix_rows * pipe.transformer.config.image_grid_size
    done = 0

    def after_each_code(pipe: DallePipeline, step: int, position: int, tensors: dict) -> dict:
        nonlocal done
        done += len(tensors["indices"])
        report(done, num_candidates * positions)
        if stop is not None and stop.is_set():
            pipe._interrupt = True
        return {}

    drawn = pipe(
        request.prompt,
        num_candidates=num_candidates,
        num_images_per_prompt=request.num_shown,
        image=request.image,
        prefix_rows=request.prefix_rows,
        callback_on_step_end=after_each_code,
        **request.sampling.arguments(),
    )
    output = cast("DallePipelineOutput", drawn)  # a tuple only on request
    pictures = cast("list[Image.Image]", output.images)
    return [
        DrawnPicture(image, score, seed, request)
        for image, score, seed in zip(pictures, output.clip_scores, output.seeds, strict=True)
    ]


def python_lines(pipe: DallePipeline, picture: DrawnPicture) -> str:
    """A program that draws the picture again."""
    request = picture.request
    imports = ["from mosaics import DallePipeline"]
    arguments = [repr(" ".join(request.prompt.split()))]
    loading = f"pipe = {loading_expression(pipe)}"
    if "default_checkpoint()" in loading:
        imports = ["from mosaics import DallePipeline, default_checkpoint"]
    if request.image is not None:
        imports.append("from mosaics.data import to_pixel_values")
        size = request.image.shape[-1]
        arguments += [f'image=to_pixel_values("start.png", {size})', f"prefix_rows={request.prefix_rows}"]
    sampling = request.sampling.arguments() | {"seed": picture.seed}
    arguments += [f"{name}={value!r}" for name, value in sampling.items()]
    call = "".join(f"    {argument},\n" for argument in arguments)
    return "\n".join([*imports, "", loading, f"picture = pipe(\n{call}).images[0]", 'picture.save("picture.png")'])


def loading_expression(pipe: DallePipeline) -> str:
    """Python that loads the pipeline; of a folder it tells the name alone, for the page may be read by others."""
    source = pipe.config.get("_name_or_path")
    if not source:
        return "...  # the pipeline that this page draws with"
    if source == default_checkpoint():
        return "DallePipeline.from_pretrained(default_checkpoint())"
    name = os.path.basename(os.path.abspath(source)) if os.path.isdir(source) else source
    return f"DallePipeline.from_pretrained({name!r})"
