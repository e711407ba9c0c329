r"""The transformer of DALLE-pytorch (https://github.com/lucidrains/DALLE-pytorch), for checkpoints trained with it.

It models the same stream as [`DalleTransformer`], text and then image tokens, with a start token before it and layers
of its own: see `layers` and `attention_types`. Two properties are kept for fidelity and are no recommendation: values
are rotated as well as queries and keys, and the text loss counts the pads.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from mosaics.models.dalle.dalle_pytorch.attention_types import stream_masks
from mosaics.models.dalle.dalle_pytorch.configuration_dalle_pytorch import DallePytorchTransformerConfig
from mosaics.models.dalle.dalle_pytorch.decoder import DallePytorchDecoder
from mosaics.models.dalle.dalle_pytorch.layers import DallePytorchLayer, LayerScale, Streams, rotary_angles
from mosaics.models.dalle.prior import DalleTransformerOutput, TextToImagePrior


class StreamEmbedding(nn.Module):
    """Text and image tokens to vectors, with positions if they are not rotated."""

    def __init__(self, config: DallePytorchTransformerConfig):
        super().__init__()
        self.config = config
        self.text_tokens: nn.Module = nn.Embedding(config.text_vocab_size + config.max_text_length, config.hidden_size)
        self.image_tokens = nn.Embedding(config.image_vocab_size, config.hidden_size)
        self.has_positions = config.rotary_size is None
        if self.has_positions:
            self.text_positions = nn.Embedding(config.text_length, config.hidden_size)
            self.rows = nn.Embedding(config.image_grid_size, config.hidden_size)
            self.columns = nn.Embedding(config.image_grid_size, config.hidden_size)

    def number_pads(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, T) with the pad of each position in place of the pad token."""
        pads = self.config.text_vocab_size + torch.arange(self.config.max_text_length, device=input_ids.device)
        return torch.where(input_ids == self.config.pad_token_id, pads, input_ids)

    def text(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(B, T) to (B, 1 + T, hidden_size), the start token first."""
        tokens = F.pad(self.number_pads(input_ids), (1, 0), value=self.config.bos_token_id)
        vectors = self.text_tokens(tokens)
        return vectors + self.text_positions.weight if self.has_positions else vectors

    def image_positions(self) -> torch.Tensor | None:
        """(W * W, hidden_size), if any."""
        if not self.has_positions:
            return None
        return (self.rows.weight[:, None] + self.columns.weight[None, :]).flatten(end_dim=1)

    def image(self, tokens: torch.Tensor) -> torch.Tensor:
        """(..., n) tokens of the first n raster positions to (..., n, hidden_size)."""
        vectors, positions = self.image_tokens(tokens), self.image_positions()
        return vectors if positions is None else vectors + positions[: tokens.shape[-1]]


class RotaryAngles(nn.Module):
    """The table of angles: saved with the weights, because it depends on the version of a package."""

    angles: torch.Tensor

    def __init__(self, num_positions: int, rotary_size: int):
        super().__init__()
        self.register_buffer("angles", torch.empty(num_positions, rotary_size))

    def forward(self) -> torch.Tensor:
        """(positions, rotary_size)."""
        return self.angles


class DallePytorchTransformer(TextToImagePrior):
    r"""A prior over text and image tokens of DALLE-pytorch, trained with `forward` and sampled with `generate`.

    Example:
    ```python
    >>> import torch
    >>> from mosaics.models.dalle.dalle_pytorch import DallePytorchTransformer, DallePytorchTransformerConfig

    >>> config = DallePytorchTransformerConfig(hidden_size=32, num_attention_heads=2, head_size=16, text_vocab_size=50,
    ...     max_text_length=8, image_vocab_size=16, image_grid_size=4, rotary_size=12)
    >>> model = DallePytorchTransformer(config).eval()
    >>> model.generate(torch.tensor([[5, 7, 3, 0, 0, 0, 0, 0]]), num_candidates=3, seed=0).shape
    torch.Size([3, 4, 4])

    ```
    """

    config: DallePytorchTransformerConfig
    config_class = DallePytorchTransformerConfig
    input_modalities = ["text", "image"]  # noqa: RUF012 (the form transformers expects)
    decoder_class = DallePytorchDecoder
    _no_split_modules = ["DallePytorchLayer"]  # noqa: RUF012 (the form transformers expects)
    _supports_sdpa = True
    _keep_in_fp32_modules_strict = ["rotary"]  # noqa: RUF012 (as above) - angles reach 8192

    def __init__(self, config: DallePytorchTransformerConfig):
        super().__init__(config)
        self.embedding = StreamEmbedding(config)
        self.rotary = None
        if config.rotary_size is not None:
            self.rotary = RotaryAngles(config.text_length + config.num_image_tokens, config.rotary_size)
        self.layers = nn.ModuleList([DallePytorchLayer(config, index) for index in range(config.num_hidden_layers)])
        self.head_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.text_head = nn.Linear(config.hidden_size, config.text_vocab_size + config.max_text_length)
        self.image_head = nn.Linear(config.hidden_size, config.image_vocab_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LayerScale):
            init.constant_(module.scale, module.initial_scale)
        elif isinstance(module, RotaryAngles):
            init.copy_(module.angles, rotary_angles(self.config))

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of the text tokens."""
        return self.embedding.text_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the embedding of the text tokens."""
        self.embedding.text_tokens = value

    def start_streams(self, hidden_states: torch.Tensor) -> Streams:
        """One residual stream, or two equal ones if `reversible`."""
        return (hidden_states,) * (2 if self.config.reversible else 1)

    def normalize(self, streams: Streams) -> torch.Tensor:
        """The streams after the last layer to what the heads read."""
        states = streams[0] if len(streams) == 1 else (streams[0] + streams[1]) / 2
        if self.config.stable:
            states = states / states.amax(dim=-1, keepdim=True).detach()
        return self.head_norm(states)

    def hidden_states(self, input_ids: torch.Tensor, image_tokens: torch.Tensor) -> torch.Tensor:
        """(B, T) text and (B, n) image tokens to the (B, 1 + T + n, hidden_size) states that the heads read."""
        states = torch.cat([self.embedding.text(input_ids), self.embedding.image(image_tokens)], dim=1)
        if self.config.stable:
            states = 0.1 * states + 0.9 * states.detach()
        length = states.shape[1]
        position = torch.arange(length, device=states.device)
        masks = stream_masks(self.config, position[:, None], position[None, :])
        angles = None if self.rotary is None else self.rotary()[:length]
        streams = self.start_streams(states)
        for layer in self.layers:
            streams = layer(streams, masks[layer.attention.pattern], angles)
        return self.normalize(streams)

    def forward(self, input_ids: torch.Tensor, indices: torch.Tensor) -> DalleTransformerOutput:
        r"""The loss of a batch of captioned images, all positions at once.

            loss = (text_loss + image_loss_weight * image_loss) / (1 + image_loss_weight)

        Args:
            input_ids: Text tokens (B, T), padded on the right with `config.pad_token_id` to T =
                `config.max_text_length`.
            indices: Codes of the image tokenizer (B, W, W).

        Returns:
            [`DalleTransformerOutput`]; its text logits are (B, T, text_vocab_size + T), the last T for the pads of the
            positions, and `[:, t]` predicts the text token t.
        """
        self._check_text(input_ids)
        self._check_indices(indices, len(input_ids))
        image_tokens = indices.flatten(start_dim=1)
        states = self.hidden_states(input_ids, image_tokens[:, :-1])  # the last image token has nothing to predict
        text_logits = self.text_head(states[:, : self.config.max_text_length])
        image_logits = self.image_head(states[:, self.config.max_text_length :])
        text_targets = self.embedding.number_pads(input_ids)
        text_loss = F.cross_entropy(text_logits.float().flatten(end_dim=1), text_targets.flatten())
        image_loss = F.cross_entropy(image_logits.float().flatten(end_dim=1), image_tokens.flatten())
        weight = self.config.image_loss_weight
        return DalleTransformerOutput(
            loss=(text_loss + weight * image_loss) / (1 + weight),
            text_loss=text_loss,
            image_loss=image_loss,
            text_logits=text_logits,
            image_logits=image_logits,
        )


__all__ = ["DallePytorchTransformer"]
