"""DALL-E from end to end: a sentence in, pictures out."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mosaics.models.dalle.decoding import DecodingStep, default_batch_size
from mosaics.models.weights_check import check_saved_weights, refuse_nonfinite
from mosaics.pipelines.best_candidates import BestCandidates, Candidate
from mosaics.pipelines.chunks import Chunk, cut_into_chunks
from mosaics.pipelines.configuration_pipeline import DallePipelineConfig
from mosaics.pipelines.consistency import check_components
from mosaics.pipelines.dalle_output import DallePipelineOutput
from mosaics.pipelines.pretrained import PretrainedPipelineMixin
from mosaics.pipelines.prompts import read_pictures, read_prompts, tokenize_prompts
from mosaics.pipelines.reranking import Reranker
from mosaics.pipelines.running import GuardedReranker, StepReporter, keep_finished
from mosaics.pipelines.seeds import resolve_seeds, seed_uniforms
from mosaics.sampling import check_sampling

OUTPUT_TYPES = ("pil", "np", "pt")
MAX_COUNT = 1_000_000
MAX_BATCH = 64


def check_guidance_scale(guidance_scale: float) -> None:
    """Raises a `ValueError` unless it is a finite number of at least 0."""
    if isinstance(guidance_scale, bool) or not isinstance(guidance_scale, int | float):
        raise ValueError(f"guidance_scale must be a number, got {guidance_scale!r}.")
    if not 0 <= guidance_scale < float("inf"):
        raise ValueError(f"guidance_scale must be finite and at least 0 (1 is off), got {guidance_scale!r}.")


class PipelineDictionary(FrozenDict):
    """The components by name; transformers before 5.20 reads `_commit_hash` of the config of a task's model."""

    _commit_hash = None


