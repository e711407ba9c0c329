"""Sampling the image tokens of the DALL-E transformer, one after the other."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from transformers import PreTrainedConfig

from mosaics.layers.inference import MIN_ROWS, row_wise_products
from mosaics.models.dalle.caches import bytes_per_candidate
from mosaics.sampling import candidate_uniforms, check_sampling, draw, guide

if TYPE_CHECKING:
    from mosaics.models.dalle.prior import TextToImagePrior
    from mosaics.models.dalle.prior_decoder import PriorDecoder


class DecodingStep(NamedTuple):
    """What the `callback` of `generate` is told after each token of a batch of candidates."""

    position: int  # raster position of the token just drawn
    num_positions: int  # image tokens of a picture
    first_row: int  # row of the result, prompt * num_candidates + candidate, of the first candidate of the batch
    tokens: torch.Tensor  # (candidates of the batch, image tokens), drawn up to `position`, on the device


class GenerationRequest:
    """The checked arguments of `generate`; uniforms and given rows by prompt and candidate."""

    def __init__(
        self,
        config: PreTrainedConfig,
        *,
        input_ids: torch.Tensor,
        num_candidates: int,
        uniforms: torch.Tensor | None,
        seed: int | None,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        guidance_scale: float,
        prefix_indices: torch.Tensor | None,
        batch_size: int | None,
    ):
        if not len(input_ids):
            raise ValueError("input_ids must hold at least one text, got none.")
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
        self.batch_size = batch_size

    @property
    def guided(self) -> bool:
        """Whether every candidate has an unconditional twin."""
        return self.guidance_scale != 1

    def _uniforms(self, uniforms: torch.Tensor | None, seed: int | None) -> torch.Tensor:
        """(P, C, image tokens)."""
        shape = (self.num_rows, self.config.num_image_tokens)
        if uniforms is None:
            if seed is None:
                seed = int(torch.randint(2**62, ()))
            prompts = [row // self.num_candidates for row in range(self.num_rows)]
            candidates = [row % self.num_candidates for row in range(self.num_rows)]
            uniforms, seed = candidate_uniforms(seed, prompts, candidates, shape[1]), None
        if seed is not None:
            raise ValueError("Give uniforms or seed, not both: the seed only serves to draw the uniforms.")
        if uniforms.shape != shape or not uniforms.is_floating_point():
            raise ValueError(
                f"uniforms must be floats of shape (prompts * num_candidates, image tokens) = {shape}, got "
                f"{uniforms.dtype} of shape {tuple(uniforms.shape)}."
            )
        if not bool(((uniforms >= 0) & (uniforms < 1)).all()):
            raise ValueError("uniforms must be in [0, 1), without NaN.")
        return uniforms.float().view(len(self.input_ids), self.num_candidates, -1)

    def _prefix(self, prefix_indices: torch.Tensor | None) -> torch.Tensor | None:
        """The given first tokens: (P, C, rows * W), or (P, 1, rows * W) if the candidates of a prompt share them."""
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
        if len(rows) == 1:
            rows = rows.expand(prompts, -1, -1)
        return rows.reshape(prompts, len(rows) // prompts, -1).long()


def decode(
    model: "TextToImagePrior",
    request: GenerationRequest,
    callback: Callable[[DecodingStep], None] | None,
    decoder_class: type["PriorDecoder"],
) -> torch.Tensor:
    """Draws the tokens of all candidates, batch by batch; a text is computed once, for all its batches.

    Args:
        model: The transformer.
        request: What to draw.
        callback: Called after each token.
        decoder_class: How the transformer computes one token at a time.
    """
    config = model.config
    device = model.image_head.weight.device
    prompts, candidates, count = len(request.input_ids), request.num_candidates, config.num_image_tokens
    tokens = torch.zeros(prompts, candidates, count, dtype=torch.long, device=device)
    batch_size = request.batch_size or default_batch_size(config, model.image_head.weight.device)
    prompts_at_once, candidates_at_once = max(1, batch_size // candidates), min(batch_size, candidates)
    with torch.autocast(device.type, enabled=False), row_wise_products(device):
        decoder = decoder_class(model)
        for prompt in range(0, prompts, prompts_at_once):
            some_prompts = slice(prompt, min(prompt + prompts_at_once, prompts))
            states = _read_texts(decoder, request, some_prompts)
            for candidate in range(0, candidates, candidates_at_once):
                some_candidates = slice(candidate, min(candidate + candidates_at_once, candidates))
                batch = CandidateBatch(request, some_prompts, some_candidates, device)
                tokens[some_prompts, some_candidates] = _draw_batch(decoder, states, batch, callback)
    return tokens.view(-1, config.image_grid_size, config.image_grid_size)


def default_batch_size(config: PreTrainedConfig, device: torch.device) -> int:
    """Candidates whose caches fit into 512 MiB on the CPU, 4 GiB elsewhere."""
    budget = 2**29 if device.type == "cpu" else 2**32
    return max(MIN_ROWS, budget // bytes_per_candidate(config, element_size=4))


class CandidateBatch:
    """Candidates that are drawn together: the same range of candidates of a range of prompts.

    Rows are prompts times `lanes`. There are as many lanes as candidates, or more if there were fewer than
    [`MIN_ROWS`][mosaics.layers.inference.MIN_ROWS] rows; the surplus lanes repeat the last candidate and are
    dropped.
    """

    def __init__(self, request: GenerationRequest, prompts: slice, candidates: slice, device: torch.device):
        self.request = request
        self.first_row = prompts.start * request.num_candidates + candidates.start
        self.prompts, self.candidates = prompts.stop - prompts.start, candidates.stop - candidates.start
        groups = self.prompts * (2 if request.guided else 1)
        self.lanes = max(self.candidates, -(-MIN_ROWS // groups))
        self.uniforms = self._lanes(request.uniforms[prompts, candidates].to(device)).flatten(end_dim=1)
        self.prefix = None
        if request.prefix is not None:
            prefix = request.prefix[prompts]
            shared = prefix.shape[1] == 1
            self.prefix = prefix.to(device) if shared else self._lanes(prefix[:, candidates].to(device))

    def _lanes(self, rows: torch.Tensor) -> torch.Tensor:
        """(prompts, candidates, n) to (prompts, lanes, n)."""
        surplus = self.lanes - self.candidates
        return torch.cat([rows, rows[:, -1:].expand(-1, surplus, -1)], dim=1) if surplus else rows

    def drop_surplus(self, tokens: torch.Tensor) -> torch.Tensor:
        """(prompts * lanes, n) to (prompts, candidates, n), a view."""
        return tokens.view(self.prompts, self.lanes, -1)[:, : self.candidates]


def _read_texts(decoder: "PriorDecoder", request: GenerationRequest, prompts: slice) -> torch.Tensor:
    """Computes the texts of some prompts, and the empty text once if guided; returns the last states (G, hidden_size).

    The groups are the prompts, followed by as many empty texts if guided.
    """
    texts = request.input_ids[prompts].to(decoder.device)
    if not request.guided:
        return decoder.read_text(texts)
    count = len(texts)
    texts = torch.cat([texts, torch.full_like(texts[:1], decoder.config.pad_token_id)])
    states = decoder.read_text(texts)
    groups = torch.tensor([*range(count), *[count] * count], device=decoder.device)
    decoder.select_texts(groups)
    return states[groups]


def _draw_batch(
    decoder: "PriorDecoder",
    states: torch.Tensor,
    batch: CandidateBatch,
    callback: Callable[[DecodingStep], None] | None,
) -> torch.Tensor:
    """Draws the pictures of a batch (prompts, candidates, image tokens). Nothing here waits for the device."""
    request, count = batch.request, decoder.config.num_image_tokens
    rows = batch.prompts * batch.lanes
    copies = 2 if request.guided else 1  # the unconditional twins are the second half of the rows
    tokens = torch.zeros(rows, count, dtype=torch.long, device=decoder.device)
    decoder.allocate(batch.lanes)
    hidden = states[:, None]
    first = 0
    if batch.prefix is not None and batch.prefix.shape[2]:
        first = batch.prefix.shape[2]
        tokens.view(batch.prompts, batch.lanes, count)[:, :, :first] = batch.prefix
        hidden = decoder.read_rows(batch.prefix.repeat(copies, 1, 1))
    hidden = hidden.expand(-1, batch.lanes, -1).flatten(end_dim=1)
    for position in range(first, count):
        logits = decoder.logits(hidden)
        if request.guided:
            conditional, unconditional = logits.chunk(2)
            logits = guide(conditional, unconditional, request.guidance_scale)
        drawn = draw(logits, batch.uniforms[:, position], request.temperature, request.top_k, request.top_p)
        tokens[:, position] = drawn
        if callback is not None:
            callback(DecodingStep(position, count, batch.first_row, batch.drop_surplus(tokens).flatten(end_dim=1)))
        if position + 1 < count:
            hidden = decoder.step(drawn.repeat(copies), position)
    return batch.drop_surplus(tokens)


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
