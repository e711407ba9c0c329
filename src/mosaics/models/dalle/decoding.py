"""Sampling the image tokens of the DALL-E transformer, one after the other."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch

from mosaics.models.dalle.configuration_dalle import DalleTransformerConfig
from mosaics.sampling import candidate_uniforms, check_sampling, draw, guide

if TYPE_CHECKING:
    from mosaics.models.dalle.modeling_dalle import DalleTransformer


class DecodingStep(NamedTuple):
    """What the `callback` of `generate` is told after each token of a batch of candidates."""

    position: int  # raster position of the token just drawn
    num_positions: int  # image tokens of a picture
    num_finished: int  # candidates whose pictures were complete before this batch: the first rows of `tokens`
    num_in_batch: int  # candidates of this batch
    tokens: torch.LongTensor  # (candidates, image tokens), the buffer that is being filled, on the device


class GenerationRequest:
    """The checked arguments of `generate`, one row of everything for each of the P * C candidates."""

    def __init__(
        self,
        config: DalleTransformerConfig,
        *,
        input_ids: torch.LongTensor,
        num_candidates: int,
        uniforms: torch.FloatTensor | None,
        seed: int | None,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        guidance_scale: float,
        prefix_indices: torch.LongTensor | None,
        batch_size: int | None,
    ):
        _check_count("num_candidates", num_candidates)
        check_sampling(temperature, top_k, top_p, config.image_vocab_size)
        if not (isinstance(guidance_scale, (int, float)) and 0 <= guidance_scale < float("inf")):
            raise ValueError(f"guidance_scale must be a finite number of at least 0, got {guidance_scale!r}.")
        self.config = config
        self.input_ids = input_ids
        self.num_candidates = num_candidates
        self.num_rows = len(input_ids) * num_candidates
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.guidance_scale = guidance_scale
        self.uniforms = self._uniforms(uniforms, seed)
        self.prefix = self._prefix(prefix_indices)
        if batch_size is not None:
            _check_count("batch_size", batch_size)
        self.batch_size = min(batch_size or self.num_rows, self.num_rows)

    @property
    def guided(self) -> bool:
        """Whether every candidate has an unconditional twin."""
        return self.guidance_scale != 1

    def _uniforms(self, uniforms: torch.FloatTensor | None, seed: int | None) -> torch.FloatTensor:
        shape = (self.num_rows, self.config.num_image_tokens)
        if uniforms is None:
            if seed is None:
                seed = int(torch.randint(2**62, ()))
            prompts = [row // self.num_candidates for row in range(self.num_rows)]
            candidates = [row % self.num_candidates for row in range(self.num_rows)]
            return candidate_uniforms(seed, prompts, candidates, shape[1])
        if seed is not None:
            raise ValueError("Give uniforms or seed, not both: the seed only serves to draw the uniforms.")
        if uniforms.shape != shape or not uniforms.is_floating_point():
            raise ValueError(
                f"uniforms must be floats of shape (prompts * num_candidates, image tokens) = {shape}, got "
                f"{uniforms.dtype} of shape {tuple(uniforms.shape)}."
            )
        if not bool(((uniforms >= 0) & (uniforms < 1)).all()):
            raise ValueError("uniforms must be in [0, 1), without NaN.")
        return uniforms.float()

    def _prefix(self, prefix_indices: torch.LongTensor | None) -> torch.LongTensor | None:
        """The given first tokens of each candidate, (P * C, rows * W)."""
        if prefix_indices is None:
            return None
        grid, prompts = self.config.image_grid_size, len(self.input_ids)
        rows = prefix_indices[None] if prefix_indices.dim() == 2 else prefix_indices
        if rows.dim() != 3 or rows.shape[2] != grid or len(rows) not in (1, prompts, self.num_rows):
            raise ValueError(
                f"prefix_indices must be of shape (rows, {grid}), ({prompts}, rows, {grid}), one for each prompt, or "
                f"({self.num_rows}, rows, {grid}), one for each candidate; got {tuple(prefix_indices.shape)}."
            )
        if rows.shape[1] >= grid:
            raise ValueError(
                f"prefix_indices must leave at least one of the {grid} rows to draw, got {rows.shape[1]} rows."
            )
        check_tokens("prefix_indices", rows.cpu(), self.config.image_vocab_size, "image_vocab_size")
        return rows.repeat_interleave(self.num_rows // len(rows), dim=0).flatten(start_dim=1).long()


def decode(
    model: "DalleTransformer", request: GenerationRequest, callback: Callable[[DecodingStep], None] | None
) -> torch.LongTensor:
    """Draws the tokens of all candidates, `request.batch_size` of them at a time."""
    device = model.image_head.weight.device
    config = model.config
    tokens = torch.zeros(request.num_rows, config.num_image_tokens, dtype=torch.long, device=device)
    first = 0
    if request.prefix is not None:
        first = request.prefix.shape[1]
        tokens[:, :first] = request.prefix.to(device)
    uniforms = request.uniforms.to(device)
    for start in range(0, request.num_rows, request.batch_size):
        rows = slice(start, min(start + request.batch_size, request.num_rows))
        prompts = torch.arange(rows.start, rows.stop, device=device) // request.num_candidates
        text = request.input_ids.to(device)[prompts]
        for position in range(first, config.num_image_tokens):
            logits = model.image_head(model.hidden_states(text, tokens[rows, :position])[:, -1])
            if request.guided:
                pads = torch.full_like(text, config.pad_token_id)
                unconditional = model.image_head(model.hidden_states(pads, tokens[rows, :position])[:, -1])
                logits = guide(logits, unconditional, request.guidance_scale)
            tokens[rows, position] = draw(
                logits, uniforms[rows, position], request.temperature, request.top_k, request.top_p
            )
            if callback is not None:
                callback(DecodingStep(position, config.num_image_tokens, rows.start, rows.stop - rows.start, tokens))
    return tokens.view(-1, config.image_grid_size, config.image_grid_size)


def _check_count(name: str, count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {count!r}.")


def check_tokens(name: str, tokens: torch.Tensor, vocab_size: int, field: str) -> None:
    """Raises if `tokens` are not integers below `vocab_size`; their range is read on the CPU only."""
    if tokens.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name} must be int64 (torch.long), got {tokens.dtype}.")
    if tokens.device.type != "cpu" or torch.compiler.is_compiling() or not tokens.numel():
        return
    low, high = (int(bound) for bound in tokens.aminmax())
    if low < 0 or high >= vocab_size:
        raise ValueError(f"{name} must be from 0 to {field} - 1 = {vocab_size - 1}, got values from {low} to {high}.")