# pyrefly: ignore[inconsistent-inheritance] - the mixin's methods call diffusers'
class DallePipeline(PretrainedPipelineMixin, DiffusionPipeline):
    r"""Text to image with the models of *Zero-Shot Text-to-Image Generation* (https://arxiv.org/abs/2102.12092).

    Args:
        tokenizer: Text to tokens.
        transformer: The prior over text and image tokens, [`DalleTransformer`].
        dvae: Codes to pixels, [`DiscreteVAE`] or another image tokenizer.
        clip: transformers' `CLIPModel`, which chooses among candidates; optional.
        clip_processor: `CLIPImageProcessor` if `clip` shares the tokenizer (see `mosaics.pipelines.reranking`), else
            its `CLIPProcessor`; given together with `clip`.
        temperature: What calls that name no `temperature` take; saved with the pipeline.
        guidance_scale: The same for `guidance_scale`.

    Raises:
        ComponentsDisagreeError: Parts that were not made for each other.

    Example:
    ```python
    >>> from mosaics import DallePipeline, default_checkpoint

    >>> pipe = DallePipeline.from_pretrained(default_checkpoint())  # doctest: +SKIP
    >>> pipe("a lion on a blue background", num_candidates=16, seed=0).images[0].save("lion.png")  # doctest: +SKIP

    ```
    """

    root_config_class = DallePipelineConfig  # the config.json that transformers looks for
    model_cpu_offload_seq = "transformer->dvae->clip"
    _optional_components = ["clip", "clip_processor"]  # noqa: RUF012 - the form diffusers expects
    _callback_tensor_inputs = ["indices"]  # noqa: RUF012 (the form the library expects)

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        transformer: PreTrainedModel,
        dvae: PreTrainedModel,
        clip: PreTrainedModel | None = None,
        clip_processor: Any | None = None,
        temperature: float = 1.0,
        guidance_scale: float = 1.0,
    ):
        super().__init__()
        check_sampling(temperature, top_k=None, top_p=None, vocab_size=1)
        check_guidance_scale(guidance_scale)
        check_components(tokenizer, transformer, dvae, clip, clip_processor)
        if clip is not None:
            check_saved_weights(clip)
            refuse_nonfinite(clip.state_dict(), "clip")
        self.register_modules(
            tokenizer=tokenizer, transformer=transformer, dvae=dvae, clip=clip, clip_processor=clip_processor
        )
        self.register_to_config(temperature=temperature, guidance_scale=guidance_scale)
        self.image_processor = VaeImageProcessor(do_normalize=False)
        self._interrupt = False

    @property
    def config(self) -> FrozenDict:
        """The components by name, as diffusers gives them."""
        return PipelineDictionary(super().config)

    @property
    def interrupt(self) -> bool:
        """Set `pipe._interrupt = True` in a callback to stop; finished candidates are returned."""
        return self._interrupt

    @property
    def num_timesteps(self) -> int:
        """Image tokens drawn for each picture, one step each."""
        return self.transformer.config.image_grid_size**2

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        num_candidates: int = 1,
        num_images_per_prompt: int = 1,
        image: Any = None,
        prefix_rows: int = 0,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance_scale: float | None = None,
        seed: int | Sequence[int] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        batch_size: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, int, dict], dict] | None = None,
    ) -> DallePipelineOutput | tuple:
        r"""Draws pictures of a sentence.

        Args:
            prompt: A sentence, or several.
            num_candidates: Pictures drawn of each prompt; CLIP keeps the best `num_images_per_prompt`. 1 stands for
                "no choice": as many as `num_images_per_prompt`. The paper draws 512.
            num_images_per_prompt: Pictures returned of each prompt.
            image: A picture to complete, of the size the pipeline draws; one for all prompts or one each.
            prefix_rows: How many of the first rows of its grid of codes are kept.
            temperature: Divides the logits; 0 takes the most likely code. By default what the pipeline was saved with.
            top_k: Draw from the `top_k` most likely codes only.
            top_p: Draw from the smallest set of most likely codes that holds this probability.
            guidance_scale: Classifier-free guidance; above 1 pictures follow the prompt more closely and vary less.
                1 is off. By default what the pipeline was saved with.
            seed: 0 to 2**64 - 1, or one for each prompt or candidate. Candidate i of a seed is the same picture in any
                batch size.
            generator: Draws the seed instead; a list gives one seed each.
            batch_size: Candidates computed at a time, which bounds the memory; chosen by the caches' size if none.
            output_type: `"pil"`, `"np"` or `"pt"`.
            return_dict: A tuple (images, clip_scores, indices, seeds, prompts) if `False`.
            callback_on_step_end: Called after every code as `callback(pipe, step, timestep, {"indices": ...})`: `step`
                counts through the call, `timestep` is the raster position in the picture, `indices` the codes
                `(candidates in batch, image tokens)` so far.

        Returns:
            [`DallePipelineOutput`]. If the call is interrupted (Ctrl-C, `_interrupt`, out of memory) after some
            candidates are finished, those, with a warning.

        Raises:
            ValueError: An argument is out of range; the message names it.
        """
        prompts = read_prompts(prompt)
        num_candidates = self._check_counts(num_candidates, num_images_per_prompt, batch_size)
        temperature = self.config["temperature"] if temperature is None else temperature
        check_sampling(temperature, top_k, top_p, self.transformer.config.image_vocab_size)
        guidance_scale = self.config["guidance_scale"] if guidance_scale is None else guidance_scale
        check_guidance_scale(guidance_scale)
        self._check_options(image, prefix_rows, output_type)
        seeds = resolve_seeds(seed, generator, len(prompts), num_candidates)

        batch_size = batch_size or self._default_batch_size(guidance_scale)
        chunks = list(cut_into_chunks(len(prompts), num_candidates, batch_size))
        sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "guidance_scale": guidance_scale}

        # 1. Text to tokens, and the picture to be completed to the codes of its first rows.
        input_ids = tokenize_prompts(self.tokenizer, prompts, self.transformer.config.max_text_length)
        prefix = None if image is None else self.pixels_to_prefix(image, prefix_rows, len(prompts))

        best = BestCandidates(len(prompts), keep=num_images_per_prompt)
        judge = self._judge(prompts, input_ids)
        drawn_positions = self.num_timesteps - prefix_rows * self.transformer.config.image_grid_size
        num_rows = len(prompts) * num_candidates
        self._interrupt = False
        with (
            StepReporter(self, num_rows * drawn_positions, callback_on_step_end) as report,
            keep_finished(best, num_rows),
        ):
            for chunk in chunks:
                chunk_seeds = [seeds[p][c] for p, c in chunk.pairs()]
                # 2. Tokens to codes, one after the other.
                indices = self.tokens_to_codes(input_ids, chunk, chunk_seeds, prefix, sampling, report)
                # 3. Codes to pixels.
                pixels = self.codes_to_pixels(indices)
                # 4. CLIP ranks, and the best are kept.
                scores = judge.scores(pixels, chunk) if judge is not None else [None] * len(pixels)
                pixels, indices = pixels.cpu(), indices.cpu()
                for row, (p, c) in enumerate(chunk.pairs()):
                    best.offer(Candidate(p, c, scores[row], chunk_seeds[row], indices[row], pixels[row]))
        self.maybe_free_model_hooks()
        return self._output(best, prompts, output_type, return_dict)

    def tokens_to_codes(
        self,
        input_ids: torch.Tensor,
        chunk: Chunk,
        seeds: Sequence[int],
        prefix: torch.Tensor | None,
        sampling: dict[str, Any],
        callback: Callable[[DecodingStep], None] | None = None,
    ) -> torch.Tensor:
        """Draws the codes `(candidates, h, w)` of one chunk with the transformer."""
        transformer = self._on_device("transformer")
        prompts = slice(chunk.prompts.start, chunk.prompts.stop)
        if prefix is not None and len(prefix) > 1:
            prefix = prefix[prompts]
        return transformer.generate(
            input_ids[prompts].to(self._execution_device),
            num_candidates=len(chunk.candidates),
            uniforms=seed_uniforms(seeds, self.num_timesteps),
            prefix_indices=prefix,
            callback=callback,
            **sampling,
        )

    def codes_to_pixels(self, indices: torch.Tensor) -> torch.Tensor:
        """Decodes codes `(B, h, w)` to pictures `(B, 3, H, W)`, float32 in [0, 1]."""
        return self._on_device("dvae").decode(indices).float()

    def pixels_to_prefix(self, image: Any, prefix_rows: int, num_prompts: int) -> torch.Tensor:
        """The codes `(1 or P, prefix_rows, w)` of the first rows of the pictures to be completed."""
        pixels = read_pictures(image, num_prompts, self.dvae.config.image_size)
        return self._on_device("dvae").encode(pixels.to(self._execution_device))[:, :prefix_rows]

    def _check_counts(self, num_candidates: int, num_images_per_prompt: int, batch_size: int | None) -> int:
        """The number of candidates to draw of each prompt."""
        counts = {"num_candidates": num_candidates, "num_images_per_prompt": num_images_per_prompt}
        if batch_size is not None:
            counts["batch_size"] = batch_size
        for name, count in counts.items():
            if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_COUNT:
                raise ValueError(f"{name} must be an integer from 1 to {MAX_COUNT:,}, got {count!r}.")
        if num_candidates == 1:
            return num_images_per_prompt
        if num_images_per_prompt > num_candidates:
            raise ValueError(
                f"num_images_per_prompt={num_images_per_prompt} pictures cannot be kept of "
                f"num_candidates={num_candidates}."
            )
        if self.clip is None and num_candidates > num_images_per_prompt:
            raise ValueError(
                f"num_candidates={num_candidates} pictures would be drawn to keep num_images_per_prompt="
                f"{num_images_per_prompt}, but this pipeline has no clip to choose by: load it with one, or ask for "
                "equal numbers."
            )
        return num_candidates

    def _check_options(self, image: Any, prefix_rows: int, output_type: str) -> None:
        grid = self.transformer.config.image_grid_size
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type must be one of {', '.join(map(repr, OUTPUT_TYPES))}, got {output_type!r}.")
        if isinstance(prefix_rows, bool) or not isinstance(prefix_rows, int) or not 0 <= prefix_rows < grid:
            raise ValueError(
                f"prefix_rows must be an integer from 0 to {grid - 1}: of {grid} rows of codes at least one is drawn; "
                f"got {prefix_rows!r}."
            )
        if (image is None) != (prefix_rows == 0):
            given = f"prefix_rows={prefix_rows} without image" if image is None else "image with prefix_rows=0"
            raise ValueError(f"to complete a picture, give image and prefix_rows of 1 to {grid - 1}; got {given}.")

    def _default_batch_size(self, guidance_scale: float) -> int:
        """What the transformer takes at a time, and no more pictures than CLIP and the dvae take together."""
        fitting = default_batch_size(self.transformer.config, torch.device(self._execution_device))
        return max(1, min(MAX_BATCH, fitting if guidance_scale == 1 else fitting // 2))

    def _judge(self, prompts: list[str], input_ids: torch.Tensor) -> GuardedReranker | None:
        if self.clip is None:
            return None
        reranker = Reranker(self._on_device("clip"), self.clip_processor)
        return GuardedReranker(reranker, prompts, input_ids, self.tokenizer.pad_token_id)

    def _output(
        self, best: BestCandidates, prompts: list[str], output_type: str, return_dict: bool
    ) -> DallePipelineOutput | tuple:
        kept = list(best)
        pixels = torch.stack([candidate.pixels for candidate in kept])
        images: Any = self.image_processor.postprocess(pixels, output_type, do_denormalize=[False] * len(kept))
        output = DallePipelineOutput(
            images=images,
            clip_scores=[candidate.score for candidate in kept],
            indices=torch.stack([candidate.indices for candidate in kept]),
            seeds=[candidate.seed for candidate in kept],
            prompts=[prompts[candidate.prompt_index] for candidate in kept],
        )
        return output if return_dict else output.to_tuple()
