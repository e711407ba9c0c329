"""What the transformers of DALL-E have in common: a prior over a stream of text tokens and then image tokens.

A model is a [`TextToImagePrior`] with layers of its own and a decoder that computes them one token at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput

from mosaics.models.dalle.decoding import DecodingStep, GenerationRequest, check_tokens, decode
from mosaics.models.dalle.prior_decoder import PriorDecoder
from mosaics.models.pretrained import MosaicsPreTrainedModel
from mosaics.outputs import always_set


@dataclass
class DalleTransformerOutput(ModelOutput):
    """What a prior over text and image tokens returns; shapes and weights as of [`DalleTransformer`].

    Attributes:
        loss: `text_loss_weight * text_loss + image_loss_weight * image_loss`, a scalar.
        text_loss: Mean cross-entropy of the text tokens after the first, pads left out, in nats.
        image_loss: Mean cross-entropy of the image tokens, in nats.
        text_logits: (B, T - 1, text_vocab_size); `[:, t]` predicts the text token t + 1.
        image_logits: (B, W * W, image_vocab_size); `[:, q]` predicts the image token q.
        hidden_states: With `output_hidden_states=True`, what enters the first layer and what leaves each, (B, S,
            hidden_size), S = T + W * W - 1.
        attentions: With `output_attentions=True` and eager attention, the weights of each layer, (B, heads, S, S).
    """

    loss: torch.Tensor = always_set()
    text_loss: torch.Tensor = always_set()
    image_loss: torch.Tensor = always_set()
    text_logits: torch.Tensor = always_set()
    image_logits: torch.Tensor = always_set()
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class TextToImagePrior(MosaicsPreTrainedModel):
    """A prior whose `config` gives the sizes of the text and of the image grid, sampled with `generate`."""

    base_model_prefix = "transformer"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    decoder_class: type[PriorDecoder]
    image_head: nn.Linear

    __call__: Callable[..., DalleTransformerOutput]  # what `nn.Module` makes of `forward`

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor,
        num_candidates: int = 1,
        *,
        uniforms: torch.Tensor | None = None,
        seed: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance_scale: float = 1.0,
        prefix_indices: torch.Tensor | None = None,
        batch_size: int | None = None,
        callback: Callable[[DecodingStep], None] | None = None,
    ) -> torch.Tensor:
        r"""Samples image tokens for each prompt, one by one: `num_candidates` pictures of P prompts.

        Candidate c of prompt p is a pure function of the weights, the prompt, the sampling arguments and its own row
        of uniforms, so that it is the same picture in any batch.

        Args:
            input_ids: Text tokens (P, T), padded on the right with `config.pad_token_id` to T =
                `config.max_text_length`.
            num_candidates: Pictures C of each prompt.
            uniforms: The random numbers in [0, 1): (P * C, W * W), the candidates of a prompt adjacent. Drawn from
                `seed` by [`~mosaics.sampling.candidate_uniforms`] if not given.
            seed: Seed of the uniforms; drawn from torch's global generator if neither is given.
            temperature: Divides the logits; 0 takes the most likely token.
            top_k: Draw from the `top_k` most likely tokens only.
            top_p: Draw from the smallest set of most likely tokens that holds this probability, in (0, 1].
            guidance_scale: Classifier-free guidance: logits are `unconditional + scale * (conditional -
                unconditional)`, the unconditional ones for a text of pads only. 1 switches it off.
            prefix_indices: The first rows of the pictures, to be completed: (rows, W) for all, (P, rows, W) for each
                prompt or (P * C, rows, W) for each candidate.
            batch_size: Candidates computed at a time; if not given, as many as keep the caches within 512 MiB on the
                CPU and 4 GiB elsewhere. Bounds the memory, not the result.
            callback: Called after each token with a [`~mosaics.models.dalle.decoding.DecodingStep`].

        Returns:
            Image tokens (P * C, W, W), int64, the candidates of a prompt adjacent.
        """
        self._check_text(input_ids.cpu())
        request = GenerationRequest(
            self.config,
            input_ids=input_ids,
            num_candidates=num_candidates,
            uniforms=uniforms,
            seed=seed,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            guidance_scale=guidance_scale,
            prefix_indices=prefix_indices,
            batch_size=batch_size,
        )
        return decode(self, request, callback, self.decoder_class)

    def _check_text(self, input_ids: torch.Tensor) -> None:
        if input_ids.dim() != 2 or input_ids.shape[1] != self.config.max_text_length:
            raise ValueError(
                f"input_ids must be of shape (batch, max_text_length={self.config.max_text_length}), got "
                f"{tuple(input_ids.shape)}. Pad every text on the right with pad_token_id={self.config.pad_token_id}."
            )
        check_tokens("input_ids", input_ids, self.config.text_vocab_size, "text_vocab_size")

    def _check_indices(self, indices: torch.Tensor, batch: int) -> None:
        grid = self.config.image_grid_size
        if indices.shape != (batch, grid, grid):
            raise ValueError(
                f"indices must be of shape (batch={batch}, {grid}, {grid}) (config.image_grid_size={grid}), got "
                f"{tuple(indices.shape)}."
            )
        check_tokens("indices", indices, self.config.image_vocab_size, "image_vocab_size")
