"""The VQ-VAE of sound from end to end: codes drawn from the prior, and decoded to waveforms."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from transformers import PreTrainedModel

from mosaics.pipelines.audio_vqvae_output import AudioReconstructionOutput, AudioVQVAEPipelineOutput
from mosaics.pipelines.chunks import cut_into_chunks
from mosaics.pipelines.class_labels import label_names, read_class_labels
from mosaics.pipelines.levels import check_sequence_prior
from mosaics.pipelines.pretrained import PretrainedPipelineMixin
from mosaics.pipelines.running import StepReporter, keep_finished
from mosaics.pipelines.seeds import resolve_seeds, seed_uniforms
from mosaics.pipelines.vqvae_arguments import check_count
from mosaics.pipelines.waveforms import check_seconds, read_waveforms
from mosaics.sampling import check_sampling

BATCH_SIZE = 16
OUTPUT_TYPES = ("np", "pt")


# pyrefly: ignore[inconsistent-inheritance] - the mixin's methods call diffusers'
class AudioVQVAEPipeline(PretrainedPipelineMixin, DiffusionPipeline):
    r"""Sounds from an audio VQ-VAE and a WaveNet over its codes, with or without classes such as speakers.

    *Neural Discrete Representation Learning* (https://arxiv.org/abs/1711.00937), Section 4.3: a sequence of codes is
    drawn from p(z | class), code by code, and decoded. All models are put into evaluation mode.

    Args:
        vqvae: [`AudioVQVAE`].
        prior: [`WaveNet`] over its codes.

    Raises:
        ComponentsDisagreeError: Parts that were not made for each other.

    Example:
    ```python
    >>> from mosaics import AudioVQVAEPipeline
    >>> from mosaics.data import write_sound

    >>> pipe = AudioVQVAEPipeline.from_pretrained("user/speech")  # doctest: +SKIP
    >>> output = pipe("p225", num_sounds=2, audio_length_in_s=4.0, seed=0)  # doctest: +SKIP
    >>> write_sound("sound.wav", output.audios[0], output.sampling_rate)  # doctest: +SKIP

    ```
    """

    model_cpu_offload_seq = "prior->vqvae"
    _callback_tensor_inputs = ["indices"]  # noqa: RUF012 - the form diffusers expects

    def __init__(self, vqvae: PreTrainedModel, prior: PreTrainedModel):
        super().__init__()
        sizes = ("sampling_rate", "downsample_factor", "num_embeddings")
        if not all(hasattr(getattr(vqvae, "config", None), name) for name in sizes):
            raise TypeError(f"vqvae must be an AudioVQVAE, got {type(vqvae).__name__}.")
        check_sequence_prior(vqvae, prior)
        self.register_modules(vqvae=vqvae.eval(), prior=prior.eval())
        self._interrupt = False

    @property
    def sampling_rate(self) -> int:
        """Samples a second of the sounds, in Hz."""
        return self.vqvae.config.sampling_rate

    @property
    def num_classes(self) -> int | None:
        """Classes the prior knows; `None` if none."""
        return self.prior.config.num_classes

    @property
    def class_names(self) -> dict[int, str]:
        """The names of the classes, from the prior's `config.id2label`; empty if they have none."""
        return label_names(self.prior.config) if self.num_classes else {}

    @property
    def interrupt(self) -> bool:
        """Set `pipe._interrupt = True` in a callback to stop; finished sounds are returned."""
        return self._interrupt

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | str | Sequence[int | str] | None = None,
        num_sounds: int = 1,
        audio_length_in_s: float = 1.0,
        audio: Any = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | Sequence[int] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        batch_size: int = BATCH_SIZE,
        output_type: str = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, int, dict], dict] | None = None,
    ) -> AudioVQVAEPipelineOutput | tuple:
        r"""Draws sounds.

        Args:
            class_labels: A class or several, by number or by name (`class_names`), if the prior knows classes.
            num_sounds: Sounds of each class.
            audio_length_in_s: Length of a sound in seconds, rounded up to whole codes; the given beginning counts.
            audio: The beginning of a sound, to be continued: a file of the pipeline's sampling rate, or a waveform
                `(samples,)` in [-1, 1]; one for all classes, or one each of equal length. What fills no whole code
                at its end is dropped.
            temperature: Divides the logits; 0 takes the most likely code.
            top_k: Draw from the `top_k` most likely codes only.
            top_p: Draw from the smallest set of most likely codes that holds this probability.
            seed: 0 to 2**64 - 1, or one for each class or sound. Sound i of a seed is the same in any batch size.
            generator: Draws the seed instead; a list gives one seed each.
            batch_size: Sounds computed at a time, which bounds the memory.
            output_type: `"np"` or `"pt"`.
            return_dict: A tuple (audios, sampling_rate, indices, seeds, class_labels) if `False`.
            callback_on_step_end: Called after every code as `callback(pipe, step, timestep, {"indices": ...})`: `step`
                counts through the call, `timestep` through the codes of a sound, `indices` are the codes so far.

        Returns:
            [`AudioVQVAEPipelineOutput`]. If the call is interrupted (Ctrl-C, `_interrupt`, out of memory) after some
            sounds are finished, those, with a warning.

        Raises:
            ValueError: An argument is out of range; the message names it.
        """
        labels = read_class_labels(class_labels, self.num_classes, self.class_names)
        for name, count in (("num_sounds", num_sounds), ("batch_size", batch_size)):
            check_count(name, count)
        check_sampling(temperature, top_k, top_p, self.vqvae.config.num_embeddings)
        check_seconds("audio_length_in_s", audio_length_in_s)
        _check_output_type(output_type)
        seeds = resolve_seeds(seed, generator, len(labels), num_sounds, prompts="classes")
        length = math.ceil(audio_length_in_s * self.sampling_rate / self.vqvae.config.downsample_factor)

        # 1. The beginning to codes.
        prefix = None if audio is None else self._prefix(audio, len(labels), length)

        num_given = 0 if prefix is None else prefix.shape[1]
        finished, num_rows = _FinishedSounds(), len(labels) * num_sounds
        self._interrupt = False
        with (
            StepReporter(self, num_rows * (length - num_given), callback_on_step_end) as report,
            keep_finished(finished, num_rows),
        ):
            for chunk in cut_into_chunks(len(labels), num_sounds, batch_size):
                pairs = list(chunk.pairs())
                chunk_seeds = [seeds[prompt][number] for prompt, number in pairs]
                # 2. Codes, one after the other.
                indices = self._on_device("prior").generate(
                    len(pairs),
                    length,
                    class_labels=None if self.num_classes is None else torch.tensor([labels[p] for p, _ in pairs]),
                    uniforms=seed_uniforms(chunk_seeds, length),
                    prefix_indices=None if prefix is None else prefix[[p % len(prefix) for p, _ in pairs]],
                    temperature=temperature,
                    top_k=top_k,
                    top_p=top_p,
                    batch_size=len(pairs),
                    callback=lambda step: report.advance(step.position, step.indices),
                )
                # 3. Codes to samples of sound.
                finished.add(self.codes_to_waveforms(indices), indices, chunk_seeds, [labels[p] for p, _ in pairs])
        self.maybe_free_model_hooks()
        output = AudioVQVAEPipelineOutput(
            audios=_converted(torch.cat(finished.waveforms), output_type),
            sampling_rate=self.sampling_rate,
            indices=torch.cat(finished.indices),
            seeds=finished.seeds,
            class_labels=finished.class_labels,
        )
        return output if return_dict else output.to_tuple()

    @torch.no_grad()
    def reconstruct(
        self, audio: Any, batch_size: int = BATCH_SIZE, output_type: str = "np", return_dict: bool = True
    ) -> AudioReconstructionOutput | tuple:
        """Encodes and decodes sounds: what the tokenizer keeps of them.

        Args:
            audio: A file of the pipeline's sampling rate or a waveform `(samples,)` in [-1, 1], or several of equal
                length.
            batch_size: Sounds computed at a time.
            output_type: `"np"` or `"pt"`.
            return_dict: A tuple (audios, sampling_rate, indices) if `False`.

        Returns:
            [`AudioReconstructionOutput`] with sounds of the given length; silence fills up the last code.
        """
        check_count("batch_size", batch_size)
        _check_output_type(output_type)
        waveforms = read_waveforms(audio, self.sampling_rate)
        padded = F.pad(waveforms, (0, -waveforms.shape[1] % self.vqvae.config.downsample_factor))
        indices = [self.waveforms_to_codes(batch) for batch in padded.split(batch_size)]
        decoded = torch.cat([self.codes_to_waveforms(codes) for codes in indices])
        self.maybe_free_model_hooks()
        output = AudioReconstructionOutput(
            audios=_converted(decoded[:, : waveforms.shape[1]], output_type),
            sampling_rate=self.sampling_rate,
            indices=torch.cat(indices).cpu(),
        )
        return output if return_dict else output.to_tuple()

    def codes_to_waveforms(self, indices: torch.Tensor) -> torch.Tensor:
        """Decodes codes `(B, t)` to waveforms `(B, samples)`, float32 in [-1, 1], on the CPU."""
        return self._on_device("vqvae").decode(indices.to(self._execution_device)).float().squeeze(1).cpu()

    def waveforms_to_codes(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Encodes waveforms `(B, samples)` in [-1, 1] to codes `(B, t)`."""
        return self._on_device("vqvae").encode(waveforms.to(self._execution_device))

    def _prefix(self, audio: Any, num_labels: int, length: int) -> torch.Tensor:
        """The codes `(1 or P, n)` of the beginnings."""
        waveforms = read_waveforms(audio, self.sampling_rate, num_labels)
        factor = self.vqvae.config.downsample_factor
        num_codes = waveforms.shape[1] // factor
        if not 1 <= num_codes < length:
            raise ValueError(
                f"audio has {waveforms.shape[1]} samples, {num_codes} whole codes of {factor}; give 1 to {length - 1} "
                f"codes, or a longer audio_length_in_s: the whole sound has {length}."
            )
        return self.waveforms_to_codes(waveforms[:, : num_codes * factor])


class _FinishedSounds:
    """The sounds that are drawn and decoded, in order."""

    def __init__(self) -> None:
        self.num_offered = 0
        self.waveforms: list[torch.Tensor] = []
        self.indices: list[torch.Tensor] = []
        self.seeds: list[int] = []
        self.class_labels: list[int | None] = []

    def add(
        self,
        waveforms: torch.Tensor,
        indices: torch.Tensor,
        seeds: Sequence[int],
        class_labels: Sequence[int | None],
    ) -> None:
        """Takes in those of a batch."""
        self.waveforms.append(waveforms)
        self.indices.append(indices.cpu())
        self.seeds.extend(seeds)
        self.class_labels.extend(class_labels)
        self.num_offered += len(seeds)


def _check_output_type(output_type: str) -> None:
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type must be one of {', '.join(map(repr, OUTPUT_TYPES))}, got {output_type!r}.")


def _converted(waveforms: torch.Tensor, output_type: str) -> np.ndarray | torch.Tensor:
    return waveforms.numpy() if output_type == "np" else waveforms
