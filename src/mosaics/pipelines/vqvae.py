"""VQ-VAE and VQ-VAE-2 from end to end: codes drawn from the priors, level by level, and decoded to pictures."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from transformers import PreTrainedModel

from mosaics.models.pixelcnn.decoding import default_batch_size
from mosaics.models.weights_check import check_saved_weights, refuse_nonfinite
from mosaics.pipelines.best_candidates import BestCandidates, Candidate
from mosaics.pipelines.chunks import cut_into_chunks
from mosaics.pipelines.class_labels import label_names, read_class_labels
from mosaics.pipelines.levels import (
    check_classifier,
    check_priors,
    check_tokenizer,
    is_hierarchical,
    prior_name,
    tokenizer_levels,
    upper_levels,
)
from mosaics.pipelines.pictures import read_squares, to_channels
from mosaics.pipelines.pretrained import PretrainedPipelineMixin
from mosaics.pipelines.prompts import read_pictures
from mosaics.pipelines.rejection import ClassJudge
from mosaics.pipelines.running import StepReporter, keep_finished
from mosaics.pipelines.seeds import resolve_seeds, seed_uniforms
from mosaics.pipelines.vqvae_arguments import check_completion, check_count, check_output_type, count_candidates
from mosaics.pipelines.vqvae_output import ReconstructionOutput, VQVAEPipelineOutput
from mosaics.sampling import check_sampling

MAX_BATCH = 64
MAX_LEVELS = 5


# pyrefly: ignore[inconsistent-inheritance] - the mixin's methods call diffusers'
class VQVAEPipeline(PretrainedPipelineMixin, DiffusionPipeline):
    r"""Pictures from an image tokenizer and its priors, with or without classes.

    *Neural Discrete Representation Learning* (https://arxiv.org/abs/1711.00937) draws the codes of one grid from a
    PixelCNN; *Generating Diverse High-Fidelity Images with VQ-VAE-2* (https://arxiv.org/abs/1906.00446) draws those of
    several, from the top down, each conditioned on the grids above:

        p(z_top | class)  p(z_2 | z_top, class)  ...,  picture = decode(z_top, z_2, ...)

    All models are put into evaluation mode.

    Args:
        vqvae: The image tokenizer: [`VQVAE2`], [`VQVAE`] or [`DiscreteVAE`].
        prior: [`PixelCNN`] of its only or its top grid.
        prior_2: [`PixelCNN`] of the grid below, conditioned on the top one, if the tokenizer has it; and so on.
        prior_3: As `prior_2`, one level further down.
        prior_4: As `prior_2`, two levels further down.
        prior_5: As `prior_2`, three levels further down.
        classifier: transformers' image classification model, which chooses among candidates; optional.
        classifier_processor: Its image processor. Without one it reads the pictures' pixels in [0, 1] as they are.

    Raises:
        ComponentsDisagreeError: Parts that were not made for each other.

    Example:
    ```python
    >>> from mosaics import VQVAEPipeline

    >>> pipe = VQVAEPipeline.from_pretrained("user/vqvae2")  # doctest: +SKIP
    >>> pipe("lion", num_candidates=64, num_images=4, seed=0).images[0].save("lion.png")  # doctest: +SKIP

    ```
    """

    model_cpu_offload_seq = "prior->prior_2->prior_3->prior_4->prior_5->vqvae->classifier"
    _optional_components = [  # noqa: RUF012 - the form diffusers expects
        "prior_2",
        "prior_3",
        "prior_4",
        "prior_5",
        "classifier",
        "classifier_processor",
    ]
    _callback_tensor_inputs = ["indices"]  # noqa: RUF012 (the form the library expects)

    def __init__(
        self,
        vqvae: PreTrainedModel,
        prior: PreTrainedModel,
        prior_2: PreTrainedModel | None = None,
        prior_3: PreTrainedModel | None = None,
        prior_4: PreTrainedModel | None = None,
        prior_5: PreTrainedModel | None = None,
        classifier: PreTrainedModel | None = None,
        classifier_processor: Any | None = None,
    ):
        super().__init__()
        check_tokenizer(vqvae)
        check_priors(vqvae, (prior, prior_2, prior_3, prior_4, prior_5))
        if classifier is None and classifier_processor is not None:
            raise TypeError("classifier_processor was given without a classifier.")
        self.register_modules(
            vqvae=vqvae,
            prior=prior,
            prior_2=prior_2,
            prior_3=prior_3,
            prior_4=prior_4,
            prior_5=prior_5,
            classifier=classifier,
            classifier_processor=classifier_processor,
        )
        if classifier is not None:
            check_classifier(classifier, classifier_processor, vqvae.config, self.num_classes, self.class_names)
            check_saved_weights(classifier)
            refuse_nonfinite(classifier.state_dict(), "classifier")
        for model in (vqvae, *self.priors, classifier):
            if model is not None:
                model.eval()
        self.image_processor = VaeImageProcessor(do_normalize=False)
        self._interrupt = False

    @property
    def priors(self) -> tuple[PreTrainedModel, ...]:
        """The prior of each level, top first."""
        priors = (getattr(self, prior_name(number)) for number in range(MAX_LEVELS))
        return tuple(prior for prior in priors if prior is not None)

    @property
    def grid_sizes(self) -> tuple[int, ...]:
        """Positions along one side of the grid of each level, top first."""
        return tuple(level.side for level in tokenizer_levels(self.vqvae))

    @property
    def num_codes(self) -> tuple[int, ...]:
        """Codes of the grid of each level, top first."""
        return tuple(level.num_codes for level in tokenizer_levels(self.vqvae))

    @property
    def num_classes(self) -> int | None:
        """Classes the priors know; `None` if none."""
        return next((prior.config.num_classes for prior in self.priors if prior.config.num_classes), None)

    @property
    def class_names(self) -> dict[int, str]:
        """The names of the classes, from the priors' `config.id2label`; empty if they have none."""
        conditional = (prior.config for prior in self.priors if prior.config.num_classes)
        return next((names for config in conditional if (names := label_names(config))), {})

    @property
    def interrupt(self) -> bool:
        """Set `pipe._interrupt = True` in a callback to stop; finished candidates are returned."""
        return self._interrupt

    @property
    def num_timesteps(self) -> int:
        """Codes drawn for each picture, on all levels, one step each."""
        return sum(self.num_codes)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | str | Sequence[int | str] | None = None,
        num_images: int = 1,
        num_candidates: int = 1,
        image: Any = None,
        prefix_rows: int = 0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | Sequence[int] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        batch_size: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, int, dict], dict] | None = None,
    ) -> VQVAEPipelineOutput | tuple:
        r"""Draws pictures.

        Args:
            class_labels: A class or several, by number or by name (`class_names`), if the priors know classes.
            num_images: Pictures returned of each class.
            num_candidates: Pictures drawn of each class; of these the `num_images` whose class is most probable to the
                classifier are kept. 1 stands for "no choice": as many as `num_images`.
            image: A picture to complete, of the size the pipeline draws; one for all classes or one each.
            prefix_rows: How many of the first rows of its top grid of codes are kept, and the same part of the lower
                grids.
            temperature: Divides the logits; 0 takes the most likely code.
            top_k: Draw from the `top_k` most likely codes only.
            top_p: Draw from the smallest set of most likely codes that holds this probability.
            seed: 0 to 2**64 - 1, or one for each class or candidate. Candidate i of a seed is the same picture in any
                batch size.
            generator: Draws the seed instead; a list gives one seed each.
            batch_size: Candidates computed at a time, which bounds the memory; chosen by the caches' size if none.
            output_type: `"pil"`, `"np"` or `"pt"`.
            return_dict: A tuple (images, indices, seeds, class_labels, scores) if `False`.
            callback_on_step_end: Called after every code as `callback(pipe, step, timestep, {"indices": ...})`: `step`
                counts through the call, `timestep` through the codes of a picture, top level first, `indices` are the
                codes `(candidates in batch, positions)` so far of the level being drawn.

        Returns:
            [`VQVAEPipelineOutput`]. If the call is interrupted (Ctrl-C, `_interrupt`, out of memory) after some
            candidates are finished, those, with a warning.

        Raises:
            ValueError: An argument is out of range; the message names it.
        """
        labels = read_class_labels(class_labels, self.num_classes, self.class_names)
        num_candidates = count_candidates(num_candidates, num_images, has_classifier=self.classifier is not None)
        check_sampling(temperature, top_k, top_p, self.vqvae.config.num_embeddings)
        check_completion(image, prefix_rows, self.grid_sizes[0])
        check_output_type(output_type, self.vqvae.config.num_channels)
        if batch_size is not None:
            check_count("batch_size", batch_size)
        seeds = resolve_seeds(seed, generator, len(labels), num_candidates, prompts="classes")

        batch_size = batch_size or self._default_batch_size()
        sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p}

        # 1. The picture to be completed to the codes of its first rows.
        prefix = None if image is None else self._prefix(image, prefix_rows, len(labels))

        best = BestCandidates(len(labels), keep=num_images)
        judge = None
        if self.classifier is not None:
            judge = ClassJudge(self.classifier, self.classifier_processor)
        given_rows = self._prefix_rows(prefix_rows)
        levels = tokenizer_levels(self.vqvae)
        drawn = sum(
            level.num_codes * (level.side - rows) // level.side for level, rows in zip(levels, given_rows, strict=True)
        )
        num_rows = len(labels) * num_candidates
        self._interrupt = False
        with (
            StepReporter(self, num_rows * drawn, callback_on_step_end) as report,
            keep_finished(best, num_rows),
        ):
            for chunk in cut_into_chunks(len(labels), num_candidates, batch_size):
                pairs = list(chunk.pairs())
                chunk_labels, chunk_seeds = [labels[p] for p, _ in pairs], [seeds[p][c] for p, c in pairs]
                given = None if prefix is None else [_rows_of(grid, [p for p, _ in pairs]) for grid in prefix]
                # 2. Codes, from the top grid down, one after the other.
                indices = self.draw_codes(chunk_labels, chunk_seeds, given, sampling, report)
                # 3. Codes to pixels.
                pixels = self.codes_to_pixels(indices).cpu()
                # 4. The classifier ranks, and the best are kept.
                scores = [None] * len(pairs) if judge is None else judge.scores(pixels, chunk_labels)
                flat = torch.cat([grid.flatten(1) for grid in indices], dim=1).cpu()
                for row, (p, c) in enumerate(pairs):
                    best.offer(Candidate(p, c, scores[row], chunk_seeds[row], flat[row], pixels[row]))
        self.maybe_free_model_hooks()
        return self._output(best, labels, output_type, return_dict)

    @torch.no_grad()
    def reconstruct(
        self, images: Any, batch_size: int = 16, output_type: str = "pil", return_dict: bool = True
    ) -> ReconstructionOutput | tuple:
        """Encodes and decodes pictures: what the tokenizer keeps of them.

        Args:
            images: A picture or several (PIL, path, array, float tensor); the central square is resized to the size
                the tokenizer is meant for.
            batch_size: Pictures computed at a time.
            output_type: `"pil"`, `"np"` or `"pt"`.
            return_dict: A tuple (images, indices) if `False`.

        Returns:
            [`ReconstructionOutput`].
        """
        check_count("batch_size", batch_size)
        check_output_type(output_type, self.vqvae.config.num_channels)
        pixels = read_squares(images, self.vqvae.config.image_size)
        all_pixels, all_indices = [], []
        for batch in pixels.split(batch_size):
            indices = self.pixels_to_codes(batch)
            all_pixels.append(self.codes_to_pixels(indices).cpu())
            all_indices.append([grid.cpu() for grid in indices])
        self.maybe_free_model_hooks()
        output = ReconstructionOutput(
            images=self._postprocess(torch.cat(all_pixels), output_type),
            indices=tuple(torch.cat(grids) for grids in zip(*all_indices, strict=True)),
        )
        return output if return_dict else output.to_tuple()

    def draw_codes(
        self,
        class_labels: Sequence[int | None],
        seeds: Sequence[int],
        prefix: Sequence[torch.Tensor] | None,
        sampling: dict[str, Any],
        report: StepReporter | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Draws the codes of candidates from the priors: a grid `(candidates, h, w)` for each level, top first.

        A tokenizer with several codes at each position has them in one more axis, `(candidates, h, w, L)`.
        """
        uniforms = seed_uniforms(seeds, self.num_timesteps).split(self.num_codes, dim=1)
        grids, first_step = [], 0
        for number in range(len(self.grid_sizes)):
            prior = self._on_device(prior_name(number))

            def advance(step: Any, first_step: int = first_step) -> None:
                if report is not None:
                    report.advance(first_step + step.position, step.indices)

            grids.append(
                prior.generate(
                    len(seeds),
                    class_labels=None if prior.config.num_classes is None else torch.tensor(class_labels),
                    conditions=tuple(grids[above] for above in upper_levels(prior.config, number)) or None,
                    uniforms=uniforms[number],
                    prefix_indices=None if prefix is None else prefix[number],
                    batch_size=len(seeds),
                    callback=advance,
                    **sampling,
                )
            )
            first_step += self.num_codes[number]
        return tuple(grids)

    def codes_to_pixels(self, indices: Sequence[torch.Tensor]) -> torch.Tensor:
        """Decodes one grid of codes `(B, h, w)` for each level, top first, to pictures, float32 in [0, 1]."""
        vqvae = self._on_device("vqvae")
        grids = tuple(grid.to(self._execution_device) for grid in indices)
        return vqvae.decode(grids if is_hierarchical(vqvae) else grids[0]).float()

    def pixels_to_codes(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Encodes colour pictures `(B, 3, H, W)` in [0, 1] to one grid of codes for each level, top first."""
        vqvae = self._on_device("vqvae")
        pixels = to_channels(pixels, vqvae.config.num_channels)
        indices = vqvae.encode(pixels.to(self._execution_device))
        return tuple(indices) if is_hierarchical(vqvae) else (indices,)

    def _prefix_rows(self, prefix_rows: int) -> tuple[int, ...]:
        """The rows of each grid that show the same part of the picture as those of the top grid."""
        top = self.grid_sizes[0]
        return tuple(prefix_rows * side // top for side in self.grid_sizes)

    def _prefix(self, image: Any, prefix_rows: int, num_labels: int) -> tuple[torch.Tensor, ...]:
        """The codes `(1 or P, rows, w)` of the first rows of the pictures to be completed, for each level."""
        pixels = read_pictures(image, num_labels, self.vqvae.config.image_size, prompts="classes")
        grids = self.pixels_to_codes(pixels)
        return tuple(grid[:, :rows] for grid, rows in zip(grids, self._prefix_rows(prefix_rows), strict=True))

    def _default_batch_size(self) -> int:
        """What every prior takes at a time, and no more pictures than the tokenizer and the classifier do."""
        device = torch.device(self._execution_device)
        configs: list[Any] = [prior.config for prior in self.priors]
        sizes = (default_batch_size(config, config.grid_size, device) for config in configs)
        return min(MAX_BATCH, *sizes)

    def _postprocess(self, pixels: torch.Tensor, output_type: str) -> Any:
        return self.image_processor.postprocess(pixels, output_type, do_denormalize=[False] * len(pixels))

    def _output(
        self, best: BestCandidates, labels: list[int | None], output_type: str, return_dict: bool
    ) -> VQVAEPipelineOutput | tuple:
        kept = list(best)
        levels = tokenizer_levels(self.vqvae)
        flat = torch.stack([candidate.indices for candidate in kept]).split(self.num_codes, dim=1)
        output = VQVAEPipelineOutput(
            images=self._postprocess(torch.stack([candidate.pixels for candidate in kept]), output_type),
            indices=tuple(grid.unflatten(1, level.shape) for grid, level in zip(flat, levels, strict=True)),
            seeds=[candidate.seed for candidate in kept],
            class_labels=[labels[candidate.prompt_index] for candidate in kept],
            scores=[candidate.score for candidate in kept],
        )
        return output if return_dict else output.to_tuple()


def _rows_of(grid: torch.Tensor, numbers: list[int]) -> torch.Tensor:
    """The given rows of `(P, h, w, ...)`; the only one for each if it has one."""
    return grid[numbers if len(grid) > 1 else [0] * len(numbers)]
