"""The sliders of a drawing."""

import secrets
from collections.abc import Mapping
from typing import Any

import gradio as gr
import torch

from mosaics.demo.components import AT_ONCE
from mosaics.demo.drawing import DrawingRequest, Sampling
from mosaics.demo.limits import MAX_CANDIDATES, MAX_SHOWN
from mosaics.pipelines import DallePipeline


class SamplingControls:
    """How many candidates, how they are drawn, and from which seed.

    Args:
        pipe: The pipeline; its own temperature and guidance are where the sliders start.
        num_candidates: Where the first slider starts.
        num_shown: Where the second slider starts.
    """

    def __init__(self, pipe: DallePipeline, num_candidates: int, num_shown: int):
        ranked = pipe.clip is not None
        self.num_candidates = gr.Slider(
            1,
            MAX_CANDIDATES,
            num_candidates,
            step=1,
            label="Candidates drawn",
            info="CLIP ranks them and the best are shown; the paper draws 512",
            visible=ranked,
        )
        self.num_shown = gr.Slider(
            1, MAX_SHOWN, num_shown, step=1, label="Pictures shown" if ranked else "Pictures drawn"
        )
        with gr.Row(elem_classes=["bottom"]):
            self.seed = gr.Textbox("0", label="Seed", max_length=20, scale=3)
            new_seed = gr.Button("New seed", scale=0, min_width=120)
        with gr.Accordion("Sampling", open=False):
            self.temperature = gr.Slider(
                0,
                2,
                pipe.config["temperature"],
                step=0.05,
                label="Temperature",
                info="below 1 safer, above 1 more varied; 0 takes the likeliest code",
            )
            self.guidance_scale = gr.Slider(
                0,
                10,
                pipe.config["guidance_scale"],
                step=0.1,
                label="Guidance",
                info="above 1 closer to the prompt and less varied",
            )
            self.top_k = gr.Slider(
                0,
                pipe.transformer.config.image_vocab_size,
                0,
                step=1,
                label="Top-k",
                info="draw from the k likeliest codes; 0 for all",
            )
            self.top_p = gr.Slider(
                0.05, 1, 1, step=0.01, label="Top-p", info="draw from the likeliest codes that hold this share"
            )
        new_seed.click(lambda: str(secrets.randbelow(2**32)), outputs=self.seed, **AT_ONCE)

    def inputs(self) -> set[gr.components.Component]:
        """The components that [`request`] reads."""
        sampling = {self.temperature, self.top_k, self.top_p, self.guidance_scale, self.seed}
        return {self.num_candidates, self.num_shown, *sampling}

    def request(
        self,
        values: Mapping[gr.components.Component, Any],
        prompt: str,
        image: torch.Tensor | None = None,
        prefix_rows: int = 0,
    ) -> DrawingRequest:
        """The request that the sliders make of a prompt and, if one is completed, of a picture.

        Args:
            values: Values by component.
            prompt: As in [`DrawingRequest`].
            image: As in [`DrawingRequest`].
            prefix_rows: As in [`DrawingRequest`].

        Raises:
            ValueError: A value is out of bounds; the message names it.
        """
        sampling = Sampling.from_controls(
            values[self.temperature],
            values[self.top_k],
            values[self.top_p],
            values[self.guidance_scale],
            values[self.seed],
        )
        return DrawingRequest(
            prompt, values[self.num_candidates], values[self.num_shown], sampling, image, prefix_rows
        )
